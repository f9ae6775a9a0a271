//! Where everything is pinned, who may change it, and how it is removed. Used by `mod` and by `weir uninstall`.
//!
//! `BPFFS/weir/INSTANCE/vABI/{maps,progs,links}`, and beside the versions a link `maps` to the active one (for the
//! default instance in `BPFFS/weir` too, where people look first). bpffs takes directories, links, locks and renames,
//! but no regular files and no name with a dot.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use weir_ebpf::{ABI_VERSION, maps};

use super::error::DatapathError;
use super::memory::MetaMemory;
use super::{agents, links, sys};

/// `BPF_FS_MAGIC`
const BPF_FS_MAGIC: libc::c_long = 0xcafe_4a11;

/// How long to wait for another agent's update: a first load takes some 50 ms, 10,000 services as much again.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// The instance that `BPFFS/weir/maps` shows.
pub const DEFAULT_INSTANCE: &str = "default";

/// The name of the link to the active maps, so no instance can have it.
const ACTIVE: &str = "maps";
/// The name of the link that says which agent is to be in charge. It leads nowhere: its target is the text.
const AGENT: &str = "agent";

/// The directories of one instance.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    weir: PathBuf,
    instance: String,
}

/// The right to change an instance, until dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _directory: File,
}

impl Pins {
    pub(super) fn new(bpffs: &Path, instance: &str) -> Result<Self, DatapathError> {
        let fits = (1..=31).contains(&instance.len())
            && instance.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && instance != ACTIVE;
        if !fits {
            return Err(DatapathError::BadInstance(instance.to_owned()));
        }
        Ok(Self { weir: bpffs.join("weir"), instance: instance.to_owned() })
    }

    fn root(&self) -> PathBuf {
        self.weir.join(&self.instance)
    }

    fn version(&self) -> PathBuf {
        self.root().join(format!("v{ABI_VERSION}"))
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.version().join("maps").join(name)
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.version().join("progs").join(name)
    }

    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.version().join("links").join(name)
    }

    /// Makes the directories, for root alone, and takes the lock. Who leaves may be removing them at the same time.
    pub(super) fn create(&self) -> Result<Lock, DatapathError> {
        let until = Instant::now() + LOCK_TIMEOUT;
        loop {
            // Again under the lock: what was made first may have gone with the rest.
            match self.make().and_then(|()| self.lock()).and_then(|lock| self.make().map(|()| lock)) {
                Err(DatapathError::Removed) if Instant::now() < until => {}
                Err(DatapathError::Io { error, .. })
                    if error.kind() == io::ErrorKind::NotFound && Instant::now() < until => {}
                done => return done,
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }

    fn make(&self) -> Result<(), DatapathError> {
        for kind in ["maps", "progs", "links"] {
            let path = self.version().join(kind);
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(DatapathError::io("create", &path))?;
        }
        Ok(())
    }

    /// Points the link `maps` to this version.
    pub(super) fn activate(&self) -> Result<(), DatapathError> {
        let version = format!("v{ABI_VERSION}/maps");
        replace_link(&self.root().join(ACTIVE), &version)?;
        if self.instance == DEFAULT_INSTANCE {
            replace_link(&self.weir.join(ACTIVE), &format!("{DEFAULT_INSTANCE}/{version}"))?;
        }
        Ok(())
    }

    /// Writes which agent is to be in charge, of whatever version.
    pub(super) fn designate(&self, agent: &str) -> Result<(), DatapathError> {
        replace_link(&self.root().join(AGENT), agent)
    }

    /// What [`Pins::designate`] has written last; `None` when nothing is there.
    pub(super) fn designated(&self) -> Result<Option<String>, DatapathError> {
        let link = self.root().join(AGENT);
        match fs::read_link(&link) {
            Ok(text) => Ok(Some(text.to_string_lossy().into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(DatapathError::io("read", link)(error)),
        }
    }

    /// Waits for the right to change this instance. [`DatapathError::Removed`] when it is not there (any more).
    pub(super) fn lock(&self) -> Result<Lock, DatapathError> {
        let path = self.root();
        let until = Instant::now() + LOCK_TIMEOUT;
        let mut directory = self.open()?;
        loop {
            // SAFETY: the descriptor is open.
            if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
                // The lock of a directory that was removed, and perhaps made anew, keeps nobody out.
                let now = self.open()?;
                if is_same(&directory, &now).map_err(DatapathError::io("look at", &path))? {
                    return Ok(Lock { _directory: directory });
                }
                directory = now;
                continue;
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::WouldBlock && error.kind() != io::ErrorKind::Interrupted {
                return Err(DatapathError::Io { what: "lock", path, error });
            }
            if Instant::now() >= until {
                return Err(DatapathError::Locked(self.instance.clone()));
            }
            std::thread::sleep(LOCK_RETRY);
        }
    }

    fn open(&self) -> Result<File, DatapathError> {
        let path = self.root();
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => DatapathError::Removed,
            _ => DatapathError::io("open", path)(error),
        })
    }

    /// Whether an agent of any version beats.
    fn is_used(&self) -> Result<bool, DatapathError> {
        for version in directories(&self.root())? {
            let path = version.join("maps").join(maps::META);
            let meta = match sys::object_get(&path) {
                // Every version of the ABI has the heartbeats at the same place of this map.
                Ok(map) => MetaMemory::new(map.as_fd()).map_err(DatapathError::io("map", &path))?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(DatapathError::Io { what: "open the pinned map", path, error }),
            };
            if agents::is_anybody_alive(&meta, agents::monotonic_ns()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses pinned maps that are not as this build declares them: aya would take them as they are, and a lookup
    /// would write past the value.
    pub(super) fn check_maps(&self) -> Result<(), DatapathError> {
        for wanted in maps::ALL {
            let path = self.map(wanted.name);
            let map = match sys::object_get(&path) {
                Ok(map) => map,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(DatapathError::Io { what: "open the pinned map", path, error }),
            };
            let found =
                sys::map_shape(map.as_fd(), wanted.name).map_err(DatapathError::io("read the pinned map", &path))?;
            if found != *wanted {
                return Err(DatapathError::AbiMismatch { map: wanted.name, difference: difference(&found, wanted) });
            }
        }
        Ok(())
    }

    /// Pins what `fd` is, in the place of what is there. The old pin holds until the new one is there.
    pub(super) fn pin_over(fd: BorrowedFd<'_>, path: &Path) -> Result<(), DatapathError> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push("-new");
        let fresh = path.with_file_name(name);
        // Left over by an agent that died between the two steps.
        remove_file(&fresh)?;
        sys::object_pin(fd, &fresh).map_err(DatapathError::io("pin", &fresh))?;
        fs::rename(&fresh, path).map_err(DatapathError::io("pin", path))
    }
}

fn difference(found: &maps::Shape, wanted: &maps::Shape) -> String {
    [
        ("type", found.kind, wanted.kind),
        ("key size", found.key_size, wanted.key_size),
        ("value size", found.value_size, wanted.value_size),
        ("entries", found.max_entries, wanted.max_entries),
        ("flags", found.flags, wanted.flags),
    ]
    .iter()
    .filter(|(_, found, wanted)| found != wanted)
    .map(|(what, found, wanted)| format!("{what} {found} instead of {wanted}"))
    .collect::<Vec<_>>()
    .join(", ")
}

fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let (one, other) = (one.metadata()?, other.metadata()?);
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

fn replace_link(link: &Path, target: &str) -> Result<(), DatapathError> {
    if fs::read_link(link).is_ok_and(|old| old == Path::new(target)) {
        return Ok(());
    }
    let mut name = link.file_name().unwrap_or_default().to_owned();
    name.push("-new");
    let fresh = link.with_file_name(name);
    remove_file(&fresh)?;
    symlink(target, &fresh).map_err(DatapathError::io("link", &fresh))?;
    fs::rename(&fresh, link).map_err(DatapathError::io("link", link))
}

pub(super) fn remove_file(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DatapathError::Io { what: "remove", path: path.to_owned(), error })
        }
        _ => Ok(()),
    }
}

fn is_bpffs(path: &Path) -> io::Result<bool> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    let mut status = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path is a C string, and `status` is valid for writes.
    if unsafe { libc::statfs(path.as_ptr(), status.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: statfs has filled it.
    Ok(unsafe { status.assume_init() }.f_type as libc::c_long == BPF_FS_MAGIC)
}

/// Mounts a bpffs at `path` unless there is one. `bpftool` and systemd do the same when they need it.
///
/// # Errors
/// When `path` is not there, or mounting is not permitted.
pub fn ensure_bpffs(path: &Path) -> Result<(), DatapathError> {
    let is = |path: &Path| is_bpffs(path).map_err(DatapathError::io("look at", path));
    if is(path)? {
        return Ok(());
    }
    // A second mount would hide the pins of the first one's maker; the lock is on the directory below the mounts.
    let directory = File::open(path).map_err(DatapathError::io("open", path))?;
    // SAFETY: the descriptor is open.
    if unsafe { libc::flock(directory.as_raw_fd(), libc::LOCK_EX) } != 0 {
        return Err(DatapathError::io("lock", path)(io::Error::last_os_error()));
    }
    if is(path)? {
        return Ok(());
    }
    let target = std::ffi::CString::new(path.as_os_str().as_bytes())
        .map_err(|e| DatapathError::io("mount a bpffs at", path)(io::Error::other(e)))?;
    // SAFETY: all arguments are C strings that outlive the call.
    let result = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            target.as_ptr(),
            c"bpf".as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV,
            c"mode=0700".as_ptr().cast(),
        )
    };
    match result {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(DatapathError::NotPermitted { what: "mount a bpffs", capability: "CAP_SYS_ADMIN" })
            }
            error => Err(DatapathError::io("mount a bpffs at", path)(error)),
        },
    }
}

/// Detaches the programs of an instance and removes all its pins, of every ABI version. True when there were any.
///
/// # Errors
/// [`DatapathError::InUse`] while an agent of the instance is alive, unless `force` is set. When a pin cannot be removed;
/// what was removed until then stays removed, links first.
pub fn uninstall(instance: &str, bpffs: &Path, force: bool) -> Result<bool, DatapathError> {
    let pins = Pins::new(bpffs, instance)?;
    let lock = match pins.lock() {
        Err(DatapathError::Removed) => return Ok(false),
        lock => lock?,
    };
    if !force && pins.is_used()? {
        return Err(DatapathError::InUse(instance.to_owned()));
    }
    remove(&pins, &lock)?;
    Ok(true)
}

/// What [`uninstall`] does, for who holds the lock.
pub(super) fn remove(pins: &Pins, _lock: &Lock) -> Result<(), DatapathError> {
    let root = pins.root();
    let versions: Vec<PathBuf> = directories(&root)?;
    detach(&versions)?;
    if pins.instance == DEFAULT_INSTANCE {
        remove_file(&pins.weir.join(ACTIVE))?;
    }
    unpin(&versions)?;
    for link in [ACTIVE, AGENT, "maps-new", "agent-new"] {
        remove_file(&root.join(link))?;
    }
    remove_directory(&root)?;
    // Other instances may be there.
    if let Err(error) = fs::remove_dir(&pins.weir) {
        tracing::debug!(path = %pins.weir.display(), %error, "left in place");
    }
    Ok(())
}

/// Removes what agents of other ABI versions have in the kernel, for one that serves everything and holds the lock.
pub(super) fn remove_former(pins: &Pins, _lock: &Lock) -> Result<(), DatapathError> {
    let mut versions = directories(&pins.root())?;
    versions.retain(|version| *version != pins.version());
    detach(&versions)?;
    unpin(&versions)
}

fn detach(versions: &[PathBuf]) -> Result<(), DatapathError> {
    // The connect hooks go first: without them nothing new is steered, while answers about what was still hold.
    for version in versions {
        for name in links::ORDER.iter().rev() {
            let path = version.join("links").join(name);
            match sys::object_get(&path).and_then(|link| sys::link_detach(link.as_fd())) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(DatapathError::Io { what: "detach", path, error });
                }
                _ => remove_file(&path)?,
            }
        }
    }
    Ok(())
}

fn unpin(versions: &[PathBuf]) -> Result<(), DatapathError> {
    for version in versions {
        for kind in ["links", "progs", "maps"] {
            let directory = version.join(kind);
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(DatapathError::io("read", directory)(error)),
            };
            for entry in entries {
                remove_file(&entry.map_err(DatapathError::io("read", &directory))?.path())?;
            }
            remove_directory(&directory)?;
        }
        remove_directory(version)?;
    }
    Ok(())
}

/// One that is not empty is being made anew, by an agent that waits for the lock.
fn remove_directory(path: &Path) -> Result<(), DatapathError> {
    match fs::remove_dir(path) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => {
            Err(DatapathError::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

fn directories(path: &Path) -> Result<Vec<PathBuf>, DatapathError> {
    let entries = fs::read_dir(path).map_err(DatapathError::io("read", path))?;
    Ok(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instance_names_are_checked() {
        let fits = |name: &str| Pins::new(Path::new("/b"), name).is_ok();
        assert!(fits("default") && fits("a-1") && fits(&"a".repeat(31)));
        for name in ["", "A", "a.b", "a/b", "..", "maps", &"a".repeat(32)] {
            assert!(!fits(name), "{name}");
        }
    }

    #[test]
    fn a_difference_is_told_in_words() {
        let wanted = maps::ALL[0];
        let found = maps::Shape { value_size: 1, flags: 9, ..wanted };
        let expected = format!("value size 1 instead of {}, flags 9 instead of {}", wanted.value_size, wanted.flags);
        assert_eq!(difference(&found, &wanted), expected);
    }
}
