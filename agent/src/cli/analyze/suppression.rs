//! `--suppress CODE=KIND NAME.NAMESPACE`: findings that are not told, in the form that `istioctl` users know.

use std::str::FromStr;

use weir_mesh::analysis::catalog;
use weir_mesh::finding::Finding;

/// One such argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Suppression {
    code: String,
    /// `VirtualService *.shop`
    pattern: String,
}

impl FromStr for Suppression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((code, pattern)) if !code.is_empty() && !pattern.is_empty() => {
                Ok(Self { code: code.to_ascii_uppercase(), pattern: pattern.to_owned() })
            }
            _ => Err("it must be CODE=KIND NAME, such as IST0102=Namespace web".to_owned()),
        }
    }
}

impl Suppression {
    /// Objects are known as `Kind name.namespace`, as `istioctl` has it, and as `Kind namespace/name`, as they are printed.
    pub(super) fn takes(&self, finding: &Finding) -> bool {
        let Some(object) =
            finding.object.as_ref().filter(|_| self.code == "*" || catalog::means(&self.code, finding.code))
        else {
            return false;
        };
        let dotted = if object.namespace.is_empty() {
            object.to_string()
        } else {
            format!("{} {}.{}", object.kind, object.name, object.namespace)
        };
        let bare = format!("{} {}", object.kind, object.name);
        [dotted, object.to_string(), bare].iter().any(|name| fits(&self.pattern, name))
    }
}

/// `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir_mesh::finding::{Severity, code};
    use weir_mesh::source::ObjectRef;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "ab", true),
            ("*b*d", "abcd", true),
            ("*b*d", "abc", false),
            ("a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn objects_are_named_in_every_way_that_people_know() {
        let finding = Finding {
            severity: Severity::Error,
            code: code::REFERENCE,
            object: Some(ObjectRef {
                kind: "VirtualService".into(),
                group: "networking.istio.io".into(),
                namespace: "shop".into(),
                name: "web".into(),
            }),
            at: None,
            message: String::new(),
            help: None,
        };
        let takes = |text: &str| text.parse::<Suppression>().expect("well formed").takes(&finding);
        assert!(takes("IST0101=VirtualService web.shop") && takes("IST0101=VirtualService shop/web"));
        assert!(takes("ist0101=VirtualService *.shop") && takes("*=VirtualService web"));
        assert!(!takes("IST0102=VirtualService web.shop") && !takes("IST0101=Gateway web.shop"));
        assert!(!takes("IST0103=VirtualService web"));
        let not_enrolled = Finding { code: code::NOT_ENROLLED, ..finding.clone() };
        let as_in_istio: Suppression = "IST0103=VirtualService web.shop".parse().expect("well formed");
        assert!(as_in_istio.takes(&not_enrolled), "weir has another code for it");
        assert!("IST0101".parse::<Suppression>().is_err());
    }
}
