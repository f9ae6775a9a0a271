//! Namespaces: whether their pods take part, and labels that ask for several ways of it.

use super::findings::Findings;
use super::input::{IGNORED_NAMESPACES, Input};
use crate::finding::code;

/// weir's own label.
const MODE: &str = "weir.mesh/mode";
const INJECTION: &str = "istio-injection";
const REVISION: &str = "istio.io/rev";
const DATA_PLANE: &str = "istio.io/dataplane-mode";
/// Where control planes run: nobody expects their pods to take part.
const CONTROL: [&str; 2] = ["istio-system", "weir-system"];

pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    for namespace in input.namespaces() {
        let name = &**namespace.name();
        if CONTROL.contains(&name) || IGNORED_NAMESPACES.contains(&name) {
            continue;
        }
        let label = |key: &str| namespace.meta.label(key);
        let mark = super::tree::Tree::mark_of(&namespace.node, "metadata.labels");
        let injection = label(INJECTION);
        let mut asked: Vec<String> = injection.map(|value| format!("{INJECTION}={value}")).into_iter().collect();
        if injection.is_none_or(|value| value == "enabled") {
            let others = [REVISION, DATA_PLANE].into_iter();
            asked.extend(others.filter_map(|key| Some(format!("{key}={}", label(key)?))));
        }
        if asked.len() > 1 {
            findings.add(
                code::OPT_IN_LABELS,
                namespace,
                mark,
                format!("its labels {} ask for several ways of taking part in a mesh", asked.join(", ")),
                "keep one of them, or write weir.mesh/mode, which wins",
            );
        }
        let decided = label(MODE).is_some() || injection.is_some_and(|value| !value.is_empty());
        if !decided && label(REVISION).is_none() && label(DATA_PLANE) != Some("ambient") {
            findings.add(
                code::NOT_OPTED_IN,
                namespace,
                super::tree::Tree::mark_of(&namespace.node, "metadata.name"),
                "its pods do not take part in the mesh, unless they say so themselves".to_owned(),
                &format!(
                    "kubectl label namespace {name} weir.mesh/mode=enabled (or =disabled, to say that it is meant so)"
                ),
            );
        }
    }
}
