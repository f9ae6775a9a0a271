//! A fuzzer for the pure core that needs nothing but stable Rust: inputs are made of others by changes that keep their
//! structure, and those that make the core say something new are changed further. Used by `cargo xtask fuzz` (through
//! `weir-fuzz`) and, with the corpus, by the unit tests.
//!
//! - [`yaml`], [`matching`]: the targets, and what each demands
//! - [`tree`], [`mutate`], [`generate`], [`dictionary`]: inputs of inputs, and inputs of the schema's tables
//! - [`search`], [`features`]: which input is next, and what is worth keeping
//! - [`guard`], [`minimise`]: one input at a time, its panic caught and its time taken; and how little of it is needed
//! - [`corpus`]: the inputs to begin with, and where those that fail are put

pub mod corpus;
pub mod dictionary;
pub mod features;
pub mod generate;
pub mod guard;
pub mod matching;
pub mod minimise;
pub mod mutate;
pub mod random;
#[cfg(test)]
mod replay;
pub mod search;
pub mod tree;
pub mod yaml;

use features::Features;

/// What is fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// YAML → store → program and plan → decisions.
    Compile,
    /// Rules and requests, against a naive oracle.
    Matching,
    /// YAML → analysis.
    Analyze,
    /// Trees → validation and decoding of one object.
    Schema,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Compile, Self::Matching, Self::Analyze, Self::Schema];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Compile => "compile",
            Self::Matching => "matching",
            Self::Analyze => "analyze",
            Self::Schema => "schema",
        }
    }

    /// True when an input is YAML.
    pub fn is_text(self) -> bool {
        self != Self::Matching
    }

    /// One input.
    ///
    /// # Panics
    /// When it shows a fault.
    pub fn run(self, input: &[u8], features: &mut Features) {
        match self {
            Self::Compile => yaml::run_compile(input, features),
            Self::Matching => matching::run(input, features),
            Self::Analyze => yaml::run_analyze(input, features),
            Self::Schema => yaml::run_schema(input, features),
        }
    }
}
