//! Talks to the agents of a cluster through the API server, as `kubectl port-forward` does: their admin endpoint
//! listens on their nodes' loopback only. Called by `weir status` and `weir explain`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::Client;
use kube::api::{Api, ListParams};

use super::{POD_SELECTOR, in_time};

/// Agents that are asked at the same time: each takes a connection through the API server and a kubelet.
const AT_ONCE: usize = 16;
/// For one agent. It answers from memory; what takes longer is a node that is away.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer about 10,000 service ports is some 5 MiB.
const MAX_ANSWER: usize = 64 << 20;
/// The namespaces of very large clusters have more pods than one answer should hold.
const PAGE: u32 = 500;

/// One node's agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPod {
    /// Where it runs.
    pub node: String,
    /// Its pod's name.
    pub pod: String,
    /// The port of its `--admin`; `None` = it was told none.
    pub port: Option<u16>,
}

/// What one node said to a question.
#[derive(Debug)]
pub struct Answer {
    /// Who.
    pub agent: AgentPod,
    /// The body, or why there is none.
    pub body: Result<Vec<u8>>,
}

/// The agents of the installation in `namespace`, by node; `node` names the only one that is wanted.
///
/// # Errors
/// When the pods cannot be listed, or there is no agent.
pub async fn list(client: &Client, namespace: &str, node: Option<&str>) -> Result<Vec<AgentPod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut wanted = ListParams::default().labels(POD_SELECTOR).limit(PAGE);
    if let Some(node) = node {
        wanted = wanted.fields(&format!("spec.nodeName={node}"));
    }
    let mut found = Vec::new();
    loop {
        let page = in_time(pods.list(&wanted)).await.with_context(|| format!("listing the agents in {namespace}"))?;
        let next = page.metadata.continue_.clone().filter(|token| !token.is_empty());
        found.extend(page.items);
        match next {
            Some(token) => wanted = wanted.continue_token(&token),
            None => break,
        }
    }
    let agents = one_per_node(found);
    match (agents.is_empty(), node) {
        (false, _) => Ok(agents),
        (true, Some(node)) => bail!("no agent runs on node {node}"),
        (true, None) => bail!("no agents in namespace {namespace}: is weir installed in this cluster, and there?"),
    }
}

/// The node of a pod.
///
/// # Errors
/// When there is no such pod, or it is on no node yet.
pub async fn node_of(client: &Client, namespace: &str, pod: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = in_time(pods.get(pod)).await.with_context(|| format!("pod {namespace}/{pod}"))?;
    found.spec.and_then(|spec| spec.node_name).with_context(|| format!("pod {namespace}/{pod} is on no node yet"))
}

/// The node of some pod with these labels; `None` when there is none.
///
/// # Errors
/// When the pods cannot be listed.
pub async fn node_with(client: &Client, namespace: &str, labels: &str) -> Result<Option<String>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let wanted = ListParams::default().labels(labels).limit(PAGE);
    let found = in_time(pods.list(&wanted)).await.with_context(|| format!("listing the pods in {namespace}"))?;
    Ok(found.items.into_iter().find_map(|pod| pod.spec.and_then(|spec| spec.node_name)))
}

/// During an upgrade there are two on a node, and both are reached by the same port: the younger one has taken it over.
fn one_per_node(mut pods: Vec<Pod>) -> Vec<AgentPod> {
    pods.retain(|pod| {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        !matches!(phase, "Succeeded" | "Failed")
    });
    pods.sort_by(|a, b| a.metadata.creation_timestamp.cmp(&b.metadata.creation_timestamp));
    let by_node: BTreeMap<String, AgentPod> = pods
        .into_iter()
        .filter_map(|pod| {
            let (spec, pod) = (pod.spec?, pod.metadata.name?);
            let port = spec.containers.iter().find_map(admin_port);
            let node = spec.node_name?;
            Some((node.clone(), AgentPod { node, pod, port }))
        })
        .collect();
    by_node.into_values().collect()
}

/// The port that a container's arguments name with `--admin`, in either way of writing it.
fn admin_port(container: &Container) -> Option<u16> {
    let words = || container.command.iter().chain(&container.args).flatten();
    let after = words().skip_while(|word| *word != "--admin").nth(1).map(String::as_str);
    let address = words().find_map(|word| word.strip_prefix("--admin=")).or(after)?;
    address.parse::<SocketAddr>().ok().map(|address| address.port())
}

/// Asks every one of `agents` for `path` on its admin port, which is `port` where it was told none; the answers are in
/// the order of `agents`.
pub async fn ask(client: &Client, namespace: &str, agents: Vec<AgentPod>, port: u16, path: &str) -> Vec<Answer> {
    let questions = agents.into_iter().map(|agent| async move {
        let port = agent.port.unwrap_or(port);
        let body = match tokio::time::timeout(TIMEOUT, get(client, namespace, &agent.pod, port, path)).await {
            Ok(result) => result,
            Err(_) => Err(anyhow::anyhow!("no answer within {} s", TIMEOUT.as_secs())),
        };
        Answer { agent, body }
    });
    stream::iter(questions).buffered(AT_ONCE).collect().await
}

async fn get(client: &Client, namespace: &str, pod: &str, port: u16, path: &str) -> Result<Vec<u8>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut forward = pods.portforward(pod, &[port]).await.context("port-forward")?;
    let stream = forward.take_stream(port).context("port-forward without a stream")?;
    let refused = forward.take_error(port).context("port-forward without an error channel")?;
    let request = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path)
            .header(header::HOST, format!("127.0.0.1:{port}"))
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        connection.abort();
        let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
        ensure!(status == StatusCode::OK, "{status}: {}", String::from_utf8_lossy(&body).trim());
        Ok(body.to_vec())
    };
    let result = request.await;
    // The kubelet says why it could not connect on a channel of its own, and the stream just ends.
    let result = match result {
        Err(error) => match tokio::time::timeout(Duration::from_millis(200), refused).await {
            Ok(Some(why)) => Err(anyhow::anyhow!("{}", why.trim())),
            _ => Err(error),
        },
        done => done,
    };
    forward.abort();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: Option<&str>, created: &str, phase: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "creationTimestamp": created},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": phase},
        }))
        .expect("a pod")
    }

    #[test]
    fn the_admin_port_is_the_one_that_the_agent_was_told() {
        let told = |command: &[&str], args: &[&str]| {
            let container = serde_json::json!({"name": "agent", "command": command, "args": args});
            admin_port(&serde_json::from_value(container).expect("a container"))
        };
        assert_eq!(told(&[], &["run", "--kubernetes", "--admin=127.0.0.1:15900", "--node=a"]), Some(15900));
        assert_eq!(told(&[], &["run", "--admin", "[::1]:15901"]), Some(15901));
        assert_eq!(told(&["/weir", "run", "--admin", "127.0.0.1:15902"], &["--node=a"]), Some(15902));
        for none in [&["run", "--kubernetes"][..], &["run", "--admin"], &["run", "--admin=$(ADDRESS)"]] {
            assert_eq!(told(&[], none), None, "{none:?}");
        }
    }

    #[test]
    fn of_two_on_a_node_the_younger_one_is_asked() {
        let agents = one_per_node(vec![
            pod("new", Some("b"), "2026-01-02T00:00:00Z", "Running"),
            pod("old", Some("b"), "2026-01-01T00:00:00Z", "Running"),
            pod("other", Some("a"), "2026-01-01T00:00:00Z", "Running"),
            pod("evicted", Some("a"), "2026-01-03T00:00:00Z", "Failed"),
            pod("unscheduled", None, "2026-01-03T00:00:00Z", "Pending"),
        ]);
        let named: Vec<(&str, &str)> = agents.iter().map(|a| (a.node.as_str(), a.pod.as_str())).collect();
        assert_eq!(named, [("a", "other"), ("b", "new")]);
    }
}
