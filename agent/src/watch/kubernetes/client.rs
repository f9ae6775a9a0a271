//! The connection to the API server: one HTTP/2 connection for all watches, with a limit of time on everything that is
//! waited for. What failed is told with what the callers decide on: the status, and how long to stay away.
//!
//! The layers are kube's where they know Kubernetes (credentials, certificates, kubeconfig); its own assembly of them
//! retries behind the caller's back, logs each failure as an error, and speaks HTTP/1.1, a connection for each watch.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ConfigExt};
use kube::{Client, Config};
use serde::Deserialize;
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder};
use tower_http::decompression::DecompressionLayer;

use crate::cluster::Access;

/// A TCP and TLS handshake takes milliseconds; a host that drops packets answers never.
const CONNECT: Duration = Duration::from_secs(10);
/// The head of an answer. The API server itself gives up on a request after 60 s.
const ANSWER: Duration = Duration::from_secs(65);
/// Between two pieces of a body that has begun, a watch aside.
const PIECE: Duration = Duration::from_secs(30);
/// A connection that is silent for this long is asked whether it lives …
const PING: Duration = Duration::from_secs(15);
/// … and given up without an answer, so that a half-open one is found in half a minute, not after a watch's five.
const PONG: Duration = Duration::from_secs(15);
/// The largest page: 500 objects of 512 KiB. More is not a list that a node should hold.
const MAX_PAGE: usize = 256 << 20;
/// How much is read from an HTTP/1 connection at once. Each kind has a connection, and each keeps its buffer as large as
/// its list made it; hyper's own limit is 400 KiB.
const READ_AT_ONCE: usize = 64 * 1024;
/// The text of an error that is kept.
const MAX_MESSAGE: usize = 300;
/// A client is made anew at most this often: a kubeconfig or certificate may have been replaced meanwhile.
const REOPEN: Duration = Duration::from_secs(30);

/// Why the API server gave no answer to work with.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum Error {
    /// It answered with an error.
    #[error("{code}{}{message}", if message.is_empty() { "" } else { ": " })]
    Status { code: u16, message: String, retry_after: Option<Duration> },
    /// It could not be reached, or went away in the middle.
    #[error("{0}")]
    Transport(String),
    /// Its answer makes no sense.
    #[error("not understood: {0}")]
    Garbled(String),
    /// There is no usable configuration.
    #[error("{0}")]
    Configuration(String),
}

impl Error {
    pub(super) fn code(&self) -> u16 {
        match self {
            Self::Status { code, .. } => *code,
            _ => 0,
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// True when it is about what was asked for, and the server as such is well.
    pub(super) fn is_an_answer(&self) -> bool {
        matches!(self.code(), 400..=428 | 430..=499) || matches!(self, Self::Garbled(_))
    }

    fn silence(what: &str, after: Duration) -> Self {
        Self::Transport(format!("no {what} for {} s", after.as_secs()))
    }
}

/// `Status` of the API machinery, as far as it is looked at.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) message: String,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Details {
    retry_after_seconds: u64,
}

impl Status {
    pub(super) fn into_error(self) -> Error {
        let retry_after = self.details.map(|d| d.retry_after_seconds).filter(|s| *s > 0).map(Duration::from_secs);
        Error::Status { code: self.code, message: shortened(&self.message), retry_after }
    }
}

/// The API server, as it is asked by every watch.
pub(super) struct Api {
    access: Access,
    open: Mutex<Open>,
    /// False once the server has refused to stream a list.
    streams: AtomicBool,
    /// Bytes of bodies received, after decompression.
    received: AtomicU64,
}

struct Open {
    client: Client,
    at: Instant,
}

impl Api {
    /// Reads the configuration; nothing is sent yet.
    pub(super) async fn open(access: Access) -> Result<(Self, String), Error> {
        let config = configuration(&access).await?;
        let server = config.cluster_url.to_string();
        let open = Mutex::new(Open { client: client(config)?, at: Instant::now() });
        Ok((Self { access, open, streams: AtomicBool::new(true), received: AtomicU64::new(0) }, server))
    }

    /// One at this URL, without credentials.
    #[cfg(test)]
    pub(super) fn at(url: &str) -> Result<Self, Error> {
        let url = url.parse().map_err(|error| Error::Configuration(format!("{url}: {error}")))?;
        let open = Mutex::new(Open { client: client(Config::new(url))?, at: Instant::now() });
        let (access, received) = (Access::default(), AtomicU64::new(0));
        Ok(Self { access, open, streams: AtomicBool::new(true), received })
    }

    /// Makes the client anew after a failure, if that was not done a short time ago: credentials and certificates may
    /// have been replaced. A configuration that cannot be read leaves the old client.
    pub(super) async fn reopen(&self) {
        {
            let mut open = self.lock();
            if open.at.elapsed() < REOPEN {
                return;
            }
            open.at = Instant::now();
        }
        match configuration(&self.access).await.and_then(client) {
            Ok(new) => self.lock().client = new,
            Err(error) => tracing::debug!(%error, "the client stays as it was"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether lists may be asked for as the beginning of a watch.
    pub(super) fn streams(&self) -> bool {
        self.streams.load(Ordering::Relaxed)
    }

    pub(super) fn set_streams(&self, streams: bool) {
        self.streams.store(streams, Ordering::Relaxed);
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// One whole answer.
    pub(super) async fn get(&self, path: &str, accept: &'static str) -> Result<Vec<u8>, Error> {
        let response = self.send(path, accept, false).await?;
        let mut body = self.body(response, PIECE);
        let mut whole = Vec::new();
        while let Some(piece) = body.next().await? {
            if whole.len() + piece.len() > MAX_PAGE {
                return Err(Error::Garbled(format!("the answer has more than {MAX_PAGE} bytes")));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    /// An answer that comes piece by piece, at most `silence` apart.
    pub(super) async fn watch(&self, path: &str, accept: &'static str, silence: Duration) -> Result<Pieces<'_>, Error> {
        let response = self.send(path, accept, true).await?;
        Ok(self.body(response, silence))
    }

    fn body(&self, response: Response<Body>, silence: Duration) -> Pieces<'_> {
        Pieces { body: response.into_body(), silence, received: &self.received }
    }

    async fn send(&self, path: &str, accept: &'static str, streaming: bool) -> Result<Response<Body>, Error> {
        let mut request =
            Request::get(path).body(Body::empty()).map_err(|error| Error::Garbled(format!("{path}: {error}")))?;
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static(accept));
        if streaming {
            // A compressed stream would hold events back, and servers compress each of them by itself.
            request.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let client = self.lock().client.clone();
        let response = timeout(ANSWER, client.send(request))
            .await
            .map_err(|_| Error::silence("answer", ANSWER))?
            .map_err(|error| Error::Transport(reason(&error)))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refused(response).await) }
    }

    /// What the server says about the refusal.
    async fn refused(&self, response: Response<Body>) -> Error {
        let code = response.status();
        let header = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
        let mut body = self.body(response, PIECE);
        let mut text = Vec::new();
        while let Ok(Some(piece)) = body.next().await {
            text.extend_from_slice(&piece);
            if text.len() > 1 << 16 {
                break;
            }
        }
        let status = serde_json::from_slice::<Status>(&text).unwrap_or_else(|_| Status {
            message: String::from_utf8_lossy(&text).trim().to_owned(),
            ..Status::default()
        });
        let Error::Status { message, retry_after, .. } = status.into_error() else {
            return Error::Garbled("status".to_owned());
        };
        let retry_after = header.map(Duration::from_secs).or(retry_after);
        let message = if message.is_empty() { words(code) } else { message };
        Error::Status { code: code.as_u16(), message, retry_after }
    }
}

/// A body, piece by piece.
pub(super) struct Pieces<'a> {
    body: Body,
    silence: Duration,
    received: &'a AtomicU64,
}

impl Pieces<'_> {
    /// The next piece; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let frame = timeout(self.silence, self.body.frame()).await;
            let frame = frame.map_err(|_| Error::silence("data", self.silence))?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(Error::Transport(reason(&error))),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.received.fetch_add(data.len() as u64, Ordering::Relaxed);
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// From here on this long a silence is the end.
    pub(super) fn set_silence(&mut self, silence: Duration) {
        self.silence = silence;
    }
}

async fn configuration(access: &Access) -> Result<Config, Error> {
    access.config().await.map_err(|error| Error::Configuration(error.to_string()))
}

fn client(config: Config) -> Result<Client, Error> {
    let broken = |error: kube::Error| Error::Configuration(error.to_string());
    if config.proxy_url.is_some() {
        return Err(Error::Configuration("proxy-url in the kubeconfig is not supported".to_owned()));
    }
    // Fails when there is one already, which is as good.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT));
    tcp.set_keepalive(Some(PING));
    tcp.set_keepalive_interval(Some(PONG / 3));
    tcp.set_keepalive_retries(Some(3));
    tcp.set_tcp_user_timeout(Some(PING + PONG));
    let https = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config().map_err(broken)?)
        .https_or_http();
    let https = match &config.tls_server_name {
        Some(name) => {
            let name = name.clone().try_into().map_err(|_| Error::Configuration(format!("tls-server-name {name}")))?;
            https.with_server_name_resolver(hyper_rustls::FixedServerNameResolver::new(name))
        }
        None => https,
    };
    let http = HttpClient::builder(TokioExecutor::new())
        .http1_max_buf_size(READ_AT_ONCE)
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PONG)
        .http2_keep_alive_while_idle(true)
        .build(https.enable_all_versions().wrap_connector(tcp));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(DecompressionLayer::new())
        .option_layer(config.auth_layer().map_err(broken)?)
        .layer(config.extra_headers_layer().map_err(broken)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace))
}

/// The innermost cause in words, which is what a user can act on.
fn reason(error: &kube::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    shortened(&deepest.to_string())
}

fn words(code: StatusCode) -> String {
    code.canonical_reason().unwrap_or_default().to_owned()
}

/// Servers in between answer with whole pages.
fn shortened(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE).collect()
}
