//! The analyzers on the catalog's examples, on small manifests of their own, and on whatever comes.

use std::collections::BTreeSet;

use super::{Options, Sources, analyze, catalog};
use crate::finding::{Finding, Severity};

mod catalog_tests;
mod cluster;
mod own;
mod properties;
mod refused;
mod rules;
mod size;

/// The time of all tests: 1 January 2030.
const NOW: u64 = 1_893_456_000;

/// The findings of files that are named by their number.
fn found(files: &[&str]) -> Vec<Finding> {
    let mut sources = Sources::new(Options { now: NOW, ..Options::default() });
    for (i, text) in files.iter().enumerate() {
        sources.add_file(&format!("{i}.yaml"), text);
    }
    analyze(&mut sources)
}

fn codes(text: &str) -> BTreeSet<&'static str> {
    found(&[text]).into_iter().map(|finding| finding.code).collect()
}

/// The findings of one code.
fn of(code: &str, text: &str) -> Vec<Finding> {
    found(&[text]).into_iter().filter(|finding| finding.code == code).collect()
}

/// The only finding of a code.
fn one(code: &str, text: &str) -> Finding {
    let mut all = of(code, text);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

#[test]
fn a_finding_has_its_place_and_says_what_to_write_instead() {
    let text = catalog::all().find(|entry| entry.code == "IST0101").unwrap().example.as_ref().unwrap().fires;
    let finding = one("IST0101", text);
    assert_eq!(finding.severity, Severity::Error);
    assert_eq!(finding.object.unwrap().to_string(), "VirtualService shop/reviews");
    let at = finding.at.unwrap();
    assert_eq!(
        (&*at.file, text.lines().nth(at.line as usize - 1).unwrap()),
        ("0.yaml", "    - destination: {host: reviwes}")
    );
    assert_eq!(at.column, 21);
    assert_eq!(finding.help.as_deref(), Some("did you mean reviews.shop.svc.cluster.local?"));
}
