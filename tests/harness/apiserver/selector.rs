//! Label and field selectors: parsed from a query, matched against stored objects.

use super::object::Object;
use super::resources::Resource;
use super::status::Status;

/// What a request selects. Empty selects everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldIs>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

#[derive(Clone, Debug)]
struct FieldIs {
    what: Field,
    value: String,
    equal: bool,
}

#[derive(Clone, Copy, Debug)]
enum Field {
    Name,
    Namespace,
    /// Position among the resource's selectable fields.
    Other(usize),
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 when one cannot be parsed or names a field that the resource cannot be selected by.
    pub(super) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, Status> {
        let labels = split(labels).map(requirement).collect::<Result<_, _>>()?;
        let fields = split(fields).map(|term| field(resource, term)).collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Object) -> bool {
        self.labels.iter().all(|r| r.matches(object)) && self.fields.iter().all(|f| f.matches(object))
    }

    /// The one name that can match, which authorization by `resourceNames` looks at.
    pub(super) fn name(&self) -> Option<&str> {
        self.fields.iter().find(|f| matches!(f.what, Field::Name) && f.equal).map(|f| f.value.as_str())
    }
}

impl Requirement {
    fn matches(&self, object: &Object) -> bool {
        let label = |key: &str| object.labels.iter().find(|(k, _)| &**k == key).map(|(_, v)| &**v);
        match self {
            Self::In(key, values) => label(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Self::NotIn(key, values) => label(key).is_none_or(|v| values.iter().all(|w| w != v)),
            Self::Exists(key) => label(key).is_some(),
            Self::Missing(key) => label(key).is_none(),
        }
    }
}

impl FieldIs {
    fn matches(&self, object: &Object) -> bool {
        let value = match self.what {
            Field::Name => &*object.key.1,
            Field::Namespace => &*object.key.0,
            Field::Other(at) => &*object.fields[at],
        };
        (value == self.value) == self.equal
    }
}

/// Terms between commas that are not inside parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_u32;
    text.split(move |c| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
}

fn requirement(term: &str) -> Result<Requirement, Status> {
    let bad = || Status::bad_request(&format!("unable to parse requirement: {term:?}"));
    let key = |text: &str| {
        let text = text.trim();
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        if text.is_empty() || !text.chars().all(fits) { Err(bad()) } else { Ok(text.to_owned()) }
    };
    if let Some(rest) = term.strip_suffix(')') {
        let (head, values) = rest.split_once('(').ok_or_else(bad)?;
        let values = values.split(',').map(|v| v.trim().to_owned()).collect();
        let (name, operator) = head.trim().rsplit_once(char::is_whitespace).ok_or_else(bad)?;
        return match operator {
            "in" => Ok(Requirement::In(key(name)?, values)),
            "notin" => Ok(Requirement::NotIn(key(name)?, values)),
            _ => Err(bad()),
        };
    }
    if let Some((name, value)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(key(name)?, vec![value.trim().to_owned()]));
    }
    if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Requirement::In(key(name)?, vec![value.trim().to_owned()]));
    }
    match term.strip_prefix('!') {
        Some(name) => Ok(Requirement::Missing(key(name)?)),
        None => Ok(Requirement::Exists(key(term)?)),
    }
}

fn field(resource: &Resource, term: &str) -> Result<FieldIs, Status> {
    let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (path, value, true)
    } else {
        return Err(Status::bad_request(&format!("invalid field selector: {term:?}")));
    };
    let what = match path {
        "metadata.name" => Field::Name,
        "metadata.namespace" if resource.namespaced => Field::Namespace,
        other => match resource.fields.iter().position(|f| *f == other) {
            Some(at) => Field::Other(at),
            None => return Err(Status::bad_request(&format!("field label not supported: {other}"))),
        },
    };
    Ok(FieldIs { what, value: value.to_owned(), equal })
}

#[cfg(test)]
mod tests {
    use super::super::resources::built_in;
    use super::*;

    fn object(labels: &[(&str, &str)], node: &str) -> Object {
        let pods = built_in().into_iter().find(|r| &*r.id == "pods").expect("pods are built in");
        let labels: serde_json::Map<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).into())).collect();
        let value = serde_json::json!({"metadata": {"labels": labels}, "spec": {"nodeName": node}});
        let value = value.as_object().expect("an object").clone();
        Object::new(&pods, ("shop".into(), "cart".into()), 7, value)
    }

    fn selects(labels: &str, fields: &str) -> Result<bool, Status> {
        let pods = built_in().into_iter().find(|r| &*r.id == "pods").expect("pods are built in");
        let object = object(&[("app", "cart"), ("example.com/tier", "back")], "n1");
        Selector::parse(&pods, labels, fields).map(|s| s.matches(&object))
    }

    #[test]
    fn every_operator_of_a_label_selector_is_understood() {
        for yes in [
            "",
            "app",
            "!other",
            "app=cart",
            "app==cart",
            "app!=web",
            "other!=x",
            "app in (web, cart)",
            "other notin (a,b)",
            "app=cart,example.com/tier in (back,front),!z",
        ] {
            assert_eq!(selects(yes, ""), Ok(true), "{yes}");
        }
        for no in ["other", "!app", "app=web", "app!=cart", "app in (web)", "app notin (cart)", "app=cart,z"] {
            assert_eq!(selects(no, ""), Ok(false), "{no}");
        }
        for bad in ["app in", "a b", "app near (x)", "(x)"] {
            assert!(selects(bad, "").is_err(), "{bad}");
        }
    }

    #[test]
    fn fields_are_those_of_the_resource() {
        for (fields, expected) in [
            ("metadata.name=cart", true),
            ("metadata.namespace!=shop", false),
            ("spec.nodeName=n1,status.phase!=Running", true),
            ("spec.nodeName==n2", false),
        ] {
            assert_eq!(selects("", fields), Ok(expected), "{fields}");
        }
        assert!(selects("", "spec.image=x").is_err());
    }
}
