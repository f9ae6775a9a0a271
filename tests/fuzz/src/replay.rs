//! The corpus, and some hundred inputs made of it, in the unit tests.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Target;
use crate::guard;
use crate::search::Search;

/// Of CPU time, without optimisation.
const TIME_LIMIT: Duration = Duration::from_secs(20);

fn replay(target: Target, changed: usize) {
    let mut search = Search::new(target, 1).expect("the corpus is in the repository");
    let inputs = search.kept().to_vec();
    assert!(!inputs.is_empty());
    let mut all = BTreeSet::new();
    for input in inputs {
        match guard::run(target, &input, TIME_LIMIT).result {
            Ok(features) => {
                all.extend(features.0.iter().copied());
                search.learn(input, &features);
            }
            Err(failure) => panic!("{}\n{}", failure.text, String::from_utf8_lossy(&input)),
        }
    }
    let of_corpus = search.seen();
    assert_eq!(of_corpus, all.len());
    for number in 0..changed {
        let input = search.input();
        match guard::run(target, &input, TIME_LIMIT).result {
            Ok(features) => search.learn(input, &features),
            Err(failure) => panic!("input {number}: {}\n{}", failure.text, String::from_utf8_lossy(&input)),
        }
    }
    assert!(search.seen() > of_corpus, "{changed} inputs showed nothing that the corpus did not");
}

#[test]
fn compile_holds_what_it_promises() {
    replay(Target::Compile, 100);
}

#[test]
fn matching_is_as_the_oracle_has_it() {
    replay(Target::Matching, 150);
}

#[test]
fn analyze_holds_what_it_promises() {
    replay(Target::Analyze, 100);
}

#[test]
fn schema_holds_what_it_promises() {
    replay(Target::Schema, 300);
}
