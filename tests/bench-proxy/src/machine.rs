//! On what is measured. Used by `report`.

use std::fs;
use std::process::Command;

use serde::Serialize;

use crate::peers;

/// What a report says of the machine.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The model of its CPUs, and how many.
    pub cpu: String,
    /// The kernel's release.
    pub kernel: String,
    /// Name and version of everything that takes part.
    pub versions: Vec<(String, String)>,
}

impl Machine {
    /// This one. What does not say its version is left out.
    pub fn this(envoy: &std::path::Path) -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model =
            info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
        let cpus = info.lines().filter(|line| line.starts_with("processor")).count();
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        // What a distribution or a cloud calls its build tells nobody anything.
        let kernel = release.trim().split('-').next().unwrap_or_default().to_owned();
        let mut versions = vec![("weir".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
        let said = |command: &mut Command| {
            let output = command.output().ok()?;
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text)
                .lines()
                .find(|line| !line.trim().is_empty())
                .map(|line| line.trim().to_owned())
        };
        // `…/envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`
        if let Some(line) = said(Command::new(envoy).arg("--version")) {
            let parts: Vec<&str> = line.split('/').collect();
            let version =
                parts.iter().find(|part| part.starts_with(|c: char| c.is_ascii_digit()) && part.contains('.'));
            versions.push(("Envoy".to_owned(), version.map_or(line.clone(), |version| (*version).to_owned())));
        }
        if let Some(line) = peers::installed("haproxy").ok().and_then(|path| said(Command::new(path).arg("-v"))) {
            versions.push(("HAProxy".to_owned(), line.split(' ').nth(2).unwrap_or(&line).to_owned()));
        }
        if let Some(line) = peers::installed("nginx").ok().and_then(|path| said(Command::new(path).arg("-v"))) {
            versions.push(("nginx".to_owned(), line.rsplit('/').next().unwrap_or(&line).to_owned()));
        }
        Self { cpu: format!("{cpus} × {}", model.unwrap_or("unknown")), kernel, versions }
    }
}
