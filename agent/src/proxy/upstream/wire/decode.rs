//! Where a response's body ends (RFC 9112, 6 and 7.1), and its bytes without their framing. Used by `wire`.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::Fault;
use super::response::{Place, fields};

/// Bytes of one chunk's size line. A size takes 16; extensions, which nobody uses, may not make a body of themselves.
const MAX_SIZE_LINE: usize = 256;

/// What is left of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoder {
    /// So many bytes.
    Length(u64),
    /// Chunks, and where in them.
    Chunked(Chunked),
    /// All until the connection ends.
    UntilClose,
}

/// The place within chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// Before a size line.
    Size,
    /// Within data, with so many bytes to come; the line's end follows.
    Data(u64),
    /// Before the line's end of a chunk.
    DataEnd,
    /// Within the trailers.
    Trailers,
    /// Behind it all.
    Done,
}

/// What could be made of the bytes at hand.
#[derive(Debug)]
pub(super) enum Decoded {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    /// Nothing, without further bytes.
    More,
}

impl Decoder {
    pub(super) const EMPTY: Self = Self::Length(0);

    /// The body is over, and all of it has been taken.
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunked::Done))
    }

    /// Bytes that are known to come.
    pub(super) fn exact(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(Chunked::Done) => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// Takes what is at hand. `limits`: header lines and bytes of the trailers.
    pub(super) fn decode(&mut self, read: &mut BytesMut, limits: (usize, usize)) -> Result<Decoded, Fault> {
        match self {
            Self::Length(left) => Ok(take(read, left)),
            Self::UntilClose => Ok(if read.is_empty() { Decoded::More } else { Decoded::Data(read.split().freeze()) }),
            Self::Chunked(at) => at.decode(read, limits),
        }
    }

    /// The connection ended: whether the body did with it.
    pub(super) fn ends_with_connection(&self) -> bool {
        *self == Self::UntilClose || self.is_done()
    }
}

/// Up to `left` bytes.
fn take(read: &mut BytesMut, left: &mut u64) -> Decoded {
    if *left == 0 {
        return Decoded::End;
    }
    if read.is_empty() {
        return Decoded::More;
    }
    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
    *left -= n as u64;
    Decoded::Data(read.split_to(n).freeze())
}

impl Chunked {
    fn decode(&mut self, read: &mut BytesMut, limits: (usize, usize)) -> Result<Decoded, Fault> {
        loop {
            match self {
                Self::Size => match size(read)? {
                    None => return Ok(Decoded::More),
                    Some(0) => *self = Self::Trailers,
                    Some(size) => *self = Self::Data(size),
                },
                Self::Data(left) => {
                    let data = take(read, left);
                    if *left == 0 {
                        *self = Self::DataEnd;
                        // A last chunk that is there already is taken with the data: then it is known that it was the last.
                        self.look_ahead(read)?;
                    }
                    return Ok(data);
                }
                Self::DataEnd => {
                    if read.len() < 2 {
                        return Ok(Decoded::More);
                    }
                    if read.split_to(2) != b"\r\n"[..] {
                        return Err(Fault::Protocol("a chunk longer than its size"));
                    }
                    *self = Self::Size;
                }
                Self::Trailers => {
                    if read.starts_with(b"\r\n") {
                        let _ = read.split_to(2);
                        *self = Self::Done;
                        return Ok(Decoded::End);
                    }
                    let Some(trailers) = trailers(read, limits)? else {
                        return Ok(Decoded::More);
                    };
                    *self = Self::Done;
                    return Ok(Decoded::Trailers(trailers));
                }
                Self::Done => return Ok(Decoded::End),
            }
        }
    }

    /// Goes on as far as no data is passed.
    fn look_ahead(&mut self, read: &mut BytesMut) -> Result<(), Fault> {
        const LAST: &[u8] = b"\r\n0\r\n\r\n";
        if read.starts_with(LAST) {
            let _ = read.split_to(LAST.len());
            *self = Self::Done;
        } else if read.len() >= 2 && !read.starts_with(b"\r\n") {
            return Err(Fault::Protocol("a chunk longer than its size"));
        }
        Ok(())
    }
}

/// The size line, once all of it is there.
fn size(read: &mut BytesMut) -> Result<Option<u64>, Fault> {
    // The parser takes a line without a digit for the last chunk.
    if read.first().is_some_and(|first| !first.is_ascii_hexdigit()) {
        return Err(Fault::Protocol("no size of a chunk"));
    }
    match httparse::parse_chunk_size(read) {
        // An extension with a line feed is a line and a beginning of something else to whoever takes that for an end.
        Ok(httparse::Status::Complete((len, size))) if len <= MAX_SIZE_LINE && !read[..len - 1].contains(&b'\n') => {
            let _ = read.split_to(len);
            Ok(Some(size))
        }
        Ok(httparse::Status::Partial) if read.len() < MAX_SIZE_LINE => Ok(None),
        _ => Err(Fault::Protocol("no size of a chunk")),
    }
}

/// The trailers, once all of them are there.
fn trailers(read: &mut BytesMut, (lines, bytes): (usize, usize)) -> Result<Option<HeaderMap>, Fault> {
    let mut parsed = vec![httparse::EMPTY_HEADER; lines];
    let (len, count) = match httparse::parse_headers(read, &mut parsed) {
        Ok(httparse::Status::Complete((len, headers))) if len <= bytes => (len, headers.len()),
        Ok(httparse::Status::Partial) if read.len() < bytes => return Ok(None),
        _ => return Err(Fault::Protocol("trailers that are none, or too many")),
    };
    // The parser takes a line feed alone for the end of a line, where others read on.
    if read[..len].split(|byte| *byte == b'\n').rev().skip(1).any(|line| line.last() != Some(&b'\r')) {
        return Err(Fault::Protocol("a trailer that ends with a line feed alone"));
    }
    let places: Vec<_> = parsed[..count].iter().map(|header| Place::of(read, header)).collect();
    let block = read.split_to(len).freeze();
    fields(&block, &places).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces of `step` bytes.
    fn run(mut decoder: Decoder, text: &[u8], step: usize) -> Result<(Vec<u8>, Option<HeaderMap>, usize), Fault> {
        let (mut read, mut fed) = (BytesMut::new(), 0);
        let (mut data, mut trailers) = (Vec::new(), None);
        loop {
            if decoder.is_done() {
                return Ok((data, trailers, text.len() - fed + read.len()));
            }
            match decoder.decode(&mut read, (10, 200))? {
                Decoded::Data(bytes) => data.extend_from_slice(&bytes),
                Decoded::Trailers(map) => trailers = Some(map),
                Decoded::End => return Ok((data, trailers, text.len() - fed + read.len())),
                Decoded::More if fed == text.len() => return Err(Fault::Closed),
                Decoded::More => {
                    let next = text.len().min(fed + step);
                    read.extend_from_slice(&text[fed..next]);
                    fed = next;
                }
            }
        }
    }

    #[test]
    fn chunks_are_the_same_in_whatever_pieces_they_come() {
        let text = b"4\r\nwiki\r\n6;ext=1\r\npedia!\r\n0\r\nx-sum: 7\r\n\r\nHTTP/1.1";
        for step in 1..=text.len() {
            let (data, trailers, left) = run(Decoder::Chunked(Chunked::Size), text, step).unwrap();
            assert_eq!((&data[..], left), (&b"wikipedia!"[..], 8), "in pieces of {step}");
            assert_eq!(trailers.unwrap()["x-sum"], "7");
        }
        let text = b"2\r\nab\r\n0\r\n\r\n";
        for step in 1..=text.len() {
            let (data, trailers, left) = run(Decoder::Chunked(Chunked::Size), text, step).unwrap();
            assert_eq!((&data[..], trailers, left), (&b"ab"[..], None, 0));
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for text in [
            &b"x\r\n"[..],
            b"-1\r\n",
            b"0;a\nb\r\n\r\n",
            b"\r\n\r\n",
            b";a=b\r\n\r\n",
            b"2\r\nabc\r\n0\r\n\r\n",
            b"2\nab\r\n0\r\n\r\n",
            b"11111111111111111\r\n",
            b"0\r\nno colon\r\n\r\n",
            b"0\r\n\n",
            b"0\r\nx: 1\n\r\n",
            &[b"1;", &[b'e'; MAX_SIZE_LINE][..], b"\r\n"].concat(),
            &[b"0\r\nx: ", &[b'e'; 200][..], b"\r\n\r\n"].concat(),
        ] {
            for step in [1, text.len()] {
                let end = run(Decoder::Chunked(Chunked::Size), text, step);
                assert!(matches!(end, Err(Fault::Protocol(_))), "{:?}: {end:?}", text.escape_ascii().to_string());
            }
        }
    }

    #[test]
    fn a_length_takes_no_byte_more() {
        assert_eq!(run(Decoder::Length(3), b"abcHTTP", 7).unwrap(), (b"abc".to_vec(), None, 4));
        assert_eq!(run(Decoder::Length(0), b"x", 1).unwrap(), (vec![], None, 1));
        assert!(matches!(run(Decoder::Length(3), b"ab", 1), Err(Fault::Closed)));
    }
}
