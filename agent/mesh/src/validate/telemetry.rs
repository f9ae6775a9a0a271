//! Telemetry: providers, sampling, tags, overrides of metrics and filters of the access log.

use super::at::{At, Report};
use super::common;

pub(super) fn rules(report: &mut Report<'_>, spec: &At<'_>) {
    common::selector_or_targets(report, spec);
    let tracing = spec.items("tracing");
    if tracing.len() > 1 {
        report.warn(&tracing[1], "only the first one is looked at");
    }
    for item in &tracing {
        providers(report, item);
        if let Some(second) = item.items("providers").get(1) {
            report.warn(second, "only the first one is looked at");
        }
        for (name, tag) in item.entries("customTags") {
            custom_tag(report, name, &tag);
        }
    }
    for item in spec.items("metrics") {
        providers(report, &item);
        for change in item.items("overrides") {
            for (name, tag) in change.entries("tagOverrides") {
                tag_override(report, name, &tag);
            }
        }
    }
    for item in spec.items("accessLogging") {
        providers(report, &item);
        if let Some(expression) = item.get("filter").and_then(|filter| filter.get("expression")) {
            balanced(report, &expression);
        }
    }
}

fn providers(report: &mut Report<'_>, item: &At<'_>) {
    for provider in item.items("providers") {
        if provider.has("name") && provider.text("name").is_empty() {
            report.field(&provider, "name", "must not be empty");
        }
    }
}

fn custom_tag(report: &mut Report<'_>, name: &str, tag: &At<'_>) {
    if name.is_empty() {
        report.error(tag, "a tag must have a name");
    }
    for (sort, field) in [("literal", "value"), ("formatter", "value"), ("header", "name"), ("environment", "name")] {
        if let Some(value) = tag.get(sort)
            && value.has(field)
            && value.text(field).is_empty()
        {
            report.field(&value, field, "must not be empty");
        }
    }
}

fn tag_override(report: &mut Report<'_>, name: &str, tag: &At<'_>) {
    if name.is_empty() {
        report.warn(tag, "a tag should have a name");
    }
    match tag.text("operation") {
        // What is not given is UPSERT.
        "" | "UPSERT" if tag.text("value").is_empty() => {
            report.field(tag, "value", "must be given, unless `operation: REMOVE` takes the tag away");
        }
        "REMOVE" if tag.has("value") => {
            report.field(tag, "value", "cannot be given together with REMOVE");
        }
        _ => {}
    }
}

/// An expression of CEL: as far as brackets, quotes and operators tell without evaluating it.
fn balanced(report: &mut Report<'_>, at: &At<'_>) {
    if let Err(why) = expression(at.str()) {
        report.error(at, format!("`{}` is no expression: {why}", at.str()));
    }
}

fn expression(text: &str) -> Result<(), String> {
    let mut open = Vec::new();
    let mut chars = text.chars().peekable();
    let mut last = None;
    while let Some(c) = chars.next() {
        match c {
            '"' | '\'' => {
                let mut escaped = false;
                let closed = chars.by_ref().any(|next| {
                    let end = next == c && !escaped;
                    escaped = next == '\\' && !escaped;
                    end
                });
                if !closed {
                    return Err("a string is not closed".to_owned());
                }
            }
            '(' | '[' | '{' => open.push(c),
            ')' | ']' | '}' => {
                let opened = match c {
                    ')' => '(',
                    ']' => '[',
                    _ => '{',
                };
                if open.pop() != Some(opened) {
                    return Err(format!("`{c}` closes nothing"));
                }
            }
            // CEL compares with `==`, and has no assignment.
            '=' if chars.peek() == Some(&'=') => {
                chars.next();
            }
            '=' if !matches!(last, Some('!' | '<' | '>')) => return Err("`=` must be `==`".to_owned()),
            _ => {}
        }
        if !c.is_whitespace() {
            last = Some(c);
        }
    }
    match (open.pop(), last) {
        (Some(open), _) => Err(format!("`{open}` is not closed")),
        (None, Some('&' | '|' | '<' | '>' | '=' | '!' | '+' | '*' | '/' | '.' | ',')) => {
            Err("it ends in an operator".to_owned())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::expression;

    #[test]
    fn expressions_that_can_be() {
        for text in ["response.code >= 400", "a == \"x)\" && (b[0] != 'y' || !c)", "", "has(a.b) ? 1 : 2"] {
            assert_eq!(expression(text), Ok(()), "{text}");
        }
        for text in ["response.code >=", "(a", "a)", "a = 1", "'x", "[1}", "a &&"] {
            assert!(expression(text).is_err(), "{text}");
        }
    }
}
