//! The others: Envoy, HAProxy and nginx, with the same routes as the manifests of [`crate::mesh`], each written as its
//! users would; and the origin, which is nginx for everybody. Used by `rounds`.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weir_tests::require;

use crate::mesh::{FEW_ROUTES, HEADER, HOSTS, PREFIX, SPLIT, VERSIONS, host, route};

/// Idle upstream connections that are kept; more than any case has at once.
const KEPT: usize = 1024;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// The base that all are compared with.
    Envoy,
    /// weir on the C library's allocator.
    Weir,
    /// weir on mimalloc.
    WeirMimalloc,
    /// Rules as a map.
    Haproxy,
    /// Rules as a hash map.
    Nginx,
}

impl Subject {
    /// All, the base first.
    pub const ALL: [Self; 5] = [Self::Envoy, Self::Weir, Self::WeirMimalloc, Self::Haproxy, Self::Nginx];

    /// Its name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Weir => "weir",
            Self::WeirMimalloc => "weir-mimalloc",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }
}

/// What a subject is started with.
#[derive(Clone, Copy, Debug)]
pub struct Setup<'a> {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Rules of the last host.
    pub routes: usize,
    /// Threads, or processes.
    pub workers: usize,
    /// Bytes instead of HTTP.
    pub bytes: bool,
    /// The origins' port.
    pub origin_port: u16,
    /// A directory of its own.
    pub directory: &'a Path,
    /// Envoy.
    pub envoy: &'a Path,
}

impl Setup<'_> {
    fn origins(&self) -> [SocketAddr; 2] {
        VERSIONS.map(|address| SocketAddr::from((address, self.origin_port)))
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// Rules of a host.
    fn rules(&self, host: usize) -> usize {
        if host + 1 == HOSTS { self.routes } else { FEW_ROUTES }
    }
}

/// A program of the machine.
///
/// # Errors
/// When it is not installed.
pub fn installed(name: &str) -> Result<PathBuf> {
    require::program(name).with_context(|| format!("{name} is not installed"))
}

/// Envoy.
///
/// # Errors
/// When its configuration cannot be written.
pub fn envoy(setup: &Setup<'_>) -> Result<Command> {
    let filter = if setup.bytes { envoy_tcp() } else { envoy_http(setup) };
    let [v1, v2] = setup.origins();
    let cluster = |name: &str, origin: SocketAddr| {
        json!({
            "name": name, "type": "STATIC", "connect_timeout": "10s",
            "outlier_detection": { "consecutive_5xx": 5, "interval": "10s", "base_ejection_time": "30s" },
            "circuit_breakers": { "thresholds": [{ "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000 }] },
            "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": envoy_address(origin) } }] }] },
        })
    };
    let configuration = json!({
        "static_resources": {
            "listeners": [{
                "name": "bench", "address": envoy_address(setup.listen), "enable_reuse_port": true,
                "filter_chains": [{ "filters": [filter] }],
            }],
            "clusters": [cluster("v1", v1), cluster("v2", v2)],
        },
        // Without it Envoy warns of no limit, and a burst of connections is one.
        "overload_manager": { "resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": 50_000,
            },
        }] },
    });
    let path = setup.file("envoy.json", &configuration.to_string())?;
    let mut command = Command::new(setup.envoy);
    command.arg("-c").arg(path).arg("--concurrency").arg(setup.workers.to_string());
    command.args(["--disable-hot-restart", "--log-level", "error"]);
    Ok(command)
}

fn envoy_address(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } })
}

fn envoy_weighted() -> Value {
    let [v1, v2] = SPLIT;
    json!({ "clusters": [{ "name": "v1", "weight": v1 }, { "name": "v2", "weight": v2 }] })
}

fn envoy_http(setup: &Setup<'_>) -> Value {
    let hosts: Vec<Value> = (0..HOSTS)
        .map(|number| {
            let mut routes: Vec<Value> = (0..setup.rules(number))
                .map(|rule| {
                    json!({
                        "match": {
                            "prefix": PREFIX,
                            "headers": [{ "name": HEADER, "string_match": { "exact": route(rule) } }],
                        },
                        "route": {
                            "weighted_clusters": envoy_weighted(), "timeout": "0s",
                            "retry_policy": { "retry_on": "connect-failure,refused-stream", "num_retries": 2 },
                        },
                    })
                })
                .collect();
            routes.push(json!({ "match": { "prefix": "/" }, "route": { "cluster": "v1" } }));
            json!({ "name": host(number), "domains": [host(number)], "routes": routes })
        })
        .collect();
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "bench", "codec_type": "AUTO",
            "route_config": { "name": "bench", "virtual_hosts": hosts },
            "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }],
        },
    })
}

fn envoy_tcp() -> Value {
    json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "bench", "weighted_clusters": envoy_weighted(),
        },
    })
}

/// HAProxy.
///
/// # Errors
/// When it is not installed, or its configuration cannot be written.
pub fn haproxy(setup: &Setup<'_>) -> Result<Command> {
    let mode = if setup.bytes { "tcp" } else { "http" };
    // It wants 2.5 descriptors for each.
    let mut text = format!(
        "global\n  nbthread {}\n  maxconn 5000\n  tune.idle-pool.shared on\n\
         defaults\n  mode {mode}\n  timeout connect 10s\n  timeout client 1h\n  timeout server 1h\n",
        setup.workers
    );
    if setup.bytes {
        text += "  option splice-auto\n";
    } else {
        text += "  http-reuse always\n";
    }
    let _infallible = write!(text, "frontend in\n  bind {}\n  default_backend plain\n", setup.listen);
    if !setup.bytes {
        // A rule each would be looked through one by one; a map is what its manual advises for this many.
        let mut map = String::new();
        for number in 0..HOSTS {
            for rule in 0..setup.rules(number) {
                let _infallible = writeln!(map, "{}|{} split", host(number), route(rule));
            }
        }
        let map = setup.file("routes.map", &map)?;
        let _infallible = write!(
            text,
            "  http-request set-var(txn.route) req.hdr({HEADER})\n  \
             use_backend %[req.hdr(host),lower,concat(|,txn.route),map_str({},plain)] if {{ path_beg {PREFIX} }}\n",
            map.display()
        );
    }
    let [v1, v2] = setup.origins();
    let observe = if setup.bytes { "layer4" } else { "layer7" };
    let check = format!("check inter 10s observe {observe} error-limit 5 on-error mark-down");
    let [w1, w2] = SPLIT;
    let _infallible = write!(
        text,
        "backend split\n  balance roundrobin\n  server v1 {v1} weight {w1} {check}\n  server v2 {v2} weight {w2} {check}\n\
         backend plain\n  server v1 {v1}\n"
    );
    if setup.bytes {
        text = text.replace("default_backend plain", "default_backend split");
    }
    let path = setup.file("haproxy.cfg", &text)?;
    let mut command = Command::new(installed("haproxy")?);
    command.arg("-db").arg("-f").arg(path);
    Ok(command)
}

/// What both of nginx's roles begin with.
fn nginx_head(setup: &Setup<'_>, stream: bool) -> String {
    let directory = setup.directory.display();
    let module = Path::new("/usr/lib/nginx/modules/ngx_stream_module.so");
    let load = if stream { format!("load_module {};\n", module.display()) } else { String::new() };
    // One process where one is enough, so that no second one is counted.
    let processes = if setup.workers == 1 {
        "master_process off;".to_owned()
    } else {
        format!("worker_processes {};", setup.workers)
    };
    format!(
        "{load}daemon off;\n{processes}\npid {directory}/nginx.pid;\nerror_log {directory}/error.log error;\n\
         events {{ worker_connections 5000; }}\n"
    )
}

fn nginx_http(directory: &Path) -> String {
    let mut text =
        "access_log off; server_tokens off; keepalive_timeout 1h; keepalive_requests 1000000000; tcp_nodelay on;\n"
            .to_owned();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _infallible = writeln!(text, "{kind}_temp_path {}/{kind};", directory.display());
    }
    text
}

fn nginx_command(setup: &Setup<'_>, text: &str) -> Result<Command> {
    let path = setup.file("nginx.conf", text)?;
    let mut command = Command::new(installed("nginx")?);
    command.arg("-c").arg(path).arg("-p").arg(setup.directory).arg("-e").arg(setup.directory.join("error.log"));
    Ok(command)
}

/// nginx as a proxy.
///
/// # Errors
/// When it is not installed, or its configuration cannot be written.
pub fn nginx(setup: &Setup<'_>) -> Result<Command> {
    let [v1, v2] = setup.origins();
    let [w1, w2] = SPLIT;
    let servers = format!(
        "server {v1} weight={w1} max_fails=5 fail_timeout=30s; server {v2} weight={w2} max_fails=5 fail_timeout=30s;"
    );
    let mut text = nginx_head(setup, setup.bytes);
    if setup.bytes {
        let _infallible = writeln!(
            text,
            "stream {{ upstream split {{ {servers} }} server {{ listen {} backlog=4096; proxy_pass split; tcp_nodelay on; }} }}",
            setup.listen
        );
        return nginx_command(setup, &text);
    }
    text += "http {\n";
    text += &nginx_http(setup.directory);
    text += "map_hash_max_size 8192; map_hash_bucket_size 128;\n";
    for number in 0..HOSTS {
        let _infallible = writeln!(text, "map $http_{} $backend{number} {{ default plain;", HEADER.replace('-', "_"));
        for rule in 0..setup.rules(number) {
            let _infallible = writeln!(text, "{} split;", route(rule));
        }
        text += "}\n";
    }
    let _infallible = write!(
        text,
        "upstream split {{ {servers} keepalive {KEPT}; keepalive_requests 1000000000; }}\n\
         upstream plain {{ server {v1}; keepalive {KEPT}; keepalive_requests 1000000000; }}\n"
    );
    let reuse = if setup.workers > 1 { " reuseport" } else { "" };
    for number in 0..HOSTS {
        // Options of a listener are said once.
        let options = if number == 0 { format!(" backlog=4096{reuse}") } else { String::new() };
        let _infallible = writeln!(
            text,
            "server {{ listen {}{options}; server_name {}; location {PREFIX} {{ proxy_pass http://$backend{number}; \
             proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; }} \
             location / {{ proxy_pass http://plain; }} }}",
            setup.listen,
            host(number)
        );
    }
    text += "}\n";
    nginx_command(setup, &text)
}

/// The port at which the origin speaks TLS, for the one where it does not.
pub fn tls_port(origin_port: u16) -> u16 {
    origin_port + 1
}

/// The origin of all cases: `/api/1k`, `/api/64k`, `/api/16m` and `/api/0`, with the header `x-version`.
///
/// # Errors
/// When nginx is not installed, or its files cannot be written.
pub fn origin(setup: &Setup<'_>) -> Result<Command> {
    let root = setup.directory.join("root/api");
    std::fs::create_dir_all(&root)?;
    for (name, bytes) in [("64k", 64 << 10), ("16m", 16 << 20)] {
        std::fs::write(root.join(name), vec![b'x'; bytes])?;
    }
    let mut text = nginx_head(setup, false);
    text += "http {\n";
    text += &nginx_http(setup.directory);
    text += "sendfile on; tcp_nopush on; open_file_cache max=16; etag off; default_type application/octet-stream;\n";
    let small = "x".repeat(1024);
    let own = rcgen::generate_simple_self_signed(["origin".to_owned()]).context("a certificate")?;
    let certificate = setup.file("origin.pem", &own.cert.pem())?;
    let key = setup.file("origin.key", &own.signing_key.serialize_pem())?;
    let _infallible =
        writeln!(text, "ssl_certificate {}; ssl_certificate_key {};", certificate.display(), key.display());
    for (version, address) in ["v1", "v2"].iter().zip(VERSIONS) {
        let _infallible = writeln!(
            text,
            "server {{ listen {0}:{1} backlog=4096; listen {0}:{2} ssl backlog=4096; add_header x-version {version} always; root {3}; \
             location = {PREFIX}1k {{ return 200 \"{small}\"; }} location {PREFIX} {{ }} }}",
            Ipv4Addr::from(address),
            setup.origin_port,
            tls_port(setup.origin_port),
            setup.directory.join("root").display()
        );
    }
    text += "}\n";
    nginx_command(setup, &text)
}
