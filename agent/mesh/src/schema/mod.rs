//! What may be written: every message of every kind that users write, as tables ([`tables`]), and the walk that holds
//! an object against them ([`check`]). The tables say what the definitions of the kinds say in an API server; what goes
//! beyond types is [`crate::validate`]'s. Pure, and nothing of a table is made at run time.

mod canonical;
mod check;
mod duration;
mod pattern;
mod suggest;
mod tables;

pub use canonical::canonical;
pub use check::{Fault, MAX_FAULTS, Problem, check, to_camel_case};
pub use duration::parse as parse_duration;
pub use pattern::Pattern;
pub use suggest::{nearest, place_of};
pub use tables::{group_has_kind, kinds, message_of, nearest_kind, versions_of};

/// A map with a fixed set of fields.
#[derive(Debug)]
pub struct Message {
    /// For debugging; no user sees it.
    pub name: &'static str,
    /// All fields that it has.
    pub fields: &'static [Field],
    /// Of each of these groups at most one field may be there.
    pub one_of: &'static [&'static [&'static str]],
}

impl Message {
    /// A field by its name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// A field of a message.
#[derive(Debug)]
pub struct Field {
    /// As it is written.
    pub name: &'static str,
    /// What its value must be.
    pub ty: Type,
    /// It must be there.
    pub required: bool,
}

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// An integer from the first to the second, both included.
    Int(i64, i64),
    /// One of these integers.
    IntEnum(&'static [i64]),
    /// A number from the first to the second, both included.
    Float(f64, f64),
    /// A string of so many characters.
    Text(Size),
    /// A string of a certain form.
    Matching(&'static Pattern),
    /// `1h2m3.5s`: so many milliseconds at least, and whole ones.
    Duration(u64),
    /// Digits and units without a fraction: `1h30m`, `500ms`.
    PlainDuration,
    /// One of these strings.
    Enum(&'static [&'static str]),
    /// Anything: others know what it is.
    Any,
    /// A list of so many values of one type.
    List(&'static Type, Size),
    /// A map of so many entries with values of one type.
    Map(&'static Type, Size),
    /// A map with a fixed set of fields.
    Message(&'static Message),
}

/// How many there may be, and what must not be there twice.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// At least.
    pub min: usize,
    /// At most.
    pub max: usize,
    /// What must differ between two items of a list.
    pub unique: Unique,
}

/// What must differ between two items of a list.
#[derive(Clone, Copy, Debug)]
pub enum Unique {
    /// Nothing.
    No,
    /// The items themselves, which are strings or numbers.
    Item,
    /// This field of theirs.
    Field(&'static str),
}

impl Size {
    /// Any number.
    pub const ANY: Self = Self { min: 0, max: usize::MAX, unique: Unique::No };
    /// No item twice.
    pub const SET: Self = Self { unique: Unique::Item, ..Self::ANY };
    /// No two items of one name.
    pub const BY_NAME: Self = Self { unique: Unique::Field("name"), ..Self::ANY };
    /// No two items for one port.
    pub const BY_PORT: Self = Self { unique: Unique::Field("port"), ..Self::ANY };

    /// So many.
    #[must_use]
    pub const fn between(self, min: usize, max: usize) -> Self {
        Self { min, max, ..self }
    }
}
