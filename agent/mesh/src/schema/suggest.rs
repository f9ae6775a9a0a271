//! What was probably meant: the nearest name, or the place where a name is known. Called by the check for fields that
//! do not exist, and for a line of a text that is no YAML.

use std::collections::VecDeque;

use super::{Message, Type};

/// Names further down than this below a message are not what somebody meant there.
const MAX_DEPTH: usize = 6;

/// The one of `names` that `written` is most likely a slip of, if it is near enough.
pub fn nearest<'n>(written: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let lower = written.to_ascii_lowercase();
    // A third of the letters may be wrong, three at most: more is another word.
    let most = (lower.chars().count() / 3).clamp(1, 3);
    names
        .into_iter()
        .map(|name| (distance(&lower, &name.to_ascii_lowercase()), name))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Letters to put in, to leave out, to change, or to swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 3 {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

/// The nearest place below `message` that has a field of this name, as a path to it: `servers[0].hosts`.
pub fn place_of(message: &'static Message, name: &str) -> Option<String> {
    let mut queue = VecDeque::from([(message, String::new(), 0)]);
    while let Some((message, path, depth)) = queue.pop_front() {
        if depth > 0 && message.field(name).is_some() {
            return Some(format!("{path}.{name}"));
        }
        if depth == MAX_DEPTH {
            continue;
        }
        for field in message.fields {
            let mut ty = &field.ty;
            let dot = if path.is_empty() { "" } else { "." };
            let mut below = format!("{path}{dot}{}", field.name);
            loop {
                match ty {
                    Type::List(of, _) => {
                        below.push_str("[0]");
                        ty = of;
                    }
                    Type::Message(found) => {
                        queue.push_back((found, below, depth + 1));
                        break;
                    }
                    // Keys of a map are the user's own: no path can name them.
                    _ => break,
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::message_of;

    #[test]
    fn the_nearest_name_is_one_slip_away() {
        let names = ["hosts", "gateways", "exportTo", "http"];
        assert_eq!(nearest("host", names), Some("hosts"));
        assert_eq!(nearest("gatewasy", names), Some("gateways"));
        assert_eq!(nearest("HTTP", names), Some("http"));
        assert_eq!(nearest("export_to", names), Some("exportTo"));
        assert_eq!(nearest("trafficPolicy", names), None);
        assert_eq!(nearest("", names), None);
    }

    #[test]
    fn a_known_name_is_found_where_it_belongs() {
        let spec = |kind| match message_of("networking.istio.io/v1", kind).unwrap().field("spec").unwrap().ty {
            Type::Message(spec) => spec,
            _ => unreachable!("a spec is a message"),
        };
        assert_eq!(place_of(spec("Gateway"), "hosts").as_deref(), Some("servers[0].hosts"));
        assert_eq!(
            place_of(spec("DestinationRule"), "outlierDetection").as_deref(),
            Some("trafficPolicy.outlierDetection")
        );
        assert_eq!(place_of(spec("VirtualService"), "perTryTimeout").as_deref(), Some("http[0].retries.perTryTimeout"));
        assert_eq!(place_of(spec("VirtualService"), "nowhere"), None);
    }
}
