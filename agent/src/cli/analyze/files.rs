//! The manifests that were named: files as they are, directories with what looks like a manifest, however deep.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What a directory is searched for; a file that is named may be called anything.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Directories below directories, at most: a link that leads in a circle must end somewhere.
const MAX_DEPTH: usize = 16;
/// More is a mistake in the path.
const MAX_FILES: usize = 100_000;
/// How standard input is named in findings.
const STDIN: &str = "-";

/// Names and texts, in the order of the arguments, and within a directory by name.
///
/// # Errors
/// When one cannot be read.
pub(super) fn read(paths: &[PathBuf], stdin: &mut dyn Read) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut standard_input = None;
    for path in paths {
        if path.as_os_str() == STDIN {
            if standard_input.is_some() {
                bail!("standard input can be read once only");
            }
            let mut text = String::new();
            stdin.read_to_string(&mut text).context("reading standard input")?;
            standard_input = Some((STDIN.to_owned(), text));
        } else if path.is_dir() {
            directory(path, 0, &mut found)?;
        } else {
            found.push(path.clone());
        }
        if found.len() > MAX_FILES {
            bail!("{} and what came before are more than {MAX_FILES} files", path.display());
        }
    }
    let mut texts: Vec<(String, String)> = Vec::with_capacity(found.len() + 1);
    let mut names = BTreeSet::new();
    for path in found {
        let name = path.display().to_string();
        // A file that is named twice, or is in a directory that is, is one file.
        if !names.insert(name.clone()) {
            continue;
        }
        let text = std::fs::read(&path).with_context(|| format!("reading {name}"))?;
        let Ok(text) = String::from_utf8(text) else { bail!("{name} is no UTF-8 text") };
        texts.push((name, text));
    }
    texts.extend(standard_input);
    Ok(texts)
}

fn directory(path: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = std::fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
    let mut names = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        if name.is_dir() {
            if depth < MAX_DEPTH {
                directory(&name, depth + 1, found)?;
            }
        } else if name.extension().is_some_and(|found| EXTENSIONS.iter().any(|known| found.eq_ignore_ascii_case(known)))
        {
            // Nobody waits for the other end of a pipe that was left there.
            if !name.is_file() {
                bail!("{} is no file", name.display());
            }
            found.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_give_their_manifests_and_files_are_taken_as_they_are() {
        let root = tempfile::tempdir().expect("a directory");
        let at = |name: &str| root.path().join(name);
        std::fs::create_dir(at("below")).expect("made");
        for name in ["b.yaml", "a.yml", "notes.txt", "below/c.json"] {
            std::fs::write(at(name), name).expect("written");
        }
        let names = |paths: &[PathBuf]| -> Vec<String> {
            let found = read(paths, &mut "in".as_bytes()).expect("readable");
            found.into_iter().map(|(_, text)| text).collect()
        };
        assert_eq!(names(&[root.path().into()]), ["a.yml", "b.yaml", "below/c.json"]);
        assert_eq!(
            names(&[at("notes.txt"), "-".into(), root.path().into()]),
            ["notes.txt", "a.yml", "b.yaml", "below/c.json", "in"]
        );
        std::fs::write(at("binary.yaml"), [0xff, 0xfe, 0]).expect("written");
        assert!(read(&[at("binary.yaml")], &mut "".as_bytes()).is_err());
        assert!(read(&[at("absent.yaml")], &mut "".as_bytes()).is_err());
    }
}
