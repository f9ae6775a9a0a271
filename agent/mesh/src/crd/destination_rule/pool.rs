//! `connectionPool` and `outlierDetection`.

use std::time::Duration;

use crate::crd::fields::{Fault, Fields};
use crate::crd::{Notes, duration, duration_or_zero};
use crate::finding::Severity;
use crate::program::{ConnectionPool, HttpPool, OutlierDetection};

/// A count; 0 is as if it were not given.
fn count(fields: &mut Fields<'_>, key: &str) -> Result<Option<u32>, Fault> {
    Ok(fields.integer(key, 0..=i64::from(i32::MAX))?.filter(|count| *count > 0).map(|count| count as u32))
}

fn time(fields: &mut Fields<'_>, key: &str) -> Result<Option<Duration>, Fault> {
    Ok(duration(fields, key)?.map(|duration| *duration))
}

pub(super) fn connection_pool(fields: &mut Fields<'_>, notes: &mut Notes<'_>) -> Result<ConnectionPool, Fault> {
    let mut pool = ConnectionPool::default();
    if let Some(mut tcp) = fields.map("tcp")? {
        pool.max_connections = count(&mut tcp, "maxConnections")?;
        pool.connect_timeout = time(&mut tcp, "connectTimeout")?;
        pool.max_connection_duration = time(&mut tcp, "maxConnectionDuration")?;
        // Istio's schema takes any text here.
        pool.tcp_idle_timeout = match duration_or_zero(&mut tcp, "idleTimeout") {
            Ok(timeout) => timeout.map(|timeout| *timeout),
            Err(fault) => {
                notes.unsupported(Severity::Warning, fault.mark, &fault.path, "it is no duration, so it does nothing");
                None
            }
        };
        if let Some(mut keepalive) = tcp.map("tcpKeepalive")? {
            let probes = keepalive.integer("probes", 0..=i64::from(u32::MAX))?.map(|probes| probes as u32);
            pool.keepalive = Some((probes, time(&mut keepalive, "time")?, time(&mut keepalive, "interval")?));
        }
    }
    if let Some(mut http) = fields.map("http")? {
        let keepalive = match http.map("http2KeepAlive")? {
            Some(mut keepalive) => time(&mut keepalive, "interval")?.zip(time(&mut keepalive, "timeout")?),
            None => None,
        };
        pool.http = Some(HttpPool {
            max_pending_requests: count(&mut http, "http1MaxPendingRequests")?,
            max_requests: count(&mut http, "http2MaxRequests")?,
            max_requests_per_connection: count(&mut http, "maxRequestsPerConnection")?,
            max_retries: count(&mut http, "maxRetries")?,
            idle_timeout: time(&mut http, "idleTimeout")?,
            upgrade: match http.text("h2UpgradePolicy")? {
                Some("UPGRADE") => Some(true),
                Some("DO_NOT_UPGRADE") => Some(false),
                _ => None,
            },
            use_client_protocol: http.boolean("useClientProtocol")?.unwrap_or(false),
            max_concurrent_streams: count(&mut http, "maxConcurrentStreams")?,
            keepalive,
        });
    }
    Ok(pool)
}

pub(super) fn outlier_detection(fields: &mut Fields<'_>, _: &mut Notes<'_>) -> Result<OutlierDetection, Fault> {
    let mut outlier = OutlierDetection::default();
    let mut errors = |key: &str| Ok::<_, Fault>(fields.integer(key, 0..=i64::from(u32::MAX))?.map(|n| n as u32));
    // Outdated: what are gateway errors now.
    let outdated = errors("consecutiveErrors")?.filter(|count| *count > 0);
    let gateway = errors("consecutiveGatewayErrors")?;
    outlier.consecutive_gateway_errors = gateway.or(outdated).unwrap_or(outlier.consecutive_gateway_errors);
    outlier.consecutive_5xx_errors = errors("consecutive5xxErrors")?.unwrap_or(outlier.consecutive_5xx_errors);
    outlier.consecutive_local_origin_failures =
        errors("consecutiveLocalOriginFailures")?.unwrap_or(outlier.consecutive_local_origin_failures);
    outlier.split_local_origin_errors = fields.boolean("splitExternalLocalOriginErrors")?.unwrap_or(false);
    outlier.interval = time(fields, "interval")?.unwrap_or(outlier.interval);
    outlier.base_ejection_time = time(fields, "baseEjectionTime")?.unwrap_or(outlier.base_ejection_time);
    let percent = fields.integer("maxEjectionPercent", 0..=100)?.filter(|percent| *percent > 0);
    outlier.max_ejection_percent = percent.map_or(outlier.max_ejection_percent, |percent| percent as u8);
    outlier.min_health_percent = fields.integer("minHealthPercent", 0..=100)?.unwrap_or(0) as u8;
    let path = fields.path_of("outlierDetectionHttpErrorCodes");
    let codes = fields.list("outlierDetectionHttpErrorCodes")?.iter().map(|code| match code.value {
        crate::crd::node::Value::Int(code @ 100..=599) => Ok(code as u16),
        _ => Err(Fault::new(code.mark, path.clone(), "must be HTTP statuses between 100 and 599")),
    });
    outlier.http_error_codes = codes.collect::<Result<_, _>>()?;
    Ok(outlier)
}
