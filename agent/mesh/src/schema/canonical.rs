//! Names of fields as an API server writes them. Called for objects whose author wrote some of them in snake_case.

use super::{Message, Type, to_camel_case};
use crate::crd::{Node, Value};

/// The same object with `camelCase` names of fields. Keys of maps, which are the user's own, stay as they are.
pub fn canonical(node: &Node, message: &'static Message) -> Node {
    let mut node = node.clone();
    rename(&mut node, &Type::Message(message));
    node
}

fn rename(node: &mut Node, ty: &Type) {
    match (ty, &mut node.value) {
        (Type::Message(message), Value::Map(entries)) => {
            for entry in entries {
                if message.field(&entry.key).is_none() {
                    let camel = to_camel_case(&entry.key);
                    if message.field(&camel).is_some() {
                        entry.key = camel.into_owned().into();
                    }
                }
                if let Some(field) = message.field(&entry.key) {
                    rename(&mut entry.node, &field.ty);
                }
            }
        }
        (Type::List(of, _), Value::List(items)) => items.iter_mut().for_each(|item| rename(item, of)),
        (Type::Map(of, _), Value::Map(entries)) => entries.iter_mut().for_each(|entry| rename(&mut entry.node, of)),
        _ => {}
    }
}
