//! The inputs to begin with: the examples of the repository, those of the catalog of findings, and the files of
//! `tests/fuzz/corpus/TARGET`, where those that failed are put too. Used by [`crate::search`] and by the replay.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};

use weir_mesh::analysis::catalog;

use crate::Target;
use crate::mutate::MAX_INPUT;

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Where a target's own inputs are.
pub fn directory(target: Target) -> PathBuf {
    root().join("tests/fuzz/corpus").join(target.name())
}

/// The target's own inputs, by name and in order.
///
/// # Errors
/// When the directory cannot be read.
pub fn own(target: Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    files(&directory(target), &mut found)?;
    Ok(found)
}

/// Everything to begin with.
///
/// # Errors
/// When a directory cannot be read.
pub fn all(target: Target) -> io::Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    if target.is_text() {
        for of in Target::ALL.into_iter().filter(|target| target.is_text()) {
            files(&directory(of), &mut found)?;
        }
        files(&root().join("deploy/examples"), &mut found)?;
        found.retain(|(name, _)| Path::new(name).extension().is_none_or(|extension| extension != "md"));
    } else {
        files(&directory(target), &mut found)?;
    }
    let mut inputs: Vec<Vec<u8>> = found.into_iter().map(|(_, bytes)| bytes).collect();
    if target.is_text() {
        let examples = catalog::all().filter_map(|entry| entry.example.as_ref());
        inputs
            .extend(examples.flat_map(|example| [example.fires, example.silent]).map(|text| text.as_bytes().to_vec()));
    }
    inputs.retain(|input| input.len() <= MAX_INPUT);
    Ok(inputs)
}

fn files(directory: &Path, found: &mut Vec<(String, Vec<u8>)>) -> io::Result<()> {
    let mut paths = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            files(&path, found)?;
        } else {
            found.push((path.display().to_string(), fs::read(&path)?));
        }
    }
    Ok(())
}

/// Keeps an input that failed; the path where it is now.
///
/// # Errors
/// When it cannot be written.
pub fn keep(target: Target, input: &[u8]) -> io::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    hasher.write(input);
    let path = directory(target).join(format!("crash-{:016x}", hasher.finish()));
    fs::write(&path, input)?;
    Ok(path)
}
