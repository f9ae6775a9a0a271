//! `weir explain`: why a request goes where it goes, by the code that decides: on manifests, or as the agents have it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use clap::ValueEnum;
use weir_mesh::compile::{CompileOptions, compile};
use weir_mesh::explain::{Explainer, Explanation, From, Mesh, Question, assume};
use weir_mesh::store::Store;

use super::manifests;

mod render;

/// Nobody would answer.
const UNANSWERED: u8 = 1;
/// The question cannot be put.
const USAGE: u8 = 2;

/// Arguments of `weir explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The client: a pod (or a Deployment, for one of its pods), or labels of one; NAMESPACE/ alone for any pod in it
    #[arg(long, value_name = "[NAMESPACE/]POD|KEY=VALUE,…", required_unless_present = "gateway")]
    from: Option<String>,
    /// The request comes from outside, through this Gateway
    #[arg(long, value_name = "[NAMESPACE/]NAME", conflicts_with = "from")]
    gateway: Option<String>,
    /// Port of the Gateway's server [default: that of the URL]
    #[arg(long, value_name = "PORT", requires = "gateway")]
    port: Option<u16>,
    /// Namespace of the client, where it names none
    #[arg(long, short, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// Ask these manifests: files, directories with everything below them, or - for standard input
    #[arg(long, short = 'f', value_name = "FILE|DIR|-", required = true)]
    manifests: Vec<PathBuf>,
    /// Header of the request; again for more
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The client speaks HTTP/2 with prior knowledge
    #[arg(long)]
    http2: bool,
    /// What chooses among weights and faults, from 0 to 2^64-1 [default: every share is shown]
    #[arg(long, value_name = "NUMBER")]
    roll: Option<u64>,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Colours in text: by default on a terminal only
    #[arg(long, value_enum, default_value_t = super::Colour::Auto)]
    color: super::Colour,
    /// METHOD, GET where it is left out, and URL as the client has it
    #[arg(value_name = "METHOD URL", num_args = 1..=2, required = true)]
    request: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
    Yaml,
}

/// 0 somebody answers, 1 nobody would, 2 the question cannot be put.
#[expect(clippy::print_stdout, reason = "the command's output")]
pub(super) fn run(args: &Args) -> ExitCode {
    let printed = explained(args).and_then(|explanation| {
        let text = match args.output {
            Output::Text => render::text(&explanation, args.color.is_on()),
            Output::Json => format!("{}\n", serde_json::to_string_pretty(&explanation)?),
            Output::Yaml => serde_saphyr::to_string(&explanation)?,
        };
        Ok((text, explanation.outcome.answered > 0.0))
    });
    match printed {
        Ok((text, answered)) => {
            print!("{text}");
            if answered { ExitCode::SUCCESS } else { ExitCode::from(UNANSWERED) }
        }
        Err(error) => {
            super::say_error(&error);
            ExitCode::from(USAGE)
        }
    }
}

fn question(args: &Args) -> Result<Question> {
    let from = match (&args.from, &args.gateway) {
        (Some(client), _) => From::client(client, &args.namespace),
        (None, Some(gateway)) => From::gateway(gateway, &args.namespace, args.port),
        (None, None) => Err("say --from or --gateway".to_owned()),
    };
    let (method, url) = match &*args.request {
        [method, url] => (&**method, url),
        [url] => ("GET", url),
        _ => bail!("METHOD and URL are wanted"),
    };
    from.and_then(|from| Question::new(from, method, url, &args.headers, args.roll, args.http2))
        .map_err(|why| anyhow!(why))
}

fn explained(args: &Args) -> Result<Explanation> {
    let question = question(args)?;
    of_manifests(&args.manifests, &question)
}

fn of_manifests(paths: &[PathBuf], question: &Question) -> Result<Explanation> {
    let (mut store, mut unreadable) = (Store::new(), Vec::new());
    manifests::each(paths, |manifest| match manifest.text {
        Ok(text) => store.set_file(&manifest.file, &text),
        Err(why) => unreadable.push(format!("{}: {why}", manifest.file)),
    });
    if !unreadable.is_empty() {
        bail!("{}", unreadable.join("; "));
    }
    let (mut snapshot, mut findings) = store.assemble();
    let mut assumptions = assume::cluster(&mut snapshot);
    let mut options = CompileOptions::default();
    match &question.from {
        From::Labels { namespace, labels } => {
            assume::client(&mut snapshot, namespace, labels);
            assumptions.push("the client takes part".to_owned());
        }
        From::Pod { namespace, name } => {
            let pod = snapshot.pods.get(&(namespace.clone(), name.clone()));
            options.node = pod.map(|pod| pod.node.clone()).filter(|node| !node.is_empty());
        }
        From::Gateway { .. } => {}
    }
    let compiled = compile(&snapshot, &options);
    findings.extend(compiled.findings);
    let mut mesh = Mesh::new(&snapshot, &options, &compiled.program, &compiled.plan, &compiled.views, &findings);
    mesh.assumptions = assumptions;
    Explainer::new(&mesh).explain(question).map_err(|why| anyhow!(why))
}
