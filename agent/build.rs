//! Embeds the kernel programs: copies the objects that `cargo xtask build-ebpf` made to where `datapath::object`
//! includes them from. Without them the agent still builds, and cannot steer.
//!
//! - `WEIR_EBPF_OBJECT`: the object to embed instead of `target/bpf/weir.o`; the debug object is the `weir-debug.o`
//!   beside it, if there is one.
//! - `WEIR_REQUIRE_EBPF=1`: a build without the object is an error. For releases.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-env-changed=WEIR_EBPF_OBJECT");
    println!("cargo::rerun-if-env-changed=WEIR_REQUIRE_EBPF");
    if let Err(message) = embed() {
        println!("cargo::error={message}");
    }
}

fn embed() -> Result<(), String> {
    let out = variable("OUT_DIR")?;
    let named = env::var_os("WEIR_EBPF_OBJECT").map(PathBuf::from);
    let required =
        named.is_some() || env::var_os("WEIR_REQUIRE_EBPF").is_some_and(|value| value == "1");
    let normal = if let Some(path) = named {
        println!("cargo::rerun-if-changed={}", path.display());
        path
    } else {
        // The directory and not the files: a file that is not there would run this, and compile the agent, again at
        // every build.
        let agent = variable("CARGO_MANIFEST_DIR")?;
        let directory = agent.parent().unwrap_or(&agent).join("target/bpf");
        fs::create_dir_all(&directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        println!("cargo::rerun-if-changed={}", directory.display());
        directory.join("weir.o")
    };
    if !copy(&normal, &out.join("weir.o"))? {
        let message = format!(
            "no kernel programs at {}: run `cargo xtask build-ebpf`",
            normal.display()
        );
        if required {
            return Err(message);
        }
        println!("cargo::warning={message}; this agent will not steer connections");
    }
    copy(
        &normal.with_file_name("weir-debug.o"),
        &out.join("weir-debug.o"),
    )?;
    Ok(())
}

/// Copies the object, or leaves an empty file. True when there was one.
fn copy(from: &Path, to: &Path) -> Result<bool, String> {
    let bytes = match fs::read(from) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(format!("cannot read {}: {error}", from.display())),
    };
    fs::write(to, &bytes).map_err(|error| format!("cannot write {}: {error}", to.display()))?;
    Ok(!bytes.is_empty())
}

fn variable(name: &str) -> Result<PathBuf, String> {
    env::var_os(name)
        .map(PathBuf::from)
        .ok_or_else(|| format!("cargo did not set {name}"))
}
