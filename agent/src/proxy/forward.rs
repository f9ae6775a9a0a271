//! Header hygiene: what belongs to one hop ends here, and framing is regenerated from what was parsed, so that the
//! upstream parses the request that was decided on. Called by `handler`, once per direction.

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Body as _;
use hyper::upgrade::OnUpgrade;
use smallvec::SmallVec;

use super::body::Body;
use super::error::{Kind, ProxyError};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// Headers of one hop, and `Expect`, which we answer.
static ONE_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::EXPECT,
    KEEP_ALIVE,
    PROXY_CONNECTION,
];

/// Makes the authority certain: exactly one Host, which an absolute-form target overrides (RFC 9112, 3.2.2), and the
/// target in origin form. A client of HTTP/1.0 may leave Host out; it gets `plain_host`, the service that it dialled.
pub(crate) fn settle_authority<B>(
    request: &mut Request<B>,
    plain_host: impl FnOnce() -> String,
) -> Result<(), ProxyError> {
    // A tunnel is never opened: its bytes would be routed by nobody.
    if request.method() == Method::CONNECT {
        return Err(Kind::NoRoute.into());
    }
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host),
        (None, None) => None,
        _ => return Err(ProxyError::new(Kind::BadRequest).caused_by("more than one Host")),
    };
    if host.is_some_and(|host| !plausible_host(host)) {
        return Err(ProxyError::new(Kind::BadRequest).caused_by("a Host that is no host"));
    }
    if host.is_none() {
        if request.version() != Version::HTTP_10 {
            return Err(ProxyError::new(Kind::BadRequest).caused_by("no Host"));
        }
        let host =
            HeaderValue::try_from(plain_host()).map_err(|error| ProxyError::new(Kind::BadRequest).caused_by(error))?;
        request.headers_mut().insert(header::HOST, host);
    }
    if let Some(authority) = request.uri().authority() {
        let authority = authority.as_str();
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let host =
            HeaderValue::from_str(authority).map_err(|error| ProxyError::new(Kind::BadRequest).caused_by(error))?;
        let target = request.uri().path_and_query().cloned();
        request.headers_mut().insert(header::HOST, host);
        *request.uri_mut() = target.map_or_else(|| Uri::from_static("/"), Uri::from);
    }
    Ok(())
}

/// Visible ASCII without what could mean something to another parser.
fn plausible_host(host: &HeaderValue) -> bool {
    host.as_bytes().iter().all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b'@' | b'/' | b'\\' | b'?' | b'#'))
}

/// Makes the request fit for the upstream. Returns the downstream half of an upgrade, if the client asks for one.
pub(crate) fn to_upstream(request: &mut Request<Body>) -> Option<OnUpgrade> {
    let on_upgrade = request.extensions_mut().remove::<OnUpgrade>();
    request.extensions_mut().clear();
    let headers = request.headers_mut();
    let on_upgrade = if is_of_one_hop(headers) { end_hop(headers, on_upgrade) } else { None };
    if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
        // hyper frames a GET's body only when told to; unframed, it would be lost and the next request misread.
        let headers = request.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    *request.version_mut() = Version::HTTP_11;
    on_upgrade
}

/// Removes what ends here, and says anew what the next hop has to know.
fn end_hop(headers: &mut HeaderMap, on_upgrade: Option<OnUpgrade>) -> Option<OnUpgrade> {
    let protocol = wanted_upgrade(headers);
    let on_upgrade = on_upgrade.filter(|_| protocol.is_some());
    let te_trailers = accepts_trailers(headers);
    remove_hop_by_hop(headers);
    if te_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if let (Some(protocol), Some(_)) = (protocol, &on_upgrade) {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    // hyper answers it the moment the body is asked for; the upstream's own answer would come too late to matter.
    headers.remove(header::EXPECT);
    on_upgrade
}

/// Whether any header is one that [`end_hop`] or [`remove_hop_by_hop`] looks at. Most messages have none: one pass over
/// the names is a sixth of what looking up each of them takes.
fn is_of_one_hop(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| ONE_HOP.contains(name))
}

/// Makes the response fit for the client. The `Upgrade` of a 101 stays; so does that of a 426, which says what to
/// upgrade to.
pub(crate) fn to_downstream<B>(response: &mut Response<B>) {
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let keeps_upgrade = switching || response.status() == StatusCode::UPGRADE_REQUIRED;
    *response.version_mut() = Version::HTTP_11;
    let headers = response.headers_mut();
    if !is_of_one_hop(headers) {
        return;
    }
    let upgrade = headers.get(header::UPGRADE).filter(|_| keeps_upgrade).cloned();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// The protocol of an `Upgrade` that `Connection` names. Never `h2c`: the frames that follow would be routed by nobody.
fn wanted_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    if !tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let text = protocol.to_str().ok()?;
    let h2c = text.split(',').any(|one| one.trim().eq_ignore_ascii_case("h2c"));
    (!h2c).then(|| protocol.clone())
}

fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TE) && tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"))
}

fn tokens<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> {
    let values = headers.get_all(name).iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',').map(str::trim))
}

/// Removes what RFC 9110, 7.6.1 names and whatever `Connection` nominates.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let nominated: SmallVec<[HeaderName; 4]> = tokens(headers, &header::CONNECTION)
            .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
            // A client must not strip what routing and framing rest on.
            .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
            .collect();
        for name in nominated {
            headers.remove(name);
        }
        headers.remove(header::CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, header::TE, header::TRANSFER_ENCODING, header::UPGRADE] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::get("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Body::Empty).unwrap()
    }

    #[test]
    fn hop_by_hop_headers_and_nominees_end_here() {
        let mut request = request(&[
            ("host", "b"),
            ("connection", "close, X-Secret, host, content-length"),
            ("connection", "x-other"),
            ("x-secret", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("te", "gzip, trailers"),
            ("upgrade", "websocket"),
            ("expect", "100-continue"),
            ("content-length", "0"),
            ("x-stays", "3"),
        ]);
        assert!(to_upstream(&mut request).is_none());
        let mut left: Vec<_> = request.headers().iter().map(|(n, v)| (n.as_str(), v.to_str().unwrap())).collect();
        left.sort_unstable();
        let want = [("connection", "te"), ("content-length", "0"), ("host", "b"), ("te", "trailers"), ("x-stays", "3")];
        assert_eq!(left, want);
    }

    #[test]
    fn only_one_plausible_host_passes() {
        let settle =
            |headers: &[(&str, &str)]| settle_authority(&mut request(headers), || "plain".into()).map_err(|e| e.kind);
        assert_eq!(settle(&[("host", "b:80")]), Ok(()));
        assert_eq!(settle(&[]), Err(Kind::BadRequest));
        assert_eq!(settle(&[("host", "b"), ("host", "b")]), Err(Kind::BadRequest));
        assert_eq!(settle(&[("host", "a, b")]), Err(Kind::BadRequest));
        assert_eq!(settle(&[("host", "b/c")]), Err(Kind::BadRequest));
        let mut old = request(&[]);
        *old.version_mut() = Version::HTTP_10;
        settle_authority(&mut old, || "plain".into()).unwrap();
        assert_eq!(old.headers()["host"], "plain");
    }

    #[test]
    fn an_absolute_target_overrides_host_and_becomes_origin_form() {
        let mut request = request(&[("host", "a")]);
        *request.uri_mut() = Uri::from_static("http://u@b:81/p%2F?q=1");
        settle_authority(&mut request, || "plain".into()).unwrap();
        assert_eq!(request.headers()["host"], "b:81");
        assert_eq!(request.uri(), "/p%2F?q=1");
    }
}
