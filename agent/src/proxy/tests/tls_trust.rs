//! What a server must prove before it gets a request, at each level where `tls` of a DestinationRule can stand.

use std::net::SocketAddr;

use super::authority::{Authority, Wanted};
use super::harness::{Mesh, at_each_level, named};
use super::tls::{B, ask, refused, seen};

/// A server is refused by a rule with this `tls`, at whatever level it stands.
async fn refused_at_each_level(address: SocketAddr, tls: &str, why: &str) {
    let check = async |rule: String| refused(&mut Mesh::ruled(&[("b", &[address])], &rule), "b", why).await;
    at_each_level(&format!("tls: {{{tls}}}"), check).await;
}

/// And one answers.
async fn answered_at_each_level(address: SocketAddr, tls: &str) {
    let check = async |rule: String| {
        assert_eq!(ask(&mut Mesh::ruled(&[("b", &[address])], &rule), "b").await.0, 200, "{tls}");
    };
    at_each_level(&format!("tls: {{{tls}}}"), check).await;
}

#[tokio::test]
async fn the_name_of_a_rule_is_asked_for_whatever_the_request_says() {
    let authority = Authority::new();
    let spec = format!("tls: {{mode: SIMPLE, caCertificates: {}, sni: b.example.com}}", authority.ca());
    at_each_level(&spec, async |rule| {
        let (address, saw) = authority.http(B, false, "sealed").await;
        assert_eq!(ask(&mut Mesh::ruled(&[("b", &[address])], &rule), "b").await.1, "sealed");
        let names: Vec<_> = seen(&saw).into_iter().map(|saw| saw.sni.unwrap()).collect();
        assert_eq!(names, ["b.example.com"]);
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_proves_nothing_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let ca = ours.ca();
    let good = ours.http(B, false, "good").await.0;
    let wrong_name = ours.http(Wanted { names: &["c.example.com"], ..B }, false, "name").await.0;
    let wrong_authority = theirs.http(B, false, "authority").await.0;
    let expired = ours.http(Wanted { expired: true, ..B }, false, "expired").await.0;
    let revoked = ours.http(Wanted { revoked: true, ..B }, false, "revoked").await.0;
    let plain = named("plain").await;
    let list = ours.list();
    for (address, why) in [
        (wrong_name, "not for b.example.com"),
        (wrong_authority, "UnknownIssuer"),
        (expired, "xpired"),
        (revoked, "evoked"),
        (plain, "InvalidContentType"),
    ] {
        let spec = format!("mode: SIMPLE, caCertificates: {ca}, caCrl: {list}, sni: b.example.com");
        refused_at_each_level(address, &spec, why).await;
    }
    // Nor does anything prove that it was not revoked, where the list is past its time or another's.
    for (list, why) in
        [(ours.list_until("old.pem", 2023), "ExpiredRevocationList"), (theirs.list(), "UnknownRevocationStatus")]
    {
        let spec = format!("mode: SIMPLE, caCertificates: {ca}, caCrl: {list}, sni: b.example.com");
        refused_at_each_level(good, &spec, why).await;
    }
    // The system's authorities have not signed it either.
    refused_at_each_level(good, "mode: SIMPLE, sni: b.example.com", "").await;
    for (address, spec) in [
        (good, format!("mode: SIMPLE, caCertificates: {ca}, caCrl: {list}, sni: b.example.com")),
        (revoked, format!("mode: SIMPLE, caCertificates: {ca}, sni: b.example.com")),
        (wrong_name, "mode: SIMPLE, insecureSkipVerify: true".to_owned()),
        (wrong_authority, "mode: SIMPLE, insecureSkipVerify: true".to_owned()),
        (expired, "mode: SIMPLE, insecureSkipVerify: true".to_owned()),
    ] {
        answered_at_each_level(address, &spec).await;
    }
}

#[tokio::test]
async fn names_of_the_rule_stand_for_the_name_that_was_asked_for() {
    let authority = Authority::new();
    let wanted = Wanted { names: &["*.example.com", "spiffe://td/ns/x/sa/y", "192.0.2.7"], ..B };
    let (address, _) = authority.http(wanted, false, "sealed").await;
    let ca = authority.ca();
    for (names, fits) in [
        ("a.example.com", true),
        ("'spiffe://td/ns/x/sa/y'", true),
        ("192.0.2.7", true),
        ("other.org, b.example.com", true),
        ("'spiffe://td/ns/x/sa/z'", false),
        ("example.com", false),
        ("192.0.2.8", false),
    ] {
        let spec = format!("mode: SIMPLE, caCertificates: {ca}, sni: unrelated.org, subjectAltNames: [{names}]");
        if fits {
            answered_at_each_level(address, &spec).await;
        } else {
            refused_at_each_level(address, &spec, "not for ").await;
        }
    }
}
