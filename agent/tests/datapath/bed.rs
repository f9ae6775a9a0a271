//! What every test stands on: an instance, a cgroup and a network namespace of its own, servers and clients in them,
//! plans, and the removal of it all. Used by each file beside it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use weir::cgroup::Hierarchy;
use weir::datapath::{BPFFS, Datapath, DatapathConfig, DatapathError, PodCgroup, PodEntry, object, uninstall};
use weir::netns::NetNs;
use weir_mesh::plan::{KernelPlan, OnFailure, PlanKey, PlannedService, Verdict, WeightedGroup};
use weir_mesh::program::Protocol;
use weir_tests::require::skip;

use crate::{ENV_CGROUP, ENV_INSTANCE, ENV_NETNS, SERVICE};

/// Everything that one test makes.
pub(crate) struct Bed {
    pub(crate) config: DatapathConfig,
    pub(crate) netns: NetNs,
    children: Vec<Child>,
    /// Those below the bed's own, in the order of their making.
    cgroups: Vec<PathBuf>,
}

impl Bed {
    pub(crate) fn new(test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // SAFETY: a call without arguments.
        if unsafe { libc::geteuid() } != 0 {
            skip(test, "not root");
            return None;
        }
        if object::normal().is_none() {
            skip(test, "no kernel programs in this build (cargo xtask build-ebpf)");
            return None;
        }
        let Ok(tree) = Hierarchy::find() else {
            skip(test, "no cgroup v2");
            return None;
        };
        let instance = format!("t{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let cgroup = tree.mount().join(format!("weir-test-{instance}"));
        if let Err(error) = fs::create_dir(&cgroup) {
            skip(test, &format!("{}: {error}", cgroup.display()));
            return None;
        }
        let config = DatapathConfig { instance, ..DatapathConfig::new(cgroup) };
        let netns = thread::spawn(namespace).join().unwrap();
        let bed = Self { config, netns, children: Vec::new(), cgroups: Vec::new() };
        if let Err(DatapathError::NotPermitted { what, capability }) = Datapath::open(&bed.config) {
            skip(test, &format!("not permitted to {what}: {capability}"));
            return None;
        }
        uninstall(&bed.config.instance, &bed.config.bpffs, true).unwrap();
        Some(bed)
    }

    pub(crate) fn open(&self) -> Datapath {
        Datapath::open(&self.config).unwrap()
    }

    pub(crate) fn pins(&self) -> PathBuf {
        Path::new(BPFFS).join("weir").join(&self.config.instance)
    }

    pub(crate) fn pod(&self) -> PodEntry {
        PodEntry {
            cookie: self.netns.cookie(),
            cgroup: PodCgroup::Path(self.config.cgroup.clone()),
            index: 0,
            view: 0,
            addresses: vec![[127, 0, 0, 99].into()],
            listener4: 0,
            listener6: 0,
            default_reject: false,
        }
    }

    /// A server in the namespace that answers each connection with its name.
    pub(crate) fn server(&self, name: u8) -> SocketAddr {
        let listener = self.netns.run(|| TcpListener::bind(SocketAddr::from(([127, 0, 0, name], 0)))).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for connection in listener.incoming() {
                // A client that has gone meanwhile is the client's business.
                let _ = connection.and_then(|mut c| c.write_all(&[name]));
            }
        });
        address
    }

    /// This test binary again, as one of the ignored tests of `main.rs`.
    pub(crate) fn child(&mut self, role: &str, cgroup: &Path) -> Pipe {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", role, "--ignored", "--nocapture", "--test-threads=1"])
            .env(ENV_CGROUP, cgroup)
            .env(ENV_INSTANCE, &self.config.instance)
            .env(ENV_NETNS, format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_fd().as_raw_fd()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pipe = Pipe { to: child.stdin.take().unwrap(), from: BufReader::new(child.stdout.take().unwrap()) };
        self.children.push(child);
        pipe
    }

    /// A cgroup below the bed's own, such as `pod/app`.
    pub(crate) fn cgroup(&mut self, name: &str) -> PathBuf {
        let mut path = self.config.cgroup.clone();
        for part in name.split('/') {
            path.push(part);
            if !self.cgroups.contains(&path) {
                fs::create_dir(&path).unwrap();
                self.cgroups.push(path.clone());
            }
        }
        path
    }

    /// A client in the pod's namespace and below the bed's cgroup.
    pub(crate) fn client(&mut self) -> Pipe {
        self.client_in("client")
    }

    /// The same in a cgroup of that name.
    pub(crate) fn client_in(&mut self, cgroup: &str) -> Pipe {
        let cgroup = self.cgroup(cgroup);
        self.child("client", &cgroup)
    }

    /// A listener on the loopback address that a proxy's has, and the pod's entry that names it.
    pub(crate) fn listener(&self) -> (TcpListener, PodEntry) {
        let listener = self.netns.run(|| TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
        let listener4 = listener.local_addr().unwrap().port();
        (listener, PodEntry { listener4, ..self.pod() })
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Err(error) = uninstall(&self.config.instance, &self.config.bpffs, true) {
            eprintln!("cannot clean up: {error}");
        }
        for path in self.cgroups.iter().rev().chain([&self.config.cgroup]) {
            remove_cgroup(path);
        }
    }
}

/// A killed process leaves its cgroup a moment after it was waited for.
fn remove_cgroup(path: &Path) {
    for _ in 0..100 {
        match fs::remove_dir(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => thread::sleep(Duration::from_millis(10)),
            _ => return,
        }
    }
}

/// A new network namespace with loopback up, for the calling thread.
fn namespace() -> NetNs {
    // SAFETY: changes only this thread.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "{}", std::io::Error::last_os_error());
    let status = Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
    assert!(status.success());
    NetNs::open("/proc/thread-self/ns/net").unwrap()
}

/// The two ends of a child's talk.
pub(crate) struct Pipe {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Pipe {
    pub(crate) fn say(&mut self, command: &str) {
        writeln!(self.to, "{command}").unwrap();
    }

    /// The next line of an answer; what the test runner prints has no such prefix.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "the child ended");
            if let Some((_, answer)) = line.split_once("answer: ") {
                return answer.trim().to_owned();
            }
        }
    }

    pub(crate) fn ask(&mut self, command: &str) -> String {
        self.say(command);
        self.hear()
    }
}

/// What a service port shall do; `groups` are its slots and its fallback.
pub(crate) fn planned(verdict: Verdict, on_failure: OnFailure, groups: &[(u32, &[SocketAddr])]) -> PlannedService {
    let groups: Vec<WeightedGroup> = groups
        .iter()
        .map(|(weight, endpoints)| WeightedGroup { subset: "".into(), weight: *weight, endpoints: (*endpoints).into() })
        .collect();
    PlannedService {
        name: "shop/cart:80".into(),
        verdict,
        why: String::new(),
        because: None,
        protocol: Protocol::Tcp,
        on_failure,
        slots: groups.clone(),
        fallback: groups,
    }
}

/// The key of an address in a view; `None` = any address, on the port of [`SERVICE`].
pub(crate) fn key(view: u32, address: Option<&str>) -> PlanKey {
    let service: SocketAddr = address.unwrap_or(SERVICE).parse().unwrap();
    PlanKey { view, address: address.map(|_| service.ip()), port: service.port(), udp: false }
}

/// A plan of one port: [`SERVICE`] for everybody.
pub(crate) fn plan(verdict: Verdict, on_failure: OnFailure, groups: &[(u32, &[SocketAddr])]) -> KernelPlan {
    let services = BTreeMap::from([(key(0, Some(SERVICE)), Arc::new(planned(verdict, on_failure, groups)))]);
    KernelPlan { services, pods: BTreeMap::new() }
}

/// The same with verdict `balance`.
pub(crate) fn balance(groups: &[(u32, &[SocketAddr])]) -> KernelPlan {
    plan(Verdict::Balance, OnFailure::Balance, groups)
}
