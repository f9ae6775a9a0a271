//! Regular expressions as trees: made of bytes, written down for the core, and matched by trying everything. Used by
//! [`super::case`] and [`super::oracle`].

use super::case::Bytes;

/// Trees deeper than this are letters.
const MAX_DEPTH: usize = 3;

/// A regular expression.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    Letter(char),
    Any,
    /// One of these, or none of these.
    Class(Vec<char>, bool),
    Sequence(Vec<Expression>),
    Either(Box<Expression>, Box<Expression>),
    /// At least so often, and at most; `None` = without end.
    Repeat(Box<Expression>, usize, Option<usize>),
}

impl Expression {
    pub(super) fn from_bytes(bytes: &mut Bytes<'_>, depth: usize) -> Self {
        let below = |bytes: &mut Bytes<'_>| Box::new(Self::from_bytes(bytes, depth + 1));
        match if depth < MAX_DEPTH { bytes.below(9) } else { bytes.below(3) } {
            0 | 1 => Self::Letter(bytes.letter()),
            2 if depth < MAX_DEPTH || bytes.below(2) == 0 => Self::Any,
            2 => Self::Class((0..=bytes.below(3)).map(|_| bytes.letter()).collect(), bytes.below(2) == 0),
            3 => Self::Repeat(below(bytes), 0, None),
            4 => Self::Repeat(below(bytes), 1, None),
            5 => Self::Repeat(below(bytes), bytes.below(2), Some(1 + bytes.below(3))),
            6 => Self::Either(below(bytes), below(bytes)),
            _ => Self::Sequence((0..=bytes.below(4)).map(|_| Self::from_bytes(bytes, depth + 1)).collect()),
        }
    }

    /// As it is written in a manifest.
    pub(super) fn pattern(&self) -> String {
        match self {
            Self::Letter(c) if c.is_ascii_alphanumeric() || *c == '/' => c.to_string(),
            Self::Letter(c) => format!("\\{c}"),
            Self::Any => ".".to_owned(),
            Self::Class(letters, negated) => {
                let inside: String = letters.iter().map(|c| Self::Letter(*c).pattern()).collect();
                format!("[{}{inside}]", if *negated { "^" } else { "" })
            }
            Self::Sequence(parts) => parts.iter().map(Self::grouped).collect(),
            Self::Either(one, other) => format!("{}|{}", one.grouped(), other.grouped()),
            Self::Repeat(what, 0, None) => format!("{}*", what.grouped()),
            Self::Repeat(what, 1, None) => format!("{}+", what.grouped()),
            Self::Repeat(what, 0, Some(1)) => format!("{}?", what.grouped()),
            Self::Repeat(what, from, None) => format!("{}{{{from},}}", what.grouped()),
            Self::Repeat(what, from, Some(to)) => format!("{}{{{from},{to}}}", what.grouped()),
        }
    }

    fn grouped(&self) -> String {
        match self {
            Self::Letter(_) | Self::Any | Self::Class(..) => self.pattern(),
            _ => format!("({})", self.pattern()),
        }
    }

    /// Whether it takes the whole text.
    pub(super) fn takes(&self, text: &str) -> bool {
        let letters: Vec<char> = text.chars().collect();
        self.ends(&letters, &[0]).contains(&letters.len())
    }

    /// Where it can end when it begins at one of these places; each once, in order.
    fn ends(&self, text: &[char], from: &[usize]) -> Vec<usize> {
        let one = |test: &dyn Fn(char) -> bool| -> Vec<usize> {
            from.iter().filter(|at| text.get(**at).is_some_and(|c| test(*c))).map(|at| at + 1).collect()
        };
        match self {
            Self::Letter(letter) => one(&|c| c == *letter),
            Self::Any => one(&|c| c != '\n'),
            Self::Class(letters, negated) => one(&|c| letters.contains(&c) != *negated),
            Self::Sequence(parts) => parts.iter().fold(from.to_vec(), |places, part| part.ends(text, &places)),
            Self::Either(a, b) => union(a.ends(text, from), b.ends(text, from)),
            Self::Repeat(what, least, most) => {
                let mut places = from.to_vec();
                for _ in 0..*least {
                    places = what.ends(text, &places);
                }
                let mut all = places.clone();
                // Beyond the text's length a repetition can only take nothing.
                for _ in *least..most.unwrap_or(text.len() + 1).max(*least) {
                    places = what.ends(text, &places);
                    all = union(all, places.clone());
                }
                all
            }
        }
    }
}

fn union(mut one: Vec<usize>, other: Vec<usize>) -> Vec<usize> {
    one.extend(other);
    one.sort_unstable();
    one.dedup();
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_texts_are_taken() {
        let a = || Box::new(Expression::Letter('a'));
        let b = || Box::new(Expression::Letter('b'));
        let many = Expression::Repeat(Box::new(Expression::Either(a(), b())), 1, None);
        assert_eq!(many.pattern(), "(a|b)+");
        assert!(many.takes("abba") && !many.takes("") && !many.takes("abc"));
        let some = Expression::Sequence(vec![Expression::Repeat(a(), 1, Some(2)), Expression::Any]);
        assert!(some.takes("aa") && some.takes("aab") && !some.takes("a") && !some.takes("aaab"));
        assert!(Expression::Class(vec!['a'], true).takes("x") && !Expression::Class(vec!['a'], true).takes("a"));
    }
}
