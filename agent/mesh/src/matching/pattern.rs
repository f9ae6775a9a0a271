//! A regular expression of a rule. It is parsed when the rule is read and compiled when a request first needs it: most
//! agents never see a request for most rules, and what is compiled takes a hundred times its text.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, OnceLock};

use regex::{Regex, RegexBuilder};

/// What the states of the search that are made on the way may take, in bytes, for each thread that searches. The crate's
/// own limit is eight times this.
const CACHE: usize = 256 << 10;

/// A regular expression. Copies share what is compiled.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Arc<Expression>);

/// What copies of a [`Pattern`] share.
pub(crate) struct Expression {
    /// As it was written.
    text: Box<str>,
    /// For the `regex` crate.
    translated: Box<str>,
    whole: bool,
    states: u32,
    compiled: OnceLock<Regex>,
}

impl Pattern {
    /// `translated` has been parsed by the `regex` crate; `whole`: it takes whole texts alone. `states` is how many states
    /// it is compiled to, about.
    pub(crate) fn new(text: &str, translated: String, whole: bool, states: u32) -> Self {
        let translated = if whole { format!("^(?:{translated})$") } else { translated };
        let (text, translated) = (text.into(), translated.into());
        Self(Arc::new(Expression { text, translated, whole, states, compiled: OnceLock::new() }))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Whether it takes whole texts alone.
    pub fn is_whole(&self) -> bool {
        self.0.whole
    }

    /// What it shares with its copies, so that it can be made a copy of another one.
    pub(crate) fn expression(&mut self) -> &mut Arc<Expression> {
        &mut self.0
    }

    /// The same for all that share what is compiled, and for no others.
    pub(crate) fn identity(&self) -> *const Expression {
        Arc::as_ptr(&self.0)
    }

    /// How many states it is compiled to, about.
    pub fn states(&self) -> u64 {
        u64::from(self.0.states)
    }

    /// True when it takes the text, or, where it need not be the whole, a part of it.
    pub fn is_match(&self, text: &str) -> bool {
        self.regex().is_match(text)
    }

    /// For the `regex` crate.
    pub(crate) fn regex(&self) -> &Regex {
        self.0.compiled.get_or_init(|| {
            let mut builder = RegexBuilder::new(&self.0.translated);
            let built = builder.size_limit(usize::MAX).dfa_size_limit(CACHE).build();
            built.expect("it has been parsed, and its size has been looked at")
        })
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || (self.text == other.text && self.whole == other.whole)
    }
}

impl Eq for Expression {}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.text, self.whole).hash(state);
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.0.text).finish()
    }
}
