//! The datapath against the real kernel: each test has an instance, a cgroup and a network namespace of its own, and
//! removes them. Needs root, a bpffs and the built object; without them a test says why it was skipped.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "says why a test was skipped; clients answer on stdout")]
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use weir::cgroup::{self, Hierarchy};
use weir::datapath::{
    BPFFS, Datapath, DatapathConfig, DatapathError, PodCgroup, PodEntry, monotonic_ns, object, uninstall,
};
use weir::netns::NetNs;
use weir_mesh::plan::{KernelPlan, OnFailure, PlanKey, PlannedService, Verdict, WeightedGroup};
use weir_mesh::program::Protocol;
use weir_tests::require::skip;

/// What the client and the agent of a test process are told.
const ENV_CGROUP: &str = "WEIR_TEST_CGROUP";
const ENV_NETNS: &str = "WEIR_TEST_NETNS";
const ENV_INSTANCE: &str = "WEIR_TEST_INSTANCE";

const SERVICE: &str = "10.96.7.7:80";

/// Everything that one test makes.
struct Bed {
    config: DatapathConfig,
    netns: NetNs,
    children: Vec<Child>,
}

impl Bed {
    fn new(test: &str) -> Option<Self> {
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
        let bed = Self { config, netns, children: Vec::new() };
        if let Err(DatapathError::NotPermitted { what, capability }) = Datapath::open(&bed.config) {
            skip(test, &format!("not permitted to {what}: {capability}"));
            return None;
        }
        uninstall(&bed.config.instance, &bed.config.bpffs).unwrap();
        Some(bed)
    }

    fn open(&self) -> Datapath {
        Datapath::open(&self.config).unwrap()
    }

    fn pins(&self) -> PathBuf {
        Path::new(BPFFS).join("weir").join(&self.config.instance)
    }

    fn pod(&self) -> PodEntry {
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
    fn server(&self, name: u8) -> SocketAddr {
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

    /// This test binary again, as one of the ignored tests below.
    fn child(&mut self, role: &str, cgroup: &Path) -> Pipe {
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

    fn client(&mut self) -> Pipe {
        let cgroup = self.config.cgroup.join("client");
        fs::create_dir_all(&cgroup).unwrap();
        self.child("client", &cgroup)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Err(error) = uninstall(&self.config.instance, &self.config.bpffs) {
            eprintln!("cannot clean up: {error}");
        }
        for path in [self.config.cgroup.join("client"), self.config.cgroup.join("agent"), self.config.cgroup.clone()] {
            remove_cgroup(&path);
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

struct Pipe {
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Pipe {
    fn say(&mut self, command: &str) {
        writeln!(self.to, "{command}").unwrap();
    }

    /// The next line of an answer; what the test runner prints has no such prefix.
    fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.from.read_line(&mut line).unwrap(), 0, "the child ended");
            if let Some((_, answer)) = line.split_once("answer: ") {
                return answer.trim().to_owned();
            }
        }
    }

    fn ask(&mut self, command: &str) -> String {
        self.say(command);
        self.hear()
    }
}

/// `COUNT` connects to the service; what was answered how often. `x` is a failure.
fn connects(count: u32) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    for _ in 0..count {
        *seen.entry(connect()).or_default() += 1;
    }
    seen
}

fn connect() -> String {
    let address: SocketAddr = SERVICE.parse().unwrap();
    let answer = TcpStream::connect_timeout(&address, Duration::from_secs(5)).and_then(|mut stream| {
        let mut name = [0];
        stream.read_exact(&mut name)?;
        // A reset instead of a minute of TIME_WAIT: 20,000 of those would use up the ports.
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(name[0].to_string())
    });
    match answer {
        Ok(name) => name,
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => "refused".to_owned(),
        Err(error) => format!("x {error}"),
    }
}

fn enter_cgroup() {
    let cgroup = PathBuf::from(std::env::var_os(ENV_CGROUP).unwrap());
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}

#[test]
#[ignore = "the client of the other tests, which start it in a cgroup of its own"]
fn client() {
    enter_cgroup();
    let netns = NetNs::open(std::env::var_os(ENV_NETNS).unwrap()).unwrap();
    netns
        .run(|| {
            for line in std::io::stdin().lines() {
                let seen = connects(line.unwrap().parse().unwrap());
                let seen: Vec<String> = seen.iter().map(|(name, count)| format!("{name}={count}")).collect();
                println!("\nanswer: {}", seen.join(" "));
            }
        })
        .unwrap();
    // Before the test runner tells its result to a test that has ended.
    std::process::exit(0);
}

#[test]
#[ignore = "the agent of another test, which starts it in a cgroup of its own"]
fn agent() {
    enter_cgroup();
    let own = PathBuf::from(std::env::var_os(ENV_CGROUP).unwrap());
    let config = DatapathConfig {
        instance: std::env::var(ENV_INSTANCE).unwrap(),
        ..DatapathConfig::new(own.parent().unwrap().to_owned())
    };
    let mut datapath = Datapath::open(&config).unwrap();
    let id = datapath.register_agent().unwrap();
    let netns = NetNs::open(std::env::var_os(ENV_NETNS).unwrap()).unwrap();
    let seen = netns.run(connect).unwrap();
    println!("\nanswer: {id} {} {seen}", datapath.counters().unwrap()["agent"]);
    std::process::exit(0);
}

fn plan(verdict: Verdict, on_failure: OnFailure, groups: &[(u32, &[SocketAddr])]) -> KernelPlan {
    let service: SocketAddr = SERVICE.parse().unwrap();
    let key = PlanKey { view: 0, address: Some(service.ip()), port: service.port(), udp: false };
    let groups: Vec<WeightedGroup> = groups
        .iter()
        .map(|(weight, endpoints)| WeightedGroup { subset: "".into(), weight: *weight, endpoints: endpoints.to_vec() })
        .collect();
    let planned = PlannedService {
        name: "shop/cart:80".into(),
        verdict,
        why: String::new(),
        because: None,
        protocol: Protocol::Tcp,
        on_failure,
        slots: groups.clone(),
        fallback: groups,
    };
    KernelPlan { services: BTreeMap::from([(key, planned)]), pods: BTreeMap::new() }
}

fn balance(groups: &[(u32, &[SocketAddr])]) -> KernelPlan {
    plan(Verdict::Balance, OnFailure::Balance, groups)
}

#[test]
fn reopening_adopts_everything_and_the_former_agent_may_not_write() {
    let Some(bed) = Bed::new("reopening") else { return };
    let mut first = bed.open();
    assert_eq!((first.attached().fresh, first.attached().adopted), (5, 0));
    let backend: SocketAddr = "10.1.1.1:80".parse().unwrap();
    let wanted = balance(&[(1, &[backend])]);
    assert_eq!(first.apply(&wanted, Instant::now()).unwrap().written, 1);
    first.pod_set(&bed.pod()).unwrap();
    let mut second = bed.open();
    assert_eq!((second.attached().fresh, second.attached().adopted, second.attached().renewed), (0, 5, 0));
    let (cookie, pod) = second.pods().unwrap()[0];
    assert_eq!((cookie, pod.cgroup_id), (bed.netns.cookie(), cgroup::id_of(&bed.config.cgroup).unwrap()));
    assert_eq!((pod.cgroup_level, pod.generation, pod.address4), (1, 1, [127, 0, 0, 99]));
    let report = second.apply(&wanted, Instant::now()).unwrap();
    assert_eq!((report.unchanged, report.written, report.removed), (1, 0, 0));
    assert!(matches!(first.apply(&wanted, Instant::now()), Err(DatapathError::Superseded)));
    assert!(matches!(first.pod_remove(cookie), Err(DatapathError::Superseded)));
    second.pod_set(&bed.pod()).unwrap();
    assert_eq!(second.pods().unwrap()[0].1.generation, 2);
    second.pod_remove(cookie).unwrap();
    second.pod_remove(cookie).unwrap();
    assert!(second.pods().unwrap().is_empty());
    assert_eq!(second.apply(&KernelPlan::default(), Instant::now()).unwrap().removed, 1);
}

#[test]
fn connects_of_a_pod_are_balanced_by_weight_and_refused_without_endpoints() {
    let Some(mut bed) = Bed::new("balance") else { return };
    let (one, two) = (bed.server(1), bed.server(2));
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    datapath.apply(&balance(&[(75, &[one]), (25, &[two])]), Instant::now()).unwrap();
    let mut client = bed.client();
    let answer = client.ask("1000");
    let first: u32 = answer.split_once("1=").and_then(|(_, n)| n.split(' ').next()?.parse().ok()).unwrap();
    // Four standard deviations of a binomial split: one run in 16,000 fails by chance.
    assert!((750_u32.abs_diff(first)) < 55, "{answer}");
    assert!(answer.contains("2=") && !answer.contains('x') && !answer.contains("refused"), "{answer}");
    assert_eq!(datapath.service_counters().unwrap()["shop/cart:80"].balanced, 1000);
    assert_eq!(datapath.counters().unwrap()["balance"], 1000);

    datapath.apply(&balance(&[(1, &[])]), Instant::now()).unwrap();
    assert_eq!(client.ask("10"), "refused=10");
    assert_eq!(datapath.service_counters().unwrap()["shop/cart:80"].rejected, 10);
}

#[test]
fn slots_swap_under_load_without_a_miss() {
    const CONNECTS: u32 = 20_000;
    let Some(mut bed) = Bed::new("swap") else { return };
    let (one, two) = (bed.server(1), bed.server(2));
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    let plans = [balance(&[(1, &[one])]), balance(&[(1, &[two])]), balance(&[(1, &[one, two])])];
    datapath.apply(&plans[0], Instant::now()).unwrap();
    let mut client = bed.client();
    client.say(&CONNECTS.to_string());
    let answer = thread::spawn(move || (client.hear(), client));
    let mut swaps = 0;
    while !answer.is_finished() {
        swaps += 1;
        let report = datapath.apply(&plans[swaps % 3], Instant::now()).unwrap();
        assert_eq!((report.written, report.errors.len()), (1, 0));
        thread::sleep(Duration::from_millis(1));
    }
    let (answer, mut client) = answer.join().unwrap();
    let counts: Vec<u32> = answer.split(' ').filter_map(|p| p.split_once('=')?.1.parse().ok()).collect();
    assert!(answer.starts_with("1=") && answer.contains(" 2=") && counts.len() == 2, "{answer}");
    assert_eq!(counts.iter().sum::<u32>(), CONNECTS);
    assert!(swaps > 20, "{swaps}");
    let counters = datapath.counters().unwrap();
    assert_eq!((counters["balance"], counters["no_backend"]), (u64::from(CONNECTS), 0));
    datapath.apply(&plans[1], Instant::now()).unwrap();
    assert_eq!(client.ask("100"), "2=100");
}

#[test]
fn agents_take_over_under_load_without_a_miss() {
    const ROUNDS: u32 = 10;
    const CONNECTS: u32 = 1_000;
    let Some(mut bed) = Bed::new("takeover") else { return };
    let one = bed.server(1);
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    let mut client = bed.client();
    for _ in 0..ROUNDS {
        client.say(&CONNECTS.to_string());
        datapath.heartbeat_handle().stop();
        datapath = bed.open();
        assert_eq!(datapath.attached().adopted, 5);
        assert_eq!(client.hear(), format!("1={CONNECTS}"));
    }
    assert_eq!(datapath.counters().unwrap()["balance"], u64::from(ROUNDS * CONNECTS));
}

#[test]
fn a_link_whose_cgroup_was_made_anew_is_attached_again() {
    let Some(mut bed) = Bed::new("stale link") else { return };
    drop(bed.open());
    fs::remove_dir(&bed.config.cgroup).unwrap();
    fs::create_dir(&bed.config.cgroup).unwrap();
    let one = bed.server(1);
    let mut datapath = bed.open();
    assert_eq!((datapath.attached().renewed, datapath.attached().adopted), (5, 0));
    datapath.pod_set(&bed.pod()).unwrap();
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    assert_eq!(bed.client().ask("10"), "1=10");
}

#[test]
fn proxied_connections_reach_the_listener_with_their_destination() {
    let Some(mut bed) = Bed::new("proxy") else { return };
    let one = bed.server(1);
    let listener = bed.netns.run(|| TcpListener::bind("127.0.0.1:0")).unwrap().unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut datapath = bed.open();
    datapath.pod_set(&PodEntry { listener4: port, ..bed.pod() }).unwrap();
    datapath.apply(&plan(Verdict::Proxy, OnFailure::Balance, &[(1, &[one])]), Instant::now()).unwrap();
    let mut client = bed.client();
    datapath.beat(monotonic_ns());
    client.say("1");
    let (mut accepted, peer) = listener.accept().unwrap();
    let flows = datapath.flows();
    let cookie = bed.netns.cookie();
    assert_eq!(flows.take(cookie, peer, port.wrapping_add(1)), None);
    assert_eq!(flows.take(cookie, peer, port), Some(SERVICE.parse().unwrap()));
    assert_eq!(flows.take(cookie, peer, port), None, "taken");
    accepted.write_all(&[7]).unwrap();
    assert_eq!(client.hear(), "7=1");
    datapath.heartbeat_handle().stop();
    assert_eq!(client.ask("3"), "1=3", "a silent agent's ports take their fallback");
    let counters = datapath.service_counters().unwrap()["shop/cart:80"];
    assert_eq!((counters.proxied, counters.fallback), (1, 3));
    datapath.apply(&plan(Verdict::Proxy, OnFailure::Refuse, &[(1, &[one])]), Instant::now()).unwrap();
    assert_eq!(client.ask("3"), "refused=3");
}

#[test]
fn an_agent_learns_its_cgroup_from_the_kernel_and_is_not_steered() {
    let Some(mut bed) = Bed::new("agent") else { return };
    let one = bed.server(1);
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    let cgroup = bed.config.cgroup.join("agent");
    fs::create_dir(&cgroup).unwrap();
    let answer = bed.child("agent", &cgroup).hear();
    let mut words = answer.splitn(3, ' ');
    assert_eq!(words.next().unwrap(), cgroup::id_of(&cgroup).unwrap().to_string());
    assert_eq!(words.next().unwrap(), "1", "counted as the agent's");
    assert!(words.next().unwrap().starts_with('x'), "nothing is at the service's address itself: {answer}");
    assert_eq!(bed.client().ask("1"), "1=1");
}

/// What the global subscriber writes, for the one test that reads it.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_debug_object_takes_over_and_its_log_is_read() {
    let Some(mut bed) = Bed::new("kernel log") else { return };
    if object::debug().is_none() {
        return skip("kernel_log", "no debug object in this build (cargo xtask build-ebpf --debug)");
    }
    let lines = Lines::default();
    let writer = lines.clone();
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).init();
    let one = bed.server(1);
    drop(bed.open());
    bed.config.kernel_log = true;
    let mut datapath = bed.open();
    assert_eq!(datapath.attached().adopted, 5);
    datapath.pod_set(&bed.pod()).unwrap();
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    let log = datapath.kernel_log().unwrap();
    assert!(datapath.kernel_log().is_none(), "there is one reader");
    let mut client = bed.client();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The whole record: a cookie alone is a small number, and would be found in a timestamp.
    let record = format!("netns {} to ::ffff:10.96.7.7 port 80: steer", bed.netns.cookie());
    let seen = runtime.block_on(async {
        let reader = tokio::spawn(log);
        assert_eq!(client.ask("1"), "1=1");
        for _ in 0..100 {
            if lines.text().contains(&record) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        reader.abort();
        lines.text()
    });
    assert!(seen.contains(&record), "{seen}");
}

#[test]
fn uninstall_detaches_and_leaves_no_pin() {
    let Some(mut bed) = Bed::new("uninstall") else { return };
    let one = bed.server(1);
    let mut datapath = bed.open();
    datapath.pod_set(&bed.pod()).unwrap();
    datapath.apply(&balance(&[(1, &[one])]), Instant::now()).unwrap();
    let mut client = bed.client();
    assert_eq!(client.ask("1"), "1=1");
    assert!(bed.pins().join("maps/weir_services").exists(), "the link shows the active maps");
    assert!(uninstall(&bed.config.instance, &bed.config.bpffs).unwrap());
    assert!(!bed.pins().exists());
    let answer = client.ask("1");
    assert!(answer.starts_with('x'), "{answer}");
    assert!(!uninstall(&bed.config.instance, &bed.config.bpffs).unwrap(), "nothing was there");
    assert!(matches!(datapath.apply(&KernelPlan::default(), Instant::now()), Err(DatapathError::Superseded)));
}

#[test]
fn a_bpffs_is_mounted_once_where_there_is_none() {
    let Some(mut bed) = Bed::new("mount") else { return };
    let directory = tempfile::tempdir().unwrap();
    bed.config.bpffs = directory.path().to_owned();
    let mounts = || {
        let text = fs::read_to_string("/proc/self/mounts").unwrap();
        text.lines().filter(|line| line.split(' ').nth(1) == directory.path().to_str()).count()
    };
    drop(bed.open());
    assert_eq!(bed.open().attached().adopted, 5);
    assert_eq!(mounts(), 1);
    assert!(uninstall(&bed.config.instance, &bed.config.bpffs).unwrap());
    assert!(Command::new("umount").arg(directory.path()).status().unwrap().success());
    assert_eq!(mounts(), 0);
}

#[test]
fn pins_of_another_build_are_refused_by_name() {
    let Some(bed) = Bed::new("abi") else { return };
    let maps = bed.pins().join(format!("v{}/maps", weir_ebpf::ABI_VERSION));
    fs::create_dir_all(&maps).unwrap();
    let shape = aya_obj::Map::new_from_params(1, 8, 4, 16, 1);
    aya::maps::MapData::create(shape, "weir_pods", None).unwrap().pin(maps.join("weir_pods")).unwrap();
    let error = Datapath::open(&bed.config).unwrap_err();
    assert!(matches!(error, DatapathError::AbiMismatch { map: "weir_pods", .. }), "{error}");
    assert!(error.to_string().contains("value size 4 instead of") && error.to_string().contains("weir uninstall"));
}

#[test]
fn heartbeats_are_not_shared_by_the_living() {
    let Some(bed) = Bed::new("heartbeats") else { return };
    // Opening may take long on a busy machine: the living beat right before each attempt.
    let attempt = |living: &[&Datapath]| {
        for agent in living {
            agent.beat(monotonic_ns());
        }
        Datapath::open(&bed.config)
    };
    let mut agents: Vec<Datapath> = Vec::new();
    for expected in 0..weir_ebpf::MAX_AGENTS {
        let agent = attempt(&agents.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!(agent.heartbeat_handle().agent(), expected);
        agents.push(agent);
    }
    assert!(matches!(attempt(&agents.iter().collect::<Vec<_>>()), Err(DatapathError::TooManyAgents)));
    agents[2].heartbeat_handle().stop();
    let third = attempt(&[&agents[0], &agents[1], &agents[3]]).unwrap();
    assert_eq!(third.heartbeat_handle().agent(), 2, "it had said goodbye");
    agents[1].beat(monotonic_ns() - 2_100_000_000);
    let second = attempt(&[&agents[0], &third, &agents[3]]).unwrap();
    assert_eq!(second.heartbeat_handle().agent(), 1, "it was silent");
}

#[test]
fn the_nodes_own_namespace_is_never_enrolled() {
    let Some(bed) = Bed::new("host") else { return };
    let mut datapath = bed.open();
    let host = PodEntry { cookie: NetNs::own().unwrap().cookie(), ..bed.pod() };
    assert!(matches!(datapath.pod_set(&host), Err(DatapathError::HostNamespace(_))));
    let gone = PodEntry { cgroup: PodCgroup::Path("/nowhere".into()), ..bed.pod() };
    assert!(matches!(datapath.pod_set(&gone), Err(DatapathError::Io { .. })));
    assert!(datapath.pods().unwrap().is_empty());
    let six = PodEntry { addresses: vec![IpAddr::from([10, 1, 1, 1]), "fd00::1".parse().unwrap()], ..bed.pod() };
    datapath.pod_set(&six).unwrap();
    let (_, pod) = datapath.pods().unwrap()[0];
    assert_eq!((pod.address4, pod.address6[0], pod.address6[15]), ([10, 1, 1, 1], 0xfd, 1));
}
