//! What the demo prints: steps, sentences, bars. Colours and bars that move only on a terminal; plain lines otherwise.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

/// Characters of a bar that stands for 100 %.
const BAR: usize = 50;

/// Standard output, and whether a person looks at it.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    step: u32,
    /// Lines of the bars that are on the screen and will be drawn over.
    drawn: usize,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { terminal: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none(), step: 0, drawn: 0 }
    }

    /// A sentence.
    pub(crate) fn say(&mut self, text: &str) -> io::Result<()> {
        self.drawn = 0;
        writeln!(io::stdout(), "{text}")
    }

    /// The next step: what is done, and what it proves.
    pub(crate) fn step(&mut self, title: &str, proves: &str) -> io::Result<()> {
        self.step += 1;
        let title = self.paint("1", &format!("{}. {title}", self.step));
        let proves = self.paint("2", &format!("   proves: {proves}"));
        self.say(&format!("\n{title}\n{proves}"))
    }

    /// A bound that held, or did not.
    pub(crate) fn verdict(&mut self, holds: bool, text: &str) -> io::Result<()> {
        let mark = if holds { self.paint("32", "ok ") } else { self.paint("31", "NOT") };
        self.say(&format!("   {mark} {text}"))
    }

    /// Bars while counting goes on: only where they can be drawn over.
    pub(crate) fn live(&mut self, counts: &BTreeMap<String, u64>, note: &str) -> io::Result<()> {
        if self.terminal { self.bars(counts, note) } else { Ok(()) }
    }

    /// Bars, one a line, over those that were drawn last.
    pub(crate) fn bars(&mut self, counts: &BTreeMap<String, u64>, note: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.drawn > 0 {
            write!(out, "\x1b[{}A", self.drawn)?;
        }
        let end = if self.terminal { "\x1b[K" } else { "" };
        let total: u64 = counts.values().sum();
        for (name, count) in counts {
            let share = *count as f64 / total.max(1) as f64;
            let bar = if self.terminal { self.bar(name, share) } else { String::new() };
            writeln!(out, "   {name:<12} {count:>7}  {:>5.1} %  {bar}{end}", 100.0 * share)?;
        }
        writeln!(out, "   {note}{end}")?;
        out.flush()?;
        self.drawn = if self.terminal { counts.len() + 1 } else { 0 };
        Ok(())
    }

    /// What follows is written below the bars, not over them.
    pub(crate) fn settle(&mut self) {
        self.drawn = 0;
    }

    fn bar(&self, name: &str, share: f64) -> String {
        let full = (share * BAR as f64).round() as usize;
        let colour = if name.contains("v2") { "33" } else { "36" };
        self.paint(colour, &"█".repeat(full.min(BAR)))
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.terminal { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
