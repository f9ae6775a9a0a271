//! Which input is next: one that is kept, changed; or a new one from the schema's tables. Driven by `main` and by the
//! replay.

use std::collections::HashSet;
use std::io;

use crate::Target;
use crate::features::Features;
use crate::random::Random;
use crate::tree::Words;
use crate::{corpus, generate, mutate};

/// Inputs that are kept. More would be changed too seldom each; a new one takes the place of any other.
const MAX_KEPT: usize = 4_096;

/// The state of a search.
#[derive(Debug)]
pub struct Search {
    target: Target,
    kept: Vec<Vec<u8>>,
    seen: HashSet<u64>,
    words: Words,
    random: Random,
}

impl Search {
    /// With the corpus. The same seed and corpus give the same inputs.
    ///
    /// # Errors
    /// When the corpus cannot be read.
    pub fn new(target: Target, seed: u64) -> io::Result<Self> {
        let kept = corpus::all(target)?;
        Ok(Self { target, kept, seen: HashSet::new(), words: Words::default(), random: Random::new(seed) })
    }

    /// The inputs that are kept: to begin with, the corpus.
    pub fn kept(&self) -> &[Vec<u8>] {
        &self.kept
    }

    /// How much different was seen.
    pub fn seen(&self) -> usize {
        self.seen.len()
    }

    /// The next input.
    pub fn input(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        let new = match self.target {
            Target::Schema => 2,
            _ => 8,
        };
        let one = if self.target.is_text() && random.once_in(new) {
            generate::object(&self.words, random).into_bytes()
        } else {
            random.of(&self.kept).cloned().unwrap_or_default()
        };
        let other = random.of(&self.kept).map_or(&[][..], |other| other);
        if !self.target.is_text() {
            mutate::bytes(&one, other, random)
        } else if self.target == Target::Schema && random.once_in(2) {
            one
        } else {
            mutate::text(&one, other, &self.words, random)
        }
    }

    /// What an input showed. It is kept when some of that is new.
    pub fn learn(&mut self, input: Vec<u8>, features: &Features) {
        let before = self.seen.len();
        self.seen.extend(&features.0);
        if self.seen.len() == before {
            return;
        }
        if self.kept.len() < MAX_KEPT {
            self.kept.push(input);
        } else {
            let at = self.random.below(MAX_KEPT);
            self.kept[at] = input;
        }
    }
}
