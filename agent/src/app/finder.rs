//! Where the pods of this node are: network namespace, cgroup and addresses, by their sandbox, or by their annotations
//! where the source may name paths. Called by `enrol` for every pod that is to take part.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use weir_mesh::plan::EnrolledPod;

use crate::cgroup::{self, CgroupError, Hierarchy, OwnCgroup};
use crate::datapath::PodCgroup;
use crate::netns::NetNs;
use crate::sandbox::{Sandbox, Sandboxes, State};

/// A pod that has addresses has a sandbox somewhere: not having found it by now is a fault, and said.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// A network namespace that may not be open yet.
#[derive(Clone, Debug)]
pub(super) enum Namespace {
    /// By its path.
    At(Arc<str>),
    /// A sandbox's.
    Open(NetNs),
}

impl Namespace {
    pub(super) fn open(&self) -> Result<NetNs> {
        match self {
            Self::At(path) => NetNs::open(&**path).with_context(|| self.to_string()),
            Self::Open(netns) => Ok(netns.clone()),
        }
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(path) => write!(f, "network namespace {path}"),
            Self::Open(netns) => write!(f, "network namespace with cookie {}", netns.cookie()),
        }
    }
}

/// Where a pod is.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) netns: Namespace,
    /// Device and inode of the namespace: a sandbox that was made anew has others at the same path.
    pub(super) netns_id: (u64, u64),
    pub(super) cgroup: PodCgroup,
    pub(super) addresses: Vec<IpAddr>,
}

impl PartialEq for Place {
    fn eq(&self, other: &Self) -> bool {
        (self.netns_id, &self.cgroup, &self.addresses) == (other.netns_id, &other.cgroup, &other.addresses)
    }
}

/// What is known of where the wanted pods are. One that is nowhere in it is not on this node any more, or refused.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Of those that are there.
    pub(super) at: BTreeMap<Arc<str>, Place>,
    /// Those that could not be looked at: they are where they were.
    pub(super) unclear: BTreeSet<Arc<str>>,
    /// The ids of the cgroups of those that are still to come, so that another agent's entry may be theirs.
    pub(super) to_come: Vec<u64>,
    /// The same of those that could not be looked at.
    pub(super) held: Vec<u64>,
    /// Such a one may have any cgroup.
    pub(super) hidden: bool,
    /// Why others cannot take part as they are.
    pub(super) refused: BTreeMap<Arc<str>, String>,
    /// What is wrong, one line each; those that are refused are among it.
    pub(super) problems: Vec<String>,
}

/// Where one pod is.
enum Found {
    At(Place),
    /// Not there, or not ready to be enrolled.
    Nowhere,
    /// It cannot take part as it is.
    Refused(String),
    /// It should be there, and is not, or not where it may be.
    Faulty(anyhow::Error),
    /// It cannot be looked at now.
    Unclear(anyhow::Error),
}

/// Finds pods.
#[derive(Debug)]
pub(super) struct Finder {
    own: OwnCgroup,
    hierarchy: Hierarchy,
    sandboxes: Sandboxes,
    trusted: bool,
}

impl Finder {
    /// `trusted`: the annotations `weir.mesh/netns` and `weir.mesh/cgroup` say where a pod is. Only where the source is
    /// the operator's: the author of a pod must not choose which namespace the agent enters.
    pub(super) fn new(own: OwnCgroup, hierarchy: Hierarchy, sandboxes: Sandboxes, trusted: bool) -> Self {
        Self { own, hierarchy, sandboxes, trusted }
    }

    /// Looks where the wanted pods are.
    pub(super) fn find(&self, wanted: &BTreeMap<Arc<str>, EnrolledPod>, now: Instant) -> Places {
        let by_uid = wanted.values().filter(|pod| self.annotated(pod).is_none() && !pod.uid.is_empty());
        let uids: BTreeSet<Arc<str>> = by_uid.map(|pod| Arc::clone(&pod.uid)).collect();
        self.sandboxes.want(&uids);
        let mut places = Places::default();
        if !uids.is_empty() && !self.sandboxes.has_kubepods() {
            places.problems.push(
                "no kubepods cgroup of this node is there, so that its pods cannot be found: is the host's cgroup tree \
                 mounted (--cgroup-root)?"
                    .to_owned(),
            );
        }
        for (name, pod) in wanted {
            // Said while it lasts and some time after, so that what comes and goes is one line of the log.
            if let Some((why, _)) = self.sandboxes.fault(&pod.uid) {
                places.problems.push(format!("pod {name} stays as it is while it cannot be looked at: {why}"));
            }
            let found = match self.annotated(pod) {
                Some(path) => self.at(path, pod),
                None => self.by_uid(pod, now),
            };
            match found {
                Found::At(place) => drop(places.at.insert(Arc::clone(name), place)),
                Found::Nowhere => places.to_come.extend(self.cgroup_ids(pod).0),
                Found::Refused(reason) => {
                    places.problems.push(format!("pod {name} is not enrolled: {reason}"));
                    places.refused.insert(Arc::clone(name), reason);
                }
                Found::Faulty(error) => places.problems.push(format!("pod {name} is not enrolled: {error:#}")),
                Found::Unclear(error) => {
                    let (ids, all) = self.cgroup_ids(pod);
                    places.held.extend(ids);
                    places.hidden |= !all;
                    places.unclear.insert(Arc::clone(name));
                    let line = format!("pod {name} stays as it is while it cannot be looked at: {error:#}");
                    if !places.problems.contains(&line) {
                        places.problems.push(line);
                    }
                }
            }
        }
        places
    }

    /// What the kernel's entry of a pod may have for its cgroup; false = and others. Zero, which is none, may be anybody's.
    fn cgroup_ids(&self, pod: &EnrolledPod) -> (Vec<u64>, bool) {
        let cgroups = match self.annotated(pod) {
            // Without a cgroup it is enrolled by its namespace alone.
            Some(_) => pod.cgroup.as_deref().map(PathBuf::from).into_iter().collect(),
            None => self.sandboxes.cgroups(&pod.uid),
        };
        let (mut ids, mut all) = (vec![0], self.annotated(pod).is_some() || !cgroups.is_empty());
        for path in cgroups {
            match cgroup::id_of(&path) {
                Ok(id) => ids.push(id),
                Err(error) => all &= error.kind() == std::io::ErrorKind::NotFound,
            }
        }
        (ids, all)
    }

    fn annotated<'a>(&self, pod: &'a EnrolledPod) -> Option<&'a Arc<str>> {
        pod.netns.as_ref().filter(|_| self.trusted)
    }

    fn at(&self, path: &Arc<str>, pod: &EnrolledPod) -> Found {
        let meta = match std::fs::metadata(&**path).with_context(|| format!("network namespace {path} is not there")) {
            Ok(meta) => meta,
            Err(error) => return faulty(error),
        };
        let cgroup = match pod.cgroup.as_deref() {
            None => PodCgroup::Unchecked,
            Some(path) => match self.checked(Path::new(path)).with_context(|| format!("cgroup {path}")) {
                Ok(cgroup) => cgroup,
                Err(error) => return faulty(error),
            },
        };
        Found::At(Place {
            netns: Namespace::At(Arc::clone(path)),
            netns_id: (meta.dev(), meta.ino()),
            cgroup,
            addresses: pod.addresses.clone(),
        })
    }

    fn by_uid(&self, pod: &EnrolledPod, now: Instant) -> Found {
        let state = self.sandboxes.state(&pod.uid);
        let fault = self.sandboxes.fault(&pod.uid).filter(|(_, over)| !over);
        match state {
            None => Found::Faulty(anyhow!("it has neither a uid nor a weir.mesh/netns annotation")),
            Some(State::Absent { .. } | State::Starting) if let Some((why, _)) = fault => Found::Unclear(anyhow!(why)),
            Some(State::Absent { since })
                if !pod.addresses.is_empty() && now.saturating_duration_since(since) > FOUND_WITHIN =>
            {
                Found::Faulty(anyhow!("it has addresses, and no process of it is in a cgroup of this node"))
            }
            Some(State::Starting | State::Absent { .. }) => Found::Nowhere,
            Some(State::Refused(reason)) => Found::Refused(reason),
            Some(State::Ready(sandbox)) => self.in_sandbox(sandbox, pod),
        }
    }

    fn in_sandbox(&self, sandbox: Sandbox, pod: &EnrolledPod) -> Found {
        let addresses = addresses(&pod.addresses, &sandbox.addresses);
        if addresses.is_empty() {
            return Found::Nowhere;
        }
        let cgroup = match &sandbox.cgroup {
            None => PodCgroup::Unchecked,
            Some(path) => match (path.try_exists(), self.checked(path)) {
                // The pod has ended since.
                (Ok(false), _) => return Found::Nowhere,
                (_, Ok(cgroup)) => cgroup,
                (_, Err(error)) => return faulty(error.context(format!("cgroup {}", path.display()))),
            },
        };
        Found::At(Place { netns: Namespace::Open(sandbox.netns), netns_id: sandbox.netns_id, cgroup, addresses })
    }

    fn checked(&self, path: &Path) -> Result<PodCgroup> {
        let id = cgroup::id_of(path)?;
        ensure!(!cgroup::is_root_id(id), "it is the root of the cgroup tree, which holds more than the pod");
        ensure!(
            !self.own.path.starts_with(path.canonicalize()?),
            "it holds this agent, whose own connections would be taken for the pod's"
        );
        match self.hierarchy.level_of(path) {
            Ok(level) => Ok(PodCgroup::Id { id, level }),
            // The hook asks for the ancestor at a level; without it the namespace alone must do.
            Err(CgroupError::LevelUnknown { .. }) => Ok(PodCgroup::Unchecked),
            Err(error) => Err(error.into()),
        }
    }
}

/// What is not there, or must not be, is a fault; what cannot be read may be in order.
fn faulty(error: anyhow::Error) -> Found {
    let passing = error.chain().find_map(|cause| match cause.downcast_ref::<CgroupError>() {
        Some(CgroupError::Io { error, .. }) => Some(error),
        _ => cause.downcast_ref::<std::io::Error>(),
    });
    match passing {
        Some(cause) if cause.kind() != std::io::ErrorKind::NotFound => Found::Unclear(error),
        _ => Found::Faulty(error),
    }
}

/// Those that are in the namespace, in the order of the API server's where it has told them: the pod's first address of
/// each family is the one that others know. Before the CNI has set any, what the API server says.
fn addresses(told: &[IpAddr], inside: &[IpAddr]) -> Vec<IpAddr> {
    if inside.is_empty() {
        return told.to_vec();
    }
    let known = told.iter().filter(|address| inside.contains(address));
    known.chain(inside.iter().filter(|address| !told.contains(address))).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_addresses_inside_count_in_the_order_that_others_know() {
        let list = |text: &str| text.split_whitespace().map(|a| a.parse().unwrap()).collect::<Vec<IpAddr>>();
        for (told, inside, expected) in [
            ("", "", ""),
            ("10.0.0.1", "", "10.0.0.1"),
            ("", "10.0.0.1 fd00::1", "10.0.0.1 fd00::1"),
            ("fd00::1 10.0.0.1", "10.0.0.1 192.168.0.1 fd00::1", "fd00::1 10.0.0.1 192.168.0.1"),
            ("10.0.0.9", "10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(addresses(&list(told), &list(inside)), list(expected), "{told} / {inside}");
        }
    }
}
