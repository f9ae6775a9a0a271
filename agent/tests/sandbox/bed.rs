//! What every test stands on: a node of its own, its pods' namespaces, and processes that move in as a container runtime
//! moves them. Used by each file beside it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use weir::cgroup::Hierarchy;
use weir::sandbox::{Sandbox, Sandboxes, State, Trees};
use weir_tests::monotonic_ns;
use weir_tests::netns::{self, NetNs};
use weir_tests::require::{Need, require};

/// Everything here takes milliseconds; this is for a machine that is busy with something else.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// A node: a cgroup with an agent and kubepods in the v2 tree and, when `v1`, in that of `pids`.
pub(crate) struct Node {
    name: String,
    pub(crate) v2: PathBuf,
    pub(crate) v1: Option<PathBuf>,
    pub(crate) agent: Option<Child>,
    pods: AtomicU32,
}

/// One container of a pod, or its sandbox.
pub(crate) struct Container {
    pub(crate) child: Child,
    cgroups: Vec<PathBuf>,
    /// Nanoseconds when it entered its cgroups, and when it was in its namespace.
    pub(crate) entered: u64,
    pub(crate) inside: u64,
}

impl Node {
    pub(crate) fn new(test: &str, hybrid: bool) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !require(test, &[Need::Namespaces]) {
            return None;
        }
        let name = format!("weirsb{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let v2 = Hierarchy::find().unwrap().mount().join(&name);
        let pids = Path::new("/sys/fs/cgroup/pids");
        let v1 = (hybrid && pids.join("cgroup.procs").exists()).then(|| pids.join(&name));
        let mut node = Self { name, v2, v1, agent: None, pods: AtomicU32::new(0) };
        let agent = node.roots().iter().map(|root| root.join("system/weir")).collect();
        node.agent = Some(Self::start(agent, None, Duration::ZERO).child);
        Some(node)
    }

    pub(crate) fn roots(&self) -> Vec<PathBuf> {
        std::iter::once(&self.v2).chain(&self.v1).cloned().collect()
    }

    pub(crate) fn follow(&self) -> (Sandboxes, Receiver<(String, u64)>) {
        let (woken, wakes) = channel();
        let trees = Trees::find(None, self.agent.as_ref().unwrap().id()).unwrap();
        let wake = move |uid: &str| drop(woken.send((uid.to_owned(), monotonic_ns())));
        (Sandboxes::start(trees, wake).unwrap(), wakes)
    }

    /// A namespace with an address, as the CNI leaves it.
    pub(crate) fn netns(&self, address: Option<&str>) -> NetNs {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        let made = NetNs::create(&format!("{}-{number}", self.name)).unwrap();
        made.ip("link add eth0 type veth peer name peer0\nlink set eth0 up\n").unwrap();
        if let Some(address) = address {
            made.ip(&format!("addr add {address}/32 dev eth0\n")).unwrap();
        }
        made
    }

    /// Makes `cgroup` below each root and starts a process there, which enters `netns` after `helper`.
    pub(crate) fn run(&self, cgroup: &str, netns: Option<&NetNs>, helper: Duration) -> Container {
        Self::start(self.roots().iter().map(|root| root.join(cgroup)).collect(), netns, helper)
    }

    pub(crate) fn start(cgroups: Vec<PathBuf>, netns: Option<&NetNs>, helper: Duration) -> Container {
        let mut doors = Vec::new();
        for cgroup in &cgroups {
            fs::create_dir_all(cgroup).unwrap();
            doors.push(fs::OpenOptions::new().write(true).open(cgroup.join("cgroup.procs")).unwrap());
        }
        let (mut times, child_end) = std::io::pipe().unwrap();
        let netns = netns.cloned();
        let mut command = Command::new("sleep");
        command.arg("100").stdin(Stdio::null());
        // SAFETY: between fork and exec only system calls on descriptors that the closure owns; no allocation.
        unsafe {
            command.pre_exec(move || {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                let entered = monotonic_ns();
                for door in &doors {
                    libc::write(door.as_raw_fd(), c"0".as_ptr().cast(), 1);
                }
                if let Some(netns) = &netns {
                    libc::usleep(helper.as_micros() as u32);
                    libc::setns(netns.fd(), libc::CLONE_NEWNET);
                }
                let times = [entered, monotonic_ns()];
                libc::write(child_end.as_raw_fd(), times.as_ptr().cast(), size_of_val(&times));
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        let mut bytes = [0_u8; 16];
        times.read_exact(&mut bytes).unwrap();
        let time = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        Container { child, cgroups, entered: time(0), inside: time(8) }
    }
}

impl Container {
    /// Kills it, and removes its cgroups as the runtime does.
    pub(crate) fn stop(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for cgroup in &self.cgroups {
            // Busy until the kernel has taken leave of the process.
            for _ in 0..200 {
                match fs::remove_dir(cgroup) {
                    Ok(()) => break,
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for root in self.roots() {
            weir_tests::cgroup::demolish(&root);
        }
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.wait();
        }
        for name in netns::names(&format!("{}-", self.name)) {
            netns::remove(&name);
        }
    }
}

pub(crate) fn uid(number: u32) -> String {
    format!("d4daf794-e023-45e0-b7f0-{number:012x}")
}

pub(crate) fn set(uids: &[String]) -> BTreeSet<Arc<str>> {
    uids.iter().map(|uid| Arc::from(uid.as_str())).collect()
}

/// Waits until what is known of a pod is as asked.
pub(crate) fn wait<T>(sandboxes: &Sandboxes, uid: &str, what: &str, ask: impl Fn(State) -> Option<T>) -> T {
    let until = Instant::now() + SOON;
    loop {
        let state = sandboxes.state(uid).unwrap();
        if let Some(found) = ask(state.clone()) {
            return found;
        }
        assert!(Instant::now() < until, "{uid} is not {what}: {state:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn ready(sandboxes: &Sandboxes, uid: &str) -> Sandbox {
    wait(sandboxes, uid, "ready", |state| if let State::Ready(sandbox) = state { Some(sandbox) } else { None })
}

pub(crate) fn absent(sandboxes: &Sandboxes, uid: &str) {
    wait(sandboxes, uid, "absent", |state| matches!(state, State::Absent { .. }).then_some(()));
}

pub(crate) fn cookie(netns: &NetNs) -> u64 {
    weir::netns::NetNs::open(netns.path()).unwrap().cookie()
}
