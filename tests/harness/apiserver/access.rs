//! Who asks, and whether they may: bearer tokens, impersonation, and RBAC as the Roles and bindings in the store say.
//! Called by `serve` before anything else.

use std::collections::BTreeMap;

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;
use serde_json::{Value, json};

use super::object::Object;
use super::status::Status;
use super::store::Store;

const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Paths about the server itself that every authenticated user may read.
const PUBLIC: &[&str] = &["/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version"];

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) groups: Vec<String>,
}

impl User {
    /// A user with the groups that its name brings along.
    pub(super) fn new(name: &str, groups: &[String]) -> Self {
        let mut groups = groups.to_vec();
        groups.push(AUTHENTICATED.to_owned());
        if let Some(account) = name.strip_prefix("system:serviceaccount:") {
            let namespace = account.split(':').next().unwrap_or_default();
            groups.push("system:serviceaccounts".into());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        Self { name: name.to_owned(), groups }
    }

    fn is_master(&self) -> bool {
        self.groups.iter().any(|g| g == MASTERS)
    }
}

/// What a request wants to do.
#[derive(Clone, Debug, Default)]
pub(super) struct Attempt<'r> {
    pub(super) verb: &'r str,
    /// Empty for a path that is not about objects.
    pub(super) resource: &'r str,
    pub(super) subresource: &'r str,
    pub(super) group: &'r str,
    pub(super) namespace: &'r str,
    pub(super) name: &'r str,
    pub(super) path: &'r str,
}

/// The users that are known.
#[derive(Debug)]
pub(super) struct Access {
    tokens: BTreeMap<String, User>,
    rbac: bool,
}

impl Access {
    pub(super) fn new(rbac: bool) -> Self {
        Self { tokens: BTreeMap::new(), rbac }
    }

    /// From now on this token is this user; as soon as one is known, a request needs one.
    pub(super) fn add(&mut self, token: &str, user: User) {
        self.tokens.insert(token.to_owned(), user);
    }

    pub(super) fn remove(&mut self, token: &str) {
        self.tokens.remove(token);
    }

    /// Who sends a request with these headers, impersonation included.
    ///
    /// # Errors
    /// 401 for a token that is not known, or none where one is needed.
    pub(super) fn identify(&self, store: &Store, headers: &HeaderMap) -> Result<User, Status> {
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let token = text(AUTHORIZATION.as_str()).and_then(|v| v.strip_prefix("Bearer "));
        let user = match token.map(|t| self.tokens.get(t)) {
            Some(Some(user)) => user.clone(),
            _ if self.tokens.is_empty() => User::new("system:admin", &[MASTERS.to_owned()]),
            _ => return Err(Status::new(401, "Unauthorized")),
        };
        let Some(other) = text("impersonate-user") else {
            return Ok(user);
        };
        let attempt = Attempt { verb: "impersonate", resource: "users", name: other, ..Attempt::default() };
        self.authorize(store, &user, &attempt)?;
        let groups = headers.get_all("impersonate-group").iter();
        let groups: Vec<String> = groups.filter_map(|v| v.to_str().ok()).map(str::to_owned).collect();
        Ok(User::new(other, &groups))
    }

    /// # Errors
    /// 403 when no rule allows the attempt.
    pub(super) fn authorize(&self, store: &Store, user: &User, attempt: &Attempt<'_>) -> Result<(), Status> {
        if !self.rbac || allowed(store, user, attempt) {
            return Ok(());
        }
        let Attempt { verb, resource, group, namespace, path, name, subresource } = attempt;
        let message = if resource.is_empty() {
            format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name)
        } else {
            let place = match *namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            let what =
                if subresource.is_empty() { (*resource).to_owned() } else { format!("{resource}/{subresource}") };
            let dotted = if group.is_empty() { (*resource).to_owned() } else { format!("{resource}.{group}") };
            let named = if name.is_empty() { String::new() } else { format!(" {name:?}") };
            format!(
                "{dotted}{named} is forbidden: User {:?} cannot {verb} resource {what:?} in API group {group:?} {place}",
                user.name
            )
        };
        Err(Status::new(403, &message))
    }

    /// Answers a `SelfSubjectAccessReview`.
    pub(super) fn review(&self, store: &Store, user: &User, mut review: Value) -> Value {
        let spec = review["spec"].clone();
        let (object, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
        let text = |v: &'static str| object[v].as_str().unwrap_or_default();
        let attempt = if path.is_object() {
            let text = |v: &str| path[v].as_str().unwrap_or_default();
            Attempt { verb: text("verb"), path: text("path"), ..Attempt::default() }
        } else {
            Attempt {
                verb: text("verb"),
                resource: text("resource"),
                subresource: text("subresource"),
                group: text("group"),
                namespace: text("namespace"),
                name: text("name"),
                path: "",
            }
        };
        let allowed = self.authorize(store, user, &attempt).is_ok();
        review["status"] = json!({"allowed": allowed});
        review
    }
}

fn objects(store: &Store, plural: &str, namespace: &str) -> Vec<Value> {
    let table = store.table(&format!("{plural}.{RBAC_GROUP}"));
    let inside = |o: &&std::sync::Arc<Object>| *o.key.0 == *namespace;
    table.into_iter().flat_map(|t| t.objects().filter(inside)).map(|o| Value::Object(o.value())).collect()
}

fn role(store: &Store, plural: &str, namespace: &str, name: &str) -> Option<Value> {
    let table = store.table(&format!("{plural}.{RBAC_GROUP}"))?;
    table.get(&(namespace.into(), name.into())).map(|o| Value::Object(o.value()))
}

fn allowed(store: &Store, user: &User, attempt: &Attempt<'_>) -> bool {
    let below = |p: &str| attempt.path == p || attempt.path.strip_prefix(p).is_some_and(|r| r.starts_with('/'));
    if user.is_master() || (attempt.resource.is_empty() && attempt.verb == "get" && PUBLIC.iter().any(|p| below(p))) {
        return true;
    }
    let permits = |role: Option<Value>| role.is_some_and(|r| items(&r["rules"]).any(|rule| permits(rule, attempt)));
    let bound = |binding: &Value| items(&binding["subjects"]).any(|s| is_subject(s, binding, user));
    let named = |binding: &Value| binding["roleRef"]["name"].as_str().unwrap_or_default().to_owned();
    let everywhere = objects(store, "clusterrolebindings", "");
    if everywhere.iter().filter(|b| bound(b)).any(|b| permits(role(store, "clusterroles", "", &named(b)))) {
        return true;
    }
    if attempt.namespace.is_empty() {
        return false;
    }
    objects(store, "rolebindings", attempt.namespace).iter().filter(|b| bound(b)).any(|b| {
        let cluster = b["roleRef"]["kind"] == "ClusterRole";
        let (plural, namespace) = if cluster { ("clusterroles", "") } else { ("roles", attempt.namespace) };
        permits(role(store, plural, namespace, &named(b)))
    })
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn is_subject(subject: &Value, binding: &Value, user: &User) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => name == user.name,
        Some("Group") => user.groups.iter().any(|g| g == name),
        Some("ServiceAccount") => {
            let own = &binding["metadata"]["namespace"];
            let namespace = subject["namespace"].as_str().or(own.as_str()).unwrap_or_default();
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn permits(rule: &Value, attempt: &Attempt<'_>) -> bool {
    let has = |list: &str, text: &str| items(&rule[list]).any(|v| v == "*" || v == text);
    if !has("verbs", attempt.verb) {
        return false;
    }
    if attempt.resource.is_empty() {
        return items(&rule["nonResourceURLs"]).filter_map(Value::as_str).any(|url| match url.strip_suffix('*') {
            Some(prefix) => attempt.path.starts_with(prefix),
            None => attempt.path == url,
        });
    }
    let resource = if attempt.subresource.is_empty() {
        has("resources", attempt.resource)
    } else {
        let (exact, any) =
            (format!("{}/{}", attempt.resource, attempt.subresource), format!("*/{}", attempt.subresource));
        has("resources", &exact) || items(&rule["resources"]).any(|v| *v == any)
    };
    let named = match rule["resourceNames"].as_array() {
        Some(names) if !names.is_empty() => names.iter().any(|n| n == attempt.name),
        _ => true,
    };
    resource && named && has("apiGroups", attempt.group)
}
