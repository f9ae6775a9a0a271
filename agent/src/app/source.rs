//! Where the configuration comes from, as `apply` sees it: hear what happened, take it over, give everything that is
//! there. The compiler cannot tell a directory of manifests from an API server.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use weir_mesh::finding::{Finding, Severity, code};
use weir_mesh::snapshot::Snapshot;
use weir_mesh::source::Location;
use weir_mesh::store::{Changes, ObjectStore, Store};

use crate::watch::directory::{Change, Directory, POLL};
use crate::watch::kubernetes::Outbox;

/// One of the two.
pub(super) enum Source {
    /// `--manifests DIR`
    Files(Files),
    /// `--kubernetes`
    Objects(Box<Objects>),
}

/// What was heard of a source.
#[derive(Debug)]
pub(super) enum News {
    /// These paths changed; empty = anything may have.
    Paths(Vec<PathBuf>),
    /// The outbox holds something.
    Objects,
}

impl Source {
    pub(super) fn files(directory: Directory) -> Self {
        Self::Files(Files {
            directory,
            store: Store::default(),
            heard: BTreeSet::new(),
            everything: false,
            unreadable: BTreeMap::new(),
            failed: BTreeSet::new(),
            polled: Instant::now(),
        })
    }

    pub(super) fn objects(outbox: Arc<Outbox>) -> Self {
        Self::Objects(Box::new(Objects { outbox, store: ObjectStore::new() }))
    }

    /// Reads what can be read at once.
    pub(super) fn begin(&mut self) {
        if let Self::Files(files) = self {
            let changes = files.directory.rescan(None);
            files.read(changes);
        }
    }

    /// Everything has been read once: what is given is no part of something.
    pub(super) fn is_complete(&self) -> bool {
        match self {
            Self::Files(_) => true,
            Self::Objects(objects) => objects.outbox.is_complete(),
        }
    }

    /// Remembers what is to be taken over.
    pub(super) fn hear(&mut self, news: News) {
        match (self, news) {
            (Self::Files(files), News::Paths(paths)) => {
                files.everything |= paths.is_empty();
                files.heard.extend(paths);
            }
            (Self::Objects(objects), _) => objects.outbox.hear(),
            (Self::Files(_), News::Objects) => {}
        }
    }

    /// Takes over what was heard, and says what it changed.
    pub(super) fn take(&mut self) -> Changes {
        match self {
            Self::Files(files) => {
                let paths: Vec<PathBuf> = std::mem::take(&mut files.heard).into_iter().collect();
                let changes = if std::mem::take(&mut files.everything) {
                    files.directory.rescan(Some(SystemTime::now()))
                } else {
                    files.directory.read(&paths)
                };
                if files.read(changes) { Changes::Many } else { Changes::Few(Vec::new()) }
            }
            Self::Objects(objects) => objects.store.apply(objects.outbox.take()),
        }
    }

    /// Looks for what nobody told of, now and then. True when something changed.
    pub(super) fn poll(&mut self, now: Instant) -> bool {
        let Self::Files(files) = self else { return false };
        if now.duration_since(files.polled) < POLL {
            return false;
        }
        files.polled = now;
        let changes = files.directory.rescan(Some(SystemTime::now()));
        files.read(changes)
    }

    /// Everything that is there, and what is wrong with it.
    pub(super) fn assemble(&self) -> (Cow<'_, Snapshot>, Vec<Finding>) {
        match self {
            Self::Files(files) => {
                let (snapshot, findings) = files.store.assemble();
                (Cow::Owned(snapshot), findings)
            }
            Self::Objects(objects) => (Cow::Borrowed(objects.store.snapshot()), objects.store.findings()),
        }
    }

    /// Everything that is there.
    pub(super) fn snapshot(&self) -> Cow<'_, Snapshot> {
        match self {
            Self::Files(files) => Cow::Owned(files.store.assemble().0),
            Self::Objects(objects) => Cow::Borrowed(objects.store.snapshot()),
        }
    }

    /// What is wrong with files as a whole.
    pub(super) fn file_findings(&self) -> Vec<Finding> {
        match self {
            Self::Files(files) => files.findings().collect(),
            Self::Objects(_) => Vec::new(),
        }
    }
}

/// An API server's objects.
pub(super) struct Objects {
    outbox: Arc<Outbox>,
    store: ObjectStore,
}

/// A directory's.
pub(super) struct Files {
    directory: Directory,
    store: Store,
    heard: BTreeSet<PathBuf>,
    everything: bool,
    /// What the directory said it could not read, when it was last taken over.
    unreadable: BTreeMap<PathBuf, String>,
    /// Files on whose text the reader failed.
    failed: BTreeSet<PathBuf>,
    polled: Instant,
}

impl Files {
    /// True when something changed.
    fn read(&mut self, changes: Vec<Change>) -> bool {
        let mut any = !changes.is_empty();
        for change in changes {
            match change {
                Change::Text(path, text) => {
                    let read = catch_unwind(AssertUnwindSafe(|| self.store.set_file(&name(&path), &text)));
                    match read {
                        Ok(()) => self.failed.remove(&path),
                        Err(_) => self.failed.insert(path),
                    };
                }
                Change::Removed(path) => {
                    self.failed.remove(&path);
                    self.store.remove_file(&name(&path));
                }
            }
        }
        if self.unreadable != *self.directory.problems() {
            self.unreadable = self.directory.problems().clone();
            any = true;
        }
        any
    }

    fn findings(&self) -> impl Iterator<Item = Finding> {
        let unreadable = self.unreadable.iter().map(|(path, why)| {
            let message = format!("cannot be read: {why}; what it said before stays in force");
            about(path, code::UNREADABLE, message)
        });
        let failed = self.failed.iter().map(|path| {
            let message = "weir failed on this text, see its log; what the file said before stays in force".to_owned();
            about(path, code::INTERNAL, message)
        });
        unreadable.chain(failed)
    }
}

fn name(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn about(path: &Path, code: &'static str, message: String) -> Finding {
    let at = Some(Location { file: name(path).into(), line: 0, column: 0 });
    Finding { severity: Severity::Error, code, object: None, at, message, help: None }
}
