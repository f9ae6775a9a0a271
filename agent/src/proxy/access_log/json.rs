//! A line as JSON, with the keys of Istio's JSON format and what weir knows beyond it. Used by [`super`].

use super::{Entry, text};

/// The way that a logged connection or request took: those that the kernel balances by itself pass no proxy.
const VERDICT: &str = "proxy";

/// The line, with its line feed; in the order of Istio's format, and what is not known is `null`.
pub(super) fn write(entry: &Entry, out: &mut String) {
    out.push_str("{\"start_time\":\"");
    text::timestamp(out, entry.start);
    out.push('"');
    string(out, "route_name", entry.route_name.as_deref());
    string(out, "method", entry.method.as_ref().map(http::Method::as_str));
    string(out, "path", entry.text(entry.path));
    string(out, "protocol", entry.protocol());
    number(out, "response_code", entry.status.into());
    if entry.flags.is_empty() {
        string(out, "response_flags", Some("-"));
    } else {
        string(out, "response_flags", Some(&entry.flags.to_string()));
    }
    string(out, "response_code_details", Some(entry.details).filter(|details| *details != "-"));
    string(out, "connection_termination_details", None);
    string(out, "upstream_transport_failure_reason", entry.transport_failure.as_deref());
    number(out, "bytes_received", entry.bytes_received);
    number(out, "bytes_sent", entry.bytes_sent);
    number(out, "duration", entry.started.elapsed().as_millis() as u64);
    match entry.upstream_time {
        Some(time) => number(out, "upstream_service_time", time),
        None => string(out, "upstream_service_time", None),
    }
    string(out, "x_forwarded_for", entry.text(entry.forwarded_for));
    string(out, "user_agent", entry.text(entry.user_agent));
    string(out, "request_id", entry.text(entry.request_id));
    string(out, "authority", entry.text(entry.authority));
    match entry.upstream_host {
        Some(host) => address(out, "upstream_host", host),
        None => string(out, "upstream_host", None),
    }
    string(out, "upstream_cluster", entry.upstream_cluster.as_deref());
    // The kernel's choice, which is not asked for.
    string(out, "upstream_local_address", None);
    address(out, "downstream_local_address", entry.downstream_local);
    address(out, "downstream_remote_address", entry.downstream_remote);
    string(out, "requested_server_name", entry.server_name.as_deref());
    string(out, "source", Some(&entry.source));
    string(out, "verdict", Some(VERDICT));
    out.push_str("}\n");
}

fn key(out: &mut String, key: &str) {
    out.push_str(",\"");
    out.push_str(key);
    out.push_str("\":");
}

fn number(out: &mut String, name: &str, number: u64) {
    key(out, name);
    text::number(out, number);
}

fn address(out: &mut String, name: &str, address: std::net::SocketAddr) {
    key(out, name);
    out.push('"');
    text::address(out, address);
    out.push('"');
}

fn string(out: &mut String, name: &str, value: Option<&str>) {
    key(out, name);
    match value {
        None => out.push_str("null"),
        Some(value) if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') => {
            out.push('"');
            out.push_str(value);
            out.push('"');
        }
        Some(value) => out.push_str(&serde_json::to_string(value).expect("every text can be JSON")),
    }
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
        let mut line = String::new();
        entry.line(LogFormat::Json, &mut line);
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
