//! `weir status`: asks the agent on this node, and prints a table.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::app::Status;
use crate::config;

/// The agent answers from memory; longer means that it hangs.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Arguments of `weir status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The agent's admin endpoint
    #[arg(long, default_value = config::DEFAULT_ADMIN, value_name = "ADDRESS")]
    admin: SocketAddr,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(super) fn run(args: &Args) -> Result<()> {
    let body = get(args.admin, "/status").with_context(|| {
        format!("no answer from an agent on {} (is `weir run` running here, and with this --admin?)", args.admin)
    })?;
    let status: Status = serde_json::from_str(&body).context("the agent's answer")?;
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Output::Text => print!("{}", render(&status)),
    }
    Ok(())
}

/// One GET over a connection of its own.
fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    if !head.lines().next().is_some_and(|line| line.contains(" 200 ")) {
        bail!("{}", head.lines().next().unwrap_or("an empty answer"));
    }
    Ok(body.to_owned())
}

/// Writing to a String cannot fail, so its results are dropped.
fn render(status: &Status) -> String {
    let mut rows =
        vec![["SERVICE", "ADDRESS", "VERDICT", "BALANCED", "PROXIED", "FALLBACK", "REFUSED", "WHY"].map(String::from)];
    for s in &status.services {
        let why = if s.because.is_empty() { s.why.clone() } else { format!("{} ({})", s.why, s.because) };
        let address = if s.view == 0 { s.address.clone() } else { format!("{} (view {})", s.address, s.view) };
        let c = s.counters;
        rows.push([
            s.service.clone(),
            address,
            s.verdict.clone(),
            c.balanced.to_string(),
            c.proxied.to_string(),
            c.fallback.to_string(),
            c.rejected.to_string(),
            why,
        ]);
    }
    let mut text = table(&rows);
    text.push('\n');
    let mut rows = vec![["POD", "ADDRESSES", "LISTENERS"].map(String::from)];
    for p in &status.pods {
        let listeners = p.listeners.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        rows.push([p.pod.clone(), p.addresses.join(","), listeners]);
    }
    text.push_str(&table(&rows));
    for (title, lines) in [("Findings", &status.findings), ("Not carried out", &status.problems)] {
        if !lines.is_empty() {
            let _ = writeln!(text, "\n{title}:");
            for line in lines {
                let _ = writeln!(text, "  {line}");
            }
        }
    }
    let _ = writeln!(text, "\ngeneration {}, in force after {} us", status.generation, status.applied_in_us);
    text
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width: Vec<usize> =
        (0..N).map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&width).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::ServiceStatus;

    #[test]
    fn the_table_shows_verdict_and_reason() {
        let status = Status {
            services: vec![ServiceStatus {
                service: "default/service-b:80".into(),
                address: "10.96.0.2:80".into(),
                verdict: "proxy".into(),
                why: "HTTP rules".into(),
                because: "VirtualService default/b".into(),
                ..ServiceStatus::default()
            }],
            findings: vec!["Error [IST0101] nothing there".into()],
            ..Status::default()
        };
        let text = render(&status);
        let line = text.lines().nth(1).expect("a row");
        assert_eq!(
            line.split_whitespace().collect::<Vec<_>>().join(" "),
            "default/service-b:80 10.96.0.2:80 proxy 0 0 0 0 HTTP rules (VirtualService default/b)"
        );
        assert!(text.contains("Findings:\n  Error [IST0101] nothing there"));
    }
}
