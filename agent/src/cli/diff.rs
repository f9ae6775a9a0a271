//! `weir diff`: what would change in force, before anything is applied.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use weir_mesh::compile::{CompileOptions, Compiled, compile};
use weir_mesh::crd;
use weir_mesh::diff::{Change, Diff, FieldChange, How, Side, diff};
use weir_mesh::explain::assume;
use weir_mesh::finding::Finding;
use weir_mesh::snapshot::Snapshot;
use weir_mesh::store::Store;

use super::{ClusterArgs, manifests, output};
use crate::cluster::objects;

/// Something differs.
const DIFFERENT: u8 = 1;
/// The two cannot be compared.
const FAILED: u8 = 2;

/// Arguments of `weir diff`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What is compared, OLD and NEW: files, or directories with everything below them. With --kubernetes only NEW,
    /// which is compared as if it were applied
    #[arg(value_name = "OLD NEW", num_args = 1.., required = true)]
    paths: Vec<PathBuf>,
    /// OLD is what the cluster holds
    #[arg(long)]
    kubernetes: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Colours in text: by default on a terminal only
    #[arg(long, value_enum, default_value_t = super::Colour::Auto)]
    color: super::Colour,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// 0 nothing differs, 1 something does, 2 the two cannot be compared.
pub(super) fn run(args: &Args) -> ExitCode {
    let printed = compared(args).and_then(|diff| {
        let text = match args.output {
            Output::Text => text(&diff, args.color.is_on()),
            Output::Json => format!("{}\n", serde_json::to_string_pretty(&diff)?),
        };
        output::print(&text)?;
        Ok(diff.is_empty())
    });
    match printed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(DIFFERENT),
        Err(error) => {
            super::say_error(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// What one side is made of.
#[derive(Default)]
struct Read {
    snapshot: Snapshot,
    findings: Vec<Finding>,
}

impl Read {
    fn compiled(&mut self, options: &CompileOptions) -> Compiled {
        assume::cluster(&mut self.snapshot);
        compile(&self.snapshot, options)
    }
}

fn compared(args: &Args) -> Result<Diff> {
    let options = CompileOptions::default();
    if args.paths.iter().filter(|path| path.as_os_str() == "-").count() > 1 {
        bail!("standard input can be read once only");
    }
    let (mut old, mut new) = if args.kubernetes || args.cluster.is_given() {
        let old = super::block_on(of_cluster(args))?;
        let applied = of_files(&args.paths, &old)?;
        let mut snapshot = old.snapshot.clone();
        for object in applied.snapshot.objects() {
            snapshot.replace(object);
        }
        let findings = old.findings.iter().chain(&applied.findings).cloned().collect();
        (old, Read { snapshot, findings })
    } else {
        let [old, new] = &*args.paths else {
            bail!("name two: OLD and NEW, each a file or a directory");
        };
        let old = of_files(std::slice::from_ref(old), &Read::default())?;
        let new = of_files(std::slice::from_ref(new), &old)?;
        (old, new)
    };
    let (before, after) = (old.compiled(&options), new.compiled(&options));
    let sides = [(&old, &before), (&new, &after)];
    let [old, new] = sides.map(|(read, compiled)| Side::new(&read.snapshot, &options, compiled, &read.findings));
    Ok(diff(&old, &new))
}

/// Of what is refused the version of `before` stays, as it would in force.
fn of_files(paths: &[PathBuf], before: &Read) -> Result<Read> {
    let (mut store, mut unreadable) = (Store::on_top_of(before.snapshot.clone()), Vec::new());
    manifests::each(paths, |manifest| match manifest.text {
        Ok(text) => store.set_file(&manifest.file, &text),
        Err(why) => unreadable.push(format!("{}: {why}", manifest.file)),
    });
    if !unreadable.is_empty() {
        bail!("{}", unreadable.join("; "));
    }
    let (snapshot, findings) = store.assemble();
    Ok(Read { snapshot, findings })
}

/// Everything that the cluster shows. What it hides would make the comparison wrong.
async fn of_cluster(args: &Args) -> Result<Read> {
    let access = args.cluster.access();
    let namespace = access.config().await?.default_namespace;
    let listing = objects::list(&access.client().await?, &namespace).await?;
    let mut read = Read::default();
    // Where nodes are is the same on both sides; who may read a cluster's objects may often not read its nodes.
    let matters = |kind: &str| kind != "Node" && crd::RESOURCES.iter().any(|one| one.kind == kind);
    if let Some((kind, why)) = listing.hidden.iter().find(|(kind, _)| matters(kind)) {
        return Err(anyhow!("{why}")).with_context(|| format!("the cluster does not show every {kind}"));
    }
    for served in listing.objects {
        let Ok(header) = crd::identify(&served.node, &served.api_version, served.kind) else { continue };
        if header.kind != crd::Kind::Known {
            continue;
        }
        match weir_mesh::validate::decode(&served.node, &header, None) {
            Ok(decoded) => {
                read.findings.extend(decoded.findings);
                read.snapshot.replace(decoded.object);
            }
            Err(findings) => {
                read.findings.extend(findings);
                if let Some(object) = crd::stand_in(Some(&served.node), &header.object, None) {
                    read.snapshot.replace(object);
                }
            }
        }
    }
    Ok(read)
}

fn text(diff: &Diff, colours: bool) -> String {
    let mut text = String::new();
    let mut line = |code: &str, line: &str| {
        let line = output::plain(line);
        let written = if colours && !code.is_empty() {
            writeln!(text, "\x1b[{code}m{line}\x1b[0m")
        } else {
            writeln!(text, "{line}")
        };
        written.expect("a string takes everything");
    };
    for change in &diff.changes {
        let (sign, colour) = match change.how {
            How::Added => ("+", "32"),
            How::Removed => ("-", "31"),
            How::Changed => ("~", "33"),
        };
        line(colour, &format!("{sign} {}", title(change)));
        for field in &change.fields {
            line("", &format!("    {}", field_line(field, change.how)));
        }
    }
    for (sign, colour, title, findings) in
        [("+", "31", "new finding", &diff.new_findings), ("-", "32", "finding gone", &diff.gone_findings)]
    {
        for finding in findings {
            line(colour, &format!("{sign} {title}: {finding}"));
        }
    }
    text
}

fn title(change: &Change) -> String {
    let clients = if change.clients.is_empty() { String::new() } else { format!(", for {}", change.clients) };
    let object = change.object.as_ref().map(|object| format!(" ({object})")).unwrap_or_default();
    format!("{} {}{clients}{object}", change.area.as_str(), change.subject)
}

fn field_line(change: &FieldChange, how: How) -> String {
    let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    match how {
        How::Added => format!("{}: {}", change.field, shown(&change.new)),
        How::Removed => format!("{}: {}", change.field, shown(&change.old)),
        How::Changed => format!("{}: {} → {}", change.field, shown(&change.old), shown(&change.new)),
    }
}
