//! The admin endpoint on loopback: probes, status and metrics. Runs on the control runtime, never on a worker.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// A probe or a scrape takes a connection each; more than this at once is a mistake.
const MAX_CONNECTIONS: usize = 64;
/// A client that sends no request within this time is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// After an error of accept (no descriptors left): wait instead of spinning.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What the endpoint shows; `app` gives it.
pub trait Answers: Send + Sync {
    /// A configuration is in force.
    fn ready(&self) -> bool;
    /// What is in force, as JSON.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    fn status(&self) -> serde_json::Result<Vec<u8>>;
    /// In Prometheus' text format; an error in words when the kernel's counters cannot be read.
    ///
    /// # Errors
    /// See above.
    fn metrics(&self) -> Result<String, String>;
}

/// Serves until the runtime ends.
pub async fn serve(listener: TcpListener, answers: Arc<dyn Answers>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin endpoint");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let answers = Arc::clone(&answers);
                async move { Ok::<_, Infallible>(answer(&request, &*answers)) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            // A client that goes away in the middle of its own request is its own business.
            drop(server.serve_connection(TokioIo::new(stream), service).await);
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, answers: &dyn Answers) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
    }
    match request.uri().path() {
        "/healthz" => text(StatusCode::OK, "ok\n"),
        "/readyz" if answers.ready() => text(StatusCode::OK, "ready\n"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "no configuration in force\n"),
        "/status" => match answers.status() {
            Ok(json) => reply(StatusCode::OK, "application/json", json),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
        },
        "/metrics" | "/stats/prometheus" => match answers.metrics() {
            Ok(body) => reply(StatusCode::OK, "text/plain; version=0.0.4", body.into_bytes()),
            Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{why}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "/healthz /readyz /status /metrics\n"),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    reply(status, "text/plain; charset=utf-8", body.to_owned().into_bytes())
}

fn reply(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
