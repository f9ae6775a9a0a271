//! `weir-client resolve NAME`: asks the pod's own name server for an IPv4 address over UDP, as a resolver does, and
//! prints it. The static binary has no libc resolver that could.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::Duration;

/// One answer within a cluster takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(3);
const TYPE_A: u16 = 1;

/// Asks and prints.
pub(crate) fn run(arguments: &[String]) -> io::Result<()> {
    let [name] = arguments else {
        return Err(io::Error::other("usage: weir-client resolve NAME"));
    };
    let settings = std::fs::read_to_string("/etc/resolv.conf")?;
    let server: IpAddr = settings
        .lines()
        .find_map(|line| line.strip_prefix("nameserver")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("/etc/resolv.conf names no server"))?;
    let socket = UdpSocket::bind((if server.is_ipv4() { "0.0.0.0" } else { "::" }, 0))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect((server, 53))?;
    socket.send(&question(name))?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer)?;
    let address = address(&answer[..length]).ok_or_else(|| io::Error::other(format!("{name} has no address")))?;
    writeln!(io::stdout(), "{address}")
}

/// RFC 1035, 4.1: a header that asks for recursion, and one question.
fn question(name: &str) -> Vec<u8> {
    let mut packet = vec![0x77, 0x65, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

/// The first address record of an answer.
fn address(packet: &[u8]) -> Option<Ipv4Addr> {
    let word = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    let answers = word(6)?;
    let mut at = past_name(packet, 12)? + 4;
    for _ in 0..answers {
        at = past_name(packet, at)?;
        let (kind, length) = (word(at)?, usize::from(word(at + 8)?));
        at += 10;
        if kind == TYPE_A && length == 4 {
            let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
            return Some(octets.into());
        }
        at += length;
    }
    None
}

/// RFC 1035, 4.1.4: labels end with a zero or with a pointer of two bytes.
fn past_name(packet: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            pointer if pointer & 0xc0 == 0xc0 => return Some(at + 2),
            length => at += usize::from(length) + 1,
        }
    }
}
