//! Makes one input of others: parts of trees dropped, doubled, swapped, spliced and given other values, or lines and
//! bytes of the text. Used by [`crate::search`] and by the replay in the tests.

use crate::random::Random;
use crate::tree::{self, Words};

/// Inputs do not grow beyond this: what takes long must be slow by itself, not by its length.
pub const MAX_INPUT: usize = 32 << 10;
/// Changes that are made of one input at most.
const MAX_CHANGES: usize = 6;

/// What is put into a text without regard to what it means there.
const TOKENS: &[&str] = &[
    "---\n",
    "--- # a\n",
    "...\n",
    ": ",
    "- ",
    "\t",
    "  ",
    "\n",
    "\r\n",
    "\u{feff}",
    "&a ",
    "*a",
    "<<: *a\n",
    "|\n",
    ">-\n",
    "'",
    "\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    "#",
    "%YAML 1.2\n",
    "!!binary ",
    "? ",
    "\\",
    "\u{85}",
    "\u{2028}",
    "null",
    "~",
    "@",
    "`",
];

/// A text made of `one`, with parts of `other`.
pub fn text(one: &[u8], other: &[u8], words: &Words, random: &mut Random) -> Vec<u8> {
    let mut made = if random.once_in(4) {
        let mut bytes = one.to_vec();
        for _ in 0..=random.below(MAX_CHANGES) {
            change_text(&mut bytes, other, random);
        }
        bytes
    } else {
        change_trees(one, other, words, random)
    };
    made.truncate(MAX_INPUT);
    made
}

fn change_trees(one: &[u8], other: &[u8], words: &Words, random: &mut Random) -> Vec<u8> {
    let mut documents = tree::documents(&String::from_utf8_lossy(one));
    let others = tree::documents(&String::from_utf8_lossy(other));
    for _ in 0..=random.below(MAX_CHANGES) {
        let part = random.of(&others);
        if documents.is_empty() || random.once_in(12) {
            documents.extend(part.cloned());
        }
        let at = random.below(documents.len());
        match random.below(16) {
            0 if documents.len() > 1 => drop(documents.remove(at)),
            1 => documents.extend(documents.get(at).cloned()),
            _ => {
                if let Some(document) = documents.get_mut(at) {
                    tree::change(document, part, words, random);
                }
            }
        }
    }
    tree::print(&documents, random).into_bytes()
}

fn change_text(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len() + 1);
    let line = |bytes: &[u8], random: &mut Random| {
        let start = random.below(bytes.len());
        let start = bytes[..start].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        let end = bytes[start..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| start + n + 1);
        start..end
    };
    match random.below(9) {
        0 => bytes.truncate(at),
        1 => drop(bytes.splice(at..at, random.of(TOKENS).copied().unwrap_or_default().bytes())),
        2 => {
            let word = random.of(crate::dictionary::SCALARS).copied().unwrap_or_default();
            drop(bytes.splice(at..at, word.bytes()));
        }
        3 => drop(bytes.drain(line(bytes, random))),
        4 => {
            let copied = bytes[line(bytes, random)].to_vec();
            let to = line(bytes, random).start;
            drop(bytes.splice(to..to, copied));
        }
        5 => {
            let start = line(bytes, random).start;
            let blanks = bytes[start..].iter().take_while(|b| **b == b' ').count();
            let wanted = random.below(blanks + 4);
            drop(bytes.splice(start..start + blanks, std::iter::repeat_n(b' ', wanted)));
        }
        6 => {
            let range = line(other, random);
            drop(bytes.splice(at..at, other[range].iter().copied()));
        }
        _ => flip(bytes, random),
    }
}

fn flip(bytes: &mut [u8], random: &mut Random) {
    let at = random.below(bytes.len());
    if let Some(byte) = bytes.get_mut(at) {
        *byte = if random.once_in(2) { random.number() as u8 } else { *byte ^ (1 << random.below(8)) };
    }
}

/// Bytes made of `one`, for inputs that have no text: some of them changed, and more of them put in.
pub fn bytes(one: &[u8], other: &[u8], random: &mut Random) -> Vec<u8> {
    let mut made = one.to_vec();
    for _ in 0..=random.below(MAX_CHANGES) {
        let at = random.below(made.len() + 1);
        match random.below(5) {
            0 => made.truncate(at),
            1 => made.extend((0..random.below(64)).map(|_| random.number() as u8)),
            2 => {
                let from = random.below(other.len());
                let to = from + random.below(other.len() - from + 1);
                drop(made.splice(at..at, other[from..to].iter().copied()));
            }
            _ => flip(&mut made, random),
        }
    }
    made.truncate(1024);
    made
}
