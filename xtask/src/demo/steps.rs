//! The demo's five steps. Each says what it does, does it, shows the count and checks it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use weir_tests::agent::shares;
use weir_tests::canary::{self, BACKENDS, HTTP_PORT, TCP_PORT};
use weir_tests::manifests::{admit, cluster_ips};
use weir_tests::mesh::{binary, pins};
use weir_tests::require;
use weir_tests::{Agent, HttpLoad, LiveLoad, Manifests, Mesh, PodSpec, Report, interrupt, load};

use super::screen::Screen;

/// The first Service of the examples is service-a; service-b is the next, service-b-tcp comes from a file of its own.
const SERVICE_A: u8 = 1;
const SERVICE_B: u8 = 2;
const SERVICE_B_TCP: u8 = 3;
/// Connections at once, and requests a second on each: a pace that an eye can follow, 2,000 requests in five seconds.
const CONNECTIONS: u64 = 4;
const PACE: u64 = 100;
/// Below so many requests chance alone may exceed the fixed tolerance.
const FIXED_FROM: u64 = 2000;
const TOLERANCE: f64 = 2.5;
/// A smaller sample may miss by four standard deviations: once in 16,000 runs.
const DEVIATIONS: f64 = 4.0;
/// Lines of a map that are shown.
const EXCERPT: usize = 24;

/// A mesh on stage.
pub(super) struct Demo {
    // In this order when dropped: the agent before the ground that it stands on.
    agent: Agent,
    mesh: Mesh,
    manifests: Manifests,
    screen: Screen,
    requests: u64,
}

impl Demo {
    /// Sets the stage: pods, origins, what kube-proxy would do, the agent; nobody takes part yet.
    pub(super) fn new(name: &str, keep: bool, requests: u64, mut screen: Screen) -> Result<Self> {
        screen.say(
            "\nPods as network namespaces: client, service-a, service-b with two pods of v1 and one of v2. The manifests \
             are\ndeploy/examples/canary, the service addresses what the API server would have given.",
        )?;
        let mut mesh = Mesh::named(name, keep)?;
        canary::furnish(&mut mesh)?;
        mesh.add_pod(PodSpec::new("a-v1-0").label("app", "service-a").label("version", "v1").port("", 80))?;
        mesh.serve("a-v1-0", "--http 80")?;
        let pods = BACKENDS.map(|(pod, _)| mesh.pod(pod).at(80));
        mesh.relay((cluster_ips(SERVICE_B).0, 80).into(), &pods)?;
        let manifests = Manifests::of(&mesh);
        manifests.namespaces(&[("default", false)])?;
        manifests.pods(&mesh)?;
        for file in ["01-services.yaml", "02-round-robin.yaml", "03-version-2.yaml"] {
            apply(&manifests, file, SERVICE_A)?;
        }
        let agent = Agent::start(&mesh)?;
        Ok(Self { agent, mesh, manifests, screen, requests })
    }

    /// All steps.
    pub(super) fn play(&mut self) -> Result<()> {
        self.before_opt_in()?;
        self.canary()?;
        self.shift()?;
        self.tcp()?;
        self.maps()
    }

    fn before_opt_in(&mut self) -> Result<()> {
        self.screen.step(
            "Before opt-in: the client dials service-b",
            "who does not take part is not touched; kube-proxy's spread by pod count, two pods of v1 to one of v2",
        )?;
        let load = self.http().fresh().start(self.mesh.pod("client"))?;
        let report = self.watch(load)?;
        self.split(&report, 100.0 * 2.0 / 3.0)?;
        let accepted = self.agent.accepted()?;
        self.check(accepted < 0.5, &format!("weir's proxy accepted {accepted} connections"))
    }

    fn canary(&mut self) -> Result<()> {
        self.screen.step(
            "The namespace opts in; 04-canary.yaml takes the place of 02-round-robin.yaml",
            "90 % of the requests to v1, 10 % to v2, whatever the number of pods; no sidecar, no restart",
        )?;
        self.manifests.remove("02-round-robin.yaml")?;
        apply(&self.manifests, "04-canary.yaml", SERVICE_A)?;
        self.manifests.namespaces(&[("default", true)])?;
        let took = self.agent.await_enrolled("default/client", true)?;
        self.agent.await_verdict(HTTP_PORT, "proxy")?;
        self.screen.say(&format!("   client enrolled after {} ms", took.as_millis()))?;
        let why = self.agent.service(HTTP_PORT)?;
        self.screen.say(&format!(
            "   weir status: {HTTP_PORT} {} because of {}",
            text(&why, "verdict"),
            text(&why, "why")
        ))?;
        let load = self.http().start(self.mesh.pod("client"))?;
        let report = self.watch(load)?;
        self.split(&report, 90.0)
    }

    fn shift(&mut self) -> Result<()> {
        self.screen.step(
            "The file is edited to 50/50 while requests flow",
            "a change of weights is in force at once and fails no request",
        )?;
        let load = HttpLoad::new(address(SERVICE_B, 80)).host("service-b").connections(CONNECTIONS).pace(PACE);
        let mut live = load.start(self.mesh.pod("client"))?;
        let mut before = live.tick()?;
        while before.answered < self.requests / 4 {
            before = live.tick()?;
            self.screen.live(&before.by_version, "weights 90/10")?;
        }
        self.screen.bars(&before.by_version, "before the edit")?;
        self.screen.settle();
        let yaml = fs::read_to_string(example("04-canary.yaml"))?;
        let edited = yaml.replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50");
        self.manifests.write("04-canary.yaml", &edited)?;
        // The count between the edit and the second look belongs to neither side.
        let (_, start) = (live.tick()?, live.tick()?);
        let mut after = live.tick()?.since(&start);
        while after.answered < self.requests {
            after = live.tick()?.since(&start);
            self.screen.live(&after.by_version, "weights 50/50")?;
        }
        self.screen.bars(&after.by_version, "after the edit")?;
        self.screen.settle();
        let whole = live.stop()?;
        self.check(
            whole.failed == 0 && whole.by_status.keys().eq(["200"]),
            &format!("{} requests, {} failed", whole.answered, whole.failed),
        )?;
        self.split(&after, 50.0)
    }

    fn tcp(&mut self) -> Result<()> {
        self.screen.step(
            "05-tcp-canary.yaml: the same split for plain TCP",
            "where no layer-7 rule applies the kernel splits by itself: no proxy hop, no cost per byte",
        )?;
        apply(&self.manifests, "05-tcp-canary.yaml", SERVICE_B_TCP)?;
        self.agent.await_verdict(TCP_PORT, "balance")?;
        let (accepted, balanced) = (self.agent.accepted()?, self.agent.counter(TCP_PORT, "balanced")?);
        let report = load::tcp(self.mesh.pod("client"), address(SERVICE_B_TCP, 9000), self.requests, CONNECTIONS)?;
        self.screen.bars(&report.by_version, "connections")?;
        self.screen.settle();
        self.split(&report, 90.0)?;
        let through = self.agent.accepted()? - accepted;
        let kernel = self.agent.counter(TCP_PORT, "balanced")? - balanced;
        self.check(through < 0.5, &format!("the proxy accepted {through} of {} connections", self.requests))?;
        self.check(kernel == self.requests, &format!("the kernel balanced {kernel} of them"))
    }

    fn maps(&mut self) -> Result<()> {
        self.screen
            .step("The maps, through bpftool", "what the kernel does is pinned, typed and readable by anybody")?;
        let bpftool = require::program("bpftool").unwrap_or_else(|| "bpftool".into());
        for map in ["weir_pods", "weir_services"] {
            let pin = pins(self.mesh.name()).join("maps").join(map);
            let dump = Command::new(&bpftool).args(["map", "dump", "pinned"]).arg(&pin).output();
            let output = match dump {
                Ok(output) => output,
                Err(e) => return self.check(false, &format!("{} runs: {e}", bpftool.display())),
            };
            let dump = String::from_utf8_lossy(&output.stdout);
            self.screen.say(&format!("   bpftool map dump pinned {}", pin.display()))?;
            for line in dump.lines().take(EXCERPT) {
                self.screen.say(&format!("     {line}"))?;
            }
            let entries = dump.matches("\"key\"").count();
            self.check(output.status.success() && entries > 0, &format!("{map} has {entries} entries"))?;
        }
        Ok(())
    }

    /// Leaves everything running and says how to look around.
    pub(super) fn leave_up(mut self) -> Result<()> {
        let (name, node) = (self.mesh.name().to_owned(), self.mesh.node().netns.name().to_owned());
        let client = self.mesh.pod("client").clone();
        let weir = binary("weir");
        let (weir, target) = (weir.display(), address(SERVICE_B, 80));
        self.screen.say(&format!(
            "\nIt stays up. To look around:\n\
             \x20 ip netns exec {node} {weir} status\n\
             \x20 ip netns exec {node} curl -s http://127.0.0.1:15000/metrics\n\
             \x20 sh -c 'echo $$ > {cgroup}/cgroup.procs; exec nsenter --net={netns} curl -s http://{target}/ -H \"Host: service-b\"'\n\
             \x20 $EDITOR {manifests}/04-canary.yaml\n\
             \x20 bpftool map dump pinned {pins}/maps/weir_services\n\
             \x20 tail -f {log}\n\
             To end it:\n\
             \x20 cargo xtask demo --end",
            cgroup = client.place.cgroup.display(),
            netns = client.place.netns.path().display(),
            manifests = self.manifests.directory().display(),
            pins = pins(&name).display(),
            log = self.mesh.log("access").display(),
        ))?;
        self.agent.process().keep();
        self.mesh.keep();
        Ok(())
    }

    fn http(&self) -> HttpLoad {
        let load = HttpLoad::new(address(SERVICE_B, 80)).host("service-b").connections(CONNECTIONS).pace(PACE);
        load.requests(self.requests)
    }

    /// Shows the bars until all requests are done.
    fn watch(&mut self, mut load: LiveLoad) -> Result<Report> {
        let mut report = Report::default();
        while report.answered + report.failed < self.requests {
            report = load.tick()?;
            self.screen.live(&report.by_version, &format!("{} of {}", report.answered, self.requests))?;
        }
        self.screen.bars(&report.by_version, &format!("{} answered, {} failed", report.answered, report.failed))?;
        self.screen.settle();
        load.stop()
    }

    /// Checks that nothing failed and that v1 has its share.
    fn split(&mut self, report: &Report, v1: f64) -> Result<()> {
        let answered: u64 = report.by_version.values().sum();
        let tolerance = tolerance(v1, answered);
        let holds = report.failed == 0 && (report.share("v1") - v1).abs() <= tolerance;
        let failed =
            if report.failed > 0 { format!(", {} failed {:?}", report.failed, report.errors) } else { String::new() };
        let shares = shares(&report.by_version);
        self.check(holds, &format!("{shares}{failed}; expected {v1:.1} % ± {tolerance:.1} for v1"))
    }

    fn check(&mut self, holds: bool, text: &str) -> Result<()> {
        interrupt::check()?;
        self.screen.verdict(holds, text)?;
        if !holds {
            bail!("a bound of the demo does not hold: {text}\n{}", self.agent.log_text());
        }
        Ok(())
    }
}

/// How far a share in percent may be off for a sample of that size.
fn tolerance(share: f64, sample: u64) -> f64 {
    let p = share / 100.0;
    let chance = DEVIATIONS * 100.0 * (p * (1.0 - p) / sample.max(1) as f64).sqrt();
    // At an even split 2,000 requests have a standard deviation of 1.1 points, which the fixed bound is too tight for.
    if sample >= FIXED_FROM && (share - 50.0).abs() > 25.0 { TOLERANCE } else { chance }
}

/// Where clients dial a service of the examples.
fn address(service: u8, port: u16) -> std::net::SocketAddr {
    (cluster_ips(service).0, port).into()
}

fn example(file: &str) -> std::path::PathBuf {
    crate::workspace::root().join("deploy/examples/canary").join(file)
}

/// Puts an example into the agent's directory; Services get their addresses from `first` on.
fn apply(manifests: &Manifests, file: &str, first: u8) -> Result<()> {
    let path: &Path = &example(file);
    let yaml = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    manifests.write(file, &admit(&yaml, first))
}

fn text(value: &serde_json::Value, key: &str) -> String {
    value[key].as_str().unwrap_or("?").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_sample_gets_the_room_that_chance_needs() {
        assert!((tolerance(90.0, 2000) - TOLERANCE).abs() < 1e-9);
        assert!(tolerance(90.0, 200) > 8.0 && tolerance(90.0, 200) < 9.0);
        assert!(tolerance(50.0, 2000) > 4.0);
    }

    #[test]
    fn the_examples_services_get_the_addresses_that_the_demo_dials() {
        let yaml = fs::read_to_string(example("01-services.yaml")).expect("the example is there");
        let admitted = admit(&yaml, SERVICE_A);
        let (_, b) = admitted.split_once("name: service-b\n").expect("service-b is in it");
        assert!(b.contains(&format!("clusterIP: {}", cluster_ips(SERVICE_B).0)), "{admitted}");
        assert_eq!(yaml.matches("kind: Service\n").count(), 2);
    }
}
