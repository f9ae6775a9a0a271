//! The agent's side of the kernel programs: loads and attaches them, or adopts what a former agent left pinned; carries
//! out plans; keeps pods, agents and heartbeats; tells where a steered connection was going. Used by `app`.
//!
//! What is pinned outlives this process. Opening adopts it without a moment without a hook, and removes nothing before
//! the first plan. Two agents of an instance may be alive during an upgrade: the last one to open owns the maps, and
//! the other one's writes fail with [`DatapathError::Superseded`].

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use weir_ebpf::{Pod, ServiceCounters, maps};
use weir_mesh::plan::KernelPlan;

use crate::cgroup::{self, Hierarchy};

mod address;
mod agents;
mod apply;
mod backends;
mod counters;
mod error;
mod flows;
mod indexes;
mod kernel;
mod links;
mod log;
mod memory;
pub mod object;
mod pins;
mod pods;
mod slots;
mod state;
mod sys;

pub use agents::{Heartbeat, monotonic_ns};
pub use apply::{ApplyReport, ServiceError, ServiceFault};
pub use error::DatapathError;
pub use flows::Flows;
pub use links::Attached;
pub use log::KernelLog;
pub use pins::{DEFAULT_INSTANCE, ensure_bpffs, uninstall};
pub use pods::{PodCgroup, PodEntry};
pub use slots::REUSE_GRACE;

use kernel::KernelMaps;
use memory::MetaMemory;
use pins::{Lock, Pins};
use pods::Pods;
use state::State;

/// Where bpffs is mounted on every distribution.
pub const BPFFS: &str = "/sys/fs/bpf";

/// What [`Datapath::open`] needs to know.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// Keeps several agents on one kernel apart: 1 to 31 of `a-z`, `0-9`, `-`.
    pub instance: String,
    /// Where a bpffs is, or is to be mounted.
    pub bpffs: PathBuf,
    /// The directory of the cgroup whose processes are steered.
    pub cgroup: PathBuf,
    /// Loads the programs that log, and reads their log ([`Datapath::kernel_log`]).
    pub kernel_log: bool,
}

impl DatapathConfig {
    /// The default instance, attached to `cgroup` ([`Hierarchy::attach_point`]).
    pub fn new(cgroup: PathBuf) -> Self {
        Self { instance: DEFAULT_INSTANCE.to_owned(), bpffs: BPFFS.into(), cgroup, kernel_log: false }
    }
}

/// Tells whether another agent has taken the instance over.
#[derive(Clone, Debug)]
pub struct Reign {
    pins: Pins,
    token: u32,
}

impl Reign {
    /// Another agent's programs are in force, of this ABI version or of another one. What cannot be read, or was
    /// removed, is nobody else's.
    pub fn is_over(&self) -> bool {
        links::current_token(&self.pins).is_ok_and(|token| token != self.token) || self.pins.is_other_active()
    }
}

/// The kernel side of one instance, owned by this agent.
pub struct Datapath {
    pins: Pins,
    /// Id of our own program at [`links::TOKEN`].
    token: u32,
    attached: Attached,
    maps: KernelMaps,
    state: State,
    pods: Pods,
    agents: HashMap<MapData, u64, u32>,
    counters: PerCpuArray<MapData, u64>,
    flows: Flows,
    meta: Arc<MetaMemory>,
    heartbeat: Heartbeat,
    kernel_log: Option<KernelLog>,
}

impl std::fmt::Debug for Datapath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Datapath")
            .field("pins", &self.pins)
            .field("attached", &self.attached)
            .field("heartbeat", &self.heartbeat)
            .finish_non_exhaustive()
    }
}

impl Datapath {
    /// Loads the programs, makes or adopts the maps, and puts the programs in force. From here on connects run them;
    /// with new maps they pass everything, with adopted ones they go on as before.
    ///
    /// # Errors
    /// See [`DatapathError`]. Nothing that was in force before is changed unless all programs could be loaded.
    pub fn open(config: &DatapathConfig) -> Result<Self, DatapathError> {
        let pins = Pins::new(&config.bpffs, &config.instance)?;
        let object = if config.kernel_log {
            object::debug().ok_or(DatapathError::NoDebugObject)?
        } else {
            object::normal().ok_or(DatapathError::NoObject)?
        };
        pins::ensure_bpffs(&config.bpffs)?;
        pins.create()?;
        let _lock = pins.lock()?;
        pins.check_maps()?;
        let mut ebpf = links::load(object, &pins)?;
        let meta = Arc::new(meta(&ebpf)?);
        check_stamp(&meta)?;
        meta.set_stamp(&config.instance);
        let heartbeat = Heartbeat::take(Arc::clone(&meta), monotonic_ns())?;
        let kernel_log = config.kernel_log.then(|| log::reader(&mut ebpf)).transpose()?;
        let maps = KernelMaps::new(
            typed(&mut ebpf, maps::SERVICES)?,
            &data(&mut ebpf, maps::SLOTS)?,
            typed(&mut ebpf, maps::BACKENDS)?,
            typed(&mut ebpf, maps::CONNS)?,
        )?;
        let state = maps.adopt()?;
        let pods = Pods::new(typed(&mut ebpf, maps::PODS)?)?;
        let flows = data(&mut ebpf, maps::FLOWS)?;
        let flows = flows.fd().as_fd().try_clone_to_owned().map_err(|error| DatapathError::Map {
            what: "open",
            map: maps::FLOWS,
            error,
        })?;
        let agents = typed(&mut ebpf, maps::AGENTS)?;
        let counters = typed(&mut ebpf, maps::COUNTERS)?;
        let (attached, token) = links::attach(&ebpf, &pins, &config.cgroup)?;
        pins.activate()?;
        tracing::info!(instance = %config.instance, cgroup = %config.cgroup.display(), ?attached, "datapath in force");
        Ok(Self {
            pins,
            token,
            attached,
            maps,
            state,
            pods,
            agents,
            counters,
            flows: Flows::new(flows),
            meta,
            heartbeat,
            kernel_log,
        })
    }

    /// What became of the links at [`Self::open`].
    pub fn attached(&self) -> Attached {
        self.attached
    }

    /// Lets this process's own connections pass: learns its cgroup from the kernel, or from the file system when it
    /// is outside of the cgroup that is steered. Returns the id. Call it after [`Hierarchy::ensure_own`].
    ///
    /// # Errors
    /// When that is the root cgroup, in which every process would count as the agent.
    pub fn register_agent(&mut self) -> Result<u64, DatapathError> {
        let _lock = self.exclusive()?;
        let probed = agents::probe(&self.meta).map_err(DatapathError::io("ask for the cgroup by", "a socket"))?;
        let tree = Hierarchy::find()?;
        let own = if let Some(id) = probed {
            id
        } else {
            let path = tree.of_process(std::process::id())?;
            cgroup::id_of(&path).map_err(DatapathError::io("look at", &path))?
        };
        if cgroup::is_root_id(own) {
            let error = std::io::ErrorKind::InvalidInput.into();
            let path = tree.mount().to_owned();
            return Err(cgroup::CgroupError::CannotLeaveRoot { path, error }.into());
        }
        agents::register(&mut self.agents, &self.meta, self.heartbeat.agent(), own, monotonic_ns())?;
        Ok(own)
    }

    /// Says that this agent is alive at `now_ns` ([`monotonic_ns`]).
    pub fn beat(&self, now_ns: u64) {
        self.heartbeat.beat(now_ns);
    }

    /// The sign of life for a thread of its own.
    pub fn heartbeat_handle(&self) -> Heartbeat {
        self.heartbeat.clone()
    }

    /// Brings the maps to what `plan` says of services. Unchanged ones cost no system call; one that does not fit
    /// keeps its old entry and is in the report.
    ///
    /// # Errors
    /// When another agent has taken over, or holds the lock. Nothing is written then.
    pub fn apply(&mut self, plan: &KernelPlan, now: Instant) -> Result<ApplyReport, DatapathError> {
        let _lock = self.exclusive()?;
        Ok(apply::apply(&mut self.state, &mut self.maps, plan, now))
    }

    /// Enrols a pod, or changes its entry. Its listeners are vouched for by this agent's heartbeat.
    ///
    /// # Errors
    /// When the namespace is the node's own, the cgroup is not there, the map is full, or another agent took over.
    pub fn pod_set(&mut self, pod: &PodEntry) -> Result<(), DatapathError> {
        let _lock = self.exclusive()?;
        self.pods.set(pod, self.heartbeat.agent())
    }

    /// Lets a pod go; one that is not enrolled is no error.
    pub fn pod_remove(&mut self, cookie: u64) -> Result<(), DatapathError> {
        let _lock = self.exclusive()?;
        self.pods.remove(cookie)
    }

    /// The enrolled pods by the cookies of their network namespaces, a former agent's included.
    pub fn pods(&self) -> Result<Vec<(u64, Pod)>, DatapathError> {
        self.pods.all()
    }

    /// Where steered connections were going.
    pub fn flows(&self) -> Flows {
        self.flows.clone()
    }

    /// The programs' counters by name.
    pub fn counters(&self) -> Result<BTreeMap<&'static str, u64>, DatapathError> {
        counters::read(&self.counters)
    }

    /// The counters of each service port of the last plan.
    pub fn service_counters(&self) -> Result<BTreeMap<Arc<str>, ServiceCounters>, DatapathError> {
        self.state.indexes.names().map(|(index, name)| Ok((Arc::clone(name), self.maps.counters(index)?))).collect()
    }

    /// The reader of the programs' log, once, when [`DatapathConfig::kernel_log`] was set.
    pub fn kernel_log(&mut self) -> Option<KernelLog> {
        self.kernel_log.take()
    }

    /// Whether this agent is still the instance's, to be asked without holding the datapath.
    pub fn reign(&self) -> Reign {
        Reign { pins: self.pins.clone(), token: self.token }
    }

    /// Removes everything that the instance has in the kernel, as [`uninstall`] does.
    ///
    /// # Errors
    /// When another agent has taken over, to whom it belongs then, or when a pin cannot be removed.
    pub fn remove(&self) -> Result<(), DatapathError> {
        let lock = self.exclusive()?;
        pins::remove(&self.pins, &lock)
    }

    /// The right to write, which ends with this agent's reign over the instance.
    fn exclusive(&self) -> Result<Lock, DatapathError> {
        let lock = self.pins.lock();
        match links::current_token(&self.pins) {
            Ok(token) if token == self.token => lock,
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(DatapathError::io("look at", self.pins.link(links::TOKEN))(error))
            }
            _ => Err(DatapathError::Superseded),
        }
    }
}

fn meta(ebpf: &Ebpf) -> Result<MetaMemory, DatapathError> {
    let Some(Map::Array(data)) = ebpf.map(maps::META) else { return Err(missing(maps::META)) };
    MetaMemory::new(data.fd().as_fd()).map_err(|error| DatapathError::Map { what: "map", map: maps::META, error })
}

fn check_stamp(meta: &MetaMemory) -> Result<(), DatapathError> {
    let (found, ours) = (meta.stamp(), (weir_ebpf::ABI_VERSION, maps::abi_hash()));
    if found == (0, 0) || found == ours {
        return Ok(());
    }
    let difference = format!("version {} hash {:#x} instead of {} {:#x}", found.0, found.1, ours.0, ours.1);
    Err(DatapathError::AbiMismatch { map: maps::META, difference })
}

fn missing(name: &str) -> DatapathError {
    DatapathError::BadObject(format!("map {name} is missing, or of another type"))
}

fn typed<T: TryFrom<Map>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, DatapathError> {
    ebpf.take_map(name).and_then(|map| T::try_from(map).ok()).ok_or_else(|| missing(name))
}

fn data(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, DatapathError> {
    match ebpf.take_map(name) {
        Some(Map::Array(data) | Map::LruHashMap(data)) => Ok(data),
        _ => Err(missing(name)),
    }
}
