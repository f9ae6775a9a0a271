//! What is known of each wanted pod, and when it is looked at again. Used by `mod`: its thread carries in the events.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::addresses::Addresses;
use super::inotify::{Epoll, Event, Inotify, Interest};
use super::place::Place;
use super::process::{self, Anchor, Look};
use super::{INOTIFY, PODS, POLL, Sandbox, State, Trees, layout};
use crate::netns::NetNs;

/// The runtime's helper is in the pod's cgroup some milliseconds before it is in the pod's namespace, which no event
/// tells: it is looked at this often …
const HOT: Duration = Duration::from_millis(2);
/// … for this long after the last event, and then ever more rarely.
const HOT_FOR: Duration = Duration::from_secs(1);
/// A pod with a cgroup and no process: events tell of the first one, this is for the one that they miss.
const COLD: Duration = Duration::from_millis(50);
/// A share of the time since the last event, as the pause before the next look.
const BACKOFF: u32 = 8;
/// A sandbox starts within this, or its processes are on the node's network to stay.
const START_WITHIN: Duration = Duration::from_secs(10);
/// Something of a pod cannot be read: it is looked at again after this, and then ever more rarely, up to [`POLL`].
const AFTER_FAULT: Duration = Duration::from_millis(50);
/// A fault is told of for this long after it was seen last, so that one that comes and goes is said once.
const FAULT_TOLD: Duration = Duration::from_secs(10);
/// On a hybrid node the runtime moves a process from tree to tree; the v2 one is not the first.
const V2_GRACE: Duration = Duration::from_millis(10);

/// All that is known.
#[derive(Debug)]
pub(super) struct Book {
    trees: Trees,
    home: Vec<(u64, u64)>,
    inotify: Inotify,
    epoll: Arc<Epoll>,
    /// The directories that pods appear in, with their watches.
    classes: BTreeMap<PathBuf, Option<i32>>,
    watches: HashMap<i32, Target>,
    pods: BTreeMap<Arc<str>, Pod>,
    next_token: u64,
    polled: Instant,
    /// The kernel has refused a watch, which is said once.
    blind: bool,
}

#[derive(Clone, Debug)]
enum Target {
    Class(PathBuf),
    Pod(Arc<str>),
}

/// A wanted pod.
#[derive(Debug)]
struct Pod {
    places: BTreeMap<PathBuf, Place>,
    found: Option<Found>,
    state: State,
    /// The last event of it.
    stirred: Instant,
    retry: Option<Instant>,
    fault: Option<Fault>,
}

/// A look that failed.
#[derive(Debug)]
struct Fault {
    why: String,
    last: Instant,
    /// A later one did not.
    over: bool,
    /// Before the next look, if that fails too.
    pause: Duration,
}

/// A sandbox that is there.
#[derive(Debug)]
struct Found {
    anchor: Anchor,
    netns: NetNs,
    netns_id: (u64, u64),
    in_v2: bool,
    at: Instant,
    addresses: Addresses,
    token: u64,
}

impl Book {
    pub(super) fn new(trees: Trees, home: Vec<(u64, u64)>, epoll: Arc<Epoll>) -> io::Result<Self> {
        let inotify = Inotify::new()?;
        epoll.add(inotify.fd(), INOTIFY)?;
        let mut book = Self {
            trees,
            home,
            inotify,
            epoll,
            classes: BTreeMap::new(),
            watches: HashMap::new(),
            pods: BTreeMap::new(),
            next_token: PODS,
            polled: Instant::now(),
            blind: false,
        };
        book.find_classes();
        Ok(book)
    }

    pub(super) fn state(&self, uid: &str) -> Option<State> {
        self.pods.get(uid).map(|pod| pod.state.clone())
    }

    /// Why a pod could not be looked at, until some time after it could again, and whether it can now.
    pub(super) fn fault(&self, uid: &str, now: Instant) -> Option<(String, bool)> {
        let fault = self.pods.get(uid)?.fault.as_ref()?;
        let told = !fault.over || now.duration_since(fault.last) < FAULT_TOLD;
        told.then(|| (fault.why.clone(), fault.over))
    }

    /// The cgroups that bear the UID, of any tree.
    pub(super) fn cgroups(&self, uid: &str) -> Vec<PathBuf> {
        self.pods.get(uid).into_iter().flat_map(|pod| pod.places.keys().cloned()).collect()
    }

    pub(super) fn has_kubepods(&self) -> bool {
        !self.classes.is_empty()
    }

    /// Follows exactly these; true when some are new. They have been looked at.
    pub(super) fn want(&mut self, uids: &BTreeSet<Arc<str>>, now: Instant) -> bool {
        let gone: Vec<Arc<str>> = self.pods.keys().filter(|uid| !uids.contains(*uid)).cloned().collect();
        for uid in gone {
            if let Some(mut pod) = self.pods.remove(&uid) {
                pod.places.values_mut().for_each(|place| place.unwatch(&self.inotify));
            }
        }
        let new: Vec<Arc<str>> = uids.iter().filter(|uid| !self.pods.contains_key(*uid)).cloned().collect();
        for uid in &new {
            let state = State::Absent { since: now };
            let pod = Pod { places: BTreeMap::new(), found: None, state, stirred: now, retry: None, fault: None };
            self.pods.insert(Arc::clone(uid), pod);
        }
        if !new.is_empty() {
            self.find_classes();
            self.find_places();
            for uid in &new {
                self.look(uid, now);
            }
        }
        !new.is_empty()
    }

    /// When [`Book::turn`] has something to do without an event.
    pub(super) fn due(&self) -> Instant {
        let poll = self.polled + POLL;
        self.pods.values().filter_map(|pod| pod.retry).fold(poll, Instant::min)
    }

    /// Takes in what the tokens stand for and what is due; gives the pods whose state has changed.
    pub(super) fn turn(&mut self, ready: &[u64], now: Instant) -> Vec<Arc<str>> {
        let mut dirty = BTreeSet::new();
        if ready.contains(&INOTIFY) {
            match self.inotify.read() {
                Ok(events) => events.iter().for_each(|event| self.take(event, now, &mut dirty)),
                Err(error) => tracing::error!(%error, "inotify cannot be read: pods are found by polling"),
            }
        }
        let is_ready = |pod: &Pod| pod.found.as_ref().is_some_and(|found| ready.contains(&found.token));
        let is_due = |pod: &Pod| pod.retry.is_some_and(|at| at <= now);
        dirty.extend(self.pods.iter().filter(|(_, p)| is_ready(p) || is_due(p)).map(|(uid, _)| Arc::clone(uid)));
        if now.duration_since(self.polled) >= POLL {
            self.scan(now, &mut dirty);
        }
        dirty.into_iter().filter(|uid| self.look(uid, now)).collect()
    }

    /// Everything anew.
    fn scan(&mut self, now: Instant, dirty: &mut BTreeSet<Arc<str>>) {
        self.polled = now;
        self.find_classes();
        self.find_places();
        dirty.extend(self.pods.keys().cloned());
    }

    fn take(&mut self, event: &Event, now: Instant, dirty: &mut BTreeSet<Arc<str>>) {
        if event.watch < 0 {
            tracing::warn!("inotify has lost events: everything is looked at anew");
            self.scan(now, dirty);
            return;
        }
        let target =
            if event.ended { self.watches.remove(&event.watch) } else { self.watches.get(&event.watch).cloned() };
        let uid = match target {
            None => return,
            Some(Target::Pod(uid)) => {
                let places = self.pods.get_mut(&uid).into_iter().flat_map(|pod| pod.places.values_mut());
                if event.ended {
                    places.for_each(|place| place.ended(event.watch));
                }
                uid
            }
            Some(Target::Class(path)) if event.ended => {
                self.classes.remove(&path);
                return;
            }
            Some(Target::Class(_)) if layout::is_class(&event.name) => {
                self.find_classes();
                self.find_places();
                dirty.extend(self.pods.keys().cloned());
                return;
            }
            Some(Target::Class(path)) => {
                let Some(uid) = layout::pod_uid(&event.name) else { return };
                let Some((uid, pod)) = self.pods.get_key_value(uid.as_str()) else { return };
                let (uid, path) = (Arc::clone(uid), path.join(&event.name));
                if !pod.places.contains_key(&path) {
                    self.add_place(&uid, path);
                }
                uid
            }
        };
        if let Some(pod) = self.pods.get_mut(&uid) {
            pod.stirred = now;
            dirty.insert(uid);
        }
    }

    /// Watches the directories that pods appear in.
    fn find_classes(&mut self) {
        let found: BTreeSet<PathBuf> =
            self.trees.kubepods().iter().flat_map(|kubepods| layout::class_directories(kubepods)).collect();
        let (inotify, watches) = (&self.inotify, &mut self.watches);
        self.classes.retain(|path, watch| {
            let keep = found.contains(path);
            if let (false, Some(watch)) = (keep, watch) {
                inotify.unwatch(*watch);
            }
            keep
        });
        let mut refused = None;
        for path in found {
            let watch = self.classes.entry(path.clone()).or_default();
            if watch.is_none() {
                match inotify.watch(&path, Interest::Entries) {
                    Ok(new) => {
                        watches.insert(new, Target::Class(path));
                        *watch = Some(new);
                    }
                    Err(error) => refused = Some(error),
                }
            }
        }
        self.say_blind(refused);
    }

    fn find_places(&mut self) {
        let found: Vec<(String, PathBuf)> = self.classes.keys().flat_map(|class| layout::pods_in(class)).collect();
        for (uid, path) in found {
            let Some((uid, pod)) = self.pods.get_key_value(uid.as_str()) else { continue };
            if !pod.places.contains_key(&path) {
                self.add_place(&Arc::clone(uid), path);
            }
        }
    }

    fn add_place(&mut self, uid: &Arc<str>, path: PathBuf) {
        if let Some(pod) = self.pods.get_mut(uid) {
            pod.places.insert(path, Place::default());
        }
    }

    /// Looks at a pod; true when its state has changed.
    fn look(&mut self, uid: &Arc<str>, now: Instant) -> bool {
        let Some(mut pod) = self.pods.remove(uid) else { return false };
        pod.places.retain(|path, place| {
            let there = !matches!(layout::unless_gone(path.metadata()), Ok(None));
            if !there {
                place.unwatch(&self.inotify);
            }
            there
        });
        let stays = pod.found.as_ref().is_some_and(|found| found.anchor.is_in(found.netns_id));
        // Before the look, so that what happens after it is an event.
        self.watch(uid, &mut pod, !stays);
        let state = self.judge(uid, &mut pod, stays, now);
        if let Some(fault) = &mut pod.fault {
            fault.over = fault.last < now;
        }
        if matches!(state, State::Ready(_)) && !stays {
            self.watch(uid, &mut pod, false);
        }
        let changed = !state.is_same(&pod.state);
        if changed {
            pod.state = state;
        }
        self.pods.insert(Arc::clone(uid), pod);
        changed
    }

    fn watch(&mut self, uid: &Arc<str>, pod: &mut Pod, starting: bool) {
        for (path, place) in &mut pod.places {
            let (new, refused) = place.watch(path, starting, &self.inotify);
            self.watches.extend(new.into_iter().map(|watch| (watch, Target::Pod(Arc::clone(uid)))));
            self.say_blind(refused);
        }
    }

    fn judge(&mut self, uid: &str, pod: &mut Pod, stays: bool, now: Instant) -> State {
        let idle = now.duration_since(pod.stirred);
        pod.retry = None;
        if !stays {
            let directories: Vec<&Path> = pod.places.keys().map(PathBuf::as_path).collect();
            match process::look(uid, &directories, &self.home, &self.trees.v2.hierarchy) {
                Ok(Look::Empty) => {
                    pod.found = None;
                    let pause = COLD.max(idle / BACKOFF);
                    pod.retry = (!pod.places.is_empty() && pause < POLL).then(|| now + pause);
                    return State::Absent { since: now };
                }
                Ok(Look::Refused(reason)) => {
                    pod.found = None;
                    return State::Refused(reason);
                }
                Ok(Look::Found { anchor, netns, netns_id, in_v2 }) => match pod.found.take() {
                    Some(found) if found.netns_id == netns_id => {
                        pod.found = Some(Found { anchor, in_v2, ..found });
                    }
                    _ => match self.open(anchor, netns, netns_id, in_v2, now) {
                        Ok(found) => pod.found = Some(found),
                        Err(error) => return pod.keep(&error, now),
                    },
                },
                Ok(Look::Outside) => pod.found = None,
                // Whatever was known stays until a look succeeds. Processes come and go while we look, which is no fault.
                Err(error) if layout::is_gone(&error) && pod.found.is_some() => {
                    pod.retry = Some(now + HOT);
                    return pod.state.clone();
                }
                Err(error) if layout::is_gone(&error) => {}
                Err(error) => return pod.keep(&error, now),
            }
        }
        let hot = if idle < HOT_FOR { HOT } else { (idle / BACKOFF).min(POLL) };
        let Some(found) = &mut pod.found else {
            pod.retry = Some(now + hot);
            if idle < START_WITHIN {
                return State::Starting;
            }
            return State::Refused("its processes have no network namespace of their own".to_owned());
        };
        if now.duration_since(found.at) < HOT_FOR {
            pod.retry = Some(now + COLD);
        }
        if let Some(reason) = found.anchor.obstacle() {
            pod.found = None;
            return State::Refused(reason);
        }
        if let Err(error) = found.addresses.update() {
            return pod.keep(&error, now);
        }
        let v2 = pod.places.keys().find(|path| path.starts_with(self.trees.v2.hierarchy.mount()));
        if let (false, Some(_)) = (found.in_v2, v2) {
            found.in_v2 = found.anchor.is_in_pod(uid, &self.trees.v2.hierarchy);
            if !found.in_v2 && now.duration_since(found.at) < V2_GRACE {
                pod.retry = Some(now + HOT);
                return State::Starting;
            }
        }
        State::Ready(Sandbox {
            netns: found.netns.clone(),
            netns_id: found.netns_id,
            cgroup: v2.filter(|_| found.in_v2).cloned(),
            addresses: found.addresses.list(),
        })
    }

    fn open(
        &mut self,
        anchor: Anchor,
        netns: NetNs,
        netns_id: (u64, u64),
        in_v2: bool,
        at: Instant,
    ) -> io::Result<Found> {
        let addresses = Addresses::open(&netns)?;
        let token = self.next_token;
        self.next_token += 1;
        self.epoll.add(addresses.fd(), token)?;
        Ok(Found { anchor, netns, netns_id, in_v2, at, addresses, token })
    }

    fn say_blind(&mut self, refused: Option<io::Error>) {
        if let Some(error) = refused
            && !std::mem::replace(&mut self.blind, true)
        {
            let every_s = POLL.as_secs();
            tracing::warn!(%error, every_s, "inotify refuses watches: pods are found by polling");
        }
    }
}

impl Pod {
    /// Leaves the state as it was, because the pod could not be looked at.
    fn keep(&mut self, error: &io::Error, now: Instant) -> State {
        let recent = self.fault.as_ref().filter(|fault| now.duration_since(fault.last) <= fault.pause * 2);
        let pause = recent.map_or(AFTER_FAULT, |fault| (fault.pause * 2).min(POLL));
        self.fault = Some(Fault { why: error.to_string(), last: now, over: false, pause });
        self.retry = Some(now + pause);
        self.state.clone()
    }
}
