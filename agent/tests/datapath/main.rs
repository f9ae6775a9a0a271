//! The datapath against the real kernel, run by `cargo test`: each test has an instance, a cgroup and a network
//! namespace of its own, and removes them. Needs root, a bpffs and the built object; without them a test says why it
//! was skipped.
//!
//! Here are the processes that tests start: this binary again, as one of its ignored tests.
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "says what cannot be removed; clients answer on stdout")]
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]

mod adopt;
mod bed;
mod callers;
mod health;
mod install;
mod log;
mod lookup;
mod slots;
mod steer;

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use weir::datapath::{Datapath, DatapathConfig};
use weir::netns::NetNs;

/// What the client and the agent of a test process are told.
const ENV_CGROUP: &str = "WEIR_TEST_CGROUP";
const ENV_NETNS: &str = "WEIR_TEST_NETNS";
const ENV_INSTANCE: &str = "WEIR_TEST_INSTANCE";

/// The service port of most tests. Nothing is there: the namespaces have a loopback and no route.
const SERVICE: &str = "10.96.7.7:80";

/// One line of what a client is told: `COUNT [ADDRESS] [dev NAME | udp]`.
struct Order {
    count: u32,
    address: SocketAddr,
    device: Option<String>,
    udp: bool,
}

impl Order {
    fn parse(line: &str) -> Self {
        let mut words = line.split(' ');
        let count = words.next().unwrap().parse().unwrap();
        let mut order = Self { count, address: SERVICE.parse().unwrap(), device: None, udp: false };
        while let Some(word) = words.next() {
            match word {
                "dev" => order.device = words.next().map(str::to_owned),
                "udp" => order.udp = true,
                address => order.address = address.parse().unwrap(),
            }
        }
        order
    }

    /// What was answered how often.
    fn carry_out(&self) -> BTreeMap<String, u32> {
        let mut seen = BTreeMap::new();
        for _ in 0..self.count {
            let answer = if self.udp { self.udp() } else { self.connect() };
            *seen.entry(named(answer)).or_default() += 1;
        }
        seen
    }

    /// The name that the server says.
    fn connect(&self) -> std::io::Result<String> {
        let socket = Socket::new(Domain::for_address(self.address), Type::STREAM, None)?;
        socket.bind_device(self.device.as_deref().map(str::as_bytes))?;
        socket.connect_timeout(&self.address.into(), Duration::from_secs(5))?;
        let mut stream = TcpStream::from(socket);
        let mut name = [0];
        stream.read_exact(&mut name)?;
        // A reset instead of a minute of TIME_WAIT: 20,000 of those would use up the ports.
        SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
        Ok(name[0].to_string())
    }

    /// A datagram socket only connects.
    fn udp(&self) -> std::io::Result<String> {
        UdpSocket::bind("0.0.0.0:0")?.connect(self.address)?;
        Ok("connected".to_owned())
    }
}

/// `refused`, or `x` and another error.
fn named(answer: std::io::Result<String>) -> String {
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
                let seen = Order::parse(&line.unwrap()).carry_out();
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
    let seen = netns.run(|| named(Order::parse("1").connect())).unwrap();
    println!("\nanswer: {id} {} {seen}", datapath.counters().unwrap()["agent"]);
    std::process::exit(0);
}
