//! `fault`: delays and aborts, for a share of the requests each. They strike before anything is forwarded, so that
//! retries and timeouts do not see them. Called by `handler`.

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use tokio::time::sleep;
use weir_mesh::program::Abort;

use super::body::Body;
use super::error::{Flag, Flags, Kind, ProxyError};
use super::plan::Plan;

/// What a client is told whose request was aborted, and the log.
const TEXT: &str = "fault filter abort";
pub(crate) const DETAILS: &str = "fault_filter_abort";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Delays the request, if it is its lot; then the answer with which it is aborted, if that is. `flags` take note of both.
pub(crate) async fn strike(
    plan: &Plan<'_>,
    request: &Request<Body>,
    flags: &mut Flags,
) -> Result<Option<Response<Body>>, ProxyError> {
    let Some(fault) = plan.settings().and_then(|settings| settings.fault.as_deref()) else {
        return Ok(None);
    };
    let (delay, abort) = fault.draw(plan.roll);
    if let Some(delay) = delay {
        flags.insert(Flag::DelayInjected);
        sleep(delay).await;
    }
    let Some(abort) = abort else {
        return Ok(None);
    };
    flags.insert(Flag::FaultInjected);
    let mut response = Response::new(Body::text(TEXT));
    match abort {
        Abort::Http(status) => {
            let invalid = |error| ProxyError::new(Kind::InvalidRule).caused_by(error);
            *response.status_mut() = StatusCode::from_u16(status).map_err(invalid)?;
        }
        Abort::Grpc(status) if is_grpc(request) => {
            *response.body_mut() = Body::Empty;
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status)));
            headers.insert(GRPC_MESSAGE, HeaderValue::from_static(TEXT));
        }
        // Who does not speak gRPC is told by the text alone.
        Abort::Grpc(_) => {}
    }
    Ok(Some(response))
}

fn is_grpc(request: &Request<Body>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.and_then(|kind| kind.strip_prefix(b"application/grpc")).is_some_and(|rest| matches!(rest, [] | [b'+', ..]))
}
