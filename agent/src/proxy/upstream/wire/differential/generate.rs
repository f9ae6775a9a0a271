//! Responses as servers give them, and as nobody should: parts of a grammar, then changes of single bytes and lines.

use http::Method;

/// A small generator (SplitMix64): the same inputs for the same seed.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.number() % bound.max(1) as u64) as usize
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

const STATUS_LINES: &[&str] = &[
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200 OK",
    "HTTP/1.1 200",
    "HTTP/1.1 200 ",
    "HTTP/1.0 200 OK",
    "HTTP/1.1 404 Not Found",
    "HTTP/1.1 204 No Content",
    "HTTP/1.1 304 Not Modified",
    "HTTP/1.1 500 caf\u{e9}",
    "HTTP/1.1 999 Odd",
];
const ODD_STATUS_LINES: &[&str] = &[
    "HTTP/2.0 200 OK",
    "HTTP/1.2 200 OK",
    "HTTP/1.1 20 OK",
    "HTTP/1.1 2000 OK",
    "HTTP/1.1  200 OK",
    "HTTP/1.1\t200 OK",
    "http/1.1 200 OK",
    "HTTP/1.1 099 Low",
    "HTTP/1.1 101 Switching Protocols",
    "\r\nHTTP/1.1 200 OK",
    "ICY 200 OK",
    "",
];
const HEADERS: &[&str] = &[
    "server: x",
    "Set-Cookie: a=1; path=/",
    "Set-Cookie: b=2",
    "x-empty:",
    "x-space:   padded  ",
    "Connection: close",
    "connection: keep-alive",
    "connection: Upgrade, close",
    "Trailer: x-sum",
    "date: Thu, 01 Jan 1970 00:00:00 GMT",
];
const ODD_HEADERS: &[&str] = &[
    "no colon",
    "x space: 1",
    "x-before : 1",
    " x-folded: 1",
    "\tx-folded: 1",
    ": nameless",
    "x-nul: a\0b",
    "x-cr: a\rb",
    "x-high: \u{e9}",
    "x(y): 1",
    "content-length: 3",
    "content-length: 3, 3",
    "content-length: 3, 4",
    "content-length: +3",
    "content-length: 0x3",
    "content-length: 3 ",
    "content-length: 18446744073709551616",
    "content-length: ",
    "content-length: 03",
    "transfer-encoding: chunked",
    "Transfer-Encoding: CHUNKED",
    "transfer-encoding: chunked, chunked",
    "transfer-encoding: gzip, chunked",
    "transfer-encoding: chunked, identity",
    "transfer-encoding: identity",
    "transfer-encoding: xchunked",
    "transfer-encoding: chunked;q=1",
    "transfer-encoding:",
];
const SIZES: &[&str] =
    &["{}", "{}", "{}", "{};a=b", "{} ", "00{}", "{};\"q\"", "{}\t", " {}", "0x{}", "-{}", "+{}", "{}g", ""];
const ENDS: &[&str] = &["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\r\n\r\n", ""];
const WORDS: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    ":",
    ",",
    ";",
    "0\r\n\r\n",
    "HTTP/1.1 200 OK\r\n",
    "content-length: 1\r\n",
    "\u{ff}",
    "chunked",
];

/// To what the response answers, and its bytes with what may follow them.
pub(super) fn case(random: &mut Random) -> (Method, Vec<u8>) {
    let method = random.of(&["GET", "GET", "GET", "POST", "HEAD"]);
    let mut bytes = Vec::new();
    while random.once_in(8) {
        interim(random, &mut bytes);
    }
    response(random, &mut bytes);
    match random.below(4) {
        0 => bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"),
        1 => bytes.extend_from_slice(b"\r\n"),
        _ => {}
    }
    // Half of them stay as they are: what is right must be taken.
    for _ in 0..random.of(&[0, 0, 0, 0, 1, 1, 2, 4]) {
        mutate(random, &mut bytes);
    }
    (Method::from_bytes(method.as_bytes()).expect("a method"), bytes)
}

/// Where the bytes are cut into reads.
pub(super) fn cuts(random: &mut Random, len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = match random.below(4) {
        0 => (1..len).collect(),
        1 => Vec::new(),
        _ => (0..=random.below(6)).map(|_| random.below(len + 1)).collect(),
    };
    cuts.push(len);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

fn interim(random: &mut Random, bytes: &mut Vec<u8>) {
    let line = random.of(&["HTTP/1.1 100 Continue", "HTTP/1.1 103 Early Hints", "HTTP/1.1 102 Processing"]);
    bytes.extend_from_slice(line.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    if random.once_in(3) {
        bytes.extend_from_slice(
            random.of(&["link: </a>\r\n", "content-length: 3\r\n", "transfer-encoding: chunked\r\n"]).as_bytes(),
        );
    }
    bytes.extend_from_slice(b"\r\n");
}

fn response(random: &mut Random, bytes: &mut Vec<u8>) {
    let odd = random.once_in(12);
    let line = if odd { random.of(ODD_STATUS_LINES) } else { random.of(STATUS_LINES) };
    let mut lines = vec![line.to_owned()];
    for _ in 0..random.below(4) {
        lines.push(random.of(HEADERS).to_owned());
    }
    if random.once_in(6) {
        lines.push(random.of(ODD_HEADERS).to_owned());
    }
    let body: Vec<u8> = (0..random.of(&[0, 1, 3, 10, 300])).map(|n| b'a' + (n % 26) as u8).collect();
    let framing = random.below(5);
    match framing {
        0 | 1 => {
            let off = if random.once_in(10) { random.below(3) } else { 0 };
            lines.push(format!("Content-Length: {}", body.len() + off));
        }
        2 | 3 => lines.push("transfer-encoding: chunked".to_owned()),
        _ => {}
    }
    let at = 1 + random.below(lines.len());
    let last = lines.len() - 1;
    lines.swap(at.min(last), last);
    for line in lines {
        bytes.extend_from_slice(line.as_bytes());
        end(random, bytes);
    }
    end(random, bytes);
    if matches!(framing, 2 | 3) { chunks(random, &body, bytes) } else { bytes.extend_from_slice(&body) }
}

/// The end of a line: nearly always the right one.
fn end(random: &mut Random, bytes: &mut Vec<u8>) {
    let end = if random.once_in(40) { random.of(ENDS) } else { "\r\n" };
    bytes.extend_from_slice(end.as_bytes());
}

fn chunks(random: &mut Random, body: &[u8], bytes: &mut Vec<u8>) {
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, tail) = rest.split_at(1 + random.below(rest.len()));
        size(random, chunk.len(), bytes);
        bytes.extend_from_slice(chunk);
        end(random, bytes);
        rest = tail;
    }
    size(random, 0, bytes);
    while random.once_in(4) {
        let odd = random.once_in(4);
        bytes.extend_from_slice(if odd { random.of(ODD_HEADERS) } else { random.of(HEADERS) }.as_bytes());
        end(random, bytes);
    }
    end(random, bytes);
}

fn size(random: &mut Random, len: usize, bytes: &mut Vec<u8>) {
    let form = if random.once_in(10) { random.of(SIZES) } else { "{}" };
    let digits = if random.once_in(3) { format!("{len:X}") } else { format!("{len:x}") };
    bytes.extend_from_slice(form.replace("{}", &digits).as_bytes());
    end(random, bytes);
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.below(bytes.len() + 1);
    let until = (at + 1 + random.below(8)).min(bytes.len());
    match random.below(6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 => drop(bytes.drain(at..until)),
        2 => {
            let again = bytes[at..until].to_vec();
            drop(bytes.splice(at..at, again));
        }
        3 => bytes.truncate(at),
        4 if at < bytes.len() => bytes[at] = random.of(b"\r\n\t :;,0123fF\0\x7f\xff"),
        _ => drop(bytes.splice(at..at, random.of(WORDS).bytes())),
    }
}
