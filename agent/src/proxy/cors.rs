//! `corsPolicy`: preflight requests are answered here, and answers to requests of an allowed origin say so. As Envoy's
//! filter has it. Called by `handler`.

use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use weir_mesh::program::CorsPolicy;

use super::body::Body;
use super::plan::Plan;

/// What the log says of a preflight request that is answered here.
pub(crate) const DETAILS: &str = "cors_response";

/// A request to which a policy applies.
#[derive(Debug)]
pub(crate) struct Cors<'p> {
    policy: &'p CorsPolicy,
    /// `None`: it is not allowed.
    origin: Option<HeaderValue>,
    preflight: bool,
}

impl<'p> Cors<'p> {
    /// `None`: there is no policy, or the request is of no other origin than its host.
    pub(crate) fn of(plan: &Plan<'p>, request: &Request<Body>) -> Option<Self> {
        let policy = plan.settings()?.cors.as_deref()?;
        let origin = request.headers().get(header::ORIGIN).filter(|origin| !origin.is_empty())?;
        let allowed = origin.to_str().is_ok_and(|origin| policy.allows(origin));
        let asks = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
        let preflight = request.method() == Method::OPTIONS && asks.is_some_and(|method| !method.is_empty());
        Some(Self { policy, origin: allowed.then(|| origin.clone()), preflight })
    }

    /// The answer to a preflight request. One of an origin that is not allowed is the upstream's to answer, unless the
    /// rule says otherwise.
    pub(crate) fn answer(&self) -> Option<Response<Body>> {
        if !self.preflight || (self.origin.is_none() && !self.policy.ignore_unmatched_preflights) {
            return None;
        }
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = StatusCode::OK;
        let headers = response.headers_mut();
        if self.origin.is_some() {
            let mut say = |name, value: Option<&HeaderValue>| {
                if let Some(value) = value {
                    headers.insert(name, value.clone());
                }
            };
            say(header::ACCESS_CONTROL_ALLOW_METHODS, self.policy.allow_methods.as_ref());
            say(header::ACCESS_CONTROL_ALLOW_HEADERS, self.policy.allow_headers.as_ref());
            say(header::ACCESS_CONTROL_MAX_AGE, self.policy.max_age.map(HeaderValue::from).as_ref());
        }
        Some(response)
    }

    /// Says whom an answer is for.
    pub(crate) fn apply(self, response: &mut Response<Body>) {
        let Some(origin) = self.origin else { return };
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.policy.allow_credentials == Some(true) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        if let Some(exposed) = &self.policy.expose_headers {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }
}
