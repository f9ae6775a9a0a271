//! Istio's Gateway: its servers, their ports, hosts and TLS.

use std::collections::BTreeSet;

use super::at::{At, Report};
use super::common::port;
use super::names::{Protocol, is_ip, is_label, protocol, unix_path, wildcard_domain};

/// What OpenSSL calls the ciphers that a gateway can use.
const CIPHERS: &[&str] = &[
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

const VERSIONS: &[&str] = &["TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"];

pub(super) fn rules(report: &mut Report<'_>, root: &At<'_>, spec: &At<'_>) {
    let name = &report.object.name;
    if !is_label(name)
        && let Some(metadata) = root.get("metadata")
    {
        report.field(&metadata, "name", format!("`{name}`: the name of a Gateway is a DNS label, without dots"));
    }
    let servers = spec.items("servers");
    if servers.is_empty() {
        report.field(spec, "servers", "must have a server");
    }
    let mut names = BTreeSet::new();
    for server in &servers {
        let name = server.get("port").map_or("", |port| port.text("name"));
        if !names.insert(name) && !name.is_empty() {
            report.error(server, format!("the port's name `{name}` is there twice"));
        }
        self::server(report, server);
    }
}

fn server(report: &mut Report<'_>, server: &At<'_>) {
    let hosts = server.items("hosts");
    if hosts.is_empty() && server.has("hosts") {
        report.field(server, "hosts", "must name a host, or `*`");
    }
    for host in &hosts {
        self::host(report, host);
    }
    let bind = server.get("bind");
    let socket = bind.as_ref().and_then(|bind| bind.str().strip_prefix("unix://"));
    let number = server.get("port").and_then(|port| port.int("number"));
    match (&bind, socket) {
        (Some(bind), Some(path)) => {
            if let Err(why) = unix_path(path) {
                report.error(bind, why);
            }
            if number.is_some_and(|number| number != 0) {
                report.error(bind, "a Unix socket has the port number 0");
            }
        }
        (Some(bind), None) if !bind.str().is_empty() && !is_ip(bind.str()) => {
            report.error(bind, format!("`{}` must be an IP address or unix://PATH", bind.str()));
        }
        _ => {}
    }
    let tls = server.get("tls");
    if let Some(tls) = &tls {
        tls_options(report, tls);
    }
    let Some(port_of_server) = server.get("port") else {
        return;
    };
    if socket.is_none() {
        port(report, &port_of_server, "number");
    }
    if port_of_server.int("targetPort").is_some_and(|port| port > 0) {
        let at = port_of_server.get("targetPort").expect("it is there");
        report.warn(&at, "does nothing at a gateway");
    }
    if port_of_server.has("name") && port_of_server.text("name").is_empty() {
        report.field(&port_of_server, "name", "must not be empty");
    }
    if let Some(name) = port_of_server.get("protocol") {
        match protocol(name.str()) {
            None => {
                let message =
                    format!("`{}` must be one of HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, MONGO, TCP and TLS", name.str());
                report.error(&name, message);
            }
            Some(spoken) => tls_of_protocol(report, server, tls.as_ref(), spoken, name.str()),
        }
    }
}

/// TLS where the protocol has it, and nowhere else; a plain HTTP port may redirect to HTTPS.
fn tls_of_protocol(report: &mut Report<'_>, server: &At<'_>, tls: Option<&At<'_>>, spoken: Protocol, name: &str) {
    match (spoken, tls) {
        (Protocol::Tls, None) => {
            report.field(server, "tls", format!("must be given for {name}"));
        }
        (Protocol::Http, Some(tls)) => {
            let passes = matches!(tls.text("mode"), "" | "PASSTHROUGH" | "AUTO_PASSTHROUGH");
            let certificate =
                ["caCertificates", "privateKey", "serverCertificate"].into_iter().any(|key| !tls.text(key).is_empty());
            if !passes || certificate {
                report.error(tls, format!("{name} is plain text: only httpsRedirect may be given")).help =
                    Some("write `protocol: HTTPS`".to_owned());
            }
        }
        (Protocol::Tcp | Protocol::Udp, Some(tls)) => {
            report.error(tls, format!("cannot be given for {name}")).help = Some("write `protocol: TLS`".to_owned());
        }
        _ => {}
    }
    if spoken != Protocol::Http
        && let Some(tls) = tls
        && tls.is_true("httpsRedirect")
    {
        let at = tls.get("httpsRedirect").expect("it is there");
        report.warn(&at, "does something on ports with plain HTTP only");
    }
}

/// `[namespace/]host`, where the namespace may be `.` or `*`.
fn host(report: &mut Report<'_>, at: &At<'_>) {
    let (namespace, name) = at.str().split_once('/').map_or((None, at.str()), |(ns, name)| (Some(ns), name));
    if let Some(namespace) = namespace
        && !matches!(namespace, "*" | ".")
        && !is_label(namespace)
    {
        report.error(at, format!("`{namespace}` must be a namespace, `.` or `*`"));
    }
    if is_ip(name) {
        return;
    }
    if let Err(why) = wildcard_domain(name) {
        report.error(at, why);
    } else if name != "*" && !name.contains('.') {
        report.error(at, format!("`{name}` is a short name: clients of a gateway use full ones"));
    } else if name.contains('*') && name != "*" && !name.starts_with("*.") {
        report.error(at, format!("`{name}`: `*` must be a whole label, as in `*.example.com`"));
    }
}

fn tls_options(report: &mut Report<'_>, tls: &At<'_>) {
    let version = |key| VERSIONS.iter().position(|version| *version == tls.text(key));
    let (min, max) = (version("minProtocolVersion"), version("maxProtocolVersion"));
    if let (Some(min), Some(max)) = (min, max)
        && min > max
    {
        report.field(tls, "minProtocolVersion", "must not be greater than maxProtocolVersion");
    }
    let ciphers = tls.items("cipherSuites");
    if min.is_some_and(|min| min < 2) && ciphers.is_empty() {
        let at = tls.get("minProtocolVersion").expect("it is there");
        report.warn(&at, "versions before TLSV1_2 work only with cipherSuites that fit them");
    }
    let mut seen = BTreeSet::new();
    for cipher in &ciphers {
        let name = cipher.str();
        // What begins with a sign is an operator of OpenSSL's list.
        let operator = !name.starts_with(|c: char| c.is_alphanumeric()) || name == "ALL";
        if !operator && !CIPHERS.contains(&name) {
            report.warn(cipher, format!("`{name}` is no cipher that can be used, and is left out"));
        } else if !seen.insert(name) {
            report.warn(cipher, format!("`{name}` is there twice"));
        }
    }
    certificates(report, tls);
}

fn certificates(report: &mut Report<'_>, tls: &At<'_>) {
    let text = |key: &str| !tls.text(key).is_empty();
    let mode = if text("mode") { tls.text("mode") } else { "PASSTHROUGH" };
    let credentials = !tls.items("credentialNames").is_empty();
    let several = tls.items("tlsCertificates");
    match mode {
        "ISTIO_MUTUAL" => {
            let fields = ["serverCertificate", "privateKey", "caCertificates", "credentialName"];
            let lists = [("credentialNames", credentials), ("tlsCertificates", !several.is_empty())];
            let given = fields.into_iter().map(|field| (field, text(field))).chain(lists);
            for (field, _) in given.filter(|(_, given)| *given) {
                report.field(tls, field, "ISTIO_MUTUAL uses the mesh's own certificates");
            }
        }
        "SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL" => terminated(report, tls, mode, &several, credentials),
        _ => {
            let fields = ["caCrl", "serverCertificate", "privateKey", "caCertificates", "credentialName"];
            if fields.into_iter().any(text) || credentials || !several.is_empty() {
                report.warn(tls, format!("{mode} uses no certificate: those given do nothing"));
            }
        }
    }
}

/// Where the gateway's certificate comes from: one source, and everything of it.
fn terminated(report: &mut Report<'_>, tls: &At<'_>, mode: &str, several: &[At<'_>], credentials: bool) {
    let text = |key: &str| !tls.text(key).is_empty();
    let sources: Vec<&str> = [
        ("credentialName", text("credentialName")),
        ("credentialNames", credentials),
        ("serverCertificate and privateKey", text("serverCertificate") && text("privateKey")),
        ("tlsCertificates", !several.is_empty()),
    ]
    .into_iter()
    .filter_map(|(name, given)| given.then_some(name))
    .collect();
    if sources.len() > 1 {
        report.error(tls, format!("only one source of certificates may be given, not {}", sources.join(" and ")));
        return;
    }
    if text("credentialName") || credentials {
        return;
    }
    if several.is_empty() {
        for (field, what) in [("serverCertificate", "a certificate"), ("privateKey", "a private key")] {
            if !text(field) {
                report.field(tls, field, format!("{mode} needs {what}: this field, or credentialName"));
            }
        }
    }
    for certificate in several {
        for field in ["serverCertificate", "privateKey"] {
            if certificate.text(field).is_empty() {
                report.field(certificate, field, "must be given");
            }
        }
    }
    if mode != "SIMPLE" && !text("caCertificates") && !text("caCertCredentialName") {
        report.field(tls, "caCertificates", format!("{mode} needs the authority that signs clients' certificates"));
    }
    if mode == "SIMPLE" && text("caCrl") {
        report.field(tls, "caCrl", "is for clients' certificates, which SIMPLE does not ask for");
    }
}
