//! What becomes of one call, told by the compiled program: from outside through a gateway, or from a pod to an address.
//! For trying out configurations, and for comparing with what others expect of them:
//!
//! ```sh
//! cargo run -p weir-mesh --example simulate -- --port 80 --host shop.example.com --path /cart gateway.yaml rules.yaml
//! cargo run -p weir-mesh --example simulate -- --address 10.96.0.7 --port 80 --host shop.web shop.yaml
//! ```
//!
//! Prints JSON: the listener, the route configuration, the virtual host, the route and the cluster by Envoy's names, or
//! why it came to nothing. With `--findings` what the compiler has to say, too.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints")]

use std::net::IpAddr;
use std::process::ExitCode;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value};
use weir_mesh::compile::{CompileOptions, compile};
use weir_mesh::program::{Connection, GatewayDecision, Handler, Program, decide_gateway};
use weir_mesh::request::{RequestView, Source};
use weir_mesh::route::{RouteDecision, decide, host};
use weir_mesh::store::Store;

/// One call.
#[derive(Default)]
struct Call {
    files: Vec<String>,
    /// Of a service: the call comes from a pod, and through no gateway.
    address: Option<IpAddr>,
    /// The gateway's own, where configurations tell it by its address.
    gateway_address: Option<IpAddr>,
    port: u16,
    host: String,
    path: String,
    method: Method,
    headers: HeaderMap,
    /// The client's namespace.
    namespace: String,
    tls: bool,
    sni: Option<String>,
    tcp: bool,
    findings: bool,
}

fn main() -> ExitCode {
    let outcome = arguments(std::env::args().skip(1)).and_then(|call| simulate(&call));
    match outcome {
        Ok(result) => {
            println!("{result:#}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("simulate: {why}");
            ExitCode::from(2)
        }
    }
}

fn arguments(mut given: impl Iterator<Item = String>) -> Result<Call, String> {
    let mut call = Call { path: "/".to_owned(), port: 80, namespace: "default".to_owned(), ..Call::default() };
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or_else(|| format!("{argument} needs a value"));
        match &*argument {
            "--address" => call.address = Some(parsed(&value()?)?),
            "--gateway-address" => call.gateway_address = Some(parsed(&value()?)?),
            "--port" => call.port = parsed(&value()?)?,
            "--host" => call.host = value()?,
            "--path" => call.path = value()?,
            "--method" => call.method = parsed(&value()?)?,
            "--namespace" => call.namespace = value()?,
            "--sni" => call.sni = Some(value()?),
            "--tls" => call.tls = true,
            "--tcp" => call.tcp = true,
            "--findings" => call.findings = true,
            "--header" => {
                let header = value()?;
                let (name, value) = header.split_once(':').ok_or("--header NAME:VALUE")?;
                let value = HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
                call.headers.append(parsed::<HeaderName>(name)?, value);
            }
            other if other.starts_with("--") => return Err(format!("{other} is not known")),
            _ => call.files.push(argument),
        }
    }
    Ok(call)
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` cannot be read"))
}

fn simulate(call: &Call) -> Result<Value, String> {
    let mut store = Store::new();
    for file in &call.files {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        store.set_file(file, &text);
    }
    let (snapshot, mut findings) = store.assemble();
    let mut options = CompileOptions::default();
    options.gateway.addresses.extend(call.gateway_address);
    let compiled = compile(&snapshot, &options);
    let mut result = Map::new();
    let (path, query) = call.path.split_once('?').map_or((&*call.path, None), |(path, query)| (path, Some(query)));
    let request = RequestView {
        method: &call.method,
        scheme: if call.tls { "https" } else { "http" },
        authority: &call.host,
        path,
        query,
        headers: &call.headers,
    };
    match call.address {
        Some(address) => in_mesh(&compiled.program, call, address, &request, &mut result),
        None => from_outside(&compiled.program, call, &request, &mut result),
    }
    if call.findings {
        findings.extend(compiled.findings);
        result.insert("findings".to_owned(), findings.iter().map(|finding| Value::from(finding.to_string())).collect());
    }
    Ok(Value::Object(result))
}

fn put(result: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    result.insert(key.to_owned(), value.into());
}

fn in_mesh(
    program: &Program,
    call: &Call,
    address: IpAddr,
    request: &RequestView<'_>,
    result: &mut Map<String, Value>,
) {
    let Some(port) = program.port_of(0, (address, call.port).into()) else {
        return put(result, "error", "ErrNoListener");
    };
    let source = Source { namespace: &call.namespace, view: 0 };
    if let Some(host) = host(program, port, &source, request.authority) {
        put(result, "virtualHost", format!("{}:{}", host.host, call.port));
    }
    let decision = decide(program, port, &source, request, 0);
    routed(&decision, result);
    if matches!(decision, RouteDecision::Forward { route: None, .. }) {
        put(result, "cluster", &*program.cluster(program.port(port).plain).name);
    }
}

fn from_outside(program: &Program, call: &Call, request: &RequestView<'_>, result: &mut Map<String, Value>) {
    let Some(id) = program.listener(None, call.port) else {
        return put(result, "error", "ErrNoListener");
    };
    let listener = program.gateway_listener(id);
    put(result, "listener", &*listener.name);
    let sni = call.sni.as_deref().or(Some(&*call.host)).filter(|sni| call.tls && !sni.is_empty());
    let connection = Connection { tls: call.tls, sni };
    let mut chains = listener.chains(connection);
    if let Some(chain) = chains.next() {
        put(result, "gateway", chain.gateway.to_string());
        if let Handler::Http(handler) = &chain.handler {
            put(result, "routeConfig", &*handler.name);
        }
    }
    // weir takes the oldest; Envoy takes none.
    let rivals = chains.count();
    if rivals > 0 {
        put(result, "rivalChains", rivals);
        put(result, "error", "ErrMultipleFilterChain");
    }
    let error = match decide_gateway(program, id, connection, (!call.tcp).then_some(request), 0) {
        GatewayDecision::NoChain => "ErrNoFilterChain",
        GatewayDecision::TlsMismatch => "ErrTLSError",
        GatewayDecision::NotHttp => "ErrProtocolError",
        GatewayDecision::NoHost => "ErrNoVirtualHost",
        GatewayDecision::HttpsRedirect(host) => {
            put(result, "virtualHost", &*host.name);
            "ErrTLSRedirect"
        }
        GatewayDecision::Routed(host, decision) => {
            put(result, "virtualHost", &*host.name);
            return routed(&decision, result);
        }
        GatewayDecision::Forward(destination) => {
            return put(result, "cluster", destination.map_or("", |destination| &*destination.name));
        }
    };
    result.entry("error").or_insert_with(|| error.into());
}

fn routed(decision: &RouteDecision<'_>, result: &mut Map<String, Value>) {
    match decision {
        RouteDecision::NoRoute => {
            result.entry("error").or_insert_with(|| "ErrNoRoute".into());
        }
        RouteDecision::Forward { route, destination, .. } => {
            put(result, "route", route.map_or("default", |route| &*route.name));
            if let Some(destination) = destination {
                put(result, "cluster", &*destination.name);
            }
        }
        RouteDecision::Redirect { route, redirect, .. } => {
            put(result, "route", &*route.name);
            put(result, "redirect", redirect.code);
        }
        RouteDecision::Respond { route, response } => {
            put(result, "route", &*route.name);
            put(result, "status", response.status);
        }
    }
}
