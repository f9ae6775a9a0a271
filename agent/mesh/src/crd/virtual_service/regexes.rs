//! The regular expressions of a VirtualService, wherever they stand.

use std::sync::Arc;

use super::{HttpRoute, VirtualService};
use crate::matching::{Pattern, StringMatch};
use crate::program::UriRewrite;

impl VirtualService {
    /// All of them, of an object that nobody shares yet. What it delegates to has its own.
    pub(in crate::crd) fn each_regex(&mut self, see: &mut dyn FnMut(&mut Pattern)) {
        self.regexes.iter_mut().for_each(&mut *see);
        self.http.iter_mut().for_each(|route| route.each_regex(see));
    }
}

impl HttpRoute {
    fn each_regex(&mut self, see: &mut dyn FnMut(&mut Pattern)) {
        self.items.iter_mut().for_each(|item| item.conditions.each_regex(see));
        let Some(settings) = &mut self.settings else { return };
        let rewrite = settings.rewrite.as_mut().and_then(|rewrite| Arc::get_mut(rewrite.value_mut()));
        if let Some(UriRewrite::Regex(pattern, _)) = rewrite.and_then(|rewrite| rewrite.uri.as_mut()) {
            see(pattern);
        }
        let cors = settings.cors.as_mut().and_then(|cors| Arc::get_mut(cors.value_mut()));
        let origins = cors.into_iter().flat_map(|cors| &mut cors.allow_origins);
        origins.filter_map(StringMatch::regex_mut).for_each(see);
    }
}
