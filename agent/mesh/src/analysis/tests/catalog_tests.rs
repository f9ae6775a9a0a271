//! The table against the code, the analyzers and the page.

use std::collections::BTreeSet;
use std::path::Path;

use super::super::catalog;
use super::codes;

#[test]
fn every_example_has_its_code_and_its_mended_form_has_not() {
    for entry in catalog::all() {
        if let Some(example) = &entry.example {
            assert!(
                codes(example.fires).contains(entry.code),
                "{} does not fire: {:?}",
                entry.code,
                codes(example.fires)
            );
            assert!(!codes(example.silent).contains(entry.code), "{} is not silent", entry.code);
        }
    }
}

#[test]
fn the_table_has_every_code_once() {
    let defined: BTreeSet<&str> = include_str!("../../finding.rs")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const ")?.split('"').nth(1))
        .collect();
    let listed: Vec<&str> = catalog::all().map(|entry| entry.code).collect();
    assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), defined);
    assert_eq!(listed.len(), defined.len());
}

/// `WEIR_BLESS=1 cargo test -p weir-mesh the_page` writes it anew.
#[test]
fn the_page_is_made_from_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/findings.md");
    let page = catalog::markdown::page();
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(std::fs::read_to_string(&path).unwrap() == page, "docs/findings.md is not what the catalog says");
}
