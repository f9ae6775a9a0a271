//! The core is pure: nothing that does IO, tells the time or draws lots is anywhere below `weir-mesh`, and the
//! imports run in one direction (`cargo xtask tidy`). Needs no root.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Crates that reach out of the process. By name, whichever version.
const IMPURE: &[&str] = &[
    "async-std",
    "aya",
    "aya-obj",
    "chrono",
    "fastrand",
    "getrandom",
    "hyper",
    "hyper-util",
    "k8s-openapi",
    "kube",
    "libc",
    "mio",
    "nix",
    "notify",
    "openssl",
    "quinn",
    "rand",
    "rand_core",
    "reqwest",
    "rustix",
    "rustls",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tracing-subscriber",
    "ureq",
    "uuid",
    "walkdir",
];

fn cargo(arguments: &[&str]) -> Result<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(env!("CARGO")).current_dir(root).args(arguments).output().context("running cargo")?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "cargo {arguments:?}:\n{said}{complained}");
    Ok(said.into_owned())
}

#[test]
fn the_core_depends_on_nothing_that_reaches_out() -> Result<()> {
    let tree = cargo(&["tree", "--locked", "-p", "weir-mesh", "-e", "normal", "--prefix", "none"])?;
    let crates: Vec<&str> = tree.lines().filter_map(|l| l.split(' ').next()).collect();
    ensure!(crates.first() == Some(&"weir-mesh") && crates.len() > 5, "that is no tree: {tree}");
    let impure: Vec<&&str> = crates.iter().filter(|c| IMPURE.contains(c)).collect();
    ensure!(impure.is_empty(), "weir-mesh depends on {impure:?}: `cargo tree -p weir-mesh -i NAME` says through what");
    Ok(())
}

#[test]
fn the_tree_is_tidy() -> Result<()> {
    cargo(&["xtask", "tidy"])?;
    Ok(())
}

/// A core and a proxy that reach out, each right after a declared test module, and a file that is in order.
#[test]
fn a_tree_that_reaches_out_below_its_test_module_is_not_tidy() -> Result<()> {
    let root = std::env::temp_dir().join(format!("weir-untidy-{}", std::process::id()));
    for (file, code) in [
        ("agent/mesh/src/a.rs", "fn now() -> std::time::Instant {\n    std::time::Instant::now()\n}\n"),
        ("agent/src/proxy/mod.rs", "use crate::datapath::Datapath;\n"),
        ("agent/src/proxy/fine.rs", "use crate::netns::NetNs;\n"),
    ] {
        let path = root.join(file);
        std::fs::create_dir_all(path.parent().context("a file has a directory")?)?;
        std::fs::write(path, format!("//! A file.\n#[cfg(test)]\nmod tests;\n\n{code}"))?;
    }
    let said = cargo(&["xtask", "tidy", "--root", &root.to_string_lossy()]);
    std::fs::remove_dir_all(&root)?;
    let said = format!("{:#}", said.err().context("such a tree must not be called tidy")?);
    ensure!(said.contains("a.rs:6: the core is pure"), "{said}");
    ensure!(said.contains("mod.rs:5: proxy must not import datapath"), "{said}");
    ensure!(!said.contains("fine.rs"), "{said}");
    Ok(())
}
