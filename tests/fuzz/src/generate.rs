//! Objects made from the schema's tables: mostly of the right types, with a value that does not fit here and there. Used
//! by the targets' corpora, so that every field of every kind is met without an example of it.

use weir_mesh::crd::{Node, Value};
use weir_mesh::schema::{Message, Type, kinds};

use crate::random::Random;
use crate::tree::{self, Words, entry, node, scalar};

/// Fields further down than this are left empty.
const MAX_DEPTH: usize = 9;

/// One object of any kind.
pub fn object(words: &Words, random: &mut Random) -> String {
    let all: Vec<_> = kinds().collect();
    let (group, kind, versions, table) = all[random.below(all.len())];
    let version = random.of(versions).copied().unwrap_or_default();
    let mut made = message(table, words, random, 0);
    if let Value::Map(entries) = &mut made.value {
        entries.retain(|entry| !matches!(&*entry.key, "apiVersion" | "kind" | "metadata" | "status"));
        let text = |text: &str| node(Value::Text(text.into()));
        let metadata = vec![entry("name", text("a")), entry("namespace", text("shop"))];
        entries.insert(0, entry("metadata", node(Value::Map(metadata))));
        entries.insert(0, entry("kind", text(kind)));
        entries.insert(0, entry("apiVersion", text(&format!("{group}/{version}"))));
    }
    tree::print(&[made], random)
}

fn message(table: &'static Message, words: &Words, random: &mut Random, depth: usize) -> Node {
    // Few fields of large messages, so that some objects are accepted.
    let wanted = 1 + random.below(4);
    let mut entries = Vec::new();
    for field in table.fields {
        if field.required && !random.once_in(40) || random.below(table.fields.len()) < wanted || field.name == "spec" {
            entries.push(entry(field.name, value(&field.ty, words, random, depth + 1)));
        }
    }
    for group in table.one_of {
        let kept = random.of(group).copied();
        if !random.once_in(20) {
            entries.retain(|entry| !group.contains(&&*entry.key) || Some(&*entry.key) == kept);
        }
    }
    node(Value::Map(entries))
}

fn value(ty: &Type, words: &Words, random: &mut Random, depth: usize) -> Node {
    if random.once_in(60) {
        return scalar(words.scalar(random), random);
    }
    let text = |text: &str| node(Value::Text(text.into()));
    match ty {
        Type::Bool => node(Value::Bool(random.once_in(2))),
        Type::Int(from, to) => {
            let edges = [*from, *to, from.saturating_sub(1), to.saturating_add(1), 80, 1, 0, 200];
            node(Value::Int(edges[random.below(edges.len())]))
        }
        Type::IntEnum(of) => node(Value::Int(random.of(of).copied().unwrap_or_default())),
        Type::Float(..) => node(Value::Float([0.0, 0.5, 100.0, 1e300, -1.0][random.below(5)])),
        Type::Duration(_) => text(["10s", "1ms", "0s", "1h2m3.5s", "0.0001s"][random.below(5)]),
        Type::PlainDuration => text(["10s", "500ms", "1h30m", "0s"][random.below(4)]),
        Type::Enum(of) => text(random.of(of).copied().unwrap_or_default()),
        Type::List(of, size) if depth < MAX_DEPTH => {
            let wanted = size.min.max(random.below(3)).min(size.max);
            node(Value::List((0..wanted).map(|_| value(of, words, random, depth + 1)).collect()))
        }
        Type::Map(of, _) if depth < MAX_DEPTH => {
            let mut entries: Vec<weir_mesh::crd::Entry> = Vec::new();
            for _ in 0..random.below(3) {
                let key = ["app", "x-user", "a", "80", "version", "@request.auth.claims.a"][random.below(6)];
                if entries.iter().all(|entry| &*entry.key != key) {
                    entries.push(entry(key, value(of, words, random, depth + 1)));
                }
            }
            node(Value::Map(entries))
        }
        Type::Message(table) if depth < MAX_DEPTH => message(table, words, random, depth),
        Type::List(..) => node(Value::List(Vec::new())),
        Type::Map(..) | Type::Message(_) => node(Value::Map(Vec::new())),
        Type::Text(_) | Type::Matching(_) | Type::Any => text(words.scalar(random)),
    }
}
