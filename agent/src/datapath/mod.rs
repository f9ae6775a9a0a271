//! The agent's side of the kernel programs: loads and attaches them, or adopts what a former agent left pinned; carries
//! out plans; keeps pods, agents and heartbeats; tells where a steered connection was going. Used by `app`.
//!
//! What is pinned outlives this process. Taking over adopts it without a moment without a hook, and removes nothing
//! before the first plan. Two agents of an instance may be alive during an upgrade: the last one to take over owns the
//! maps, and the other one's writes fail with [`DatapathError::Superseded`]. It keeps its programs, and takes over again
//! when its successor dies (`reign`).

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use weir_ebpf::{Pod, ServiceCounters, maps};
use weir_mesh::plan::{KernelPlan, PlanKey, PlannedService};

use crate::cgroup::{self, Hierarchy};

mod address;
mod agents;
mod apply;
mod backends;
mod counters;
mod error;
mod flows;
mod health;
mod indexes;
mod kernel;
mod links;
mod log;
mod memory;
pub mod object;
mod pins;
mod pods;
mod reign;
mod slots;
mod state;
mod sys;

pub use agents::{Heartbeat, monotonic_ns};
pub use apply::{ApplyReport, ServiceError, ServiceFault};
pub use error::DatapathError;
pub use flows::Flows;
pub use health::{Ejected, HealthTable};
pub use links::Attached;
pub use log::KernelLog;
pub use pins::{DEFAULT_INSTANCE, ensure_bpffs, uninstall};
pub use pods::{PodCgroup, PodEntry};
pub use reign::{Reign, Standing};
pub use slots::REUSE_GRACE;

use kernel::KernelMaps;
use links::Programs;
use memory::{BackendMemory, HealthMemory, MetaMemory};
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

/// The kernel side of one instance, as this agent holds it.
pub struct Datapath {
    config: DatapathConfig,
    pins: Pins,
    reign: Reign,
    programs: Programs,
    attached: Attached,
    maps: KernelMaps,
    state: State,
    pods: Pods,
    agents: HashMap<MapData, u64, u32>,
    counters: PerCpuArray<MapData, u64>,
    flows: Flows,
    health: HealthTable,
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
    /// [`Self::load`], [`Self::designate`] and [`Self::take_over`] at once.
    ///
    /// # Errors
    /// See [`DatapathError`]. Nothing that was in force before is changed unless all programs could be loaded.
    pub fn open(config: &DatapathConfig) -> Result<Self, DatapathError> {
        let mut datapath = Self::load(config)?;
        datapath.designate()?;
        datapath.take_over()?;
        Ok(datapath)
    }

    /// Loads the programs, makes or opens the maps, and takes a heartbeat. Nothing that is in force changes, and nobody
    /// knows of this agent.
    ///
    /// # Errors
    /// See [`DatapathError`].
    pub fn load(config: &DatapathConfig) -> Result<Self, DatapathError> {
        let pins = Pins::new(&config.bpffs, &config.instance)?;
        let object = if config.kernel_log {
            object::debug().ok_or(DatapathError::NoDebugObject)?
        } else {
            object::normal().ok_or(DatapathError::NoObject)?
        };
        pins::ensure_bpffs(&config.bpffs)?;
        let _lock = pins.create()?;
        pins.check_maps()?;
        let mut ebpf = links::load(object, &pins)?;
        let meta = Arc::new(meta(&ebpf)?);
        check_stamp(&meta)?;
        meta.set_stamp(&config.instance);
        let since = monotonic_ns();
        let heartbeat = Heartbeat::take(Arc::clone(&meta), since)?;
        let kernel_log = config.kernel_log.then(|| log::reader(&mut ebpf)).transpose()?;
        let reign = Reign::new(pins.clone(), Arc::clone(&meta), heartbeat.agent(), since)?;
        let health = health(&mut ebpf, reign.clone())?;
        let maps = KernelMaps::new(
            typed(&mut ebpf, maps::SERVICES)?,
            &data(&mut ebpf, maps::SLOTS)?,
            typed(&mut ebpf, maps::BACKENDS)?,
            typed(&mut ebpf, maps::CONNS)?,
            health.clone(),
        )?;
        let pods = Pods::new(typed(&mut ebpf, maps::PODS)?)?;
        let flows = data(&mut ebpf, maps::FLOWS)?;
        let flows = flows.fd().as_fd().try_clone_to_owned().map_err(|error| DatapathError::Map {
            what: "open",
            map: maps::FLOWS,
            error,
        })?;
        let agents = typed(&mut ebpf, maps::AGENTS)?;
        let counters = typed(&mut ebpf, maps::COUNTERS)?;
        Ok(Self {
            config: config.clone(),
            pins,
            reign,
            programs: Programs::of(&ebpf)?,
            attached: Attached::default(),
            maps,
            state: State::new(),
            pods,
            agents,
            counters,
            flows: Flows::new(flows),
            health,
            meta,
            heartbeat,
            kernel_log,
        })
    }

    /// Names this agent as the one to be in charge: others of the instance let go of what two cannot have. From here on
    /// it must beat ([`Self::heartbeat_handle`]).
    ///
    /// # Errors
    /// [`DatapathError::Removed`] when the instance was removed since this agent has loaded: only another one can make it
    /// anew. When the lock cannot be had, or bpffs not be written.
    pub fn designate(&self) -> Result<(), DatapathError> {
        let lock = self.pins.lock()?;
        if !self.reign.has_own_maps()? {
            return Err(DatapathError::Removed);
        }
        self.reign.designate(&lock)
    }

    /// Puts the programs in force and adopts what the maps hold. From here on connects run them: with new maps they pass
    /// everything, with adopted ones they go on as before, and other agents of the instance write no more.
    ///
    /// # Errors
    /// [`DatapathError::Superseded`] when another agent is designated, or the instance was removed; see there for the
    /// rest. This agent is not in charge then, even if its programs are in force, and may try again.
    pub fn take_over(&mut self) -> Result<(), DatapathError> {
        let Some(_lock) = self.lock_as(Standing::Designated)? else { return Err(DatapathError::Superseded) };
        if !self.reign.has_own_maps()? {
            return Err(DatapathError::Superseded);
        }
        let cgroup = &self.config.cgroup;
        let (attached, token) = links::attach(&self.programs, &self.pins, cgroup)?;
        self.pins.activate()?;
        // After the last write of another agent, and before the first of ours.
        self.state = self.maps.adopt()?;
        self.attached = attached;
        self.reign.set_token(token);
        self.health.publish();
        tracing::info!(instance = %self.config.instance, cgroup = %cgroup.display(), ?attached, "kernel programs are in place");
        Ok(())
    }

    /// Designates this agent when the one that was is silent. False when that is not so (any more).
    ///
    /// # Errors
    /// As [`Self::designate`].
    pub fn succeed(&self) -> Result<bool, DatapathError> {
        let lock = self.lock_as(Standing::Orphaned)?;
        lock.map_or(Ok(false), |lock| self.reign.designate(&lock).map(|()| true))
    }

    /// The right to change the instance, if this agent stands so. What was removed has nothing to lock.
    fn lock_as(&self, standing: Standing) -> Result<Option<Lock>, DatapathError> {
        let stands = || Ok::<_, DatapathError>(self.reign.standing(monotonic_ns())? == standing);
        if !stands()? {
            return Ok(None);
        }
        let lock = self.pins.lock()?;
        Ok(stands()?.then_some(lock))
    }

    /// Says that this agent serves everything: its predecessor may end.
    ///
    /// # Errors
    /// When another agent has taken over, or bpffs cannot be written.
    pub fn prove(&self) -> Result<(), DatapathError> {
        let lock = self.exclusive()?;
        if self.reign.standing(monotonic_ns())? != Standing::Designated {
            return Err(DatapathError::Superseded);
        }
        self.reign.prove(&lock)
    }

    /// Removes what agents of other ABI versions have in the kernel: until this agent was proven they steered what its own
    /// programs did not know yet. What is removed already is no error, so that it can be repeated.
    ///
    /// # Errors
    /// As [`Self::prove`]. Then the hooks of others may still be attached, before which stale services come first.
    pub fn remove_former(&self) -> Result<(), DatapathError> {
        let lock = self.exclusive()?;
        pins::remove_former(&self.pins, &lock)
    }

    /// What became of the links when it last took over.
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

    /// Brings single entries of the plan in force to what they are now.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn change(
        &mut self,
        services: &[(PlanKey, Arc<PlannedService>)],
        now: Instant,
    ) -> Result<ApplyReport, DatapathError> {
        let _lock = self.exclusive()?;
        Ok(apply::change(&mut self.state, &mut self.maps, services, now))
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

    /// Which endpoints are ejected, as the kernel is told.
    pub fn health(&self) -> HealthTable {
        self.health.clone()
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

    /// Tells whose the instance is, to be asked without holding the datapath.
    pub fn reign(&self) -> Reign {
        self.reign.clone()
    }

    /// Removes everything that the instance has in the kernel, as [`uninstall`] does. False when another agent is
    /// designated, or is alive and may be next: then it is that one's. To be called when this agent beats no more.
    ///
    /// # Errors
    /// When it cannot be told whose it is, or a pin cannot be removed.
    pub fn remove(&self) -> Result<bool, DatapathError> {
        let Some(lock) = self.lock_as(Standing::Designated)? else { return Ok(false) };
        // Who loads takes a heartbeat under the lock, so that nobody comes in between: perhaps the one that was ours.
        if !agents::is_alone(&self.meta, None, monotonic_ns()) {
            return Ok(false);
        }
        pins::remove(&self.pins, &lock).map(|()| true)
    }

    /// The right to write, which ends with this agent's reign over the instance.
    fn exclusive(&self) -> Result<Lock, DatapathError> {
        let lock = self.pins.lock();
        if self.reign.is_in_charge()? { lock } else { Err(DatapathError::Superseded) }
    }
}

fn meta(ebpf: &Ebpf) -> Result<MetaMemory, DatapathError> {
    let Some(Map::Array(data)) = ebpf.map(maps::META) else { return Err(missing(maps::META)) };
    MetaMemory::new(data.fd().as_fd()).map_err(|error| DatapathError::Map { what: "map", map: maps::META, error })
}

/// Before [`KernelMaps`] takes the map of backends for itself.
fn health(ebpf: &mut Ebpf, reign: Reign) -> Result<HealthTable, DatapathError> {
    let fault = |map| move |error| DatapathError::Map { what: "map", map, error };
    let Some(Map::Array(backends)) = ebpf.map(maps::BACKENDS) else { return Err(missing(maps::BACKENDS)) };
    let backends = BackendMemory::new(backends.fd().as_fd()).map_err(fault(maps::BACKENDS))?;
    let health = data(ebpf, maps::HEALTH)?;
    let health = HealthMemory::new(health.fd().as_fd()).map_err(fault(maps::HEALTH))?;
    Ok(HealthTable::new(health, backends, reign))
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
