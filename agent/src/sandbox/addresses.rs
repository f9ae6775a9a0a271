//! The addresses inside a pod's network namespace, and their changes, by one rtnetlink socket in it. Used by `book`.
//!
//! The CNI gives them before or after the sandbox's first process, and the API server tells them seconds later.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::netns::NetNs;

/// Of a reply, at once: the kernel never sends more than 32 KiB in a datagram.
const BUFFER: usize = 32 * 1024;
/// Addresses remembered of a pod; more are of no use to the connect hook, which takes one of each family.
const MAX_ADDRESSES: usize = 16;
/// The loopback interface has this index in every namespace.
const LOOPBACK: u32 = 1;
/// What the kubelet has every CNI call the interface of the cluster's network.
const PRIMARY: &[u8] = b"eth0";

/// Of `struct nlmsghdr`, `struct ifaddrmsg` and `struct rtattr`.
const MESSAGE_HEAD: usize = 16;
const ADDRESS_HEAD: usize = 8;
const ATTRIBUTE_HEAD: usize = 4;
const FLAGS: u16 = 8;

/// An address and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    interface: u32,
    address: IpAddr,
}

/// The addresses, kept current.
#[derive(Debug)]
pub(super) struct Addresses {
    socket: OwnedFd,
    entries: Vec<Entry>,
    primary: Option<u32>,
}

impl Addresses {
    /// Opens the socket inside `netns` and reads what is there.
    pub(super) fn open(netns: &NetNs) -> io::Result<Self> {
        let socket = netns.run(subscribe)??;
        let mut addresses = Self { socket, entries: Vec::new(), primary: None };
        addresses.ask()?;
        addresses.update()?;
        Ok(addresses)
    }

    /// Ready to be read when addresses change.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Takes in what changed; never waits.
    pub(super) fn update(&mut self) -> io::Result<()> {
        let mut buffer = vec![0_u8; BUFFER];
        loop {
            // SAFETY: `buffer` is valid for writes of its length.
            let read = unsafe { libc::recv(self.socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if read >= 0 {
                self.take(&buffer[..read as usize]);
                continue;
            }
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                error if error.kind() == io::ErrorKind::Interrupted => {}
                // Changes were lost: everything is asked for anew.
                error if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.entries.clear();
                    self.ask()?;
                }
                error => return Err(error),
            }
        }
    }

    /// Those of `eth0` first, else by interface; each interface's in the order in which it got them.
    pub(super) fn list(&self) -> Vec<IpAddr> {
        let mut entries = self.entries.clone();
        entries.sort_by_key(|entry| (Some(entry.interface) != self.primary, entry.interface));
        entries.into_iter().map(|entry| entry.address).collect()
    }

    fn ask(&self) -> io::Result<()> {
        let mut request = [0_u8; MESSAGE_HEAD + ADDRESS_HEAD];
        let length = request.len() as u32;
        request[0..4].copy_from_slice(&length.to_ne_bytes());
        request[4..6].copy_from_slice(&libc::RTM_GETADDR.to_ne_bytes());
        request[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
        // SAFETY: `request` is valid for reads of its length.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some((kind, body, rest)) = next_message(bytes) {
            bytes = rest;
            let Some(message) = read_address(body) else { continue };
            if message.primary {
                self.primary = Some(message.entry.interface);
            }
            let known = self.entries.iter().position(|entry| *entry == message.entry);
            match (kind, known) {
                (libc::RTM_NEWADDR, None) if message.usable && self.entries.len() < MAX_ADDRESSES => {
                    self.entries.push(message.entry);
                }
                (libc::RTM_NEWADDR, Some(at)) if !message.usable => drop(self.entries.remove(at)),
                (libc::RTM_DELADDR, Some(at)) => drop(self.entries.remove(at)),
                _ => {}
            }
        }
    }
}

fn subscribe() -> io::Result<OwnedFd> {
    // SAFETY: plain system call; the result is checked.
    let fd = unsafe {
        libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: zero is a valid value for each field.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as u16;
    address.nl_groups = (libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
    let length = size_of::<libc::sockaddr_nl>() as libc::socklen_t;
    // SAFETY: `address` is valid for reads of `length` bytes.
    if unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Kind and body of the first message, and what follows it.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(MESSAGE_HEAD..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// An RTM_NEWADDR or RTM_DELADDR.
struct Message {
    entry: Entry,
    /// It is on the cluster's interface.
    primary: bool,
    /// Others can reach the pod at it.
    usable: bool,
}

fn read_address(body: &[u8]) -> Option<Message> {
    let (head, mut attributes) = body.split_at_checked(ADDRESS_HEAD)?;
    let (family, scope) = (i32::from(head[0]), head[3]);
    let mut flags = u32::from(head[2]);
    let interface = u32::from_ne_bytes(head[4..8].try_into().ok()?);
    // The peer of a point-to-point interface is IFA_ADDRESS, and its own address IFA_LOCAL; IPv6 has no IFA_LOCAL.
    let (mut local, mut address, mut primary) = (None, None, false);
    while let Some(length) = attributes.get(0..2) {
        let length = usize::from(u16::from_ne_bytes(length.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(ATTRIBUTE_HEAD..length)?;
        match kind {
            libc::IFA_LOCAL => local = ip(family, value),
            libc::IFA_ADDRESS => address = ip(family, value),
            libc::IFA_LABEL => primary = value.split(|b| matches!(b, 0 | b':')).next() == Some(PRIMARY),
            FLAGS => flags = u32::from_ne_bytes(value.try_into().ok()?),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let address = local.or(address)?;
    let nearby = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_loopback(),
    };
    // Temporary ones are the kernel's own, and go again.
    let passing = flags & (libc::IFA_F_DADFAILED | libc::IFA_F_TEMPORARY) != 0 && address.is_ipv6();
    let usable = scope == libc::RT_SCOPE_UNIVERSE && interface != LOOPBACK && !nearby && !passing;
    Some(Message { entry: Entry { interface, address }, primary, usable })
}

fn ip(family: i32, value: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        libc::AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((ATTRIBUTE_HEAD + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, scope: u8, flags: u8, interface: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let family = if attributes[0].len() > 8 { libc::AF_INET6 } else { libc::AF_INET } as u8;
        let mut body = vec![family, 24, flags, scope];
        body.extend(interface.to_ne_bytes());
        body.extend(attributes.concat());
        let mut bytes = ((MESSAGE_HEAD + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(MESSAGE_HEAD, 0);
        bytes.extend(body);
        bytes
    }

    fn after(messages: &[Vec<u8>]) -> Vec<String> {
        let socket = subscribe().expect("rtnetlink is everybody's");
        let mut addresses = Addresses { socket, entries: Vec::new(), primary: None };
        addresses.take(&messages.concat());
        addresses.list().iter().map(ToString::to_string).collect()
    }

    fn v4(kind: u16, interface: u32, address: [u8; 4]) -> Vec<u8> {
        message(kind, libc::RT_SCOPE_UNIVERSE, 0, interface, &[attribute(libc::IFA_LOCAL, &address)])
    }

    #[test]
    fn the_clusters_interface_is_first_and_what_is_not_reachable_is_left_out() {
        let v6 = |scope, flags, text: &str| {
            let octets = text.parse::<Ipv6Addr>().unwrap().octets();
            message(libc::RTM_NEWADDR, scope, flags, 2, &[attribute(libc::IFA_ADDRESS, &octets)])
        };
        let messages = [
            v4(libc::RTM_NEWADDR, LOOPBACK, [127, 0, 0, 1]),
            v4(libc::RTM_NEWADDR, LOOPBACK, [10, 9, 9, 9]),
            v4(libc::RTM_NEWADDR, 2, [192, 168, 0, 9]),
            v4(libc::RTM_NEWADDR, 3, [169, 254, 1, 1]),
            message(
                libc::RTM_NEWADDR,
                libc::RT_SCOPE_UNIVERSE,
                0,
                3,
                &[
                    attribute(libc::IFA_ADDRESS, &[10, 0, 0, 1]),
                    attribute(libc::IFA_LOCAL, &[10, 244, 0, 7]),
                    attribute(libc::IFA_LABEL, b"eth0\0"),
                ],
            ),
            v6(libc::RT_SCOPE_LINK, 0, "fe80::1"),
            v6(libc::RT_SCOPE_UNIVERSE, libc::IFA_F_DADFAILED as u8, "fd00::1"),
            v6(libc::RT_SCOPE_UNIVERSE, 0, "fd00::7"),
        ];
        assert_eq!(after(&messages), ["10.244.0.7", "192.168.0.9", "fd00::7"]);
    }

    #[test]
    fn what_goes_is_forgotten_and_what_is_told_twice_is_there_once() {
        let new = v4(libc::RTM_NEWADDR, 2, [10, 0, 0, 7]);
        assert_eq!(after(&[new.clone(), new.clone()]), ["10.0.0.7"]);
        assert_eq!(after(&[new.clone(), v4(libc::RTM_DELADDR, 2, [10, 0, 0, 7])]), [""; 0]);
        assert_eq!(after(&[new, v4(libc::RTM_DELADDR, 3, [10, 0, 0, 7])]), ["10.0.0.7"]);
    }

    #[test]
    fn cut_messages_are_no_harm() {
        let whole = v4(libc::RTM_NEWADDR, 2, [10, 0, 0, 7]);
        for length in 0..whole.len() {
            let mut cut = whole[..length].to_vec();
            assert_eq!(after(&[cut.clone()]), [""; 0]);
            if length >= 4 {
                cut[0..4].copy_from_slice(&(length as u32).to_ne_bytes());
                after(&[cut]);
            }
        }
    }
}
