//! Installs what [`super::toolchain`] did not find, or says how.
//!
//! On Debian as root it can do all of it: packages for the compiler and LLVM, and a bpf-linker of our own below
//! `target/tools`. It asks first on a terminal; elsewhere (an image build, CI) there is nobody to ask.

use std::fmt;
use std::fs;
use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail};

use super::toolchain::{DEBIAN_LLVM, LINKER_VERSION, Missing, output};
use crate::workspace;

/// One command to run.
struct Step {
    why: &'static str,
    environment: Vec<(&'static str, String)>,
    command: Vec<String>,
    /// Needs root.
    root: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sudo = if self.root && !is_root() { "sudo " } else { "" };
        write!(f, "{sudo}")?;
        for (name, value) in &self.environment {
            write!(f, "{name}={value} ")?;
        }
        write!(f, "{}", self.command.join(" "))
    }
}

/// Makes the tools available.
///
/// # Errors
/// With the commands to run by hand, when we may not run them; and when one fails.
pub(super) fn install(missing: &Missing, yes: bool) -> anyhow::Result<()> {
    println!("{missing}");
    if !Path::new("/etc/debian_version").exists() {
        bail!(
            "this is no Debian, so the tools are for you to install:\n\
             \x20 rustup toolchain install nightly --component rust-src\n\
             \x20 a bpf-linker {LINKER_VERSION} in PATH, built with the LLVM of `rustc +nightly -vV`\n\
             \x20   (https://github.com/aya-rs/bpf-linker)"
        );
    }
    let steps = plan(missing);
    println!("What would install them:");
    for step in &steps {
        println!("  {step}");
    }
    if steps.iter().any(|step| step.root) && !is_root() {
        bail!("packages are for root to install: run the commands above, then this again");
    }
    if !yes && std::io::stdin().is_terminal() && !confirmed()? {
        bail!("nothing installed: run the commands above, then this again");
    }
    for step in &steps {
        run(step)?;
    }
    Ok(())
}

/// The commands, in order.
fn plan(missing: &Missing) -> Vec<Step> {
    let llvm = missing
        .compiler
        .as_ref()
        .map_or(DEBIAN_LLVM, |compiler| compiler.llvm);
    let mut packages: Vec<String> = Vec::new();
    if missing.compiler.is_none() {
        packages.extend(["rustc-web", "cargo-web", "rust-web-src"].map(str::to_owned));
    }
    packages.extend([format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")]);
    packages.extend(["zlib1g-dev", "libzstd-dev", "gcc", "g++", "libc6-dev"].map(str::to_owned));
    packages.retain(|package| !is_installed(package));
    let mut steps = Vec::new();
    if !packages.is_empty() {
        if packages.iter().any(|package| !has_candidate(package)) {
            steps.push(update());
        }
        let mut command = ["apt-get", "install", "--yes", "--no-install-recommends"]
            .map(str::to_owned)
            .to_vec();
        command.append(&mut packages);
        let environment = vec![("DEBIAN_FRONTEND", "noninteractive".to_owned())];
        steps.push(Step {
            why: "installing packages",
            environment,
            command,
            root: true,
        });
    }
    let (cargo, rustc) = missing.compiler.as_ref().map_or_else(
        || ("/usr/bin/cargo".to_owned(), "/usr/bin/rustc".to_owned()),
        |compiler| {
            (
                compiler.cargo.display().to_string(),
                compiler.rustc.display().to_string(),
            )
        },
    );
    let tools = workspace::target().join("tools").display().to_string();
    let feature = format!("llvm-{llvm}");
    let command = [
        &cargo,
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--locked",
        "--no-default-features",
        "--features",
        &feature,
        "--root",
        &tools,
        "--force",
    ];
    steps.push(Step {
        why: "building bpf-linker (a minute or a few)",
        environment: vec![
            ("RUSTC", rustc),
            ("LLVM_PREFIX", format!("/usr/lib/llvm-{llvm}")),
        ],
        command: command.map(str::to_owned).to_vec(),
        root: false,
    });
    steps
}

fn update() -> Step {
    let command = ["apt-get", "update"].map(str::to_owned).to_vec();
    Step {
        why: "reading the package lists",
        environment: Vec::new(),
        command,
        root: true,
    }
}

fn run(step: &Step) -> anyhow::Result<()> {
    println!("{} …", step.why);
    let started = Instant::now();
    let [program, arguments @ ..] = step.command.as_slice() else {
        bail!("an empty command")
    };
    let status = workspace::command(program)
        .args(arguments)
        .envs(step.environment.iter().map(|(name, value)| (name, value)))
        .stdin(std::process::Stdio::null())
        .status()
        .with_context(|| format!("cannot run {program}"))?;
    if !status.success() {
        bail!(
            "failed ({status}): {step}\nIf the package lists are old, `apt-get update` and try again."
        );
    }
    println!(
        "{}: done in {:.0} s",
        step.why,
        started.elapsed().as_secs_f32()
    );
    Ok(())
}

fn confirmed() -> anyhow::Result<bool> {
    print!("Run these commands now? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn is_installed(package: &str) -> bool {
    output("dpkg-query", &["-W", "-f", "${Status}", package])
        .is_some_and(|status| status == "install ok installed")
}

/// True when the package lists that are here know the package.
fn has_candidate(package: &str) -> bool {
    let policy = output("apt-cache", &["policy", package]).unwrap_or_default();
    policy
        .lines()
        .any(|line| line.trim_start().starts_with("Candidate:") && !line.contains("(none)"))
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .unwrap_or_default();
    // Real, effective, saved, file system.
    uids.split_whitespace().nth(1) == Some("0")
}
