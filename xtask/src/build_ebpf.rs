//! `cargo xtask build-ebpf`: compiles the kernel programs of `ebpf/` to `target/bpf/weir.o`, checks the object against
//! the ABI, and says what is in it. Nothing is put in place that fails a check.

mod fingerprint;
mod install;
mod object;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};

use crate::workspace;
use fingerprint::Fingerprint;
use toolchain::Toolchain;

/// The compiler's name for the kernel's machine, in the byte order of the machine that we run on.
const TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// `v3` has 32-bit jumps and atomics that return a value; in every kernel that weir supports.
const TARGET_CPU: &str = "v3";

/// What to build, and how far to go for the tools.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Also build weir-debug.o, which logs every verdict
    #[arg(long)]
    debug: bool,
    /// Install missing tools without asking
    #[arg(long, short)]
    yes: bool,
    /// Build even if nothing changed
    #[arg(long)]
    force: bool,
}

/// One of the two objects.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    Normal,
    Debug,
}

impl Variant {
    fn file(self) -> &'static str {
        match self {
            Variant::Normal => "weir.o",
            Variant::Debug => "weir-debug.o",
        }
    }

    fn features(self) -> &'static str {
        match self {
            Variant::Normal => "programs",
            Variant::Debug => "log",
        }
    }

    fn path(self) -> PathBuf {
        workspace::target().join("bpf").join(self.file())
    }
}

/// Builds, or finds that there is nothing to build, and prints what the objects hold.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut variants = vec![Variant::Normal];
    // A debug object that is there stays in step with the normal one: the agent embeds both.
    if options.debug || Variant::Debug.path().exists() {
        variants.push(Variant::Debug);
    }
    let mut toolchain = toolchain::find();
    if toolchain.is_err()
        && !options.force
        && variants.iter().all(|v| Fingerprint::sources_match(*v))
    {
        println!("No compiler for kernel programs here, but the sources are those of the objects.");
        return variants
            .iter()
            .try_for_each(|v| summarise(*v, "up to date"));
    }
    if let Err(missing) = toolchain {
        install::install(&missing, options.yes)?;
        toolchain = toolchain::find();
    }
    let toolchain = match toolchain {
        Ok(toolchain) => toolchain,
        Err(missing) => bail!("the tools were installed, and still: {missing}"),
    };
    for variant in variants {
        let fingerprint = Fingerprint::now(variant, &toolchain)?;
        if !options.force && fingerprint.is_stored(variant) {
            summarise(variant, "up to date")?;
            continue;
        }
        let started = Instant::now();
        println!("{}: building with {toolchain}", variant.file());
        let built = compile(variant, &toolchain)?;
        publish(&built, variant)?;
        fingerprint.store(variant)?;
        summarise(
            variant,
            &format!("built in {:.1} s", started.elapsed().as_secs_f32()),
        )?;
    }
    Ok(())
}

fn compile(variant: Variant, toolchain: &Toolchain) -> anyhow::Result<PathBuf> {
    let target = workspace::target().join("ebpf");
    let mut cargo = workspace::command(&toolchain.cargo);
    cargo
        .current_dir(workspace::root())
        .args([
            "build",
            "--release",
            "--locked",
            "-Z",
            "build-std=core",
            "--target",
            TARGET,
        ])
        .args([
            "--package",
            "weir-ebpf",
            "--bin",
            "weir",
            "--no-default-features",
            "--features",
            variant.features(),
        ])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTC", &toolchain.rustc)
        // Empty, so that a wrapper in the user's configuration does not get between either.
        .env("RUSTC_WRAPPER", "")
        // Separated by 0x1f, so that a path with a space is one argument.
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            flags(&toolchain.linker).join("\x1f"),
        );
    if !toolchain.nightly {
        // `-Z build-std` is unstable; the released compiler has it all the same.
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    let status = cargo
        .status()
        .with_context(|| format!("cannot run {}", toolchain.cargo.display()))?;
    if !status.success() {
        bail!("the kernel programs do not compile (see above)");
    }
    Ok(target.join(TARGET).join("release/weir"))
}

/// The compiler's flags: our linker, and the debug information that becomes BTF.
fn flags(linker: &Path) -> Vec<String> {
    vec![
        format!("-Clinker={}", linker.display()),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("-Ctarget-cpu={TARGET_CPU}"),
    ]
}

/// Checks the object and puts it in place in one step, so that no build of the agent sees half of it.
fn publish(built: &Path, variant: Variant) -> anyhow::Result<()> {
    let bytes =
        fs::read(built).with_context(|| format!("the build left no {}", built.display()))?;
    object::check(&bytes, variant).with_context(|| format!("{} is not usable", built.display()))?;
    let path = variant.path();
    let directory = workspace::target().join("bpf");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let fresh = path.with_extension("o.new");
    fs::write(&fresh, bytes).with_context(|| format!("cannot write {}", fresh.display()))?;
    fs::rename(&fresh, &path).with_context(|| format!("cannot write {}", path.display()))
}

fn summarise(variant: Variant, state: &str) -> anyhow::Result<()> {
    let path = variant.path();
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let shown = path
        .strip_prefix(workspace::root())
        .unwrap_or(&path)
        .display()
        .to_string();
    println!("{shown}: {state}, {} KiB", bytes.len().div_ceil(1024));
    print!("{}", object::check(&bytes, variant)?);
    Ok(())
}
