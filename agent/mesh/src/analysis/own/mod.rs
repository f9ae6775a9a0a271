//! What Istio's tool does not look for: settings that are valid, and do not do what they seem to.

use super::findings::Findings;
use super::input::Input;

mod hidden;
mod rules;
mod settings;

/// Looks at every VirtualService and DestinationRule.
pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    for vs in &input.virtual_services {
        rules::analyze(vs, input, findings);
    }
    settings::analyze(input, findings);
    hidden::analyze(input, findings);
}
