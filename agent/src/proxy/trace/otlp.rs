//! Spans to a collector: OTLP over HTTP, protobuf, in batches. Runs on the control runtime, so that a collector that is slow
//! or away costs spans, and no request. Started by `app`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use weir_mesh::program::Workload;

use super::{Span, Value};

/// Spans of one message, some 500 bytes each: collectors take 4 MiB.
const BATCH: usize = 512;
/// How long a span waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// A collector that does not answer in this time is taken to be away.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Of an answer nobody reads more than this.
const MAX_ANSWER: usize = 64 << 10;
/// OTLP's path where none is given.
const PATH: &str = "/v1/traces";

/// Where spans go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    authority: String,
    path: String,
}

impl Collector {
    /// From `http://HOST[:PORT][/PATH]`; 4318 and `/v1/traces` where they are not given.
    ///
    /// # Errors
    /// When it is no such URL.
    pub fn parse(url: &str) -> Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("{url:?} is no URL"))?;
        ensure!(uri.scheme_str() == Some("http"), "{url:?}: spans are exported over http:// only");
        let Some(host) = uri.host().filter(|host| !host.is_empty()) else { bail!("{url:?} names no host") };
        let path = if uri.path() == "/" { PATH } else { uri.path() };
        Ok(Self { authority: format!("{host}:{}", uri.port_u16().unwrap_or(4318)), path: path.to_owned() })
    }

    async fn post(&self, message: Vec<u8>) -> Result<()> {
        let stream = TcpStream::connect(&self.authority).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the sender.
        let driver = tokio::spawn(connection);
        let request = Request::post(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::CONNECTION, "close")
            .body(Full::new(Bytes::from(message)))?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let read = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        driver.abort();
        ensure!(status.is_success(), "it answered {status}");
        read.map_err(|error| anyhow::anyhow!(error))?;
        Ok(())
    }
}

/// Exports spans until nobody makes any more. What a collector does not take is lost; the log says when that begins and ends.
pub async fn export(collector: Collector, mut spans: mpsc::Receiver<Span>) {
    let mut away = false;
    let mut batch = Vec::new();
    while let Some(first) = spans.recv().await {
        batch.push(first);
        // Running out of time is how most batches end.
        let _ = timeout(GATHER, async {
            while batch.len() < BATCH
                && let Some(span) = spans.recv().await
            {
                batch.push(span);
            }
        })
        .await;
        let message = message(&batch);
        let sent = match timeout(EXPORT_TIMEOUT, collector.post(message)).await {
            Ok(sent) => sent,
            Err(_) => Err(anyhow::anyhow!("no answer within {} s", EXPORT_TIMEOUT.as_secs())),
        };
        match &sent {
            Ok(()) if away => tracing::info!(collector = %collector.authority, "spans are exported again"),
            Err(error) if !away => {
                tracing::warn!(collector = %collector.authority, %error, spans = batch.len(), "spans are lost");
            }
            Ok(()) | Err(_) => {}
        }
        away = sent.is_err();
        batch.clear();
    }
}

/// `ExportTraceServiceRequest`: a resource for each workload.
fn message(spans: &[Span]) -> Vec<u8> {
    let mut by_source: BTreeMap<&Arc<Workload>, Vec<&Span>> = BTreeMap::new();
    for span in spans {
        by_source.entry(&span.source).or_default().push(span);
    }
    let mut out = Vec::new();
    for (source, spans) in by_source {
        nested(&mut out, 1, |out| {
            nested(out, 1, |out| {
                let name = format!("{}.{}", source.canonical_service, source.namespace);
                attribute(out, 1, "service.name", &Value::Text(name));
            });
            nested(out, 2, |out| {
                nested(out, 1, |out| text(out, 1, "weir"));
                for span in spans {
                    nested(out, 2, |out| write_span(out, span));
                }
            });
        });
    }
    out
}

/// `SPAN_KIND_CLIENT`: it is seen from the side that asks.
const CLIENT: u64 = 3;
/// `STATUS_CODE_ERROR`
const ERROR: u64 = 2;

fn write_span(out: &mut Vec<u8>, span: &Span) {
    bytes(out, 1, &span.trace.to_be_bytes());
    bytes(out, 2, &span.id.to_be_bytes());
    if let Some(parent) = span.parent {
        bytes(out, 4, &parent.to_be_bytes());
    }
    text(out, 5, &span.name);
    number(out, 6, CLIENT);
    fixed64(out, 7, span.start);
    fixed64(out, 8, span.end);
    for (key, value) in &span.attributes {
        attribute(out, 9, key, value);
    }
    if span.failed {
        nested(out, 15, |out| number(out, 3, ERROR));
    }
}

/// A `KeyValue`. Texts that are empty tell nothing and are left out.
fn attribute(out: &mut Vec<u8>, field: u64, key: &str, value: &Value) {
    if matches!(value, Value::Text(text) if text.is_empty()) {
        return;
    }
    nested(out, field, |out| {
        text(out, 1, key);
        nested(out, 2, |out| match value {
            Value::Text(value) => text(out, 1, value),
            Value::Number(value) => number(out, 3, *value),
        });
    });
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn fixed64(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | 1);
    out.extend(value.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend(value);
}

fn text(out: &mut Vec<u8>, field: u64, value: &str) {
    bytes(out, field, value.as_bytes());
}

fn nested(out: &mut Vec<u8>, field: u64, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    bytes(out, field, &inner);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_a_plain_url() {
        let parts = |url| Collector::parse(url).map(|c| format!("{} {}", c.authority, c.path)).ok();
        assert_eq!(parts("http://otel.obs").as_deref(), Some("otel.obs:4318 /v1/traces"));
        assert_eq!(parts("http://10.0.0.1:80/x/y").as_deref(), Some("10.0.0.1:80 /x/y"));
        for bad in ["otel:4318", "https://otel", "http://", "grpc://otel", ""] {
            assert!(Collector::parse(bad).is_err(), "{bad}");
        }
    }

    /// Byte by byte; OpenTelemetry's own decoder reads this message, and its encoder writes it so.
    #[test]
    fn a_message_is_opentelemetrys() {
        let span = Span {
            trace: 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10,
            id: 0x1112_1314_1516_1718,
            parent: None,
            name: "b:80/*".into(),
            start: 1,
            end: 2,
            failed: true,
            source: Arc::new(Workload { canonical_service: "a".into(), namespace: "n".into(), ..Workload::default() }),
            attributes: vec![("k", Value::Number(300)), ("e", Value::Text(String::new()))],
        };
        let hex = message(&[span]).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let want = concat!(
            "0a6b", // resource_spans
            "0a17",
            "0a15",
            "0a0c736572766963652e6e616d65",
            "1205",
            "0a03612e6e", // resource: service.name = a.n
            "1250",
            "0a06",
            "0a0477656972", // scope_spans: scope: name = weir
            "1246",         // span
            "0a100102030405060708090a0b0c0d0e0f10",
            "12081112131415161718",
            "2a06623a38302f2a",
            "3003",
            "390100000000000000",
            "410200000000000000",
            "4a08",
            "0a016b",
            "1203",
            "18ac02", // attributes: k = 300
            "7a02",
            "1802", // status: error
        );
        assert_eq!(hex, want);
    }
}
