//! A worker's way from a request to its series: a look-up by the source pod, the destination of the program and the
//! endpoint, then by how it ended. What is found holds for one program, whose numbers change their meaning with the next.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;
use smallvec::SmallVec;
use weir_mesh::program::{ClusterId, PortId, Program, Workload};

use super::Registry;
use super::series::{Labels, Series, Service, Shard};
use crate::proxy::SourcePod;
use crate::proxy::error::Flags;
use crate::proxy::upstream::target::Target;

/// Pairs that a worker remembers; beyond, it forgets all of them, and each is looked up anew when it is met again. Some
/// 200 bytes each.
const MAX_EDGES: usize = 8192;

/// What is known of where a request goes, as long as that is not known whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Nothing yet.
    #[default]
    Unknown,
    /// To an address that no service has.
    Passthrough,
    /// To this port, and no further.
    Port(PortId),
    /// To one of this cluster's endpoints.
    Cluster(ClusterId),
    /// Likewise, or to an address that no service has, and nobody answered there: of that only this side tells.
    Unanswered(Option<ClusterId>),
}

impl Place {
    /// Where an endpoint was tried that gave no answer.
    pub(crate) fn unanswered(self) -> Self {
        match self {
            Self::Cluster(cluster) => Self::Unanswered(Some(cluster)),
            Self::Passthrough => Self::Unanswered(None),
            other => other,
        }
    }
}

impl From<&Target> for Place {
    fn from(target: &Target) -> Self {
        match target {
            Target::Cluster(_, cluster, _) | Target::Dialled(_, cluster, _) => Self::Cluster(*cluster),
            Target::Passthrough(_) => Self::Passthrough,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    pod: u64,
    place: Place,
    endpoint: Option<SocketAddr>,
    tcp: bool,
}

/// A source and a destination, with the series of what has come of it so far.
#[derive(Debug)]
pub(crate) struct Edge {
    /// Without the outcome.
    labels: Labels,
    outcomes: RefCell<SmallVec<[Outcome; 2]>>,
}

#[derive(Debug)]
struct Outcome {
    status: u16,
    flags: Flags,
    series: Arc<Series>,
    /// It is counted under its own labels.
    own: bool,
}

/// Those that a worker has met.
#[derive(Debug)]
pub(crate) struct Edges {
    registry: Arc<Registry>,
    worker: usize,
    known: RefCell<HashMap<Key, Rc<Edge>, RandomState>>,
    /// The program that they are of. Held by its address alone: the workers' tick drops them with the program.
    program: Cell<usize>,
}

impl Edges {
    pub(crate) fn new(registry: Arc<Registry>, worker: usize) -> Self {
        Self { registry, worker, known: RefCell::default(), program: Cell::new(0) }
    }

    /// Forgets everything, as pods or the program have changed.
    pub(crate) fn forget(&self) {
        self.known.borrow_mut().clear();
    }

    /// Forgets what was found in another program than this one. Must be called before that one's memory is used again.
    pub(crate) fn turn_to(&self, program: &Arc<Program>) {
        let address = Arc::as_ptr(program) as usize;
        if self.program.replace(address) != address {
            self.known.borrow_mut().clear();
        }
    }

    /// The pair of a pod and where its request went, of the program that the worker holds or of one before.
    pub(crate) fn edge(
        &self,
        program: &Arc<Program>,
        pod: &SourcePod,
        place: Place,
        endpoint: Option<SocketAddr>,
        tcp: bool,
    ) -> Rc<Edge> {
        let make = || Rc::new(self.make(program, pod, place, endpoint, tcp));
        if Arc::as_ptr(program) as usize != self.program.get() {
            // A long request may end under a later program.
            return make();
        }
        let key = Key { pod: pod.netns.cookie(), place, endpoint, tcp };
        let mut known = self.known.borrow_mut();
        if let Some(edge) = known.get(&key) {
            return Rc::clone(edge);
        }
        if known.len() >= MAX_EDGES {
            known.clear();
        }
        let edge = make();
        known.insert(key, Rc::clone(&edge));
        edge
    }

    fn make(&self, program: &Program, pod: &SourcePod, place: Place, endpoint: Option<SocketAddr>, tcp: bool) -> Edge {
        let service = match place {
            Place::Unknown => Service::Unknown,
            Place::Passthrough | Place::Unanswered(None) => Service::Passthrough,
            Place::Port(port) => Service::Host(Arc::clone(&program.port(port).host)),
            Place::Cluster(cluster) | Place::Unanswered(Some(cluster)) => {
                Service::Host(Arc::clone(&program.cluster(cluster).host))
            }
        };
        let address = endpoint.map(|endpoint| endpoint.ip().to_canonical());
        let destination = address.and_then(|address| program.pods.get(address));
        let labels = Labels {
            tcp,
            source: Arc::clone(&pod.identity().workload),
            destination: destination.map(|pod| Arc::new(Workload::of(pod))),
            service,
            both_sides: !matches!(place, Place::Unanswered(_))
                && address.is_some_and(|address| self.registry.is_served(address)),
            status: 0,
            flags: Flags::default(),
        };
        Edge { labels, outcomes: RefCell::default() }
    }

    /// Counts something under the series of an outcome. False when there were too many label sets for one of its own.
    pub(crate) fn count(&self, edge: &Edge, status: u16, flags: Flags, count: impl FnOnce(&Shard)) -> bool {
        let mut outcomes = edge.outcomes.borrow_mut();
        let known = outcomes.iter().position(|one| one.status == status && one.flags == flags);
        let at = known.unwrap_or_else(|| {
            let (series, own) = self.registry.series(Labels { status, flags, ..edge.labels.clone() });
            outcomes.push(Outcome { status, flags, series, own });
            outcomes.len() - 1
        });
        count(outcomes[at].series.shard(self.worker));
        outcomes[at].own
    }
}
