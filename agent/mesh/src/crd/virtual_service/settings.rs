//! Retries, faults, mirrors and CORS.

use ::http::HeaderValue;

use super::http::{Mirror, RouteDestination};
use super::matches::one_match;
use crate::crd::duration;
use crate::crd::fields::{Fault, Fields};
use crate::matching::StringMatch;
use crate::program::{Abort, CorsPolicy, FaultInjection, RetryOn, RetryPolicy, Share};

/// gRPC's statuses by number.
const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

pub(super) fn retries(fields: &mut Fields<'_>) -> Result<RetryPolicy, Fault> {
    let attempts = fields.integer("attempts", 0..=i64::from(i32::MAX))?.unwrap_or(0) as u32;
    let mut on = RetryOn::default();
    let mut statuses = Vec::new();
    let given = fields.text("retryOn")?.unwrap_or_default();
    for token in given.split(',').map(str::trim).filter(|token| !token.is_empty()) {
        match (RetryOn::token(token), token.parse::<u16>()) {
            (Some(one), _) => on = on.and(one),
            (None, Ok(status @ 100..=599)) => statuses.push(status),
            (None, _) => {
                let mark = fields.entry("retryOn").map_or(fields.mark, |entry| entry.node.mark);
                let message = format!("`{token}` is no condition to retry on");
                return Err(Fault::new(mark, fields.path_of("retryOn"), message));
            }
        }
    }
    if given.trim().is_empty() {
        on = RetryOn::ISTIO;
    }
    Ok(RetryPolicy {
        attempts,
        per_try_timeout: duration(fields, "perTryTimeout")?.map(|timeout| *timeout),
        backoff: duration(fields, "backoff")?.map_or(RetryPolicy::BACKOFF, |backoff| *backoff),
        on,
        statuses: statuses.into(),
        remote_localities: fields.boolean("retryRemoteLocalities")?.unwrap_or(false),
        ignore_previous_hosts: fields.boolean("retryIgnorePreviousHosts")?.unwrap_or(true),
    })
}

/// A percentage; where it is not given, the deprecated whole number.
fn share(fields: &mut Fields<'_>, key: &str, deprecated: &[&str]) -> Result<Option<Share>, Fault> {
    if let Some(mut percentage) = fields.map(key)? {
        return Ok(Some(Share::of_percent(percentage.number("value")?.unwrap_or(0.0))));
    }
    for key in deprecated {
        if let Some(percent) = fields.integer(key, 0..=100)? {
            return Ok(Some(Share::of_percent(percent as f64)));
        }
    }
    Ok(None)
}

/// Without a percentage a fault strikes nobody.
pub(super) fn fault(fields: &mut Fields<'_>) -> Result<FaultInjection, Fault> {
    let mut fault = FaultInjection::default();
    if let Some(mut delay) = fields.map("delay")? {
        let share = share(&mut delay, "percentage", &["percent"])?.unwrap_or(Share::NONE);
        delay.entry("percent");
        fault.delay = duration(&mut delay, "fixedDelay")?.map(|duration| (*duration, share));
    }
    if let Some(mut abort) = fields.map("abort")? {
        let share = share(&mut abort, "percentage", &[])?.unwrap_or(Share::NONE);
        let http = abort.integer("httpStatus", 200..=600)?.map(|status| Abort::Http(status as u16));
        let grpc = match abort.text("grpcStatus")? {
            None | Some("") => None,
            Some(name) => {
                let number = GRPC_STATUS.iter().position(|status| *status == name);
                Some(Abort::Grpc(number.ok_or_else(|| {
                    let message = format!("`{name}` is no name of a gRPC status, such as NOT_FOUND");
                    Fault::new(abort.mark, abort.path_of("grpcStatus"), message)
                })? as u8))
            }
        };
        fault.abort = http.or(grpc).map(|abort| (abort, share));
    }
    Ok(fault)
}

/// Without a percentage a mirror gets a copy of everything.
pub(super) fn mirrors(fields: &mut Fields<'_>) -> Result<Box<[Mirror]>, Fault> {
    let mut mirrors = Vec::new();
    let common = share(fields, "mirrorPercentage", &["mirrorPercent", "mirror_percent"])?.unwrap_or(Share::ALL);
    // Known by name, even where the first of them counts.
    for key in ["mirrorPercent", "mirror_percent"] {
        fields.entry(key);
    }
    if let Some(mut target) = fields.map("mirror")? {
        mirrors.push(Mirror { destination: RouteDestination::decode(&mut target)?, share: common });
    }
    for mut mirror in fields.maps("mirrors")? {
        let share = share(&mut mirror, "percentage", &[])?.unwrap_or(Share::ALL);
        let mut target = mirror.required_map("destination")?;
        mirrors.push(Mirror { destination: RouteDestination::decode(&mut target)?, share });
    }
    Ok(mirrors.into())
}

pub(super) fn cors(fields: &mut Fields<'_>) -> Result<CorsPolicy, Fault> {
    let mut origins = Vec::new();
    for mut origin in fields.maps("allowOrigins")? {
        origins.push(one_match(&mut origin, true)?);
    }
    // Outdated: whole origins, or `*`.
    let outdated = fields.texts("allowOrigin")?.into_iter();
    let outdated = outdated.map(|(origin, _)| match origin {
        "*" => StringMatch::Present,
        origin => StringMatch::Exact(origin.into()),
    });
    if origins.is_empty() {
        origins.extend(outdated);
    }
    for origin in &mut origins {
        if *origin == StringMatch::Exact("*".into()) {
            *origin = StringMatch::Present;
        }
    }
    let mut list = |key: &str| {
        let texts = fields.texts(key)?;
        let joined = texts.iter().map(|(text, _)| *text).collect::<Vec<_>>().join(",");
        let value = HeaderValue::from_bytes(joined.as_bytes())
            .map_err(|_| Fault::new(fields.mark, fields.path_of(key), "holds control characters"))?;
        Ok::<_, Fault>((!texts.is_empty()).then_some(value))
    };
    let (allow_methods, allow_headers, expose_headers) =
        (list("allowMethods")?, list("allowHeaders")?, list("exposeHeaders")?);
    Ok(CorsPolicy {
        allow_origins: origins.into(),
        allow_methods,
        allow_headers,
        expose_headers,
        max_age: duration(fields, "maxAge")?.map(|age| age.as_secs()),
        allow_credentials: fields.boolean("allowCredentials")?,
        ignore_unmatched_preflights: fields.text("unmatchedPreflights")? == Some("IGNORE"),
    })
}
