//! A copy of a request's head, for another request. Used by `mirror`.

use http::{HeaderMap, Method, Request, Uri};

use crate::proxy::body::Body;

/// See the module.
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
