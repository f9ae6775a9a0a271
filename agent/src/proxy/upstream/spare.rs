//! Copies of a request's head, with which it can be sent again. Used by `upstream` for the race of an idle connection,
//! and by `retry` and `mirror`.

use std::cell::RefCell;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use hyper::body::Body as _;

use crate::proxy::body::Body;
use crate::proxy::worker::Worker;

/// A head of its own: for another try, or for a mirror.
#[derive(Clone)]
pub(crate) struct Spare {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Spare {
    pub(crate) fn of(request: &Request<Body>) -> Self {
        Self { method: request.method().clone(), uri: request.uri().clone(), headers: request.headers().clone() }
    }

    pub(crate) fn into_request(self, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// The head of a request that goes out on an idle connection. The server may close that in the very moment in which it is
/// used; hyper has then written the head and does not give it back.
///
/// It is made for almost every request and needed for almost none: so the headers are a list, whose memory the next
/// one uses again, and a map is made of them only when the time comes.
pub(super) struct Race<'w> {
    method: Method,
    uri: Uri,
    headers: Headers,
    worker: &'w Worker,
}

/// Headers of a request, in order.
type Headers = Vec<(HeaderName, HeaderValue)>;

/// Lists of headers that nobody uses at the moment.
#[derive(Default)]
pub(crate) struct SpareLists(RefCell<Vec<Headers>>);

impl SpareLists {
    /// More are a burst that is over. A list for 100 headers takes 7 KiB.
    const MOST: usize = 64;

    fn take(&self) -> Headers {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    fn give_back(&self, mut headers: Headers) {
        headers.clear();
        let mut lists = self.0.borrow_mut();
        if lists.len() < Self::MOST {
            lists.push(headers);
        }
    }
}

impl<'w> Race<'w> {
    /// `None` for a request that may not be repeated unasked: one with a body, or by which something happens.
    pub(super) fn of(request: &Request<Body>, worker: &'w Worker) -> Option<Self> {
        let repeatable = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        (repeatable && request.body().is_end_stream()).then(|| {
            let mut headers = worker.spare_lists.take();
            headers.extend(request.headers().iter().map(|(name, value)| (name.clone(), value.clone())));
            Self { method: request.method().clone(), uri: request.uri().clone(), headers, worker }
        })
    }

    pub(super) fn request(&self) -> Request<Body> {
        let mut request = Request::new(Body::Empty);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        for (name, value) in &self.headers {
            request.headers_mut().append(name, value.clone());
        }
        request
    }
}

impl Drop for Race<'_> {
    fn drop(&mut self) {
        self.worker.spare_lists.give_back(std::mem::take(&mut self.headers));
    }
}
