//! Whether an object is what the sources and the tools of now would give. Two lines beside the build's files: the hash
//! of the sources, and the hash of the tools.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;

use anyhow::Context;

use super::toolchain::Toolchain;
use super::{TARGET, Variant, flags};
use crate::workspace;

/// What an object was made of.
#[derive(PartialEq, Eq)]
pub(super) struct Fingerprint {
    sources: u64,
    tools: u64,
}

impl Fingerprint {
    /// Of the sources and tools as they are.
    pub(super) fn now(variant: Variant, toolchain: &Toolchain) -> anyhow::Result<Self> {
        Ok(Self { sources: sources(variant)?, tools: tools(toolchain) })
    }

    /// True when the object is there and was made of exactly this.
    pub(super) fn is_stored(&self, variant: Variant) -> bool {
        variant.path().exists() && Self::stored(variant).is_some_and(|stored| stored == *self)
    }

    /// True when the object is there and was made of the sources as they are, by whatever tools.
    pub(super) fn sources_match(variant: Variant) -> bool {
        let stored = Self::stored(variant).map(|stored| stored.sources);
        variant.path().exists() && stored.is_some() && stored == sources(variant).ok()
    }

    /// Remembers it, after the object was put in place.
    pub(super) fn store(&self, variant: Variant) -> anyhow::Result<()> {
        let path = path(variant);
        fs::write(&path, format!("{:016x}\n{:016x}\n", self.sources, self.tools))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn stored(variant: Variant) -> Option<Self> {
        let text = fs::read_to_string(path(variant)).ok()?;
        let mut lines = text.lines().map(|line| u64::from_str_radix(line, 16));
        Some(Self { sources: lines.next()?.ok()?, tools: lines.next()?.ok()? })
    }
}

fn path(variant: Variant) -> PathBuf {
    workspace::target().join("ebpf").join(format!("{}.fingerprint", variant.file()))
}

/// `ebpf/`, and the two files of the workspace that say which crates and which profile it is built with.
fn sources(variant: Variant) -> anyhow::Result<u64> {
    let mut hasher = DefaultHasher::new();
    variant.features().hash(&mut hasher);
    workspace::hash(&["Cargo.toml", "Cargo.lock", "ebpf"], &[])?.hash(&mut hasher);
    Ok(hasher.finish())
}

fn tools(toolchain: &Toolchain) -> u64 {
    let mut hasher = DefaultHasher::new();
    (toolchain.version.as_str(), TARGET, flags(&toolchain.linker)).hash(&mut hasher);
    if let Ok(linker) = fs::metadata(&toolchain.linker) {
        (linker.len(), linker.modified().ok()).hash(&mut hasher);
    }
    hasher.finish()
}
