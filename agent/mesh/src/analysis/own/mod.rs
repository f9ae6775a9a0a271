//! What Istio's tool does not look for: settings that are valid, and do not do what they seem to.

use super::findings::Findings;
use super::input::Input;

mod hidden;
mod policies;
mod rules;
mod settings;

/// Looks at every VirtualService, DestinationRule and AuthorizationPolicy.
pub(super) fn analyze(input: &Input<'_>, findings: &mut Findings) {
    for vs in &input.virtual_services {
        rules::analyze(vs, input, findings);
    }
    settings::analyze(input, findings);
    hidden::analyze(input, findings);
    policies::analyze(input, findings);
}
