//! The tables against the schema, the tests that they name, and the page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::{Feature, KINDS, Support, fields, markdown, of};
use crate::schema;

mod agreement;

#[test]
fn every_kind_of_the_schema_is_there_once() {
    let listed: Vec<(&str, &str)> = KINDS.iter().map(|kind| (kind.group, kind.kind)).collect();
    let known: BTreeSet<(&str, &str)> = schema::kinds().map(|(group, kind, ..)| (group, kind)).collect();
    assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), known);
    assert_eq!(listed.len(), known.len());
}

#[test]
fn every_field_is_there_and_none_that_is_none() {
    for kind in KINDS {
        let fields: Vec<String> = fields(kind.group, kind.kind);
        assert!(!fields.is_empty(), "{} has no fields", kind.kind);
        let missing: Vec<&String> = fields.iter().filter(|field| of(kind.features, field).is_none()).collect();
        assert!(missing.is_empty(), "nothing is said of these fields of {}: {missing:#?}", kind.kind);
        let mut seen = BTreeSet::new();
        for path in kind.features.iter().flat_map(Feature::paths) {
            assert!(path.is_empty() || fields.contains(&path), "{} has no field `{path}`", kind.kind);
            assert!(seen.insert(path.clone()), "{} has two entries for `{path}`", kind.kind);
        }
    }
}

/// What does nothing must not be called supported because of something beside it.
#[test]
fn what_is_supported_is_said_of_each_field_by_itself() {
    let table = [super::yes("a", "t::t"), super::no("a.b", "x")];
    assert!(of(&table, "a").is_some() && of(&table, "a.c").is_none() && of(&table, "a[].c").is_none());
    assert!(of(&table, "a.b").is_some() && of(&table, "a.b.c").is_some() && of(&table, "a.bc").is_none());
}

/// The functions behind `#[test]` in a file, as `FILE::FUNCTION`.
fn tests_below(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let file = path.file_stem().unwrap().to_str().unwrap();
            for body in text.split("#[test]").skip(1).chain(text.split("#[tokio::test").skip(1)) {
                let name = body.split_once("fn ").and_then(|(_, rest)| rest.split_once('('));
                found.extend(name.map(|(name, _)| format!("{file}::{name}")));
            }
        }
    }
}

/// Where tests of the core alone are, and where those are that send something through sockets.
const CORE: &[&str] = &["agent/mesh/src"];
const REAL: &[&str] = &["agent/src/proxy/tests", "tests/suites"];
/// All of both, and the others of the edges.
const ALL: &[&str] = &["agent/mesh/src", "agent/src", "agent/tests", "tests/suites"];

fn tests_in(directories: &[&str]) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = BTreeSet::new();
    for directory in directories {
        tests_below(&root.join(directory), &mut found);
    }
    found
}

#[test]
fn every_test_that_is_named_exists() {
    let known = tests_in(ALL);
    for kind in KINDS {
        for feature in kind.features {
            if let Support::Yes(test) | Support::Part(test, _) | Support::Decided(test, _) = feature.support {
                assert!(known.contains(test), "{} {}: there is no test {test}", kind.kind, feature.path);
            }
        }
    }
}

/// Not by what the compiler makes of it.
#[test]
fn what_is_in_force_is_shown_by_traffic() {
    let (real, core) = (tests_in(REAL), tests_in(CORE));
    let mut wrong = Vec::new();
    for kind in KINDS {
        for feature in kind.features {
            if let Support::Yes(test) | Support::Part(test, _) = feature.support
                // A name that both have would tell nothing.
                && (!real.contains(test) || core.contains(test))
            {
                wrong.push(format!("{} {}: {test}", kind.kind, feature.path));
            }
        }
    }
    assert!(wrong.is_empty(), "no traffic shows {wrong:#?}");
}

/// What the functions behind `#[test]` of a directory are, by `FILE::FUNCTION`.
fn bodies_below(directory: &Path, found: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            bodies_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let file = path.file_stem().unwrap().to_str().unwrap();
            for test in text.split("test]\n").skip(1) {
                let body = test.split("\n}\n").next().unwrap_or_default();
                let name = body.split_once("fn ").and_then(|(_, rest)| rest.split_once('('));
                found.extend(name.map(|(name, _)| (format!("{file}::{name}"), body.to_owned())));
            }
        }
    }
}

/// A line for all four levels where a policy can stand is shown at all four: through a helper of this name, or by a test
/// that writes settings of a port itself.
#[test]
fn what_is_in_force_at_every_level_is_shown_at_every_level() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut bodies = BTreeMap::new();
    for directory in REAL {
        bodies_below(&root.join(directory), &mut bodies);
    }
    let (mut wrong, mut right) = (Vec::new(), 0);
    for kind in KINDS {
        for feature in kind.features.iter().filter(|feature| feature.path.contains("{,.portLevelSettings[]}")) {
            if let Support::Yes(test) | Support::Part(test, _) = feature.support {
                let body = &bodies[test];
                if body.contains("at_each_level(") || body.contains("portLevelSettings: [") {
                    right += 1;
                } else {
                    wrong.push(format!("{} {}: {test}", kind.kind, feature.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "one level alone is shown of {wrong:#?}");
    assert!(right > 20, "there are {right} such lines");
}

/// `WEIR_BLESS=1 cargo test -p weir-mesh features` writes it anew.
#[test]
fn the_page_is_made_from_the_tables() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/features.md");
    let page = markdown::page();
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/features.md is not what the tables say: WEIR_BLESS=1 cargo test -p weir-mesh features"
    );
}
