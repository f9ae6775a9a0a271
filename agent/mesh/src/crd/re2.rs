//! RE2's dialect of regular expressions, which Istio's kinds have, in the words of the `regex` crate. The two differ in
//! more than what they refuse: there `\d` is `[0-9]` and `&&` two letters. Called by [`super::regex`].

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Chars;

use regex_syntax::is_meta_character;

/// RE2's limit for a repetition, and for repetitions within each other, multiplied.
const MAX_REPEAT: u32 = 1000;

/// The names that `\p{…}` may have: RE2 takes no others, nor these in another spelling.
const CATEGORIES: &str = "Any C Cc Cf Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So \
    Z Zl Zp Zs";
const SCRIPTS: &str = "Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali \
    Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee \
    Chorasmian Common Coptic Cuneiform Cypriot Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan \
    Egyptian_Hieroglyphs Elbasan Elymaic Ethiopic Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi Gurmukhi \
    Han Hangul Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic Inherited Inscriptional_Pahlavi \
    Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki \
    Khudawadi Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean \
    Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi Mongolian \
    Mro Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong Ogham Ol_Chiki \
    Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian Old_Turkic Old_Uyghur \
    Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi Rejang Runic Samaritan \
    Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo Sundanese Syloti_Nagri Syriac \
    Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut Telugu Thaana Thai Tibetan Tifinagh Tirhuta Toto \
    Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square";
/// What `[:…:]` may name.
const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// Why RE2 refuses it.
type Refused = String;

/// The same expression for the `regex` crate.
///
/// # Errors
/// Where RE2 refuses it, in words that say why.
pub(super) fn translate(pattern: &str) -> Result<String, Refused> {
    let mut parser = Parser {
        rest: pattern.chars().peekable(),
        out: String::with_capacity(pattern.len() + 16),
        groups: Vec::new(),
        names: BTreeSet::new(),
        before: Before::Nothing,
        inner: 1,
        last: 1,
    };
    while let Some(c) = parser.rest.next() {
        parser.one(c)?;
    }
    if parser.groups.is_empty() { Ok(parser.out) } else { Err("unclosed group: a `(` is not closed".to_owned()) }
}

/// What a repetition would repeat.
#[derive(Clone, Copy, PartialEq)]
enum Before {
    Nothing,
    Atom,
    Repetition,
}

struct Parser<'p> {
    rest: Peekable<Chars<'p>>,
    out: String,
    /// Of each open group, [`Self::inner`] of what it stands in.
    groups: Vec<u32>,
    names: BTreeSet<String>,
    before: Before,
    /// How often the innermost repetitions of this group repeat, multiplied: the largest product.
    inner: u32,
    /// The same of the last atom.
    last: u32,
}

impl Parser<'_> {
    fn one(&mut self, c: char) -> Result<(), Refused> {
        match c {
            '\\' => self.escape()?,
            '[' => {
                self.class()?;
                self.atom(1);
            }
            '(' => self.open()?,
            ')' => {
                let outer = self.groups.pop().ok_or("a `)` closes nothing")?;
                let inner = std::mem::replace(&mut self.inner, outer);
                self.out.push(')');
                self.atom(inner);
            }
            '|' => {
                self.out.push('|');
                self.before = Before::Nothing;
            }
            '*' | '+' | '?' => {
                self.repeatable(c)?;
                self.out.push(c);
                self.lazily();
            }
            '{' => self.braces()?,
            '.' | '^' | '$' => {
                self.out.push(c);
                self.atom(1);
            }
            _ => {
                literal(&mut self.out, c);
                self.atom(1);
            }
        }
        Ok(())
    }

    fn atom(&mut self, repeats: u32) {
        self.before = Before::Atom;
        self.last = repeats;
        self.inner = self.inner.max(repeats);
    }

    fn repeatable(&self, operator: char) -> Result<(), Refused> {
        match self.before {
            Before::Atom => Ok(()),
            Before::Nothing => Err(format!("`{operator}` repeats nothing")),
            Before::Repetition => Err(format!("`{operator}` repeats a repetition")),
        }
    }

    fn lazily(&mut self) {
        if self.rest.next_if_eq(&'?').is_some() {
            self.out.push('?');
        }
        self.before = Before::Repetition;
    }

    /// A repetition, or a letter where it is none.
    fn braces(&mut self) -> Result<(), Refused> {
        let mut ahead = self.rest.clone();
        let Some((least, most)) = repetition(&mut ahead) else {
            self.out.push_str(r"\{");
            self.atom(1);
            return Ok(());
        };
        self.repeatable('{')?;
        self.rest = ahead;
        let most_said = most.unwrap_or(least);
        if least.max(most_said) > MAX_REPEAT || most_said < least {
            return Err(format!("a repetition must be of at most {MAX_REPEAT} times, the lesser number first"));
        }
        // Without an upper limit the lower one counts; no times at all count as once.
        let repeats = self.last.saturating_mul(most_said.max(1));
        if repeats > MAX_REPEAT {
            return Err(format!("repetitions within each other must be of at most {MAX_REPEAT} times in all"));
        }
        self.inner = self.inner.max(repeats);
        let _ = match most {
            Some(most) => write!(self.out, "{{{least},{most}}}"),
            None => write!(self.out, "{{{least},}}"),
        };
        self.lazily();
        Ok(())
    }

    fn open(&mut self) -> Result<(), Refused> {
        if self.rest.next_if_eq(&'?').is_none() {
            self.group("(");
            return Ok(());
        }
        let named = self.rest.clone().take(2).collect::<String>();
        if named == "P<" || (named.starts_with('<') && !matches!(named.as_str(), "<=" | "<!")) {
            self.rest.next_if_eq(&'P');
            self.rest.next();
            let name: String = std::iter::from_fn(|| self.rest.next_if(|c| *c != '>')).collect();
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if self.rest.next().is_none() || !is_name {
                return Err("the name of a group must be of letters, digits and `_`".to_owned());
            }
            if !self.names.insert(name.clone()) {
                return Err(format!("two groups have the name {name}"));
            }
            // Groups are asked for by number alone.
            self.group("(");
            return Ok(());
        }
        let mut flags = String::new();
        loop {
            match self.rest.next() {
                Some(c @ ('i' | 'm' | 's' | 'U')) => flags.push(c),
                Some('-') if !flags.contains('-') => flags.push('-'),
                Some(end @ (':' | ')')) if !flags.ends_with('-') => {
                    if end == ':' {
                        self.group(&format!("(?{flags}:"));
                    } else {
                        if !flags.is_empty() {
                            let _ = write!(self.out, "(?{})", once(&flags));
                        }
                        self.before = Before::Nothing;
                    }
                    return Ok(());
                }
                _ => return Err("after `(?` there must be a name, or flags of i, m, s and U".to_owned()),
            }
        }
    }

    fn group(&mut self, opening: &str) {
        match opening.strip_prefix("(?").and_then(|flags| flags.strip_suffix(':')) {
            Some(flags) => {
                let _ = write!(self.out, "(?{}:", once(flags));
            }
            None => self.out.push_str(opening),
        }
        self.groups.push(std::mem::replace(&mut self.inner, 1));
        self.before = Before::Nothing;
    }

    fn escape(&mut self) -> Result<(), Refused> {
        match self.rest.peek() {
            Some('Q') => {
                self.rest.next();
                while let Some(c) = self.rest.next() {
                    if c == '\\' && self.rest.next_if_eq(&'E').is_some() {
                        break;
                    }
                    literal(&mut self.out, c);
                    self.atom(1);
                }
                return Ok(());
            }
            Some(c @ ('A' | 'z')) => {
                let _ = write!(self.out, r"\{c}");
                self.rest.next();
            }
            Some(c @ ('b' | 'B')) => {
                let _ = write!(self.out, r"(?-u:\{c})");
                self.rest.next();
            }
            Some('d' | 'D' | 's' | 'S' | 'w' | 'W') => {
                let class = self.rest.next().map(perl).unwrap_or_default();
                self.out.push_str(class);
            }
            Some('p' | 'P') => self.property()?,
            _ => {
                let c = self.letter()?;
                literal(&mut self.out, c);
            }
        }
        self.atom(1);
        Ok(())
    }

    /// `\pL`, `\p{Greek}` or `\P{^Greek}`, of which the backslash is gone.
    fn property(&mut self) -> Result<(), Refused> {
        let mut negated = self.rest.next() == Some('P');
        let mut name = String::new();
        match self.rest.next() {
            Some('{') => {
                if self.rest.next_if_eq(&'^').is_some() {
                    negated = !negated;
                }
                name.extend(std::iter::from_fn(|| self.rest.next_if(|c| *c != '}')));
                if self.rest.next().is_none() {
                    return Err(r"a `\p{` is not closed".to_owned());
                }
            }
            Some(c) => name.push(c),
            None => {}
        }
        let p = if negated { 'P' } else { 'p' };
        if CATEGORIES.split_whitespace().any(|known| known == name) {
            match (&*name, negated) {
                // No text has any of these.
                ("Cs", false) => self.out.push_str(r"[^\x{0}-\x{10FFFF}]"),
                ("Cs", true) => self.out.push_str(r"[\x{0}-\x{10FFFF}]"),
                _ => drop(write!(self.out, r"\{p}{{{name}}}")),
            }
        } else if SCRIPTS.split_whitespace().any(|known| known == name) {
            let _ = write!(self.out, r"\{p}{{sc={name}}}");
        } else {
            return Err(format!(r"there is no class \p{{{name}}}"));
        }
        Ok(())
    }

    /// The letter that an escape stands for, of which the backslash is gone.
    fn letter(&mut self) -> Result<char, Refused> {
        let Some(c) = self.rest.next() else {
            return Err(r"it ends with a single `\`".to_owned());
        };
        let octal =
            |rest: &mut Peekable<Chars<'_>>| rest.next_if(|c| ('0'..='7').contains(c)).and_then(|c| c.to_digit(8));
        let refused = || Err(format!(r"`\{c}` is no escape sequence"));
        let number = match c {
            '0'..='7' => {
                let mut number = c.to_digit(8).unwrap_or_default();
                // `\1` alone would be what the first group took.
                let next = octal(&mut self.rest);
                if c != '0' && next.is_none() {
                    return refused();
                }
                for digit in [next, next.and_then(|_| octal(&mut self.rest))].into_iter().flatten() {
                    number = number * 8 + digit;
                }
                number
            }
            'x' => {
                let digits: String = if self.rest.next_if_eq(&'{').is_some() {
                    let digits = std::iter::from_fn(|| self.rest.next_if(char::is_ascii_hexdigit)).collect();
                    if self.rest.next() != Some('}') {
                        return refused();
                    }
                    digits
                } else {
                    let digits: String = self.rest.by_ref().take(2).collect();
                    if digits.len() < 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                        return refused();
                    }
                    digits
                };
                let Ok(number) = u32::from_str_radix(&digits, 16) else { return refused() };
                number
            }
            'a' => 7,
            'f' => 12,
            'n' => 10,
            'r' => 13,
            't' => 9,
            'v' => 11,
            c if c.is_ascii_punctuation() || (c.is_ascii() && !c.is_ascii_alphanumeric()) => u32::from(c),
            _ => return refused(),
        };
        match char::from_u32(number) {
            Some(c) => Ok(c),
            None => refused(),
        }
    }

    /// `[…]`, of which the `[` is gone.
    fn class(&mut self) -> Result<(), Refused> {
        let open = || "a `[` is not closed".to_owned();
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let c = self.rest.next().ok_or_else(open)?;
            if c == ']' && !first {
                break;
            }
            first = false;
            if c == '[' && self.rest.peek() == Some(&':') && self.posix()? {
                continue;
            }
            match self.rest.peek() {
                Some('p' | 'P') if c == '\\' => {
                    self.property()?;
                    continue;
                }
                Some('d' | 'D' | 's' | 'S' | 'w' | 'W') if c == '\\' => {
                    let class = self.rest.next().map(perl).unwrap_or_default();
                    self.out.push_str(class);
                    continue;
                }
                _ => {}
            }
            let low = if c == '\\' { self.letter()? } else { c };
            let mut high = low;
            let mut ahead = self.rest.clone();
            if ahead.next() == Some('-') && ahead.peek().is_some_and(|next| *next != ']') {
                self.rest = ahead;
                let c = self.rest.next().ok_or_else(open)?;
                high = if c == '\\' { self.letter()? } else { c };
            }
            if high < low {
                return Err(format!("the range {low}-{high} of a class ends before it begins"));
            }
            let _ = write!(self.out, r"\x{{{:X}}}-\x{{{:X}}}", u32::from(low), u32::from(high));
        }
        self.out.push(']');
        Ok(())
    }

    /// `[:alpha:]`, of which the `[` is gone; false when it is none.
    fn posix(&mut self) -> Result<bool, Refused> {
        let text: String = self.rest.clone().skip(1).collect();
        let Some((name, _)) = text.split_once(":]") else { return Ok(false) };
        if !POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err(format!("there is no class [:{name}:]"));
        }
        let _ = write!(self.out, "[:{name}:]");
        for _ in 0..name.chars().count() + ":".len() + ":]".len() {
            self.rest.next();
        }
        Ok(true)
    }
}

/// `3}`, `3,}` or `3,5}`; `None` where it is none, as with a number that begins with 0.
fn repetition(rest: &mut Peekable<Chars<'_>>) -> Option<(u32, Option<u32>)> {
    let number = |rest: &mut Peekable<Chars<'_>>| {
        let digits: String = std::iter::from_fn(|| rest.next_if(char::is_ascii_digit)).collect();
        let is_plain = !digits.is_empty() && (digits.len() == 1 || !digits.starts_with('0'));
        // More than can be said is more than is allowed.
        is_plain.then(|| digits.parse().unwrap_or(u32::MAX))
    };
    let least = number(rest)?;
    let most = match rest.next()? {
        '}' => return Some((least, Some(least))),
        ',' if rest.peek() == Some(&'}') => None,
        ',' => Some(number(rest)?),
        _ => return None,
    };
    (rest.next()? == '}').then_some((least, most))
}

/// A class of one letter is of ASCII alone.
fn perl(letter: char) -> &'static str {
    match letter {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        's' => r"[\t\n\x0C\r ]",
        'S' => r"[^\t\n\x0C\r ]",
        'w' => "[0-9A-Za-z_]",
        _ => "[^0-9A-Za-z_]",
    }
}

/// Flags, each at its first place: the `regex` crate refuses one that comes twice, of which RE2 lets the last decide.
fn once(flags: &str) -> String {
    let (on, off) = flags.split_once('-').unwrap_or((flags, ""));
    let distinct = |text: &str| text.chars().collect::<BTreeSet<char>>();
    let off = distinct(off);
    let on: String = distinct(on).into_iter().filter(|flag| !off.contains(flag)).collect();
    if off.is_empty() { on } else { format!("{on}-{}", off.into_iter().collect::<String>()) }
}

fn literal(out: &mut String, c: char) {
    if is_meta_character(c) {
        out.push('\\');
    }
    out.push(c);
}

#[cfg(test)]
mod tests;
