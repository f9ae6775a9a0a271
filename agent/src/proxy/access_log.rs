//! Access log lines in Istio's default text format, or as JSON with Istio's keys. Off unless the configuration has a channel for them; a line for
//! which the channel has no room is dropped and counted, a slow disk never slows a request.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method, Version, header};

use super::error::Flags;
use crate::config::LogFormat;

mod json;

/// Everything that the format asks for and the proxy knows. `None` and empty are written `-`.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The client pod, `namespace/name`.
    pub(crate) source: Arc<str>,
    pub(crate) start: SystemTime,
    pub(crate) started: Instant,
    pub(crate) method: Option<Method>,
    pub(crate) path: Option<Box<str>>,
    pub(crate) protocol: Option<Version>,
    pub(crate) status: u16,
    pub(crate) flags: Flags,
    pub(crate) details: &'static str,
    pub(crate) transport_failure: Option<String>,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    /// Until the upstream's response head, in ms.
    pub(crate) upstream_time: Option<u64>,
    pub(crate) forwarded_for: Option<Box<str>>,
    pub(crate) user_agent: Option<Box<str>>,
    pub(crate) request_id: Option<Box<str>>,
    pub(crate) authority: Option<Box<str>>,
    pub(crate) upstream_host: Option<SocketAddr>,
    pub(crate) upstream_cluster: Option<Arc<str>>,
    pub(crate) downstream_local: SocketAddr,
    pub(crate) downstream_remote: SocketAddr,
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) route_name: Option<Arc<str>>,
}

impl Entry {
    /// Of a connection of the pod `source` from `remote` to `local` (where the client dialled); a request adds its head.
    pub(crate) fn new(source: Arc<str>, remote: SocketAddr, local: SocketAddr) -> Self {
        Self {
            source,
            start: SystemTime::now(),
            started: Instant::now(),
            method: None,
            path: None,
            protocol: None,
            status: 0,
            flags: Flags::default(),
            details: "-",
            transport_failure: None,
            bytes_received: 0,
            bytes_sent: 0,
            upstream_time: None,
            forwarded_for: None,
            user_agent: None,
            request_id: None,
            authority: None,
            upstream_host: None,
            upstream_cluster: None,
            downstream_local: local,
            downstream_remote: remote,
            server_name: None,
            route_name: None,
        }
    }

    /// Takes what the format wants of a request's head.
    pub(crate) fn head<B>(&mut self, request: &http::Request<B>) {
        let text = |name: &str| header_text(request.headers(), name);
        self.method = Some(request.method().clone());
        self.path = Some(request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str).into());
        self.protocol = Some(request.version());
        self.forwarded_for = text("x-forwarded-for");
        self.user_agent = text(header::USER_AGENT.as_str());
        self.request_id = text("x-request-id");
        self.authority(request);
    }

    /// Takes the host that a request is for.
    pub(crate) fn authority<B>(&mut self, request: &http::Request<B>) {
        self.authority = header_text(request.headers(), header::HOST.as_str());
    }

    /// The line, with its line feed.
    pub(crate) fn line(&self, format: LogFormat) -> String {
        let mut line = String::with_capacity(768);
        match format {
            LogFormat::Text => self.write(&mut line).expect("writing to a String does not fail"),
            LogFormat::Json => json::write(self, &mut line),
        }
        line
    }

    fn protocol(&self) -> Option<&'static str> {
        match self.protocol {
            Some(Version::HTTP_10) => Some("HTTP/1.0"),
            Some(Version::HTTP_11) => Some("HTTP/1.1"),
            Some(Version::HTTP_2) => Some("HTTP/2"),
            _ => None,
        }
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        out.push('[');
        timestamp(out, self.start)?;
        out.push_str("] \"");
        quoted(out, self.method.as_ref().map(Method::as_str));
        out.push(' ');
        quoted(out, self.path.as_deref());
        let protocol = self.protocol().unwrap_or("-");
        write!(out, " {protocol}\" {} {} {} - \"", self.status, self.flags, self.details)?;
        quoted(out, self.transport_failure.as_deref());
        let duration = self.started.elapsed().as_millis();
        write!(out, "\" {} {} {duration} ", self.bytes_received, self.bytes_sent)?;
        or_dash(out, self.upstream_time)?;
        for field in [&self.forwarded_for, &self.user_agent, &self.request_id, &self.authority] {
            out.push_str(" \"");
            quoted(out, field.as_deref());
            out.push('"');
        }
        out.push_str(" \"");
        or_dash(out, self.upstream_host)?;
        out.push_str("\" ");
        out.push_str(self.upstream_cluster.as_deref().unwrap_or("-"));
        // The upstream connection's local address is the kernel's choice and is not asked for.
        write!(out, " - {} {} ", self.downstream_local, self.downstream_remote)?;
        quoted(out, self.server_name.as_deref());
        out.push(' ');
        quoted(out, self.route_name.as_deref());
        out.push('\n');
        Ok(())
    }
}

fn header_text(headers: &HeaderMap, name: &str) -> Option<Box<str>> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into())
}

fn or_dash(out: &mut String, value: Option<impl std::fmt::Display>) -> std::fmt::Result {
    match value {
        Some(value) => write!(out, "{value}"),
        None => out.write_str("-"),
    }
}

/// What a client sent must neither end the field nor the line.
fn quoted(out: &mut String, value: Option<&str>) {
    match value {
        None | Some("") => out.push('-'),
        Some(value) => {
            for c in value.chars() {
                match c {
                    '"' | '\\' => out.extend(['\\', c]),
                    c if c.is_control() => out.extend(c.escape_default()),
                    c => out.push(c),
                }
            }
        }
    }
}

/// `2026-11-21T14:35:46.123Z`
fn timestamp(out: &mut String, at: SystemTime) -> std::fmt::Result {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Years that begin in March put the leap day at their end; 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::error::Flag;
    use std::time::Duration;

    #[test]
    fn timestamps_know_the_calendar() {
        for (seconds, want) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_767_225_599, "2025-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            let mut out = String::new();
            timestamp(&mut out, UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7)).unwrap();
            assert_eq!(out, want);
        }
    }

    #[test]
    fn a_line_has_istios_fields_in_istios_order_and_cannot_be_forged() {
        let address = |last, port| SocketAddr::from(([10, 0, 0, last], port));
        let mut entry = Entry::new("shop/a".into(), address(1, 1000), address(2, 80));
        let request = http::Request::get("/x?y=1").header("host", "b").header("user-agent", "a\" 200 \\").body(());
        entry.head(&request.unwrap());
        entry.status = 404;
        entry.flags = Flag::NoRoute.into();
        let line = entry.line(LogFormat::Text);
        let (_, rest) = line.split_once("] ").unwrap();
        let (head, rest) = rest.split_at("\"GET /x?y=1 HTTP/1.1\" 404 NR - - \"-\" 0 0 ".len());
        assert_eq!(head, "\"GET /x?y=1 HTTP/1.1\" 404 NR - - \"-\" 0 0 ");
        // How long it took is this machine's affair.
        let (took, rest) = rest.split_once(' ').unwrap();
        assert!(took.parse::<u64>().is_ok_and(|ms| ms < 60_000), "{took}");
        assert_eq!(rest, "- \"-\" \"a\\\" 200 \\\\\" \"-\" \"b\" \"-\" - - 10.0.0.2:80 10.0.0.1:1000 - -\n");
    }
}
