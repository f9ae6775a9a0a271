//! A directory of manifests as a source: tells `app` which files changed, once their writer has closed them.
//!
//! inotify gives the moment; a slow poll catches what it missed (an overflow, a file system without events). A file is
//! never read while it is being written: half a manifest could be valid and take objects away.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecursiveMode, Watcher};

/// How often the directory is read without being told to: inotify is the ordinary way, this is the net below it.
pub const POLL: Duration = Duration::from_secs(2);
/// The poll leaves a file alone that was written this short a time ago: its writer may not be done.
const SETTLED: Duration = Duration::from_secs(1);
/// Directories below directories, at most: a link that leads in a circle must end somewhere.
const MAX_DEPTH: usize = 16;
/// Files at most; more is a mistake in the path (`/`, a home directory), and would eat the node's memory.
pub const MAX_FILES: usize = 100_000;

/// What happened to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is there, with this text.
    Text(PathBuf, String),
    /// It cannot be read.
    Unreadable(PathBuf, String),
    /// It is gone.
    Removed(PathBuf),
}

/// Identity of a version of a file: a rename over it changes the inode, a write its time or size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    seconds: i64,
    nanoseconds: i64,
}

/// The directory, as it was last read.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    seen: BTreeMap<PathBuf, Stamp>,
}

impl Directory {
    /// A directory of which nothing has been read yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root, seen: BTreeMap::new() }
    }

    /// Starts inotify; `wake` gets the paths that changed, or none when everything may have. The watch lasts as long as
    /// what is returned.
    ///
    /// # Errors
    /// When the kernel refuses the watch (fs.inotify.max_user_watches).
    pub fn watch(&self, wake: impl Fn(Vec<PathBuf>) + Send + 'static) -> Result<notify::RecommendedWatcher> {
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let paths = match event {
                Ok(event) if tells_of_a_finished_change(event.kind) => event.paths,
                Ok(event) if event.need_rescan() => Vec::new(),
                Ok(_) => return,
                // An empty list asks for a full read.
                Err(_) => Vec::new(),
            };
            wake(paths);
        })
        .context("inotify")?;
        watcher
            .watch(&self.root, RecursiveMode::Recursive)
            .with_context(|| format!("cannot watch {}", self.root.display()))?;
        Ok(watcher)
    }

    /// Reads the named files, and everything below the named directories.
    pub fn read(&mut self, paths: &[PathBuf]) -> Vec<Change> {
        let mut changes = Vec::new();
        let paths: BTreeSet<&PathBuf> = paths.iter().collect();
        for path in paths {
            match std::fs::metadata(path) {
                Ok(meta) if meta.is_dir() => {
                    let mut files = BTreeMap::new();
                    list(path, 0, &mut files);
                    for (file, stamp) in files {
                        self.take(file, Some(stamp), &mut changes);
                    }
                }
                Ok(meta) if is_manifest(path) => self.take(path.clone(), Some(stamp(&meta)), &mut changes),
                Ok(_) => {}
                Err(_) => {
                    let gone: Vec<PathBuf> = self.seen.keys().filter(|seen| seen.starts_with(path)).cloned().collect();
                    for file in gone {
                        self.take(file, None, &mut changes);
                    }
                }
            }
        }
        changes
    }

    /// Reads what differs from the last time; `now` decides which files are settled. `None` = take all (the start).
    pub fn rescan(&mut self, now: Option<SystemTime>) -> Vec<Change> {
        let mut files = BTreeMap::new();
        list(&self.root, 0, &mut files);
        let mut changes = Vec::new();
        let gone: Vec<PathBuf> = self.seen.keys().filter(|file| !files.contains_key(*file)).cloned().collect();
        for file in gone {
            self.take(file, None, &mut changes);
        }
        for (file, stamp) in files {
            let settled = now.is_none_or(|now| {
                let written = SystemTime::UNIX_EPOCH + Duration::new(stamp.seconds.max(0) as u64, 0);
                now.duration_since(written).is_ok_and(|age| age >= SETTLED)
            });
            if settled {
                self.take(file, Some(stamp), &mut changes);
            }
        }
        changes
    }

    fn take(&mut self, file: PathBuf, stamp: Option<Stamp>, changes: &mut Vec<Change>) {
        let Some(stamp) = stamp else {
            if self.seen.remove(&file).is_some() {
                changes.push(Change::Removed(file));
            }
            return;
        };
        if self.seen.get(&file) == Some(&stamp) || (self.seen.len() >= MAX_FILES && !self.seen.contains_key(&file)) {
            return;
        }
        match std::fs::read_to_string(&file) {
            Ok(text) => changes.push(Change::Text(file.clone(), text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => changes.push(Change::Unreadable(file.clone(), error.to_string())),
        }
        self.seen.insert(file, stamp);
    }
}

/// Closed after writing, renamed, created as a link or directory, or gone. A plain write is not the end of one.
fn tells_of_a_finished_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(notify::event::ModifyKind::Name(_))
        | EventKind::Remove(_) => true,
        EventKind::Create(kind) => kind != notify::event::CreateKind::File,
        _ => false,
    }
}

fn stamp(meta: &std::fs::Metadata) -> Stamp {
    Stamp { inode: meta.ino(), size: meta.size(), seconds: meta.mtime(), nanoseconds: meta.mtime_nsec() }
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|e| e.to_str());
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

fn list(directory: &Path, depth: usize, files: &mut BTreeMap<PathBuf, Stamp>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        // Follows links: a ConfigMap volume is links to a directory that is swapped.
        let Ok(meta) = std::fs::metadata(&path) else { continue };
        if meta.is_dir() {
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if depth < MAX_DEPTH && !hidden {
                list(&path, depth + 1, files);
            }
        } else if is_manifest(&path) && files.len() < MAX_FILES {
            files.insert(path, stamp(&meta));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(changes: &[Change]) -> Vec<(&str, &str)> {
        changes
            .iter()
            .map(|change| match change {
                Change::Text(path, text) => (path.file_name().and_then(|n| n.to_str()).unwrap_or(""), text.as_str()),
                Change::Removed(path) => (path.file_name().and_then(|n| n.to_str()).unwrap_or(""), "-"),
                Change::Unreadable(..) => ("?", "?"),
            })
            .collect()
    }

    #[test]
    fn a_rescan_tells_what_is_new_changed_and_gone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a.yaml"), "1").unwrap();
        std::fs::create_dir(path("sub")).unwrap();
        std::fs::write(path("sub/b.yml"), "2").unwrap();
        std::fs::write(path("c.txt"), "3").unwrap();
        std::fs::write(path(".d.yaml"), "4").unwrap();
        let mut directory = Directory::new(dir.path().to_owned());
        assert_eq!(texts(&directory.rescan(None)), [("a.yaml", "1"), ("b.yml", "2")]);
        assert!(directory.rescan(None).is_empty());
        std::fs::write(path("a.yaml"), "one").unwrap();
        std::fs::remove_file(path("sub/b.yml")).unwrap();
        assert_eq!(texts(&directory.rescan(None)), [("b.yml", "-"), ("a.yaml", "one")]);
    }

    #[test]
    fn the_poll_leaves_a_file_alone_that_is_being_written() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("a.yaml"), "half").unwrap();
        let mut directory = Directory::new(dir.path().to_owned());
        assert!(directory.rescan(Some(SystemTime::now())).is_empty());
        assert_eq!(directory.rescan(Some(SystemTime::now() + Duration::from_secs(5))).len(), 1);
    }

    #[test]
    fn inotify_wakes_when_a_file_is_closed_or_renamed_into_place() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut directory = Directory::new(dir.path().to_owned());
        let (wake, woken) = std::sync::mpsc::channel();
        let _watch = directory.watch(move |paths| wake.send(paths).expect("the test receives")).expect("inotify");
        let next = |directory: &mut Directory| {
            for _ in 0..20 {
                let paths = woken.recv_timeout(Duration::from_secs(2)).expect("an event");
                let changes = directory.read(&paths);
                if !changes.is_empty() {
                    return changes;
                }
            }
            Vec::new()
        };
        std::fs::write(dir.path().join("a.yaml"), "1").unwrap();
        assert_eq!(texts(&next(&mut directory)), [("a.yaml", "1")]);
        std::fs::write(dir.path().join(".a.tmp"), "2").unwrap();
        std::fs::rename(dir.path().join(".a.tmp"), dir.path().join("a.yaml")).unwrap();
        assert_eq!(texts(&next(&mut directory)), [("a.yaml", "2")]);
        std::fs::remove_file(dir.path().join("a.yaml")).unwrap();
        assert_eq!(texts(&next(&mut directory)), [("a.yaml", "-")]);
    }
}
