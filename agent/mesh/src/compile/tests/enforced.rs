//! What the data path does not do is told, once, by what is lost.

use super::*;
use crate::finding::code;

#[test]
fn fields_beyond_this_version_are_told_by_what_is_lost() {
    let spec = "{hosts: [b], tls: [{match: [{sniHosts: [b]}], route: [{destination: {host: b}}]}], http: [{
      timeout: 1s, retries: {attempts: 3}, rewrite: {uri: /}, mirror: {host: b}, headers: {}, corsPolicy: {},
      fault: {delay: {fixedDelay: 1s}, abort: {httpStatus: 500}}, route: [{destination: {host: b}, headers: {}}]}]}";
    let policy =
        "{host: b, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH, warmup: {duration: 1s}}, outlierDetection: {},
      tls: {mode: ISTIO_MUTUAL}, proxyProtocol: {}, connectionPool: {http: {maxRetries: 1, maxConcurrentStreams: 1, h2UpgradePolicy: UPGRADE}, tcp: {maxConnections: 1}},
      portLevelSettings: [{port: {number: 80}, loadBalancer: {consistentHash: {useSourceIp: true}}}]}}";
    let ports = "{name: http, port: 80, targetPort: 8080}, {name: http-2, port: 81, targetPort: 8080}";
    let compiled = compiled(&[shop(ports), vs("shop", "b", spec), dr("shop", "z", policy)].concat());
    let told = |severity: Severity| -> Vec<String> {
        let told = compiled.findings.iter().filter(|f| f.code == code::NOT_SUPPORTED && f.severity == severity);
        told.map(|f| f.message.split('`').nth(1).unwrap_or_default().trim_start_matches("spec.").to_owned()).collect()
    };
    let mut errors = told(Severity::Error);
    errors.sort();
    assert_eq!(errors, ["trafficPolicy.proxyProtocol", "trafficPolicy.tls",]);
    let mut warnings = told(Severity::Warning);
    warnings.sort();
    assert_eq!(
        warnings,
        [
            "trafficPolicy.connectionPool.http.h2UpgradePolicy: UPGRADE",
            "trafficPolicy.connectionPool.http.maxConcurrentStreams",
        ]
    );
}

#[test]
fn no_retries_and_switched_off_zones_are_in_force() {
    let spec = "{hosts: [b], http: [{retries: {attempts: 0}, route: [{destination: {host: b}}]}]}";
    let policy =
        "{host: b, trafficPolicy: {loadBalancer: {zoneAwareLbSetting: {enabled: false}}, tls: {mode: DISABLE}}}";
    let compiled = compiled(&[shop(HTTP), vs("shop", "b", spec), dr("shop", "z", policy)].concat());
    assert_eq!(compiled.found(code::NOT_SUPPORTED), [""; 0]);
}
