//! The cgroup directories of one pod, and the watches on them. Used by `book`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::inotify::{Inotify, Interest};
use super::layout;

/// Containers whose files are watched while the sandbox is starting; its own is among the first.
const MAX_CONTAINERS: usize = 16;

/// One directory of a pod: in the v2 tree, or in one of version 1.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Containers coming and going.
    entries: Option<i32>,
    /// `cgroup.events`: populated or not. The kernel tells of it only while the file is in memory, which a watch on
    /// the file itself sees to.
    events: Option<i32>,
    /// Processes that are moved into containers.
    containers: BTreeMap<PathBuf, i32>,
}

impl Place {
    /// Watches what is not watched yet, the containers only while the sandbox is `starting`. Gives the new watches, and
    /// the error of one that the kernel refused.
    pub(super) fn watch(
        &mut self,
        path: &Path,
        starting: bool,
        inotify: &Inotify,
    ) -> (Vec<i32>, Option<std::io::Error>) {
        let mut new = Vec::new();
        let mut refused = None;
        let mut add = |path: &Path, interest| match inotify.watch(path, interest) {
            Ok(watch) => {
                new.push(watch);
                Some(watch)
            }
            // Version 1 has no cgroup.events, and directories vanish while we look.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                refused = Some(error);
                None
            }
        };
        if self.entries.is_none() {
            self.entries = add(path, Interest::Entries);
        }
        if self.events.is_none() {
            self.events = add(&path.join("cgroup.events"), Interest::Writes);
        }
        if starting {
            for (container, name) in layout::directories(path) {
                if self.containers.len() < MAX_CONTAINERS
                    && !layout::is_monitor(&name)
                    && !self.containers.contains_key(&container)
                    && let Some(watch) = add(&container, Interest::Writes)
                {
                    self.containers.insert(container, watch);
                }
            }
        } else {
            for watch in std::mem::take(&mut self.containers).into_values() {
                inotify.unwatch(watch);
            }
        }
        (new, refused)
    }

    /// Ends all of its watches.
    pub(super) fn unwatch(&mut self, inotify: &Inotify) {
        let containers = std::mem::take(&mut self.containers).into_values();
        for watch in containers.chain(self.entries.take()).chain(self.events.take()) {
            inotify.unwatch(watch);
        }
    }

    /// The kernel has ended a watch: what it was on is gone, or was made anew.
    pub(super) fn ended(&mut self, watch: i32) {
        self.entries = self.entries.filter(|w| *w != watch);
        self.events = self.events.filter(|w| *w != watch);
        self.containers.retain(|_, w| *w != watch);
    }
}
