//! connect(): which way a new connection of an enrolled pod goes. One body for both families; called by the entry
//! points in `main.rs`.
//!
//! The order of the questions is the order of their cost for traffic that is not ours: nearly every connect on a node
//! ends at the first or second map lookup.

use core::mem::{MaybeUninit, offset_of};
use core::ptr::{addr_of_mut, write_volatile};

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_netns_cookie, bpf_get_socket_cookie,
    bpf_set_retval,
};
use aya_ebpf::programs::SockAddrContext;
use weir_ebpf::{
    ANY_ADDRESS, Counter, OriginalDestination, POD_DEFAULT_REJECT, PROTOCOL_TCP, PROTOCOL_UDP, Pod,
    SERVICE_REFUSE_ON_FAILURE, Service, ServiceCounters, ServiceKey, SlotRange, VIEW_EVERYBODY, Verdict,
};

use super::endpoint;
use super::listener::{self, LOOPBACK4, LOOPBACK6};
use super::{
    Words, count, forget, increment, is_mapped, mapped, maps, on_stack, rd, set_user_address, store, to_address,
    to_words, user_address,
};

/// `SOCK_STREAM`.
const SOCK_STREAM: u32 = 1;
/// `IPPROTO_MPTCP`: for us a TCP socket; it falls back to plain TCP where the listener does not speak it.
const IPPROTO_MPTCP: u32 = 262;
/// `ECONNREFUSED`: what a client understands as "nobody there", at once.
const ECONNREFUSED: i32 = 111;
/// What a connect hook returns to let the system call go on.
const ALLOW: i32 = 1;
/// What it returns to stop it, with the error of `bpf_set_retval`.
const DENY: i32 = 0;

/// [`ANY_ADDRESS`] as words.
const ANY: Words = [0; 4];
const _: () = assert!(matches!(ANY_ADDRESS, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));

/// How a connect ends. The counter says why, and is what `weir status` shows.
enum Outcome {
    /// Goes where the application said.
    Pass(Counter),
    /// Goes elsewhere; socket storage has the original destination.
    Steer(Counter),
    /// `ECONNREFUSED`.
    Refuse(Counter),
}

/// One connect, as read from its context.
struct Attempt {
    ctx: *mut bpf_sock_addr,
    socket: *mut bpf_sock,
    netns_cookie: u64,
    /// Where the application wants to go; v4-mapped for IPv4.
    dialled: Words,
    /// Host order.
    port: u16,
}

/// The body of `weir_connect4` and `weir_connect6`.
#[inline(always)]
pub(crate) fn connect<const V6: bool>(context: &SockAddrContext) -> i32 {
    let ctx = context.sock_addr;
    let attempt = Attempt {
        ctx,
        socket: rd!(ctx, __bindgen_anon_1.sk),
        // SAFETY: `ctx` is the program's context.
        netns_cookie: unsafe { bpf_get_netns_cookie(ctx.cast()) },
        dialled: user_address::<V6>(ctx),
        port: u16::from_be(rd!(ctx, user_port) as u16),
    };
    if attempt.socket.is_null() {
        return ALLOW;
    }
    if is_probe(ctx) {
        return ALLOW;
    }
    match attempt.decide::<V6>() {
        Outcome::Pass(why) => {
            // A socket may connect a second time; getpeername must not show the first destination then.
            forget(attempt.socket);
            count(why);
            attempt.record(context, why, "pass");
            ALLOW
        }
        Outcome::Steer(why) => {
            count(why);
            attempt.record(context, why, "steer");
            ALLOW
        }
        Outcome::Refuse(why) => {
            count(why);
            attempt.record(context, why, "refuse");
            // SAFETY: a call without memory.
            unsafe { bpf_set_retval(-ECONNREFUSED) };
            DENY
        }
    }
}

/// An agent learns the id of its own cgroup, as the kernel sees it, by one connect of a socket that it announced in
/// `weir_meta`. True for that connect.
#[inline(always)]
fn is_probe(ctx: *mut bpf_sock_addr) -> bool {
    let Some(meta) = maps::META.get_ptr_mut(0) else {
        return false;
    };
    let wanted = rd!(meta, probe_cookie);
    // SAFETY: `ctx` is the program's context.
    if wanted == 0 || unsafe { bpf_get_socket_cookie(ctx.cast()) } != wanted {
        return false;
    }
    // SAFETY: `meta` is the one value of an array, aligned to 8; the agent reads the field after its connect returned.
    unsafe {
        write_volatile(addr_of_mut!((*meta).probe_cgroup), bpf_get_current_cgroup_id());
    };
    true
}

impl Attempt {
    #[inline(always)]
    fn decide<const V6: bool>(&self) -> Outcome {
        // SAFETY: entries are replaced, never written in place, and live at least as long as this program runs.
        let Some(pod) = (unsafe { maps::PODS.get(self.netns_cookie) }) else {
            return Outcome::Pass(Counter::NotEnrolled);
        };
        // SAFETY: a call without memory.
        let cgroup = unsafe { bpf_get_current_cgroup_id() };
        if maps::AGENTS.get_ptr(cgroup).is_some() {
            return Outcome::Pass(Counter::Agent);
        }
        if pod.cgroup_id != 0 {
            // SAFETY: a call without memory.
            let ancestor = unsafe { bpf_get_current_ancestor_cgroup_id(pod.cgroup_level as i32) };
            if ancestor != pod.cgroup_id {
                return Outcome::Pass(Counter::OtherCgroup);
            }
        }
        let protocol = match (rd!(self.ctx, protocol), rd!(self.ctx, type_)) {
            (6 | IPPROTO_MPTCP, SOCK_STREAM) => PROTOCOL_TCP,
            (17, _) => PROTOCOL_UDP,
            _ => return Outcome::Pass(Counter::PassNoService),
        };
        match self.service(pod, protocol) {
            Some(service) => self.apply::<V6>(pod, service, protocol),
            // Name lookups are connected UDP sockets, often to a resolver that is no Service (a node-local cache): the
            // default is about connections.
            None if pod.flags & POD_DEFAULT_REJECT != 0 && protocol == PROTOCOL_TCP && !self.is_local(pod) => {
                Outcome::Refuse(Counter::Reject)
            }
            None => Outcome::Pass(Counter::PassNoService),
        }
    }

    /// The entry for what was dialled: the pod's own view before everybody's, an address before "any address".
    #[inline(always)]
    fn service(&self, pod: &Pod, protocol: u8) -> Option<&'static Service> {
        if let Some(found) = self.lookup(pod.view, self.dialled, protocol) {
            return Some(found);
        }
        // "Any address" is any address of somebody else: a pod's talk with itself is nobody's service.
        if self.is_local(pod) {
            return None;
        }
        self.lookup(pod.view, ANY, protocol)
    }

    /// Looks for `address` in view `own`, then in everybody's.
    #[inline(always)]
    fn lookup(&self, own: u32, address: Words, protocol: u8) -> Option<&'static Service> {
        let key = ServiceKey { view: own, address: to_address(address), port: self.port, protocol, pad: 0 };
        if own != VIEW_EVERYBODY {
            // SAFETY: entries are replaced, never written in place, and live at least as long as this program runs.
            let found = unsafe { maps::SERVICES.get(on_stack(&mut MaybeUninit::uninit(), key)) };
            if found.is_some() {
                return found;
            }
        }
        let key = ServiceKey { view: VIEW_EVERYBODY, ..key };
        // SAFETY: as above.
        unsafe { maps::SERVICES.get(on_stack(&mut MaybeUninit::uninit(), key)) }
    }

    /// Loopback, the unspecified address (which the kernel takes for loopback), and the pod's own addresses.
    #[inline(always)]
    fn is_local(&self, pod: &Pod) -> bool {
        let d = &self.dialled;
        if is_mapped(d) {
            let v4 = d[3];
            return v4 == 0 || v4.to_ne_bytes()[0] == 127 || v4 == u32::from_ne_bytes(pod.address4);
        }
        if d[0] == 0 && d[1] == 0 && d[2] == 0 {
            return d[3] == 0 || d[3] == 1_u32.to_be();
        }
        let own = to_words(&pod.address6);
        d[0] == own[0] && d[1] == own[1] && d[2] == own[2] && d[3] == own[3]
    }

    #[inline(always)]
    fn apply<const V6: bool>(&self, pod: &Pod, service: &Service, protocol: u8) -> Outcome {
        const BALANCE: u32 = Verdict::Balance as u32;
        const PROXY: u32 = Verdict::Proxy as u32;
        const REJECT: u32 = Verdict::Reject as u32;
        match service.verdict {
            BALANCE => {
                self.balance::<V6>(service, service.slots, Counter::Balance, offset_of!(ServiceCounters, balanced))
            }
            REJECT => refuse(service, Counter::Reject),
            PROXY if protocol == PROTOCOL_TCP => self.proxy::<V6>(pod, service),
            _ => Outcome::Pass(Counter::Pass),
        }
    }

    /// Sends the connection to a random slot of `range`.
    #[inline(always)]
    fn balance<const V6: bool>(&self, service: &Service, range: SlotRange, why: Counter, field: usize) -> Outcome {
        let Some((address, port)) = endpoint::pick(range) else {
            return refuse(service, Counter::NoBackend);
        };
        if is_mapped(&address) != is_mapped(&self.dialled) {
            return refuse(service, Counter::NoBackend);
        }
        // Without memory for it getpeername shows the backend, which is the truth; no reason to refuse.
        if !store(self.socket, self.original(service, 0)) {
            count(Counter::NoStorage);
        }
        set_user_address::<V6>(self.ctx, address, port);
        count_service(service, field);
        Outcome::Steer(why)
    }

    /// Hands the connection to the pod's listener, or takes the way round it.
    #[inline(always)]
    fn proxy<const V6: bool>(&self, pod: &Pod, service: &Service) -> Outcome {
        const FALLBACK: usize = offset_of!(ServiceCounters, fallback);
        let v4 = is_mapped(&self.dialled);
        let must_refuse = service.flags & SERVICE_REFUSE_ON_FAILURE != 0;
        // Loopback is out of reach for a socket that is bound to another device.
        if rd!(self.socket, bound_dev_if) != 0 {
            if must_refuse {
                return refuse(service, Counter::FallbackRefused);
            }
            return self.balance::<V6>(service, service.fallback, Counter::DeviceBound, FALLBACK);
        }
        let Some(listener) = listener::alive(self.ctx, v4, pod) else {
            if must_refuse {
                return refuse(service, Counter::FallbackRefused);
            }
            return self.balance::<V6>(service, service.fallback, Counter::Fallback, FALLBACK);
        };
        // Without it the proxy could not tell where the connection was going.
        if !store(self.socket, self.original(service, listener)) {
            return refuse(service, Counter::NoStorage);
        }
        listener::bind(self.ctx, self.socket, v4, pod);
        let loopback = if v4 { mapped(LOOPBACK4) } else { LOOPBACK6 };
        set_user_address::<V6>(self.ctx, loopback, listener);
        count_service(service, offset_of!(ServiceCounters, proxied));
        Outcome::Steer(Counter::Proxy)
    }

    #[inline(always)]
    fn original(&self, service: &Service, listener_port: u16) -> OriginalDestination {
        OriginalDestination {
            address: to_address(self.dialled),
            port: self.port,
            proxied: u16::from(listener_port != 0),
            service: service.index,
            listener_port,
            pad: 0,
        }
    }

    /// One record of a verdict, in the debug object only. Sockets that are not enrolled are most of a node's, and
    /// would drown the others.
    #[cfg(feature = "log")]
    #[inline(always)]
    fn record(&self, context: &SockAddrContext, why: Counter, end: &'static str) {
        if !matches!(why, Counter::NotEnrolled) {
            let address = to_address(self.dialled);
            let why = name(why);
            aya_log_ebpf::debug!(
                context,
                "netns {} to {:i} port {}: {} ({})",
                self.netns_cookie,
                address,
                self.port,
                end,
                why
            );
        }
    }

    #[cfg(not(feature = "log"))]
    #[inline(always)]
    #[expect(clippy::unused_self, reason = "the debug object's twin reads it")]
    fn record(&self, _: &SockAddrContext, _: Counter, _: &'static str) {}
}

/// A [`Counter`] of a connect in words.
#[cfg(feature = "log")]
#[inline(always)]
fn name(counter: Counter) -> &'static str {
    match counter {
        Counter::Agent => "agent",
        Counter::OtherCgroup => "other cgroup",
        Counter::PassNoService => "no service",
        Counter::Balance => "balance",
        Counter::Proxy => "proxy",
        Counter::Reject => "reject",
        Counter::Fallback => "proxy away, fallback",
        Counter::FallbackRefused => "proxy away",
        Counter::DeviceBound => "bound to a device, fallback",
        Counter::NoBackend => "no backend",
        Counter::NoStorage => "no storage",
        _ => "pass",
    }
}

#[inline(always)]
fn refuse(service: &Service, why: Counter) -> Outcome {
    count_service(service, offset_of!(ServiceCounters, rejected));
    Outcome::Refuse(why)
}

/// Adds one to the u64 at `field` of the service's counters, if the agent made an entry for it.
#[inline(always)]
fn count_service(service: &Service, field: usize) {
    if let Some(counters) = maps::CONNS.get_ptr_mut(service.index) {
        // SAFETY: `field` is the offset of one of the struct's u64.
        increment(unsafe { counters.byte_add(field).cast() });
    }
}
