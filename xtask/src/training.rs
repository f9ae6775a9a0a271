//! What is released is compiled with a record of what the proxy executes under load: the compiler lays out and inlines
//! by it, and a request that finds cold caches has less to load. `cargo xtask train` makes the record; `image` and
//! `bench proxy` do it when the sources or the compiler have changed, and build with it.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{packages, workspace};

/// The profile of what is released.
pub(crate) const RELEASE: &str = "release";
/// Everything that is released is static: nothing else could start in an empty image.
const STATIC: &str = "-Ctarget-feature=+crt-static";
/// What goes into the proxy, and the traffic of the training.
const SOURCES: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "agent",
    "tests/bench-proxy/src/mesh.rs",
    "tests/bench-proxy/src/training.rs",
    "tests/bench-proxy/src/varied.rs",
];
/// What is below these and never in a release: tests, and the texts on which field is in force.
const BESIDE: &[&str] = &["tests", "features"];
/// What separates flags in CARGO_ENCODED_RUSTFLAGS, so that paths may have spaces.
const SEPARATOR: &str = "\x1f";
/// Of records.
const EXTENSION: &str = "profdata";

/// Trains, whether it is due or not.
///
/// # Errors
/// When the instrumented proxy does not build or run.
pub(crate) fn run() -> Result<()> {
    let record = train(&Compiler::this()?)?;
    println!("{}: `cargo xtask image` and `cargo xtask bench proxy` use it", record.display());
    Ok(())
}

/// The record to build with, made anew where there is none of these sources and this compiler. `None` for builds that are
/// not to be released, and where the user wants none.
///
/// # Errors
/// See [`run`].
pub(crate) fn due(profile: &str, untrained: bool) -> Result<Option<PathBuf>> {
    if profile != RELEASE || untrained {
        return Ok(None);
    }
    let compiler = Compiler::this()?;
    let stem = compiler.stem()?;
    let record = records().find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&stem)));
    let record = match record {
        Some(record) => record,
        None => train(&compiler).context("training (--untrained builds without it)")?,
    };
    Ok(Some(record))
}

/// A command that builds what is to be released, and the directory where that will be.
///
/// # Errors
/// When the compiler does not answer.
pub(crate) fn cargo(profile: &str, record: Option<&Path>) -> Result<(Command, PathBuf)> {
    let host = Compiler::this()?.host;
    let using = record.map(|record| format!("-Cprofile-use={}", record.display()));
    let command = command(profile, &host, &workspace::target(), using);
    Ok((command, workspace::target().join(host).join(profile)))
}

/// The target is named in full, so that the flags hold for the binaries and not for build scripts; so is the directory,
/// so that what was built is found where a shared one is set for other builds.
fn command(profile: &str, host: &str, target: &Path, more: Option<String>) -> Command {
    let flags: Vec<String> = [STATIC.to_owned()].into_iter().chain(more).collect();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(workspace::root()).args(["build", "--locked", "--profile", profile, "--target", host]);
    cargo.arg("--target-dir").arg(target).env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR));
    cargo
}

/// Gives the record, which takes the place of former ones.
fn train(compiler: &Compiler) -> Result<PathBuf> {
    let merge = compiler.profdata()?;
    let stem = compiler.stem()?;
    let place = place();
    let (build, raw) = (place.join("build"), place.join("raw"));
    println!(
        "training: the proxy is built to record what it executes (as long as a release build), and put under load"
    );
    let mut cargo = command(RELEASE, &compiler.host, &build, Some("-Cprofile-generate".to_owned()));
    workspace::succeed(cargo.args(["-p", "weir-bench-proxy", "--bin", "weir-proxy", "--bin", "weir-train"]))?;
    let remove = |path: &Path| fs::remove_dir_all(path).with_context(|| format!("removing {}", path.display()));
    if raw.exists() {
        remove(&raw)?;
    }
    let built = build.join(&compiler.host).join(RELEASE);
    let mut training = Command::new(built.join("weir-train"));
    training.arg("--proxy").arg(built.join("weir-proxy")).arg("--output").arg(&raw);
    // It was built with the proxy, and would record itself.
    workspace::succeed(training.env("LLVM_PROFILE_FILE", "/dev/null"))?;
    let written = files(&raw, "profraw");
    ensure!(!written.is_empty(), "the proxy left no record in {}", raw.display());
    let whole = place.join("whole");
    workspace::succeed(Command::new(merge).args(["merge", "--sparse", "-o"]).arg(&whole).args(written))?;
    remove(&raw)?;
    for former in records() {
        fs::remove_file(&former).with_context(|| format!("removing {}", former.display()))?;
    }
    // Put in place whole, as one that is cut short would be used by every later build. Its name has its content too:
    // cargo builds anew when the flags change, and does not look into files that they name.
    let record = place.join(format!("{stem}-{:016x}.{EXTENSION}", hash_of(&fs::read(&whole)?)));
    fs::rename(&whole, &record).with_context(|| format!("writing {}", record.display()))?;
    Ok(record)
}

fn place() -> PathBuf {
    workspace::target().join("training")
}

fn records() -> impl Iterator<Item = PathBuf> {
    files(&place(), EXTENSION).into_iter()
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|own| own == extension)).collect()
}

fn hash_of(what: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

struct Compiler {
    /// All that it says of its version. Names of functions depend on it, so a record is good for one compiler alone.
    version: String,
    host: String,
    /// The major version of its LLVM.
    llvm: u32,
    sysroot: String,
}

impl Compiler {
    fn this() -> Result<Self> {
        let ask = |arguments: &[&str]| -> Result<String> {
            let mut rustc = Command::new("rustc");
            let output = rustc.current_dir(workspace::root()).args(arguments).output().context("running rustc")?;
            Ok(String::from_utf8(output.stdout)?)
        };
        Self::of(ask(&["-vV"])?, ask(&["--print", "sysroot"])?.trim().to_owned())
    }

    fn of(version: String, sysroot: String) -> Result<Self> {
        let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name));
        let host = field("host: ").context("rustc names no host")?.to_owned();
        let llvm = field("LLVM version: ").and_then(|llvm| llvm.split('.').next()?.parse().ok());
        Ok(Self { llvm: llvm.context("rustc names no version of LLVM")?, host, version, sysroot })
    }

    /// How the name of a record of the sources as they are begins.
    fn stem(&self) -> Result<String> {
        Ok(format!("{:016x}", hash_of(&(&self.version, workspace::hash(SOURCES, BESIDE)?))))
    }

    /// llvm-profdata of the compiler's own LLVM, which reads no other's records: rustup's component `llvm-tools`, or the
    /// system's, which is installed where that can be done.
    fn profdata(&self) -> Result<PathBuf> {
        let component = Path::new(&self.sysroot).join("lib/rustlib").join(&self.host).join("bin/llvm-profdata");
        if component.exists() {
            return Ok(component);
        }
        packages::llvm("llvm-profdata", self.llvm).context("or add the component: rustup component add llvm-tools")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_of_one_compiler() {
        let said = |patch: u32| {
            let text = format!("rustc 1.95.{patch}\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n");
            Compiler::of(text, "/usr".to_owned()).expect("as rustc says it")
        };
        assert_eq!((said(0).host.as_str(), said(0).llvm), ("x86_64-unknown-linux-gnu", 22));
        let stem = |patch| said(patch).stem().expect("sources");
        assert_eq!(stem(0), stem(0));
        assert_ne!(stem(0), stem(1));
        assert!(Compiler::of("rustc 1.95.0\n".to_owned(), String::new()).is_err());
    }

    #[test]
    fn what_is_not_released_needs_no_training() {
        assert_eq!(due("quick", false).expect("nothing is looked at"), None);
        assert_eq!(due(RELEASE, true).expect("nothing is looked at"), None);
    }
}
