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
/// What goes into the proxy. The benches and tests do not, though the load of the training is theirs.
const SOURCES: &[&str] = &["Cargo.toml", "Cargo.lock", "agent"];
/// What separates flags in CARGO_ENCODED_RUSTFLAGS, so that paths may have spaces.
const SEPARATOR: &str = "\x1f";

/// Trains, whether it is due or not.
///
/// # Errors
/// When the instrumented proxy does not build or run.
pub(crate) fn run() -> Result<()> {
    let compiler = Compiler::this()?;
    let record = compiler.record()?;
    train(&compiler, &record)?;
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
    let record = compiler.record()?;
    if !record.exists() {
        train(&compiler, &record).context("training (--untrained builds without it)")?;
    }
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

fn train(compiler: &Compiler, record: &Path) -> Result<()> {
    let merge = packages::llvm("llvm-profdata", compiler.llvm)?;
    let place = place();
    let (build, raw) = (place.join("build"), place.join("raw"));
    println!(
        "training: the proxy is built to record what it executes (as long as a release build), and put under load"
    );
    let mut cargo = command(RELEASE, &compiler.host, &build, Some("-Cprofile-generate".to_owned()));
    succeed(cargo.args(["-p", "weir-bench-proxy", "--bin", "weir-proxy", "--bin", "weir-train"]))?;
    if raw.exists() {
        fs::remove_dir_all(&raw).with_context(|| format!("removing {}", raw.display()))?;
    }
    let built = build.join(&compiler.host).join(RELEASE);
    let mut training = Command::new(built.join("weir-train"));
    training.arg("--proxy").arg(built.join("weir-proxy")).arg("--output").arg(&raw);
    // It was built with the proxy, and would record itself.
    succeed(training.env("LLVM_PROFILE_FILE", "/dev/null"))?;
    let records = fs::read_dir(&raw)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    let records: Vec<&PathBuf> =
        records.iter().filter(|path| path.extension().is_some_and(|e| e == "profraw")).collect();
    ensure!(!records.is_empty(), "the proxy left no record in {}", raw.display());
    // Put in place whole: a record that is cut short would be used by every later build.
    let whole = record.with_extension("new");
    succeed(Command::new(merge).args(["merge", "--sparse", "-o"]).arg(&whole).args(records))?;
    for former in fs::read_dir(&place)?.flatten().map(|entry| entry.path()) {
        if former.extension().is_some_and(|extension| extension == "profdata") {
            fs::remove_file(&former).with_context(|| format!("removing {}", former.display()))?;
        }
    }
    fs::rename(&whole, record).with_context(|| format!("writing {}", record.display()))
}

fn place() -> PathBuf {
    workspace::target().join("training")
}

struct Compiler {
    /// All that it says of its version. Names of functions depend on it, so a record is good for one compiler alone.
    version: String,
    host: String,
    /// The major version of its LLVM.
    llvm: u32,
}

impl Compiler {
    fn this() -> Result<Self> {
        let output =
            Command::new("rustc").current_dir(workspace::root()).arg("-vV").output().context("running rustc")?;
        Self::of(String::from_utf8(output.stdout)?)
    }

    fn of(version: String) -> Result<Self> {
        let field = |name: &str| version.lines().find_map(|line| line.strip_prefix(name));
        let host = field("host: ").context("rustc names no host")?.to_owned();
        let llvm = field("LLVM version: ").and_then(|llvm| llvm.split('.').next()?.parse().ok());
        Ok(Self { llvm: llvm.context("rustc names no version of LLVM")?, host, version })
    }

    /// Where the record of the sources as they are is, or would be. Its name is its content's, as cargo builds anew when
    /// the flags change, and does not look into files that they name.
    fn record(&self) -> Result<PathBuf> {
        let mut hasher = DefaultHasher::new();
        (&self.version, workspace::hash(SOURCES)?).hash(&mut hasher);
        Ok(place().join(format!("{:016x}.profdata", hasher.finish())))
    }
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {}", command.get_program().display()))?;
    ensure!(status.success(), "{}: {status}", command.get_program().display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_of_one_compiler() {
        let said = |patch: u32| format!("rustc 1.95.{patch}\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.2\n");
        let [one, same, other] = [0, 0, 1].map(|patch| Compiler::of(said(patch)).expect("as rustc says it"));
        assert_eq!((one.host.as_str(), one.llvm), ("x86_64-unknown-linux-gnu", 22));
        assert_eq!(one.record().expect("sources"), same.record().expect("sources"));
        assert_ne!(one.record().expect("sources"), other.record().expect("sources"));
        assert!(Compiler::of("rustc 1.95.0\n".to_owned()).is_err());
    }

    #[test]
    fn what_is_not_released_needs_no_training() {
        assert_eq!(due("quick", false).expect("nothing is looked at"), None);
        assert_eq!(due(RELEASE, true).expect("nothing is looked at"), None);
    }
}
