//! The stage: the canary's scene with an agent, rules that are in force when they are written, and curl inside pods.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use weir_tests::{Agent, Canary, HttpLoad, Mesh, Pod, PodSpec, eventually, mesh, process};

/// Rules are in force within milliseconds; a busy machine gets this long.
const SOON: Duration = Duration::from_secs(10);
/// The subsets of service-b, in flow style.
pub(crate) const SUBSETS: &str = "subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]";
/// Destinations of service-b, in flow style.
pub(crate) const V1: &str = "route: [{destination: {host: service-b, subset: v1}}]";
pub(crate) const V2: &str = "route: [{destination: {host: service-b, subset: v2}}]";

/// See the module.
pub(crate) struct Stage {
    pub(crate) scene: Canary,
    pub(crate) agent: Agent,
}

impl Stage {
    /// The scene with these rules.
    pub(crate) fn new(rules: &str) -> Result<Self> {
        Self::furnished(rules, |_| Ok(()))
    }

    /// The scene with more in it, which `furnish` adds before the agent starts.
    pub(crate) fn furnished(rules: &str, furnish: impl FnOnce(&mut Canary) -> Result<()>) -> Result<Self> {
        let mut scene = Canary::new(true)?;
        furnish(&mut scene)?;
        scene.manifests.pods(&scene.mesh)?;
        scene.manifests.write("rules.yaml", rules)?;
        let agent = Agent::start(&scene.mesh)?;
        agent.await_enrolled("default/client", true)?;
        Ok(Self { scene, agent })
    }

    /// Replaces the rules; they are in force when this returns.
    pub(crate) fn rules(&self, rules: &str) -> Result<()> {
        self.in_force(|| self.scene.manifests.write("rules.yaml", rules))
    }

    /// Makes a change that compiles to something else, and waits until it is in force.
    pub(crate) fn in_force(&self, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let generation = || self.agent.status()?["generation"].as_u64().context("a generation");
        let before = generation()?;
        change()?;
        eventually("the change is in force", SOON, || Ok((generation()? > before).then_some(())))?;
        Ok(())
    }

    /// The client.
    pub(crate) fn client(&self) -> &Pod {
        self.scene.client()
    }

    /// HTTP load for service-b.
    pub(crate) fn load(&self) -> HttpLoad {
        HttpLoad::new(self.scene.http.at(80)).host("service-b")
    }

    /// curl in the client, for a path of service-b.
    pub(crate) fn curl(&self, path: &str, arguments: &[&str]) -> Result<Answer> {
        self.curl_in("client", &format!("http://service-b{path}"), arguments)
    }

    /// curl in a pod. Names that begin with `service-b` have service-b's address.
    pub(crate) fn curl_in(&self, pod: &str, url: &str, arguments: &[&str]) -> Result<Answer> {
        let authority = url.split('/').nth(2).with_context(|| format!("{url} has no host"))?;
        let (host, port) = authority.split_once(':').unwrap_or((authority, "80"));
        let mut command = Command::new("curl");
        command.args(["--silent", "--include", "--max-time", "10"]);
        if host.starts_with("service-b") {
            command.arg("--resolve").arg(format!("{host}:{port}:{}", self.scene.http.ipv4()));
        }
        command.args(arguments).arg(url);
        Answer::parse(&process::output(&self.scene.mesh.pod(pod).place, command)?)
    }

    /// The version that curl meets.
    pub(crate) fn version(&self, path: &str, arguments: &[&str]) -> Result<String> {
        let answer = self.curl(path, arguments)?;
        ensure!(answer.status == 200, "{path} {arguments:?}: {answer:?}");
        Ok(answer.header("x-version").unwrap_or_default().to_owned())
    }

    /// Requests that a pod has answered, itself asked without the mesh.
    pub(crate) fn served(&self, pod: &str) -> Result<u64> {
        let address = self.scene.mesh.pod(pod).at(80);
        let answer = self.curl_in("client", &format!("http://{address}/served"), &[])?;
        answer.body.parse().with_context(|| format!("it counts: {answer:?}"))
    }

    /// The access log's line of the request for this path.
    pub(crate) fn logged(&self, path: &str) -> Result<String> {
        let look = || {
            let log = self.agent.access_log();
            Ok(log.lines().rfind(|line| line.contains(&format!(" {path} HTTP/"))).map(str::to_owned))
        };
        Ok(eventually(&format!("{path} is in the access log"), SOON, look)?.0)
    }

    /// Runs a program in a pod to its end; what it printed.
    pub(crate) fn run(&self, pod: &str, program: impl AsRef<Path>, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(program.as_ref());
        command.args(arguments);
        process::output(&self.scene.mesh.pod(pod).place, command)
    }

    /// Runs a Python script in the client.
    pub(crate) fn python(&self, script: &str, arguments: &[&str]) -> Result<String> {
        self.run("client", "python3", &[&["-c", script], arguments].concat())
    }
}

/// What curl printed.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Interim responses that came before.
    pub(crate) interim: Vec<u16>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    fn parse(text: &str) -> Result<Self> {
        let (mut interim, mut rest) = (Vec::new(), text);
        loop {
            let Some((head, body)) = rest.split_once("\r\n\r\n") else {
                bail!("no head: {text:?}");
            };
            let mut lines = head.split("\r\n");
            let first = lines.next().unwrap_or_default();
            let status = first.split(' ').nth(1).and_then(|s| s.parse().ok()).with_context(|| format!("{text:?}"))?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                rest = body;
                continue;
            }
            let headers = lines.filter_map(|line| line.split_once(": "));
            let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
            return Ok(Self { status, interim, headers, body: body.into() });
        }
    }

    /// The first header of that (lower case) name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// An object of Istio's with this spec, in flow style, named service-b.
pub(crate) fn object(kind: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: service-b, namespace: default}}\n\
         spec: {{{spec}}}\n"
    )
}

/// HTTP rules for service-b, and its subsets.
pub(crate) fn http(rules: &str) -> String {
    http_with(rules, "")
}

/// The same, with a traffic policy for its pods.
pub(crate) fn http_with(rules: &str, policy: &str) -> String {
    object("VirtualService", &format!("hosts: [service-b], http: [{rules}]")) + &destination(policy)
}

/// service-b's subsets and traffic policy.
pub(crate) fn destination(policy: &str) -> String {
    let policy = if policy.is_empty() { String::new() } else { format!("trafficPolicy: {{{policy}}}, ") };
    object("DestinationRule", &format!("host: service-b, {policy}{SUBSETS}"))
}

/// Adds pods of service-b that answer on port 80, with these arguments for their origins beside.
pub(crate) fn more_pods(mesh: &mut Mesh, names: &[&str], version: &str, arguments: &str) -> Result<()> {
    for name in names {
        mesh.add_pod(PodSpec::new(name).label("app", "service-b").label("version", version).port("", 80))?;
        mesh.serve(name, &format!("--http 80 {arguments}"))?;
    }
    Ok(())
}

/// Where things are put that runs share.
pub(crate) fn target() -> Result<PathBuf> {
    // The programs are in target/PROFILE.
    let programs = mesh::binary("weir-client");
    Ok(programs.ancestors().nth(2).context("a target directory")?.to_path_buf())
}
