//! What is measured. Used by `rounds` and `report`.

use crate::load;
use crate::mesh::FEW_ROUTES;
use crate::peers::Subject;

/// Rules where there are many.
pub const MANY_ROUTES: usize = 1000;

/// What a case looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CPU, throughput and time of requests.
    Traffic,
    /// Memory of connections that wait.
    Idle,
    /// Memory after a burst.
    Burst,
}

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// On the command line.
    pub name: &'static str,
    /// In tables.
    pub title: &'static str,
    /// What is looked at.
    pub kind: Kind,
    /// Threads or processes of each subject.
    pub workers: usize,
    /// Rules of the host that is asked.
    pub routes: usize,
    /// What is asked for.
    pub path: &'static str,
    /// Bytes of it.
    pub body: u64,
    /// Connections at once.
    pub connections: usize,
    /// A new connection for each request.
    pub fresh: bool,
    /// Requests a second; `None` = as many as it takes.
    pub rate: Option<u32>,
    /// Bytes instead of HTTP.
    pub bytes: bool,
}

/// What most cases have.
const KEEPALIVE: Case = Case {
    name: "keepalive",
    title: "HTTP/1.1 keep-alive, 1 KiB, 32 connections",
    kind: Kind::Traffic,
    workers: 1,
    routes: FEW_ROUTES,
    path: "1k",
    body: 1024,
    connections: 32,
    fresh: false,
    rate: None,
    bytes: false,
};

/// All, in the order of the report.
pub const ALL: &[Case] = &[
    KEEPALIVE,
    Case { name: "routes", title: "the same, the last of 1,000 header routes", routes: MANY_ROUTES, ..KEEPALIVE },
    Case { name: "large", title: "64 KiB bodies, 32 connections", path: "64k", body: 64 << 10, ..KEEPALIVE },
    Case { name: "fresh", title: "a connection per request, 1 KiB, 32 at once", fresh: true, ..KEEPALIVE },
    Case {
        name: "rate-8000",
        title: "8,000 requests a second, two workers",
        workers: 2,
        rate: Some(8000),
        ..KEEPALIVE
    },
    Case {
        name: "rate-1000",
        title: "1,000 requests a second, two workers",
        workers: 2,
        rate: Some(1000),
        ..KEEPALIVE
    },
    Case {
        name: "bulk",
        title: "16 MiB over TCP, 4 connections",
        path: "16m",
        body: 16 << 20,
        connections: 4,
        bytes: true,
        ..KEEPALIVE
    },
    Case { name: "idle", title: "memory of 1,000 idle connections", kind: Kind::Idle, connections: 1000, ..KEEPALIVE },
    Case {
        name: "burst",
        title: "memory after 1,000 connections with 64 KiB bodies at once",
        kind: Kind::Burst,
        path: "64k",
        body: 64 << 10,
        connections: 1000,
        ..KEEPALIVE
    },
];

impl Case {
    /// The request of this case: for the last rule, which is the dearest to find one by one.
    pub fn request(&self) -> Vec<u8> {
        load::request(self.path, self.routes - 1, self.fresh)
    }

    /// Whether a subject takes part: on both allocators only where an allocator matters.
    pub fn takes(&self, subject: Subject) -> bool {
        subject != Subject::WeirMimalloc || !self.bytes
    }
}
