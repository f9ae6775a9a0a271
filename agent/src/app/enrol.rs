//! Which pods of this node take part: opens their listeners, tells the kernel and the proxy, and lets them go again.
//! Called by `apply` after each change, and every 250 ms (a namespace can vanish without a change of any manifest).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use arc_swap::ArcSwap;
use weir_mesh::finding::{Finding, Severity, code};
use weir_mesh::plan::EnrolledPod;
use weir_mesh::source::ObjectRef;

use super::finder::{Finder, Place};
use super::listeners;
use crate::datapath::{Datapath, PodCgroup, PodEntry};
use crate::netns::NetNs;
use crate::proxy::{Identity, Proxy, SourcePod};

/// A refusal that stands for this long is told of: what a pod looks like while it starts or ends is not.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// A released pod's listeners stay open this long: a connect that was steered just before is still accepted.
const RELEASE_LINGER: Duration = Duration::from_millis(500);
/// An agent that takes over finds every pod that is there within this; what another one left behind for pods that are
/// nowhere by then is nobody's. Those that it has found and cannot look at, or cannot enrol, keep it.
const SWEPT_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks until then: a pod that starts meanwhile does not wait for a whole map to be read.
const SWEEP_AGAIN: Duration = Duration::from_secs(1);

/// A pod that takes part.
#[derive(Clone, Debug)]
pub(super) struct Enrolled {
    pub(super) cookie: u64,
    index: u32,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) port4: u16,
    pub(super) port6: u16,
    wanted: EnrolledPod,
    source: Arc<SourcePod>,
    place: Place,
}

/// The pods of this node, as they are in force.
#[derive(Debug)]
pub(super) struct Pods {
    home: NetNs,
    finder: Finder,
    workers: usize,
    next_index: u32,
    enrolled: BTreeMap<Arc<str>, Enrolled>,
    /// Pods that the kernel steers no more and whose listeners are still open, with the time of their release.
    releasing: Vec<(Instant, Arc<str>, Enrolled)>,
    /// Pods that cannot take part as they are: since when, and why.
    refused: BTreeMap<Arc<str>, (Instant, String)>,
    /// Counts the changes of `enrolled`.
    revision: u64,
    /// When to look next for what another agent left behind, and until when that may be of a pod that is to come. `None`
    /// before this agent has taken over, too.
    unswept: Option<(Instant, Instant)>,
    /// The entries in the kernel may be another agent's: each is to be written again.
    foreign: bool,
}

impl Pods {
    pub(super) fn new(home: NetNs, finder: Finder, workers: usize) -> Self {
        Self {
            home,
            finder,
            workers,
            next_index: 0,
            enrolled: BTreeMap::new(),
            releasing: Vec::new(),
            refused: BTreeMap::new(),
            revision: 0,
            unswept: None,
            foreign: false,
        }
    }

    /// This agent takes over at `now`, and another one may have written before: the next pass writes every entry again,
    /// with this agent's listeners.
    pub(super) fn reassert(&mut self, now: Instant) {
        self.foreign = true;
        self.unswept = Some((now, now + SWEPT_WITHIN));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Enrolled)> {
        self.enrolled.iter()
    }

    /// Wanted pods that have been refused for so long that it is no passing state.
    pub(super) fn refusals(&self, wanted: &BTreeMap<Arc<str>, EnrolledPod>, now: Instant) -> Vec<Finding> {
        let stand = self.refused.iter().filter(|(_, (since, _))| now.saturating_duration_since(*since) >= REFUSED_FOR);
        stand.filter_map(|(name, (_, reason))| Some(refusal(wanted.get(name)?, reason))).collect()
    }

    /// Differs whenever [`Pods::iter`] may.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Makes what is in force what is wanted; returns what could not be done, one line a pod.
    pub(super) fn reconcile(
        &mut self,
        wanted: &BTreeMap<Arc<str>, EnrolledPod>,
        datapath: &mut Datapath,
        proxy: &Proxy,
        now: Instant,
    ) -> Vec<String> {
        let found = self.finder.find(wanted, now);
        self.refused = still_refused(&self.refused, found.refused, now);
        let (mut places, mut held, mut problems) = (found.at, found.held, found.problems);
        for name in &found.unclear {
            if let Some(pod) = self.enrolled.get(name) {
                places.insert(Arc::clone(name), pod.place.clone());
            }
        }
        let foreign = std::mem::take(&mut self.foreign);
        let stale: Vec<Arc<str>> = self
            .enrolled
            .iter()
            .filter(|(name, pod)| {
                foreign || wanted.get(*name) != Some(&pod.wanted) || places.get(*name) != Some(&pod.place)
            })
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in stale {
            let Some(mut pod) = self.enrolled.remove(&name) else { continue };
            self.revision += 1;
            match (wanted.get(&name), places.get(&name)) {
                // The same namespace: its entry is overwritten, so that no connect passes in between.
                (Some(wanted), Some(place)) if place.netns_id == pod.place.netns_id => {
                    if let Err(error) = update(wanted, place, &mut pod, datapath, proxy) {
                        problems.push(format!("pod {name} keeps its former place: {error:#}"));
                        self.foreign |= foreign;
                    }
                    self.enrolled.insert(name, pod);
                }
                _ => self.release(name, pod, datapath, now, &mut problems),
            }
        }
        for (name, pod) in wanted {
            if self.enrolled.contains_key(name) {
                continue;
            }
            let Some(place) = places.remove(name) else { continue };
            let cgroup = place.cgroup.id();
            match self.enrol(name, pod, place, datapath, proxy) {
                Ok(enrolled) => {
                    let (cookie, port) = (enrolled.cookie, enrolled.port4);
                    if enrolled.place.cgroup == PodCgroup::Unchecked {
                        let why = "its cgroup cannot be told from within this part of the tree: all in its namespace count as the pod";
                        tracing::info!(pod = %name, cookie, port, %why, "enrolled");
                    } else {
                        tracing::info!(pod = %name, cookie, port, "enrolled");
                    }
                    self.enrolled.insert(Arc::clone(name), enrolled);
                    self.revision += 1;
                }
                Err(error) => {
                    held.push(cgroup);
                    problems.push(format!("pod {name} is not enrolled: {error:#}"));
                }
            }
        }
        if let Some((next, until)) = self.unswept
            && now >= next
        {
            if now < until {
                held.extend(found.to_come);
            }
            if !found.hidden {
                self.sweep(datapath, &held, &mut problems);
            }
            self.unswept = (found.hidden || !held.is_empty()).then_some((now + SWEEP_AGAIN, until));
        }
        self.close_released(proxy, now);
        problems
    }

    /// Closes the listeners whose time is over.
    pub(super) fn close_released(&mut self, proxy: &Proxy, now: Instant) {
        self.releasing.retain(|(since, _, pod)| {
            let wait = now.duration_since(*since) < RELEASE_LINGER;
            if !wait {
                proxy.remove_pod(pod.cookie);
            }
            wait
        });
    }

    fn enrol(
        &mut self,
        name: &Arc<str>,
        pod: &EnrolledPod,
        place: Place,
        datapath: &mut Datapath,
        proxy: &Proxy,
    ) -> Result<Enrolled> {
        let netns = place.netns.open()?;
        ensure!(
            netns.cookie() != self.home.cookie(),
            "{} is the node's own network namespace: host-network pods cannot take part",
            place.netns
        );
        ensure!(
            self.enrolled.values().all(|other| other.cookie != netns.cookie()),
            "{} belongs to another pod that is enrolled already",
            place.netns
        );
        let cookie = netns.cookie();
        if let Some(at) = self.releasing.iter().position(|(_, _, releasing)| releasing.cookie == cookie) {
            let (since, former, mut back) = self.releasing.swap_remove(at);
            // Closing its listeners would reset the connections that wait in them: it keeps them.
            if former == *name && back.source.namespace == pod.namespace {
                return match update(pod, &place, &mut back, datapath, proxy) {
                    Ok(()) => Ok(back),
                    Err(error) => {
                        self.releasing.push((since, former, back));
                        Err(error)
                    }
                };
            }
            proxy.remove_pod(cookie);
        }
        let listeners = listeners::open(&netns, self.workers).context("cannot listen inside the pod")?;
        let source = Arc::new(SourcePod {
            name: Arc::clone(name),
            namespace: Arc::clone(&pod.namespace),
            view: pod.view.into(),
            netns,
            identity: ArcSwap::from_pointee(identity(pod, &place)),
        });
        let enrolled = Enrolled {
            cookie,
            index: self.next_index,
            addresses: place.addresses.clone(),
            port4: listeners.port4,
            port6: listeners.port6,
            wanted: pod.clone(),
            source: Arc::clone(&source),
            place,
        };
        proxy.add_pod(&source, listeners.by_worker);
        if let Err(error) = datapath.pod_set(&enrolled.entry()) {
            proxy.remove_pod(cookie);
            return Err(error.into());
        }
        self.next_index += 1;
        Ok(enrolled)
    }

    fn release(
        &mut self,
        name: Arc<str>,
        pod: Enrolled,
        datapath: &mut Datapath,
        now: Instant,
        problems: &mut Vec<String>,
    ) {
        match datapath.pod_remove(pod.cookie) {
            Ok(()) => {
                tracing::info!(pod = %name, cookie = pod.cookie, "released");
                self.releasing.push((now, name, pod));
            }
            // Still steered: it stays known, so that the next pass tries again.
            Err(error) => {
                problems.push(format!("pod {name} cannot be released: {error:#}"));
                self.enrolled.insert(name, pod);
            }
        }
    }

    /// Removes another agent's entries of pods that take part no more. Those in the cgroups `held` may be of pods that do,
    /// and stay.
    fn sweep(&self, datapath: &mut Datapath, held: &[u64], problems: &mut Vec<String>) {
        let known = match datapath.pods() {
            Ok(known) => known,
            Err(error) => {
                problems.push(format!("pods of a former agent: {error:#}"));
                return;
            }
        };
        let stale: Vec<u64> = known
            .into_iter()
            .filter(|(_, entry)| !held.contains(&entry.cgroup_id))
            .map(|(cookie, _)| cookie)
            .filter(|cookie| self.enrolled.values().all(|pod| pod.cookie != *cookie))
            .collect();
        for cookie in stale {
            if let Err(error) = datapath.pod_remove(cookie) {
                problems.push(format!("a former agent's pod with cookie {cookie}: {error:#}"));
            }
        }
    }
}

impl Enrolled {
    fn entry(&self) -> PodEntry {
        PodEntry {
            cookie: self.cookie,
            cgroup: self.place.cgroup.clone(),
            index: self.index,
            view: self.wanted.view,
            addresses: self.addresses.clone(),
            listener4: self.port4,
            listener6: self.port6,
            default_reject: false,
        }
    }
}

/// A reason that stays keeps its time.
fn still_refused(
    before: &BTreeMap<Arc<str>, (Instant, String)>,
    refused: BTreeMap<Arc<str>, String>,
    now: Instant,
) -> BTreeMap<Arc<str>, (Instant, String)> {
    let since = |name: &Arc<str>, reason: &str| match before.get(name) {
        Some((since, before)) if before == reason => *since,
        _ => now,
    };
    refused.into_iter().map(|(name, reason)| (Arc::clone(&name), (since(&name, &reason), reason))).collect()
}

fn refusal(pod: &EnrolledPod, reason: &str) -> Finding {
    Finding {
        severity: Severity::Warning,
        code: code::NOT_ENROLLED,
        object: Some(ObjectRef {
            kind: "Pod".into(),
            group: Arc::default(),
            namespace: Arc::clone(&pod.namespace),
            name: Arc::clone(&pod.name),
        }),
        at: None,
        message: format!("the pod does not take part: {reason}"),
        help: None,
    }
}

fn identity(pod: &EnrolledPod, place: &Place) -> Identity {
    Identity { workload: Arc::clone(&pod.workload), addresses: place.addresses.clone() }
}

/// The same namespace with another view, address or cgroup: one map update. On an error `pod` is as it was.
fn update(
    wanted: &EnrolledPod,
    place: &Place,
    pod: &mut Enrolled,
    datapath: &mut Datapath,
    proxy: &Proxy,
) -> Result<()> {
    let new =
        Enrolled { addresses: place.addresses.clone(), wanted: wanted.clone(), place: place.clone(), ..pod.clone() };
    datapath.pod_set(&new.entry())?;
    new.source.view.store(wanted.view, Ordering::Relaxed);
    let identity = identity(wanted, place);
    if **new.source.identity.load() != identity {
        new.source.identity.store(Arc::new(identity));
        proxy.renamed();
    }
    *pod = new;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_counts_from_when_its_reason_was_first_given() {
        let start = Instant::now();
        let refused = |reason: &str| BTreeMap::from([(Arc::from("shop/a"), reason.to_owned())]);
        let first = still_refused(&BTreeMap::new(), refused("no namespace"), start);
        let second = still_refused(&first, refused("no namespace"), start + REFUSED_FOR);
        assert_eq!(second["shop/a"].0, start);
        let other = still_refused(&second, refused("it is gVisor's"), start + REFUSED_FOR);
        assert_eq!(other["shop/a"].0, start + REFUSED_FOR);
        assert!(still_refused(&other, BTreeMap::new(), start).is_empty());
    }
}
