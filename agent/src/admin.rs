//! The HTTP endpoints: on loopback probes, status and metrics; on the node's address metrics and nothing else. They run
//! on the control runtime, never on a worker. Opened by `app`.

mod scrape;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

use self::scrape::Body;
pub use self::scrape::Scrape;

/// A probe or a scrape takes a connection each; more than this at once is a mistake.
const MAX_CONNECTIONS: usize = 64;
/// Everybody who reaches the node can scrape it; these many collectors at once are plenty.
const MAX_SCRAPES: usize = 16;
/// Of the connections on loopback, those that may be reading status or metrics: of a large cluster the status is some
/// 5 MiB, and each reader holds its own.
const MAX_LARGE: usize = 8;
/// A client that sends no request within this time is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is cut after this time, whatever it waits for: the largest status passes an API server's port-forward
/// in less.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);
/// A scrape that is not read to its end by then is cut. Prometheus gives up after 10 s by default.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);
/// On the node's address the numbers are made at most this often: asking faster costs the agent a copy, no more.
const METRICS_AGE: Duration = Duration::from_secs(1);
/// What is kept for those who ask within this time. More than that is made for each, for one at a time and as seldom.
const MAX_KEPT: usize = 4 << 20;
/// After an error of accept (no descriptors left): wait instead of spinning.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What the endpoints show; `app` gives it.
pub trait Answers: Send + Sync {
    /// A configuration is in force.
    fn ready(&self) -> bool;
    /// Why what is in force may be old, in words. An agent that serves it is ready all the same.
    fn away(&self) -> Option<String>;
    /// What is in force, as JSON.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    fn status(&self) -> serde_json::Result<Vec<u8>>;
    /// In Prometheus' text format; an error in words when the kernel's counters cannot be read.
    ///
    /// # Errors
    /// See above.
    fn metrics(&self) -> Result<Scrape, String>;
    /// What is in force in detail, as JSON: the query chooses a service or a host, or a page of the list of services. The
    /// answer is bounded.
    ///
    /// # Errors
    /// When it cannot be told.
    fn config(&self, query: &str) -> Explained;
    /// Why a request goes where it goes, as JSON: the question is a query, see [`weir_mesh::explain::Words`].
    fn explain(&self, query: &str) -> BoxFuture<'static, Explained>;
}

/// An answer as JSON, or why there is none.
pub type Explained = Result<Vec<u8>, Unexplained>;

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unexplained {
    /// The question is none, or there is nobody of whom it asks.
    BadQuestion(String),
    /// Nothing has this name.
    Unknown(String),
    /// The agent cannot say now.
    Unavailable(String),
}

/// Which of the endpoints. Either takes one request a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Everything, for loopback.
    Admin,
    /// Metrics alone, for the node's address: made at most once a second.
    Metrics,
}

/// Serves until `end` is ready, and closes the listener then, so that another agent can have its port.
///
/// Where there are as many connections as are allowed, a new one takes the place of the oldest: a probe is answered
/// within a millisecond, so that what is old is slow, and slow clients cannot keep probes out.
pub async fn serve(listener: TcpListener, surface: Surface, answers: Arc<dyn Answers>, end: impl Future<Output = ()>) {
    let (most, lasts) = match surface {
        Surface::Admin => (MAX_CONNECTIONS, ADMIN_TIMEOUT),
        Surface::Metrics => (MAX_SCRAPES, SCRAPE_TIMEOUT),
    };
    let large = Arc::new(Semaphore::new(MAX_LARGE));
    let endpoint = Arc::new(Endpoint { surface, answers, large, rendered: Mutex::new(None) });
    let mut open: VecDeque<JoinHandle<()>> = VecDeque::new();
    tokio::pin!(end);
    loop {
        let accepted = tokio::select! {
            () = &mut end => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "admin endpoint");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= most
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(one(stream, Arc::clone(&endpoint), lasts)));
    }
}

/// One connection with its one request.
async fn one(stream: TcpStream, endpoint: Arc<Endpoint>, lasts: Duration) {
    // Held until the answer is read.
    let share = Mutex::new(None);
    let service = service_fn(|request| {
        let (endpoint, share) = (&endpoint, &share);
        async move { Ok::<_, Infallible>(endpoint.answer(&request, share).await) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).keep_alive(false);
    let connection = server.serve_connection(TokioIo::new(stream), service);
    // A client that goes away in the middle of its own request is its own business.
    drop(tokio::time::timeout(lasts, connection).await);
}

struct Endpoint {
    surface: Surface,
    answers: Arc<dyn Answers>,
    /// Who may read a large answer on loopback.
    large: Arc<Semaphore>,
    /// The last metrics and when they were made.
    rendered: Mutex<Option<(Instant, Option<Bytes>)>>,
}

impl Endpoint {
    /// The answer; a large one takes its `share` of those that may be read at the same time.
    async fn answer(&self, request: &Request<Incoming>, share: &Mutex<Option<OwnedSemaphorePermit>>) -> Response<Body> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
        }
        let path = request.uri().path();
        if self.surface == Surface::Admin && is_large(path) {
            let Ok(permit) = Arc::clone(&self.large).try_acquire_owned() else {
                return text(StatusCode::SERVICE_UNAVAILABLE, "too many are reading large answers\n");
            };
            *share.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
        }
        match (self.surface, path) {
            (_, "/metrics" | "/stats/prometheus") => match self.metrics() {
                Ok(Some(body)) => respond(StatusCode::OK, "text/plain; version=0.0.4", body),
                Ok(None) => text(StatusCode::SERVICE_UNAVAILABLE, "somebody has asked within the last second\n"),
                Err(why) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{why}\n")),
            },
            (Surface::Metrics, _) => text(StatusCode::NOT_FOUND, "/metrics /stats/prometheus\n"),
            (Surface::Admin, "/healthz") => text(StatusCode::OK, "ok\n"),
            (Surface::Admin, "/readyz") if self.answers.ready() => {
                let away = self.answers.away().map(|why| format!("{why}\n")).unwrap_or_default();
                text(StatusCode::OK, &format!("ready\n{away}"))
            }
            (Surface::Admin, "/readyz") => text(StatusCode::SERVICE_UNAVAILABLE, "no configuration in force\n"),
            (Surface::Admin, "/status") => match self.answers.status() {
                Ok(json) => reply(StatusCode::OK, "application/json", json.into()),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
            },
            (Surface::Admin, "/config") => told(self.answers.config(request.uri().query().unwrap_or_default())),
            (Surface::Admin, "/explain") => told(self.answers.explain(request.uri().query().unwrap_or_default()).await),
            (Surface::Admin, _) => text(StatusCode::NOT_FOUND, "/healthz /readyz /status /config /explain /metrics\n"),
        }
    }

    /// `None`: they are large, and were made a moment ago.
    fn metrics(&self) -> Result<Option<Body>, String> {
        if self.surface == Surface::Admin {
            return Ok(Some(Body::Pieces(self.answers.metrics()?)));
        }
        let mut rendered = self.rendered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, body)) = rendered.as_ref()
            && made.elapsed() < METRICS_AGE
        {
            return Ok(body.clone().map(Body::Whole));
        }
        let (kept, body) = match self.answers.metrics()?.within(MAX_KEPT) {
            Ok(whole) => (Some(whole.clone()), Body::Whole(whole)),
            Err(large) => (None, Body::Pieces(large)),
        };
        *rendered = Some((Instant::now(), kept));
        Ok(Some(body))
    }
}

/// Answers that may be megabytes.
fn is_large(path: &str) -> bool {
    matches!(path, "/status" | "/metrics" | "/stats/prometheus" | "/config" | "/explain")
}

fn told(answer: Explained) -> Response<Body> {
    match answer {
        Ok(json) => reply(StatusCode::OK, "application/json", json.into()),
        Err(Unexplained::BadQuestion(why)) => text(StatusCode::BAD_REQUEST, &format!("{why}\n")),
        Err(Unexplained::Unknown(why)) => text(StatusCode::NOT_FOUND, &format!("{why}\n")),
        Err(Unexplained::Unavailable(why)) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{why}\n")),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Body> {
    reply(status, "text/plain; charset=utf-8", body.to_owned().into())
}

fn reply(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Body> {
    respond(status, kind, Body::Whole(body))
}

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    /// More than a connection's buffers hold on loopback.
    const STATUS_BYTES: usize = 16 << 20;

    struct Counting(AtomicU32, usize);
    impl Answers for Counting {
        fn ready(&self) -> bool {
            true
        }
        fn away(&self) -> Option<String> {
            None
        }
        fn status(&self) -> serde_json::Result<Vec<u8>> {
            Ok(vec![b' '; STATUS_BYTES])
        }
        fn metrics(&self) -> Result<Scrape, String> {
            let head = format!("made {}\n", self.0.fetch_add(1, Ordering::Relaxed) + 1);
            let pieces = (0..self.1).map(|_| "x".repeat(MAX_KEPT / 4));
            Ok(Scrape { head, pieces: Box::new(pieces) })
        }
        fn config(&self, query: &str) -> Explained {
            match query {
                "host=nobody" => Err(Unexplained::Unknown("no such host".to_owned())),
                "nonsense" => Err(Unexplained::BadQuestion("what?".to_owned())),
                other => Ok(other.as_bytes().to_vec()),
            }
        }
        fn explain(&self, query: &str) -> BoxFuture<'static, Explained> {
            let answer = match query {
                "late" => Err(Unexplained::Unavailable("not now".to_owned())),
                "" => Err(Unexplained::BadQuestion("who asks?".to_owned())),
                other => Ok(other.as_bytes().to_vec()),
            };
            Box::pin(async move {
                tokio::task::yield_now().await;
                answer
            })
        }
    }

    /// The endpoint's address, and what ends it.
    async fn start(surface: Surface) -> (SocketAddr, oneshot::Sender<()>) {
        start_with(surface, 0).await
    }

    /// With metrics of so many quarters of what is kept.
    async fn start_with(surface: Surface, quarters: usize) -> (SocketAddr, oneshot::Sender<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = listener.local_addr().expect("bound");
        let (end, ended) = oneshot::channel();
        tokio::spawn(serve(listener, surface, Arc::new(Counting(AtomicU32::new(0), quarters)), async move {
            let _closed = ended.await;
        }));
        (address, end)
    }

    async fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("read to the end");
        answer
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")
    }

    fn run(test: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test);
    }

    #[test]
    fn the_nodes_address_shows_metrics_and_nothing_else() {
        run(async {
            let (address, _end) = start(Surface::Metrics).await;
            for path in ["/metrics", "/stats/prometheus"] {
                assert!(ask(address, &get(path)).await.contains("made 1"), "{path}, twice within a second");
            }
            for path in ["/", "/healthz", "/readyz", "/status", "/metrics/", "/debug/pprof"] {
                assert!(ask(address, &get(path)).await.starts_with("HTTP/1.1 404 "), "{path}");
            }
            let post = "POST /metrics HTTP/1.1\r\nHost: node\r\nContent-Length: 0\r\n\r\n";
            assert!(ask(address, post).await.starts_with("HTTP/1.1 405 "));
            let kept = ask(address, "GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n").await;
            assert!(kept.contains("connection: close"), "one request a connection: {kept}");
        });
    }

    #[test]
    fn large_metrics_are_whole_and_not_kept() {
        run(async {
            let (address, _end) = start_with(Surface::Metrics, 6).await;
            let whole = ask(address, &get("/metrics")).await;
            let (_, body) = whole.split_once("\r\n\r\n").expect("a head");
            assert_eq!(body.matches('x').count(), 6 * MAX_KEPT / 4, "made once, with every piece");
            assert!(ask(address, &get("/metrics")).await.starts_with("HTTP/1.1 503 "), "at most once a second");
            tokio::time::sleep(METRICS_AGE).await;
            assert!(ask(address, &get("/metrics")).await.contains("made 2"));
        });
    }

    #[test]
    fn loopback_shows_everything_and_fresh() {
        run(async {
            let (address, _end) = start(Surface::Admin).await;
            for path in ["/healthz", "/readyz", "/status"] {
                assert!(ask(address, &get(path)).await.starts_with("HTTP/1.1 200 "), "{path}");
            }
            assert!(ask(address, &get("/metrics")).await.contains("made 1"));
            assert!(ask(address, &get("/metrics")).await.contains("made 2"));
        });
    }

    #[test]
    fn questions_are_passed_on_and_answered_on_loopback_alone() {
        run(async {
            let (address, _end) = start(Surface::Admin).await;
            let answer = ask(address, &get("/explain?from=shop/web&url=http%3A%2F%2Fb")).await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("application/json"), "{answer}");
            assert!(answer.ends_with("from=shop/web&url=http%3A%2F%2Fb"), "{answer}");
            let answer = ask(address, &get("/explain")).await;
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("who asks?\n"), "{answer}");
            assert!(ask(address, &get("/explain?late")).await.starts_with("HTTP/1.1 503 "));
            let answer = ask(address, &get("/config?host=b.shop")).await;
            assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\nhost=b.shop"), "{answer}");
            assert!(ask(address, &get("/config?nonsense")).await.starts_with("HTTP/1.1 400 "));
            assert!(ask(address, &get("/config?host=nobody")).await.starts_with("HTTP/1.1 404 "));
            let (address, _end) = start(Surface::Metrics).await;
            for path in ["/explain?from=a&url=b", "/config"] {
                assert!(ask(address, &get(path)).await.starts_with("HTTP/1.1 404 "), "{path}");
            }
        });
    }

    #[test]
    fn slow_clients_keep_no_scrape_out() {
        run(async {
            let (address, _end) = start(Surface::Metrics).await;
            let mut silent = Vec::new();
            for _ in 0..100 {
                silent.push(TcpStream::connect(address).await.expect("it listens"));
            }
            let started = Instant::now();
            assert!(ask(address, &get("/metrics")).await.contains("made 1"));
            let waited = started.elapsed();
            // Well below HEADER_TIMEOUT, after which the silent ones would be closed anyway.
            assert!(waited < Duration::from_secs(2), "{waited:?}");
            let cut = silent[0].read(&mut [0]).await;
            assert!(matches!(cut, Ok(0) | Err(_)), "the oldest had to go: {cut:?}");
        });
    }

    /// 50 that send nothing, 50 that ask for more than the kernel buffers and read none of it.
    #[test]
    fn a_hundred_slow_clients_leave_the_probes_alone() {
        run(async {
            let (address, _end) = start(Surface::Admin).await;
            let (mut slow, mut times) = (Vec::new(), Vec::new());
            for n in 0..100 {
                let mut stream = TcpStream::connect(address).await.expect("it listens");
                if n % 2 == 0 {
                    stream.write_all(get("/status").as_bytes()).await.expect("written");
                }
                slow.push(stream);
                let started = Instant::now();
                for path in ["/healthz", "/readyz"] {
                    assert!(ask(address, &get(path)).await.starts_with("HTTP/1.1 200 "), "{path} beside {n}");
                }
                times.push(started.elapsed());
            }
            times.sort_unstable();
            // A busy machine may stop this process for a while, but never half of the time.
            assert!(times[50] < Duration::from_millis(100), "{:?}", times[50]);
            assert!(times[99] < Duration::from_secs(1), "the kubelet would have given up: {:?}", times[99]);
            let refused = ask(address, &get("/status")).await;
            assert!(refused.starts_with("HTTP/1.1 503 "), "{MAX_LARGE} are reading it: {refused:.80}");
            drop(slow);
            let again = async {
                while !ask(address, &get("/status")).await.starts_with("HTTP/1.1 200 ") {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), again).await.expect("they are gone");
        });
    }

    #[test]
    fn who_sends_half_a_request_is_closed_in_time() {
        run(async {
            let (address, _end) = start(Surface::Admin).await;
            let started = Instant::now();
            let answer = ask(address, "GET /healthz HTTP/1.1\r\nHost:").await;
            let waited = started.elapsed();
            assert!(!answer.contains("200"), "{answer}");
            let expected = HEADER_TIMEOUT.mul_f64(0.8)..HEADER_TIMEOUT.mul_f64(1.5);
            assert!(expected.contains(&waited), "{waited:?}");
        });
    }

    #[test]
    fn the_port_is_free_once_it_ends() {
        run(async {
            let (address, end) = start(Surface::Admin).await;
            end.send(()).expect("it serves");
            let again = async {
                while TcpListener::bind(address).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(5), again).await.expect("the listener is closed");
        });
    }
}
