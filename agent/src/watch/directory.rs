//! A directory of manifests as a source: tells `app` which files changed, once their writer has closed them.
//!
//! inotify gives the moment; a slow poll catches what it missed (an overflow, a file system without events). A file is
//! never read while it is being written: half a manifest could be valid and take objects away. What cannot be read is
//! not gone: what it said stays, [`Directory::problems`] tells of it, and the poll tries again.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecursiveMode, Watcher};
use weir_mesh::store::MAX_FILE_BYTES;

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
    /// Why a file or directory cannot be read.
    problems: BTreeMap<PathBuf, String>,
}

/// What was found below a directory.
#[derive(Debug, Default)]
struct Listing {
    files: BTreeMap<PathBuf, Stamp>,
    /// Directories and files that could not be looked at, and why.
    unreadable: BTreeMap<PathBuf, String>,
}

impl Directory {
    /// A directory of which nothing has been read yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root, seen: BTreeMap::new(), problems: BTreeMap::new() }
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

    /// What cannot be read, and why; what it said before stays in force.
    pub fn problems(&self) -> &BTreeMap<PathBuf, String> {
        &self.problems
    }

    /// Reads the named files, and everything below the named directories.
    pub fn read(&mut self, paths: &[PathBuf]) -> Vec<Change> {
        let mut changes = Vec::new();
        let paths: BTreeSet<&PathBuf> = paths.iter().collect();
        if paths.iter().any(|path| self.is_swapped_link(path)) {
            // Such a volume is written elsewhere and swapped when it is whole.
            return self.rescan(None);
        }
        for path in paths {
            if self.is_hidden(path) {
                continue;
            }
            match std::fs::metadata(path) {
                Ok(meta) if meta.is_dir() => {
                    let mut found = Listing::default();
                    found.list(path, self.depth(path));
                    self.problems.extend(found.unreadable);
                    for (file, stamp) in found.files {
                        self.take(file, stamp, &mut changes);
                    }
                }
                Ok(meta) if is_manifest(path) => self.take(path.clone(), stamp(&meta), &mut changes),
                Ok(_) => {}
                Err(error) if is_gone(&error) => {
                    let gone: Vec<PathBuf> = self.seen.keys().filter(|seen| seen.starts_with(path)).cloned().collect();
                    for file in gone {
                        self.forget(file, &mut changes);
                    }
                }
                Err(error) => {
                    self.problems.insert(path.clone(), error.to_string());
                }
            }
        }
        changes
    }

    /// Reads what differs from the last time; `now` decides which files are settled. `None` = take all (the start).
    pub fn rescan(&mut self, now: Option<SystemTime>) -> Vec<Change> {
        let mut found = Listing::default();
        found.list(&self.root, 0);
        let mut changes = Vec::new();
        let hidden_by_error = |file: &PathBuf| found.unreadable.keys().any(|path| file.starts_with(path));
        let gone: Vec<PathBuf> = self
            .seen
            .keys()
            .chain(self.problems.keys())
            .filter(|file| !found.files.contains_key(*file) && !hidden_by_error(file))
            .cloned()
            .collect();
        for file in gone {
            self.forget(file, &mut changes);
        }
        self.problems.extend(found.unreadable);
        for (file, stamp) in found.files {
            let settled = now.is_none_or(|now| {
                let written = SystemTime::UNIX_EPOCH + Duration::new(stamp.seconds.max(0) as u64, 0);
                now.duration_since(written).is_ok_and(|age| age >= SETTLED)
            });
            if settled {
                self.take(file, stamp, &mut changes);
            }
        }
        changes
    }

    fn forget(&mut self, file: PathBuf, changes: &mut Vec<Change>) {
        self.problems.remove(&file);
        if self.seen.remove(&file).is_some() {
            changes.push(Change::Removed(file));
        }
    }

    fn take(&mut self, file: PathBuf, stamp: Stamp, changes: &mut Vec<Change>) {
        if self.seen.get(&file) == Some(&stamp) {
            self.problems.remove(&file);
            return;
        }
        let problem = if self.seen.len() >= MAX_FILES && !self.seen.contains_key(&file) {
            format!("there are more than {MAX_FILES} files, the rest is not read")
        } else if stamp.size > MAX_FILE_BYTES as u64 {
            format!("it has {} bytes, more than the {MAX_FILE_BYTES} that are read", stamp.size)
        } else {
            match std::fs::read_to_string(&file) {
                Ok(text) => {
                    self.problems.remove(&file);
                    changes.push(Change::Text(file.clone(), text));
                    self.seen.insert(file, stamp);
                    return;
                }
                Err(error) if is_gone(&error) => return,
                // Not remembered as seen: the poll tries again.
                Err(error) => error.to_string(),
            }
        };
        self.problems.insert(file, problem);
    }

    /// Below a directory whose name begins with a dot, or such a file: editors' and version control's business.
    fn is_hidden(&self, path: &Path) -> bool {
        path.strip_prefix(&self.root)
            .unwrap_or(path)
            .components()
            .any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."))
    }

    /// A ConfigMap volume is links through `..data`, which the kubelet swaps: all files change, and none of them has an
    /// event.
    fn is_swapped_link(&self, path: &Path) -> bool {
        path.parent() == Some(&self.root)
            && path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"..data"))
    }

    fn depth(&self, path: &Path) -> usize {
        path.strip_prefix(&self.root).map_or(0, |below| below.components().count())
    }
}

impl Listing {
    fn list(&mut self, directory: &Path, depth: usize) {
        let entries = match std::fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if depth > 0 && is_gone(&error) => return,
            Err(error) => {
                self.unreadable.insert(directory.to_owned(), error.to_string());
                return;
            }
        };
        for entry in entries {
            let path = match &entry {
                Ok(entry) => entry.path(),
                Err(error) => {
                    self.unreadable.insert(directory.to_owned(), error.to_string());
                    return;
                }
            };
            if path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b".")) {
                continue;
            }
            // Follows links: a ConfigMap volume is links to a directory that is swapped.
            match std::fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => {
                    if depth < MAX_DEPTH {
                        self.list(&path, depth + 1);
                    }
                }
                // A pipe would block the reader, a device never end.
                Ok(meta) if meta.is_file() && is_manifest(&path) => {
                    self.files.insert(path, stamp(&meta));
                }
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
                Err(error) => {
                    self.unreadable.insert(path, error.to_string());
                }
            }
        }
    }
}

fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
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
    matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json"))
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

    #[test]
    fn what_cannot_be_read_is_not_gone_and_is_tried_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("sub")).unwrap();
        std::fs::write(path("sub/a.yaml"), "1").unwrap();
        std::fs::write(path("b.yaml"), "2").unwrap();
        let mut directory = Directory::new(dir.path().to_owned());
        assert_eq!(directory.rescan(None).len(), 2);
        // Not UTF-8: fails as a file on a broken disk does, for root too.
        std::fs::write(path("b.yaml"), b"\xff\xfe2").unwrap();
        for _ in 0..2 {
            assert!(directory.rescan(None).is_empty());
            assert_eq!(directory.problems().keys().collect::<Vec<_>>(), [&path("b.yaml")]);
        }
        std::fs::write(path("b.yaml"), "two").unwrap();
        assert_eq!(texts(&directory.rescan(None)), [("b.yaml", "two")]);
        assert!(directory.problems().is_empty());
        // A link that leads in a circle cannot be looked at, and the files that were below it are not gone.
        std::fs::rename(path("sub"), path("away")).unwrap();
        std::os::unix::fs::symlink("sub", path("sub")).unwrap();
        let changes = directory.rescan(None);
        assert_eq!(texts(&changes), [("a.yaml", "1")], "from its new place only");
        assert_eq!(directory.problems().keys().collect::<Vec<_>>(), [&path("sub")]);
        std::fs::remove_file(path("sub")).unwrap();
        assert_eq!(texts(&directory.rescan(None)), [("a.yaml", "-")]);
        assert!(directory.problems().is_empty());
    }

    #[test]
    fn a_file_that_is_too_large_or_no_file_is_not_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let large = dir.path().join("large.yaml");
        std::fs::File::create(&large).unwrap().set_len(MAX_FILE_BYTES as u64 + 1).unwrap();
        let pipe = std::process::Command::new("mkfifo").arg(dir.path().join("pipe.yaml")).status().unwrap();
        assert!(pipe.success());
        let mut directory = Directory::new(dir.path().to_owned());
        assert!(directory.rescan(None).is_empty());
        assert_eq!(directory.problems().keys().collect::<Vec<_>>(), [&large]);
    }

    #[test]
    fn hidden_directories_are_left_alone_and_a_swapped_volume_is_read_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |name: &str| dir.path().join(name);
        let mut directory = Directory::new(dir.path().to_owned());
        std::fs::create_dir(path(".git")).unwrap();
        std::fs::write(path(".git/a.yaml"), "1").unwrap();
        assert!(directory.read(&[path(".git/a.yaml"), path(".git")]).is_empty());
        for (version, text) in [("..1", "old"), ("..2", "new")] {
            std::fs::create_dir(path(version)).unwrap();
            std::fs::write(path(version).join("a.yaml"), text).unwrap();
        }
        std::os::unix::fs::symlink("..1", path("..data")).unwrap();
        std::os::unix::fs::symlink("..data/a.yaml", path("a.yaml")).unwrap();
        assert_eq!(texts(&directory.rescan(None)), [("a.yaml", "old")]);
        std::os::unix::fs::symlink("..2", path("..tmp")).unwrap();
        std::fs::rename(path("..tmp"), path("..data")).unwrap();
        assert_eq!(texts(&directory.read(&[path("..data")])), [("a.yaml", "new")]);
    }
}
