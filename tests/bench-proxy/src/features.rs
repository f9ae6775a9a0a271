//! What each feature costs a request that uses it, beside one that uses none: counted, and as CPU time of 32 connections
//! without a pause. One feature at a time and none run in turns, so that what the machine does besides hits both. Called by
//! `main`.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use weir_tests::interrupt;

use crate::cost::{self, CONNECTIONS, Counted, Traced};
use crate::load::{self, Load, Spec};
use crate::mesh::{self, Extras, FEW_ROUTES};
use crate::origin::BODY;
use crate::peers;
use crate::report::Spread;
use crate::rounds::{self, LOAD_CPU, ORIGIN_PORT, Options, WARM_UP};

/// What stands for the directory and for an origin in arguments.
const DIRECTORY: &str = "DIRECTORY";
const ORIGIN: &str = "ORIGIN";

/// One feature.
#[derive(Clone, Copy, Debug)]
struct Feature {
    name: &'static str,
    extras: Extras,
    /// The origin speaks TLS.
    tls: bool,
    arguments: &'static [&'static str],
}

const NONE: Feature = Feature { name: "none of these", extras: Extras::NONE, tls: false, arguments: &[] };

const fn rule(name: &'static str, rule: &'static str) -> Feature {
    Feature { name, extras: Extras { rule, ..Extras::NONE }, ..NONE }
}

const fn balancer(name: &'static str, balancer: &'static str) -> Feature {
    Feature { name, extras: Extras { balancer, ..Extras::NONE }, ..NONE }
}

const fn limited(name: &'static str, annotations: &'static str) -> Feature {
    Feature { name, extras: Extras { annotations, ..Extras::NONE }, ..NONE }
}

const fn policy(name: &'static str, policy: &'static str) -> Feature {
    Feature { name, extras: Extras { policy, ..Extras::NONE }, ..NONE }
}

const fn agents(name: &'static str, arguments: &'static [&'static str]) -> Feature {
    Feature { name, arguments, ..NONE }
}

/// All, in the order of the report.
const FEATURES: &[Feature] = &[
    Feature {
        name: "a match by regular expression",
        extras: Extras { headers: ", x-user: {regex: \"[a-z]+-[0-9]+\"}", ..Extras::NONE },
        ..NONE
    },
    rule("timeout", "    timeout: 5s\n"),
    rule(
        "retries, with a timeout for each try",
        "    retries: {attempts: 3, perTryTimeout: 2s, retryOn: \"5xx,reset,connect-failure\"}\n",
    ),
    rule("rewrite of path and authority", "    rewrite: {uri: /api/, authority: new.example}\n"),
    rule(
        "headers: two set, one added, two removed",
        "    headers: {request: {set: {x-set: a}, add: {x-added: b}, remove: [x-request-source]}, \
         response: {set: {x-answered: c}, remove: [server]}}\n",
    ),
    rule("CORS", "    corsPolicy: {allowOrigins: [{exact: \"http://page.example\"}], allowMethods: [GET]}\n"),
    rule(
        "fault (a delay for one in a million)",
        "    fault: {delay: {fixedDelay: 1ms, percentage: {value: 0.0001}}}\n",
    ),
    rule(
        "mirror of 10 %",
        "    mirrors: [{destination: {host: app-9, subset: v2, port: {number: 80}}, percentage: {value: 10}}]\n",
    ),
    rule(
        "mirror of all",
        "    mirrors: [{destination: {host: app-9, subset: v2, port: {number: 80}}, percentage: {value: 100}}]\n",
    ),
    limited("rate limit", "weir.mesh/rate-limit: \"10000000/s\""),
    limited("rate limit per source", "weir.mesh/rate-limit: \"10000000/s per source\""),
    balancer("LEAST_REQUEST", "{simple: LEAST_REQUEST}"),
    balancer("consistentHash by header (ring)", "{consistentHash: {httpHeaderName: x-user}}"),
    balancer(
        "consistentHash by cookie (Maglev)",
        "{consistentHash: {httpCookie: {name: seen, ttl: 60s}, maglev: {tableSize: 65537}}}",
    ),
    policy(
        "circuit breakers",
        ", connectionPool: {tcp: {maxConnections: 10000}, http: {http1MaxPendingRequests: 10000, http2MaxRequests: 10000}}",
    ),
    Feature { tls: true, ..policy("TLS to the endpoint", ", tls: {mode: SIMPLE, insecureSkipVerify: true}") },
    agents("access log, text", &["--access-log", "DIRECTORY/access.log"]),
    agents("access log, JSON", &["--access-log", "DIRECTORY/access.log", "--access-log-json"]),
    agents("tracing, 1 % recorded", &["--trace-collector", "http://ORIGIN/api/1k", "--trace-sampling", "1"]),
    agents("tracing, all recorded", &["--trace-collector", "http://ORIGIN/api/1k", "--trace-sampling", "100"]),
];

/// What a request with one of them costs.
#[derive(Clone, Debug, Serialize)]
pub struct FeatureCost {
    /// Which.
    pub name: &'static str,
    /// In user mode, by callgrind.
    pub instructions: f64,
    /// And reallocations.
    pub allocations: f64,
    /// CPU µs of each round: with it, and without any in the same turn.
    pub cpu_us: Vec<[f64; 2]>,
}

impl FeatureCost {
    /// CPU µs that it adds.
    pub fn added(&self) -> Option<Spread> {
        Spread::of(self.cpu_us.iter().map(|[with, without]| with - without))
    }
}

/// Measures all of them; the first is the one without.
///
/// # Errors
/// When a subject or a tool fails, or an answer is wrong.
pub fn measure(options: &Options, mut told: impl FnMut(&FeatureCost)) -> Result<Vec<FeatureCost>> {
    let _origin = rounds::origin(options)?;
    let mut costs = Vec::new();
    for (n, feature) in [NONE].iter().chain(FEATURES).enumerate() {
        interrupt::check()?;
        let cost = measure_one(feature, n, options).with_context(|| format!("feature `{}`", feature.name))?;
        told(&cost);
        costs.push(cost);
    }
    Ok(costs)
}

fn measure_one(feature: &Feature, n: usize, options: &Options) -> Result<FeatureCost> {
    let counted = counted(feature, n, options)?;
    let mut cost = FeatureCost {
        name: feature.name,
        instructions: cost::instructions_of(&counted)?,
        allocations: cost::allocations_of(&counted)?,
        cpu_us: Vec::new(),
    };
    let start = |counted| cost::start(&[], counted, cost::USUAL_TICK);
    let mut subjects = [start(&counted)?, start(&self::counted(&NONE, 0, options)?)?];
    for round in 0..options.rounds {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        let mut cpu_us = [0.0; 2];
        for n in order {
            interrupt::check()?;
            cpu_us[n] = cpu(&mut subjects[n], &counted.request, options)?;
        }
        cost.cpu_us.push(cpu_us);
    }
    Ok(cost)
}

fn counted(feature: &Feature, n: usize, options: &Options) -> Result<Counted> {
    let directory = options.directory.join("features").join(n.to_string());
    std::fs::create_dir_all(&directory)?;
    let port = if feature.tls { peers::tls_port(ORIGIN_PORT) } else { ORIGIN_PORT };
    let origin = SocketAddr::from((mesh::VERSIONS[0], ORIGIN_PORT)).to_string();
    let fill = |argument: &&str| argument.replace(DIRECTORY, &directory.display().to_string()).replace(ORIGIN, &origin);
    let arguments = feature.arguments.iter().map(fill).collect();
    Ok(Counted {
        subject: options.binaries.join("weir-proxy"),
        manifests: mesh::manifests_with(FEW_ROUTES, port, &feature.extras),
        directory,
        arguments,
        request: request(),
    })
}

/// The same for all, with what any of them looks at.
fn request() -> Vec<u8> {
    let mut request = load::request("1k", FEW_ROUTES - 1, false);
    request.truncate(request.len() - b"\r\n".len());
    request.extend_from_slice(
        b"origin: http://page.example\r\nx-user: user-4711\r\ncookie: seen=0123456789abcdef\r\n\r\n",
    );
    request
}

/// CPU µs of a request.
fn cpu(running: &mut Traced, request: &[u8], options: &Options) -> Result<f64> {
    let spec = Spec {
        target: running.address,
        connections: CONNECTIONS,
        request: request.to_vec(),
        body: BODY as u64,
        fresh: false,
        rate: None,
        cpu: LOAD_CPU,
    };
    let load = Load::start(spec)?;
    std::thread::sleep(WARM_UP);
    let (count, usage) = (load.count(), running.process.usage()?);
    std::thread::sleep(options.duration);
    let count = load.count().since(count);
    let usage = running.process.usage()?.since(usage);
    load.stop()?;
    ensure!(count.wrong == 0 && count.requests() > 0, "{count:?}");
    Ok(usage.cpu.as_secs_f64() * 1e6 / count.requests() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_can_be_carried_out() {
        for feature in FEATURES {
            mesh::program(&mesh::manifests_with(FEW_ROUTES, 80, &feature.extras)).expect(feature.name);
        }
    }
}
