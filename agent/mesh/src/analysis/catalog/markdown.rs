//! docs/findings.md, made from the table.

use std::fmt::Write as _;

use super::{Entry, all, url};

const HEAD: &str = "# Findings

What `weir analyze` and the agent say about manifests, by code. `IST` codes are Istio's, found by the same rules; `WEIR`
codes are weir's own. Made from `agent/mesh/src/analysis/catalog`, whose tests run the examples.

- One finding: `galley.istio.io/analyze-suppress: IST0118` or `weir.mesh/analyze-suppress: IST0118,WEIR0020` on the
  object (`*` for all codes); on the command line `-S 'IST0118=Service web.shop'`, with `*` for any text.
- `weir analyze` exits with 79 when there is a finding at or above `--failure-threshold` (Error).

| code | severity | |
|---|---|---|
";

/// Codes of Istio's that nothing here is told of by, and why.
pub const NOT_HERE: [(&str, &str); 10] = [
    ("IST0001", "an internal error is WEIR0012"),
    ("IST0103", "a pod that was asked to take part and does not is WEIR0005; who suppresses IST0103 suppresses it"),
    ("IST0146, IST0147, IST0148, IST0158", "about sidecars: there are none"),
    ("IST0126, IST0170", "about several clusters"),
    ("IST0139, IST0163, IST0164", "about Istio's webhooks and control plane: there are none"),
    ("IST0143", "needs to look at the sockets of a running pod"),
    ("IST0144", "no user id is reserved: an application may run as 1337"),
    ("IST0151, IST0152, IST0153, IST0154, IST0155", "there is no Envoy that an EnvoyFilter could patch: WEIR0002"),
    ("IST0168, IST0169", "about upgrades of Istio"),
    ("IST0175", "about a setting of Istio's control plane"),
];

/// The page. Writing to a String cannot fail.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for entry in all() {
        let _ = writeln!(
            page,
            "| [{}](#{}) | {} | {} |",
            entry.code,
            entry.code.to_ascii_lowercase(),
            entry.severity,
            entry.title
        );
    }
    page.push_str("\nCodes of Istio's that are not here:\n\n| code | why |\n|---|---|\n");
    for (codes, why) in NOT_HERE {
        let _ = writeln!(page, "| {codes} | {why} |");
    }
    for entry in all() {
        section(&mut page, entry);
    }
    page
}

fn section(page: &mut String, entry: &Entry) {
    let _ = write!(page, "\n## {}\n{} ({}): {}.", entry.code, entry.severity, entry.name, entry.title);
    if let Some(url) = url(entry.code) {
        let _ = write!(page, " [In Istio]({url}).");
    }
    let _ = write!(page, "\n\n{}\n\n**Instead:** {}\n", entry.effect, entry.fix);
    if let Some(example) = &entry.example {
        let _ = write!(page, "\n```yaml\n{}```\nwithout it:\n```yaml\n{}```\n", example.fires, example.silent);
    }
}
