//! The root of the whole v2 tree, for an agent that sees only a part of it (a node that is itself a container): how
//! deep that part is. Used by [`super::Hierarchy::level_of`].

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use super::{ROOT_ID, id_of, walk};

/// `FILEID_KERNFS`: the handle is the id of a cgroup.
const HANDLE_OF_ID: libc::c_int = 0xfe;

/// Nodes in containers are two or three levels down, in a slice of their runtime; further down is not looked.
const DEPTH: usize = 8;

/// A `struct file_handle` that holds the id of a cgroup.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: u64,
}

/// How many levels a cgroup is below the root of the whole tree; `None` when this process may not know.
pub(super) fn depth_of(part: &Path) -> Option<u32> {
    let id = id_of(part).ok()?;
    let root = open_root(part).ok()?;
    let root = format!("/proc/self/fd/{}", root.as_raw_fd());
    let root = Path::new(&root);
    walk(root, DEPTH, |path| {
        let depth = path.strip_prefix(root).ok()?.components().count() as u32;
        (id_of(path).ok()? == id).then_some(depth)
    })
}

/// Opens the root by its id, which works from any mount of the tree.
fn open_root(part: &Path) -> io::Result<OwnedFd> {
    let part = File::open(part)?;
    let mut handle = Handle { bytes: size_of::<u64>() as libc::c_uint, kind: HANDLE_OF_ID, id: ROOT_ID };
    // SAFETY: `handle` is laid out as the kernel's file_handle followed by `bytes` bytes, and is valid for the call.
    let fd = unsafe {
        libc::open_by_handle_at(
            part.as_raw_fd(),
            (&raw mut handle).cast::<libc::file_handle>(),
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::Hierarchy;
    use std::fs;
    use weir_tests::require::skip;

    #[test]
    fn the_depth_is_known_from_any_part_of_the_tree() {
        let test = "the_depth_is_known_from_any_part_of_the_tree";
        let Ok(tree) = Hierarchy::find() else { return skip(test, "no cgroup v2") };
        let outer = tree.mount().join(format!("weir-depth-{}", std::process::id()));
        let inner = outer.join("inner");
        if !tree.is_root() || fs::create_dir_all(&inner).is_err() {
            return skip(test, &format!("{} is not the writable root", tree.mount().display()));
        }
        let depths = [tree.mount(), &outer, &inner].map(depth_of);
        let _ = (fs::remove_dir(&inner), fs::remove_dir(&outer));
        if open_root(tree.mount()).is_err() {
            return skip(test, "not permitted to open by handle");
        }
        assert_eq!(depths, [Some(0), Some(1), Some(2)]);
    }
}
