//! Answers questions about single requests with what is in force: program, plan, objects and the pods that are steered.
//! Asked through the admin endpoint; the thread that carries out changes answers, as it owns all of these.

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;
use weir_mesh::explain::{Explainer, Explanation, Mesh, Question};

use super::apply::Applier;
use crate::admin::Unexplained;

/// A question, and where its answer goes.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) question: Question,
    pub(super) answer: oneshot::Sender<Result<Explanation, Unexplained>>,
}

impl Applier {
    /// Answers, unless nobody waits any more.
    pub(super) fn answer(&self, asked: Asked) {
        let Asked { question, answer } = asked;
        if answer.is_closed() {
            return;
        }
        // A fault of it costs an answer, never the mesh.
        let told = catch_unwind(AssertUnwindSafe(|| self.explain(&question)));
        let told =
            told.unwrap_or_else(|_| Err(Unexplained::Unavailable("weir failed on this, see its log".to_owned())));
        // Whoever asked may have gone by now.
        drop(answer.send(told));
    }

    fn explain(&self, question: &Question) -> Result<Explanation, Unexplained> {
        if !self.begun {
            return Err(Unexplained::Unavailable("no configuration in force".to_owned()));
        }
        let snapshot = self.source.snapshot();
        let program = self.parts.program.load();
        let mut mesh = Mesh::new(&snapshot, &self.options, &program, &self.plan, &self.options.views, &self.findings);
        mesh.enrolled = Some(self.pods.iter().map(|(name, _)| name.to_string()).collect());
        Explainer::new(&mesh).explain(question).map_err(Unexplained::BadQuestion)
    }
}
