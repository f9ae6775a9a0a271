//! `weir explain`: why a request goes where it goes, by the code that decides: on manifests, or as the agents have it.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use weir_mesh::compile::{CompileOptions, compile};
use weir_mesh::explain::{Explainer, Explanation, From, Mesh, Question, Words, assume};
use weir_mesh::finding::{Finding, code};
use weir_mesh::store::Store;

use super::{ClusterArgs, manifests, output, status};
use crate::cluster::agents;
use crate::config;

mod render;

/// Whether an agent runs on this node is known at once.
const KNOCK: Duration = Duration::from_secs(1);

/// Of what could not be read, as much as anybody reads in a line.
const MAX_UNREAD: usize = 3;
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
    #[arg(long, short = 'f', value_name = "FILE|DIR|-")]
    manifests: Vec<PathBuf>,
    /// Ask this admin endpoint and no other [default: the one on this node, else the agent of the pod's node]
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["manifests", "kubernetes", "kubeconfig", "context"])]
    admin: Option<SocketAddr>,
    /// Ask the cluster's agent on the pod's node through the API server, even if one runs here
    #[arg(long, conflicts_with = "manifests")]
    kubernetes: bool,
    /// Namespace that weir is installed in
    #[arg(long, value_name = "NAMESPACE", default_value = crate::cluster::NAMESPACE)]
    system_namespace: String,
    #[command(flatten)]
    cluster: ClusterArgs,
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
pub(super) fn run(args: &Args) -> ExitCode {
    let printed = explained(args).and_then(|explanation| {
        let text = match args.output {
            Output::Text => render::text(&explanation, args.color.is_on()),
            Output::Json => format!("{}\n", serde_json::to_string_pretty(&explanation)?),
            Output::Yaml => serde_saphyr::to_string(&explanation)?,
        };
        output::print(&text)?;
        Ok(explanation.outcome.answered > 0.0)
    });
    match printed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(UNANSWERED),
        Err(error) => {
            super::say_error(&error);
            ExitCode::from(USAGE)
        }
    }
}

fn words(args: &Args) -> Result<Words> {
    let (method, url) = match &*args.request {
        [method, url] => (&**method, url),
        [url] => ("GET", url),
        _ => bail!("METHOD and URL are wanted"),
    };
    Ok(Words {
        from: args.from.clone().unwrap_or_default(),
        gateway: args.gateway.clone().unwrap_or_default(),
        port: args.port,
        namespace: args.namespace.clone(),
        method: method.to_owned(),
        url: url.clone(),
        headers: args.headers.clone(),
        roll: args.roll,
        http2: args.http2,
    })
}

fn explained(args: &Args) -> Result<Explanation> {
    let words = words(args)?;
    // Whatever is asked, what is no question is told here.
    let question = words.question().map_err(|why| anyhow!(why))?;
    if !args.manifests.is_empty() {
        return of_manifests(&args.manifests, &question);
    }
    let path = format!("/explain?{}", words.to_query());
    if args.kubernetes || args.cluster.is_given() {
        return super::block_on(of_cluster(args, &question, &path));
    }
    let here = args.admin.unwrap_or(config::DEFAULT_ADMIN.parse().expect("the default is an address"));
    if args.admin.is_none() && TcpStream::connect_timeout(&here, KNOCK).is_err() {
        return super::block_on(of_cluster(args, &question, &path)).context("no agent runs here; and in the cluster");
    }
    let body = status::get(here, &path).with_context(|| format!("the agent on {here}"))?;
    serde_json::from_str(&body).with_context(|| format!("the answer of {here} is not an agent's"))
}

/// The agent of the client's node knows the client; any of them, what is nobody's in particular.
async fn of_cluster(args: &Args, question: &Question, path: &str) -> Result<Explanation> {
    let client = args.cluster.access().client().await?;
    let system = &args.system_namespace;
    let node = match &question.from {
        From::Pod { namespace, name } => Some(agents::node_of(&client, namespace, name).await?),
        From::Labels { namespace, labels } => {
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            agents::node_with(&client, namespace, &labels.join(",")).await?
        }
        From::Gateway { .. } => None,
    };
    let found = agents::list(&client, system, node.as_deref()).await?;
    let first = found.into_iter().take(1).collect();
    let answers = agents::ask(&client, system, first, config::ADMIN_PORT, path).await;
    let answer = answers.into_iter().next().context("no agents")?;
    let body = answer.body.with_context(|| format!("the agent on node {}", answer.agent.node))?;
    serde_json::from_slice(&body).with_context(|| format!("the answer of {} is not an agent's", answer.agent.pod))
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
            let pod = snapshot.pods.get(&(Arc::clone(namespace), Arc::clone(name)));
            options.node = pod.map(|pod| Arc::clone(&pod.node)).filter(|node| !node.is_empty());
        }
        From::Gateway { .. } => {}
    }
    let compiled = compile(&snapshot, &options);
    findings.extend(compiled.findings);
    let mut mesh = Mesh::new(&snapshot, &options, &compiled.program, &compiled.plan, &compiled.views, &findings);
    mesh.assumptions = assumptions;
    Explainer::new(&mesh).explain(question).map_err(|why| match &*unread(&findings) {
        "" => anyhow!(why),
        unread => anyhow!("{why}; {unread}"),
    })
}

/// What could not be read, for one who misses something: what is missed may be in it.
fn unread(findings: &[Finding]) -> String {
    let unread = || findings.iter().filter(|finding| finding.code == code::SYNTAX);
    let mut told: Vec<String> = unread().take(MAX_UNREAD).map(ToString::to_string).collect();
    match unread().count().saturating_sub(MAX_UNREAD) {
        0 => {}
        more => told.push(format!("and {more} more could not be read")),
    }
    told.join("; ")
}
