//! The head of a response: its parts, and how its body is framed (RFC 9112, 6.3). Used by `wire`.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use smallvec::SmallVec;

use super::Fault;
use super::decode::{Chunked, Decoder};

/// Header lines for which there is room without an allocation.
const USUAL_HEADERS: usize = 32;

/// A head, and what follows from it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) decoder: Decoder,
    /// Another request may follow on the connection once the body is through.
    pub(super) keep_alive: bool,
}

/// Where in the bytes of a head a header is: `name` and `value`, each from and to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place([usize; 4]);

impl Place {
    /// `header` must have been parsed from `read`.
    pub(super) fn of(read: &[u8], header: &httparse::Header<'_>) -> Self {
        let name = header.name.as_ptr() as usize - read.as_ptr() as usize;
        let value = header.value.as_ptr() as usize - read.as_ptr() as usize;
        Self([name, name + header.name.len(), value, value + header.value.len()])
    }
}

/// Takes a head off `read`, once all of it is there. `lines` and `bytes` are the most it may have.
pub(super) fn take(
    read: &mut BytesMut,
    method: &Method,
    (lines, bytes): (usize, usize),
) -> Result<Option<Head>, Fault> {
    let mut places = SmallVec::new();
    let mut room = [const { MaybeUninit::uninit() }; USUAL_HEADERS];
    let parsed = match parse(read, &mut room[..USUAL_HEADERS.min(lines)], &mut places) {
        // Most responses have few headers: the room for all that are allowed is made only when those are too many.
        Err(httparse::Error::TooManyHeaders) if lines > USUAL_HEADERS => {
            parse(read, &mut vec![MaybeUninit::uninit(); lines], &mut places)
        }
        other => other,
    };
    let Some((len, version, status)) = parsed.map_err(|_| Fault::Protocol("no response head"))? else {
        return if read.len() < bytes { Ok(None) } else { Err(Fault::Protocol("a response head too long")) };
    };
    if len > bytes {
        return Err(Fault::Protocol("a response head too long"));
    }
    let block = read.split_to(len).freeze();
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).map_err(|_| Fault::Protocol("no status"))?;
    *response.version_mut() = if version == 0 { Version::HTTP_10 } else { Version::HTTP_11 };
    *response.headers_mut() = fields(&block, &places)?;
    let (decoder, keep_alive) = framing(&mut response, method)?;
    Ok(Some(Head { response, decoder, keep_alive }))
}

/// Length, minor version and status of a whole head; its headers are added to `places`.
fn parse<'b>(
    read: &'b [u8],
    room: &mut [MaybeUninit<httparse::Header<'b>>],
    places: &mut SmallVec<[Place; USUAL_HEADERS]>,
) -> Result<Option<(usize, u8, u16)>, httparse::Error> {
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let httparse::Status::Complete(len) = config.parse_response_with_uninit_headers(&mut response, read, room)? else {
        return Ok(None);
    };
    places.extend(response.headers.iter().map(|header| Place::of(read, header)));
    Ok(Some((len, response.version.unwrap_or(1), response.code.unwrap_or(0))))
}

/// The headers of a block of header lines; their values are parts of it.
pub(super) fn fields(block: &Bytes, places: &[Place]) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::with_capacity(places.len());
    for &Place([name, name_end, value, value_end]) in places {
        let name = HeaderName::from_bytes(&block[name..name_end]).map_err(|_| Fault::Protocol("no header name"))?;
        let value = HeaderValue::from_maybe_shared(block.slice(value..value_end))
            .map_err(|_| Fault::Protocol("no header value"))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// How the body is framed, and whether the connection lives on. What says it in two ways is refused: the next one to
/// read it would take the other.
fn framing(response: &mut Response<()>, method: &Method) -> Result<(Decoder, bool), Fault> {
    let old = response.version() == Version::HTTP_10;
    let status = response.status();
    let headers = response.headers_mut();
    // One pass over the names is cheaper than to look up any of them.
    let (mut close, mut keep, mut length, mut codings) = (false, false, None, SmallVec::<[bool; 1]>::new());
    for (name, value) in &*headers {
        match *name {
            header::CONNECTION => {
                close |= has_option(value, "close");
                keep |= has_option(value, "keep-alive");
            }
            header::CONTENT_LENGTH => add_length(&mut length, value)?,
            header::TRANSFER_ENCODING => codings.push(value.as_bytes().eq_ignore_ascii_case(b"chunked")),
            _ => {}
        }
    }
    let keep_alive = !close && (keep || !old);
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        // Neither may have a body, whatever its headers say.
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::TRANSFER_ENCODING);
        return Ok((Decoder::EMPTY, keep_alive));
    }
    let bodiless = *method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    if !codings.is_empty() {
        if old || codings[..] != [true] {
            return Err(Fault::Protocol("a transfer coding that is not just chunked"));
        }
        headers.remove(header::CONTENT_LENGTH);
        let decoder = if bodiless { Decoder::EMPTY } else { Decoder::Chunked(Chunked::Size) };
        return Ok((decoder, keep_alive && length.is_none()));
    }
    Ok(match length {
        _ if bodiless => (Decoder::EMPTY, keep_alive),
        Some(length) => (Decoder::Length(length), keep_alive),
        None => (Decoder::UntilClose, false),
    })
}

/// Whether a `Connection` has such an option.
fn has_option(value: &HeaderValue, option: &str) -> bool {
    value.as_bytes().split(|b| *b == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}

/// All of the lengths of all `Content-Length`s must be the same.
fn add_length(length: &mut Option<u64>, value: &HeaderValue) -> Result<(), Fault> {
    const FAULT: Fault = Fault::Protocol("a content-length that is none");
    for one in value.as_bytes().split(|b| *b == b',') {
        let digits = one.trim_ascii();
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return Err(FAULT);
        }
        let text = std::str::from_utf8(digits).map_err(|_| FAULT)?;
        let one: u64 = text.parse().map_err(|_| FAULT)?;
        if length.replace(one).is_some_and(|other| other != one) {
            return Err(FAULT);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &Method, text: &str) -> Result<Option<Head>, Fault> {
        take(&mut BytesMut::from(text), method, (100, 4096))
    }

    fn framed(method: &Method, text: &str) -> Option<(Decoder, bool)> {
        let head = head(method, &format!("{text}\r\n\r\n")).ok()?.unwrap();
        Some((head.decoder, head.keep_alive))
    }

    #[test]
    fn a_head_is_taken_once_it_is_whole() {
        let text = b"HTTP/1.1 201 Created\r\nServer: x\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nrest";
        for len in 0..text.len() - 4 {
            assert!(take(&mut BytesMut::from(&text[..len]), &Method::GET, (100, 4096)).unwrap().is_none(), "{len}");
        }
        let mut read = BytesMut::from(&text[..]);
        let head = take(&mut read, &Method::GET, (100, 4096)).unwrap().unwrap();
        assert_eq!((head.response.status(), head.response.version()), (StatusCode::CREATED, Version::HTTP_11));
        let cookies: Vec<_> =
            head.response.headers().get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!((cookies, &read[..]), (vec!["a=1", "b=2"], &b"rest"[..]));
    }

    #[test]
    fn the_body_is_framed_as_rfc_9112_says() {
        let chunked = Decoder::Chunked(Chunked::Size);
        for (method, text, want) in [
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 5", Some((Decoder::Length(5), true))),
            (
                Method::GET,
                "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: x, Close",
                Some((Decoder::Length(5), false)),
            ),
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 5, 5", Some((Decoder::Length(5), true))),
            (Method::GET, "HTTP/1.0 200 OK\r\ncontent-length: 5", Some((Decoder::Length(5), false))),
            (
                Method::GET,
                "HTTP/1.0 200 OK\r\ncontent-length: 5\r\nconnection: keep-alive",
                Some((Decoder::Length(5), true)),
            ),
            (Method::GET, "HTTP/1.1 200 OK", Some((Decoder::UntilClose, false))),
            (Method::GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked", Some((chunked, true))),
            (Method::GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5", Some((chunked, false))),
            (Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 5", Some((Decoder::EMPTY, true))),
            (Method::HEAD, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked", Some((Decoder::EMPTY, true))),
            (Method::GET, "HTTP/1.1 304 Not Modified\r\ncontent-length: 5", Some((Decoder::EMPTY, true))),
            (Method::GET, "HTTP/1.1 204 No Content\r\ncontent-length: 5", Some((Decoder::EMPTY, true))),
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6", None),
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: +5", None),
            (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999", None),
            (Method::GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked", None),
            (Method::GET, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked", None),
            (Method::GET, "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked", None),
        ] {
            assert_eq!(framed(&method, text), want, "{method} {text:?}");
        }
    }

    #[test]
    fn what_is_no_head_or_too_much_of_one_is_refused() {
        let (many, few) = ("x: 1\r\n".repeat(101), "x: 1\r\n".repeat(100));
        assert_eq!(
            head(&Method::GET, &format!("HTTP/1.1 200 OK\r\n{few}\r\n")).unwrap().unwrap().response.headers().len(),
            100
        );
        for text in [
            "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n".into(),
            "HTTP/1.1 200 OK\r\nx : y\r\n\r\n".into(),
            "HTTP/2.0 200 OK\r\n\r\n".into(),
            format!("HTTP/1.1 200 OK\r\n{many}\r\n"),
            format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(4096)),
        ] {
            assert!(matches!(head(&Method::GET, &text), Err(Fault::Protocol(_))), "{text:.40}");
        }
    }
}
