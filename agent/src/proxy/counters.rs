//! What a worker counts, without a lock or a shared cache line: one shard per worker, written by it alone, summed by
//! whoever asks [`super::Proxy::counters`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::error::{Flag, Flags};

/// A number that one thread writes and any may read.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds. Load and store instead of a locked add: only the worker that owns the shard writes.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn subtract(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(n), Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($(#[doc = $doc:literal] $name:ident,)*) => {
        /// One worker's counters, on cache lines of their own.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub(crate) struct Shard {
            $(pub(crate) $name: Counter,)*
            pub(crate) classes: [Counter; 6],
            pub(crate) flags: [Counter; Flag::ALL.len()],
            /// CLOCK_MONOTONIC in ns, written every tick.
            pub(crate) tick: Counter,
        }

        /// The proxy's counters, summed over its workers.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct ProxyCounters {
            $(#[doc = $doc] pub $name: u64,)*
            /// Requests by the first digit of their status; 0 = the client went before there was one.
            pub classes: [u64; 6],
            /// Requests and TCP connections by response flag, indexed by `Flag as usize`.
            pub flags: [u64; Flag::ALL.len()],
        }

        impl ProxyCounters {
            /// Name, what it counts, and value of every plain number, in order.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), $doc, self.$name),)*].into_iter()
            }

            pub(crate) fn add(&mut self, shard: &Shard) {
                $(self.$name += shard.$name.get();)*
                for (sum, counter) in self.classes.iter_mut().zip(&shard.classes) {
                    *sum += counter.get();
                }
                for (sum, counter) in self.flags.iter_mut().zip(&shard.flags) {
                    *sum += counter.get();
                }
            }
        }
    };
}

counters! {
    /// Connections taken from listeners.
    connections_accepted,
    /// Connections open now (a gauge).
    connections_active,
    /// Times that a worker became too busy for the connections of its own CPU.
    steering_escapes,
    /// Times that an HTTP/1 connection was parked.
    connections_parked_total,
    /// Connections closed because they could not be parked.
    parking_failures,
    /// HTTP/1 connections that are parked: nothing has been asked for a moment (a gauge).
    connections_parked,
    /// Connections forwarded as bytes.
    tcp_connections,
    /// Directions of TCP connections that went over to splice(2), as they carried much.
    tcp_spliced,
    /// Connections closed because nobody knows where they were going.
    unknown_destinations,
    /// Connections closed because they were going to the listener itself.
    loops,
    /// Failed accepts.
    accept_errors,
    /// HTTP requests.
    requests,
    /// Requests refused because the client's pod had its share of those under way.
    requests_overloaded,
    /// Requests sent again, on a fresh connection or to another endpoint.
    retries,
    /// Copies of requests that a mirror answered.
    mirrored,
    /// Copies that a mirror did not answer, or not in time.
    mirror_failures,
    /// Copies that were not made: too many were under way, or the body was too long.
    mirrors_dropped,
    /// Copies under way now (a gauge).
    mirrors_active,
    /// Endpoints that outlier detection took out of use.
    ejections,
    /// Upstream connections opened.
    upstream_connects,
    /// Upstream connects that failed or timed out.
    upstream_connect_failures,
    /// Requests that an idle upstream connection served.
    upstream_reuses,
    /// Upstream connections idle now (a gauge).
    upstream_idle,
    /// Body and TCP bytes from clients.
    bytes_received,
    /// Body and TCP bytes to clients.
    bytes_sent,
    /// Clients too slow with a request head.
    header_timeouts,
    /// Tasks that panicked. More than 0 is a bug.
    panics,
    /// Access log lines that the channel had no room for.
    log_lines_dropped,
    /// Spans that the exporter was too slow for.
    spans_dropped,
    /// Requests and connections that Istio's metrics count without telling whose: there were too many label sets.
    metrics_folded,
}

impl ProxyCounters {
    /// Requests and TCP connections that ended with this flag, be it with others.
    pub fn flag(&self, flag: Flag) -> u64 {
        self.flags[flag as usize]
    }
}

impl Shard {
    /// Counts one request or TCP connection by each of its flags, or as one that has none.
    pub(crate) fn flagged(&self, flags: Flags) {
        if flags.is_empty() {
            self.flags[Flag::None as usize].add(1);
        }
        for flag in flags.iter() {
            self.flags[flag as usize].add(1);
        }
    }

    /// Counts one request by its status.
    pub(crate) fn answered(&self, status: u16) {
        self.classes[usize::from(status / 100).min(5)].add(1);
    }
}
