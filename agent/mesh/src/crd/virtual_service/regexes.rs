//! What the regular expressions of a VirtualService come to.

use super::{HttpRoute, VirtualService};
use crate::matching::StringMatch;
use crate::program::UriRewrite;

impl VirtualService {
    /// How many states they are compiled to, about. What it delegates to has its own.
    pub(crate) fn regex_states(&self) -> u64 {
        self.http.iter().map(HttpRoute::regex_states).sum()
    }
}

impl HttpRoute {
    fn regex_states(&self) -> u64 {
        let conditions: u64 = self.items.iter().map(|item| item.conditions.regex_states()).sum();
        let Some(settings) = &self.settings else { return conditions };
        let rewrite = match settings.rewrite.as_ref().and_then(|rewrite| rewrite.uri.as_ref()) {
            Some(UriRewrite::Regex(pattern, _)) => pattern.states(),
            _ => 0,
        };
        let origins = settings.cors.iter().flat_map(|cors| &cors.allow_origins).map(StringMatch::regex_states);
        conditions + rewrite + origins.sum::<u64>()
    }
}
