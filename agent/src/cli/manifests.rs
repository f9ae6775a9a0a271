//! Manifests named on the command line: files, directories with everything below them, and `-` for standard input.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weir_mesh::store::MAX_FILE_BYTES;

/// Directories below directories, at most: a link that leads in a circle must end somewhere.
const MAX_DEPTH: usize = 32;
/// Files at most; more is a mistake in the path (`/`, a home directory).
const MAX_FILES: usize = 100_000;
/// What standard input is called in messages.
const STANDARD_INPUT: &str = "<stdin>";

/// A text, or why there is none.
#[derive(Debug)]
pub(super) struct Manifest {
    /// As it was named, or found below a name.
    pub(super) file: Arc<str>,
    pub(super) text: Result<String, String>,
}

/// Reads one after another, in the order of the names; below a directory by name. Nothing is held of one that was read.
pub(super) fn each(names: &[PathBuf], mut take: impl FnMut(Manifest)) {
    let mut was_read = false;
    for name in names {
        if name.as_os_str() == "-" && std::mem::replace(&mut was_read, true) {
            take(Manifest { file: STANDARD_INPUT.into(), text: Err("can be read once only".to_owned()) });
            continue;
        }
        if name.as_os_str() == "-" {
            take(Manifest { file: STANDARD_INPUT.into(), text: read(std::io::stdin().lock()) });
            continue;
        }
        let mut files = Vec::new();
        let problem = if name.is_dir() {
            list(name, 0, &mut files)
        } else {
            files.push(name.clone());
            Ok(())
        };
        for path in files {
            let text = open(&path, &path != name).and_then(read);
            take(Manifest { file: shown(&path), text });
        }
        if let Err((path, why)) = problem {
            take(Manifest { file: shown(&path), text: Err(why) });
        }
    }
}

fn shown(path: &Path) -> Arc<str> {
    path.to_string_lossy().into()
}

/// What is found in a directory is a file, or what leads to one: nobody waits for the other end of a pipe that was left
/// there. One that is named may be one (`<(kubectl get …)`).
fn open(path: &Path, found: bool) -> Result<File, String> {
    if found && !std::fs::metadata(path).map_err(|error| error.to_string())?.is_file() {
        return Err("is no file".to_owned());
    }
    File::open(path).map_err(|error| error.to_string())
}

fn read(from: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    // One more than what is taken, so that what is too long is seen to be.
    from.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    String::from_utf8(bytes).map_err(|_| "is no UTF-8 text".to_owned())
}

/// Manifests below a directory; what is hidden is left out.
fn list(directory: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), (PathBuf, String)> {
    let failed = |error: std::io::Error| (directory.to_owned(), error.to_string());
    if depth == MAX_DEPTH {
        return Err((directory.to_owned(), format!("is more than {MAX_DEPTH} directories deep")));
    }
    let mut entries =
        std::fs::read_dir(directory).and_then(Iterator::collect::<std::io::Result<Vec<_>>>).map_err(failed)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            list(&path, depth + 1, files)?;
        } else if matches!(path.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json")) {
            files.push(path);
            if files.len() > MAX_FILES {
                return Err((directory.to_owned(), format!("has more than {MAX_FILES} manifests below it")));
            }
        }
    }
    Ok(())
}
