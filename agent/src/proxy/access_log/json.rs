//! A line as JSON, with the keys of Istio's JSON format and what weir knows beyond it. Used by [`super`].

use serde::Serialize;

use super::{Entry, timestamp};

/// The way that a logged connection or request took: those that the kernel balances by itself pass no proxy.
const VERDICT: &str = "proxy";

/// In the order of Istio's format; what is not known is `null`.
#[derive(Serialize)]
struct Line<'e> {
    start_time: String,
    route_name: Option<&'e str>,
    method: Option<&'e str>,
    path: Option<&'e str>,
    protocol: Option<&'static str>,
    response_code: u16,
    response_flags: String,
    response_code_details: Option<&'static str>,
    connection_termination_details: Option<&'static str>,
    upstream_transport_failure_reason: Option<&'e str>,
    bytes_received: u64,
    bytes_sent: u64,
    duration: u64,
    upstream_service_time: Option<u64>,
    x_forwarded_for: Option<&'e str>,
    user_agent: Option<&'e str>,
    request_id: Option<&'e str>,
    authority: Option<&'e str>,
    upstream_host: Option<String>,
    upstream_cluster: Option<&'e str>,
    upstream_local_address: Option<&'static str>,
    downstream_local_address: String,
    downstream_remote_address: String,
    requested_server_name: Option<&'e str>,
    source: &'e str,
    verdict: &'static str,
}

/// The line, with its line feed.
pub(super) fn write(entry: &Entry, out: &mut String) {
    let mut start_time = String::with_capacity(24);
    timestamp(&mut start_time, entry.start).expect("writing to a String does not fail");
    let line = Line {
        start_time,
        route_name: entry.route_name.as_deref(),
        method: entry.method.as_ref().map(http::Method::as_str),
        path: entry.path.as_deref(),
        protocol: entry.protocol(),
        response_code: entry.status,
        response_flags: entry.flags.to_string(),
        response_code_details: Some(entry.details).filter(|details| *details != "-"),
        connection_termination_details: None,
        upstream_transport_failure_reason: entry.transport_failure.as_deref(),
        bytes_received: entry.bytes_received,
        bytes_sent: entry.bytes_sent,
        duration: entry.started.elapsed().as_millis() as u64,
        upstream_service_time: entry.upstream_time,
        x_forwarded_for: entry.forwarded_for.as_deref(),
        user_agent: entry.user_agent.as_deref(),
        request_id: entry.request_id.as_deref(),
        authority: entry.authority.as_deref(),
        upstream_host: entry.upstream_host.map(|host| host.to_string()),
        upstream_cluster: entry.upstream_cluster.as_deref(),
        // The kernel's choice, which is not asked for.
        upstream_local_address: None,
        downstream_local_address: entry.downstream_local.to_string(),
        downstream_remote_address: entry.downstream_remote.to_string(),
        requested_server_name: entry.server_name.as_deref(),
        source: &entry.source,
        verdict: VERDICT,
    };
    out.push_str(&serde_json::to_string(&line).expect("texts and numbers are always JSON"));
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::config::LogFormat;
    use crate::proxy::error::Flag;

    #[test]
    fn a_line_is_one_object_with_istios_keys_whatever_a_client_sends() {
        let address = |last, port| SocketAddr::from(([10, 0, 0, last], port));
        let mut entry = Entry::new("shop/a".into(), address(1, 1000), address(2, 80));
        let hostile = "a\"}\t{\\";
        let request = http::Request::get("/x?y=1").header("host", "b").header("user-agent", hostile).body(());
        entry.head(&request.expect("a request"));
        entry.status = 429;
        entry.flags = Flag::RateLimited.into();
        entry.upstream_host = Some(address(3, 8080));
        let line = entry.line(LogFormat::Json);
        assert_eq!(line.matches('\n').count(), 1);
        let mut told: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(told["user_agent"], hostile);
        let told = told.as_object_mut().expect("an object");
        let mut keys: Vec<&str> = told.keys().map(String::as_str).collect();
        keys.sort_unstable();
        let mut istios =
            "start_time route_name method path protocol response_code response_flags response_code_details \
            connection_termination_details bytes_received bytes_sent duration upstream_service_time x_forwarded_for \
            user_agent request_id authority upstream_host upstream_cluster upstream_local_address \
            downstream_local_address downstream_remote_address requested_server_name \
            upstream_transport_failure_reason source verdict"
                .split_whitespace()
                .collect::<Vec<_>>();
        istios.sort_unstable();
        assert_eq!(keys, istios);
        let text = |key: &str| told[key].as_str().unwrap_or_default().to_owned();
        assert_eq!((told["response_code"].as_u64(), text("response_flags")), (Some(429), "RL".to_owned()));
        assert_eq!((text("upstream_host"), text("source")), ("10.0.0.3:8080".to_owned(), "shop/a".to_owned()));
        assert!(told["route_name"].is_null() && text("start_time").ends_with('Z'));
    }
}
