//! What holds for any input: no panic, and the order of files does not count.

use std::collections::BTreeSet;

use super::super::{Options, Sources, analyze, catalog};
use super::{NOW, found};
use crate::crd;

/// Small numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % sides
    }
}

fn examples() -> Vec<&'static str> {
    catalog::all().filter_map(|entry| entry.example.as_ref()).flat_map(|e| [e.fires, e.silent]).collect()
}

/// Every object of the examples once, each example in a namespace of its own, each object in a file of its own.
fn objects() -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    let mut files = Vec::new();
    for (i, text) in examples().into_iter().enumerate() {
        for document in text.replace("shop", &format!("shop-{i}")).split("---\n") {
            let header = crd::parse(document, 0).ok().flatten().and_then(|node| crd::header(&node, None).ok());
            if let Some(header) = header.filter(|header| seen.insert(header.object.clone())) {
                files.push((format!("{}.yaml", header.object), document.to_owned()));
            }
        }
    }
    files
}

#[test]
fn the_order_of_files_does_not_change_what_is_found() {
    let find = |files: &[(String, String)]| {
        let mut sources = Sources::new(Options { now: NOW, ..Options::default() });
        for (name, text) in files {
            sources.add_file(name, text);
        }
        analyze(&mut sources)
    };
    let mut dice = Dice(7);
    let mut files = objects();
    let expected = find(&files);
    let codes: BTreeSet<&str> = expected.iter().map(|finding| finding.code).collect();
    assert!(files.len() > 150 && codes.len() > 50, "{} files, {codes:?}", files.len());
    for _ in 0..10 {
        for i in (1..files.len()).rev() {
            files.swap(i, dice.roll(i + 1));
        }
        assert!(find(&files) == expected);
    }
}

#[test]
fn no_input_panics() {
    const VALUES: [&str; 14] = [
        "null",
        "[]",
        "{}",
        "\"\"",
        "*",
        "0",
        "-1",
        "1e300",
        "true",
        "[null]",
        "[[]]",
        "{a: {b: [c]}}",
        "\u{e9}*",
        "99999999999",
    ];
    let mut dice = Dice(11);
    let examples = examples();
    for round in 0..3_000 {
        let mut lines: Vec<String> = examples[dice.roll(examples.len())].lines().map(str::to_owned).collect();
        for _ in 0..=dice.roll(3) {
            let at = dice.roll(lines.len());
            match dice.roll(4) {
                0 if lines.len() > 1 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[dice.roll(lines.len())].clone()),
                2 => {
                    let value = VALUES[dice.roll(VALUES.len())];
                    if let Some((key, _)) = lines[at].split_once(": ") {
                        lines[at] = format!("{key}: {value}");
                    }
                }
                _ => {
                    let place = dice.roll(lines[at].chars().count() + 1);
                    let place = lines[at].char_indices().nth(place).map_or(lines[at].len(), |(index, _)| index);
                    lines[at].insert_str(place, VALUES[dice.roll(VALUES.len())]);
                }
            }
        }
        let text = lines.join("\n");
        assert!(found(&[&text]).len() < 1_000, "round {round}");
    }
}
