//! What rules ask of TLS and the node cannot do, as findings; and files that are replaced, or that nobody needs any
//! more, while the agent runs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_mesh::finding::{Finding, Severity, code};
use weir_mesh::program::Origin;

use super::Applier;

/// How often files are looked at. Certificates are replaced long before they expire, and a look costs microseconds.
const LOOK: Duration = Duration::from_secs(2);

impl Applier {
    /// Looks at the program that was published last; true when other files are refused than before.
    pub(super) fn look_at_refused(&mut self) -> bool {
        let refused = self.tls_findings();
        let differ = refused != self.refused;
        self.refused = refused;
        differ
    }

    fn tls_findings(&self) -> Vec<Finding> {
        let problems = self.parts.program.tls_problems().into_iter();
        let finding = |(origin, problem): (Arc<Origin>, String)| Finding {
            severity: Severity::Error,
            code: code::UNREADABLE,
            object: Some(origin.object.clone()),
            at: origin.at.clone(),
            message: format!("`tls` of {}: {problem}", origin.level.as_str()),
            help: None,
        };
        problems.map(finding).collect()
    }

    /// Takes over files that were replaced, and tells of those that cannot be used.
    pub(super) fn look_at_files(&mut self, now: Instant) {
        if now.duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        if self.unsure_of_files.take().is_some() && !self.refused.is_empty() {
            self.recompile(now);
        }
        if !self.parts.program.refresh_tls() {
            return;
        }
        tracing::info!("files for TLS have changed and were read anew");
        let mut findings = self.source.file_findings();
        findings.extend(self.source.assemble().1);
        self.look_at_refused();
        findings.extend_from_slice(&self.refused);
        let compiled_from = findings.len();
        findings.extend_from_slice(&self.findings[self.compiled_from..]);
        self.compiled_from = compiled_from;
        self.find(findings);
    }
}
