//! `loadBalancer`: simple and consistent hash, locality, warm-up.

use http::HeaderName;

use crate::crd::fields::{Fault, Fields};
use crate::crd::{Notes, duration, duration_or_zero};
use crate::program::{
    ConsistentHash, Cookie, Failover, HashKey, HashTable, LoadBalancer, LoadBalancing, Locality, Share, Warmup,
    ZoneAware,
};

/// Where a warm-up begins that does not say it.
const WARMUP_PERCENT: f64 = 10.0;
/// A straight line.
const AGGRESSION: f64 = 1.0;

pub(super) fn load_balancing(block: &mut Fields<'_>, _: &mut Notes<'_>) -> Result<LoadBalancing, Fault> {
    let mark = block.entry("simple").map_or(block.mark, |e| e.node.mark);
    let simple = match block.text("simple")?.unwrap_or("UNSPECIFIED") {
        "UNSPECIFIED" | "LEAST_CONN" | "LEAST_REQUEST" => LoadBalancer::LeastRequest,
        "ROUND_ROBIN" => LoadBalancer::RoundRobin,
        "RANDOM" => LoadBalancer::Random,
        "PASSTHROUGH" => LoadBalancer::Passthrough,
        other => {
            let message = format!(
                "`{other}` must be one of ROUND_ROBIN, RANDOM, LEAST_REQUEST, LEAST_CONN, PASSTHROUGH and UNSPECIFIED"
            );
            return Err(Fault::new(mark, block.path_of("simple"), message));
        }
    };
    let hash = match block.map("consistentHash")? {
        Some(hash) => consistent_hash(hash)?,
        None => None,
    };
    let locality = match block.map("localityLbSetting")? {
        Some(locality) => Some(self::locality(locality)?),
        None => None,
    };
    let zone_aware = match block.map("zoneAwareLbSetting")? {
        Some(zones) => Some(self::zone_aware(zones)?),
        None => None,
    };
    let outdated = duration(block, "warmupDurationSecs")?.map(|duration| Warmup {
        duration: *duration,
        minimum: Share::of_percent(WARMUP_PERCENT),
        aggression_thousandths: thousandths(AGGRESSION),
    });
    let warmup = match block.map("warmup")? {
        Some(warmup) => self::warmup(warmup)?,
        None => None,
    };
    Ok(LoadBalancing { simple, hash, locality, zone_aware, warmup: warmup.or(outdated) })
}

/// `None` when nothing is named to be hashed.
fn consistent_hash(mut fields: Fields<'_>) -> Result<Option<ConsistentHash>, Fault> {
    let mut key = None;
    if let Some(name) = fields.text("httpHeaderName")?.filter(|name| !name.is_empty()) {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Fault::new(fields.mark, fields.path_of("httpHeaderName"), "is no header name"))?;
        key = Some(HashKey::Header(name));
    }
    if let Some(mut cookie) = fields.map("httpCookie")? {
        let mut attributes = Vec::new();
        for mut attribute in cookie.maps("attributes")? {
            let name = attribute.required_text("name")?.into();
            attributes.push((name, attribute.text("value")?.unwrap_or_default().into()));
        }
        let parsed = Cookie {
            name: cookie.required_text("name")?.into(),
            path: cookie.text("path")?.unwrap_or_default().into(),
            ttl: duration_or_zero(&mut cookie, "ttl")?.map(|ttl| *ttl),
            attributes: attributes.into(),
        };
        key = key.or(Some(HashKey::Cookie(parsed)));
    }
    if fields.boolean("useSourceIp")? == Some(true) {
        key = key.or(Some(HashKey::SourceIp));
    }
    if let Some(name) = fields.text("httpQueryParameterName")?.filter(|name| !name.is_empty()) {
        key = key.or(Some(HashKey::QueryParameter(name.into())));
    }
    let positive = |size: Option<i64>| size.filter(|size| *size > 0).map(|size| size as u64);
    let outdated = positive(fields.integer("minimumRingSize", 0..=i64::MAX)?);
    let ring = match fields.map("ringHash")? {
        Some(mut ring) => positive(ring.integer("minimumRingSize", 0..=i64::MAX)?).map(HashTable::Ring),
        None => None,
    };
    let maglev = match fields.map("maglev")? {
        Some(mut maglev) => positive(maglev.integer("tableSize", 0..=i64::MAX)?).map(HashTable::Maglev),
        None => None,
    };
    let table = ring.or(maglev).or(outdated.map(HashTable::Ring)).unwrap_or(HashTable::DEFAULT);
    Ok(key.map(|key| ConsistentHash { key, table }))
}

fn failover(fields: &mut Fields<'_>) -> Result<Box<[Failover]>, Fault> {
    let pair = |mut one: Fields<'_>| {
        let from: Box<str> = one.text("from")?.unwrap_or_default().into();
        Ok((from, one.text("to")?.unwrap_or_default().into()))
    };
    fields.maps("failover")?.into_iter().map(pair).collect()
}

fn priorities(fields: &mut Fields<'_>) -> Result<Box<[Box<str>]>, Fault> {
    Ok(fields.texts("failoverPriority")?.into_iter().map(|(label, _)| label.into()).collect())
}

fn locality(mut fields: Fields<'_>) -> Result<Locality, Fault> {
    let mut distribute = Vec::new();
    for mut one in fields.maps("distribute")? {
        let from: Box<str> = one.text("from")?.unwrap_or_default().into();
        let mut shares = Vec::new();
        if let Some(mut to) = one.map("to")? {
            for entry in to.entries() {
                let share = to.integer(&entry.key, 0..=100)?.unwrap_or(0) as u32;
                shares.push((entry.key.clone(), share));
            }
        }
        distribute.push((from, shares.into()));
    }
    let locality = Locality {
        enabled: fields.boolean("enabled")?,
        distribute: distribute.into(),
        failover: failover(&mut fields)?,
        failover_priority: priorities(&mut fields)?,
    };
    Ok(locality)
}

fn zone_aware(mut fields: Fields<'_>) -> Result<ZoneAware, Fault> {
    let zones = ZoneAware {
        enabled: fields.boolean("enabled")?,
        failover: failover(&mut fields)?,
        failover_priority: priorities(&mut fields)?,
        min_cluster_size: fields
            .integer("minClusterSize", 1..=i64::MAX)?
            .map(|size| size.min(i64::from(u32::MAX)) as u32),
    };
    Ok(zones)
}

fn warmup(mut fields: Fields<'_>) -> Result<Option<Warmup>, Fault> {
    let minimum = fields.number("minimumPercent")?.unwrap_or(WARMUP_PERCENT);
    let aggression = fields.number("aggression")?.unwrap_or(AGGRESSION);
    let warmup = duration(&mut fields, "duration")?.map(|duration| Warmup {
        duration: *duration,
        minimum: Share::of_percent(minimum),
        aggression_thousandths: thousandths(aggression),
    });
    Ok(warmup)
}

fn thousandths(number: f64) -> u32 {
    (number * 1000.0).clamp(0.0, f64::from(u32::MAX)).round() as u32
}
