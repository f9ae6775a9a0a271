//! The reader of responses beside hyper's, over made and changed bytes in whatever pieces: what it takes, hyper takes
//! alike, and not a byte more of it belongs to the response. `cargo xtask fuzz wire` has it run for longer.

mod generate;

use std::collections::VecDeque;
use std::env;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::Empty;
use hyper::body::Body as _;
use hyper::rt::{Read, ReadBufCursor, Write};

use self::generate::{Random, case, cuts};
use super::decode::{Decoded, Decoder};
use super::response;

/// Cases of an ordinary run, which takes a second or two.
const CASES: u64 = if cfg!(debug_assertions) { 30_000 } else { 120_000 };
/// Minutes that the run shall take instead, and its seed.
const MINUTES: &str = "WEIR_FUZZ_MINUTES";
const SEED: &str = "WEIR_FUZZ_SEED";
/// hyper's own limit of header lines; neither limit of bytes is met by these inputs.
const LIMITS: (usize, usize) = (100, 64 * 1024);

/// A response as it was understood.
#[derive(Debug, PartialEq, Eq)]
struct Understood {
    status: StatusCode,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
}

/// What became of the bytes.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    /// More would have to come.
    Unfinished,
    Whole(Understood),
}

/// Without those that say where the body ends: which of two that agree is kept is each one's own matter.
fn listed(headers: &HeaderMap) -> Vec<(String, Vec<u8>)> {
    let framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
    let mut listed: Vec<_> = headers
        .iter()
        .filter(|(name, _)| !framing.contains(name))
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .collect();
    // Of the same name they stay in order.
    listed.sort_by(|a, b| a.0.cmp(&b.0));
    listed
}

/// What we make of bytes that come in these pieces, and how many of them belong to it. `ended`: then the connection ends.
fn ours(method: &Method, bytes: &[u8], cuts: &[usize], ended: bool) -> (Outcome, usize) {
    let (mut read, mut fed) = (BytesMut::new(), 0);
    let mut head: Option<(StatusCode, HeaderMap)> = None;
    let mut decoder = Decoder::EMPTY;
    let (mut body, mut trailers) = (Vec::new(), Vec::new());
    let mut cuts = cuts.iter();
    loop {
        let whole = loop {
            if head.is_none() {
                match response::take(&mut read, method, LIMITS) {
                    Err(_) => return (Outcome::Refused, 0),
                    Ok(None) => break false,
                    Ok(Some(taken)) => {
                        let status = taken.response.status();
                        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
                            continue;
                        }
                        decoder = taken.decoder;
                        head = Some((status, taken.response.into_parts().0.headers));
                    }
                }
            }
            if decoder.is_done() {
                break true;
            }
            match decoder.decode(&mut read, LIMITS) {
                Err(_) => return (Outcome::Refused, 0),
                Ok(Decoded::Data(data)) => body.extend_from_slice(&data),
                Ok(Decoded::Trailers(map)) => trailers = listed(&map),
                Ok(Decoded::End) => break true,
                Ok(Decoded::More) => break false,
            }
        };
        let next = cuts.next();
        let over = next.is_none() && ended && head.is_some() && decoder.ends_with_connection();
        if let Some((status, headers)) = head.as_ref().filter(|_| whole || over) {
            let understood = Understood { status: *status, headers: listed(headers), body, trailers };
            return (Outcome::Whole(understood), fed - read.len());
        }
        let Some(&next) = next else {
            return (Outcome::Unfinished, 0);
        };
        read.extend_from_slice(&bytes[fed..next]);
        fed = next;
    }
}

/// A connection whose other side says all this, and then nothing, or ends.
struct Script {
    pieces: VecDeque<Bytes>,
    ended: bool,
    /// Nothing is said before something was asked.
    asked: bool,
}

impl Read for Script {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut into: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if !self.asked {
            return Poll::Pending;
        }
        let Some(mut piece) = self.pieces.pop_front() else {
            return if self.ended { Poll::Ready(Ok(())) } else { Poll::Pending };
        };
        let now = piece.split_to(piece.len().min(into.remaining()));
        into.put_slice(&now);
        if !piece.is_empty() {
            self.pieces.push_front(piece);
        }
        Poll::Ready(Ok(()))
    }
}

impl Write for Script {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.asked = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What hyper makes of the same. Nothing waits for anything: whoever is polled in turn for long enough has got as far as
/// these bytes lead.
fn hypers(method: &Method, bytes: &[u8], ended: bool) -> Outcome {
    let mut context = Context::from_waker(Waker::noop());
    let pieces = VecDeque::from([Bytes::copy_from_slice(bytes)]);
    let mut handshake = pin!(hyper::client::conn::http1::handshake(Script { pieces, ended, asked: false }));
    let Poll::Ready(Ok((mut sender, connection))) = handshake.as_mut().poll(&mut context) else {
        panic!("a handshake without a peer");
    };
    let mut connection = pin!(connection);
    let _idle = connection.as_mut().poll(&mut context);
    let request = Request::builder().method(method).uri("/").header("host", "b").body(Empty::<Bytes>::new());
    let mut asked = pin!(sender.send_request(request.expect("a request")));
    let mut alive = true;
    let mut drive = |context: &mut Context<'_>| alive = alive && connection.as_mut().poll(context).is_pending();
    let mut answer = None;
    for _ in 0..ROUNDS {
        drive(&mut context);
        if let Poll::Ready(ready) = asked.as_mut().poll(&mut context) {
            answer = Some(ready);
            break;
        }
    }
    let response = match answer {
        None => return Outcome::Unfinished,
        Some(Err(error)) if error.is_incomplete_message() || error.is_canceled() => return Outcome::Unfinished,
        Some(Err(_)) => return Outcome::Refused,
        Some(Ok(response)) => response,
    };
    let (status, headers) = (response.status(), listed(response.headers()));
    let (mut body, mut trailers) = (Vec::new(), Vec::new());
    let mut frames = pin!(response.into_body());
    for _ in 0..ROUNDS + bytes.len() {
        match frames.as_mut().poll_frame(&mut context) {
            Poll::Ready(None) => return Outcome::Whole(Understood { status, headers, body, trailers }),
            Poll::Ready(Some(Err(error))) if error.is_incomplete_message() => return Outcome::Unfinished,
            Poll::Ready(Some(Err(_))) => return Outcome::Refused,
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => body.extend_from_slice(&data),
                Err(frame) => trailers = frame.trailers_ref().map(listed).unwrap_or_default(),
            },
            Poll::Pending => drive(&mut context),
        }
    }
    Outcome::Unfinished
}

/// Rounds of polling after which nothing moves any more.
const ROUNDS: usize = 8;

/// What is wrong about how we read this.
fn fault(method: &Method, bytes: &[u8], random: &mut Random) -> Result<Outcome, String> {
    let (first, taken) = ours(method, bytes, &[bytes.len()], true);
    let cuts = cuts(random, bytes.len());
    let (again, taken_again) = ours(method, bytes, &cuts, true);
    if (&first, taken) != (&again, taken_again) {
        return Err(format!("in pieces {cuts:?} it is {again:?} of {taken_again} bytes, at once {first:?} of {taken}"));
    }
    let Outcome::Whole(_) = first else {
        return Ok(first);
    };
    let theirs = hypers(method, bytes, true);
    if theirs != first {
        return Err(format!("hyper has {theirs:?}, we have {first:?}"));
    }
    // Where the end of the connection is not what ends it, its own bytes are enough, and one less is too few.
    if ours(method, &bytes[..taken], &[taken], false).0 == first {
        let (enough, short) = (hypers(method, &bytes[..taken], false), hypers(method, &bytes[..taken - 1], false));
        if enough != first || short != Outcome::Unfinished {
            return Err(format!("of {taken} bytes hyper makes {enough:?}, of one less {short:?}"));
        }
    }
    Ok(first)
}

#[test]
fn what_we_take_hyper_takes_alike_and_not_a_byte_more() {
    let number = |name: &str| env::var(name).ok()?.parse::<f64>().ok();
    let seed = number(SEED).map_or(1, |seed| seed as u64);
    let until = number(MINUTES).map(|minutes| Instant::now() + Duration::from_secs_f64(minutes * 60.0));
    let (mut whole, mut refused, mut unfinished) = (0_u64, 0, 0);
    for n in 0.. {
        if until.map_or(n >= CASES, |until| n % 1024 == 0 && Instant::now() >= until) {
            break;
        }
        // Each case by itself can be had again by its number.
        let mut random = Random(seed.wrapping_mul(0x1_0000_0001).wrapping_add(n << 20));
        let (method, bytes) = case(&mut random);
        match fault(&method, &bytes, &mut random) {
            Ok(Outcome::Whole(_)) => whole += 1,
            Ok(Outcome::Refused) => refused += 1,
            Ok(Outcome::Unfinished) => unfinished += 1,
            Err(what) => panic!("seed {seed}, case {n}: {method} \"{}\": {what}", bytes.escape_ascii()),
        }
    }
    let all = whole + refused + unfinished;
    assert!(
        whole > all / 3 && refused > all / 20 && unfinished > all / 50,
        "{whole} whole, {refused} refused of {all}"
    );
}

/// Stricter is one thing, deaf another: what hyper takes and we do not is one of these.
#[test]
fn what_we_alone_refuse_is_framed_in_two_ways() {
    let mut random = Random(7);
    let (mut stricter, mut alike) = (0, 0);
    for _ in 0..CASES / 4 {
        let (method, bytes) = case(&mut random);
        if ours(&method, &bytes, &[bytes.len()], true).0 != Outcome::Refused {
            continue;
        }
        if !matches!(hypers(&method, &bytes, true), Outcome::Whole(_)) {
            alike += 1;
            continue;
        }
        stricter += 1;
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        assert!(
            text.contains("transfer-encoding") || text.contains("content-length"),
            "{method} \"{}\" has nothing that could be read in two ways",
            bytes.escape_ascii()
        );
    }
    assert!(alike > 4 * stricter, "{stricter} are refused by us alone, {alike} by both");
}
