//! What a client asks for: the path and the query of a request, taken apart. Called by `serve`.

use std::sync::Arc;

use super::object::{Key, View};
use super::resources::{EVENTS_GROUP, Resource, id};
use super::selector::Selector;
use super::status::Status;
use super::store::Store;

/// A path below `/api` or `/apis` that names a resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResourcePath {
    pub(super) group: String,
    pub(super) version: String,
    pub(super) plural: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) subresource: Option<String>,
}

impl ResourcePath {
    /// `None` when the path is about something else.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let parts: Vec<String> = path.trim_matches('/').split('/').map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            // A namespace itself, or a subresource of it.
            ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => (None, rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            _ => (None, rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, None, None),
            [plural, name] => (*plural, Some(*name), None),
            [plural, name, subresource @ ..] => (*plural, Some(*name), Some(subresource.join("/"))),
            [] => return None,
        };
        let owned = |t: Option<&str>| t.map(str::to_owned);
        Some(Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            namespace: owned(namespace),
            name: owned(name),
            subresource,
        })
    }

    /// The name of the table and of the counters.
    pub(super) fn id(&self) -> String {
        id(if self.group == EVENTS_GROUP { "" } else { &self.group }, &self.plural)
    }
}

/// The parameters that this server knows. Text is empty where a parameter is missing.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub(super) watch: bool,
    pub(super) limit: usize,
    pub(super) continued: String,
    pub(super) resource_version: String,
    pub(super) version_match: String,
    pub(super) bookmarks: bool,
    pub(super) initial_events: Option<bool>,
    pub(super) timeout_seconds: Option<u64>,
    pub(super) labels: String,
    pub(super) fields: String,
    pub(super) dry_run: bool,
    pub(super) manager: String,
}

impl Query {
    /// # Errors
    /// 400 when a number is none.
    pub(super) fn parse(text: &str) -> Result<Self, Status> {
        let mut query = Self::default();
        for (key, value) in text.split('&').filter_map(|p| p.split_once('=').or(Some((p, "")))) {
            let value = decode(&value.replace('+', " "));
            let truth = || value == "true" || value == "1" || value.is_empty();
            let number =
                || value.parse::<u64>().map_err(|_| Status::bad_request(&format!("{key}: {value:?} is not a number")));
            match key {
                "watch" => query.watch = truth(),
                "limit" => query.limit = number()? as usize,
                "continue" => query.continued = value,
                "resourceVersion" => query.resource_version = value,
                "resourceVersionMatch" => query.version_match = value,
                "allowWatchBookmarks" => query.bookmarks = truth(),
                "sendInitialEvents" => query.initial_events = Some(truth()),
                "timeoutSeconds" => query.timeout_seconds = Some(number()?),
                "labelSelector" => query.labels = value,
                "fieldSelector" => query.fields = value,
                "dryRun" => query.dry_run = value == "All",
                "fieldManager" => query.manager = value,
                _ => {}
            }
        }
        Ok(query)
    }

    /// `resourceVersion` as a number, `None` where it is missing.
    ///
    /// # Errors
    /// 400 when it is no number.
    pub(super) fn version(&self) -> Result<Option<u64>, Status> {
        if self.resource_version.is_empty() {
            return Ok(None);
        }
        let bad = || Status::bad_request(&format!("invalid resource version {:?}", self.resource_version));
        self.resource_version.parse().map(Some).map_err(|_| bad())
    }
}

/// A request whose resource is served.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) resource: Arc<Resource>,
    pub(super) view: View,
    pub(super) namespace: Option<Arc<str>>,
    pub(super) name: Option<Arc<str>>,
    pub(super) subresource: Option<String>,
    pub(super) query: Query,
    pub(super) selector: Selector,
}

impl Target {
    /// Finds what a path names.
    ///
    /// # Errors
    /// 404 when it is not served, 400 when a selector is wrong.
    pub(super) fn find(store: &Store, path: &ResourcePath, query: Query, metadata_only: bool) -> Result<Self, Status> {
        let table = store.table(&path.id()).ok_or_else(Status::no_such_path)?;
        let resource = &table.resource;
        let version = resource.version(&path.version).ok_or_else(Status::no_such_path)?;
        let misplaced = path.namespace.is_some() && !resource.namespaced
            || path.name.is_some() && path.namespace.is_none() && resource.namespaced;
        let subresource = path.subresource.as_deref();
        if misplaced || subresource.is_some_and(|s| s != "status" || !version.status) {
            return Err(Status::no_such_path());
        }
        let selector = Selector::parse(resource, &query.labels, &query.fields)?;
        Ok(Self {
            view: View::new(resource, &path.group, &path.version, metadata_only),
            resource: Arc::clone(resource),
            namespace: path.namespace.as_deref().map(Arc::from),
            name: path.name.as_deref().map(Arc::from),
            subresource: path.subresource.clone(),
            query,
            selector,
        })
    }

    /// The object that is named.
    ///
    /// # Errors
    /// 405 when none is.
    pub(super) fn key(&self) -> Result<Key, Status> {
        let name = self.name.clone().ok_or_else(|| Status::new(405, "a name is needed"))?;
        Ok((self.namespace.clone().unwrap_or_default(), name))
    }

    /// `virtualservices.networking.istio.io`, for messages.
    pub(super) fn id(&self) -> &str {
        &self.resource.id
    }

    /// The table's error for a missing object.
    pub(super) fn not_found(&self) -> Status {
        Status::not_found(self.id(), self.name.as_deref().unwrap_or_default())
    }
}

/// Resolves `%41`. What is no escape stays.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let escape = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        let byte = escape.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        at += if byte.is_some() { 3 } else { 1 };
        out.push(byte.unwrap_or(bytes[start]));
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> (String, Option<String>, Option<String>, Option<String>) {
        let p = ResourcePath::parse(text).expect("a resource path");
        (p.id(), p.namespace, p.name, p.subresource)
    }

    #[test]
    fn paths_name_resources_with_and_without_namespaces() {
        assert_eq!(path("/api/v1/pods"), ("pods".into(), None, None, None));
        assert_eq!(
            path("/api/v1/namespaces/a/pods/p/status"),
            ("pods".into(), Some("a".into()), Some("p".into()), Some("status".into()))
        );
        assert_eq!(path("/api/v1/namespaces/a"), ("namespaces".into(), None, Some("a".into()), None));
        assert_eq!(
            path("/api/v1/namespaces/a/status"),
            ("namespaces".into(), None, Some("a".into()), Some("status".into()))
        );
        assert_eq!(path("/apis/events.k8s.io/v1/namespaces/a/events"), ("events".into(), Some("a".into()), None, None));
        assert_eq!(path("/apis/apps/v1/deployments"), ("deployments.apps".into(), None, None, None));
        assert_eq!(ResourcePath::parse("/apis/apps/v1"), None);
        assert_eq!(ResourcePath::parse("/version"), None);
    }

    #[test]
    fn a_query_is_decoded() {
        let query = Query::parse("watch=1&labelSelector=a%3Db%2Cc+in+%28d%29&limit=500&resourceVersion=0");
        let query = query.expect("well formed");
        assert!(query.watch && !query.bookmarks);
        assert_eq!((query.labels.as_str(), query.limit, query.version()), ("a=b,c in (d)", 500, Ok(Some(0))));
        assert!(Query::parse("limit=many").is_err());
    }
}
