//! `weir status`: asks the agent on this node, or all agents of a cluster through the API server, and prints a table.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use self::render::render;
use super::{ClusterArgs, output};
use crate::app::Status;
use crate::cluster::agents;
use crate::config;

mod render;

/// The agent answers from memory; longer means that it hangs.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Arguments of `weir status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Ask this admin endpoint and no other [default: the one on this node, else the cluster's agents]
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["kubernetes", "node", "kubeconfig", "context"])]
    admin: Option<SocketAddr>,
    /// Ask the cluster's agents through the API server, even if one runs on this node
    #[arg(long)]
    kubernetes: bool,
    /// Ask the agent of this node of the cluster only
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Namespace that weir is installed in
    #[arg(long, value_name = "NAMESPACE", default_value = crate::cluster::NAMESPACE)]
    system_namespace: String,
    /// Show the services and pods of this namespace only
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What one node's agent said, or why there is nothing.
#[derive(Debug, Serialize)]
struct NodeAnswer {
    node: String,
    pod: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let in_cluster = args.kubernetes || args.node.is_some() || args.cluster.is_given();
    let here = args.admin.unwrap_or(config::DEFAULT_ADMIN.parse().expect("the default is an address"));
    let local = if in_cluster { None } else { Some(ask_here(here)) };
    let answers = match local {
        Some(Ok(status)) => {
            let status = only_namespace(status, args.namespace.as_deref());
            return output::print(&match args.output {
                Output::Json => format!("{}\n", serde_json::to_string_pretty(&status)?),
                Output::Text => render::one(&status),
            });
        }
        Some(Err(error)) if args.admin.is_some() => return Err(error),
        Some(Err(error)) => super::block_on(ask_cluster(args))
            .map_err(|cluster| anyhow::anyhow!("{error:#}; and in the cluster: {cluster:#}"))?,
        None => super::block_on(ask_cluster(args))?,
    };
    output::print(&match args.output {
        Output::Json => format!("{}\n", serde_json::to_string_pretty(&serde_json::json!({ "nodes": answers }))?),
        Output::Text => render(&answers),
    })?;
    if answers.iter().all(|answer| answer.status.is_none()) {
        bail!("no agent answered");
    }
    Ok(())
}

fn ask_here(admin: SocketAddr) -> Result<Status> {
    let body = get(admin, "/status").with_context(|| {
        format!("no answer from an agent on {admin} (is `weir run` running here, and with this --admin?)")
    })?;
    serde_json::from_str(&body).with_context(|| format!("the answer of {admin} is not an agent's"))
}

/// A node that does not answer is a line of the answer, not a failure of the command.
async fn ask_cluster(args: &Args) -> Result<Vec<NodeAnswer>> {
    let client = args.cluster.access().client().await?;
    let system = &args.system_namespace;
    let found = agents::list(&client, system, args.node.as_deref()).await?;
    let answers = agents::ask(&client, system, found, config::ADMIN_PORT, "/status").await;
    let namespace = args.namespace.as_deref();
    Ok(answers
        .into_iter()
        .map(|answer| {
            let status = answer.body.and_then(|body| Ok(serde_json::from_slice::<Status>(&body)?));
            let (status, error) = match status {
                Ok(status) => (Some(only_namespace(status, namespace)), None),
                Err(error) => (None, Some(format!("{error:#}"))),
            };
            NodeAnswer { node: answer.agent.node, pod: answer.agent.pod, status, error }
        })
        .collect())
}

/// Names are `namespace/…` in both lists. Findings and problems stay: what is wrong elsewhere may be the reason here.
fn only_namespace(mut status: Status, namespace: Option<&str>) -> Status {
    if let Some(namespace) = namespace {
        let inside = |name: &str| name.split_once('/').is_some_and(|(ns, _)| ns == namespace);
        status.services.retain(|s| inside(&s.service));
        status.pods.retain(|p| inside(&p.pod));
        status.ejected.retain(|out| out.services.iter().any(|name| inside(name)));
    }
    status
}

/// One GET over a connection of its own.
pub(super) fn get(address: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    if !head.lines().next().is_some_and(|line| line.contains(" 200 ")) {
        let line = head.lines().next().unwrap_or("an empty answer");
        // An answer of some other server may be a page.
        bail!("{line}: {}", body.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::{EjectedStatus, PodStatus, ServiceStatus};

    #[test]
    fn a_namespace_is_matched_whole() {
        let service = |name: &str| ServiceStatus { service: name.into(), ..ServiceStatus::default() };
        let pod = |name: &str| PodStatus { pod: name.into(), ..PodStatus::default() };
        let ejected = |services: &[&str]| EjectedStatus {
            services: services.iter().map(|&name| name.to_owned()).collect(),
            ..EjectedStatus::default()
        };
        let status = Status {
            services: vec![service("shop/web:80"), service("shop-2/web:80")],
            pods: vec![pod("shop/a"), pod("other/shop")],
            ejected: [&["shop-2/web:80"], &["shop/web:80"]].map(|of| ejected(of)).into(),
            findings: vec!["one".into()],
            ..Status::default()
        };
        let filtered = only_namespace(status, Some("shop"));
        assert_eq!((filtered.services.len(), filtered.pods.len(), filtered.findings.len()), (1, 1, 1));
        assert_eq!(filtered.services[0].service, "shop/web:80");
        assert_eq!(filtered.ejected, [ejected(&["shop/web:80"])]);
    }
}
