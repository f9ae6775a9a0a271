//! What becomes of a request, told in the words of Istio's documentation, with nothing of the core. Used by the target
//! alone; slow and simple on purpose.

use super::case::{Destination, Item, Request, Rule, Want};

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    /// To the service that was dialled.
    UnknownHost,
    NoRoute,
    To {
        route: String,
        /// Envoy's name for it.
        cluster: String,
        /// False: it is answered with 503.
        exists: bool,
    },
}

const DOMAIN: &str = "shop.svc.cluster.local";

/// The host decides whose rules count, then the first rule that takes the request, then the weights.
pub(super) fn decide(rules: &[Rule], request: &Request) -> Expected {
    let plain = |service: &str| Expected::To {
        route: "default".to_owned(),
        cluster: format!("outbound|{}||{service}.{DOMAIN}", request.port),
        exists: true,
    };
    match service(request) {
        None => return Expected::UnknownHost,
        Some("a") => {}
        Some(other) => return plain(other),
    }
    let for_mesh = |item: &&Item| !item.at_gateway && item.port.is_none_or(|port| port == request.port);
    let mut any_for_this_port = false;
    for (number, rule) in rules.iter().enumerate() {
        let items: Vec<&Item> = rule.items.iter().filter(for_mesh).collect();
        if !rule.items.is_empty() && items.is_empty() {
            continue;
        }
        any_for_this_port = true;
        if rule.items.is_empty() || items.into_iter().any(|item| takes(item, request)) {
            return to(number, &rule.destinations, request.roll);
        }
    }
    if any_for_this_port { Expected::NoRoute } else { plain("a") }
}

/// Which of the two services the client names.
fn service(request: &Request) -> Option<&'static str> {
    let lower = request.authority.to_lowercase();
    let host = lower.split(':').next().unwrap_or_default();
    ["a", "b"].into_iter().zip(["10.96.0.1", "10.96.0.2"]).find_map(|(name, address)| {
        let full = [
            format!("{name}.shop"),
            format!("{name}.shop.svc"),
            format!("{name}.{DOMAIN}"),
            format!("{name}.{DOMAIN}."),
            address.to_owned(),
        ];
        let short = host == name && request.namespace == "shop";
        (short || full.iter().any(|known| known == host)).then_some(name)
    })
}

fn takes(item: &Item, request: &Request) -> bool {
    let uri = item.uri.as_ref().is_none_or(|want| match want {
        // Case is ignored for `exact` and `prefix` alone.
        Want::Exact(text) if item.ignore_case => request.path.to_lowercase() == text.to_lowercase(),
        Want::Prefix(text) if item.ignore_case => request.path.to_lowercase().starts_with(&text.to_lowercase()),
        _ => fits(want, &request.path),
    });
    let method = item.method.as_ref().is_none_or(|want| fits(want, request.method));
    let authority = item.authority.as_ref().is_none_or(|want| fits(want, &request.authority));
    let header = |name: &str| {
        let named = request.headers.iter().filter(|(other, _)| *other == name);
        let values: Vec<&str> = named.map(|(_, value)| &**value).collect();
        (!values.is_empty()).then(|| values.join(","))
    };
    let first = |name: &str| request.query.iter().find(|(other, _)| *other == name).map(|(_, value)| value);
    uri && method
        && authority
        && item.headers.iter().all(|(name, want)| header(name).is_some_and(|value| fits(want, &value)))
        && item.without_headers.iter().all(|(name, want)| match (header(name), want) {
            (Some(value), want) => !fits(want, &value),
            (None, Want::Present) => true,
            // A header that is not there counts as an empty one.
            (None, want) => !fits(want, ""),
        })
        && item.query.iter().all(|(name, want)| first(name).is_some_and(|value| fits(want, value)))
}

fn fits(want: &Want, text: &str) -> bool {
    match want {
        Want::Exact(wanted) => wanted == text,
        Want::Prefix(wanted) => text.get(..wanted.len()) == Some(wanted),
        Want::Regex(expression) => expression.takes(text),
        Want::Present => true,
        Want::Cookie(pair) => text.split(';').any(|cookie| cookie == pair),
    }
}

/// Each destination has a share of the rolls as large as its weight's share of all weights, in their order.
fn to(rule: usize, destinations: &[Destination], roll: u64) -> Expected {
    let weight = |d: &Destination| u128::from(if destinations.len() == 1 { 1 } else { d.weight.unwrap_or(0) });
    let total: u128 = destinations.iter().map(weight).sum();
    let mut end = 0;
    let chosen = destinations
        .iter()
        .find(|destination| {
            end += weight(destination);
            // roll / 2^64 < end / total, without a division.
            u128::from(roll) * total < end << 64
        })
        .expect("the last end is the total, and no roll is 1");
    let Destination { host, subset, .. } = chosen;
    Expected::To {
        route: format!("r{rule}"),
        cluster: format!("outbound|80|{subset}|{host}.{DOMAIN}"),
        exists: *host != "missing" && *subset != "v9",
    }
}
