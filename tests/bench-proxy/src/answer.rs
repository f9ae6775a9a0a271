//! Reading one HTTP/1.1 answer, as little of it as tells whether it is the right one. Used by `load`.

/// The most that a head of our origins and subjects has.
const MAX_HEAD: usize = 16 * 1024;

/// What an answer turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status is 200, the length is the one that is wanted, and a known version answered.
    pub right: bool,
    /// 0 = v1, 1 = v2.
    pub version: usize,
    /// Bytes of body.
    pub length: u64,
    /// The server closes after it.
    pub closes: bool,
}

/// The answer that a connection is reading.
#[derive(Debug, Default)]
pub struct Reader {
    head: Vec<u8>,
    /// The head, and how much of its body is yet to come.
    body: Option<(Head, u64)>,
}

/// Where a reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to come.
    Partial,
    /// It is whole.
    Whole(Head),
    /// No HTTP, or more than was announced.
    Broken,
}

impl Reader {
    /// Takes what was read from the socket. An answer is right with a body of `wanted` bytes.
    pub fn take(&mut self, mut bytes: &[u8], wanted: u64) -> Progress {
        let (head, left) = if let Some(body) = self.body.take() {
            body
        } else {
            let before = self.head.len();
            self.head.extend_from_slice(bytes);
            // The end may have begun in what came before.
            let from = before.saturating_sub(3);
            let Some(end) = self.head[from..].windows(4).position(|w| w == b"\r\n\r\n").map(|at| from + at + 4) else {
                return if self.head.len() > MAX_HEAD { Progress::Broken } else { Progress::Partial };
            };
            let Some(head) = parse(&self.head[..end], wanted) else { return Progress::Broken };
            bytes = &bytes[end - before..];
            self.head.clear();
            (head, head.length)
        };
        match left.checked_sub(bytes.len() as u64) {
            None => Progress::Broken,
            Some(0) => Progress::Whole(head),
            Some(left) => {
                self.body = Some((head, left));
                Progress::Partial
            }
        }
    }
}

/// `None` = no HTTP, or without a length.
fn parse(head: &[u8], wanted: u64) -> Option<Head> {
    let mut lines = std::str::from_utf8(head).ok()?.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.get(..3)?;
    let (mut length, mut version, mut closes) = (None, None, false);
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.parse().ok()?);
        } else if name.eq_ignore_ascii_case("x-version") {
            version = ["v1", "v2"].iter().position(|known| *known == value);
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.eq_ignore_ascii_case("close");
        }
    }
    let length: u64 = length?;
    let right = status == "200" && length == wanted && version.is_some();
    Some(Head { right, version: version.unwrap_or(0), length, closes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nX-Version: v2\r\nContent-Length: 4\r\n\r\nbody";

    #[test]
    fn an_answer_is_the_same_however_it_is_cut() {
        let whole = Progress::Whole(Head { right: true, version: 1, length: 4, closes: false });
        for cut in 0..ANSWER.len() {
            let mut reader = Reader::default();
            if cut > 0 {
                assert_eq!(reader.take(&ANSWER[..cut], 4), Progress::Partial);
            }
            assert_eq!(reader.take(&ANSWER[cut..], 4), whole, "cut at {cut}");
            assert_eq!(reader.take(ANSWER, 4), whole, "the next one on the same connection");
        }
    }

    #[test]
    fn wrong_answers_are_not_right() {
        let right = |text: &str, wanted| match Reader::default().take(text.as_bytes(), wanted) {
            Progress::Whole(head) => Some(head.right),
            _ => None,
        };
        assert_eq!(right("HTTP/1.1 200 OK\r\nx-version: v1\r\ncontent-length: 1\r\n\r\nx", 1), Some(true));
        assert_eq!(right("HTTP/1.1 200 OK\r\nx-version: v1\r\ncontent-length: 1\r\n\r\nx", 2), Some(false));
        assert_eq!(right("HTTP/1.1 404 No\r\nx-version: v1\r\ncontent-length: 1\r\n\r\nx", 1), Some(false));
        assert_eq!(right("HTTP/1.1 200 OK\r\nx-version: v3\r\ncontent-length: 1\r\n\r\nx", 1), Some(false));
        assert_eq!(right("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", 1), Some(false));
        assert_eq!(right("HTTP/1.1 200 OK\r\nx-version: v1\r\n\r\n", 0), None);
        assert_eq!(right("HTTP/1.1 200 OK\r\nx-version: v1\r\ncontent-length: 1\r\n\r\nxy", 1), None);
    }
}
