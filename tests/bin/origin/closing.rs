//! An upstream that closes kept connections when it suits nobody, and remembers which POST has come how often (by its
//! `x-id`). Only a connection that has answered before is closed. `GET /report` says, as JSON, what has come and how
//! many connections were closed in each way.

use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::json;
use weir_tests::socket::reset_on_close;
use weir_tests::wire::{self, Otherwise, Random};

/// One answer in so many is followed by each way of closing.
const ONE_IN: u64 = 48;
/// A connection that is closed a moment later is closed within this: about as long as a proxy's client takes to come
/// back with its next request.
const MOMENT_US: u64 = 400;

/// What came, and what was closed.
#[derive(Default)]
pub(crate) struct Closing {
    connections: AtomicU64,
    gets: AtomicU64,
    posts: Mutex<HashMap<String, u32>>,
    /// Right after an answer, a moment after it, with a request unread, with a request read, by a reset.
    closed: [AtomicU64; 5],
}

impl Closing {
    /// Serves a connection until it is closed by either side.
    pub(crate) fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut random = Random::new(0x2545_f491 + self.connections.fetch_add(1, Relaxed));
        let mut peer = BufReader::new(stream);
        for answered in 0_u64.. {
            let way = if answered == 0 { usize::MAX } else { random.below(ONE_IN) as usize };
            match way {
                1 => thread::sleep(Duration::from_micros(random.below(MOMENT_US))),
                2 => drop(stream.peek(&mut [0])?),
                4 => reset_on_close(stream)?,
                _ => {}
            }
            if matches!(way, 0 | 1 | 2 | 4) {
                self.closed[way].fetch_add(1, Relaxed);
                return Ok(());
            }
            let Some(head) = wire::read_head(&mut peer)? else {
                return Ok(());
            };
            let body = wire::read_body(&mut peer, &head, Otherwise::Empty)?;
            if head.first.starts_with("POST ") {
                let id = head.get("x-id").unwrap_or_default().to_owned();
                *self.posts.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default() += 1;
            } else {
                self.gets.fetch_add(1, Relaxed);
            }
            if way == 3 {
                self.closed[3].fetch_add(1, Relaxed);
                return Ok(());
            }
            let answer = if head.first.starts_with("GET /report ") { self.report() } else { body };
            let mut reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", answer.len()).into_bytes();
            reply.extend_from_slice(&answer);
            (&*stream).write_all(&reply)?;
        }
        Ok(())
    }

    fn report(&self) -> Vec<u8> {
        let posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        let twice = posts.values().filter(|times| **times > 1).count();
        let closed: Vec<u64> = self.closed.iter().map(|count| count.load(Relaxed)).collect();
        let report = json!({
            "gets": self.gets.load(Relaxed), "posts": posts.len(), "twice": twice, "closed": closed,
            "connections": self.connections.load(Relaxed),
        });
        report.to_string().into_bytes()
    }
}
