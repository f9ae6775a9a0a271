//! Access log lines in Istio's default text format, or as JSON with Istio's keys. Off unless the configuration has a channel
//! for them; `lines` takes them there. A line for which there is no room is dropped and counted: a slow disk never slows a
//! request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderName, Method, Version, header};

use self::text::quoted;
use super::error::Flags;
use crate::config::LogFormat;

mod json;
mod lines;
mod text;

pub(crate) use lines::Lines;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Where one of an entry's texts is; nowhere where it is not known, or empty.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Piece {
    from: usize,
    to: usize,
}

/// Everything that the format asks for and the proxy knows. `None` and empty are written `-`.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The client pod, `namespace/name`.
    pub(crate) source: Arc<str>,
    /// Those of the request's head, one after the other: one allocation for all.
    texts: String,
    pub(crate) start: SystemTime,
    pub(crate) started: Instant,
    pub(crate) method: Option<Method>,
    path: Piece,
    pub(crate) protocol: Option<Version>,
    pub(crate) status: u16,
    pub(crate) flags: Flags,
    pub(crate) details: &'static str,
    pub(crate) transport_failure: Option<String>,
    pub(crate) bytes_received: u64,
    pub(crate) bytes_sent: u64,
    /// Until the upstream's response head, in ms.
    pub(crate) upstream_time: Option<u64>,
    forwarded_for: Piece,
    user_agent: Piece,
    request_id: Piece,
    authority: Piece,
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
            texts: String::new(),
            start: SystemTime::now(),
            started: Instant::now(),
            method: None,
            path: Piece::default(),
            protocol: None,
            status: 0,
            flags: Flags::default(),
            details: "-",
            transport_failure: None,
            bytes_received: 0,
            bytes_sent: 0,
            upstream_time: None,
            forwarded_for: Piece::default(),
            user_agent: Piece::default(),
            request_id: Piece::default(),
            authority: Piece::default(),
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
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let headers = [&FORWARDED_FOR, &header::USER_AGENT, &REQUEST_ID].map(|name| request.headers().get(name));
        let values = headers.map(|value| value.map_or(&b""[..], http::HeaderValue::as_bytes));
        let host = request.headers().get(header::HOST).map_or(0, http::HeaderValue::len);
        self.texts.reserve(path.len() + values.iter().map(|value| value.len()).sum::<usize>() + host);
        self.method = Some(request.method().clone());
        self.path = self.keep(path.as_bytes());
        self.protocol = Some(request.version());
        [self.forwarded_for, self.user_agent, self.request_id] = values.map(|value| self.keep(value));
        self.authority(request);
    }

    /// Takes the host that a request is for.
    pub(crate) fn authority<B>(&mut self, request: &http::Request<B>) {
        let host = request.headers().get(header::HOST).map_or(&b""[..], http::HeaderValue::as_bytes);
        if self.text(self.authority).unwrap_or_default().as_bytes() != host {
            self.authority = self.keep(host);
        }
    }

    /// Keeps a text, with U+FFFD for what is none.
    fn keep(&mut self, value: &[u8]) -> Piece {
        let from = self.texts.len();
        for chunk in value.utf8_chunks() {
            self.texts.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                self.texts.push(char::REPLACEMENT_CHARACTER);
            }
        }
        Piece { from, to: self.texts.len() }
    }

    fn text(&self, piece: Piece) -> Option<&str> {
        self.texts.get(piece.from..piece.to).filter(|text| !text.is_empty())
    }

    /// Appends the line, with its line feed.
    fn line(&self, format: LogFormat, to: &mut String) {
        match format {
            LogFormat::Text => self.write(to),
            LogFormat::Json => json::write(self, to),
        }
    }

    fn protocol(&self) -> Option<&'static str> {
        match self.protocol {
            Some(Version::HTTP_10) => Some("HTTP/1.0"),
            Some(Version::HTTP_11) => Some("HTTP/1.1"),
            Some(Version::HTTP_2) => Some("HTTP/2"),
            _ => None,
        }
    }

    fn write(&self, out: &mut String) {
        out.push('[');
        text::timestamp(out, self.start);
        out.push_str("] \"");
        quoted(out, self.method.as_ref().map(Method::as_str));
        out.push(' ');
        quoted(out, self.text(self.path));
        out.push(' ');
        out.push_str(self.protocol().unwrap_or("-"));
        out.push_str("\" ");
        text::number(out, self.status.into());
        out.push(' ');
        if self.flags.is_empty() {
            out.push('-');
        } else {
            out.push_str(&self.flags.to_string());
        }
        out.push(' ');
        out.push_str(self.details);
        out.push_str(" - \"");
        quoted(out, self.transport_failure.as_deref());
        out.push_str("\" ");
        text::number(out, self.bytes_received);
        out.push(' ');
        text::number(out, self.bytes_sent);
        out.push(' ');
        text::number(out, self.started.elapsed().as_millis() as u64);
        out.push(' ');
        match self.upstream_time {
            Some(time) => text::number(out, time),
            None => out.push('-'),
        }
        for field in [self.forwarded_for, self.user_agent, self.request_id, self.authority] {
            out.push_str(" \"");
            quoted(out, self.text(field));
            out.push('"');
        }
        out.push_str(" \"");
        match self.upstream_host {
            Some(host) => text::address(out, host),
            None => out.push('-'),
        }
        out.push_str("\" ");
        out.push_str(self.upstream_cluster.as_deref().unwrap_or("-"));
        // The upstream connection's local address is the kernel's choice and is not asked for.
        out.push_str(" - ");
        text::address(out, self.downstream_local);
        out.push(' ');
        text::address(out, self.downstream_remote);
        out.push(' ');
        quoted(out, self.server_name.as_deref());
        out.push(' ');
        quoted(out, self.route_name.as_deref());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::error::Flag;

    #[test]
    fn a_line_has_istios_fields_in_istios_order_and_cannot_be_forged() {
        let address = |last, port| SocketAddr::from(([10, 0, 0, last], port));
        let mut entry = Entry::new("shop/a".into(), address(1, 1000), address(2, 80));
        let request = http::Request::get("/x?y=1").header("host", "b").header("user-agent", "a\" 200 \\").body(());
        entry.head(&request.unwrap());
        entry.status = 404;
        entry.flags = Flag::NoRoute.into();
        let mut line = String::new();
        entry.line(LogFormat::Text, &mut line);
        let (_, rest) = line.split_once("] ").unwrap();
        let (head, rest) = rest.split_at("\"GET /x?y=1 HTTP/1.1\" 404 NR - - \"-\" 0 0 ".len());
        assert_eq!(head, "\"GET /x?y=1 HTTP/1.1\" 404 NR - - \"-\" 0 0 ");
        // How long it took is this machine's affair.
        let (took, rest) = rest.split_once(' ').unwrap();
        assert!(took.parse::<u64>().is_ok_and(|ms| ms < 60_000), "{took}");
        assert_eq!(rest, "- \"-\" \"a\\\" 200 \\\\\" \"-\" \"b\" \"-\" - - 10.0.0.2:80 10.0.0.1:1000 - -\n");
    }
}
