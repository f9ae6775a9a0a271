//! DestinationRule: subsets, and everything that a traffic policy says on its three levels.

use std::collections::BTreeSet;

use super::at::{At, Report};
use super::common::{self, Export, counts, percent, port};
use super::locality;
use super::names::{fqdn, is_ip, is_label};

/// Tables for Maglev hashing are smaller than this, and of a prime size.
const MAGLEV_LIMIT: i64 = 5_000_011;

const BLOCKS: &[&str] = &[
    "connectionPool",
    "loadBalancer",
    "outlierDetection",
    "portLevelSettings",
    "proxyProtocol",
    "retryBudget",
    "tls",
    "tunnel",
];

pub(super) fn rules(report: &mut Report<'_>, spec: &At<'_>) {
    if let Some(host) = spec.get("host") {
        common::wildcard_host(report, &host);
    }
    let selected = spec.has("workloadSelector");
    if let Some(policy) = spec.get("trafficPolicy") {
        traffic_policy(report, &policy);
    }
    let mut names = BTreeSet::new();
    for subset in &spec.items("subsets") {
        let name = subset.text("name");
        if subset.has("name") {
            if name.is_empty() {
                report.field(subset, "name", "must not be empty");
            } else if !is_label(name) {
                report.field(subset, "name", format!("`{name}` must be letters, digits and `-`"));
            } else if !names.insert(name) {
                report.field(subset, "name", format!("`{name}` is there twice"));
            }
        }
        common::labels(report, subset, "labels");
        if let Some(policy) = subset.get("trafficPolicy") {
            traffic_policy(report, &policy);
        }
    }
    common::export_to(report, spec, if selected { Export::OwnOnly } else { Export::Any });
    common::selector(report, spec, "workloadSelector", "matchLabels");
}

fn traffic_policy(report: &mut Report<'_>, policy: &At<'_>) {
    if policy.given(BLOCKS).is_empty() {
        report.error(policy, format!("must have one of {}", BLOCKS.join(", ")));
    }
    if policy.has("tunnel") && policy.has("proxyProtocol") {
        report.error(policy, "only one of tunnel and proxyProtocol may be given");
    }
    blocks(report, policy);
    tunnel(report, policy);
    for settings in policy.items("portLevelSettings") {
        match settings.get("port") {
            Some(selector) if selector.has("number") => port(report, &selector, "number"),
            Some(selector) => {
                report.field(&selector, "number", "must be given");
            }
            None => {
                report.field(&settings, "port", "must be given");
            }
        }
        if settings.given(&["connectionPool", "loadBalancer", "outlierDetection", "tls"]).is_empty() {
            report.error(&settings, "must have one of connectionPool, loadBalancer, outlierDetection and tls");
        }
        blocks(report, &settings);
    }
}

fn blocks(report: &mut Report<'_>, policy: &At<'_>) {
    let outlier = policy.get("outlierDetection");
    if let Some(outlier) = &outlier {
        outlier_detection(report, outlier);
    }
    if let Some(pool) = policy.get("connectionPool") {
        connection_pool(report, &pool);
    }
    if let Some(balancer) = policy.get("loadBalancer") {
        load_balancer(report, &balancer, outlier.is_some());
    }
    if let Some(tls) = policy.get("tls") {
        client_tls(report, &tls);
    }
}

fn tunnel(report: &mut Report<'_>, policy: &At<'_>) {
    let Some(tunnel) = policy.get("tunnel") else {
        return;
    };
    if let Some(protocol) = tunnel.get("protocol")
        && !matches!(protocol.str(), "" | "CONNECT" | "POST")
    {
        report.error(&protocol, format!("`{}` must be CONNECT or POST", protocol.str()));
    }
    if let Some(host) = tunnel.get("targetHost")
        && let Err(why) = fqdn(host.str())
        && !is_ip(host.str())
    {
        report.error(&host, why);
    }
    port(report, &tunnel, "targetPort");
}

fn outlier_detection(report: &mut Report<'_>, outlier: &At<'_>) {
    if let Some(errors) = outlier.get("consecutiveErrors")
        && outlier.int("consecutiveErrors") != Some(0)
    {
        report.warn(&errors, "is outdated").help =
            Some("write consecutive5xxErrors or consecutiveGatewayErrors".to_owned());
    }
    if outlier.int("consecutiveLocalOriginFailures").is_some_and(|count| count > 0)
        && !outlier.is_true("splitExternalLocalOriginErrors")
    {
        report.field(outlier, "consecutiveLocalOriginFailures", "counts nothing of its own otherwise").help =
            Some("add `splitExternalLocalOriginErrors: true`".to_owned());
    }
    percent(report, outlier, "maxEjectionPercent");
    percent(report, outlier, "minHealthPercent");
}

fn connection_pool(report: &mut Report<'_>, pool: &At<'_>) {
    if pool.given(&["http", "tcp"]).is_empty() {
        report.error(pool, "must have one of http and tcp");
    }
    if let Some(http) = pool.get("http") {
        let limits = [
            "http1MaxPendingRequests",
            "http2MaxRequests",
            "maxRequestsPerConnection",
            "maxRetries",
            "maxConcurrentStreams",
        ];
        counts(report, &http, &limits);
        if http.text("h2UpgradePolicy") == "UPGRADE" && http.is_true("useClientProtocol") {
            let message = "cannot be true together with `h2UpgradePolicy: UPGRADE`";
            report.field(&http, "useClientProtocol", message);
        }
        if let Some(keepalive) = http.get("http2KeepAlive") {
            for field in ["interval", "timeout"] {
                if !keepalive.has(field) {
                    report.field(&keepalive, field, "must be given");
                }
            }
        }
    }
    if let Some(tcp) = pool.get("tcp") {
        counts(report, &tcp, &["maxConnections"]);
    }
}

fn load_balancer(report: &mut Report<'_>, balancer: &At<'_>, outlier: bool) {
    if let Some(hash) = balancer.get("consistentHash") {
        consistent_hash(report, &hash);
    }
    let (locality, zones) = (balancer.get("localityLbSetting"), balancer.get("zoneAwareLbSetting"));
    if locality.is_some() && zones.is_some() {
        report.error(balancer, "only one of localityLbSetting and zoneAwareLbSetting may be given");
    }
    if let Some(locality) = locality {
        locality::rules(report, &locality, outlier);
    }
    if let Some(zones) = zones {
        locality::failover(report, &zones);
    }
    let Some(warmup) = balancer.get("warmup") else {
        return;
    };
    if let Some(aggression) = warmup.float("aggression")
        && aggression <= 0.0
    {
        report.field(&warmup, "aggression", format!("must be greater than 0, is {aggression}"));
    }
}

fn consistent_hash(report: &mut Report<'_>, hash: &At<'_>) {
    if let Some(cookie) = hash.get("httpCookie") {
        if cookie.has("name") && cookie.text("name").is_empty() {
            report.field(&cookie, "name", "must not be empty");
        }
        for attribute in cookie.items("attributes") {
            if attribute.has("name") && attribute.text("name").is_empty() {
                report.field(&attribute, "name", "must not be empty");
            }
        }
    }
    if let Some(ring) = hash.get("minimumRingSize")
        && hash.int("minimumRingSize") != Some(0)
    {
        if hash.given(&["ringHash", "maglev"]).is_empty() {
            report.warn(&ring, "is outdated").help = Some("write `ringHash: {minimumRingSize: …}`".to_owned());
        } else {
            report.error(hash, "only one of minimumRingSize, ringHash and maglev may be given");
        }
    }
    if let Some(maglev) = hash.get("maglev") {
        let size = maglev.int("tableSize").unwrap_or(0);
        if size >= MAGLEV_LIMIT {
            report.field(&maglev, "tableSize", format!("must be less than {MAGLEV_LIMIT}, is {size}"));
        } else if size == 0 {
            report.field(&maglev, "tableSize", "must be given");
        } else if !is_prime(size) {
            report.field(&maglev, "tableSize", format!("must be a prime number, such as 65537, and {size} is none"));
        }
    }
}

/// 1 counts as one, as it does for Envoy.
fn is_prime(number: i64) -> bool {
    match number {
        ..=0 => false,
        1..=3 => true,
        _ if number % 2 == 0 => false,
        _ => (3..).step_by(2).take_while(|factor| factor * factor <= number).all(|factor| number % factor != 0),
    }
}

fn client_tls(report: &mut Report<'_>, tls: &At<'_>) {
    let text = |key: &&str| !tls.text(key).is_empty();
    let given = |keys: &'static [&'static str]| keys.iter().copied().filter(|key| text(key)).collect::<Vec<&str>>();
    let mode = tls.text("mode");
    if tls.is_true("insecureSkipVerify") {
        let mut excluded = match mode {
            "SIMPLE" => given(&["caCertificates", "credentialName"]),
            "MUTUAL" => given(&["caCertificates"]),
            _ => Vec::new(),
        };
        if matches!(mode, "SIMPLE" | "MUTUAL") && !tls.items("subjectAltNames").is_empty() {
            excluded.push("subjectAltNames");
        }
        for field in excluded {
            report.field(tls, field, "is for verifying, which `insecureSkipVerify: true` turns off");
        }
    }
    match mode {
        "SIMPLE" | "MUTUAL" if text(&"credentialName") => {
            for field in given(&["clientCertificate", "privateKey", "caCertificates", "caCrl"]) {
                report.field(tls, field, "cannot be given together with credentialName");
            }
        }
        "MUTUAL" => {
            for field in ["clientCertificate", "privateKey"] {
                if !text(&field) {
                    report.field(tls, field, "must be given for MUTUAL, or credentialName");
                }
            }
        }
        "ISTIO_MUTUAL" => {
            for field in given(&["clientCertificate", "privateKey", "caCertificates", "credentialName"]) {
                report.field(tls, field, "ISTIO_MUTUAL uses the mesh's own certificates");
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::is_prime;

    #[test]
    fn primes() {
        for prime in [1, 2, 3, 5, 65_537, 4_999_999] {
            assert!(is_prime(prime), "{prime}");
        }
        for number in [-3, 0, 4, 9, 65_536, 65_535] {
            assert!(!is_prime(number), "{number}");
        }
    }
}
