//! The `bpf(2)` commands that aya has no call for: pins of links, link updates, info of links and maps, and taking an
//! entry out of a map in one step. Used by the other files of `datapath` only.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use weir_ebpf::maps::Shape;

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_MAP_LOOKUP_AND_DELETE_ELEM: libc::c_int = 21;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_LINK_DETACH: libc::c_int = 34;

/// `BPF_F_REPLACE`: the update names the program that it replaces, and fails when another is there.
const BPF_F_REPLACE: u32 = 4;

/// Calls `bpf(2)` with the part of `union bpf_attr` that the command reads.
///
/// # Safety
/// Addresses inside `attr` must be valid for what `command` does with them.
unsafe fn bpf<T>(command: libc::c_int, attr: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: `attr` is valid for its own size; the addresses in it are the caller's promise.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

/// As [`bpf`], for commands that return a descriptor.
///
/// # Safety
/// As [`bpf`], and `command` must return a descriptor that nobody else owns.
unsafe fn bpf_fd<T>(command: libc::c_int, attr: &mut T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's promise.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just made the descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
#[derive(Default)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Opens what is pinned at `path`: a map, a program or a link.
pub(super) fn object_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, ..Default::default() };
    // SAFETY: the path is a C string that outlives the call; the command returns a new descriptor.
    unsafe { bpf_fd(BPF_OBJ_GET, &mut attr) }
}

/// Pins `fd` at `path`, which must not exist.
pub(super) fn object_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjectAttr { path: path.as_ptr() as u64, fd: fd.as_raw_fd() as u32, flags: 0 };
    // SAFETY: the path is a C string that outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Attaches a program to a cgroup. Links of one cgroup never exclude each other.
pub(super) fn link_create(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let mut attr =
        Attr { program: program.as_raw_fd() as u32, target: cgroup.as_raw_fd() as u32, attach_type, flags: 0 };
    // SAFETY: no addresses inside; the command returns a new descriptor.
    unsafe { bpf_fd(BPF_LINK_CREATE, &mut attr) }
}

/// Puts `new` in the place of `old` without a moment without either. `EPERM` when another program than `old` is
/// there, `ENOLINK` when what the link was attached to is gone.
pub(super) fn link_update(link: BorrowedFd<'_>, new: BorrowedFd<'_>, old: BorrowedFd<'_>) -> io::Result<()> {
    #[repr(C)]
    struct Attr {
        link: u32,
        new: u32,
        flags: u32,
        old: u32,
    }
    let mut attr = Attr {
        link: link.as_raw_fd() as u32,
        new: new.as_raw_fd() as u32,
        flags: BPF_F_REPLACE,
        old: old.as_raw_fd() as u32,
    };
    // SAFETY: no addresses inside.
    unsafe { bpf(BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

/// Takes the program out of force before it returns; without it, that happens some time after the last pin and
/// descriptor of the link are gone.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut link = link.as_raw_fd() as u32;
    // SAFETY: no addresses inside.
    unsafe { bpf(BPF_LINK_DETACH, &mut link) }.map(drop)
}

/// Fills `info` with as much of the kernel's description of `fd` as it has room for.
///
/// # Safety
/// Any bytes must be a valid `T`.
unsafe fn info<T: Default>(fd: BorrowedFd<'_>) -> io::Result<T> {
    #[repr(C)]
    struct Attr {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut info = T::default();
    let mut attr =
        Attr { fd: fd.as_raw_fd() as u32, length: size_of::<T>() as u32, info: (&raw mut info).addr() as u64 };
    // SAFETY: the kernel writes at most `length` bytes to `info`, which outlives the call.
    unsafe { bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(info)
}

/// What a cgroup link says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// The program that runs.
    pub(super) program: u32,
    /// The inode of the cgroup's directory; 0 once the cgroup is gone.
    pub(super) cgroup: u64,
}

pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    /// The head of `struct bpf_link_info`; `cgroup.cgroup_id` is the first member of its union.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        program: u32,
        pad: u32,
        cgroup: u64,
        attach_type: u32,
        rest: [u32; 25],
    }
    // SAFETY: integers only.
    let info: Info = unsafe { info(link) }?;
    Ok(LinkInfo { program: info.program, cgroup: info.cgroup })
}

/// The id of a program.
pub(super) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
    }
    // SAFETY: integers only.
    let info: Info = unsafe { info(program) }?;
    Ok(info.id)
}

/// The id of a map.
pub(super) fn map_id(map: BorrowedFd<'_>) -> io::Result<u32> {
    // Kind and id are the first members of what is told of maps and of programs alike.
    program_id(map)
}

/// The program with that id. Needs `CAP_SYS_ADMIN`, unlike a pin of it.
pub(super) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        id: u32,
        next: u32,
        flags: u32,
    }
    // SAFETY: no addresses inside; the command returns a new descriptor.
    unsafe { bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut Attr { id, next: 0, flags: 0 }) }
}

/// The shape of a map as the kernel has it, under the name that the caller knows it by.
pub(super) fn map_shape(map: BorrowedFd<'_>, name: &'static str) -> io::Result<Shape> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        kind: u32,
        id: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
        flags: u32,
    }
    // SAFETY: integers only.
    let info: Info = unsafe { info(map) }?;
    Ok(Shape {
        name,
        kind: info.kind,
        key_size: info.key_size,
        value_size: info.value_size,
        max_entries: info.max_entries,
        flags: info.flags,
    })
}

/// Reads an entry and deletes it, in one step: of two callers one gets it. `None` when there is none.
pub(super) fn take<K: aya::Pod, V: aya::Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    #[repr(C)]
    struct Attr {
        map: u32,
        pad: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let mut value = std::mem::MaybeUninit::<V>::zeroed();
    let mut attr = Attr {
        map: map.as_raw_fd() as u32,
        pad: 0,
        key: std::ptr::from_ref(key).addr() as u64,
        value: value.as_mut_ptr().addr() as u64,
        flags: 0,
    };
    // SAFETY: key and value outlive the call, and their sizes are those of the map (checked at adoption).
    match unsafe { bpf(BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) } {
        // SAFETY: `V: Pod` is valid for any bytes, and all of them are set.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}
