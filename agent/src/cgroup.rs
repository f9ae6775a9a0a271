//! The cgroup v2 tree: where it is mounted, where this process is in it, and where the pods are. Used by `datapath`
//! (pods and agents are told apart by cgroup id) and `app` (a cgroup of the agent's own).
//!
//! Everything is relative to what is mounted here. In a container with a cgroup namespace that may be a part of the
//! tree only; then [`Hierarchy::is_root`] is false, ids are still right (they are inodes), and levels are unknown.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// The id of the v2 tree's root, on every machine.
const ROOT_ID: u64 = 1;

/// How deep below the mount `kubepods` is looked for: `kubelet.slice/kubelet-kubepods.slice` below the cgroup of a
/// node that is itself a container in a slice.
const KUBEPODS_DEPTH: usize = 4;

/// Errors of this module.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No v2 tree.
    #[error("no cgroup v2 is mounted: weir needs it, unified at /sys/fs/cgroup or beside v1 at /sys/fs/cgroup/unified")]
    NoV2,
    /// The process's cgroup is outside of the mounted part, or hidden.
    #[error("cannot find the cgroup of process {pid} ({path:?}) below {}", mount.display())]
    NotVisible {
        /// Whose.
        pid: u32,
        /// What `/proc/PID/cgroup` says.
        path: String,
        /// Where it was looked for.
        mount: PathBuf,
    },
    /// The level of a cgroup cannot be known.
    #[error("{} is no part of the whole cgroup tree (mount the host's): the level of a cgroup is unknown", path.display())]
    LevelUnknown {
        /// The cgroup asked for.
        path: PathBuf,
    },
    /// The agent would exempt every process of the root.
    #[error(
        "the agent is in the root cgroup and cannot make {} for itself: {error}; every process there would count as \
         the agent", path.display()
    )]
    CannotLeaveRoot {
        /// The cgroup that it wanted.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// A file operation failed.
    #[error("cannot read {}: {error}", path.display())]
    Io {
        /// Of what.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    move |error| CgroupError::Io { path: path.to_owned(), error }
}

/// The v2 tree as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    mount: PathBuf,
    /// What of the tree is mounted, as seen from our cgroup namespace: `/`, `/some/part`, or `/../..` for what is above.
    part: String,
}

/// The cgroup that the agent runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCgroup {
    /// Its directory.
    pub path: PathBuf,
    /// Its id.
    pub id: u64,
    /// Others than the agent are in it, and it could not move out: they count as the agent.
    pub shared: bool,
}

impl Hierarchy {
    /// Finds the mounted tree.
    pub fn find() -> Result<Self, CgroupError> {
        let path = Path::new("/proc/self/mountinfo");
        let mounts = fs::read_to_string(path).map_err(io_error(path))?;
        Self::parse(&mounts).ok_or(CgroupError::NoV2)
    }

    fn parse(mountinfo: &str) -> Option<Self> {
        let mut found: Vec<Self> = mountinfo
            .lines()
            .filter_map(|line| {
                let (mount, filesystem) = line.split_once(" - ")?;
                if filesystem.split(' ').next()? != "cgroup2" {
                    return None;
                }
                let mut fields = mount.split(' ').skip(3);
                let part = unescape(fields.next()?);
                Some(Self { mount: unescape(fields.next()?).into(), part })
            })
            .collect();
        // The most of the tree: what is above our namespace, then our root, then the shortest part; the last mounted
        // of equals hides the others.
        found.reverse();
        found.sort_by_key(|h| (!h.part.starts_with("/.."), h.part.trim_end_matches('/').len()));
        found.into_iter().next()
    }

    /// Where it is mounted.
    pub fn mount(&self) -> &Path {
        &self.mount
    }

    /// Whether the mount's root is the root of the whole tree.
    pub fn is_root(&self) -> bool {
        id_of(&self.mount).is_ok_and(|id| id == ROOT_ID)
    }

    /// The directory of the cgroup that a process is in.
    pub fn of_process(&self, pid: u32) -> Result<PathBuf, CgroupError> {
        let file = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = fs::read_to_string(&file).map_err(io_error(&file))?;
        let path = text.lines().find_map(|line| line.strip_prefix("0::")).ok_or(CgroupError::NoV2)?;
        self.locate(path)
            .filter(|directory| directory.is_dir())
            .or_else(|| self.search(pid))
            .ok_or_else(|| CgroupError::NotVisible { pid, path: path.to_owned(), mount: self.mount.clone() })
    }

    /// Where a path of `/proc/PID/cgroup` is; `None` when names alone do not tell.
    fn locate(&self, path: &str) -> Option<PathBuf> {
        let inside = Path::new(path).strip_prefix(&self.part).ok()?;
        let plain = inside.components().all(|c| matches!(c, Component::Normal(_)));
        // What is mounted from above our namespace has names between the mount and us that nobody tells.
        (plain && !self.part.starts_with("/..")).then(|| self.mount.join(inside))
    }

    /// The directory that lists the process, for when the path is relative to a namespace that is not mounted here.
    fn search(&self, pid: u32) -> Option<PathBuf> {
        walk(&self.mount, usize::MAX, |directory| {
            processes(directory).is_ok_and(|pids| pids.contains(&pid)).then(|| directory.to_owned())
        })
    }

    /// The depth of a cgroup in the whole tree (root = 0): what the kernel's ancestor helper asks for.
    pub fn level_of(&self, path: &Path) -> Result<u32, CgroupError> {
        let unknown = || CgroupError::LevelUnknown { path: path.to_owned() };
        let path = path.canonicalize().map_err(io_error(path))?;
        let mount = self.mount.canonicalize().map_err(io_error(&self.mount))?;
        let below = path.strip_prefix(&mount).map_err(|_| unknown())?;
        if self.is_root() { Ok(below.components().count() as u32) } else { Err(unknown()) }
    }

    /// The cgroup to attach to: the one of all pods when there is one, else the root of the mount.
    pub fn attach_point(&self) -> PathBuf {
        let own = self.of_process(std::process::id()).ok();
        let above_us = own.as_deref().and_then(|own| {
            let mut above: Vec<&Path> = own.ancestors().take_while(|p| *p != self.mount).collect();
            above.reverse();
            above.into_iter().find(|p| is_kubepods(p)).map(Path::to_owned)
        });
        above_us
            .or_else(|| walk(&self.mount, KUBEPODS_DEPTH, |path| is_kubepods(path).then(|| path.to_owned())))
            .unwrap_or_else(|| self.mount.clone())
    }

    /// Sees to it that process `pid` (the agent) shares its cgroup with nobody, by moving it into `weir-INSTANCE`
    /// below where it is. Agents of one instance share that cgroup during an upgrade.
    ///
    /// # Errors
    /// When it is in the root and cannot leave. Elsewhere it stays where it is, and `shared` says so.
    pub fn ensure_own(&self, instance: &str, pid: u32) -> Result<OwnCgroup, CgroupError> {
        let current = self.of_process(pid)?;
        let id = id_of(&current).map_err(io_error(&current))?;
        let name = format!("weir-{instance}");
        let alone = processes(&current).map_err(io_error(&current))?.iter().all(|p| *p == pid);
        let at_root = id == ROOT_ID;
        if !at_root && (alone || current.ends_with(&name)) {
            return Ok(OwnCgroup { path: current, id, shared: false });
        }
        let path = current.join(name);
        match move_into(&path, pid) {
            Ok(()) => {
                let id = id_of(&path).map_err(io_error(&path))?;
                Ok(OwnCgroup { path, id, shared: false })
            }
            Err(error) if at_root => Err(CgroupError::CannotLeaveRoot { path, error }),
            Err(_) => Ok(OwnCgroup { path: current, id, shared: true }),
        }
    }
}

/// The id of a cgroup: the inode of its directory.
///
/// # Errors
/// When the directory is not there.
pub fn id_of(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

/// Whether this is the id of the root of the whole tree.
pub fn is_root_id(id: u64) -> bool {
    id == ROOT_ID
}

fn move_into(path: &Path, pid: u32) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(path.join("cgroup.procs"), pid.to_string())
}

fn processes(directory: &Path) -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(directory.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

/// `kubepods` (cgroupfs), `kubepods.slice` (systemd), `kubelet-kubepods.slice` (kind).
fn is_kubepods(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return false };
    let name = name.strip_suffix(".slice").unwrap_or(name);
    name == "kubepods" || name.ends_with("-kubepods")
}

/// Breadth first below `root`, at most `depth` levels; entries that vanish meanwhile are skipped.
fn walk<T>(root: &Path, depth: usize, mut visit: impl FnMut(&Path) -> Option<T>) -> Option<T> {
    let mut queue = VecDeque::from([(root.to_owned(), 0)]);
    while let Some((directory, level)) = queue.pop_front() {
        if let Some(found) = visit(&directory) {
            return Some(found);
        }
        if level < depth {
            let mut children: Vec<PathBuf> = fs::read_dir(&directory)
                .into_iter()
                .flatten()
                .flatten()
                .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
                .map(|e| e.path())
                .collect();
            children.sort();
            queue.extend(children.into_iter().map(|c| (c, level + 1)));
        }
    }
    None
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        if let Some(byte) = part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            out.push(char::from(byte));
            out.push_str(&part[3..]);
        } else {
            out.push('\\');
            out.push_str(part);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};
    use weir_tests::require::skip;

    fn hierarchy(part: &str, mount: &str) -> Hierarchy {
        Hierarchy { mount: mount.into(), part: part.into() }
    }

    #[test]
    fn the_mount_with_the_most_of_the_tree_is_taken() {
        let text = "30 29 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                    41 31 0:38 /kubepods/pod1 /a\\040b rw,relatime - cgroup2 cgroup2 rw\n\
                    42 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(Hierarchy::parse(text), Some(hierarchy("/", "/sys/fs/cgroup/unified")));
        let text = "1 2 0:38 /a /a\\040b rw - cgroup2 none rw\n";
        assert_eq!(Hierarchy::parse(text), Some(hierarchy("/a", "/a b")));
        let text = "1 2 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n3 2 0:38 /../.. /host rw - cgroup2 none rw\n";
        assert_eq!(Hierarchy::parse(text), Some(hierarchy("/../..", "/host")));
        assert_eq!(Hierarchy::parse("30 29 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n"), None);
    }

    #[test]
    fn paths_of_proc_are_found_below_the_mount_or_not_guessed() {
        let whole = hierarchy("/", "/cg");
        assert_eq!(whole.locate("/a/b"), Some("/cg/a/b".into()));
        assert_eq!(whole.locate("/"), Some("/cg/".into()));
        assert_eq!(whole.locate("/../x"), None);
        assert_eq!(hierarchy("/a", "/cg").locate("/a/b"), Some("/cg/b".into()));
        assert_eq!(hierarchy("/a", "/cg").locate("/ab"), None);
        assert_eq!(hierarchy("/../..", "/cg").locate("/"), None);
    }

    #[test]
    fn kubepods_is_found_by_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let mount = directory.path().join("cg");
        for (made, expected) in
            [("system.slice/x", ""), ("kubelet.slice/kubelet-kubepods.slice", "kubelet.slice/kubelet-kubepods.slice")]
        {
            fs::create_dir_all(mount.join(made)).unwrap();
            let found = Hierarchy { mount: mount.clone(), part: "/".into() }.attach_point();
            assert_eq!(found.components().collect::<PathBuf>(), mount.join(expected).components().collect::<PathBuf>());
        }
        for name in ["kubepods", "kubepods.slice", "kubelet-kubepods.slice"] {
            assert!(is_kubepods(Path::new(name)));
        }
        for name in ["kubepods-burstable.slice", "kubepods-besteffort-pod1.slice", "notkubepods", "system.slice"] {
            assert!(!is_kubepods(Path::new(name)));
        }
    }

    struct Sleeper(Child);
    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Removes cgroups, deepest first, once what was in them has ended.
    struct Remove(Vec<PathBuf>);
    impl Drop for Remove {
        fn drop(&mut self) {
            for path in &self.0 {
                let _ = fs::remove_dir(path);
            }
        }
    }

    #[test]
    fn an_agent_in_a_shared_cgroup_moves_to_its_own() {
        let test = "an_agent_in_a_shared_cgroup_moves_to_its_own";
        let Ok(tree) = Hierarchy::find() else { return skip(test, "no cgroup v2") };
        let instance = format!("own-{}", std::process::id());
        let shared = tree.mount().join(format!("weir-test-{instance}"));
        if let Err(error) = fs::create_dir(&shared) {
            return skip(test, &format!("{}: {error}", shared.display()));
        }
        let own = shared.join(format!("weir-{instance}"));
        let _remove = Remove(vec![own.clone(), shared.clone()]);
        let sleepers: Vec<Sleeper> =
            (0..2).map(|_| Sleeper(Command::new("sleep").arg("60").spawn().unwrap())).collect();
        let [agent, other] = [sleepers[0].0.id(), sleepers[1].0.id()];
        fs::write(shared.join("cgroup.procs"), agent.to_string()).unwrap();
        let alone = tree.ensure_own(&instance, agent).unwrap();
        assert_eq!((alone.path.as_path(), alone.shared), (shared.as_path(), false));
        fs::write(shared.join("cgroup.procs"), other.to_string()).unwrap();
        let moved = tree.ensure_own(&instance, agent).unwrap();
        assert_eq!((moved.path.as_path(), moved.shared), (own.as_path(), false));
        assert_eq!(moved.id, id_of(&own).unwrap());
        assert_eq!(tree.of_process(agent).unwrap(), own);
        assert_eq!(tree.search(agent), Some(own.clone()));
        if tree.is_root() {
            assert_eq!((tree.level_of(&own).unwrap(), tree.level_of(tree.mount()).unwrap()), (2, 0));
        }
        assert_eq!(tree.ensure_own(&instance, agent).unwrap(), moved, "it stays there");
    }
}
