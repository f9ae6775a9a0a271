//! Finds a compiler that can build for the kernel, and a linker that understands it.
//!
//! The compiler must have the sources of `core` beside it, and the linker must be bpf-linker with the compiler's own
//! major version of LLVM, because what passes between them is LLVM's bitcode. Two compilers will do: a rustup nightly
//! with `rust-src`, or the released one that Debian builds for its web browsers.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::workspace;

/// The version of bpf-linker that we install.
pub(super) const LINKER_VERSION: &str = "0.13.0";
/// The versions of LLVM that it can be built with.
pub(super) const LINKER_LLVM: &[u32] = &[21, 22];
/// The version of LLVM that Debian's compiler has.
pub(super) const DEBIAN_LLVM: u32 = 22;
/// The oldest compiler that takes the workspace's edition and dependencies.
const OLDEST_RUST: (u32, u32) = (1, 95);
/// Where Debian puts its compiler. A rustup one is before it in PATH, so it is asked for by its place.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Everything that a build needs.
pub(super) struct Toolchain {
    pub(super) cargo: PathBuf,
    pub(super) rustc: PathBuf,
    pub(super) linker: PathBuf,
    /// All that `rustc -vV` says.
    pub(super) version: String,
    pub(super) nightly: bool,
    /// For people.
    name: String,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} and {}", self.name, self.linker.display())
    }
}

/// What is not there.
pub(super) struct Missing {
    /// A compiler that would do, if only there were a linker for it.
    pub(super) compiler: Option<Compiler>,
    /// What was looked at, and why it will not do.
    reasons: Vec<String>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "no tools for kernel programs:")?;
        for reason in &self.reasons {
            writeln!(f, "  - {reason}")?;
        }
        Ok(())
    }
}

/// A compiler with the sources of `core`.
#[derive(Clone)]
pub(super) struct Compiler {
    pub(super) cargo: PathBuf,
    pub(super) rustc: PathBuf,
    /// Major version.
    pub(super) llvm: u32,
    version: String,
    nightly: bool,
    name: String,
}

/// Looks for a compiler and a linker that go together.
pub(super) fn find() -> Result<Toolchain, Box<Missing>> {
    let mut reasons = Vec::new();
    let mut compilers = Vec::new();
    for (what, rustc, cargo) in places() {
        match Compiler::inspect(&what, rustc, cargo) {
            Ok(compiler) => compilers.push(compiler),
            Err(reason) => reasons.push(reason),
        }
    }
    let linkers = linkers();
    for compiler in &compilers {
        if let Some((linker, _)) = linkers
            .iter()
            .find(|(_, llvm)| *llvm == Some(compiler.llvm))
        {
            let Compiler {
                cargo,
                rustc,
                version,
                nightly,
                name,
                ..
            } = compiler.clone();
            return Ok(Toolchain {
                cargo,
                rustc,
                linker: linker.clone(),
                version,
                nightly,
                name,
            });
        }
        reasons.push(format!(
            "{}: no bpf-linker with LLVM {}",
            compiler.name, compiler.llvm
        ));
    }
    for (linker, llvm) in linkers {
        let llvm = llvm.map_or("an unknown LLVM".to_owned(), |major| {
            format!("LLVM {major}")
        });
        reasons.push(format!("{} is there, with {llvm}", linker.display()));
    }
    // Debian's LLVM packages are what a linker is built from, so a compiler of another LLVM is no help.
    let compiler = compilers
        .into_iter()
        .find(|c| LINKER_LLVM.contains(&c.llvm));
    Err(Box::new(Missing { compiler, reasons }))
}

/// What to call it, rustc, cargo.
fn places() -> Vec<(String, PathBuf, PathBuf)> {
    let mut places = Vec::new();
    for (name, root) in rustup_toolchains() {
        if name.starts_with("nightly") {
            places.push((
                format!("rustup {name}"),
                root.join("bin/rustc"),
                root.join("bin/cargo"),
            ));
        }
    }
    places.push((
        DEBIAN_RUSTC.to_owned(),
        DEBIAN_RUSTC.into(),
        "/usr/bin/cargo".into(),
    ));
    places
}

/// Names and directories of rustup's toolchains, without asking rustup, which may want to install something.
fn rustup_toolchains() -> Vec<(String, PathBuf)> {
    let home = std::env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(home()?.join(".rustup")));
    let Some(Ok(entries)) = home.map(|home| fs::read_dir(home.join("toolchains"))) else {
        return Vec::new();
    };
    let named = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.to_owned(), entry.path())));
    let mut toolchains: Vec<_> = named.collect();
    toolchains.sort();
    toolchains
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").map(PathBuf::from)
}

impl Compiler {
    fn inspect(what: &str, rustc: PathBuf, cargo: PathBuf) -> Result<Self, String> {
        if !cargo.exists() {
            return Err(format!("{what}: not installed"));
        }
        let version = output(&rustc, &["-vV"]).ok_or_else(|| format!("{what}: not installed"))?;
        let field = |name: &str| {
            version
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default()
                .trim()
        };
        let release = field("release:").to_owned();
        let Some((rust, llvm)) = numbers(&release).zip(numbers(field("LLVM version:"))) else {
            return Err(format!("{what}: says no version that we understand"));
        };
        if rust < OLDEST_RUST {
            return Err(format!(
                "{what}: Rust {release} is older than {}.{}",
                OLDEST_RUST.0, OLDEST_RUST.1
            ));
        }
        let sysroot = output(&rustc, &["--print", "sysroot"]).unwrap_or_default();
        if !Path::new(sysroot.trim())
            .join("lib/rustlib/src/rust/library/core/src/lib.rs")
            .exists()
        {
            return Err(format!(
                "{what}: Rust {release} without the sources of core (rust-src)"
            ));
        }
        let name = format!("Rust {release}, LLVM {}", field("LLVM version:"));
        Ok(Self {
            cargo,
            rustc,
            llvm: llvm.0,
            nightly: release.contains("nightly"),
            version,
            name,
        })
    }
}

/// The linkers within reach, ours first, each with its major version of LLVM if it can be told.
fn linkers() -> Vec<(PathBuf, Option<u32>)> {
    let mut directories = vec![workspace::target().join("tools/bin")];
    directories.extend(
        std::env::var_os("PATH")
            .iter()
            .flat_map(std::env::split_paths),
    );
    directories.extend(home().map(|home| home.join(".cargo/bin")));
    let mut found: Vec<(PathBuf, Option<u32>)> = Vec::new();
    for linker in directories
        .into_iter()
        .map(|directory| directory.join("bpf-linker"))
    {
        if linker.is_file() && !found.iter().any(|(known, _)| *known == linker) {
            let llvm =
                output(&linker, &["--version"]).and_then(|_| llvm_inside(&fs::read(&linker).ok()?));
            found.push((linker, llvm));
        }
    }
    found
}

/// The major version of LLVM that a program was built with: from the library that it asks for, or else from the name
/// under which LLVM signs bitcode. bpf-linker does not say it on its command line.
fn llvm_inside(program: &[u8]) -> Option<u32> {
    ["libLLVM.so.", "libLLVM-", "LLVM"].iter().find_map(|mark| {
        let mut after = program
            .windows(mark.len())
            .enumerate()
            .filter(|(_, w)| *w == mark.as_bytes())
            .map(|(at, _)| at + mark.len());
        after.find_map(|at| version_at(&program[at..]))
    })
}

/// `22` of `22.1.8`. Two digits and a dot: "LLVM" alone begins many strings.
fn version_at(bytes: &[u8]) -> Option<u32> {
    let [a @ b'1'..=b'9', b @ b'0'..=b'9', b'.', ..] = *bytes else {
        return None;
    };
    Some(u32::from(a - b'0') * 10 + u32::from(b - b'0'))
}

/// Major and minor of `1.96.0-nightly`.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// What a program prints; `None` when it is not there, or fails.
pub(super) fn output(program: impl AsRef<OsStr>, arguments: &[&str]) -> Option<String> {
    let output = workspace::command(program).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linkers_llvm_is_read_from_its_library_or_its_signature() {
        assert_eq!(llvm_inside(b"\0libz.so.1\0libLLVM.so.22.1\0"), Some(22));
        assert_eq!(llvm_inside(b"\0libLLVM-21.so\0"), Some(21));
        assert_eq!(llvm_inside(b"LLVM ERROR\0LLVM21.1.2-rust\0"), Some(21));
        assert_eq!(llvm_inside(b"LLVM ERROR"), None);
    }

    #[test]
    fn versions_are_two_numbers() {
        assert_eq!(numbers("1.97.0-nightly"), Some((1, 97)));
        assert_eq!(numbers("22.1.8"), Some((22, 1)));
        assert_eq!(numbers("unknown"), None);
    }
}
