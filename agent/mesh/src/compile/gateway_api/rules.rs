//! Rules of HTTPRoutes and GRPCRoutes in the order of their precedence, whichever route they are from: exact paths, then
//! the longest prefixes, then regular expressions; among equals a method, more headers, more query parameters, the older
//! route, its name, its order.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::attach::{Attachment, Way};
use super::{CompileOptions, Snapshot, VirtualService, backends, empty, filters};
use crate::crd::gateway_api::{Filter, PathMatch, Route, RouteKind, RouteMatch, RouteRule};
use crate::crd::{Action, HttpMatchItem, HttpRoute, HttpSettings, Marked, Mirror};
use crate::matching::{HeaderMatch, HttpMatch, MoreConditions, Pattern, QueryMatch, StringMatch};
use crate::program::{RetryPolicy, Share};

/// Where a rule stands among all for its host.
type Precedence = (Reverse<(u8, usize)>, Reverse<(bool, usize, usize)>, usize, usize, usize);

/// Rules, and where each stands.
type Ranked = Vec<(Precedence, HttpRoute)>;

/// A VirtualService, and what will be its rules and its regular expressions.
type Unfinished = (VirtualService, Ranked, Vec<Pattern>);

/// One VirtualService for each host and way in.
pub(super) fn http(
    attached: &[(&Route, Vec<Attachment>)],
    snapshot: &Snapshot,
    options: &CompileOptions,
) -> Vec<VirtualService> {
    let mut found: BTreeMap<(Way, Arc<str>), Unfinished> = BTreeMap::new();
    for (age, (route, attachments)) in attached.iter().enumerate().filter(|(_, (route, _))| route.kind.is_http()) {
        let rules = rules_of(route, age, snapshot, options);
        for attachment in attachments {
            for host in &attachment.hosts {
                let mark = route.rules.first().map(|rule| rule.mark).unwrap_or_default();
                let (_, held, regexes) = found
                    .entry((attachment.way.clone(), Arc::clone(host)))
                    .or_insert_with(|| (empty(&route.meta, &attachment.way, host, mark), Vec::new(), Vec::new()));
                regexes.extend_from_slice(&route.regexes);
                held.extend(rules.iter().map(|(precedence, rule)| {
                    let mut rule = rule.clone();
                    rule.items.iter_mut().for_each(|item| item.port = attachment.port);
                    (*precedence, rule)
                }));
            }
        }
    }
    let finish = |(mut vs, mut rules, regexes): Unfinished| {
        // Stable: the parts of one match stay side by side.
        rules.sort_by_key(|(precedence, _)| *precedence);
        vs.http = rules.into_iter().map(|(_, rule)| rule).collect();
        vs.regexes = regexes.into();
        vs
    };
    found.into_values().map(finish).collect()
}

fn rules_of(route: &Route, age: usize, snapshot: &Snapshot, options: &CompileOptions) -> Ranked {
    let everything = [RouteMatch::default()];
    let mut rules = Vec::new();
    for (number, rule) in route.rules.iter().enumerate() {
        let matches = if rule.matches.is_empty() { &everything[..] } else { &rule.matches };
        for (position, one) in matches.iter().enumerate() {
            let (rank, length) = match &one.path {
                // No method at all: any method comes before, be it given by an expression.
                PathMatch::Segments(path) if path.is_empty() && route.kind == RouteKind::Grpc => (0, 0),
                PathMatch::Exact(path) => (3, path.len()),
                PathMatch::Segments(path) => (2, path.len()),
                PathMatch::Regex(_, length) => (1, *length),
            };
            let more = (one.method.is_some(), one.headers.len(), one.query.len());
            let precedence = (Reverse((rank, length)), Reverse(more), age, number, position);
            let paths = paths(&one.path);
            let make = |paths: &[StringMatch], slash| HttpRoute {
                mark: rule.mark,
                name: name(route, rule, number),
                items: paths.iter().map(|path| item(rule, one, path)).collect(),
                action: action(route, rule, slash, snapshot, options),
                settings: settings(route, rule, slash, snapshot, options),
            };
            if rule.filters.iter().any(filters::replaces_prefix) {
                // What is replaced ends before the slash, or after it.
                rules.extend(paths.iter().map(|path| {
                    let slash = matches!(path, StringMatch::Prefix(_));
                    (precedence, make(std::slice::from_ref(path), slash))
                }));
            } else {
                rules.push((precedence, make(&paths, false)));
            }
        }
    }
    rules
}

/// `NAMESPACE.NAME.NUMBER`, or its own.
fn name(route: &Route, rule: &RouteRule, number: usize) -> Arc<str> {
    let (namespace, name) = (route.meta.namespace(), route.meta.name());
    match &*rule.name {
        "" => format!("{namespace}.{name}.{number}").into(),
        own => format!("{namespace}.{name}.{own}").into(),
    }
}

/// Whole segments: the path itself, or what goes on with a slash.
fn paths(path: &PathMatch) -> Vec<StringMatch> {
    match path {
        PathMatch::Exact(path) => vec![StringMatch::Exact((&**path).into())],
        PathMatch::Segments(path) if path.is_empty() => vec![StringMatch::Prefix("/".into())],
        PathMatch::Segments(path) => {
            vec![StringMatch::Exact((&**path).into()), StringMatch::Prefix(format!("{path}/").into())]
        }
        PathMatch::Regex(regex, _) => vec![regex.clone()],
    }
}

fn item(rule: &RouteRule, one: &RouteMatch, path: &StringMatch) -> HttpMatchItem {
    let header =
        |(name, value): &(http::HeaderName, StringMatch)| HeaderMatch { name: name.clone(), value: value.clone() };
    let query = one.query.iter().map(|param| QueryMatch { name: (&*param.name).into(), value: param.value.clone() });
    let more = MoreConditions { query_params: query.collect(), ..MoreConditions::default() };
    HttpMatchItem {
        mark: rule.mark,
        name: Arc::default(),
        conditions: HttpMatch {
            uri: Some(path.clone()),
            method: one.method.as_ref().map(|method| StringMatch::Exact((&**method).into())),
            headers: one.headers.iter().map(header).collect(),
            more: (more != MoreConditions::default()).then(|| Box::new(more)),
        },
        port: None,
        gateways: Box::default(),
        source: None,
        never: false,
    }
}

fn action(route: &Route, rule: &RouteRule, slash: bool, snapshot: &Snapshot, options: &CompileOptions) -> Action {
    let redirect = rule.filters.iter().find_map(|filter| match filter {
        Filter::Redirect(redirect) => Some(redirect),
        _ => None,
    });
    match redirect {
        Some(redirect) if !rule.filters.iter().any(filters::is_unknown) => {
            Action::Redirect(Marked::new(rule.mark, Arc::new(filters::redirect(redirect, slash))))
        }
        _ => Action::Forward(backends::destinations(route, rule, snapshot, options)),
    }
}

fn settings(
    route: &Route,
    rule: &RouteRule,
    slash: bool,
    snapshot: &Snapshot,
    options: &CompileOptions,
) -> Option<Box<HttpSettings>> {
    let mut settings = HttpSettings { headers: filters::headers(rule.mark, &rule.filters), ..HttpSettings::default() };
    let mut mirrors = Vec::new();
    for filter in &rule.filters {
        match filter {
            Filter::Rewrite { hostname, path } => {
                let rewrite = filters::rewrite(hostname, path.as_ref(), slash);
                settings.rewrite = Some(Marked::new(rule.mark, Arc::new(rewrite)));
            }
            Filter::Mirror(backend, percent) => {
                let destination = backends::destination(route, backend, snapshot, options);
                if !destination.host.is_empty() {
                    mirrors.push(Mirror { destination, share: Share::of_percent(*percent) });
                }
            }
            _ => {}
        }
    }
    settings.mirrors = mirrors.into();
    settings.timeout = rule.timeouts.request;
    // Nothing is said of how often is tried, so what holds for everybody does.
    settings.retries = rule.timeouts.backend_request.map(|limit| {
        let retries = RetryPolicy { per_try_timeout: Some(*limit), ..RetryPolicy::none_given() };
        Marked::new(limit.mark, Arc::new(retries))
    });
    let nothing = settings.headers.is_none()
        && settings.rewrite.is_none()
        && settings.mirrors.is_empty()
        && settings.timeout.is_none()
        && settings.retries.is_none();
    (!nothing).then(|| Box::new(settings))
}
