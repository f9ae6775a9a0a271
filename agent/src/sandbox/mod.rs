//! Where the pods of this node live: network namespace, v2 cgroup and addresses of each, found by the pod's UID and
//! followed while it lives. Used by `app`, which enrols what is found here.
//!
//! The kubelet makes a cgroup that bears the UID, the runtime puts the sandbox's process into it, and that process's
//! namespace is the pod's. So the file system tells everything that is needed, before any container starts, with every
//! runtime, and without asking it:
//!
//! ```text
//! kubelet: mkdir kubepods/burstable/podUID ──► inotify: a pod that is wanted
//! runtime: mkdir …/podUID/ID; its helper joins ─► inotify: cgroup.procs written, cgroup.events "populated 1"
//!          the helper enters the pod's namespace ─► looked at again every 2 ms until it has
//! CNI:     addresses ──────────────────────────► rtnetlink inside the namespace
//! end:     cgroup.events "populated 0", rmdir ──► gone
//! ```
//! | file | what it is |
//! |---|---|
//! | `layout` | the names of the directories |
//! | `process` | which process stands for the sandbox |
//! | `addresses` | the addresses inside the namespace |
//! | `book`, `place` | what is known of each pod, and when to look again |
//! | `inotify` | waiting |
//!
//! **Invariants.** Only pods that are wanted are looked at. The node's own namespace is never a pod's. A slow poll finds
//! what events did not tell. What cannot be read is not taken for gone.

mod addresses;
mod book;
mod inotify;
mod layout;
mod place;
mod process;

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use self::book::Book;
use self::inotify::{Bell, Epoll};
use crate::cgroup::{CgroupError, Hierarchy};
use crate::netns::NetNs;

/// How often everything is looked at without being told to: the net below the events.
const POLL: Duration = Duration::from_secs(2);
/// Hybrid nodes: which version 1 trees are looked at first, of those that have the pods. Every runtime uses `pids`.
const V1_PREFERENCE: [&str; 5] = ["pids", "memory", "cpu", "name=systemd", "devices"];

/// What is known of a wanted pod.
#[derive(Clone, Debug)]
pub enum State {
    /// No process of it is on this node: not yet, or not any more.
    Absent {
        /// Since when.
        since: Instant,
    },
    /// Its first process is there, and not in its namespace yet.
    Starting,
    /// It has a namespace.
    Ready(Sandbox),
    /// It cannot take part, for this reason.
    Refused(String),
}

/// A pod's sandbox.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Its network namespace.
    pub netns: NetNs,
    /// Device and inode of the namespace: a sandbox that was made anew has others.
    pub netns_id: (u64, u64),
    /// Its v2 cgroup; `None` where the runtime leaves pods in cgroups of version 1 only.
    pub cgroup: Option<PathBuf>,
    /// What it can be reached at, that of the cluster's interface first; none while the CNI is at work.
    pub addresses: Vec<IpAddr>,
}

impl Sandbox {
    fn is_same(&self, other: &Self) -> bool {
        (self.netns_id, &self.cgroup, &self.addresses) == (other.netns_id, &other.cgroup, &other.addresses)
    }
}

impl State {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ready(one), Self::Ready(two)) => one.is_same(two),
            (Self::Refused(one), Self::Refused(two)) => one == two,
            (Self::Absent { .. }, Self::Absent { .. }) | (Self::Starting, Self::Starting) => true,
            _ => false,
        }
    }
}

/// The cgroup trees of this node, and where its pods are in them.
#[derive(Clone, Debug)]
pub struct Trees {
    v2: Tree,
    /// By preference; none on a unified node.
    v1: Vec<Tree>,
}

#[derive(Clone, Debug)]
struct Tree {
    hierarchy: Hierarchy,
    /// The agent's cgroup in it, by which this node's pods are told from another's.
    own: Option<PathBuf>,
}

impl Trees {
    /// Those mounted here, or at `root` when that is where the host's are. Process `agent` tells by its cgroups which of
    /// several nodes in one tree this is.
    ///
    /// # Errors
    /// Without cgroup v2.
    pub fn find(root: Option<&Path>, agent: u32) -> Result<Self, CgroupError> {
        let tree = |hierarchy: Hierarchy| Tree { own: hierarchy.of_process(agent).ok(), hierarchy };
        let mut v1: Vec<Tree> = Hierarchy::find_v1(root)?.into_iter().map(tree).collect();
        let rank = |tree: &Tree| {
            let named = |name: &&str| tree.hierarchy.controllers().iter().any(|c| c == name);
            V1_PREFERENCE.iter().position(named).unwrap_or(V1_PREFERENCE.len())
        };
        v1.sort_by_key(rank);
        Ok(Self { v2: tree(Hierarchy::find_below(root)?), v1 })
    }

    /// The `kubepods` directories of this node now: those of v2, and those of one tree of version 1.
    fn kubepods(&self) -> Vec<PathBuf> {
        let of = |tree: &Tree| tree.hierarchy.kubepods(tree.own.as_deref());
        let v1 = self.v1.iter().map(of).find(|found| !found.is_empty()).unwrap_or_default();
        of(&self.v2).into_iter().chain(v1).collect()
    }
}

/// The sandboxes of the wanted pods, followed by a thread (`weir-sandbox`) that ends with this.
#[derive(Debug)]
pub struct Sandboxes {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    book: Mutex<Book>,
    epoll: Arc<Epoll>,
    bell: Bell,
    stopped: AtomicBool,
}

/// The token of [`Shared::bell`]; those of pods count from above.
const BELL: u64 = 0;
/// The token of inotify.
const INOTIFY: u64 = 1;
/// The first token of a pod's addresses.
const PODS: u64 = 2;

impl Sandboxes {
    /// Starts to follow; nothing is wanted yet. `wake` is called, on the thread, for each pod whose state has changed.
    ///
    /// # Errors
    /// When the kernel has no descriptors or threads left (inotify: fs.inotify.max_user_instances).
    pub fn start(trees: Trees, wake: impl Fn(&str) + Send + 'static) -> io::Result<Self> {
        let epoll = Arc::new(Epoll::new()?);
        let bell = Bell::new()?;
        epoll.add(bell.fd(), BELL)?;
        let book = Book::new(trees, home()?, Arc::clone(&epoll))?;
        let shared = Arc::new(Shared { book: Mutex::new(book), epoll, bell, stopped: AtomicBool::new(false) });
        let follower = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("weir-sandbox".into()).spawn(move || follower.follow(wake))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Follows exactly these pods from now on. Those that are new have been looked for when this returns.
    pub fn want(&self, uids: &BTreeSet<Arc<str>>) {
        let new = self.shared.book().want(uids, Instant::now());
        if new {
            // It may have to wake earlier for them.
            self.shared.bell.ring();
        }
    }

    /// What is known of a pod; `None` for one that is not wanted.
    pub fn state(&self, uid: &str) -> Option<State> {
        self.shared.book().state(uid)
    }

    /// Why a pod could not be looked at, now or lately, and whether that is over. What is known of it is older if not.
    pub fn fault(&self, uid: &str) -> Option<(String, bool)> {
        self.shared.book().fault(uid, Instant::now())
    }

    /// The cgroups of a wanted pod, of any tree.
    pub fn cgroups(&self, uid: &str) -> Vec<PathBuf> {
        self.shared.book().cgroups(uid)
    }

    /// Whether the kubelet's cgroup is there. Without it no pod can be found.
    pub fn has_kubepods(&self) -> bool {
        self.shared.book().has_kubepods()
    }
}

impl Drop for Sandboxes {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.bell.ring();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("weir-sandbox panicked");
        }
    }
}

impl Shared {
    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(&self, wake: impl Fn(&str)) {
        while !self.stopped.load(Ordering::Acquire) {
            let timeout = self.book().due().saturating_duration_since(Instant::now());
            let ready = self.epoll.wait(timeout);
            if ready.contains(&BELL) {
                self.bell.silence();
            }
            let changed = self.book().turn(&ready, Instant::now());
            for uid in changed {
                wake(&uid);
            }
        }
    }
}

/// The namespaces that are the node's own: the agent's, which runs on the host's network, and that of process 1 where
/// it can be read (in a node that is a container it may not be, or be the same).
fn home() -> io::Result<Vec<(u64, u64)>> {
    let id = |path: &str| std::fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    Ok(std::iter::once(id("/proc/self/ns/net")?).chain(id("/proc/1/ns/net")).collect())
}
