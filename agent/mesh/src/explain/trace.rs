//! Sees a decision while it is made: names that are looked for, and every rule with the reason why it does not take the
//! request. Used by [`super`].

use super::model::{ConditionTried, HostTried, ItemTried, Origin, RuleTried};
use crate::matching::{Condition, HeaderMatch, HttpMatch, StringMatch};
use crate::request::RequestView;
use crate::route::{Lookup, Observer, Rule, Taken, VirtualHost};

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Trace<'p> {
    pub(super) hosts: Vec<HostTried>,
    /// The host whose rules were tried.
    pub(super) host: Option<&'p VirtualHost>,
    pub(super) rules: Vec<RuleTried>,
    pub(super) not_reached: usize,
}

impl<'p> Observer<'p> for Trace<'p> {
    fn looked_up(&mut self, for_what: Lookup<'_>, found: Option<&'p VirtualHost>) {
        let name = match for_what {
            Lookup::Name(name) => name.to_owned(),
            Lookup::PodOf(service) => format!("a pod of {service}"),
            Lookup::Suffix(suffix) => format!("*{suffix}"),
        };
        self.hosts.push(HostTried { name, found: found.map(|host| host.host.to_string()) });
    }

    /// Tries rule after rule, whatever index found the one that was taken.
    fn tried(&mut self, host: &'p VirtualHost, request: &RequestView<'_>, taken: Option<Taken<'p>>) {
        self.host = Some(host);
        for (index, rule) in host.rules.iter().enumerate() {
            let tried = rule_tried(index, rule, request);
            let takes = tried.takes;
            self.rules.push(tried);
            if takes {
                self.not_reached = host.rules.len() - index - 1;
                break;
            }
        }
        let first = self.rules.last().filter(|rule| rule.takes).and_then(|rule| host.rules.get(rule.number - 1));
        debug_assert!(
            match (first, taken) {
                (Some(first), Some((taken, _))) => std::ptr::eq(first, taken),
                (None, None) => true,
                _ => false,
            },
            "the index finds what trying each rule finds"
        );
    }
}

fn rule_tried(index: usize, rule: &Rule, request: &RequestView<'_>) -> RuleTried {
    let mut items = Vec::new();
    for item in &rule.matches {
        let mut conditions = Vec::new();
        let mut fits = true;
        // The walk of a decision, which would stop at the first that is not met.
        item.all(|condition| {
            let met = condition.fits(request);
            fits &= met;
            conditions.push(condition_tried(condition, request, met));
            true
        });
        items.push(ItemTried { fits, conditions });
        if fits {
            break;
        }
    }
    let route = &rule.route;
    RuleTried {
        number: index + 1,
        name: route.name.to_string(),
        origin: route.object.as_ref().map(|object| Origin::new(object, route.at.as_ref())),
        takes: rule.matches.is_empty() || items.last().is_some_and(|item| item.fits),
        items,
    }
}

fn condition_tried(condition: Condition<'_>, request: &RequestView<'_>, fits: bool) -> ConditionTried {
    let header = |header: &HeaderMatch| {
        let values: Vec<_> = request.headers.get_all(&header.name).iter().collect();
        let values: Vec<_> = values.iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
        (!values.is_empty()).then(|| values.join(","))
    };
    let found = match condition {
        Condition::Path(_) => Some(request.path.to_owned()),
        Condition::Method(_) => Some(request.method.to_string()),
        Condition::Scheme(_) => Some(request.scheme.to_owned()),
        Condition::Authority(_) => Some(request.authority.to_owned()),
        Condition::Header(one) | Condition::WithoutHeader(one) => header(one),
        Condition::QueryParameter(one) => {
            let parameters = request.query.unwrap_or_default().split('&');
            let mut parameters = parameters.map(|one| one.split_once('=').unwrap_or((one, "")));
            let found = parameters.find(|(name, _)| **name == *one.name).filter(|_| request.query.is_some());
            found.map(|(_, value)| value.to_owned())
        }
    };
    let (on, wanted) = words(condition);
    let note = match condition {
        Condition::Path(path) if fits => beyond_segment(path, request.path),
        _ => None,
    };
    ConditionTried { on, wanted, found, fits, note }
}

/// Said of a path that only begins with the text of a prefix: `/v2foo` is not below `/v2`.
fn beyond_segment(wanted: &StringMatch, path: &str) -> Option<String> {
    let (StringMatch::Prefix(prefix) | StringMatch::PrefixIgnoreCase(prefix)) = wanted else { return None };
    let rest = path.get(prefix.len()..)?;
    let is_below = rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/');
    (!is_below).then(|| format!("a prefix is text, not a directory: `{path}` is not below `{prefix}`"))
}

/// What a condition is on, and what it wants.
fn words(condition: Condition<'_>) -> (String, String) {
    match condition {
        Condition::Path(path) => ("path".to_owned(), text(path)),
        Condition::Method(method) => ("method".to_owned(), text(method)),
        Condition::Scheme(scheme) => ("scheme".to_owned(), text(scheme)),
        Condition::Authority(authority) => ("authority".to_owned(), text(authority)),
        Condition::Header(one) => (format!("header {}", one.name), text(&one.value)),
        Condition::WithoutHeader(one) => (format!("header {}", one.name), format!("not {}", text(&one.value))),
        Condition::QueryParameter(one) => (format!("query parameter {}", one.name), text(&one.value)),
    }
}

/// All conditions of an item.
pub(crate) fn of_item(item: &HttpMatch) -> String {
    let mut all = Vec::new();
    item.all(|condition| {
        let (on, wanted) = words(condition);
        all.push(format!("{on} {wanted}"));
        true
    });
    if all.is_empty() { "everything".to_owned() } else { all.join(" and ") }
}

/// A condition on a text, as users write it.
pub(crate) fn text(wanted: &StringMatch) -> String {
    match wanted {
        StringMatch::Exact(text) => format!("exact {text}"),
        StringMatch::Prefix(text) => format!("prefix {text}"),
        StringMatch::ExactIgnoreCase(text) => format!("exact {text} (any case)"),
        StringMatch::PrefixIgnoreCase(text) => format!("prefix {text} (any case)"),
        StringMatch::Regex(regex) => {
            // Anchored when it was compiled.
            let text = regex.as_str();
            format!("regex {}", text.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$")).unwrap_or(text))
        }
        StringMatch::Present => "present".to_owned(),
    }
}
