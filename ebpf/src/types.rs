//! Keys and values of the maps. Field names are what `bpftool map dump` prints.

/// 16 bytes, network order; IPv4 is v4-mapped.
pub type Address = [u8; 16];

/// The wildcard of [`ServiceKey::address`].
pub const ANY_ADDRESS: Address = [0; 16];

/// `::ffff:a.b.c.d`.
#[inline(always)]
pub const fn v4_mapped(octets: [u8; 4]) -> Address {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, octets[0], octets[1], octets[2], octets[3]]
}

/// True for `::ffff:0:0/96`.
#[inline(always)]
pub const fn is_v4_mapped(address: &Address) -> bool {
    let mut i = 0;
    while i < 10 {
        if address[i] != 0 {
            return false;
        }
        i += 1;
    }
    address[10] == 0xff && address[11] == 0xff
}

/// The view that every pod sees when its own view has no entry.
pub const VIEW_EVERYBODY: u32 = 0;

/// IPPROTO_TCP, as in [`ServiceKey::protocol`].
pub const PROTOCOL_TCP: u8 = 6;
/// IPPROTO_UDP, as in [`ServiceKey::protocol`].
pub const PROTOCOL_UDP: u8 = 17;

/// What the connect hook does with a connection to a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Verdict {
    /// Not ours: the connection goes as it would without weir.
    Pass = 0,
    /// The kernel picks a backend; no proxy.
    Balance = 1,
    /// The proxy's listener inside the pod's network namespace takes it.
    Proxy = 2,
    /// `ECONNREFUSED` at once.
    Reject = 3,
}

/// [`Pod::flags`]: a destination without an entry is refused (REGISTRY_ONLY) instead of passed.
pub const POD_DEFAULT_REJECT: u32 = 1;
/// [`Service::flags`]: where the proxy is away, or cannot serve the socket, the port refuses instead of taking its
/// fallback slots.
pub const SERVICE_REFUSE_ON_FAILURE: u32 = 1;

/// An enrolled pod: value of `weir_pods`, whose key is the pod's network namespace cookie (u64).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Pod {
    /// The v2 cgroup that a caller must be in or below; 0 = not checked (runtimes that leave pods in the v2 root).
    pub cgroup_id: u64,
    /// The depth of that cgroup below the root of the v2 tree (root = 0): what the ancestor helper asks for.
    pub cgroup_level: u32,
    /// Dense index of the pod on this node.
    pub index: u32,
    /// The class of clients that it belongs to ([`ServiceKey::view`]).
    pub view: u32,
    /// Which of `weir_meta`'s heartbeats vouches for its listeners.
    pub agent: u32,
    /// `POD_*`.
    pub flags: u32,
    /// Counts the enrolments of this namespace.
    pub generation: u32,
    /// IPv4 address of the pod, network order; zero = none.
    pub address4: [u8; 4],
    /// Port of the outbound listener on 127.0.0.1; 0 = none.
    pub listener4: u16,
    /// Port of the outbound listener on ::1; 0 = none.
    pub listener6: u16,
    /// IPv6 address of the pod; zero = none.
    pub address6: Address,
}

/// Key of `weir_services`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(C)]
pub struct ServiceKey {
    /// [`VIEW_EVERYBODY`], or a class of clients with rules of its own.
    pub view: u32,
    /// [`ANY_ADDRESS`] = whatever address, this port.
    pub address: Address,
    /// The port that the client dialled.
    pub port: u16,
    /// `PROTOCOL_*`.
    pub protocol: u8,
    /// Always 0.
    pub pad: u8,
}

/// A range of `weir_slots`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct SlotRange {
    /// Index of the first slot.
    pub offset: u32,
    /// Number of slots; 0 = no endpoint.
    pub length: u32,
}

/// Value of `weir_services`. One update of it flips verdict and slots together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    /// Index of the service port, for the counters.
    pub index: u32,
    /// A [`Verdict`].
    pub verdict: u32,
    /// `SERVICE_*`.
    pub flags: u32,
    /// Always 0.
    pub pad: u32,
    /// Weighted slots of verdict `balance`.
    pub slots: SlotRange,
    /// Weighted slots of the port's catch-all route: taken when the proxy is away, or cannot serve this socket.
    pub fallback: SlotRange,
}

/// Value of `weir_backends`, indexed by what the slots hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Backend {
    /// Address of the endpoint.
    pub address: Address,
    /// Its target port.
    pub port: u16,
    /// 1 = in use; a slot that points at an unused backend is counted and refused, never guessed.
    pub in_use: u16,
}

/// Value of `weir_health`, indexed like `weir_backends`. Zeroes are an endpoint that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Health {
    /// Not to be picked before: ns of `bpf_ktime_get_ns`, which is CLOCK_MONOTONIC. 0 = never ejected.
    pub ejected_until: u64,
    /// By how many times its base time it was ejected.
    pub times_ejected: u32,
    /// Always 0.
    pub pad: u32,
}

/// Key of `weir_flows`: a connection to one of our listeners, as both ends see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The client's network namespace.
    pub netns_cookie: u64,
    /// The client's address: two sockets of one pod may share a port on different addresses.
    pub source_address: Address,
    /// The client's port.
    pub source_port: u16,
    /// Our listener's port.
    pub listener_port: u16,
    /// Always 0.
    pub pad: u32,
}

/// Where a connection was going: value of `weir_flows`, and of the socket storage `weir_origdst`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OriginalDestination {
    /// The address that the application dialled.
    pub address: Address,
    /// The port that it dialled.
    pub port: u16,
    /// 1 = the proxy has this connection, so sock_ops must announce it in `weir_flows`.
    pub proxied: u16,
    /// [`Service::index`].
    pub service: u32,
    /// Our listener's port when proxied.
    pub listener_port: u16,
    /// Always 0.
    pub pad: u16,
}

/// The one entry of `weir_meta`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Meta {
    /// [`crate::ABI_VERSION`].
    pub abi_version: u32,
    /// Hash of the ABI's shape (`maps::abi_hash`).
    pub abi_hash: u32,
    /// CLOCK_MONOTONIC nanoseconds of each agent's last sign of life; [`Pod::agent`] is the index.
    pub heartbeats: [u64; crate::MAX_AGENTS as usize],
    /// The cookie of the socket by whose connect an agent learns its cgroup id; 0 = none.
    pub probe_cookie: u64,
    /// The id that the program found.
    pub probe_cgroup: u64,
    /// Name of the instance, zero-padded.
    pub instance: [u8; 32],
}

/// Per service port and CPU: value of `weir_conns`, whose key is [`Service::index`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct ServiceCounters {
    /// Connections that the kernel balanced.
    pub balanced: u64,
    /// Connections handed to the proxy.
    pub proxied: u64,
    /// Connections that took the fallback slots.
    pub fallback: u64,
    /// Connections refused.
    pub rejected: u64,
}

/// Index into the per-CPU array `weir_counters`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Counter {
    /// Connects from namespaces that are not enrolled.
    NotEnrolled = 0,
    /// Connects by an agent.
    Agent,
    /// Connects in an enrolled namespace by a caller outside the pod's cgroup.
    OtherCgroup,
    /// Enrolled, no service: passed.
    PassNoService,
    /// Enrolled, verdict `pass`.
    Pass,
    /// Verdict `balance`.
    Balance,
    /// Verdict `proxy`, handed over.
    Proxy,
    /// Verdict `reject`, or the pod's default.
    Reject,
    /// Verdict `proxy`, no live listener or heartbeat: took the fallback slots.
    Fallback,
    /// Verdict `proxy`, no live listener or heartbeat, or a socket bound to a device: refused.
    FallbackRefused,
    /// Verdict `proxy`, a socket bound to a device: took the fallback slots.
    DeviceBound,
    /// A range without slots, or a slot without a backend: refused.
    NoBackend,
    /// `weir_flows` or the socket storage was full: refused, never guessed.
    NoStorage,
    /// Original destinations announced to the proxy.
    FlowRecorded,
    /// A slot's endpoint was ejected, and another one of its group was picked.
    EjectedAvoided,
    /// A slot's endpoint was ejected, and so were those of its group that were looked at: it was picked all the same.
    EjectedPanic,
    /// How many counters there are.
    Count,
}

#[cfg(feature = "user")]
mod user {
    macro_rules! pod {
        ($($t:ty),+ $(,)?) => { $(
            // SAFETY: repr(C), integers only, and no padding (asserted by the tests of `types`).
            unsafe impl aya::Pod for $t {}
        )+ };
    }
    use super::{Backend, FlowKey, Health, Meta, OriginalDestination, Pod, Service, ServiceCounters, ServiceKey};
    pod!(Backend, FlowKey, Health, Meta, OriginalDestination, Pod, Service, ServiceCounters, ServiceKey);
}

// Sizes are the sums of the fields: an implicit padding byte would be garbage in a key.
const _: () = {
    assert!(size_of::<Pod>() == 8 + 4 * 6 + 4 + 2 + 2 + 16);
    assert!(size_of::<ServiceKey>() == 4 + 16 + 2 + 1 + 1);
    assert!(size_of::<Service>() == 4 * 4 + 8 + 8);
    assert!(size_of::<Backend>() == 16 + 2 + 2);
    assert!(size_of::<Health>() == 8 + 4 + 4);
    assert!(size_of::<FlowKey>() == 8 + 16 + 2 + 2 + 4);
    assert!(size_of::<OriginalDestination>() == 16 + 2 + 2 + 4 + 2 + 2);
    assert!(size_of::<Meta>() == 8 + 8 * crate::MAX_AGENTS as usize + 16 + 32);
    assert!(size_of::<ServiceCounters>() == 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v4_mapped_addresses_are_told_from_v6() {
        assert!(is_v4_mapped(&v4_mapped([10, 96, 7, 7])));
        assert!(!is_v4_mapped(&ANY_ADDRESS));
        let mut six = v4_mapped([10, 96, 7, 7]);
        six[0] = 0xfd;
        assert!(!is_v4_mapped(&six));
    }
}
