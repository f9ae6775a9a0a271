//! `cargo xtask tidy`: what the compiler does not check. Imports run in one direction, the core stays pure, a file
//! tells one story and says which. Run by `.ci/run` and by the purity suite.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// What to check.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Check another tree than this workspace
    #[arg(long)]
    root: Option<PathBuf>,
}

/// The parts of the workspace that have sources.
const PARTS: &[&str] = &["agent", "ebpf", "tests", "xtask"];

/// Longer files tell more than one story.
const MAX_LINES: usize = 500;

/// The modules of `agent/src`, from the outside in. A module may import what stands further down, never what stands
/// beside it or above it.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app"],
    &["admin", "datapath", "identity", "proxy", "sandbox", "watch"],
    &["config"],
    &["cgroup", "cluster", "drain", "heap", "netns", "telemetry"],
];

/// What the pure core does not name, outside its tests.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "UnixStream",
    "eprintln!",
    "hyper::",
    "println!",
    "rand::",
    "std::env",
    "std::fs",
    "std::process",
    "std::thread",
    "tokio",
];

/// Words for what should be done instead of written. In two parts, so that this file passes its own check.
const PROMISES: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X:")];

/// One offence.
#[derive(Debug, PartialEq, Eq)]
struct Offence {
    file: PathBuf,
    line: usize,
    what: String,
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.what)
    }
}

/// Checks the workspace.
///
/// # Errors
/// With every offence, or when a file cannot be read.
pub(crate) fn run(args: &Args) -> Result<()> {
    let root = args.root.clone().unwrap_or_else(crate::workspace::root);
    let mut offences = Vec::new();
    for directory in PARTS.iter().map(|part| root.join(part)).filter(|d| args.root.is_none() || d.is_dir()) {
        for file in sources(&directory)? {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let name = file.strip_prefix(&root).unwrap_or(&file);
            offences.extend(check(name, &text));
        }
    }
    if offences.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = offences.iter().map(ToString::to_string).collect();
    bail!("the tree is not tidy\n{}", lines.join("\n"))
}

/// Every `.rs` file below, in order.
fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// The offences of one file, whose name is relative to the root.
fn check(file: &Path, text: &str) -> Vec<Offence> {
    let mut offences = Vec::new();
    let mut offend = |line: usize, what: String| offences.push(Offence { file: file.to_path_buf(), line, what });
    if !text.starts_with("//!") {
        offend(1, "does not open with //! (what it is, who calls it)".into());
    }
    let lines = text.lines().count();
    if lines > MAX_LINES {
        offend(lines, format!("{lines} lines; {MAX_LINES} is the limit"));
    }
    for (number, line) in text.lines().enumerate() {
        if let Some(word) = PROMISES.iter().find(|w| line.contains(**w)) {
            offend(number + 1, format!("{word}: do it, or write an issue"));
        }
    }
    let code = production(text);
    if let Ok(inside) = file.strip_prefix("agent/src") {
        for (line, module) in imports(inside, &code) {
            if let Some(what) = judge(inside, &module) {
                offend(line, what);
            }
        }
    }
    if file.starts_with("agent/mesh/src") && !is_test_file(file) {
        for (number, line) in code.iter().enumerate() {
            if let Some(word) = IMPURE.iter().find(|w| line.contains(**w)) {
                offend(number + 1, format!("the core is pure: {word} belongs to the edges"));
            }
        }
    }
    offences
}

fn is_test_file(file: &Path) -> bool {
    file.file_name().is_some_and(|n| n == "tests.rs") || file.components().any(|c| c.as_os_str() == "tests")
}

/// The lines without comments and without the items that are compiled for tests only, which may reach where production
/// code may not. Lines keep their numbers.
fn production(text: &str) -> Vec<&str> {
    let mut lines = text.lines();
    let mut code = Vec::new();
    while let Some(line) = lines.next() {
        if line.trim() == "#[cfg(test)]" {
            code.push("");
            let indent = indentation(line);
            for skipped in lines.by_ref() {
                code.push("");
                if ends_item(skipped, indent) {
                    break;
                }
            }
        } else {
            code.push(if is_comment(line) { "" } else { line.split(" // ").next().unwrap_or(line) });
        }
    }
    code
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

fn indentation(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Whether the item whose attribute stands at `indent` ends with this line, in the layout that `cargo fmt` gives: what
/// is inside an item stands further right, so its last line is the first at its own indentation that closes something
/// (`}`, `});`, a one-line body) or is a whole by itself (`mod tests;`, a field, a match arm). Where a file has another
/// layout the item seems to end early, and what follows is checked: an offence too many, never one too few.
fn ends_item(line: &str, indent: usize) -> bool {
    if line.trim().is_empty() || indentation(line) > indent || is_comment(line) {
        return false;
    }
    let code = line.trim();
    indentation(line) < indent || code.starts_with('}') || code.ends_with([';', '}', ','])
}

/// The agent's modules that a file names, with the line: `crate::x`, `weir::x` in `main.rs`, `crate::{x, y::z}`.
fn imports(file: &Path, code: &[&str]) -> Vec<(usize, String)> {
    let prefix = if file == Path::new("main.rs") { "weir::" } else { "crate::" };
    let text = code.join("\n");
    let mut found = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let line = text[..at].matches('\n').count() + 1;
        let rest = &text[at + prefix.len()..];
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_heads(group).into_iter().map(|m| (line, m))),
            None => found.push((line, identifier(rest))),
        }
    }
    found.retain(|(_, m)| !m.is_empty());
    found
}

fn identifier(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first names of a braced list: `a, b::{c, d}, e}` gives a, b, e.
fn group_heads(text: &str) -> Vec<String> {
    let mut heads = vec![identifier(text)];
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(identifier(&text[at + 1..])),
            _ => {}
        }
    }
    heads
}

/// What is wrong with `file` (relative to `agent/src`) importing `module`.
fn judge(file: &Path, module: &str) -> Option<String> {
    let own = file.components().next()?.as_os_str().to_str()?.trim_end_matches(".rs");
    // lib.rs declares the modules, and what it exports (macros, types) is everybody's.
    if own == "lib" || own == module || !module.starts_with(|c: char| c.is_ascii_lowercase()) {
        return None;
    }
    let rank = |name: &str| LAYERS.iter().position(|layer| layer.contains(&name));
    match (rank(own), rank(module)) {
        (None, _) => Some(format!("module {own} has no place in the layers of `cargo xtask tidy`")),
        (_, None) => Some(format!("module {module} has no place in the layers of `cargo xtask tidy`")),
        (Some(from), Some(to)) if to <= from => Some(format!("{own} must not import {module}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offences(file: &str, body: &str) -> Vec<String> {
        check(Path::new(file), &format!("//! A file.\n{body}")).into_iter().map(|o| o.to_string()).collect()
    }

    #[test]
    fn imports_run_inwards_only() {
        assert!(offences("agent/src/app/mod.rs", "use crate::proxy::Proxy;\n").is_empty());
        assert!(
            offences("agent/src/proxy/handler.rs", "use crate::proxy::pool;\nuse crate::netns::NetNs;\n").is_empty()
        );
        for (file, import) in [
            ("agent/src/proxy/mod.rs", "use crate::watch::Source;\n"),
            ("agent/src/proxy/mod.rs", "use crate::datapath::Maps;\n"),
            ("agent/src/datapath/apply.rs", "fn f() { crate::proxy::start() }\n"),
            ("agent/src/netns.rs", "use crate::{\n    cgroup::Id,\n    app::{a, b},\n};\n"),
            ("agent/src/app/mod.rs", "use crate::cli;\n"),
        ] {
            assert!(!offences(file, import).is_empty(), "{file}: {import}");
        }
    }

    #[test]
    fn a_group_of_imports_is_read_to_its_end() {
        let found = imports(Path::new("app.rs"), &["use crate::{netns, proxy::{a, b}, datapath};"]);
        let names: Vec<&str> = found.iter().map(|(_, m)| m.as_str()).collect();
        assert_eq!(names, ["netns", "proxy", "datapath"]);
    }

    #[test]
    fn a_module_without_a_place_is_named() {
        let said = offences("agent/src/helpers/mod.rs", "use crate::netns;\n");
        assert!(said.iter().any(|s| s.contains("helpers has no place")), "{said:?}");
    }

    #[test]
    fn the_core_may_not_reach_out_but_its_tests_may() {
        assert_eq!(offences("agent/mesh/src/a.rs", "let t = std::time::Instant::now();\n").len(), 1);
        assert!(offences("agent/mesh/src/a.rs", "// not Instant::now()\n#[cfg(test)]\nuse std::fs;\n").is_empty());
        assert!(offences("agent/mesh/src/a/tests.rs", "use std::fs;\n").is_empty());
    }

    #[test]
    fn only_the_item_below_the_attribute_is_for_tests() {
        let items = [
            "mod tests;",
            "use std::fs;",
            "use std::{\n    env,\n    fs,\n};",
            "fn one() { std::fs::read() }",
            "#[expect(unused, reason = \"a; b\")]\n/// Not the end;\nfn many(\n    a: u8,\n) -> u8\nwhere\n    u8: Copy,\n{\n    \
             std::fs::read();\n}",
            "const PATHS: &[&str] = &[\n    \"std::fs\",\n];",
            "mod tests {\n    use std::fs;\n\n    fn a() {\n        fs::read();\n    }\n}",
            "macro_rules! a {\n    () => { std::fs::read() };\n}",
        ];
        for item in items {
            let alone = format!("#[cfg(test)]\n{item}\n");
            assert!(offences("agent/mesh/src/a.rs", &alone).is_empty(), "{alone}");
            let before = format!("{alone}\nfn f() {{ std::fs::read() }}\n");
            let line = before.lines().count() + 1;
            let said = offences("agent/mesh/src/a.rs", &before);
            assert!(said.len() == 1 && said[0].contains(&format!(":{line}: ")), "{said:?}\n{before}");
        }
    }

    #[test]
    fn a_test_only_field_does_not_hide_the_rest_of_its_struct() {
        let text = "struct A {\n    #[cfg(test)]\n    clock: std::time::SystemTime,\n    file: std::fs::File,\n}\n";
        assert_eq!(offences("agent/mesh/src/a.rs", text).len(), 1);
        let text = "impl A {\n    #[cfg(test)]\n    fn a() {\n        std::fs::read();\n    }\n\n    fn b() {\n        \
                    std::fs::read();\n    }\n}\n";
        assert_eq!(offences("agent/mesh/src/a.rs", text).len(), 1);
    }

    #[test]
    fn imports_after_a_declared_test_module_are_judged() {
        let text = "#[cfg(test)]\nmod tests;\n\nuse crate::watch::Source;\n";
        assert_eq!(offences("agent/src/proxy/mod.rs", text).len(), 1);
    }

    #[test]
    fn a_file_opens_with_its_story_and_keeps_it_short() {
        assert_eq!(check(Path::new("tests/a.rs"), "use std::fs;\n").len(), 1);
        assert_eq!(offences("tests/a.rs", &"\n".repeat(MAX_LINES)).len(), 1);
        assert!(offences("tests/a.rs", &"\n".repeat(MAX_LINES - 1)).is_empty());
    }

    #[test]
    fn promises_are_not_code() {
        assert_eq!(offences("xtask/src/a.rs", &format!("// {}: later\n", PROMISES[0])).len(), 1);
    }
}
