//! The cgroup trees: where they are mounted, where this process is in them, and where the pods are. Used by `datapath`
//! (pods and agents are told apart by v2 cgroup id), `sandbox` (a pod's processes) and `app` (a cgroup of the agent's
//! own).
//!
//! Everything is relative to what is mounted here. In a container with a cgroup namespace that may be a part of the
//! tree only; then [`Hierarchy::is_root`] is false, ids are still right (they are inodes), and levels are counted from
//! the whole tree's root: the kernel tells our own ([`Hierarchy::level_of`]).

mod kubepods;
mod level;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

/// The id of the v2 tree's root, on every machine.
const ROOT_ID: u64 = 1;

/// Errors of this module.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No v2 tree.
    #[error("no cgroup v2 is mounted: weir needs it, unified at /sys/fs/cgroup or beside v1 at /sys/fs/cgroup/unified")]
    NoV2,
    /// `/proc/PID/cgroup` has no line for the hierarchy.
    #[error("process {pid} is in no cgroup of the hierarchy mounted at {}", mount.display())]
    NotIn {
        /// Whose.
        pid: u32,
        /// The hierarchy.
        mount: PathBuf,
    },
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

/// A cgroup tree as this process sees it: the v2 one, or one of version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    mount: PathBuf,
    /// What of the tree is mounted, as seen from our cgroup namespace: `/`, `/some/part`, or `/../..` for what is above.
    part: String,
    /// Version 1: its controllers, or `name=systemd`; empty for v2.
    controllers: Vec<String>,
    /// How deep below the root of the whole tree the mount is, once it was asked for.
    depth: OnceLock<Option<u32>>,
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
    /// Finds the mounted v2 tree.
    ///
    /// # Errors
    /// When there is none.
    pub fn find() -> Result<Self, CgroupError> {
        Self::find_below(None)
    }

    /// The same, of the host's trees when they are mounted at `root`.
    ///
    /// # Errors
    /// When there is none.
    pub fn find_below(root: Option<&Path>) -> Result<Self, CgroupError> {
        mounts(root)?.into_iter().find(|tree| tree.controllers.is_empty()).ok_or(CgroupError::NoV2)
    }

    /// The mounted trees of version 1: a hybrid node has its pods in them, and some runtimes nowhere else.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub fn find_v1(root: Option<&Path>) -> Result<Vec<Self>, CgroupError> {
        Ok(mounts(root)?.into_iter().filter(|tree| !tree.controllers.is_empty()).collect())
    }

    /// The trees of a mountinfo text; of one that is mounted several times, first the mount with the most of it.
    fn parse(mountinfo: &str, root: Option<&Path>) -> Vec<Self> {
        let mut found: Vec<Self> = mountinfo
            .lines()
            .filter_map(|line| {
                let (mount, filesystem) = line.split_once(" - ")?;
                let mut filesystem = filesystem.split(' ');
                let controllers = match filesystem.next()? {
                    "cgroup2" => Vec::new(),
                    "cgroup" => controllers(filesystem.nth(1)?),
                    _ => return None,
                };
                let mut fields = mount.split(' ').skip(3);
                let part = unescape(fields.next()?);
                let mount = unescape(fields.next()?).into();
                Some(Self { mount, part, controllers, depth: OnceLock::new() })
            })
            .filter(|tree| root.is_none_or(|root| tree.mount.starts_with(root)))
            .collect();
        // The most of the tree: what is above our namespace, then our root, then the shortest part; the last mounted
        // of equals hides the others.
        found.reverse();
        found.sort_by_key(|h| (!h.part.starts_with("/.."), h.part.trim_end_matches('/').len()));
        found
    }

    /// The controllers of a tree of version 1, or `name=systemd`; none for v2.
    pub fn controllers(&self) -> &[String] {
        &self.controllers
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
        let text = read_names(&file)?;
        let path = self.path_in(&text).ok_or_else(|| CgroupError::NotIn { pid, mount: self.mount.clone() })?;
        self.locate(path)
            .filter(|directory| directory.is_dir())
            .or_else(|| self.search(pid))
            .ok_or_else(|| CgroupError::NotVisible { pid, path: path.to_owned(), mount: self.mount.clone() })
    }

    /// This tree's path in the text of `/proc/PID/cgroup`.
    pub fn path_in<'a>(&self, text: &'a str) -> Option<&'a str> {
        text.lines().find_map(|line| {
            let (names, path) = line.split_once(':')?.1.split_once(':')?;
            let ours = match self.controllers.first() {
                None => names.is_empty(),
                Some(first) => names.split(',').any(|name| name == first),
            };
            ours.then_some(path)
        })
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
        walk(&self.mount, |directory| {
            processes(directory).is_ok_and(|pids| pids.contains(&pid)).then(|| directory.to_owned())
        })
    }

    /// The depth of a cgroup in the whole tree (root = 0): what the kernel's ancestor helper asks for.
    ///
    /// # Errors
    /// When only a part of the tree is mounted and this process is not in it, or may not load programs.
    pub fn level_of(&self, path: &Path) -> Result<u32, CgroupError> {
        let unknown = || CgroupError::LevelUnknown { path: path.to_owned() };
        let path = path.canonicalize().map_err(io_error(path))?;
        let mount = self.mount.canonicalize().map_err(io_error(&self.mount))?;
        let below = path.strip_prefix(&mount).map_err(|_| unknown())?;
        let above = self.depth.get_or_init(|| if self.is_root() { Some(0) } else { self.depth_of(&mount) });
        let above = above.ok_or_else(unknown)?;
        Ok(above + below.components().count() as u32)
    }

    /// How deep a mount is that this process's own cgroup is below.
    fn depth_of(&self, mount: &Path) -> Option<u32> {
        let own = self.of_process(std::process::id()).ok()?.canonicalize().ok()?;
        let below = own.strip_prefix(mount).ok()?.components().count() as u32;
        let level = level::of_current(id_of(&own).ok()?);
        if let Err(error) = &level {
            tracing::warn!(%error, "the kernel does not tell how deep in the cgroup tree this node is");
        }
        level.ok()??.checked_sub(below)
    }

    /// The cgroups of this node's pods, the one in use first: what the kubelet calls `kubepods`, under its names of
    /// either cgroup driver. Several nodes may share the tree; this node's is above the agent, or beside one of its
    /// ancestors.
    pub fn kubepods(&self, own: Option<&Path>) -> Vec<PathBuf> {
        kubepods::find(&self.mount, own)
    }

    /// The cgroup to attach to: the one of all pods when there is one, else the root of the mount.
    pub fn attach_point(&self) -> PathBuf {
        let own = self.of_process(std::process::id()).ok();
        self.kubepods(own.as_deref()).into_iter().next().unwrap_or_else(|| self.mount.clone())
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

/// Whether a cgroup is the kubelet's for all of a node's pods, by its name.
pub fn is_kubepods(path: &Path) -> bool {
    kubepods::is_one(path)
}

fn mounts(root: Option<&Path>) -> Result<Vec<Hierarchy>, CgroupError> {
    let path = Path::new("/proc/self/mountinfo");
    Ok(Hierarchy::parse(&read_names(path)?, root))
}

/// A file of names that others choose: one of a mount or a cgroup that is no UTF-8 is somebody else's, and no fault.
fn read_names(path: &Path) -> Result<String, CgroupError> {
    let bytes = fs::read(path).map_err(io_error(path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The super options of a version 1 mount that name its hierarchy.
fn controllers(options: &str) -> Vec<String> {
    let names = options.split(',').filter(|o| !matches!(*o, "rw" | "ro" | "xattr" | "clone_children" | "noprefix"));
    names.filter(|o| o.starts_with("name=") || !o.contains('=')).map(str::to_owned).collect()
}

/// Breadth first below `root`; entries that vanish meanwhile are skipped.
fn walk<T>(root: &Path, mut visit: impl FnMut(&Path) -> Option<T>) -> Option<T> {
    let mut queue = VecDeque::from([root.to_owned()]);
    while let Some(directory) = queue.pop_front() {
        if let Some(found) = visit(&directory) {
            return Some(found);
        }
        let mut children: Vec<PathBuf> = fs::read_dir(&directory)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .map(|e| e.path())
            .collect();
        children.sort();
        queue.extend(children);
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
        Hierarchy { mount: mount.into(), part: part.into(), controllers: Vec::new(), depth: OnceLock::new() }
    }

    #[test]
    fn a_mount_that_is_no_text_hides_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mountinfo");
        let mut lines = b"40 30 8:1 /\xff /mnt/\xff rw - ext4 /dev/sda1 rw\n".to_vec();
        lines.extend(b"31 24 0:28 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw\n");
        fs::write(&file, lines).unwrap();
        let found = first(&read_names(&file).unwrap(), None).unwrap();
        assert_eq!(found.mount(), Path::new("/sys/fs/cgroup"));
    }

    fn first(mountinfo: &str, root: Option<&str>) -> Option<Hierarchy> {
        Hierarchy::parse(mountinfo, root.map(Path::new)).into_iter().find(|tree| tree.controllers.is_empty())
    }

    #[test]
    fn the_mount_with_the_most_of_the_tree_is_taken() {
        let text = "30 29 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                    41 31 0:38 /kubepods/pod1 /a\\040b rw,relatime - cgroup2 cgroup2 rw\n\
                    42 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(first(text, None), Some(hierarchy("/", "/sys/fs/cgroup/unified")));
        assert_eq!(first(text, Some("/a b")), Some(hierarchy("/kubepods/pod1", "/a b")));
        let text = "1 2 0:38 /a /a\\040b rw - cgroup2 none rw\n";
        assert_eq!(first(text, None), Some(hierarchy("/a", "/a b")));
        let text = "1 2 0:38 / /sys/fs/cgroup rw - cgroup2 none rw\n3 2 0:38 /../.. /host rw - cgroup2 none rw\n";
        assert_eq!(first(text, None), Some(hierarchy("/../..", "/host")));
        assert_eq!(first("30 29 0:26 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n", None), None);
    }

    #[test]
    fn version_1_trees_are_known_by_their_controllers() {
        let text = "1 2 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
                    1 2 0:31 / /sys/fs/cgroup/systemd rw - cgroup none rw,xattr,release_agent=/x,name=systemd\n\
                    1 2 0:38 / /sys/fs/cgroup/unified rw - cgroup2 none rw,nsdelegate\n";
        let trees = Hierarchy::parse(text, None);
        let named: Vec<&[String]> = trees.iter().map(Hierarchy::controllers).collect();
        assert_eq!(named, [&[][..], &["name=systemd".to_owned()], &["cpu".to_owned(), "cpuacct".to_owned()]]);
        let of_process = "3:cpu,cpuacct:/a\n2:name=systemd:/b:c\n0::/d\n";
        let paths: Vec<_> = trees.iter().map(|tree| tree.path_in(of_process)).collect();
        assert_eq!(paths, [Some("/d"), Some("/b:c"), Some("/a")]);
        assert_eq!(trees[2].path_in("1:cpuset:/x\n0::/d\n"), None);
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
