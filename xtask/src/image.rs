//! `cargo xtask image`: the container images, without a registry, a daemon or a base image. One static binary on an
//! empty file system, as a tar that `ctr images import`, `kind load image-archive` and `docker load` take.
//!
//! Static with glibc, by the target that every Rust toolchain has. What glibc cannot do then is load name service
//! modules; the agent resolves no names (the API server's address is in its environment).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{packages, training, workspace};

/// What to make.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Profile of the binaries: release, or quick while trying things out
    #[arg(long, default_value = training::RELEASE)]
    profile: String,
    /// Where the tars go [default: target/image]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Tag of the images
    #[arg(long, default_value = env!("CARGO_PKG_VERSION"))]
    tag: String,
    /// Without a training run before it (see `cargo xtask train`): the proxy takes more CPU
    #[arg(long)]
    untrained: bool,
    /// Make the image of the end-to-end test's pods too: a server and a client
    #[arg(long)]
    test_pods: bool,
}

/// One image.
struct Image {
    name: &'static str,
    package: &'static str,
    binaries: &'static [&'static str],
    title: &'static str,
}

const AGENT: Image = Image {
    name: "weir",
    package: "weir",
    binaries: &["weir"],
    title: "weir: a service mesh for Kubernetes without sidecars",
};
const TEST_PODS: Image = Image {
    name: "weir-test-pods",
    package: "weir-tests",
    binaries: &["weir-origin", "weir-client"],
    title: "servers and clients for weir's end-to-end test",
};

/// Builds the images.
///
/// # Errors
/// When something is missing, does not build, or is not static.
pub(crate) fn run(args: &Args) -> Result<()> {
    packages::require_all(packages::IMAGE)?;
    let own = std::env::current_exe().context("finding this program")?;
    // As a command of its own: the object must be there before the agent, which embeds it, is built.
    workspace::succeed(Command::new(own).arg("build-ebpf"))?;
    let training = training::due(&args.profile, args.untrained)?;
    let output = args.output.clone().unwrap_or_else(|| workspace::target().join("image"));
    let mut images = vec![AGENT];
    if args.test_pods {
        images.push(TEST_PODS);
    }
    for image in images {
        let tar = make(&image, args, training.as_deref(), &output)?;
        let size = fs::metadata(&tar)?.len() as f64 / f64::from(1 << 20);
        println!("{}:{} in {} ({size:.1} MiB)", image.name, args.tag, tar.display());
    }
    println!("load it: `ctr -n k8s.io images import FILE` on a node, or `kind load image-archive FILE`");
    Ok(())
}

/// Makes both images in the profile of releases, and gives their tars. Without training, which changes nothing of what
/// the agent does, and takes as long again.
///
/// # Errors
/// See [`run`].
pub(crate) fn all() -> Result<Vec<PathBuf>> {
    let output = workspace::target().join("image");
    let tag = env!("CARGO_PKG_VERSION").to_owned();
    let profile = training::RELEASE.to_owned();
    run(&Args { profile, output: Some(output.clone()), tag, untrained: true, test_pods: true })?;
    Ok([AGENT, TEST_PODS].iter().map(|image| tar(&output, image)).collect())
}

/// The agent's image, as a pod names it.
pub(crate) fn agent() -> String {
    format!("{}:{}", AGENT.name, env!("CARGO_PKG_VERSION"))
}

/// The image of the end-to-end test's pods.
pub(crate) fn pods() -> String {
    format!("{}:{}", TEST_PODS.name, env!("CARGO_PKG_VERSION"))
}

fn tar(output: &Path, image: &Image) -> PathBuf {
    output.join(format!("{}.tar", image.name))
}

fn make(image: &Image, args: &Args, training: Option<&Path>, output: &Path) -> Result<PathBuf> {
    let built = build(image, &args.profile, training)?;
    let root = output.join("root").join(image.name);
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("removing {}", root.display()))?;
    }
    fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    for binary in image.binaries {
        let (from, to) = (built.join(binary), root.join(binary));
        // The names of functions stay, for backtraces; lines are in the binary below `target`.
        workspace::succeed(Command::new("objcopy").arg("--strip-debug").args([&from, &to]))?;
        check_static(&fs::read(&to)?).with_context(|| format!("{}", from.display()))?;
    }
    pack(image, &args.tag, output, &root)
}

/// Gives the directory of the binaries.
fn build(image: &Image, profile: &str, training: Option<&Path>) -> Result<PathBuf> {
    let (mut cargo, built) = training::cargo(profile, training)?;
    cargo.args(["-p", image.package, "--bins"]).env("WEIR_REQUIRE_EBPF", "1");
    workspace::succeed(&mut cargo)?;
    Ok(built)
}

/// An ELF file that names no interpreter needs nothing beside itself.
fn check_static(elf: &[u8]) -> Result<()> {
    const PT_INTERP: u32 = 3;
    ensure!(elf.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF file");
    let number = |at: usize, size: usize| -> Result<u64> {
        let bytes = elf.get(at..at + size).context("an ELF file that ends early")?;
        Ok(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    };
    let (table, size, count) = (number(0x20, 8)?, number(0x36, 2)?, number(0x38, 2)?);
    for header in 0..count {
        if number((table + header * size) as usize, 4)? == u64::from(PT_INTERP) {
            bail!("it is linked dynamically: nothing in an empty image could start it");
        }
    }
    Ok(())
}

/// The image and its tar, from a storage of our own: what the machine's buildah and podman have is left alone.
fn pack(image: &Image, tag: &str, output: &Path, root: &Path) -> Result<PathBuf> {
    let file = output.join(format!("{}.Containerfile", image.name));
    fs::write(&file, containerfile(image, tag)).with_context(|| format!("writing {}", file.display()))?;
    let buildah = |command: &str| {
        let mut buildah = Command::new("buildah");
        let storage = output.join("storage");
        buildah.arg("--root").arg(storage.join("root")).arg("--runroot").arg(storage.join("run"));
        buildah.args(["--storage-driver", "vfs", command]);
        buildah
    };
    let name = format!("docker.io/library/{}:{tag}", image.name);
    // The same binary makes the same image, whenever it is made.
    workspace::succeed(
        buildah("build").args(["--quiet", "--timestamp", "0", "--tag", &name, "--file"]).arg(&file).arg(root),
    )?;
    let tar = tar(output, image);
    if tar.exists() {
        fs::remove_file(&tar).with_context(|| format!("removing {}", tar.display()))?;
    }
    workspace::succeed(
        buildah("push").args(["--quiet", &name]).arg(format!("docker-archive:{}:{name}", tar.display())),
    )?;
    workspace::succeed(buildah("rmi").args(["--force", &name]).stdout(std::process::Stdio::null()))?;
    Ok(tar)
}

fn containerfile(image: &Image, tag: &str) -> String {
    let copies: Vec<String> = image.binaries.iter().map(|b| format!("COPY {b} /{b}\n")).collect();
    format!(
        "FROM scratch\n{}LABEL org.opencontainers.image.title=\"{}\" org.opencontainers.image.version=\"{tag}\" \
         org.opencontainers.image.licenses=\"Apache-2.0\"\nENTRYPOINT [\"/{}\"]\n",
        copies.concat(),
        image.title,
        image.binaries[0],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_binary_is_refused() {
        // This test is one itself, unless the whole build is static.
        let own = fs::read(std::env::current_exe().expect("this test")).expect("it can be read");
        assert_eq!(check_static(&own).is_ok(), cfg!(target_feature = "crt-static"));
        assert!(check_static(b"#!/bin/sh\n").is_err());
        assert!(check_static(&own[..100]).is_err(), "cut short");
    }

    #[test]
    fn the_image_starts_from_nothing() {
        let text = containerfile(&TEST_PODS, "1.2.3");
        assert!(text.starts_with("FROM scratch\nCOPY weir-origin /weir-origin\nCOPY weir-client /weir-client\n"));
        assert!(text.ends_with("ENTRYPOINT [\"/weir-origin\"]\n") && text.contains("version=\"1.2.3\""));
        assert!(!text.contains("RUN"), "{text}");
    }
}
