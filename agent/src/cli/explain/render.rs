//! An explanation as a tree for people.

use std::fmt::Write as _;

use serde_json::Value;
use weir_mesh::explain::model::{
    ConditionTried, Destination, EndpointLocality, Explanation, Origin, RuleTried, Setting, Subset,
};

use crate::cli::output;

/// Colours, or none of them.
struct Style {
    colours: bool,
}

impl Style {
    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }

    fn bad(&self, text: &str) -> String {
        self.paint("31", text)
    }

    fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    fn mark(&self, good: bool) -> String {
        if good { self.good("✔") } else { self.bad("✘") }
    }
}

/// Lines, each at its depth.
struct Tree {
    text: String,
    style: Style,
}

impl Tree {
    fn line(&mut self, depth: usize, line: &str) {
        writeln!(self.text, "{:1$}{line}", "", depth * 2).expect("a string takes everything");
    }
}

/// The whole of it.
pub(super) fn text(explanation: &Explanation, colours: bool) -> String {
    let explanation = &plain(explanation);
    let mut tree = Tree { text: String::new(), style: Style { colours } };
    head(&mut tree, explanation);
    rules(&mut tree, explanation);
    destinations(&mut tree, explanation);
    foot(&mut tree, explanation);
    tree.text
}

/// With every text of it as one that steers no terminal, whichever field it is in.
fn plain(explanation: &Explanation) -> Explanation {
    fn every(value: &mut Value) {
        match value {
            Value::String(text) => *text = output::plain(text).into_owned(),
            Value::Array(values) => values.iter_mut().for_each(every),
            Value::Object(fields) => {
                let texts = std::mem::take(fields).into_iter();
                *fields = texts.map(|(key, value)| (output::plain(&key).into_owned(), value)).collect();
                fields.values_mut().for_each(every);
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut value = serde_json::to_value(explanation).expect("it is made of texts and numbers");
    every(&mut value);
    serde_json::from_value(value).expect("it has the fields that it had")
}

fn head(tree: &mut Tree, explanation: &Explanation) {
    let request = &explanation.request;
    let headers = request.headers.iter().flat_map(|header| [" -H '", header, "'"]).collect::<String>();
    let title = tree.style.bold(&format!("{} {}{headers}", request.method, request.url));
    tree.line(0, &title);
    let client = &explanation.client;
    let view = if client.view == 0 { String::new() } else { tree.style.dim(&format!(" (view {})", client.view)) };
    tree.line(0, &format!("from {}{view}", client.name));
    if let Some(why) = &client.why_not {
        let line = format!("{} does not take part: {why}", tree.style.mark(false));
        tree.line(1, &line);
        tree.line(1, "what follows would hold if it did");
    }
    let dialled = &explanation.dialled;
    let protocol = dialled.protocol.as_ref().map(|protocol| format!(", {protocol}")).unwrap_or_default();
    tree.line(0, &format!("to {}, port {}{protocol}: {}", dialled.host, dialled.port, dialled.resolved));
    if let Some(origin) = &dialled.object {
        let line = tree.style.dim(&of(origin));
        tree.line(1, &line);
    }
    if let Some(kernel) = &explanation.kernel {
        let verdict = tree.style.bold(&kernel.verdict);
        tree.line(0, &format!("kernel: {verdict}: {}", kernel.why));
        if let Some(on_failure) = &kernel.on_failure {
            let line = tree.style.dim(&format!("while no proxy is alive: {on_failure}"));
            tree.line(1, &line);
        }
    }
    if !explanation.hosts.is_empty() {
        tree.line(0, &format!("Host {}", request.authority));
        for host in &explanation.hosts {
            let found = host.found.as_deref().unwrap_or("nobody has it");
            let line = format!("{} {}: {found}", tree.style.mark(host.found.is_some()), host.name);
            tree.line(1, &line);
        }
    }
}

/// `VirtualService shop/web at shop.yaml:12:5`
fn of(origin: &Origin) -> String {
    match &origin.at {
        Some(at) => format!("{} at {at}", origin.object),
        None => origin.object.clone(),
    }
}

fn rules(tree: &mut Tree, explanation: &Explanation) {
    if !explanation.rules.is_empty() {
        tree.line(0, "rules");
    }
    for rule in &explanation.rules {
        tried(tree, rule);
    }
    if explanation.rules_not_reached > 0 {
        let line = tree.style.dim(&format!("{} more behind it are not reached", explanation.rules_not_reached));
        tree.line(1, &line);
    }
    if !explanation.left_out.is_empty() {
        tree.line(0, "rules that are for others");
        for left_out in &explanation.left_out {
            let line = format!("{} {}", left_out.why, tree.style.dim(&format!("({})", of(&left_out.origin))));
            tree.line(1, &line);
        }
    }
    if let Some(route) = &explanation.route {
        let origin = route.origin.as_ref().map_or_else(|| "the plain service".to_owned(), of);
        let line = format!("route {} {}", route.name, tree.style.dim(&format!("({origin})")));
        tree.line(0, &line);
        if let Some(path) = &route.rewritten {
            let undone = route.settings.iter().any(|one| one.field == "rewrite" && one.instead.is_some());
            let line =
                if undone { format!("the path would become {path}") } else { format!("the path becomes {path}") };
            tree.line(1, &line);
        }
        let own = route.origin.as_ref();
        route.settings.iter().for_each(|one| setting(tree, 1, one, own));
    }
}

fn tried(tree: &mut Tree, rule: &RuleTried) {
    let origin = rule.origin.as_ref().map_or_else(|| "the plain service".to_owned(), of);
    let everything = if rule.items.is_empty() { ": takes everything" } else { "" };
    let line = format!(
        "{} {}. {}{everything} {}",
        tree.style.mark(rule.takes),
        rule.number,
        rule.name,
        tree.style.dim(&format!("({origin})"))
    );
    tree.line(1, &line);
    for item in &rule.items {
        if item.conditions.is_empty() {
            tree.line(2, "takes everything");
        }
        for (position, condition) in item.conditions.iter().enumerate() {
            let bullet = if position == 0 { "-" } else { " " };
            let line = format!("{bullet} {} {}", tree.style.mark(condition.fits), asked(condition));
            tree.line(2, &line);
        }
    }
}

fn asked(condition: &ConditionTried) -> String {
    let note = condition.note.as_ref().map(|note| format!(" ({note})")).unwrap_or_default();
    match &condition.found {
        Some(found) => format!("{}: {}, is `{found}`{note}", condition.on, condition.wanted),
        None => format!("{}: {}, is not there", condition.on, condition.wanted),
    }
}

/// A setting; `own` wrote what is around it, and is not named again.
fn setting(tree: &mut Tree, depth: usize, setting: &Setting, own: Option<&Origin>) {
    let origin = match &setting.origin {
        None => " (default)".to_owned(),
        Some(origin) if Some(origin) == own => String::new(),
        Some(origin) => format!(" ({})", of(origin)),
    };
    let line = format!("{}: {}{}", setting.field, setting.value, tree.style.dim(&origin));
    tree.line(depth, &line);
    if let Some(instead) = &setting.instead {
        let line = format!("{} not done by this version: {instead}", tree.style.mark(false));
        tree.line(depth + 1, &line);
    }
}

fn destinations(tree: &mut Tree, explanation: &Explanation) {
    if explanation.destinations.is_empty() {
        return;
    }
    tree.line(0, "destinations");
    for destination in &explanation.destinations {
        one(tree, destination, explanation.request.roll.is_some());
    }
}

fn one(tree: &mut Tree, destination: &Destination, by_roll: bool) {
    let chosen = if by_roll && destination.chosen { ", chosen" } else { "" };
    let share = format!("{:.2}", destination.share);
    let share = share.trim_end_matches('0').trim_end_matches('.');
    let good = destination.dead.is_none();
    let line =
        format!("{} {share}% {} (weight {}{chosen})", tree.style.mark(good), destination.name, destination.weight);
    tree.line(1, &line);
    if let Some(dead) = &destination.dead {
        let status = dead.status.map_or_else(|| "refused".to_owned(), |status| status.to_string());
        let flag = dead.flag.as_ref().map(|flag| format!(" ({flag})")).unwrap_or_default();
        let line = tree.style.bad(&format!("{status}{flag}: {}", dead.why));
        tree.line(2, &line);
    }
    if let Some(subset) = &destination.subset {
        subset_of(tree, subset);
    }
    for endpoint in &destination.endpoints {
        let pod = endpoint.pod.as_ref().map(|pod| format!(" {pod}")).unwrap_or_default();
        let state = if endpoint.ready { "" } else { ", not ready" };
        let locality = endpoint.locality.as_ref().map(place).unwrap_or_default();
        let line = format!("{} {}{pod}{state}{locality}", tree.style.mark(endpoint.ready), endpoint.address);
        tree.line(2, &line);
    }
    destination.settings.iter().for_each(|one| setting(tree, 2, one, None));
}

fn place(locality: &EndpointLocality) -> String {
    let EndpointLocality { place, priority, percent } = locality;
    let place = if place.is_empty() { "place not known" } else { place };
    match priority {
        Some(priority) => format!(", {place}: priority {priority}, {percent}% while none fails"),
        None => format!(", {place}: not for this client"),
    }
}

fn subset_of(tree: &mut Tree, subset: &Subset) {
    let selector: Vec<String> = subset.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let origin = subset.origin.as_ref().map(of).unwrap_or_default();
    let line = format!("subset {}: {} {}", subset.name, selector.join(","), tree.style.dim(&format!("({origin})")));
    tree.line(2, &line);
    for lacking in &subset.lacking {
        let labels: Vec<String> = lacking
            .labels
            .iter()
            .map(|(key, value)| match value {
                Some(value) => format!("has {key}={value}"),
                None => format!("lacks {key}"),
            })
            .collect();
        let line = format!("{} {} {}", tree.style.mark(false), lacking.pod, labels.join(", "));
        tree.line(3, &line);
    }
}

fn foot(tree: &mut Tree, explanation: &Explanation) {
    let policy = &explanation.policy;
    let line = format!("policy: {} {}; {}", tree.style.mark(policy.allowed), policy.why, policy.encryption);
    tree.line(0, &line);
    if let Some(origin) = &policy.origin {
        let line = tree.style.dim(&of(origin));
        tree.line(1, &line);
    }
    for (title, lines) in [("findings", &explanation.findings), ("taken for granted", &explanation.assumptions)] {
        if !lines.is_empty() {
            tree.line(0, title);
            for line in lines {
                tree.line(1, line);
            }
        }
    }
    let outcome = &explanation.outcome;
    let good = outcome.answered > 0.0;
    let line = format!("{} {}: {}", tree.style.mark(good), tree.style.bold(&outcome.way), outcome.summary);
    tree.line(0, &line);
}
