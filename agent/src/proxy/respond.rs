//! Answers that a rule gives itself: redirects and direct responses. Called by `handler`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use weir_mesh::program::{Action, DirectResponse};

use super::body::Body;
use super::error::{Kind, ProxyError};
use super::plan::{Plan, view};

/// The body of a direct response, shared with the program.
struct Shared(Arc<DirectResponse>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.0.body
    }
}

/// The rule's own answer; `None` where it forwards. `dialled` is the port that the client connected to.
pub(crate) fn own(
    plan: &Plan<'_>,
    request: &Request<Body>,
    dialled: u16,
) -> Result<Option<Response<Body>>, ProxyError> {
    let response = match plan.route.map(|route| &route.action) {
        None | Some(Action::Forward) => return Ok(None),
        Some(Action::Redirect(redirect)) => {
            let location = redirect.location(&view(request), plan.matched, dialled);
            let location = HeaderValue::try_from(location).map_err(invalid)?;
            let mut response = Response::new(Body::Empty);
            *response.status_mut() = StatusCode::from_u16(redirect.code).map_err(invalid)?;
            response.headers_mut().insert(header::LOCATION, location);
            response
        }
        Some(Action::Respond(direct)) => {
            let body = Bytes::from_owner(Shared(Arc::clone(direct)));
            let mut response = Response::new(Body::own(body));
            *response.status_mut() = StatusCode::from_u16(direct.status).map_err(invalid)?;
            response
        }
    };
    Ok(Some(response))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ProxyError {
    ProxyError::new(Kind::InvalidRule).caused_by(error)
}

/// An answer of our own that has a text and does not say of what kind is plain text.
pub(crate) fn describe(response: &mut Response<Body>) {
    if matches!(response.body(), Body::Text(Some(_))) && !response.headers().contains_key(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
}
