//! The maps of `apply` as the kernel has them, and what is read from them when a former agent's are adopted.

use std::io;

use aya::maps::{Array, HashMap, MapData, PerCpuHashMap, PerCpuValues};
use aya::util::nr_cpus;
use weir_ebpf::{Backend, Service, ServiceCounters, ServiceKey, maps};

use super::error::{DatapathError, map_errno};
use super::health::HealthTable;
use super::memory::SlotMemory;
use super::state::{Adopted, Maps, State};

/// `BPF_NOEXIST`: counters that are there go on counting.
const BPF_NOEXIST: u64 = 1;

/// `weir_services` and what belongs to it.
pub(super) struct KernelMaps {
    services: HashMap<MapData, ServiceKey, Service>,
    slots: SlotMemory,
    backends: Array<MapData, Backend>,
    counters: PerCpuHashMap<MapData, u32, ServiceCounters>,
    health: HealthTable,
}

impl KernelMaps {
    pub(super) fn new(
        services: HashMap<MapData, ServiceKey, Service>,
        slots: &MapData,
        backends: Array<MapData, Backend>,
        counters: PerCpuHashMap<MapData, u32, ServiceCounters>,
        health: HealthTable,
    ) -> Result<Self, DatapathError> {
        use std::os::fd::AsFd;
        let slots = SlotMemory::new(slots.fd().as_fd()).map_err(|error| DatapathError::Map {
            what: "map",
            map: maps::SLOTS,
            error,
        })?;
        Ok(Self { services, slots, backends, counters, health })
    }

    /// Reads what is there.
    pub(super) fn adopt(&self) -> Result<State, DatapathError> {
        let services: Result<Vec<_>, _> = self.services.iter().collect();
        let counters: Result<Vec<_>, _> = self.counters.keys().collect();
        let adopted = Adopted {
            services: services.map_err(DatapathError::map("read", maps::SERVICES))?,
            counters: counters.map_err(DatapathError::map("read", maps::CONNS))?,
        };
        Ok(State::adopt(adopted, |at| self.slots.get(at), |index| self.backends.get(&index, 0).ok()))
    }

    /// The counters of a service index, over all CPUs; zero when it has none.
    pub(super) fn counters(&self, index: u32) -> Result<ServiceCounters, DatapathError> {
        use aya::maps::MapError;
        match self.counters.get(&index, 0) {
            Ok(values) => Ok(values.iter().fold(ServiceCounters::default(), |sum, one| ServiceCounters {
                balanced: sum.balanced + one.balanced,
                proxied: sum.proxied + one.proxied,
                fallback: sum.fallback + one.fallback,
                rejected: sum.rejected + one.rejected,
            })),
            Err(MapError::KeyNotFound) => Ok(ServiceCounters::default()),
            Err(error) => Err(DatapathError::map("read", maps::CONNS)(error)),
        }
    }
}

/// Deleting what is not there is what was wanted.
fn gone(result: Result<(), aya::maps::MapError>) -> io::Result<()> {
    match result.map_err(map_errno) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Maps for KernelMaps {
    fn set_backend(&mut self, index: u32, value: &Backend) -> io::Result<()> {
        self.backends.set(index, value, 0).map_err(map_errno)?;
        // No slot names a fresh index yet.
        self.health.named(index, value);
        Ok(())
    }

    fn write_slots(&mut self, offset: u32, slots: &[u32]) {
        self.slots.write(offset, slots);
    }

    fn slot(&self, at: u32) -> u32 {
        self.slots.get(at)
    }

    fn set_service(&mut self, key: &ServiceKey, value: &Service) -> io::Result<()> {
        self.services.insert(key, value, 0).map_err(map_errno)
    }

    fn remove_service(&mut self, key: &ServiceKey) -> io::Result<()> {
        gone(self.services.remove(key))
    }

    fn add_counters(&mut self, index: u32) -> io::Result<()> {
        let cpus = nr_cpus().map_err(|(_, error)| error)?;
        let zero = PerCpuValues::try_from(vec![ServiceCounters::default(); cpus])?;
        match self.counters.insert(index, zero, BPF_NOEXIST).map_err(map_errno) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    fn remove_counters(&mut self, index: u32) -> io::Result<()> {
        gone(self.counters.remove(&index))
    }
}
