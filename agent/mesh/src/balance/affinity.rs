//! What of a request decides where it goes, so that a client stays on its endpoint, and on its subset before that. Called
//! by the proxy for clusters with a consistent hash.

use std::fmt;
use std::net::IpAddr;

use http::HeaderValue;
use http::header::COOKIE;
use twox_hash::XxHash64;

use super::mix;
use crate::program::{Chance, Cookie, HashKey, Program, WeightedCluster};
use crate::request::RequestView;
use crate::route;

/// The hash of a client, and what it is to be told so that it comes back with the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity<'p> {
    /// For [`super::Table::pick`] and [`stay`].
    pub hash: u64,
    /// A cookie that the response is to set.
    pub cookie: Option<MadeCookie<'p>>,
}

/// A cookie that is made for a client that has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MadeCookie<'p> {
    cookie: &'p Cookie,
    value: u64,
}

/// The hash of a request by what its cluster's policy names. `None`: the request does not have it, and goes anywhere.
/// `client` is the address that the request came from; `roll` is uniformly random, and becomes the value of a cookie.
pub fn affinity<'p>(key: &'p HashKey, request: &RequestView<'_>, client: IpAddr, roll: u64) -> Option<Affinity<'p>> {
    let hash = match key {
        HashKey::Header(name) => {
            let mut values = request.headers.get_all(name).iter().map(|value| hash(value.as_bytes()));
            let first = values.next()?;
            // A sum, so that the order of several values does not matter.
            values.fold(first, u64::wrapping_add)
        }
        HashKey::Cookie(cookie) => {
            let Some(value) = cookie_of(request, &cookie.name) else {
                cookie.ttl?;
                let made = MadeCookie { cookie, value: roll };
                return Some(Affinity { hash: hash(&made.digits()), cookie: Some(made) });
            };
            hash(value)
        }
        HashKey::SourceIp => match client.to_canonical() {
            IpAddr::V4(ip) => hash(&ip.octets()),
            IpAddr::V6(ip) => hash(&ip.octets()),
        },
        HashKey::QueryParameter(name) => {
            let parameters = request.query?.split('&').map(|one| one.split_once('=').unwrap_or((one, "")));
            hash(parameters.into_iter().find(|(key, _)| *key == &**name)?.1.as_bytes())
        }
    };
    Some(Affinity { hash, cookie: None })
}

/// The hash of a connection, of which nothing but its source is known.
pub fn affinity_of_connection(key: &HashKey, client: IpAddr) -> Option<u64> {
    let nothing = http::HeaderMap::new();
    let request =
        RequestView { method: &http::Method::GET, scheme: "", authority: "", path: "", query: None, headers: &nothing };
    matches!(key, HashKey::SourceIp).then(|| affinity(key, &request, client, 0)).flatten().map(|found| found.hash)
}

fn hash(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// The first cookie of this name, without the quotes that its value may have. An empty one is none.
fn cookie_of<'r>(request: &RequestView<'r>, name: &str) -> Option<&'r [u8]> {
    let cookies =
        request.headers.get_all(COOKIE).iter().flat_map(|header| header.as_bytes().split(|byte| *byte == b';'));
    let mut named = cookies.filter_map(|cookie| {
        let equals = cookie.iter().position(|byte| *byte == b'=')?;
        (cookie[..equals].trim_ascii() == name.as_bytes()).then(|| cookie[equals + 1..].trim_ascii())
    });
    let value = named.next()?;
    let bare = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value);
    Some(bare).filter(|value| !value.is_empty())
}

impl MadeCookie<'_> {
    /// What the client will send back.
    fn digits(&self) -> [u8; 16] {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        std::array::from_fn(|n| HEX[(self.value >> (60 - 4 * n) & 0xf) as usize])
    }

    /// The value of a `Set-Cookie` header; `None` when its name or an attribute cannot stand in a header.
    pub fn header(&self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.to_string()).ok()
    }
}

impl fmt::Display for MadeCookie<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cookie { name, path, ttl, attributes } = self.cookie;
        write!(f, "{name}=\"{:016x}\"", self.value)?;
        if let Some(ttl) = ttl.filter(|ttl| !ttl.is_zero()) {
            // Less than a second would be none at all, which deletes the cookie.
            write!(f, "; Max-Age={}", ttl.as_secs().max(1))?;
        }
        if !path.is_empty() {
            write!(f, "; Path={path}")?;
        }
        for (name, value) in attributes {
            match &**value {
                "" => write!(f, "; {name}")?,
                value => write!(f, "; {name}={value}")?,
            }
        }
        f.write_str("; HttpOnly")
    }
}

/// Where a request goes, and what its client is known by: where one of the destinations sticks to clients, the one that it
/// belongs to by its hash; else, or when the request lacks what is hashed, `drawn`, which the weights drew.
pub fn settle<'p>(
    program: &'p Program,
    destinations: &'p [WeightedCluster],
    drawn: Option<&'p WeightedCluster>,
    request: &RequestView<'_>,
    client: IpAddr,
    roll: u64,
) -> (Option<&'p WeightedCluster>, Option<Affinity<'p>>) {
    let key = key_of(program, destinations);
    let Some(found) = key.and_then(|key| affinity(key, request, client, Chance::Cookie.of(roll))) else {
        return (drawn, None);
    };
    (stay(destinations, found.hash).or(drawn), Some(found))
}

/// Where a connection goes whose requests nobody reads, and the hash of its client where one of the destinations sticks to
/// addresses.
pub fn settle_connection<'p>(
    program: &'p Program,
    destinations: &'p [WeightedCluster],
    client: IpAddr,
    roll: u64,
) -> (Option<&'p WeightedCluster>, Option<u64>) {
    let hash = key_of(program, destinations).and_then(|key| affinity_of_connection(key, client));
    let stays = hash.and_then(|hash| stay(destinations, hash));
    (stays.or_else(|| route::choose(destinations, roll)), hash)
}

/// What is hashed to tell to which of a route's destinations a client belongs: the key of the first that has one.
pub fn key_of<'p>(program: &'p Program, destinations: &[WeightedCluster]) -> Option<&'p HashKey> {
    let clusters = destinations.iter().filter(|one| one.weight > 0).filter_map(|one| one.cluster);
    clusters.map(|id| program.cluster(id)).find_map(|cluster| Some(&cluster.policy.hash()?.key))
}

/// How long a client waits for what has this salt and weight: whoever comes first gets it.
pub(super) fn wait_for(hash: u64, salt: u64, weight: f64) -> f64 {
    // 53 bits, moved by a half, so that it is neither 0 nor 1.
    let uniform = ((mix(hash, salt) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -uniform.ln() / weight
}

/// The destination that a client stays in. Each gets its share of the clients by weight, and where weights change, only
/// as many clients move as must: one who is in the canary stays there while its weight grows.
pub fn stay(destinations: &[WeightedCluster], hash: u64) -> Option<&WeightedCluster> {
    if let [only] = destinations {
        return Some(only);
    }
    // Rendezvous with weights: everybody draws an exponential waiting time, and the first to come wins.
    let wait = |position: usize, destination: &WeightedCluster| {
        let twins = destinations[..position].iter().filter(|earlier| earlier.name == destination.name).count() as u64;
        let salt = XxHash64::oneshot(twins, destination.name.as_bytes());
        wait_for(hash, salt, f64::from(destination.weight))
    };
    let weighted = destinations.iter().enumerate().filter(|(_, destination)| destination.weight > 0);
    weighted
        .map(|(position, destination)| (wait(position, destination), destination))
        .min_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, destination)| destination)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, Method};

    use super::*;
    use crate::balance::Table;
    use crate::program::HashTable;

    const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 7));

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        given.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn view<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> RequestView<'a> {
        RequestView { method: &Method::GET, scheme: "http", authority: "shop", path: "/", query, headers }
    }

    fn of(key: &HashKey, given: &[(&'static str, &str)], query: Option<&str>) -> Option<u64> {
        let headers = headers(given);
        affinity(key, &view(&headers, query), CLIENT, 5).map(|found| found.hash)
    }

    fn cookie(ttl: Option<Duration>) -> Cookie {
        Cookie { name: "user".into(), path: "".into(), ttl, attributes: Box::default() }
    }

    #[test]
    fn the_hash_is_that_of_the_value() {
        let header = HashKey::Header(HeaderName::from_static("x-user"));
        let cookie = HashKey::Cookie(cookie(None));
        let query = HashKey::QueryParameter("user".into());
        let ann = Some(XxHash64::oneshot(0, b"ann"));
        assert_eq!(hash(b"abc"), 0x44bc_2cf5_ad77_0999, "xxHash64 itself, or clients move with an upgrade");
        assert_eq!(of(&header, &[("x-user", "ann")], None), ann);
        assert_eq!(
            of(&header, &[("x-user", "ann"), ("x-user", "b")], None),
            of(&header, &[("x-user", "b"), ("x-user", "ann")], None)
        );
        assert_eq!(of(&cookie, &[("cookie", "a=1; user=ann; user=b")], None), ann);
        assert_eq!(of(&cookie, &[("cookie", "a=1"), ("cookie", "user=\"ann\"")], None), ann);
        assert_eq!(of(&query, &[], Some("a=1&user=ann&user=b")), ann);
        let mapped = "::ffff:10.0.0.7".parse().unwrap();
        assert_eq!(of(&HashKey::SourceIp, &[], None), affinity_of_connection(&HashKey::SourceIp, mapped));
        assert!(affinity_of_connection(&HashKey::SourceIp, CLIENT).is_some());
    }

    #[test]
    fn a_request_without_the_key_goes_anywhere() {
        let header = HashKey::Header(HeaderName::from_static("x-user"));
        for (key, given) in [
            (&header, ("x-other", "ann")),
            (&HashKey::Cookie(cookie(None)), ("cookie", "users=ann; user=; xuser=b; user")),
            (&HashKey::QueryParameter("user".into()), ("x-user", "ann")),
        ] {
            assert_eq!(of(key, &[given], Some("users=ann")), None);
        }
        assert_eq!(affinity_of_connection(&header, CLIENT), None);
    }

    #[test]
    fn a_made_cookie_leads_back_to_where_it_was_made() {
        let mut made = cookie(Some(Duration::from_hours(1)));
        made.path = "/shop".into();
        made.attributes = [("SameSite", "Strict"), ("Secure", "")].map(|(n, v)| (n.into(), v.into())).into();
        let key = HashKey::Cookie(made);
        let nothing = headers(&[]);
        let first = affinity(&key, &view(&nothing, None), CLIENT, 0xab).expect("one is made");
        let text = first.cookie.expect("a cookie").header().expect("a header");
        assert_eq!(text, "user=\"00000000000000ab\"; Max-Age=3600; Path=/shop; SameSite=Strict; Secure; HttpOnly");
        let sent = text.to_str().unwrap().split(';').next().unwrap().to_owned();
        let back = headers(&[("cookie", &sent)]);
        let again = affinity(&key, &view(&back, None), CLIENT, 99).expect("it has one");
        assert_eq!(again, Affinity { hash: first.hash, cookie: None });
        for (ttl, text) in
            [(0, "user=\"0000000000000001\"; HttpOnly"), (100, "user=\"0000000000000001\"; Max-Age=1; HttpOnly")]
        {
            let cookie = cookie(Some(Duration::from_millis(ttl)));
            assert_eq!(MadeCookie { cookie: &cookie, value: 1 }.to_string(), text);
        }
        let odd = Cookie { name: "a\nb".into(), ..cookie(Some(Duration::ZERO)) };
        assert_eq!(MadeCookie { cookie: &odd, value: 1 }.header(), None);
    }

    fn split(weights: &[(&str, u32)]) -> Vec<WeightedCluster> {
        weights.iter().map(|(name, weight)| WeightedCluster::new(None, *weight, (*name).into())).collect()
    }

    fn users() -> impl Iterator<Item = u64> {
        (0..100_000).map(|n| hash(format!("user-{n}").as_bytes()))
    }

    fn in_canary(destinations: &[WeightedCluster], user: u64) -> bool {
        *stay(destinations, user).expect("there is weight").name == *"canary"
    }

    #[test]
    fn a_canary_gets_its_percent_of_the_clients_within_a_tenth_of_a_point() {
        for percent in [1, 5, 50] {
            let destinations = split(&[("stable", 100 - percent), ("canary", percent)]);
            let hits = users().filter(|user| in_canary(&destinations, *user)).count() as i64;
            // Of half of them, chance alone makes 0.16 points one standard deviation.
            let allowed = if percent == 1 { 100 } else { 500 };
            assert!((hits - i64::from(percent) * 1_000).abs() <= allowed, "{percent} %: {hits}");
        }
        let twins = split(&[("stable", 50), ("canary", 25), ("canary", 25)]);
        let hits = users().filter(|user| in_canary(&twins, *user)).count();
        assert!(hits.abs_diff(50_000) < 500, "one that is there twice has both shares: {hits}");
    }

    #[test]
    fn a_client_stays_in_the_canary_while_it_grows_and_whatever_the_order() {
        let steps = [1, 5, 20, 50, 100].map(|percent| split(&[("canary", percent), ("stable", 100 - percent)]));
        for user in users().take(20_000) {
            let path: Vec<bool> = steps.iter().map(|step| in_canary(step, user)).collect();
            assert!(path.is_sorted(), "{path:?}");
        }
        let (one, other) =
            (split(&[("canary", 10), ("b", 60), ("c", 30)]), split(&[("c", 30), ("canary", 10), ("b", 60)]));
        assert!(
            users().take(20_000).all(|user| stay(&one, user).map(|d| &d.name) == stay(&other, user).map(|d| &d.name))
        );
        assert_eq!(stay(&split(&[("a", 0), ("b", 0)]), 1), None);
        assert_eq!(stay(&split(&[("a", 0)]), 1).map(|d| d.weight), Some(0), "a single weight is ignored");
    }

    #[test]
    fn the_canarys_clients_are_spread_over_all_its_pods() {
        let destinations = split(&[("stable", 95), ("canary", 5)]);
        let pods: Vec<_> = (1..=5).map(|n| (std::net::SocketAddr::from(([10, 0, 0, n], 80)), 1)).collect();
        for kind in [HashTable::DEFAULT, HashTable::Maglev(65_537)] {
            let table = Table::new(kind, pods.clone());
            let mut hits = [0_usize; 5];
            users().filter(|user| in_canary(&destinations, *user)).for_each(|user| {
                hits[table.pick(user, |_| true).expect("five")] += 1;
            });
            assert!(hits.iter().all(|hits| (800..=1_200).contains(hits)), "{kind:?}: {hits:?}");
        }
    }
}
