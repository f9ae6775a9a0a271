//! RequestAuthentication: who issues tokens, where they are found, and what becomes of their claims.

use super::at::{At, Report};
use super::common;
use super::names::is_header_name;

pub(super) fn rules(report: &mut Report<'_>, spec: &At<'_>) {
    common::selector_or_targets(report, spec);
    for rule in spec.items("jwtRules") {
        jwt_rule(report, &rule);
    }
}

fn jwt_rule(report: &mut Report<'_>, rule: &At<'_>) {
    let (uri, keys) = (rule.text("jwksUri"), rule.text("jwks"));
    if rule.text("issuer").is_empty() && uri.is_empty() && keys.is_empty() {
        report.field(rule, "issuer", "must be given, or jwksUri");
    }
    if rule.has("jwksUri") && rule.has("jwks") {
        report.error(rule, "only one of jwks and jwksUri may be given");
    }
    if !uri.is_empty()
        && let Err(why) = key_set_address(uri)
    {
        report.field(rule, "jwksUri", why);
    }
    if !keys.is_empty()
        && let Err(why) = key_set(keys)
    {
        report.field(rule, "jwks", why);
    }
    for field in ["audiences", "fromParams", "fromCookies", "spaceDelimitedClaims"] {
        for value in rule.items(field).iter().filter(|value| value.node().text() == Some("")) {
            report.error(value, "must not be empty");
        }
    }
    for header in rule.items("fromHeaders") {
        if header.has("name") && header.text("name").is_empty() {
            report.field(&header, "name", "must not be empty");
        }
    }
    for output in rule.items("outputClaimToHeaders") {
        if output.has("claim") && output.text("claim").is_empty() {
            report.field(&output, "claim", "must not be empty");
        }
        let header = output.text("header");
        if output.has("header") && !is_header_name(header) {
            report.field(&output, "header", format!("`{header}` is no name of a header"));
        }
    }
}

/// `http://HOST[:PORT]/…` or `https://…`.
fn key_set_address(uri: &str) -> Result<(), String> {
    let Some(rest) = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://")) else {
        return Err(format!("`{uri}` must begin with http:// or https://"));
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    // The colons of an IPv6 address are in brackets.
    let port = match host.rsplit_once(']') {
        Some((_, after)) => after.strip_prefix(':'),
        None => host.split_once(':').map(|(_, port)| port),
    };
    match port {
        Some(port)
            if !port.is_empty() && !port.parse::<u16>().is_ok_and(|_| port.bytes().all(|b| b.is_ascii_digit())) =>
        {
            Err(format!("`{uri}`: `{port}` is no port"))
        }
        _ if rest.contains(|c: char| c.is_ascii_control() || c == ' ') => Err(format!("`{uri}` is no URL")),
        _ => Ok(()),
    }
}

/// A JSON object with `keys`, or one key.
fn key_set(text: &str) -> Result<(), String> {
    let json: serde_json::Value = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
    let object = json.as_object().ok_or("must be a JSON object")?;
    let keys = match object.get("keys") {
        Some(keys) => keys.as_array().ok_or("`keys` must be a list")?.as_slice(),
        None => std::slice::from_ref(&json),
    };
    let known = |key: &serde_json::Value| {
        matches!(key.get("kty").and_then(|kty| kty.as_str()), Some("RSA" | "EC" | "oct" | "OKP"))
    };
    match keys.iter().position(|key| !known(key)) {
        Some(index) => Err(format!("key {index} has no `kty` that is known (RSA, EC, OKP or oct)")),
        None => Ok(()),
    }
}
