//! What was measured, in words: medians of the rounds that count, and ratios to the base with their spread. Called by
//! `main`.

use std::fmt::Write as _;

use serde::Serialize;

use crate::cases::MANY_ROUTES;
use crate::cost::{CONNECTIONS, Cost};
use crate::features::FeatureCost;
use crate::machine::Machine;
use crate::mesh::FEW_ROUTES;
use crate::peers::Subject;
use crate::plot::{self, Bar};
use crate::rounds::{Memory, Outcome, Sample};

/// Fewer rounds than this that were not disturbed are no result.
pub const MIN_ROUNDS: usize = 3;

/// A median with the lowest and the highest.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// In the middle; of an even number, the mean of the two.
    pub median: f64,
    /// The lowest.
    pub lowest: f64,
    /// The highest.
    pub highest: f64,
}

impl Spread {
    /// Of some numbers; `None` = there are none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let (lowest, highest) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Some(Self { median, lowest, highest })
    }
}

/// A subject's line in a case.
#[derive(Clone, Debug)]
pub struct Line {
    /// Who.
    pub subject: Subject,
    /// CPU microseconds per request.
    pub cpu_us: Spread,
    /// Of it in user mode, median.
    pub user_us: f64,
    /// Requests a second, median.
    pub per_second: f64,
    /// Median and 90 % of times at a fixed rate, medians, µs.
    pub times_us: Option<[f64; 2]>,
    /// CPU of the base / its own, from rounds of the same turn: above 1 it needs that many times less.
    pub ratio: Option<Spread>,
    /// Medians.
    pub memory: Option<Memory>,
    /// Rounds that count, and all.
    pub rounds: [usize; 2],
}

/// The lines of a case.
pub fn lines(outcome: &Outcome) -> Vec<Line> {
    let base = outcome.samples.first().filter(|(subject, _)| *subject == Subject::Envoy).map(|(_, samples)| samples);
    outcome.samples.iter().filter_map(|(subject, samples)| line(*subject, samples, base)).collect()
}

fn line(subject: Subject, samples: &[Sample], base: Option<&Vec<Sample>>) -> Option<Line> {
    let counted: Vec<&Sample> = samples.iter().filter(|sample| sample.disturbed.is_none()).collect();
    if counted.len() < MIN_ROUNDS.min(samples.len()) {
        return None;
    }
    let median = |pick: &dyn Fn(&Sample) -> Option<f64>| {
        Spread::of(counted.iter().filter_map(|sample| pick(sample))).map(|spread| spread.median)
    };
    let pairs = base.into_iter().flatten().zip(samples);
    let undisturbed = pairs.filter(|(base, own)| base.disturbed.is_none() && own.disturbed.is_none());
    let memory = |pick: &dyn Fn(Memory) -> f64| median(&|sample| sample.memory.map(pick));
    let times = |pick: &dyn Fn(&Sample) -> Option<u32>| median(&|sample| pick(sample).map(f64::from));
    Some(Line {
        subject,
        cpu_us: Spread::of(counted.iter().map(|sample| sample.cpu_us))?,
        user_us: median(&|sample| Some(sample.user_us))?,
        per_second: median(&|sample| Some(sample.per_second))?,
        times_us: times(&|sample| sample.p50_us).zip(times(&|sample| sample.p90_us)).map(|(p50, p90)| [p50, p90]),
        ratio: Spread::of(undisturbed.map(|(base, own)| base.cpu_us / own.cpu_us).filter(|ratio| ratio.is_finite())),
        memory: memory(&|m| m.fresh_mib).map(|fresh_mib| Memory {
            fresh_mib,
            after_mib: memory(&|m| m.after_mib).unwrap_or_default(),
            highest_mib: memory(&|m| m.highest_mib).unwrap_or_default(),
            per_connection_kib: memory(&|m| m.per_connection_kib).unwrap_or_default(),
        }),
        rounds: [counted.len(), samples.len()],
    })
}

/// Everything that was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// weir was built by a record of what it executes.
    pub trained: bool,
    /// Rounds of each case.
    pub rounds: usize,
    /// Of each round.
    pub seconds: f64,
    /// The cases.
    pub outcomes: Vec<Outcome>,
    /// What can be counted.
    pub cost: Option<Cost>,
    /// What each feature adds; the first is none.
    pub features: Vec<FeatureCost>,
}

/// The page that has the section.
pub const PAGE: &str = "benchmarks.md";
/// How the section begins. It is the last one of its page.
const HEADING: &str = "## The node's proxy\n";

impl Report {
    /// The page, with this report as its last section in place of the one that it had, and the drawings: names and
    /// contents.
    pub fn files(&self, page: &str) -> Vec<(String, String)> {
        let rest = page.find(HEADING).map_or(page, |at| &page[..at]).trim_end();
        let mut text = if rest.is_empty() { String::new() } else { format!("{rest}\n\n") };
        text += HEADING;
        text += &INTRODUCTION.replace("ROUNDS", &self.rounds.to_string()).replace("SECONDS", &self.seconds.to_string());
        let versions: Vec<String> =
            self.machine.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let _infallible = writeln!(
            text,
            "Measured on {}, Linux {}, shared with other work; {}; weir {}.\n",
            self.machine.cpu,
            self.machine.kernel,
            versions.join(", "),
            if self.trained { TRAINED } else { "in the profile `release`, not trained (see `cargo xtask train`)" },
        );
        let mut files = Vec::new();
        for outcome in &self.outcomes {
            text += &table(outcome);
            if let Some(drawing) = drawing(outcome) {
                let name = format!("benchmarks/{}.svg", outcome.case);
                let _infallible = writeln!(text, "\n![{}]({name})", outcome.title);
                files.push((name, drawing));
            }
            text.push('\n');
        }
        if let Some(counted) = &self.cost {
            text += &cost(counted);
            text.push('\n');
        }
        if !self.features.is_empty() {
            let name = "benchmarks/features.svg";
            text += &features(&self.features);
            let _infallible = writeln!(text, "\n![{FEATURES}]({name})");
            files.push((name.to_owned(), features_drawing(&self.features)));
        }
        files.insert(0, (PAGE.to_owned(), text.trim_end().to_owned() + "\n"));
        files
    }
}

/// Of weir as it is shipped.
const TRAINED: &str = "as it is shipped, in the profile `release` and trained: compiled by a record of what it executes \
    under traffic like this one and of other sorts, which neither the other subjects nor builds by `cargo build` are";

/// What the section begins with.
const INTRODUCTION: &str = "What the node's proxy costs beside Envoy, HAProxy and nginx.

```sh
cargo xtask bench proxy                  # all of it, into target/bench; --docs writes this section
cargo xtask bench proxy keepalive routes # some of it; --rounds and --seconds say how long
```

- All have the same routes: ten hosts with ten rules each (or 1,000 on the last host), of which each matches a path and a
  header and splits 90/10 over two origins, with outlier detection configured. Requests are
  for the last rule of the last host. HAProxy and nginx have the rules as maps, as their manuals advise; Envoy and weir
  have them as routes.
- weir's proxy runs by itself here, without its kernel programs and without a cluster, on rules compiled from
  manifests, with its metrics on. Its access log is off, as are the others'.
- One core for each subject, another one for load and origin (nginx); where there are two workers, they share both.
- All run at once, and one at a time has load, in turns (A B C, C B A, …): ROUNDS rounds of SECONDS s. Figures are
  medians, ratios are of the same turn, and the range is from the lowest to the highest. A round in which a subject was kept
  from its CPU is dropped, and that is said.
- Every answer is checked: status, length, bytes, and how they are split. One wrong answer ends the measurement.
- CPU is user and kernel time of the subject, in µs per request (of bulk: per MiB).

";

/// CPU, or memory, as bars.
fn drawing(outcome: &Outcome) -> Option<String> {
    let bar = |line: &Line| {
        let (value, range) = match line.memory {
            Some(memory) if outcome.case == "idle" => (memory.per_connection_kib, None),
            Some(memory) => (memory.after_mib, None),
            None => (line.cpu_us.median, Some([line.cpu_us.lowest, line.cpu_us.highest])),
        };
        let ours = matches!(line.subject, Subject::Weir | Subject::WeirMimalloc);
        Bar { name: line.subject.name().to_owned(), value, range, ours }
    };
    let lines = lines(outcome);
    let unit = match (lines.first()?.memory, &*outcome.case) {
        (Some(_), "idle") => "KiB per idle connection",
        (Some(_), _) => "MiB afterwards",
        (None, "bulk") => "CPU µs per MiB",
        (None, _) => "CPU µs per request",
    };
    Some(plot::bars(&format!("{}: {unit}", outcome.title), &lines.iter().map(bar).collect::<Vec<_>>()))
}

/// What was counted, as Markdown.
pub fn cost(cost: &Cost) -> String {
    format!(
        "### What a request costs weir, counted\n| | per request |\n|---|---|\n\
         | instructions in user mode (callgrind), the last of {FEW_ROUTES} rules | {:.0} |\n\
         | the same, the last of {MANY_ROUTES} rules | {:.0} |\n| allocations | {:.1} |\n\
         | system calls (strace), {CONNECTIONS} connections at once | {:.2} |\n\n\
         One connection, one request after the other, where nothing else is said. `cargo xtask test cost` holds these to\n\
         `tests/bench-proxy/budget.toml`.\n",
        cost.instructions, cost.instructions_many_routes, cost.allocations, cost.system_calls
    )
}

/// The section of [`features`].
const FEATURES: &str = "What each feature costs";

/// What each feature adds, as Markdown.
pub fn features(costs: &[FeatureCost]) -> String {
    let mut text = format!(
        "### {FEATURES}\n| | instructions in user mode | more | allocations | CPU µs more (lowest–highest) |\n\
         |---|---|---|---|---|\n"
    );
    let none = costs.first();
    for cost in costs {
        text += &feature_line(cost, none);
        text.push('\n');
    }
    text += "\nweir alone: its base case, with one feature more on the rules or the policy of the host that is asked. Requests \
        are the same\nfor all, with the header and the cookie that some of them look at. Instructions and allocations are \
        counted, one request after\nthe other; CPU is user and kernel time at 32 connections without a pause, of turns with \
        the feature and without any;\nthe first line has none in both, and shows the machine's noise.\n";
    text
}

/// One of them; `none` is what it is compared with.
pub fn feature_line(cost: &FeatureCost, none: Option<&FeatureCost>) -> String {
    let more = none.map_or(String::new(), |none| format!("{:+.0}", cost.instructions - none.instructions));
    let added = cost
        .added()
        .map_or(String::new(), |added| format!("{:+.1} ({:+.1}–{:+.1})", added.median, added.lowest, added.highest));
    format!("| {} | {:.0} | {more} | {:.1} | {added} |", cost.name, cost.instructions, cost.allocations)
}

fn features_drawing(costs: &[FeatureCost]) -> String {
    let bar =
        |cost: &FeatureCost| Bar { name: cost.name.to_owned(), value: cost.instructions, range: None, ours: true };
    plot::bars(&format!("{FEATURES}: instructions of a request"), &costs.iter().map(bar).collect::<Vec<_>>())
}

/// A case as a Markdown table, which people can read as text too.
pub fn table(outcome: &Outcome) -> String {
    let lines = lines(outcome);
    let mut text = format!("### {}\n", outcome.title);
    let _infallible = if lines.iter().any(|line| line.memory.is_some()) {
        memory_table(&mut text, outcome, &lines)
    } else {
        traffic_table(&mut text, &lines)
    };
    for (subject, samples) in &outcome.samples {
        let dropped = samples.iter().filter(|sample| sample.disturbed.is_some()).count();
        if let Some(why) = samples.iter().find_map(|sample| sample.disturbed.as_ref()) {
            let (name, all) = (subject.name(), samples.len());
            let few = if all - dropped < MIN_ROUNDS { "; too few are left, so there is no result" } else { "" };
            let _infallible = writeln!(text, "\n{name}: {dropped} of {all} rounds dropped (one {why}){few}.");
        }
    }
    text
}

fn traffic_table(text: &mut String, lines: &[Line]) -> std::fmt::Result {
    let timed = lines.iter().any(|line| line.times_us.is_some());
    let bulk = if timed { " p50 µs | p90 µs |" } else { "" };
    writeln!(text, "| | CPU µs (lowest–highest) | of it user | a second | Envoy ÷ it (lowest–highest) |{bulk}")?;
    writeln!(text, "|---|---|---|---|---|{}", if timed { "---|---|" } else { "" })?;
    for line in lines {
        let cpu = line.cpu_us;
        write!(
            text,
            "| {} | {:.1} ({:.1}–{:.1}) | {:.1} | {:.0} |",
            line.subject.name(),
            cpu.median,
            cpu.lowest,
            cpu.highest,
            line.user_us,
            line.per_second
        )?;
        match line.ratio {
            Some(ratio) => write!(text, " {:.2} ({:.2}–{:.2}) |", ratio.median, ratio.lowest, ratio.highest)?,
            None => write!(text, " |")?,
        }
        if let Some([p50, p90]) = line.times_us {
            write!(text, " {p50:.0} | {p90:.0} |")?;
        }
        writeln!(text)?;
    }
    Ok(())
}

fn memory_table(text: &mut String, outcome: &Outcome, lines: &[Line]) -> std::fmt::Result {
    let idle = outcome.case == "idle";
    let last = if idle { " KiB per connection |" } else { " highest MiB |" };
    writeln!(text, "| | fresh MiB | after MiB |{last}\n|---|---|---|---|")?;
    for line in lines {
        let Some(memory) = line.memory else { continue };
        let last = if idle { memory.per_connection_kib } else { memory.highest_mib };
        writeln!(text, "| {} | {:.1} | {:.1} | {last:.1} |", line.subject.name(), memory.fresh_mib, memory.after_mib)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu_us: f64, disturbed: bool) -> Sample {
        Sample { cpu_us, disturbed: disturbed.then(|| "waited".to_owned()), ..Sample::default() }
    }

    #[test]
    fn medians_and_ratios_leave_disturbed_rounds_out() {
        let samples = vec![
            (Subject::Envoy, vec![sample(40.0, false), sample(50.0, false), sample(60.0, false), sample(999.0, true)]),
            (Subject::Weir, vec![sample(10.0, false), sample(10.0, false), sample(900.0, true), sample(10.0, false)]),
        ];
        let outcome = Outcome { case: "c".into(), title: "T".into(), samples };
        let lines = lines(&outcome);
        assert_eq!(lines[0].cpu_us, Spread { median: 50.0, lowest: 40.0, highest: 60.0 });
        assert_eq!(lines[1].cpu_us, Spread { median: 10.0, lowest: 10.0, highest: 10.0 });
        assert_eq!(lines[1].ratio, Some(Spread { median: 4.5, lowest: 4.0, highest: 5.0 }));
        assert_eq!(lines[1].rounds, [3, 4]);
        assert!(table(&outcome).contains("weir: 1 of 4 rounds dropped (one waited)."));
    }
}
