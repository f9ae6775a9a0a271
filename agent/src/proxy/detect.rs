//! What a connection on an undeclared port speaks, by its first bytes. Bytes are read into a prefix that is replayed
//! afterwards: peeking would leave the socket readable and the worker spinning over half a request line.
//! Called by `listener`.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest method that is taken for one (`VERSION-CONTROL` has 15 characters, registered ones at most 17).
const MAX_METHOD: usize = 24;
/// What HTTP/2 with prior knowledge begins with.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length (3 bytes), type 4, no flags, stream 0.
const SETTINGS_HEAD: usize = 9;
/// One read; no protocol needs more to be told, and a whole request head usually fits.
const FIRST_READ: usize = 2048;

/// What the bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
    Tls,
    /// Anything else, or an end before it could be told.
    Other,
    /// The client waits.
    Silence,
}

/// Reads into `prefix` until the protocol is certain. `silence` bounds the wait for the first byte, `stall` that for
/// each further one.
pub(crate) async fn listen(
    stream: &mut TcpStream,
    prefix: &mut Vec<u8>,
    silence: Duration,
    stall: Duration,
) -> io::Result<Spoken> {
    loop {
        if let Some(spoken) = classify(prefix) {
            return Ok(spoken);
        }
        let patience = if prefix.is_empty() { silence } else { stall };
        prefix.reserve(FIRST_READ);
        match timeout(patience, stream.read_buf(prefix)).await {
            Err(_) if prefix.is_empty() => return Ok(Spoken::Silence),
            Err(_) | Ok(Ok(0)) => return Ok(Spoken::Other),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error),
        }
    }
}

/// What a server that speaks first speaks: HTTP/2 servers may send their settings before they hear of the client.
/// `stall` bounds the wait for bytes after the first. The bytes stay in the socket.
pub(crate) async fn greeting(stream: &TcpStream, stall: Duration) -> Spoken {
    let mut head = [0; SETTINGS_HEAD];
    let Ok(mut read) = stream.peek(&mut head).await else {
        return Spoken::Other;
    };
    // A head in two packets is rare enough to be looked for once more, after the longest pause that is allowed.
    if is_settings(&head[..read]).is_none() {
        tokio::time::sleep(stall).await;
        read = stream.peek(&mut head).await.unwrap_or(0);
    }
    if is_settings(&head[..read]) == Some(true) { Spoken::Http2 } else { Spoken::Other }
}

/// The same of one whose bytes have to be decrypted; they are added to `ahead`.
pub(crate) async fn sealed_greeting(stream: &mut (impl AsyncRead + Unpin), ahead: &mut BytesMut) -> Spoken {
    // Servers encrypt such a head in one piece. What ends or fails here is found once more by who serves it.
    let _ = stream.read_buf(ahead).await;
    if is_settings(ahead) == Some(true) { Spoken::Http2 } else { Spoken::Other }
}

/// Whether bytes begin an HTTP/2 SETTINGS frame of stream 0, and no acknowledgement; `None` = too few to tell.
fn is_settings(bytes: &[u8]) -> Option<bool> {
    const SETTING: usize = 6;
    let fits = |at: usize, wanted: u8| bytes.get(at).is_none_or(|byte| *byte == wanted);
    // The frame of a server's first settings is far below 64 KiB.
    if bytes.is_empty() || !fits(0, 0) || (3..SETTINGS_HEAD).any(|at| !fits(at, if at == 3 { 4 } else { 0 })) {
        return Some(false);
    }
    let head = bytes.get(..SETTINGS_HEAD)?;
    Some(usize::from(u16::from_be_bytes([head[1], head[2]])) % SETTING == 0)
}

/// The protocol of a connection that begins with `bytes`; `None` = more bytes are needed to tell.
fn classify(bytes: &[u8]) -> Option<Spoken> {
    match bytes {
        [] | [0x16] => None,
        // A TLS record of type handshake, version 3.x.
        [0x16, 0x03, ..] => Some(Spoken::Tls),
        _ if bytes.starts_with(HTTP2_PREFACE) => Some(Spoken::Http2),
        _ if HTTP2_PREFACE.starts_with(bytes) => None,
        _ => http1(bytes),
    }
}

/// Upper-case method, one space, and a target in one of its forms. If the first line is complete, it must end in an
/// HTTP/1 version: Redis and others have lines that begin as HTTP's do.
fn http1(bytes: &[u8]) -> Option<Spoken> {
    let token = bytes.iter().take_while(|b| b.is_ascii_uppercase() || matches!(b, b'-' | b'_')).count();
    if token > MAX_METHOD {
        return Some(Spoken::Other);
    }
    let (method, rest) = bytes.split_at(token);
    let (space, target) = rest.split_first()?;
    if method.is_empty() || *space != b' ' {
        return Some(Spoken::Other);
    }
    if !plausible(method, target)? {
        return Some(Spoken::Other);
    }
    let Some(end) = target.iter().position(|b| *b == b'\n') else {
        return Some(Spoken::Http1);
    };
    let line = target[..end].trim_ascii_end();
    let versioned = line.len() > 9 && line[line.len() - 9..].starts_with(b" HTTP/1.");
    Some(if versioned { Spoken::Http1 } else { Spoken::Other })
}

/// True when `target` begins as a request target does; `None` = too short to tell.
fn plausible(method: &[u8], target: &[u8]) -> Option<bool> {
    let begins = |scheme: &[u8]| {
        let n = target.len().min(scheme.len());
        target[..n].eq_ignore_ascii_case(&scheme[..n]).then_some(n == scheme.len())
    };
    match target.first()? {
        b'/' => Some(true),
        b'*' => Some(method == b"OPTIONS"),
        _ if method == b"CONNECT" => Some(target[0].is_ascii_alphanumeric() || target[0] == b'['),
        _ => match begins(b"http://").or_else(|| begins(b"https://")) {
            Some(true) => Some(true),
            Some(false) => None,
            None => Some(begins(b"https://").is_some()),
        },
    }
}

/// The name of the server that a TLS client asks for. Reads on into `prefix` until its ClientHello is complete, for
/// `patience` at most. Empty: it names none, or this is no TLS.
pub(crate) async fn server_name(
    stream: &mut TcpStream,
    prefix: &mut Vec<u8>,
    patience: Duration,
) -> io::Result<Box<str>> {
    let mut hello = Hello::default();
    let reading = async {
        loop {
            if let Some(name) = hello.read(prefix) {
                return Ok(name);
            }
            prefix.reserve(FIRST_READ);
            if stream.read_buf(prefix).await? == 0 {
                return Ok(Box::default());
            }
        }
    };
    timeout(patience, reading).await.unwrap_or_else(|_| Ok(Box::default()))
}

/// A ClientHello that comes in pieces.
#[derive(Default)]
struct Hello {
    acceptor: rustls::server::Acceptor,
    /// Bytes that it has been given.
    given: usize,
}

impl Hello {
    /// Longer than the 64 KiB that a handshake message may have with its records' heads is none.
    const MOST: usize = 68 * 1024;

    /// The name, once it is certain; empty = there is none.
    fn read(&mut self, prefix: &[u8]) -> Option<Box<str>> {
        let mut rest = prefix.get(self.given..)?;
        while !rest.is_empty() {
            match self.acceptor.read_tls(&mut rest) {
                Ok(read) if read > 0 => {}
                _ => return Some(Box::default()),
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Some(accepted.client_hello().server_name().unwrap_or_default().into()),
                Err(_) => return Some(Box::default()),
            }
        }
        self.given = prefix.len();
        (prefix.len() > Self::MOST).then(Box::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_first_messages_are_told_apart() {
        for (bytes, spoken) in [
            (&b"GET / HTTP/1.1\r\n"[..], Spoken::Http1),
            (b"GET /a b HTTP/1.0\n", Spoken::Http1),
            (b"M-SEARCH /x", Spoken::Http1),
            (b"OPTIONS * HTTP/1.1\r\n", Spoken::Http1),
            (b"CONNECT b:80 HTTP/1.1\r\n", Spoken::Http1),
            (b"GET HTTPS://b/ HTTP/1.1\r\n", Spoken::Http1),
            (b"GET http://b/ HTTP/1.1\r\n", Spoken::Http1),
            (HTTP2_PREFACE, Spoken::Http2),
            (b"\x16\x03\x01\x02\x00", Spoken::Tls),
            (b"GET /key\r\n", Spoken::Other),
            (b"GET key\r\n", Spoken::Other),
            (b"EHLO mail.example.com\r\n", Spoken::Other),
            (b"PING\r\n", Spoken::Other),
            (b"*1\r\n$4\r\nPING\r\n", Spoken::Other),
            (b"get / HTTP/1.1\r\n", Spoken::Other),
            (b" / HTTP/1.1\r\n", Spoken::Other),
            (b"GET  / HTTP/1.1\r\n", Spoken::Other),
            (b"PRI * HTTP/2.1\r\n", Spoken::Other),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n", Spoken::Other),
            (b"\0\0\0\x08\x04\xd2\x16\x2f", Spoken::Other),
        ] {
            assert_eq!(classify(bytes), Some(spoken), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_servers_settings_are_told_from_other_greetings() {
        for (bytes, settings) in [
            (&b"\0\0\0\x04\0\0\0\0\0"[..], Some(true)),
            (b"\0\0\x0c\x04\0\0\0\0\0", Some(true)),
            (b"\0\0\x0c\x04", None),
            (b"\0", None),
            (b"", Some(false)),
            (b"\0\0\x0b\x04\0\0\0\0\0", Some(false)),
            (b"\0\0\0\x04\x01\0\0\0\0", Some(false)),
            (b"\0\0\0\x04\0\0\0\0\x01", Some(false)),
            (b"\x4a\0\0\0\x0a8.0.36", Some(false)),
            (b"220 hello", Some(false)),
        ] {
            assert_eq!(is_settings(bytes), settings, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_beginning_is_never_judged_otherwise_than_the_whole() {
        for whole in [
            &b"GET http://b/ HTTP/1.1\r\n"[..],
            b"GET https://b/ HTTP/1.1\r\n",
            b"PROPFIND / HTTP/1.1\r\n",
            b"PRAGMA x\r\n",
            HTTP2_PREFACE,
            b"\x16\x03\x01",
        ] {
            let end = classify(whole);
            assert!(end.is_some());
            for n in 0..whole.len() {
                let early = classify(&whole[..n]);
                assert!(early.is_none() || early == end, "{}", whole[..n].escape_ascii());
            }
        }
    }
}
