//! docs/features.md, made from the tables.

use std::fmt::Write as _;

use super::{Feature, KINDS, Kind, Support, fields, of};

const HEAD: &str = "# Features

Every field of the kinds that users write, and whether it is in force. **yes**: the agent does it to real connections and
requests, and the test that is named shows it; **in part**: so with some of its values; **decided**: it is compiled, and
what becomes of a request is decided (the test shows that, and so does `cargo run -p weir-mesh --example simulate`), but
the agent does not do it yet; **no**: it is not looked at. What happens instead is said, and as what a finding tells of
it, where one does.
Fields below one that is not in force are listed with it. All fields, in force or not, are checked by `weir validate`.
`[]` is an item of a list, `*` any key of a map, and `{a,b}` stands for several fields, `{,a}` for one with and without.

Made from `agent/mesh/src/features`, whose tests hold it against the schema, the tests and what the compiler tells.

| kind | fields in force | in part | decided | not |
|---|---|---|---|---|
";

/// The page. Writing to a String cannot fail.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for kind in KINDS {
        let mut counts = [0; 4];
        for feature in fields(kind.group, kind.kind).iter().filter_map(|field| of(kind.features, field)) {
            counts[match feature.support {
                Support::Yes(_) => 0,
                Support::Part(..) => 1,
                Support::Decided(..) => 2,
                Support::No(_) => 3,
            }] += 1;
        }
        let [yes, part, decided, no] = counts;
        let _ = writeln!(page, "| [{}](#{}) | {yes} | {part} | {decided} | {no} |", title(kind), anchor(kind));
    }
    for kind in KINDS {
        section(&mut page, kind);
    }
    page
}

fn title(kind: &Kind) -> String {
    format!("{} ({})", kind.kind, kind.group)
}

/// As GitHub makes it of the heading.
fn anchor(kind: &Kind) -> String {
    let letters = title(kind).to_ascii_lowercase().replace(' ', "-");
    letters.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
}

fn section(page: &mut String, kind: &Kind) {
    let _ = write!(page, "\n## {}\n", title(kind));
    let fields = fields(kind.group, kind.kind);
    if let [Feature { path: "", support: Support::No(instead) }] = kind.features {
        let _ = writeln!(
            page,
            "No field is in force: {instead}. Its fields:\n{}.",
            list(fields.iter().map(|field| &**field))
        );
        return;
    }
    page.push_str("\n| field of `spec` | | what is done, or what happens instead | shown by |\n|---|---|---|---|\n");
    let said_by =
        |field: &str, feature: &Feature| of(kind.features, field).is_some_and(|found| std::ptr::eq(found, feature));
    for feature in kind.features {
        let paths = feature.paths();
        let (word, instead, test) = match feature.support {
            Support::Yes(test) => ("yes", "", test),
            Support::Part(test, others) => ("in part", others, test),
            Support::Decided(test, instead) => ("decided", instead, test),
            Support::No(instead) => ("no", instead, ""),
        };
        let below = fields.iter().filter_map(|field| {
            let rest =
                paths.iter().find_map(|path| field.strip_prefix(path.as_str()).filter(|rest| !rest.is_empty()))?;
            said_by(field, feature).then_some(rest)
        });
        let below = list(below);
        let below = if below.is_empty() { below } else { format!(" with {below}") };
        let test = if test.is_empty() { String::new() } else { format!("`{test}`") };
        let _ = writeln!(page, "| `{}`{below} | {word} | {instead} | {test} |", feature.path);
    }
}

/// Each once, in code.
fn list<'t>(items: impl Iterator<Item = &'t str>) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for item in items {
        let item = item.strip_prefix('.').unwrap_or(item);
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen.iter().map(|item| format!("`{item}`")).collect::<Vec<_>>().join(", ")
}
