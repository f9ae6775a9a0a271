//! A few changes in the shortest way: what they come to is put in force by itself, without compiling everything. Called by
//! [`super::Applier::run`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use weir_mesh::compile::{CompileOptions, Delta, InForce};
use weir_mesh::store::{Change, Changes};

use super::Applier;

/// Problems of former changes that are shown beside those of the last one: more is for nobody to read.
const MAX_KEPT_PROBLEMS: usize = 100;

impl Applier {
    /// Carries out changes, in the shortest way that is sure to come to the same.
    pub(super) fn carry_out(&mut self, changes: Changes, started: Instant) {
        match changes {
            Changes::Few(changes) => {
                if let Some(delta) = self.update(&changes) {
                    let rules = changes.iter().any(|change| *change.object.kind == *"VirtualService");
                    if rules && !self.refused.is_empty() {
                        self.unsure_of_files.get_or_insert(started);
                    }
                    self.put(delta, started);
                    return;
                }
            }
            Changes::Many => {}
        }
        self.recompile(started);
    }

    /// What a few changes come to. `None` = that takes a compilation.
    fn update(&mut self, changes: &[Change]) -> Option<Delta> {
        // What is not in the maps is tried again with the whole plan.
        if self.unplaced || self.uncompiled || !self.reign.is_in_charge().unwrap_or(false) {
            return None;
        }
        let program = self.parts.program.load();
        let options = CompileOptions { generation: self.options.generation + 1, ..self.options.clone() };
        let in_force = InForce { program: &program, plan: &self.plan, findings: &self.findings[self.compiled_from..] };
        // A fault costs the short way, and no more.
        catch_unwind(AssertUnwindSafe(|| self.compiler.update(&self.source.snapshot(), changes, in_force, &options)))
            .ok()
            .flatten()
    }

    /// Puts in force what a few changes come to.
    fn put(&mut self, delta: Delta, started: Instant) {
        let Delta { program, services, pods, findings } = delta;
        self.options.generation = program.generation;
        let published = self.parts.program.store(Arc::new(program));
        // Rules may lead to a subset whose files nobody has needed before.
        let files_differ = published.originates && self.look_at_refused();
        for (key, service) in &services {
            self.plan.services.insert(*key, Arc::clone(service));
        }
        let pods_changed = !pods.is_empty();
        for (name, pod) in pods {
            match pod {
                Some(pod) => drop(self.plan.pods.insert(name, pod)),
                None => drop(self.plan.pods.remove(&name)),
            }
        }
        let now = Instant::now();
        let before = std::mem::take(&mut self.kernel_problems);
        let done = self.datapath().change(&services, now);
        self.note(done, now);
        // What was wrong elsewhere still is; what is said again is said once.
        for (place, problem) in before.into_iter().enumerate() {
            if !self.kernel_problems.contains(&problem) && place < MAX_KEPT_PROBLEMS {
                self.kernel_problems.push(problem);
            }
        }
        self.applied_in = started.elapsed();
        {
            let mut shown = self.parts.shared.in_force();
            shown.generation = self.options.generation;
            shown.applied_in = self.applied_in;
            shown.services.extend(services);
        }
        self.shown.0 = self.options.generation;
        if findings.is_some() || files_differ {
            let compiled = findings.unwrap_or_else(|| self.findings[self.compiled_from..].to_vec());
            let mut findings = self.source.file_findings();
            findings.extend(self.source.assemble().1);
            findings.extend_from_slice(&self.refused);
            self.compiled_from = findings.len();
            findings.extend(compiled);
            self.find(findings);
        }
        if pods_changed || self.unplaced {
            self.enrol();
        }
        tracing::debug!(generation = self.options.generation, us = self.applied_in.as_micros() as u64, "updated");
    }
}
