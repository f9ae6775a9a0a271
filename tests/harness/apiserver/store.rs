//! The objects, and a bounded history of what became of them: what lists, pages and watches are served from. One
//! increasing counter is every resource version. Called by the verbs, under one lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use tokio::sync::watch;

use super::object::{Fields, Key, Object};
use super::resources::Resource;
use super::status::Status;

/// Resource versions start here, so that a test can ask for one that is older than everything.
const FIRST_VERSION: u64 = 1000;

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

/// One step of the history.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) kind: ChangeKind,
    /// The state before, for selectors and for lists of the past.
    pub(super) before: Option<Arc<Object>>,
    /// The state after; of what was deleted, its last state under the version of the deletion.
    pub(super) object: Arc<Object>,
}

/// The objects of one resource.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) resource: Arc<Resource>,
    objects: BTreeMap<Key, Arc<Object>>,
    log: VecDeque<Change>,
    /// Number of the first entry of `log`, counted since the table was made.
    first: u64,
    /// Changes up to this version are forgotten.
    floor: u64,
    /// Its value counts the changes; closed when the resource is no longer served.
    news: watch::Sender<u64>,
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) items: Vec<Arc<Object>>,
    /// Where the next page begins.
    pub(super) next: Option<Key>,
}

impl Table {
    fn new(resource: Arc<Resource>, floor: u64) -> Self {
        let news = watch::Sender::new(0);
        Self { resource, objects: BTreeMap::new(), log: VecDeque::new(), first: 0, floor, news }
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// Objects of a namespace.
    pub(super) fn inside<'t>(&'t self, namespace: &'t str) -> impl Iterator<Item = &'t Arc<Object>> {
        let from: Key = (namespace.into(), "".into());
        self.objects.range(from..).take_while(move |(k, _)| &*k.0 == namespace).map(|(_, o)| o)
    }

    pub(super) fn oldest(&self) -> u64 {
        self.floor
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    /// Number of the first change after version `rv`.
    ///
    /// # Errors
    /// 410 when changes since `rv` are forgotten.
    pub(super) fn position(&self, rv: u64) -> Result<u64, Status> {
        if rv < self.floor {
            return Err(Status::expired(rv, self.floor));
        }
        Ok(self.first + self.log.partition_point(|c| c.object.rv <= rv) as u64)
    }

    /// Number of the change that comes next.
    pub(super) fn now(&self) -> u64 {
        self.end()
    }

    /// At most `limit` changes from number `from` on, or `None` when some of them are forgotten.
    pub(super) fn changes(&self, from: u64, limit: usize) -> Option<Vec<Change>> {
        let skip = from.checked_sub(self.first)? as usize;
        Some(self.log.iter().skip(skip).take(limit).cloned().collect())
    }

    /// Objects from `from` on as they were at version `at`, those of `namespace` if given and picked by `pick`, at most
    /// `limit` (0 for all).
    ///
    /// # Errors
    /// 410 when that version is forgotten.
    pub(super) fn page(
        &self,
        at: u64,
        from: &Key,
        namespace: Option<&str>,
        limit: usize,
        pick: impl Fn(&Object) -> bool,
    ) -> Result<Page, Status> {
        let later = self.position(at)?.saturating_sub(self.first) as usize;
        // What changed since: the state before the first of its changes is the state at that version.
        let mut past: BTreeMap<Key, Option<Arc<Object>>> = BTreeMap::new();
        for change in self.log.iter().skip(later) {
            past.entry(change.object.key.clone()).or_insert_with(|| change.before.clone());
        }
        let from = match namespace {
            Some(ns) if *from.0 != *ns => (ns.into(), "".into()),
            _ => from.clone(),
        };
        let bounds = (Bound::Included(from), Bound::Unbounded);
        let mut unchanged = self.objects.range(bounds.clone()).filter(|(k, _)| !past.contains_key(*k)).peekable();
        let mut changed = past.range(bounds).filter_map(|(k, o)| Some((k, o.as_ref()?))).peekable();
        let mut page = Page { items: Vec::new(), next: None };
        loop {
            let first = match (unchanged.peek(), changed.peek()) {
                (Some((a, _)), Some((b, _))) if a < b => unchanged.next(),
                (Some(_), None) => unchanged.next(),
                (_, Some(_)) => changed.next(),
                (None, None) => None,
            };
            let Some((key, object)) = first else { break };
            if namespace.is_some_and(|ns| ns != &*key.0) {
                break;
            }
            if !pick(object) {
                continue;
            }
            if limit > 0 && page.items.len() == limit {
                page.next = Some(key.clone());
                break;
            }
            page.items.push(Arc::clone(object));
        }
        Ok(page)
    }

    fn record(&mut self, change: Change, keep: usize) {
        self.log.push_back(change);
        while self.log.len() > keep {
            self.forget_first();
        }
        self.news.send_modify(|n| *n += 1);
    }

    fn forget_first(&mut self) {
        if let Some(change) = self.log.pop_front() {
            self.floor = change.object.rv;
            self.first += 1;
        }
    }
}

/// Every table.
#[derive(Debug)]
pub(super) struct Store {
    tables: HashMap<Arc<str>, Table>,
    rv: u64,
    /// Changes that each table remembers.
    history: usize,
}

impl Store {
    pub(super) fn new(resources: Vec<Resource>, history: usize) -> Self {
        let mut store = Self { tables: HashMap::new(), rv: FIRST_VERSION, history };
        for resource in resources {
            store.serve(resource);
        }
        store
    }

    /// The version of the latest change.
    pub(super) fn rv(&self) -> u64 {
        self.rv
    }

    pub(super) fn table(&self, id: &str) -> Option<&Table> {
        self.tables.get(id)
    }

    /// Bytes of all objects, history left out.
    pub(super) fn bytes(&self) -> u64 {
        self.tables.values().flat_map(Table::objects).map(|o| o.len() as u64).sum()
    }

    /// Every table, by name.
    pub(super) fn tables(&self) -> Vec<&Table> {
        let mut tables: Vec<&Table> = self.tables.values().collect();
        tables.sort_by(|a, b| a.resource.id.cmp(&b.resource.id));
        tables
    }

    /// Serves a resource, or serves it differently from now on. Objects stay.
    pub(super) fn serve(&mut self, resource: Resource) {
        let (id, floor) = (Arc::clone(&resource.id), self.rv);
        let resource = Arc::new(resource);
        self.tables
            .entry(id)
            .and_modify(|t| t.resource = Arc::clone(&resource))
            .or_insert_with(|| Table::new(resource, floor));
    }

    /// Serves a resource no longer: its objects are deleted, its watches end.
    pub(super) fn withdraw(&mut self, id: &str) {
        let keys: Vec<Key> = self.tables.get(id).map(|t| t.objects.keys().cloned().collect()).unwrap_or_default();
        for key in keys {
            self.remove(id, &key);
        }
        self.tables.remove(id);
    }

    /// Stores a state under the next version, which it writes into the metadata.
    pub(super) fn put(&mut self, id: &str, key: Key, mut value: Fields) -> Option<Arc<Object>> {
        let table = self.tables.get_mut(id)?;
        self.rv += 1;
        stamp(&mut value, self.rv);
        let object = Arc::new(Object::new(&table.resource, key.clone(), self.rv, value));
        let before = table.objects.insert(key, Arc::clone(&object));
        let kind = if before.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        table.record(Change { kind, before, object: Arc::clone(&object) }, self.history);
        Some(object)
    }

    /// Deletes an object and gives its last state, under the version of the deletion.
    pub(super) fn remove(&mut self, id: &str, key: &Key) -> Option<Arc<Object>> {
        let table = self.tables.get_mut(id)?;
        let before = table.objects.remove(key)?;
        self.rv += 1;
        let mut value = before.value();
        stamp(&mut value, self.rv);
        let object = Arc::new(Object::new(&table.resource, key.clone(), self.rv, value));
        let change = Change { kind: ChangeKind::Deleted, before: Some(before), object: Arc::clone(&object) };
        table.record(change, self.history);
        Some(object)
    }

    /// Forgets all history: who asks for any version but the present one has to list again. Watches that have seen
    /// everything go on.
    pub(super) fn expire(&mut self) {
        // A version of its own, so that even what was read last is too old.
        self.rv += 1;
        for table in self.tables.values_mut() {
            while !table.log.is_empty() {
                table.forget_first();
            }
            table.floor = self.rv;
        }
    }
}

fn stamp(value: &mut Fields, rv: u64) {
    if let Some(metadata) = value.get_mut("metadata").and_then(|m| m.as_object_mut()) {
        metadata.insert("resourceVersion".into(), rv.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::super::resources::built_in;
    use super::*;

    fn put(store: &mut Store, name: &str, value: &str) -> u64 {
        let fields = serde_json::json!({"metadata": {"name": name}, "data": {"v": value}});
        let fields = fields.as_object().expect("an object").clone();
        store.put("configmaps", ("a".into(), name.into()), fields).expect("configmaps are served").rv
    }

    fn seen(store: &Store, at: u64) -> Result<Vec<(String, String)>, u16> {
        let table = store.table("configmaps").expect("configmaps are served");
        let page = table.page(at, &("".into(), "".into()), None, 0, |_| true).map_err(|s| s.code)?;
        let data = |o: &Object| o.value()["data"]["v"].as_str().unwrap_or_default().to_owned();
        Ok(page.items.iter().map(|o| (o.key.1.to_string(), data(o))).collect())
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_list_of_the_past_shows_what_was_there_then() {
        let mut store = Store::new(built_in(), 10);
        put(&mut store, "b", "1");
        let then = put(&mut store, "d", "1");
        put(&mut store, "b", "2");
        put(&mut store, "a", "1");
        put(&mut store, "b", "3");
        store.remove("configmaps", &("a".into(), "d".into()));
        put(&mut store, "c", "1");
        assert_eq!(seen(&store, then), Ok(owned(&[("b", "1"), ("d", "1")])));
        assert_eq!(seen(&store, store.rv()), Ok(owned(&[("a", "1"), ("b", "3"), ("c", "1")])));
    }

    #[test]
    fn history_is_bounded_and_what_is_older_is_gone() {
        let mut store = Store::new(built_in(), 3);
        let versions: Vec<u64> = (0..6).map(|n| put(&mut store, "a", &n.to_string())).collect();
        assert_eq!(seen(&store, versions[1]), Err(410));
        assert_eq!(seen(&store, versions[2]), Ok(owned(&[("a", "2")])));
        let table = store.table("configmaps").expect("configmaps are served");
        assert_eq!(table.log.len(), 3);
        assert_eq!(table.changes(2, 10).map(|c| c.len()), None);
        assert_eq!(table.changes(table.now(), 10).map(|c| c.len()), Some(0));
        store.expire();
        assert_eq!(seen(&store, versions[5]), Err(410));
        assert_eq!(seen(&store, store.rv()), Ok(owned(&[("a", "5")])));
    }
}
