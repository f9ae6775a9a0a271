//! A worker's lines on their way to the writer of the access log. They are gathered and handed over some at a time: waking
//! the writer for each cost more than the rest of the request. Owned by `worker`, which calls [`Lines::hand_over`] every tick.

use std::cell::RefCell;
use std::sync::Arc;

use tokio::sync::mpsc::Sender;

use super::Entry;
use crate::config::LogFormat;
use crate::proxy::counters::Shard;

/// Bytes of lines that are handed over before the tick: some hundred lines, a hundredth of the writer's wake-ups.
pub(super) const CHUNK: usize = 32 * 1024;

/// Of one worker. What waits when it is dropped is handed over.
#[derive(Debug)]
pub(crate) struct Lines {
    /// `None` = there is no access log.
    writer: Option<Sender<String>>,
    format: LogFormat,
    waiting: RefCell<Waiting>,
    shard: Arc<Shard>,
}

#[derive(Debug, Default)]
struct Waiting {
    text: String,
    lines: u64,
}

impl Lines {
    /// Lines for `writer`, which takes any number of whole ones at once.
    pub(crate) fn new(writer: Option<Sender<String>>, format: LogFormat, shard: Arc<Shard>) -> Self {
        Self { writer, format, waiting: RefCell::default(), shard }
    }

    /// Whether there is an access log.
    pub(crate) fn wanted(&self) -> bool {
        self.writer.is_some()
    }

    /// Takes the line of `entry`. While the writer does not keep up it is dropped, and counted.
    pub(crate) fn push(&self, entry: &Entry) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.text.len() >= CHUNK && !self.send(&mut waiting) {
            self.shard.log_lines_dropped.add(1);
            return;
        }
        if waiting.text.capacity() == 0 {
            // Room for all of it at once; a line is some hundred bytes, and few are thousands.
            waiting.text.reserve(CHUNK + CHUNK / 16);
        }
        entry.line(self.format, &mut waiting.text);
        waiting.lines += 1;
    }

    /// Gives the writer what waits, if it has room.
    pub(crate) fn hand_over(&self) {
        self.send(&mut self.waiting.borrow_mut());
    }

    /// Whether nothing waits any more.
    fn send(&self, waiting: &mut Waiting) -> bool {
        let Some(writer) = self.writer.as_ref().filter(|_| waiting.lines > 0) else {
            return true;
        };
        let Ok(place) = writer.try_reserve() else {
            return false;
        };
        place.send(std::mem::take(waiting).text);
        true
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_over();
        let lost = self.waiting.get_mut().lines;
        self.shard.log_lines_dropped.add(lost);
        if lost > 0 {
            tracing::warn!(lines = lost, "the access log does not keep up: its last lines are lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::sync::mpsc::{Receiver, channel};

    fn entry() -> Entry {
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        Entry::new("shop/a".into(), address, address)
    }

    fn lines(room: usize) -> (Lines, Arc<Shard>, Receiver<String>) {
        let (sender, receiver) = channel(room);
        let shard = Arc::<Shard>::default();
        (Lines::new(Some(sender), LogFormat::Text, Arc::clone(&shard)), shard, receiver)
    }

    fn count(chunks: &[String]) -> usize {
        chunks.iter().map(|chunk| chunk.lines().count()).sum()
    }

    fn received(receiver: &mut Receiver<String>) -> Vec<String> {
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    #[test]
    fn a_line_wakes_nobody_and_none_is_lost() {
        const LINES: usize = 10_000;
        let (lines, shard, mut receiver) = lines(1000);
        lines.push(&entry());
        assert!(receiver.try_recv().is_err(), "it waits for the tick");
        lines.hand_over();
        assert_eq!(count(&received(&mut receiver)), 1);
        lines.hand_over();
        assert!(receiver.try_recv().is_err(), "nothing was said, so nobody is woken");
        (0..LINES).for_each(|_| lines.push(&entry()));
        drop(lines);
        let chunks = received(&mut receiver);
        assert_eq!((count(&chunks), shard.log_lines_dropped.get()), (LINES, 0));
        assert!(chunks.len() <= LINES / 100, "the writer was woken {} times for {LINES} lines", chunks.len());
        assert!(chunks.iter().all(|chunk| chunk.ends_with('\n')), "lines are whole");
    }

    #[test]
    fn what_a_slow_writer_cannot_take_is_dropped_and_counted() {
        const LINES: usize = 10_000;
        let (lines, shard, mut receiver) = lines(2);
        (0..LINES).for_each(|_| lines.push(&entry()));
        assert!(lines.waiting.borrow().text.len() < 2 * CHUNK, "no more than a chunk is kept");
        drop(lines);
        let dropped = shard.log_lines_dropped.get() as usize;
        assert!(dropped > 0);
        assert_eq!(count(&received(&mut receiver)) + dropped, LINES);
    }
}
