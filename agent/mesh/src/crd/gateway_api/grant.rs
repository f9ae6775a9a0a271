//! ReferenceGrant: a namespace lets objects of another refer to its own.

use super::{Arc, Fault, Fields, Metadata, group, text};

/// A ReferenceGrant.
#[derive(Clone, Debug)]
pub struct ReferenceGrant {
    /// Its namespace is the one whose objects may be referred to.
    pub meta: Metadata,
    /// `spec.from`: by whom.
    pub from: Box<[GrantFrom]>,
    /// `spec.to`: to what.
    pub to: Box<[GrantTo]>,
}

/// Who may refer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantFrom {
    /// `group`
    pub group: Arc<str>,
    /// `kind`
    pub kind: Arc<str>,
    /// `namespace`
    pub namespace: Arc<str>,
}

/// What may be referred to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantTo {
    /// `group`
    pub group: Arc<str>,
    /// `kind`
    pub kind: Arc<str>,
    /// `name`; empty = every object of the kind.
    pub name: Arc<str>,
}

impl ReferenceGrant {
    pub(in crate::crd) fn decode(meta: Metadata, root: &mut Fields<'_>) -> Result<Self, Fault> {
        let mut spec = root.required_map("spec")?;
        let (mut from, mut to) = (Vec::new(), Vec::new());
        for mut one in spec.maps("from")? {
            from.push(GrantFrom {
                group: group(&mut one, "")?,
                kind: one.required_text("kind")?.into(),
                namespace: one.required_text("namespace")?.into(),
            });
        }
        for mut one in spec.maps("to")? {
            to.push(GrantTo {
                group: group(&mut one, "")?,
                kind: one.required_text("kind")?.into(),
                name: text(&mut one, "name")?,
            });
        }
        Ok(Self { meta, from: from.into(), to: to.into() })
    }

    /// Whether it lets an object of `from_kind` in `from_namespace` refer to the object of this kind and name in its own
    /// namespace.
    pub fn allows(
        &self,
        (group, kind, namespace): (&str, &str, &str),
        (to_group, to_kind, name): (&str, &str, &str),
    ) -> bool {
        self.from.iter().any(|from| *from.group == *group && *from.kind == *kind && *from.namespace == *namespace)
            && self
                .to
                .iter()
                .any(|to| *to.group == *to_group && *to.kind == *to_kind && (to.name.is_empty() || *to.name == *name))
    }
}
