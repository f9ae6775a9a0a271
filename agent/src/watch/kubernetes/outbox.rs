//! Between the watches and the thread that carries out changes: what was heard and is not yet taken. Bounded by the
//! number of objects, however slow the taker; the taker is woken at most once until it says that it has heard.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use weir_mesh::store::{ObjectId, Pending, ResourceId, Version};

/// What was heard.
pub struct Outbox {
    state: Mutex<State>,
    /// Wakes the taker.
    wake: Box<dyn Fn() + Send + Sync>,
    /// Woken, and not yet heard.
    told: AtomicBool,
}

#[derive(Default)]
struct State {
    pending: Pending,
    /// Kinds whose first list is awaited; `None` until it is known which are served.
    awaited: Option<BTreeSet<ResourceId>>,
}

impl Outbox {
    /// `wake` is called from the watching thread, and must not wait.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self { state: Mutex::default(), wake: Box::new(wake), told: AtomicBool::new(false) }
    }

    /// The taker has heard, and is to be woken by what comes from now on.
    pub fn hear(&self) {
        self.told.store(false, Ordering::SeqCst);
    }

    /// Takes what was heard.
    pub fn take(&self) -> Pending {
        std::mem::take(&mut self.lock().pending)
    }

    /// Every kind that is served has been listed once. Never becomes false again.
    pub fn is_complete(&self) -> bool {
        self.lock().awaited.as_ref().is_some_and(BTreeSet::is_empty)
    }

    /// Kinds whose first list is still awaited; `None` while it is not known which are served.
    pub(super) fn awaited(&self) -> Option<BTreeSet<ResourceId>> {
        self.lock().awaited.clone()
    }

    /// Adds changes, all at once.
    pub(super) fn push(&self, changes: impl IntoIterator<Item = (ObjectId, Version)>) {
        let any = {
            let mut state = self.lock();
            for (id, version) in changes {
                state.pending.push(id, version);
            }
            !state.pending.is_empty()
        };
        if any {
            self.tell();
        }
    }

    /// These are served. Only the first call counts: what appears later is not waited for.
    pub(super) fn set_awaited(&self, resources: impl IntoIterator<Item = ResourceId>) {
        self.lock().awaited.get_or_insert_with(|| resources.into_iter().collect());
        self.tell();
    }

    /// This one has been listed, or is not to be waited for.
    pub(super) fn listed(&self, resource: ResourceId) {
        let completed = {
            let mut state = self.lock();
            state.awaited.as_mut().is_some_and(|awaited| awaited.remove(&resource) && awaited.is_empty())
        };
        if completed {
            self.tell();
        }
    }

    fn tell(&self) {
        if !self.told.swap(true, Ordering::SeqCst) {
            (self.wake)();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbox").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn change(n: u32) -> (ObjectId, Version) {
        let resource = ResourceId::all().next().expect("there are kinds");
        (ObjectId { resource, namespace: Arc::default(), name: format!("n{n}").into() }, Version::Gone)
    }

    fn outbox() -> (Outbox, Arc<AtomicUsize>) {
        let wakes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&wakes);
        let wake = move || {
            count.fetch_add(1, Ordering::SeqCst);
        };
        (Outbox::new(wake), wakes)
    }

    #[test]
    fn a_slow_taker_is_woken_once_and_holds_one_entry_an_object() {
        let (outbox, wakes) = outbox();
        for _ in 0..1000 {
            outbox.push([change(1), change(2)]);
        }
        assert_eq!((wakes.load(Ordering::SeqCst), outbox.take().len()), (1, 2));
        outbox.hear();
        outbox.push([]);
        assert_eq!(wakes.load(Ordering::SeqCst), 1);
        outbox.push([change(1)]);
        assert_eq!(wakes.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn it_is_complete_when_every_kind_that_is_served_was_listed() {
        let (outbox, wakes) = outbox();
        let kinds: Vec<ResourceId> = ResourceId::all().take(3).collect();
        outbox.listed(kinds[0]);
        assert!(!outbox.is_complete(), "nobody knows yet what is served");
        outbox.set_awaited(kinds[..2].iter().copied());
        outbox.hear();
        outbox.listed(kinds[0]);
        assert!(!outbox.is_complete());
        let before = wakes.load(Ordering::SeqCst);
        outbox.listed(kinds[1]);
        assert!(outbox.is_complete());
        assert_eq!(wakes.load(Ordering::SeqCst), before + 1);
        outbox.set_awaited(kinds.iter().copied());
        assert!(outbox.is_complete(), "what appears later is not waited for");
    }
}
