//! An object of an API server, read from its JSON into a [`Node`] that holds what [`super::decode`] looks at and no
//! more: what is left out is skipped in the text, never stored. Called by the API server source for every object.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::node::{Entry, Mark, Node, Value};

/// Which part of a value is kept.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
    /// The whole of it.
    All,
    /// Of a map these fields, of a list these fields of each item; another value as it is, so that decoding can say
    /// what is wrong with it.
    Fields(&'static [(&'static str, Keep)]),
    /// Of a map the annotations that some part of weir reads.
    Annotations,
}

/// Annotations are read from these domains and from those below them; tools keep whole manifests in others.
const ANNOTATION_DOMAINS: [&str; 2] = ["weir.mesh", "istio.io"];
/// What the kubelet writes on the API server's copy of a static pod: the UID by which the node knows that pod.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";

impl Keep {
    fn field(self, key: &str) -> Option<Self> {
        match self {
            Self::All => Some(Self::All),
            Self::Fields(fields) => fields.iter().find(|(name, _)| *name == key).map(|(_, keep)| *keep),
            Self::Annotations => is_read(key).then_some(Self::All),
        }
    }
}

fn is_read(annotation: &str) -> bool {
    if annotation == MIRROR {
        return true;
    }
    let domain = annotation.split('/').next().unwrap_or_default();
    ANNOTATION_DOMAINS
        .iter()
        .any(|known| domain.strip_suffix(known).is_some_and(|before| before.is_empty() || before.ends_with('.')))
}

/// Reads what `keep` names of one JSON value.
///
/// # Errors
/// When the text is no JSON. A value of an unexpected type is none.
pub fn parse_json(text: &str, keep: Keep) -> serde_json::Result<Node> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = keep.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

fn node(value: Value) -> Node {
    Node { mark: Mark::default(), value }
}

impl<'de> DeserializeSeed<'de> for Keep {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Keep {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(node(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(node(Value::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(node(Value::Int(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        // Beyond i64 no field of ours has a meaning; as a float it is still a number in messages.
        Ok(node(i64::try_from(value).map_or(Value::Float(value as f64), Value::Int)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(node(Value::Float(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(node(Value::Text(value.into())))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(node(Value::Text(value.into())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(node(Value::List(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<std::borrow::Cow<'_, str>>()? {
            match self.field(&key) {
                Some(keep) => {
                    let node = map.next_value_seed(keep)?;
                    entries.push(Entry { key: key.into(), mark: Mark::default(), node });
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(node(Value::Map(entries)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: Keep = Keep::Fields(&[("name", Keep::All), ("annotations", Keep::Annotations)]);
    const OBJECT: Keep =
        Keep::Fields(&[("metadata", META), ("ports", Keep::Fields(&[("port", Keep::All)])), ("spec", Keep::All)]);

    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Map(entries) => {
                let entries: Vec<String> =
                    entries.iter().map(|entry| format!("{}:{}", entry.key, shown(&entry.node))).collect();
                format!("{{{}}}", entries.join(","))
            }
            Value::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(",")),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn only_what_is_read_is_kept() {
        let text = r#"{"kind":"X","metadata":{"name":"a","managedFields":[{"f":{"x":{}}}],"annotations":{
            "kubectl.kubernetes.io/last-applied-configuration":"{}","weir.mesh/x":"1","sidecar.istio.io/y":"2",
            "notistio.io/z":"3","kubernetes.io/config.mirror":"4","kubernetes.io/config.seen":"5"}},"ports":[{"port":1,"nodePort":2},{"port":3}],"spec":{"a":[null,true,1.5]}}"#;
        let node = parse_json(text, OBJECT).unwrap();
        assert_eq!(
            shown(&node),
            "{metadata:{name:Text(\"a\"),annotations:{weir.mesh/x:Text(\"1\"),sidecar.istio.io/y:Text(\"2\"),\
             kubernetes.io/config.mirror:Text(\"4\")}},\
             ports:[{port:Int(1)},{port:Int(3)}],spec:{a:[Null,Bool(true),Float(1.5)]}}"
        );
    }

    #[test]
    fn a_value_of_another_type_stays_for_decoding_to_name_it() {
        assert_eq!(
            shown(&parse_json(r#"{"metadata":7,"ports":"x"}"#, OBJECT).unwrap()),
            r#"{metadata:Int(7),ports:Text("x")}"#
        );
        assert!(parse_json(r#"{"metadata":"#, OBJECT).is_err());
        assert!(parse_json("{} {}", OBJECT).is_err());
    }
}
