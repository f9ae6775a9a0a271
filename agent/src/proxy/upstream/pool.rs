//! The idle HTTP/1 connections of one worker, per source pod and endpoint: a pod never rides on another's connection.
//! Last in, first out, so that a burst's surplus grows old and is closed. Used by `upstream` only.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;

use super::address::Address;
use super::breakers::{Breakers, Terms};
#[cfg(doc)]
use super::target::Target;
#[cfg(doc)]
use super::tls::Names;
use super::wire::Wire;
use crate::proxy::limits::Limits;

/// Whose connection it is, and to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    /// The pod's network namespace cookie.
    pub(crate) pod: u64,
    pub(crate) endpoint: SocketAddr,
    /// See [`Target::class`] and [`Names::class_of`].
    pub(crate) class: u64,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Address(self.endpoint).hash(state);
        // Cookies are counted up, and so are classes: one number tells most of them apart.
        state.write_u64(self.pod.rotate_left(32) ^ self.class);
    }
}

/// A connection that waits.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) wire: Box<Wire>,
    pub(crate) since: Instant,
    pub(crate) terms: Option<Box<Terms>>,
}

impl Idle {
    fn holds(&self, breakers: &Arc<Breakers>) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.holds(breakers))
    }

    fn is_over(&self) -> bool {
        self.terms.as_ref().is_some_and(|terms| terms.are_over())
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pool(RefCell<Inner>);

#[derive(Debug, Default)]
struct Inner {
    idle: HashMap<Key, Vec<Idle>, RandomState>,
    count: usize,
}

impl Pool {
    /// The connection that was used last and is still open. The rest stays for others.
    pub(crate) fn take(&self, key: &Key) -> Option<Idle> {
        let mut guard = self.0.borrow_mut();
        let inner = &mut *guard;
        let idle = inner.idle.get_mut(key)?;
        while let Some(mut one) = idle.pop() {
            inner.count -= 1;
            if one.wire.is_quiet() && !one.is_over() {
                return Some(one);
            }
        }
        None
    }

    /// Keeps a connection, or closes it when there are enough of its endpoint. Of a full pool, the pod that has the most
    /// gives some up: none keeps another's connections out.
    pub(crate) fn put(&self, key: Key, idle: Idle, limits: &Limits) {
        if self.len() >= limits.idle_per_worker {
            self.make_room();
        }
        let mut inner = self.0.borrow_mut();
        if inner.count >= limits.idle_per_worker {
            return;
        }
        let of_endpoint = inner.idle.entry(key).or_default();
        if of_endpoint.len() < limits.idle_per_endpoint {
            of_endpoint.push(idle);
            inner.count += 1;
        }
    }

    /// Closes the older half of what the pod has that has the most. Half of it, so that many find room before all
    /// connections are looked at again.
    fn make_room(&self) {
        let mut since: HashMap<u64, Vec<Instant>, RandomState> = HashMap::default();
        for (key, idle) in &self.0.borrow().idle {
            since.entry(key.pod).or_default().extend(idle.iter().map(|one| one.since));
        }
        let Some((most, mut since)) = since.into_iter().max_by_key(|(pod, since)| (since.len(), *pod)) else {
            return;
        };
        let mut surplus = since.len().div_ceil(2);
        if surplus == 0 {
            return;
        }
        let (_, youngest, _) = since.select_nth_unstable(surplus - 1);
        let youngest = *youngest;
        self.retain(|key, one| {
            let stays = surplus == 0 || key.pod != most || one.since > youngest;
            surplus -= usize::from(!stays);
            stays
        });
    }

    /// Closes what fails `keep`.
    fn retain(&self, mut keep: impl FnMut(&Key, &mut Idle) -> bool) {
        let mut inner = self.0.borrow_mut();
        inner.idle.retain(|key, idle| {
            idle.retain_mut(|one| keep(key, one));
            !idle.is_empty()
        });
        inner.count = inner.idle.values().map(Vec::len).sum();
    }

    /// Closes what has been idle since before `limit`, and forgets what the other side closed.
    pub(crate) fn sweep(&self, now: Instant, limits: &Limits) {
        self.retain(|_, one| {
            let idle = one.terms.as_ref().and_then(|terms| terms.idle()).unwrap_or(limits.idle_upstream);
            one.wire.is_quiet() && now.duration_since(one.since) < idle && !one.is_over()
        });
    }

    /// Closes an idle connection that has a place which somebody waits for; false when there is none.
    pub(crate) fn evict(&self, breakers: &Arc<Breakers>) -> bool {
        let mut evicted = false;
        self.retain(|_, one| {
            let stays = evicted || !one.holds(breakers);
            evicted |= !stays;
            stays
        });
        evicted
    }

    /// Closes all of them.
    pub(crate) fn close_idle_of(&self, breakers: &Arc<Breakers>) {
        self.retain(|_, one| !one.holds(breakers));
    }

    /// Closes everything of a pod that is gone.
    pub(crate) fn forget_pod(&self, pod: u64) {
        self.retain(|key, _| key.pod != pod);
    }

    pub(crate) fn clear(&self) {
        self.retain(|_, _| false);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.borrow().count
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::proxy::upstream::link::Link;

    #[tokio::test]
    async fn no_pod_keeps_the_connections_of_others_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = listener.local_addr().unwrap();
        let (pool, limits) = (Pool::default(), Limits { idle_per_worker: 8, ..Limits::default() });
        let (started, mut servers) = (Instant::now(), Vec::new());
        let key = |pod, class| Key { pod, endpoint, class };
        // By 100 names a pod fills it; another comes, and the first goes on.
        let of_hog = |classes: std::ops::Range<u64>| classes.map(|class| key(1, class));
        for (n, key) in (0..).zip(of_hog(0..100).chain([key(2, 0), key(2, 1)]).chain(of_hog(100..200))) {
            let stream = TcpStream::connect(endpoint).await.unwrap();
            servers.push(listener.accept().await.unwrap());
            let since = started + Duration::from_millis(n);
            pool.put(key, Idle { wire: Box::new(Wire::new(Link::Plain(stream))), since, terms: None }, &limits);
            assert!(pool.len() <= 8);
        }
        assert!(pool.take(&key(2, 0)).is_some() && pool.take(&key(2, 1)).is_some());
        assert!(pool.take(&key(1, 199)).is_some(), "the youngest stay");
        assert!(pool.take(&key(1, 0)).is_none());
    }
}
