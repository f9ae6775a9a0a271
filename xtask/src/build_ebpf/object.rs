//! Reads a built object, compares it with the ABI, and renders what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context, bail};
use aya_obj::{EbpfSectionKind, Object};
use weir_ebpf::maps::{ALL, PROGRAMS, Shape, kind};

use super::Variant;

/// The map of the debug object's log.
const LOG_MAP: &str = "AYA_LOGS";

/// What an object holds.
#[derive(Debug)]
pub(super) struct Contents {
    /// Name → instructions.
    programs: BTreeMap<String, usize>,
    maps: Vec<Found>,
}

/// A map as the object declares it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    name: String,
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// Parses the object and holds it against `weir_ebpf::maps`.
///
/// # Errors
/// Names every difference, and every function that panics.
pub(super) fn check(bytes: &[u8], variant: Variant) -> anyhow::Result<Contents> {
    let object = Object::parse(bytes).context("it is no eBPF object")?;
    let contents = Contents::of(&object);
    let mut faults = contents.drift(variant);
    // The verifier would say "last insn is not an exit or jmp", and not where.
    for function in object
        .functions
        .values()
        .filter(|f| f.name.contains("panicking"))
    {
        faults.push(format!(
            "something can panic: the object has {}",
            function.name
        ));
    }
    if !faults.is_empty() {
        bail!("{}", faults.join("\n"));
    }
    Ok(contents)
}

impl Contents {
    fn of(object: &Object) -> Self {
        let programs = object.programs.iter().map(|(name, program)| {
            (
                name.clone(),
                object
                    .functions
                    .get(&program.function_key())
                    .map_or(0, |f| f.instructions.len()),
            )
        });
        let mut maps: Vec<_> = object
            .maps
            .iter()
            .filter(|(_, map)| {
                matches!(
                    map.section_kind(),
                    EbpfSectionKind::Maps | EbpfSectionKind::BtfMaps
                )
            })
            .map(|(name, map)| Found {
                name: name.clone(),
                kind: map.map_type(),
                key_size: map.key_size(),
                value_size: map.value_size(),
                max_entries: map.max_entries(),
                flags: map.map_flags(),
            })
            .collect();
        maps.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            programs: programs.collect(),
            maps,
        }
    }

    /// Every difference from the ABI, in words.
    fn drift(&self, variant: Variant) -> Vec<String> {
        let mut faults = Vec::new();
        let wanted: BTreeSet<&str> = PROGRAMS.iter().copied().collect();
        let there: BTreeSet<&str> = self.programs.keys().map(String::as_str).collect();
        faults.extend(
            wanted
                .difference(&there)
                .map(|name| format!("program {name} is missing")),
        );
        faults.extend(
            there
                .difference(&wanted)
                .map(|name| format!("program {name} is not in maps::PROGRAMS")),
        );
        for shape in ALL {
            match self.maps.iter().find(|map| map.name == shape.name) {
                None => faults.push(format!("map {} is missing", shape.name)),
                Some(map) if !map.is(shape) => {
                    faults.push(format!(
                        "map {} is {map:?}, but the ABI says {shape:?}",
                        shape.name
                    ));
                }
                Some(_) => {}
            }
        }
        for map in &self.maps {
            let of_the_log = variant == Variant::Debug && map.name == LOG_MAP;
            if !of_the_log && !ALL.iter().any(|shape| shape.name == map.name) {
                faults.push(format!("map {} is not in maps::ALL", map.name));
            }
        }
        faults
    }
}

impl Found {
    fn is(&self, shape: &Shape) -> bool {
        let Shape {
            name,
            kind,
            key_size,
            value_size,
            max_entries,
            flags,
        } = *shape;
        *self
            == Found {
                name: name.to_owned(),
                kind,
                key_size,
                value_size,
                max_entries,
                flags,
            }
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<16} {:>12}", "program", "instructions")?;
        for (name, instructions) in &self.programs {
            writeln!(f, "  {name:<16} {instructions:>12}")?;
        }
        writeln!(
            f,
            "  {:<16} {:<13} {:>5} {:>6} {:>8}",
            "map", "type", "key", "value", "entries"
        )?;
        for map in &self.maps {
            let kind = kind_name(map.kind);
            writeln!(
                f,
                "  {:<16} {kind:<13} {:>5} {:>6} {:>8}",
                map.name, map.key_size, map.value_size, map.max_entries
            )?;
        }
        Ok(())
    }
}

fn kind_name(kind: u32) -> String {
    /// The log's ring; no map of ours.
    const RINGBUF: u32 = 27;
    match kind {
        kind::HASH => "hash".to_owned(),
        kind::ARRAY => "array".to_owned(),
        kind::PERCPU_HASH => "per-CPU hash".to_owned(),
        kind::PERCPU_ARRAY => "per-CPU array".to_owned(),
        kind::LRU_HASH => "LRU hash".to_owned(),
        kind::SK_STORAGE => "sk storage".to_owned(),
        RINGBUF => "ring buffer".to_owned(),
        other => format!("type {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exact() -> Contents {
        let map = |s: &Shape| Found {
            name: s.name.to_owned(),
            kind: s.kind,
            key_size: s.key_size,
            value_size: s.value_size,
            max_entries: s.max_entries,
            flags: s.flags,
        };
        Contents {
            programs: PROGRAMS
                .iter()
                .map(|name| ((*name).to_owned(), 1))
                .collect(),
            maps: ALL.iter().map(map).collect(),
        }
    }

    #[test]
    fn an_object_like_the_abi_has_no_drift() {
        assert_eq!(exact().drift(Variant::Normal), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_drift_is_named() {
        let mut object = exact();
        object.programs.remove("weir_sockops");
        object.programs.insert("weir_extra".to_owned(), 1);
        object.maps.retain(|map| map.name != "weir_flows");
        for map in &mut object.maps {
            if map.name == "weir_pods" {
                map.value_size += 8;
            }
        }
        let faults = object.drift(Variant::Normal).join("\n");
        for word in [
            "weir_sockops is missing",
            "weir_extra is not",
            "weir_flows is missing",
            "weir_pods is Found",
        ] {
            assert!(faults.contains(word), "{word:?} is not in:\n{faults}");
        }
    }

    #[test]
    fn only_the_debug_object_may_carry_the_log() {
        let mut object = exact();
        let log = Found {
            name: LOG_MAP.to_owned(),
            kind: 27,
            key_size: 0,
            value_size: 0,
            max_entries: 1,
            flags: 0,
        };
        object.maps.push(log);
        assert_eq!(object.drift(Variant::Debug), Vec::<String>::new());
        assert_eq!(object.drift(Variant::Normal).len(), 1);
    }
}
