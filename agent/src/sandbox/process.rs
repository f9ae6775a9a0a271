//! Which process of a pod stands for its sandbox, and the network namespace that it is in. Used by `book`.
//!
//! Everything about a process is read through its open directory in `/proc`, which is of that process for ever: once
//! it is gone the reads fail, even when another one has got its number. So what is opened is what was judged.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::layout::{self, unless_gone};
use crate::cgroup::Hierarchy;
use crate::netns::NetNs;

/// Cgroups of a pod that are looked at, outermost first: an application may make any number below its container's.
const MAX_CGROUPS: usize = 64;
/// Processes of one cgroup that are looked at: a container's first process is the first in the list.
const MAX_PROCESSES: usize = 64;
/// Where containers are below their pod, and one more for runtimes that put an inner cgroup into the container's.
const DEPTH: usize = 2;

/// Programs that are the pod for the kernel and have its network in themselves, by the beginning of their names.
const HYPERVISORS: [&str; 6] = ["qemu-", "cloud-hypervisor", "firecracker", "dragonball", "virtiofsd", "stratovirt"];
const GVISOR: &str = "runsc";
/// CRI-O's monitors of containers, by their names: they may be in the pod's cgroup, and are in the node's namespace.
const MONITORS: [&str; 2] = ["conmon", "conmonrs"];

/// A process, told from a later one with the same number by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Anchor {
    /// Clock ticks since the machine's start.
    started: u64,
    pid: u32,
}

impl Anchor {
    /// Whether it still runs, in this namespace: what the runtime starts may go on to another one.
    pub(super) fn is_in(self, netns_id: (u64, u64)) -> bool {
        self.process().and_then(|process| process.netns_id()).is_ok_and(|id| id == netns_id)
    }

    /// Whether it is in the pod's cgroup of this tree.
    pub(super) fn is_in_pod(self, uid: &str, tree: &Hierarchy) -> bool {
        let cgroups = self.process().and_then(|process| process.text("cgroup"));
        cgroups.is_ok_and(|text| tree.path_in(&text).is_some_and(|path| layout::is_in_pod(path, uid)))
    }

    /// Why the sandbox cannot take part: it executes its program after it has entered the namespace.
    pub(super) fn obstacle(self) -> Option<String> {
        self.process().ok()?.obstacle()
    }

    fn process(self) -> io::Result<Process> {
        let process = Process::open(self.pid)?;
        if process.start()? == self.started { Ok(process) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// What a look at a pod's processes has found.
#[derive(Debug)]
pub(super) enum Look {
    /// There are none, but for the runtime's monitors.
    Empty,
    /// None of them is in a network namespace of the pod yet: the runtime's helpers, at the start.
    Outside,
    /// The pod's namespace is not one in which sockets can be steered.
    Refused(String),
    /// The oldest of them, with its namespace. The sandbox's process is there before any container, so a container
    /// cannot lead us elsewhere by a namespace that it has made for itself.
    Found {
        anchor: Anchor,
        netns: NetNs,
        netns_id: (u64, u64),
        /// Whether its v2 cgroup is the pod's.
        in_v2: bool,
    },
}

/// Looks at the processes in the cgroups `directories` of pod `uid`; `home` are device and inode of namespaces that
/// are the node's own.
///
/// # Errors
/// When something that is there cannot be read: then nothing is known of the pod, above all not that it has ended.
pub(super) fn look(uid: &str, directories: &[&Path], home: &[(u64, u64)], v2: &Hierarchy) -> io::Result<Look> {
    let mut pids = BTreeSet::new();
    for directory in directories {
        pids.extend(processes(directory)?);
    }
    let mut oldest: Option<(Anchor, Process)> = None;
    let mut any = false;
    for pid in pids {
        // Gone meanwhile, or of a PID namespace that we do not see (0).
        let Some(process) = unless_gone(Process::open(pid))? else { continue };
        let Some(started) = unless_gone(process.start())? else { continue };
        let Some(netns_id) = unless_gone(process.netns_id())? else { continue };
        if home.contains(&netns_id) {
            // Where one is no monitor, the others' names decide nothing.
            any = any || unless_gone(process.is_monitor())?.is_some_and(|is| !is);
            continue;
        }
        any = true;
        let anchor = Anchor { started, pid };
        if oldest.as_ref().is_none_or(|(other, _)| anchor < *other) {
            oldest = Some((anchor, process));
        }
    }
    let Some((anchor, process)) = oldest else {
        return Ok(if any { Look::Outside } else { Look::Empty });
    };
    if let Some(reason) = process.obstacle() {
        return Ok(Look::Refused(reason));
    }
    let netns = NetNs::open(process.path("ns/net"))?;
    let opened = fs::metadata(format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd()))?;
    let netns_id = (opened.dev(), opened.ino());
    // It may have gone on to another namespace since, or its number was another's when the list was read.
    let cgroups = process.text("cgroup")?;
    let is_here = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|p| layout::is_in_pod(p, uid));
    if !is_here || home.contains(&netns_id) || process.netns_id()? != netns_id {
        return Ok(Look::Outside);
    }
    let in_v2 = v2.path_in(&cgroups).is_some_and(|path| layout::is_in_pod(path, uid));
    Ok(Look::Found { anchor, netns, netns_id, in_v2 })
}

/// The processes in and below a cgroup, those in cgroups of monitors left out.
fn processes(pod: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    let mut level = vec![pod.to_owned()];
    let mut seen = 0;
    for depth in 0..=DEPTH {
        let mut next = Vec::new();
        for directory in level {
            if seen == MAX_CGROUPS {
                return Ok(found);
            }
            seen += 1;
            let list = match fs::read_to_string(directory.join("cgroup.procs")) {
                // The inside of a threaded cgroup; its processes are in the list of the one above.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => continue,
                list => unless_gone(list)?.unwrap_or_default(),
            };
            found.extend(list.lines().filter_map(|line| line.parse::<u32>().ok()).take(MAX_PROCESSES));
            if depth < DEPTH {
                let below = layout::read_directories(&directory)?.into_iter();
                next.extend(below.filter(|(_, name)| !layout::is_monitor(name)).map(|(path, _)| path));
            }
        }
        level = next;
    }
    Ok(found)
}

/// A process's directory in `/proc`.
struct Process(File);

impl Process {
    fn open(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}")).map(Self)
    }

    fn path(&self, file: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{file}", self.0.as_raw_fd()).into()
    }

    /// A file of it with names inside, its own or of cgroups. Who runs there chooses them, and the kernel cuts a long one
    /// in the middle of a character: what is no UTF-8 is told by replacement characters, and is no fault.
    fn text(&self, file: &str) -> io::Result<String> {
        fs::read(self.path(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// When it started, in clock ticks.
    ///
    /// # Errors
    /// When it has ended, even if its parent does not know yet.
    fn start(&self) -> io::Result<u64> {
        parse_start(&self.text("stat")?).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn is_monitor(&self) -> io::Result<bool> {
        self.text("comm").map(|name| MONITORS.contains(&name.trim_end()))
    }

    fn netns_id(&self) -> io::Result<(u64, u64)> {
        fs::metadata(self.path("ns/net")).map(|meta| (meta.dev(), meta.ino()))
    }

    /// Why the sandbox of this process cannot take part.
    fn obstacle(&self) -> Option<String> {
        let name = self.text("comm").unwrap_or_default();
        let arguments = fs::read(self.path("cmdline")).unwrap_or_default();
        let program = arguments.split(|b| *b == 0).next().unwrap_or_default();
        obstacle(name.trim_end(), &String::from_utf8_lossy(program))
    }
}

/// Start of a process from its `stat`; `None` for one that has ended. Its name may contain anything, parentheses too.
fn parse_start(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    // Field 22 of the whole line; the state is the third.
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

fn obstacle(name: &str, program: &str) -> Option<String> {
    let program = program.rsplit('/').next().unwrap_or_default();
    // gVisor starts itself anew through /proc/self/exe: then only the first argument has the name.
    if [name, program]
        .iter()
        .any(|n| n.strip_prefix(GVISOR).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
    {
        return Some("it runs in gVisor, whose sockets the kernel does not see".to_owned());
    }
    let machine = [program, name].into_iter().find(|n| HYPERVISORS.iter().any(|h| n.starts_with(h)))?;
    Some(format!("it runs in a virtual machine ({machine}), whose sockets the kernel does not see"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_read_past_any_name() {
        let rest = "1 2 3 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 2";
        for name in ["sleep", "a) Z 1 (b", "runc:[2:INIT]", ""] {
            assert_eq!(parse_start(&format!("42 ({name}) S {rest}")), Some(987_654), "{name}");
        }
        assert_eq!(parse_start(&format!("42 (sleep) Z {rest}")), None, "it has ended");
        assert_eq!(parse_start("42 (sleep) S 1"), None);
        let own = Process::open(std::process::id()).and_then(|p| p.start()).unwrap();
        assert!(own > 0);
    }

    /// A child that does nothing, with this process id, or any for 0; `None` when the kernel does not let us choose.
    fn child(pid: libc::pid_t) -> Option<libc::pid_t> {
        // SAFETY: zero is a valid value for each field.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        arguments.exit_signal = libc::SIGCHLD as u64;
        if pid != 0 {
            arguments.set_tid = (&raw const pid) as u64;
            arguments.set_tid_size = 1;
        }
        // SAFETY: as fork; the child makes only system calls.
        let made = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
        if made == 0 {
            // SAFETY: as above; it ends with the test, however that ends.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::pause();
                libc::_exit(0);
            }
        }
        (made > 0).then_some(made as libc::pid_t)
    }

    fn end(pid: libc::pid_t) {
        // SAFETY: a child of ours that nobody has waited for.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, std::ptr::null_mut(), 0);
        }
    }

    #[test]
    #[expect(clippy::print_stderr, reason = "says why a test did not run")]
    fn a_number_that_another_process_has_got_is_not_the_process() {
        let first = child(0).expect("a child");
        let process = Process::open(first as u32).unwrap();
        let anchor = Anchor { started: process.start().unwrap(), pid: first as u32 };
        let netns_id = process.netns_id().unwrap();
        assert!(anchor.is_in(netns_id) && !anchor.is_in((0, 0)));
        end(first);
        assert!(!anchor.is_in(netns_id));
        // Longer than a clock tick, as a whole round of numbers is.
        std::thread::sleep(std::time::Duration::from_millis(30));
        let Some(second) = child(first) else { return eprintln!("skipped: may not choose a process id") };
        assert_eq!(second, first);
        assert!(Process::open(second as u32).unwrap().netns_id().is_ok(), "the new one");
        let old =
            [process.start().map(drop), process.netns_id().map(drop), NetNs::open(process.path("ns/net")).map(drop)];
        let alive = anchor.is_in(netns_id);
        end(second);
        assert!(old.iter().all(Result::is_err) && !alive, "{old:?}");
    }

    #[test]
    fn sandboxes_without_sockets_in_the_kernel_are_known_by_their_programs() {
        for (name, program) in [
            ("exe", "runsc-sandbox"),
            ("exe", "runsc-gofer"),
            ("runsc", "/usr/local/bin/runsc"),
            ("qemu-system-x86", "/opt/kata/bin/qemu-system-x86_64"),
            ("cloud-hypervisor", ""),
            ("firecracker", "/firecracker"),
            ("virtiofsd", "/opt/kata/libexec/virtiofsd"),
        ] {
            assert!(obstacle(name, program).is_some(), "{name} {program}");
        }
        for (name, program) in
            [("pause", "/pause"), ("runc:[2:INIT]", "runc"), ("exe", "/proc/self/exe"), ("runscript", "sh"), ("", "")]
        {
            assert_eq!(obstacle(name, program), None, "{name} {program}");
        }
    }

    #[test]
    fn monitors_and_what_is_too_deep_are_not_the_pods() {
        let pod = tempfile::tempdir().unwrap();
        for (cgroup, pids) in [
            ("", ""),
            ("crio-conmon-1.scope", "10\n"),
            ("crio-1.scope", ""),
            ("crio-1.scope/container", "20\n21\n0\n"),
            ("crio-1.scope/container/made-by-the-app", "30\n"),
            ("cri-containerd-2.scope", "40\nx\n"),
        ] {
            fs::create_dir_all(pod.path().join(cgroup)).unwrap();
            fs::write(pod.path().join(cgroup).join("cgroup.procs"), pids).unwrap();
        }
        let mut found = processes(pod.path()).unwrap();
        found.sort_unstable();
        assert_eq!(found, [0, 20, 21, 40]);
        assert!(processes(&pod.path().join("gone")).unwrap().is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_empty() {
        let pod = tempfile::tempdir().unwrap();
        fs::create_dir(pod.path().join("a")).unwrap();
        // A directory in the place of the file: there, and unreadable, for root too.
        fs::create_dir(pod.path().join("a/cgroup.procs")).unwrap();
        assert_eq!(processes(pod.path()).unwrap_err().raw_os_error(), Some(libc::EISDIR));
        let error = |number| unless_gone::<()>(Err(io::Error::from_raw_os_error(number)));
        for gone in [libc::ENOENT, libc::ESRCH, libc::ENODEV] {
            assert!(matches!(error(gone), Ok(None)), "{gone}");
        }
        for passing in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EACCES, libc::EPERM, libc::EIO] {
            assert_eq!(error(passing).unwrap_err().raw_os_error(), Some(passing));
        }
    }
}
