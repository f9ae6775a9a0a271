//! The maps as the programs declare them. Their shapes are those of [`weir_ebpf::maps::ALL`]; `cargo xtask build-ebpf`
//! compares the built object with it.

use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, SkStorage};
use aya_ebpf::macros::btf_map;
use weir_ebpf::maps::{AGENTS_MAX, BACKENDS_MAX, CONNS_MAX, FLOWS_MAX, PODS_MAX, SERVICES_MAX, SLOTS_MAX, flag};
use weir_ebpf::{
    Backend, Counter, FlowKey, Health, Meta, OriginalDestination, Pod, Service, ServiceCounters, ServiceKey,
};

const NO_PREALLOC: usize = flag::NO_PREALLOC as usize;
const MMAPABLE: usize = flag::MMAPABLE as usize;

#[btf_map(name = "weir_pods")]
pub(crate) static PODS: HashMap<u64, Pod, PODS_MAX, NO_PREALLOC> = HashMap::new();

#[btf_map(name = "weir_services")]
pub(crate) static SERVICES: HashMap<ServiceKey, Service, SERVICES_MAX, NO_PREALLOC> = HashMap::new();

#[btf_map(name = "weir_slots")]
pub(crate) static SLOTS: Array<u32, SLOTS_MAX, MMAPABLE> = Array::new();

#[btf_map(name = "weir_backends")]
pub(crate) static BACKENDS: Array<Backend, BACKENDS_MAX, MMAPABLE> = Array::new();

#[btf_map(name = "weir_health")]
pub(crate) static HEALTH: Array<Health, BACKENDS_MAX, MMAPABLE> = Array::new();

#[btf_map(name = "weir_origdst")]
pub(crate) static ORIGDST: SkStorage<OriginalDestination> = SkStorage::new();

#[btf_map(name = "weir_flows")]
pub(crate) static FLOWS: LruHashMap<FlowKey, OriginalDestination, FLOWS_MAX> = LruHashMap::new();

#[btf_map(name = "weir_agents")]
pub(crate) static AGENTS: HashMap<u64, u32, AGENTS_MAX> = HashMap::new();

#[btf_map(name = "weir_counters")]
pub(crate) static COUNTERS: PerCpuArray<u64, { Counter::Count as usize }> = PerCpuArray::new();

#[btf_map(name = "weir_conns")]
pub(crate) static CONNS: PerCpuHashMap<u32, ServiceCounters, CONNS_MAX, NO_PREALLOC> = PerCpuHashMap::new();

#[btf_map(name = "weir_meta")]
pub(crate) static META: Array<Meta, 1, MMAPABLE> = Array::new();
