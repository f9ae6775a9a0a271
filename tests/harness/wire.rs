//! Just enough HTTP/1.1 to be an honest peer: heads, lengths, chunks. Used by the origin, the client and the harness
//! itself, so that no test depends on the HTTP library that it tests.

use std::io::{self, BufRead, Read, Write};

/// A head larger than this is a broken peer, not a long cookie.
const MAX_HEAD: usize = 256 * 1024;

/// A request line or status line with its headers.
#[derive(Debug, Default)]
pub struct Head {
    /// `GET / HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub first: String,
    /// Names in lower case, in order.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The first header of that (lower case) name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The status of a response head.
    ///
    /// # Errors
    /// When the status line has no number in its second place.
    pub fn status(&self) -> io::Result<u16> {
        self.first.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(|| broken("status line"))
    }

    /// Whether the connection ends with this message.
    pub fn closes(&self) -> bool {
        self.get("connection").is_some_and(|c| c.eq_ignore_ascii_case("close")) || self.first.contains("HTTP/1.0")
    }
}

/// How a body ends when its head does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    /// There is none (requests).
    Empty,
    /// With the connection (responses).
    Close,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {what}"))
}

fn line(peer: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    peer.by_ref().take(MAX_HEAD as u64).read_until(b'\n', &mut bytes)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    String::from_utf8(bytes).map(Some).map_err(|_| broken("text"))
}

/// Reads a head; `None` when the peer closed before its first byte.
///
/// # Errors
/// When the connection fails or the head is malformed.
pub fn read_head(peer: &mut impl BufRead) -> io::Result<Option<Head>> {
    let Some(first) = line(peer)? else {
        return Ok(None);
    };
    let mut head = Head { first, headers: Vec::new() };
    let mut size = 0;
    loop {
        let text = line(peer)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if text.is_empty() {
            return Ok(Some(head));
        }
        size += text.len();
        if size > MAX_HEAD {
            return Err(broken("head: too large"));
        }
        let (name, value) = text.split_once(':').ok_or_else(|| broken("header"))?;
        head.headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
}

/// Reads the body that belongs to `head`.
///
/// # Errors
/// When the connection ends early or the framing is malformed.
pub fn read_body(peer: &mut impl BufRead, head: &Head, otherwise: Otherwise) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if head.get("transfer-encoding").is_some_and(|t| t.eq_ignore_ascii_case("chunked")) {
        loop {
            let text = line(peer)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let size = text.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| broken("chunk size"))?;
            if size == 0 {
                while !line(peer)?.ok_or(io::ErrorKind::UnexpectedEof)?.is_empty() {}
                return Ok(body);
            }
            take_exactly(peer, size, &mut body)?;
            if line(peer)?.as_deref() != Some("") {
                return Err(broken("chunk end"));
            }
        }
    }
    if let Some(length) = head.get("content-length") {
        let length = length.parse().map_err(|_| broken("content-length"))?;
        take_exactly(peer, length, &mut body)?;
    } else if otherwise == Otherwise::Close {
        peer.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn take_exactly(peer: &mut impl BufRead, size: u64, body: &mut Vec<u8>) -> io::Result<()> {
    if peer.by_ref().take(size).read_to_end(body)? as u64 == size {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Writes `body` in chunks of uneven sizes, with the last one.
///
/// # Errors
/// When the connection fails.
pub fn write_chunked(peer: &mut impl Write, body: &[u8]) -> io::Result<()> {
    let mut rest = body;
    let mut size = 1;
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(size.min(rest.len()));
        write!(peer, "{:x}\r\n", chunk.len())?;
        peer.write_all(chunk)?;
        peer.write_all(b"\r\n")?;
        rest = tail;
        size = (size * 7 + 3).min(60_000);
    }
    peer.write_all(b"0\r\n\r\n")
}

/// A small generator (xorshift64*), so that a failing run can be repeated by its seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed; 0 is taken as 1, the generator's one dead state.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// That many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_back_as_they_went_and_leave_what_follows() {
        let body = Random::new(7).bytes(200_000);
        let mut bytes = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        write_chunked(&mut bytes, &body).expect("a vector takes everything");
        bytes.extend_from_slice(b"GET /next HTTP/1.1\r\n\r\n");
        let mut peer = bytes.as_slice();
        let head = read_head(&mut peer).expect("well formed").expect("not empty");
        assert!(read_body(&mut peer, &head, Otherwise::Empty).expect("well formed") == body);
        assert_eq!(read_head(&mut peer).expect("well formed").expect("not empty").first, "GET /next HTTP/1.1");
    }

    #[test]
    fn a_body_cut_short_is_an_error() {
        let mut peer: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc";
        let head = read_head(&mut peer).expect("well formed").expect("not empty");
        assert!(read_body(&mut peer, &head, Otherwise::Close).is_err());
    }
}
