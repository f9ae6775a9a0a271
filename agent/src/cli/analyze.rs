//! `weir analyze`: looks for mistakes in manifests, or in what a cluster holds, and says what to write instead.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use weir_mesh::analysis::{self, Options, Sources};
use weir_mesh::compile::CompileOptions;
use weir_mesh::crd::Mark;
use weir_mesh::finding::{Finding, Severity};

use self::suppression::Suppression;
use super::{ClusterArgs, Colour, output};
use crate::cluster::objects;

mod files;
mod render;
mod sarif;
mod suppression;

/// What `istioctl` exits with when it has found something.
const FOUND: u8 = 79;
/// What the other commands exit with when something cannot be read.
const UNREADABLE: u8 = 2;

/// Arguments of `weir analyze`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(super) struct Args {
    /// Files, directories, or `-` for standard input
    #[arg(value_name = "FILE|DIR|-")]
    paths: Vec<PathBuf>,
    /// Read directories with all that is below them, which is so without it, too
    #[arg(long, short = 'R')]
    recursive: bool,
    /// Analyze what the cluster holds; files given besides are analyzed as if they were applied
    #[arg(long)]
    kubernetes: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Only tell of objects of this namespace; objects of files that name none are of it
    #[arg(long, short, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// Tell of all namespaces of the cluster [default: the kubeconfig's]
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// Istio's mesh configuration (the `mesh` of its ConfigMap)
    #[arg(long, value_name = "FILE")]
    mesh_config: Option<PathBuf>,
    /// Exit with 79 when there is a finding of this severity, or worse
    #[arg(long, value_enum, default_value_t = Level::Error, ignore_case = true)]
    failure_threshold: Level,
    /// Tell of findings of this severity, or worse
    #[arg(long, value_enum, default_value_t = Level::Info, ignore_case = true)]
    output_threshold: Level,
    /// Do not tell of CODE about these objects: `IST0102=Namespace web`, `IST0101=VirtualService *.shop`
    #[arg(long = "suppress", short = 'S', value_name = "CODE=KIND NAME[.NAMESPACE]")]
    suppress: Vec<Suppression>,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Colours in text: by default on a terminal only
    #[arg(long, value_enum, default_value_t = Colour::Auto)]
    color: Colour,
    /// Print every code that there is, and exit
    #[arg(long, alias = "list-codes")]
    list_analyzers: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Level {
    Info,
    Warning,
    Error,
}

impl Level {
    fn severity(self) -> Severity {
        match self {
            Self::Info => Severity::Info,
            Self::Warning => Severity::Warning,
            Self::Error => Severity::Error,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
    Yaml,
    Sarif,
}

/// What was found, and what is needed to show it.
struct Report {
    sources: Sources,
    findings: Vec<Finding>,
    /// The files that were read.
    texts: BTreeMap<String, String>,
    /// What could not be looked at.
    notes: Vec<String>,
    /// Only files were read, rules among them, and no Service that these could be for.
    lacks_services: bool,
}

/// 0 nothing found, 2 something cannot be read, 79 found.
pub(super) fn run(args: &Args) -> ExitCode {
    printed(args).unwrap_or_else(|error| {
        super::say_error(&error);
        ExitCode::from(UNREADABLE)
    })
}

fn printed(args: &Args) -> Result<ExitCode> {
    if args.list_analyzers {
        output::print(&render::codes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let report = report(args)?;
    for note in &report.notes {
        say(note);
    }
    let text = match args.output {
        Output::Text => render::text(&report, args.color.is_on()),
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&render::records(&report))?),
        Output::Yaml => serde_saphyr::to_string(&render::records(&report))?,
        Output::Sarif => format!("{}\n", serde_json::to_string_pretty(&sarif::log(&report))?),
    };
    output::print(&text)?;
    let threshold = args.failure_threshold.severity();
    let failed = report.findings.iter().any(|finding| finding.severity >= threshold);
    Ok(if failed { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

#[expect(clippy::print_stderr, reason = "beside the output, which may be read by a program")]
fn say(note: &str) {
    eprintln!("weir: {}", output::plain(note));
}

fn report(args: &Args) -> Result<Report> {
    let from_cluster = args.kubernetes || args.cluster.is_given();
    if args.paths.is_empty() && !from_cluster {
        bail!("name files or directories (`-` for standard input), or say --kubernetes");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut notes = Vec::new();
    let mut only = args.namespace.clone();
    let mut listing = None;
    if from_cluster {
        let (found, own) = super::block_on(list(args))?;
        if !args.all_namespaces {
            only.get_or_insert(own);
        }
        listing = Some(found);
    }
    let options = Options { compile: CompileOptions::default(), namespace: only.as_deref().map(Into::into), now };
    let mut sources = Sources::new(options);
    let mut texts = BTreeMap::new();
    for (name, text) in files::read(&args.paths, &mut std::io::stdin())? {
        sources.add_file(&name, &text);
        texts.insert(name, text);
    }
    if let Some(path) = args.mesh_config.as_ref().filter(|path| !path.as_os_str().is_empty()) {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
        let place = |at: Mark| format!("{name}:{}:{}", at.line, at.column);
        sources.set_mesh_config(&name, &text).map_err(|error| anyhow!("{}: no YAML: {error}", place(error.mark)))?;
        texts.insert(name, text);
    }
    if let Some(version) = listing.as_ref().and_then(|listing| listing.kubernetes.as_deref()) {
        sources.set_kubernetes(version);
    }
    for served in listing.iter_mut().flat_map(|listing| listing.objects.drain(..)) {
        if let Err(fault) = sources.add_served(served.node, &served.api_version, served.kind) {
            notes.push(format!("a {} of the cluster is left out: {fault}", served.kind));
        }
    }
    for (kind, why) in listing.into_iter().flat_map(|listing| listing.hidden) {
        sources.leave_out(kind, &why);
    }
    let mut findings = analysis::analyze(&mut sources);
    let least = args.output_threshold.severity();
    findings.retain(|finding| {
        finding.severity >= least
            && is_of(finding, only.as_deref())
            && !args.suppress.iter().any(|suppression| suppression.takes(finding))
    });
    let lacks_services = !from_cluster && sources.lacks_services();
    Ok(Report { sources, findings, texts, notes, lacks_services })
}

/// Findings of files as a whole, and of objects that belong to no namespace, are of every namespace.
fn is_of(finding: &Finding, namespace: Option<&str>) -> bool {
    let (Some(namespace), Some(object)) = (namespace, &finding.object) else { return true };
    match &*object.kind {
        "Namespace" => &*object.name == namespace,
        _ => object.namespace.is_empty() || &*object.namespace == namespace,
    }
}

async fn list(args: &Args) -> Result<(objects::Listing, String)> {
    let access = args.cluster.access();
    let own = access.config().await?.default_namespace;
    let client = access.client().await?;
    let namespace = args.namespace.as_ref().unwrap_or(&own);
    Ok((objects::list(&client, namespace).await?, own))
}
