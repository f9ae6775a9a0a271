//! How deep below the root of the whole v2 tree this process is, for an agent that sees only a part of it (a node that is
//! itself a container). Used by [`super::Hierarchy::level_of`].
//!
//! No file tells it, and to open the root by its id takes a capability that the agent has no other use for. But the kernel
//! answers programs: this one is run once a level, in the context of the calling thread, attached to nothing.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The kernel's own default for the depth of a tree is no limit; nodes in containers are some ten levels down.
const DEEPEST: u64 = 64;

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_TEST_RUN: libc::c_int = 10;
/// Of the types that can be run without being attached, one that may ask for the current cgroup.
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;
/// `bpf_get_current_ancestor_cgroup_id`
const ANCESTOR_ID: i32 = 123;

/// `struct bpf_insn`: operation, registers (source in the high half), offset, constant.
#[repr(C)]
struct Instruction(u8, u8, i16, i32);

/// `ancestor_id(context[0]) == context[1]`
const PROGRAM: [Instruction; 9] = [
    Instruction(0xbf, 0x16, 0, 0),           // r6 = r1
    Instruction(0x79, 0x61, 0, 0),           // r1 = *(u64 *)(r6 + 0)
    Instruction(0x85, 0x00, 0, ANCESTOR_ID), // r0 = call
    Instruction(0x79, 0x61, 8, 0),           // r1 = *(u64 *)(r6 + 8)
    Instruction(0xb7, 0x02, 0, 1),           // r2 = 1
    Instruction(0x1d, 0x10, 1, 0),           // if r0 == r1 goto +1
    Instruction(0xb7, 0x02, 0, 0),           // r2 = 0
    Instruction(0xbf, 0x20, 0, 0),           // r0 = r2
    Instruction(0x95, 0x00, 0, 0),           // exit
];

/// The level of the calling thread's cgroup, whose id is `own` (root = 0). `None` when that is not its id.
///
/// # Errors
/// When programs may not be loaded (CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN).
pub(super) fn of_current(own: u64) -> io::Result<Option<u32>> {
    let program = load()?;
    for level in 0..DEEPEST {
        if run(&program, [level, own])? != 0 {
            return Ok(Some(level as u32));
        }
    }
    Ok(None)
}

fn load() -> io::Result<OwnedFd> {
    /// The head of `union bpf_attr`; the kernel takes the rest for zero.
    #[repr(C)]
    struct Attr {
        kind: u32,
        instructions: u32,
        program: u64,
        license: u64,
        log: [u32; 2],
        log_buffer: u64,
        kernel_version: u32,
        flags: u32,
    }
    let mut attr = Attr {
        kind: BPF_PROG_TYPE_RAW_TRACEPOINT,
        instructions: PROGRAM.len() as u32,
        program: PROGRAM.as_ptr().addr() as u64,
        license: c"Apache-2.0".as_ptr().addr() as u64,
        log: [0; 2],
        log_buffer: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the addresses inside are of constants, and `attr` is valid for its size.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw mut attr, size_of::<Attr>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Runs it on this thread; gives what it returns.
fn run(program: &OwnedFd, context: [u64; 2]) -> io::Result<u32> {
    #[repr(C)]
    struct Attr {
        program: u32,
        returned: u32,
        data_sizes: [u32; 2],
        data: [u64; 2],
        repeat: u32,
        duration: u32,
        context_size: u32,
        context_size_out: u32,
        context: u64,
        context_out: u64,
        flags: u32,
        cpu: u32,
    }
    let mut attr = Attr {
        program: program.as_raw_fd() as u32,
        returned: 0,
        data_sizes: [0; 2],
        data: [0; 2],
        repeat: 0,
        duration: 0,
        context_size: size_of_val(&context) as u32,
        context_size_out: 0,
        context: context.as_ptr().addr() as u64,
        context_out: 0,
        flags: 0,
        cpu: 0,
    };
    // SAFETY: `context` is valid for reads of its size and outlives the call, and `attr` is valid for its own.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attr, size_of::<Attr>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(attr.returned) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::process::CommandExt;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;
    use crate::cgroup::{Hierarchy, id_of};
    use weir_tests::require::skip;

    const INNER: &str = "WEIR_TEST_INNER";
    const CAP_DAC_READ_SEARCH: libc::c_ulong = 2;

    #[test]
    fn levels_are_known_where_only_a_part_of_the_tree_is_mounted() {
        let test = "levels_are_known_where_only_a_part_of_the_tree_is_mounted";
        let Ok(tree) = Hierarchy::find() else { return skip(test, "no cgroup v2") };
        let outer = tree.mount().join(format!("weir-level-{}", std::process::id()));
        let inner = outer.join("node/agent");
        if !tree.is_root() || fs::create_dir_all(&inner).is_err() {
            return skip(test, &format!("{} is not the writable root", tree.mount().display()));
        }
        let mount = tempfile::tempdir().unwrap();
        let target = std::ffi::CString::new(mount.path().to_str().unwrap()).unwrap();
        let doors = [outer.join("node"), inner.clone()]
            .map(|path| fs::OpenOptions::new().write(true).open(path.join("cgroup.procs")).unwrap());
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "cgroup::level::tests::inner", "--ignored", "--nocapture", "--test-threads=1"]);
        child.env(INNER, mount.path());
        // SAFETY: between fork and exec only system calls on what the closure owns; no allocation.
        unsafe {
            child.pre_exec(move || {
                let enter = |door: &fs::File| libc::write(door.as_raw_fd(), c"0".as_ptr().cast(), 1) == 1;
                let done = enter(&doors[0])
                    && libc::unshare(libc::CLONE_NEWCGROUP | libc::CLONE_NEWNS) == 0
                    && libc::mount(
                        c"none".as_ptr(),
                        c"/".as_ptr(),
                        std::ptr::null(),
                        libc::MS_REC | libc::MS_PRIVATE,
                        std::ptr::null(),
                    ) == 0
                    && libc::mount(c"none".as_ptr(), target.as_ptr(), c"cgroup2".as_ptr(), 0, std::ptr::null()) == 0
                    && enter(&doors[1])
                    && libc::prctl(libc::PR_CAPBSET_DROP, CAP_DAC_READ_SEARCH, 0, 0, 0) == 0;
                if done { Ok(()) } else { Err(io::Error::last_os_error()) }
            });
        }
        let output = child.output();
        for path in [&inner, &outer.join("node"), &outer] {
            let _ = fs::remove_dir(path);
        }
        match output {
            Err(error) => skip(test, &format!("no namespace of its own: {error}")),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
            }
        }
    }

    #[test]
    #[ignore = "the other test's process, in a cgroup namespace of its own"]
    fn inner() {
        let mount = PathBuf::from(std::env::var_os(INNER).unwrap());
        let tree = Hierarchy::find_below(Some(&mount)).unwrap();
        assert!(tree.mount() == mount && !tree.is_root());
        // The root is `outer/node`, two below the whole tree's; this process is one further down.
        let own = tree.of_process(std::process::id()).unwrap();
        assert_eq!(own, mount.join("agent"));
        let id = id_of(&own).unwrap();
        assert_eq!(of_current(id).unwrap(), Some(3));
        assert_eq!(of_current(id + 1).unwrap(), None, "not its id");
        let pod = mount.join("kubepods/pod");
        fs::create_dir_all(&pod).unwrap();
        let levels = [&mount, &own, &pod].map(|path| tree.level_of(path).unwrap());
        for path in [pod.as_path(), pod.parent().unwrap()] {
            fs::remove_dir(path).unwrap();
        }
        assert_eq!(levels, [2, 3, 4]);
        assert!(tree.level_of(Path::new("/proc")).is_err());
    }
}
