//! Loads the programs and puts them in force, in the place of a former agent's where there are such. Used by `mod`.
//!
//! A pinned link outlives its agent, but not its cgroup: the pin of a link whose cgroup was removed is there, and
//! nothing is hooked. So each adopted link's cgroup is compared with the directory that we attach to.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::programs::Program;
use aya::{Ebpf, EbpfLoader};
use weir_ebpf::maps;

use super::error::{self, BPF_CAPABILITIES, DatapathError};
use super::pins::Pins;
use super::sys;
use crate::cgroup;

/// The programs in the order in which they are attached: what answers questions first, what steers last, so that
/// nothing is steered whose flow is not recorded.
pub(super) const ORDER: [&str; 5] =
    ["weir_sockops", "weir_peername4", "weir_peername6", "weir_connect4", "weir_connect6"];

/// The program by which agents see who was the last to take over.
pub(super) const TOKEN: &str = "weir_connect4";

/// `enum bpf_attach_type`.
fn attach_type(program: &str) -> u32 {
    match program {
        "weir_sockops" => 3,
        "weir_peername4" => 29,
        "weir_peername6" => 30,
        "weir_connect4" => 10,
        _ => 11,
    }
}

/// Reads the object, and makes its maps or adopts the pinned ones.
pub(super) fn load(object: &[u8], pins: &Pins) -> Result<Ebpf, DatapathError> {
    let mut loader = EbpfLoader::new();
    // No program is relocated against the kernel's types, and parsing those costs 20 MiB.
    loader.btf(None);
    for map in maps::ALL {
        loader.map_pin_path(map.name, pins.map(map.name));
    }
    let mut ebpf = loader.load(object).map_err(error::from_load)?;
    for name in ORDER {
        let program =
            ebpf.program_mut(name).ok_or_else(|| DatapathError::BadObject(format!("program {name} is missing")))?;
        match program {
            Program::CgroupSockAddr(program) => program.load(),
            Program::SockOps(program) => program.load(),
            _ => return Err(DatapathError::BadObject(format!("program {name} is of another type"))),
        }
        .map_err(|e| error::from_program(name, e))?;
    }
    Ok(ebpf)
}

/// The loaded programs, in the order of [`ORDER`]: they can be put in force more than once.
pub(super) struct Programs([OwnedFd; ORDER.len()]);

impl Programs {
    /// Of an object that [`load`] has loaded, and that is not needed any more.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, DatapathError> {
        let mut programs = Vec::with_capacity(ORDER.len());
        for name in ORDER {
            let program = ebpf
                .program(name)
                .and_then(|p| p.fd().ok())
                .ok_or_else(|| DatapathError::BadObject(format!("program {name} is not loaded")))?;
            programs.push(program.as_fd().try_clone_to_owned().map_err(DatapathError::io("keep open", name))?);
        }
        Ok(Self(programs.try_into().expect("one for each name of ORDER")))
    }
}

/// What became of the links.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Made new, because there was none.
    pub fresh: usize,
    /// A former agent's, whose program was replaced.
    pub adopted: usize,
    /// Made new, because the old one was attached elsewhere or its cgroup was gone.
    pub renewed: usize,
}

/// Puts all programs in force at `attach_point`, and pins links and programs. Returns the id of [`TOKEN`] too.
pub(super) fn attach(programs: &Programs, pins: &Pins, attach_point: &Path) -> Result<(Attached, u32), DatapathError> {
    let directory = File::open(attach_point).map_err(DatapathError::io("open", attach_point))?;
    let id = cgroup::id_of(attach_point).map_err(DatapathError::io("look at", attach_point))?;
    let mut attached = Attached::default();
    let mut token = 0;
    for (name, program) in ORDER.into_iter().zip(&programs.0) {
        let program = program.as_fd();
        let path = pins.link(name);
        match sys::object_get(&path) {
            Ok(link)
                if replace(&link, program, &pins.program(name), id).map_err(DatapathError::io("update", &path))? =>
            {
                attached.adopted += 1;
            }
            Ok(stale) => {
                attach_new(program, &directory, name, &path)?;
                // Its cgroup is another one than ours now, or gone; either way its last descriptor is this one.
                if let Err(error) = sys::link_detach(stale.as_fd()) {
                    tracing::debug!(name, %error, "cannot detach a former link");
                }
                attached.renewed += 1;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                attach_new(program, &directory, name, &path)?;
                attached.fresh += 1;
            }
            Err(error) => return Err(DatapathError::Io { what: "open the pinned link", path, error }),
        }
        Pins::pin_over(program, &pins.program(name))?;
        if name == TOKEN {
            token = sys::program_id(program).map_err(DatapathError::io("look at", &path))?;
        }
    }
    Ok((attached, token))
}

/// Puts `program` in the place of the link's; false when the link is not attached to cgroup `id`.
fn replace(link: &OwnedFd, program: BorrowedFd<'_>, pinned: &Path, id: u64) -> io::Result<bool> {
    let info = sys::link_info(link.as_fd())?;
    if info.cgroup != id {
        return Ok(false);
    }
    // The pin needs fewer rights than the id; it is older only if an agent died between the update and the pin.
    let old = sys::object_get(pinned)
        .ok()
        .filter(|old| sys::program_id(old.as_fd()).is_ok_and(|id| id == info.program))
        .map_or_else(|| sys::program_by_id(info.program), Ok)?;
    match sys::link_update(link.as_fd(), program, old.as_fd()) {
        Ok(()) => Ok(true),
        // The cgroup went away since we looked.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Attaches and pins; an old pin of the name, and with it the old link, goes only when the new one is there.
fn attach_new(program: BorrowedFd<'_>, cgroup: &File, name: &str, path: &Path) -> Result<(), DatapathError> {
    let link = sys::link_create(program, cgroup.as_fd(), attach_type(name)).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            DatapathError::NotPermitted { what: "attach BPF programs to a cgroup", capability: BPF_CAPABILITIES }
        }
        _ => DatapathError::io("attach", path)(error),
    })?;
    Pins::pin_over(link.as_fd(), path)
}

/// The id of the program that the pinned link of [`TOKEN`] runs now.
pub(super) fn current_token(pins: &Pins) -> io::Result<u32> {
    let link = sys::object_get(&pins.link(TOKEN))?;
    Ok(sys::link_info(link.as_fd())?.program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_of_the_abi_is_attached_once_and_the_connect_hooks_last() {
        let mut ours = ORDER;
        ours.sort_unstable();
        let mut abi = maps::PROGRAMS.to_vec();
        abi.sort_unstable();
        assert_eq!(ours.as_slice(), abi);
        assert!(ORDER[3..].iter().all(|name| name.starts_with("weir_connect")));
        let types: std::collections::BTreeSet<u32> = ORDER.iter().map(|n| attach_type(n)).collect();
        assert_eq!(types.len(), ORDER.len());
    }
}
