//! What of the users' words the data path of this version does, as a set that routes carry, so that `explain` can say it.
//! The table itself is in `compile/enforced.rs`.

use std::fmt;

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Something that a route can ask for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Feature {
            $($(#[$doc])* $name,)*
        }

        impl Feature {
            /// All of them, in the order of their values.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The field that asks for it.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}
features! {
    /// `http[].redirect`
    Redirect = "redirect",
    /// `http[].directResponse`
    DirectResponse = "directResponse",
    /// `http[].rewrite`
    Rewrite = "rewrite",
    /// `http[].timeout`
    Timeout = "timeout",
    /// `http[].retries`
    Retries = "retries",
    /// `http[].fault.delay`
    Delay = "fault.delay",
    /// `http[].fault.abort`
    Abort = "fault.abort",
    /// `http[].mirror`, `http[].mirrors`
    Mirror = "mirror",
    /// `http[].corsPolicy`
    Cors = "corsPolicy",
    /// `http[].headers`
    Headers = "headers",
    /// `http[].route[].headers`
    DestinationHeaders = "route.headers",
}

/// A set of [`Feature`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Features(u16);

impl Features {
    /// Adds one.
    pub fn insert(&mut self, feature: Feature) {
        self.0 |= 1 << feature as u16;
    }

    /// Whether it is there.
    pub fn has(self, feature: Feature) -> bool {
        self.0 & (1 << feature as u16) != 0
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// All, in order.
    pub fn iter(self) -> impl Iterator<Item = Feature> {
        Feature::ALL.iter().copied().filter(move |feature| self.has(*feature))
    }
}

impl FromIterator<Feature> for Features {
    fn from_iter<I: IntoIterator<Item = Feature>>(features: I) -> Self {
        let mut set = Self::default();
        features.into_iter().for_each(|feature| set.insert(feature));
        set
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}
