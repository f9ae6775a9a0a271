//! The v2 cgroups that stand for pods. Used by [`crate::mesh`].

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// How often the removal of a cgroup is tried: the kernel keeps it busy until its last process has been reaped.
const REMOVE_TRIES: u32 = 200;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

/// Where the v2 hierarchy is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on a hybrid machine.
///
/// # Errors
/// When there is none.
pub fn root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    match mounts.lines().find_map(cgroup2_mount) {
        Some(path) => Ok(path),
        None => bail!("no cgroup2 file system is mounted"),
    }
}

/// The mount point of a mountinfo line, when it is a whole cgroup2 file system.
fn cgroup2_mount(line: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    (kind.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
}

/// Makes a cgroup and those above it.
///
/// # Errors
/// When the kernel says no.
pub fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making cgroup {}", path.display()))
}

/// Opens the file by which a process enters the cgroup: writing "0" moves the writer.
///
/// # Errors
/// When the cgroup is not there.
pub fn door(path: &Path) -> Result<File> {
    let procs = path.join("cgroup.procs");
    OpenOptions::new().write(true).open(&procs).with_context(|| format!("opening {}", procs.display()))
}

/// The processes of a cgroup and of all below it.
pub fn processes(path: &Path) -> Vec<i32> {
    let mut pids = Vec::new();
    for dir in tree(path) {
        if let Ok(list) = fs::read_to_string(dir.join("cgroup.procs")) {
            pids.extend(list.lines().filter_map(|l| l.parse::<i32>().ok()));
        }
    }
    pids
}

/// Kills what is left in a cgroup that we made, and removes it with all below it.
pub fn demolish(path: &Path) {
    for _ in 0..REMOVE_TRIES {
        for pid in processes(path) {
            // SAFETY: plain kill(2); the process is in a cgroup of ours, so one of ours started it.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        }
        for dir in tree(path) {
            let _busy = fs::remove_dir(&dir);
        }
        if !path.exists() {
            return;
        }
        thread::sleep(REMOVE_PAUSE);
    }
}

/// The cgroup and all below it, deepest first.
fn tree(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(entries) = fs::read_dir(path) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.extend(tree(&entry.path()));
            }
        }
        found.push(path.to_path_buf());
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_mount_is_found_on_unified_and_on_hybrid_machines() {
        let unified = "25 20 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
        let hybrid = "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        assert_eq!(cgroup2_mount(unified), Some(PathBuf::from("/sys/fs/cgroup")));
        assert_eq!(cgroup2_mount(hybrid), Some(PathBuf::from("/sys/fs/cgroup/unified")));
    }

    #[test]
    fn v1_hierarchies_and_bind_mounts_of_a_part_are_not_the_root() {
        assert_eq!(cgroup2_mount("32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu"), None);
        assert_eq!(cgroup2_mount("90 31 0:38 /pods /mnt/pods rw - cgroup2 cgroup2 rw"), None);
    }
}
