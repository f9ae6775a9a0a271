//! The topology: a node's network namespace, pods on veth pairs around it, and a cgroup for each. Used by the suites
//! and by `cargo xtask demo`.
//!
//! ```text
//!   pod netns            node netns (agent, service addresses before opt-in)
//!   eth0 10.244.0.N ──── podN  ┐
//!        fd00:10:244::N        ├─ routes to each pod, forwarding, both families
//!   eth0 ─────────────── podM  ┘
//!   cgroup  ROOT/NAME/{agent, node, pods/POD}      the programs attach at ROOT/NAME
//!   pods with a uid: ROOT/NAME/kubepods/besteffort/podUID/{sandbox, app}, and the programs attach at kubepods
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::netns::{self, NetNs};
use crate::process::{Place, Process};
use crate::{cgroup, eventually};

/// The node's name in manifests, and what the agent is told.
pub const NODE_NAME: &str = "node-1";
/// Names of meshes that belong to one run of a test; the process id follows.
const TEST_PREFIX: &str = "wt";
/// The first pod's host number; lower ones are the node's.
const FIRST_HOST: u8 = 10;
/// A new origin answers within this, or it has failed.
const ORIGIN_START: std::time::Duration = std::time::Duration::from_secs(5);

static COUNT: AtomicU32 = AtomicU32::new(0);
static BINARIES: OnceLock<PathBuf> = OnceLock::new();

/// What a pod shall be.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`; unique in the mesh.
    pub name: String,
    /// `metadata.labels`
    pub labels: BTreeMap<String, String>,
    /// Declared container ports: name (may be empty) and number.
    pub ports: Vec<(String, u16)>,
    /// `metadata.uid`, by which the agent finds the pod as a kubelet would have it; empty = it is told by annotations.
    pub uid: String,
}

impl PodSpec {
    /// A pod in namespace `default`.
    pub fn new(name: &str) -> Self {
        Self {
            namespace: "default".into(),
            name: name.into(),
            labels: BTreeMap::new(),
            ports: Vec::new(),
            uid: String::new(),
        }
    }

    /// In another namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Placed below `kubepods` and found by its UID, without annotations.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.uid = uid.into();
        self
    }

    /// With a declared port.
    #[must_use]
    pub fn port(mut self, name: &str, number: u16) -> Self {
        self.ports.push((name.into(), number));
        self
    }
}

/// A pod that is there.
#[derive(Clone, Debug)]
pub struct Pod {
    /// What it was asked to be.
    pub spec: PodSpec,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
    /// Where its processes run.
    pub place: Place,
    /// False = `Ready` is false in the manifest.
    pub ready: bool,
}

/// A node with pods. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Mesh {
    name: String,
    scratch: PathBuf,
    node: Place,
    agent: Place,
    cgroup: PathBuf,
    pods: BTreeMap<String, Pod>,
    origins: Vec<Process>,
    next_host: u8,
    kept: bool,
}

impl Mesh {
    /// A mesh with a name of its own. What dead runs of tests left behind is removed first.
    ///
    /// # Errors
    /// When namespaces or cgroups cannot be made.
    pub fn new() -> Result<Self> {
        sweep();
        let name = format!("{TEST_PREFIX}{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self::named(&name, false)
    }

    /// A mesh with a given name, whose processes may be told to stay (`outlives`).
    ///
    /// # Errors
    /// When namespaces or cgroups cannot be made.
    pub fn named(name: &str, outlives: bool) -> Result<Self> {
        let scratch = scratch(name);
        let cgroup = cgroup::root()?.join(name);
        claim(&scratch)?;
        // From here on, whatever goes wrong, `undo` takes down what is there.
        let undo = Undo(name);
        for part in ["manifests", "staging", "logs"] {
            fs::create_dir_all(scratch.join(part)).with_context(|| format!("making {}", scratch.display()))?;
        }
        for part in ["agent", "node", "pods"] {
            cgroup::create(&cgroup.join(part))?;
        }
        let netns = NetNs::create(&format!("{name}-node"))?;
        netns.sysctl(&[
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
        ])?;
        let place = |part: &str| Place { netns: netns.clone(), cgroup: cgroup.join(part), outlives };
        let (node, agent) = (place("node"), place("agent"));
        std::mem::forget(undo);
        Ok(Self {
            name: name.into(),
            scratch,
            node,
            agent,
            cgroup,
            pods: BTreeMap::new(),
            origins: Vec::new(),
            next_host: FIRST_HOST,
            kept: false,
        })
    }

    /// Its name: also the agent's instance, and the prefix of its namespaces.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory for files of this run.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// Where the agent reads its manifests.
    pub fn manifests_dir(&self) -> PathBuf {
        self.scratch.join("manifests")
    }

    /// The cgroup above agent and pods: where the programs attach, as `kubepods` is in a cluster.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Where pods with a UID are. It is there when such a pod, or the test, has made it.
    pub fn kubepods(&self) -> PathBuf {
        self.cgroup.join("kubepods")
    }

    /// The node's namespace, outside the agent's cgroup.
    pub fn node(&self) -> &Place {
        &self.node
    }

    /// Where the agent runs.
    pub fn agent_place(&self) -> &Place {
        &self.agent
    }

    /// A log file for a process of this run.
    pub fn log(&self, name: &str) -> PathBuf {
        self.scratch.join("logs").join(format!("{name}.log"))
    }

    /// Makes a pod with addresses of both families.
    ///
    /// # Errors
    /// When the kernel says no.
    pub fn add_pod(&mut self, spec: PodSpec) -> Result<&Pod> {
        let host = self.next_host;
        self.next_host = host.checked_add(1).context("a mesh has room for 245 pods")?;
        let ipv4 = Ipv4Addr::new(10, 244, 0, host);
        let ipv6 = Ipv6Addr::new(0xfd00, 0x10, 0x244, 0, 0, 0, 0, u16::from(host));
        let uid = &spec.uid;
        let below =
            if uid.is_empty() { format!("pods/{}", spec.name) } else { format!("kubepods/besteffort/pod{uid}/app") };
        let cgroup = self.cgroup.join(below);
        cgroup::create(&cgroup)?;
        let netns = NetNs::create(&format!("{}-{}", self.name, spec.name))?;
        // One veth per pod and a host route: no bridge, so nothing but routing stands between two pods.
        self.node.netns.ip(&format!(
            "link add pod{host} type veth peer name eth0 netns {pod}\n\
             link set pod{host} addrgenmode none\n\
             link set pod{host} up\n\
             addr add 10.244.0.1/32 dev pod{host}\n\
             addr add fe80::1/64 dev pod{host} nodad\n\
             route add {ipv4}/32 dev pod{host}\n\
             route add {ipv6}/128 dev pod{host}\n",
            pod = netns.name(),
        ))?;
        netns.ip(&format!(
            "link set eth0 addrgenmode none\n\
             link set eth0 up\n\
             addr add {ipv4}/32 dev eth0\n\
             addr add {ipv6}/128 dev eth0 nodad\n\
             addr add fe80::2/64 dev eth0 nodad\n\
             route add 10.244.0.1/32 dev eth0\n\
             route add default via 10.244.0.1 dev eth0\n\
             route add ::/0 via fe80::1 dev eth0\n"
        ))?;
        // Tens of thousands of short connections from one address: the default range would run dry in TIME_WAIT.
        netns.sysctl(&[("ipv4/ip_local_port_range", "10240 65000"), ("ipv4/tcp_max_syn_backlog", "4096")])?;
        let place = Place { netns, cgroup, outlives: self.node.outlives };
        let name = spec.name.clone();
        let pod = Pod { spec, ipv4, ipv6, place, ready: true };
        Ok(self.pods.entry(name).insert_entry(pod).into_mut())
    }

    /// A pod by name.
    ///
    /// # Panics
    /// When there is none: a mistake in the test.
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods.get(name).unwrap_or_else(|| panic!("no pod {name} in this mesh"))
    }

    /// A pod by name, to change its labels or readiness before the manifests are written anew.
    ///
    /// # Panics
    /// When there is none: a mistake in the test.
    pub fn pod_mut(&mut self, name: &str) -> &mut Pod {
        self.pods.get_mut(name).unwrap_or_else(|| panic!("no pod {name} in this mesh"))
    }

    /// All pods, by name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// Starts `weir-origin` in a pod with `arguments` such as `--http 80 --tcp 9000`, and waits until it answers
    /// on every port. It says the pod's label `version` (or `none`) and the pod's name.
    ///
    /// # Errors
    /// When it does not start.
    pub fn serve(&mut self, pod: &str, arguments: &str) -> Result<()> {
        let spec = self.pod(pod).clone();
        let version = spec.spec.labels.get("version").map_or("none", String::as_str);
        let mut command = Command::new(binary("weir-origin"));
        command.args(["serve", "--version", version, "--pod", pod]).args(arguments.split_whitespace());
        let process = Process::spawn(&spec.place, command, &self.log(&format!("origin-{pod}")))?;
        self.origins.push(process);
        for port in arguments.split_whitespace().filter_map(|a| a.parse::<u16>().ok()) {
            self.await_listener(&self.pod(pod).place.netns, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        }
        Ok(())
    }

    /// Puts a service address on the node and relays its connections to `pods` in turn: what kube-proxy does for pods
    /// that take no part in the mesh.
    ///
    /// # Errors
    /// When the address or the relay cannot be had.
    pub fn relay(&mut self, address: SocketAddr, pods: &[SocketAddr]) -> Result<()> {
        let width = if address.is_ipv4() { 32 } else { 128 };
        let nodad = if address.is_ipv4() { "" } else { "nodad" };
        self.node.netns.ip(&format!("addr replace {}/{width} dev lo {nodad}\n", address.ip()))?;
        let mut command = Command::new(binary("weir-origin"));
        command.arg("relay").arg(address.to_string()).args(pods.iter().map(ToString::to_string));
        let process = Process::spawn(&self.node, command, &self.log("relay"))?;
        self.origins.push(process);
        self.await_listener(&self.node.netns, address)
    }

    /// Waits until something accepts at `address`, seen from inside `netns`.
    fn await_listener(&self, netns: &NetNs, address: SocketAddr) -> Result<()> {
        eventually(&format!("{address} accepts in {}", self.name), ORIGIN_START, || {
            netns.run(|| std::net::TcpStream::connect(address).ok().map(drop))
        })?;
        Ok(())
    }

    /// Kills every origin and relay.
    pub fn stop_origins(&mut self) {
        self.origins.clear();
    }

    /// Leaves everything in place when dropped; [`demolish`] ends it.
    pub fn keep(&mut self) {
        self.kept = true;
        self.origins.iter_mut().for_each(Process::keep);
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !self.kept {
            self.origins.clear();
            demolish(&self.name);
        }
    }
}

struct Undo<'a>(&'a str);

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        demolish(self.0);
    }
}

impl Pod {
    /// `namespace/name`
    pub fn key(&self) -> String {
        format!("{}/{}", self.spec.namespace, self.spec.name)
    }

    /// Where its sandbox's process runs, when it has a UID: beside its container, in a namespace.
    ///
    /// # Errors
    /// When the cgroup cannot be made.
    pub fn sandbox(&self, netns: &NetNs) -> Result<Place> {
        let cgroup = self.place.cgroup.with_file_name("sandbox");
        cgroup::create(&cgroup)?;
        Ok(Place { netns: netns.clone(), cgroup, outlives: self.place.outlives })
    }

    /// One of its sockets.
    pub fn at(&self, port: u16) -> SocketAddr {
        (self.ipv4, port).into()
    }

    /// One of its sockets, IPv6.
    pub fn at6(&self, port: u16) -> SocketAddr {
        (self.ipv6, port).into()
    }

    /// Both addresses.
    pub fn addresses(&self) -> [IpAddr; 2] {
        [self.ipv4.into(), self.ipv6.into()]
    }
}

/// From now on our programs are taken from that directory.
pub fn take_binaries_from(directory: PathBuf) {
    let _first_wins = BINARIES.set(directory);
}

/// A program of ours: `WEIR_BIN` for the agent, else from [`take_binaries_from`], else from this executable's profile.
pub fn binary(name: &str) -> PathBuf {
    if name == "weir"
        && let Some(path) = env::var_os("WEIR_BIN")
    {
        return path.into();
    }
    if let Some(directory) = BINARIES.get() {
        return directory.join(name);
    }
    // A test runs from target/PROFILE/deps.
    let own = env::current_exe().unwrap_or_default();
    let mut directory = own.parent().unwrap_or(Path::new("/")).to_path_buf();
    if directory.ends_with("deps") {
        directory.pop();
    }
    directory.join(name)
}

/// Takes down a mesh by its name: processes, namespaces, cgroups, pins, files. What is not there is skipped.
pub fn demolish(name: &str) {
    if let Ok(root) = cgroup::root() {
        cgroup::demolish(&root.join(name));
    }
    let prefix = format!("{name}-");
    for namespace in netns::names(&prefix) {
        netns::remove(&namespace);
    }
    // Unlinking a pinned link detaches its program.
    let _none = fs::remove_dir_all(pins(name));
    let scratch = scratch(name);
    if is_ours(&scratch) {
        let _none = fs::remove_dir_all(scratch);
    }
}

/// Where the pins of an instance are.
pub fn pins(instance: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/weir").join(instance)
}

/// Whether a mesh of that name is up.
pub fn exists(name: &str) -> bool {
    !netns::names(&format!("{name}-")).is_empty()
}

fn scratch(name: &str) -> PathBuf {
    env::temp_dir().join(name)
}

/// Makes the directory for us alone. Its name can be guessed and /tmp is everybody's: what somebody else put there, or
/// could write to, is not taken, because we run as root and would follow their links.
fn claim(scratch: &Path) -> Result<()> {
    if let Err(error) = fs::DirBuilder::new().mode(0o700).create(scratch) {
        let there = error.kind() == std::io::ErrorKind::AlreadyExists;
        ensure!(there, "making {}: {error}", scratch.display());
        ensure!(is_ours(scratch), "{} is not ours alone: remove it", scratch.display());
    }
    Ok(())
}

/// Whether this is a directory, no link to one, that nobody else owns or can enter.
fn is_ours(scratch: &Path) -> bool {
    // SAFETY: geteuid has no preconditions.
    let own = unsafe { libc::geteuid() };
    fs::symlink_metadata(scratch).is_ok_and(|m| m.is_dir() && m.uid() == own && m.mode() & 0o777 == 0o700)
}

/// Removes the meshes of test processes that are no more.
fn sweep() {
    let mut dead: Vec<String> = netns::names(TEST_PREFIX)
        .into_iter()
        .filter_map(|n| {
            let mut parts = n.split('-');
            let (first, count) = (parts.next()?, parts.next()?);
            let pid: u32 = first.strip_prefix(TEST_PREFIX)?.parse().ok()?;
            (!Path::new("/proc").join(pid.to_string()).exists()).then(|| format!("{first}-{count}"))
        })
        .collect();
    dead.dedup();
    for name in &dead {
        demolish(name);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_directory_that_others_prepared_is_not_taken_and_not_removed() {
        let base = env::temp_dir().join(format!("weir-claim-{}", process::id()));
        claim(&base).expect("nobody has it");
        claim(&base).expect("it is ours");
        let open = base.join("open");
        fs::create_dir(&open).expect("our own directory");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("our own directory");
        let link = base.join("link");
        symlink(&base, &link).expect("our own directory");
        for prepared in [&open, &link] {
            assert!(claim(prepared).is_err() && !is_ours(prepared), "{}", prepared.display());
        }
        // SAFETY: geteuid has no preconditions.
        if unsafe { libc::geteuid() } == 0 {
            let foreign = base.join("foreign");
            claim(&foreign).expect("nobody has it");
            std::os::unix::fs::chown(&foreign, Some(65_534), None).expect("root may");
            assert!(claim(&foreign).is_err());
        }
        fs::remove_dir_all(&base).expect("it is ours");
    }
}
