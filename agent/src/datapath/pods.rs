//! Enrolled pods in `weir_pods`. Used by `mod`; `app` decides who is enrolled.

use std::net::IpAddr;
use std::path::PathBuf;

use aya::maps::{HashMap, MapData, MapError};
use weir_ebpf::{POD_DEFAULT_REJECT, Pod, maps};

use super::error::DatapathError;
use crate::cgroup::{self, Hierarchy};
use crate::netns::NetNs;

/// Which callers inside the pod's network namespace are the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodCgroup {
    /// All: for runtimes that leave pods in the root of the v2 tree.
    Unchecked,
    /// Those in or below this directory.
    Path(PathBuf),
    /// Those in or below the cgroup with this id, which is so deep below the root of the tree.
    Id {
        /// Inode of its directory.
        id: u64,
        /// Root = 0.
        level: u32,
    },
}

impl PodCgroup {
    /// What the pod's entry names; 0 = none.
    pub fn id(&self) -> u64 {
        match self {
            Self::Unchecked | Self::Path(_) => 0,
            Self::Id { id, .. } => *id,
        }
    }
}

/// A pod to be enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEntry {
    /// Of its network namespace.
    pub cookie: u64,
    /// Its cgroup.
    pub cgroup: PodCgroup,
    /// Dense index of the pod on this node.
    pub index: u32,
    /// The class of clients that it belongs to.
    pub view: u32,
    /// The first of each family is used.
    pub addresses: Vec<IpAddr>,
    /// Port of our outbound listener on 127.0.0.1 in its namespace; 0 = none.
    pub listener4: u16,
    /// Port of our outbound listener on ::1 in its namespace; 0 = none.
    pub listener6: u16,
    /// Destinations without an entry are refused (REGISTRY_ONLY).
    pub default_reject: bool,
}

/// The map, and which namespaces never enter it.
#[derive(Debug)]
pub(super) struct Pods {
    map: HashMap<MapData, u64, Pod>,
    /// This process's, and the one of process 1 when it can be read.
    host: Vec<u64>,
}

impl Pods {
    pub(super) fn new(map: HashMap<MapData, u64, Pod>) -> Result<Self, DatapathError> {
        let own = NetNs::own().map_err(DatapathError::io("open", "/proc/self/ns/net"))?;
        let mut host = vec![own.cookie()];
        // Another process's namespace may be closed to us; then it is not the namespace that we share with the node.
        host.extend(NetNs::open("/proc/1/ns/net").ok().map(|ns| ns.cookie()));
        Ok(Self { map, host })
    }

    pub(super) fn set(&mut self, pod: &PodEntry, agent: u32) -> Result<(), DatapathError> {
        if self.host.contains(&pod.cookie) {
            return Err(DatapathError::HostNamespace(pod.cookie));
        }
        let (cgroup_id, cgroup_level) = match &pod.cgroup {
            PodCgroup::Unchecked => (0, 0),
            PodCgroup::Id { id, level } => (*id, *level),
            PodCgroup::Path(path) => {
                let id = cgroup::id_of(path).map_err(DatapathError::io("look at", path))?;
                (id, Hierarchy::find()?.level_of(path)?)
            }
        };
        let generation = match self.map.get(&pod.cookie, 0) {
            Ok(old) => old.generation.wrapping_add(1),
            Err(MapError::KeyNotFound) => 1,
            Err(error) => return Err(DatapathError::map("read", maps::PODS)(error)),
        };
        let value = Pod {
            cgroup_id,
            cgroup_level,
            index: pod.index,
            view: pod.view,
            agent,
            flags: if pod.default_reject { POD_DEFAULT_REJECT } else { 0 },
            generation,
            address4: pod.addresses.iter().find_map(v4).unwrap_or_default(),
            listener4: pod.listener4,
            listener6: pod.listener6,
            address6: pod.addresses.iter().find_map(v6).unwrap_or_default(),
        };
        self.map.insert(pod.cookie, value, 0).map_err(DatapathError::map("write", maps::PODS))
    }

    pub(super) fn remove(&mut self, cookie: u64) -> Result<(), DatapathError> {
        match self.map.remove(&cookie) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            // aya reports a missing key of a delete as the system call's error.
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            Err(error) => Err(DatapathError::map("delete from", maps::PODS)(error)),
        }
    }

    pub(super) fn all(&self) -> Result<Vec<(u64, Pod)>, DatapathError> {
        self.map.iter().collect::<Result<_, _>>().map_err(DatapathError::map("read", maps::PODS))
    }
}

fn v4(address: &IpAddr) -> Option<[u8; 4]> {
    match address.to_canonical() {
        IpAddr::V4(v4) => Some(v4.octets()),
        IpAddr::V6(_) => None,
    }
}

fn v6(address: &IpAddr) -> Option<[u8; 16]> {
    match address.to_canonical() {
        IpAddr::V6(v6) => Some(v6.octets()),
        IpAddr::V4(_) => None,
    }
}
