//! `cargo xtask e2e`: installs weir in a real cluster, opts a namespace in and out, and checks every number of what the
//! users came for: the canary and its shift, pods of all kinds, an upgrade, an API server outage, the removal. Needs
//! kubectl, and a way to bring image archives into the nodes; nothing is pulled.

mod faults;
mod foreign;
mod kubectl;
mod lifecycle;
mod rules;
mod traffic;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use self::kubectl::{Kubectl, NAMESPACE};
use crate::demo::screen::Screen;
use crate::{image, workspace};

/// A rollout of pods whose image is on the node takes seconds; a busy small cluster gets this long.
pub(super) const ROLLOUT: Duration = Duration::from_mins(2);

/// Where and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The cluster's kubeconfig [default: kubectl's own]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context in it [default: the current one]
    #[arg(long)]
    context: Option<String>,
    /// Command that brings an image archive into the nodes; {} is the archive ("kind load image-archive {}")
    #[arg(long, value_name = "COMMAND")]
    load: Option<String>,
    /// Kustomization to install
    #[arg(long, value_name = "DIR", default_value = "deploy/daemonset")]
    kustomization: PathBuf,
    /// Commands that stop and start the API server, for the outage; without them it is left out
    #[arg(long, value_name = "COMMAND", requires = "api_start")]
    api_stop: Option<String>,
    /// See --api-stop
    #[arg(long, value_name = "COMMAND", requires = "api_stop")]
    api_start: Option<String>,
    /// Seconds that the API server is away
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    outage: u64,
    /// Take the images as they are in the nodes: those of `cargo xtask image --test-pods`, trained as a release is
    #[arg(long)]
    no_image: bool,
    /// Leave weir and the namespace weir-e2e in the cluster
    #[arg(long)]
    keep: bool,
}

/// What a run has and how it went so far.
pub(super) struct Run {
    kubectl: Kubectl,
    screen: Screen,
    passed: u32,
    failed: Vec<String>,
    kustomization: PathBuf,
    /// Address and port of service-b.
    service: String,
    /// What is not weir's, as it was before the installation.
    foreign: foreign::Bytes,
}

impl Run {
    /// The next step; what it proves.
    fn step(&mut self, title: &str, proves: &str) -> Result<()> {
        weir_tests::interrupt::check()?;
        Ok(self.screen.step(title, proves)?)
    }

    /// A line of what is seen.
    fn say(&mut self, text: &str) -> Result<()> {
        Ok(self.screen.say(&format!("   {text}"))?)
    }

    /// A bound that held or did not; the run goes on either way.
    fn check(&mut self, holds: bool, text: &str) -> Result<()> {
        if holds {
            self.passed += 1;
        } else {
            self.failed.push(text.to_owned());
        }
        Ok(self.screen.verdict(holds, text)?)
    }

    /// A step whose error is a failed check, so that one broken step does not hide the rest.
    fn attempt(&mut self, step: fn(&mut Self, &Args) -> Result<()>, args: &Args) -> Result<()> {
        match step(self, args) {
            Err(error) if !weir_tests::interrupt::interrupted() => self.check(false, &format!("{error:#}")),
            other => other,
        }
    }

    /// The client pods, one a node.
    fn clients(&self) -> Result<Vec<String>> {
        self.kubectl.pods("app=client")
    }

    fn client(&self) -> Result<String> {
        self.clients()?.into_iter().next().context("no client pod is running")
    }
}

/// Installs, tries, removes.
///
/// # Errors
/// When something that was checked does not hold, or the cluster cannot be used.
pub(crate) fn run(args: &Args) -> Result<()> {
    weir_tests::interrupt::install();
    let started = Instant::now();
    let kubectl = Kubectl { kubeconfig: args.kubeconfig.clone(), context: args.context.clone() };
    let mut run = Run {
        kubectl,
        screen: Screen::new(),
        passed: 0,
        failed: Vec::new(),
        kustomization: workspace::root().join(&args.kustomization),
        service: String::new(),
        foreign: foreign::Bytes::new(),
    };
    let nodes = run.kubectl.json(&["get", "nodes"])?["items"].as_array().map_or(0, Vec::len);
    run.screen.say(&format!("A cluster with {nodes} nodes."))?;
    // What a run with --keep left would be enrolled before the first step.
    run.kubectl.outside(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"])?;
    let outcome = steps(&mut run, args);
    if weir_tests::interrupt::interrupted() {
        run.screen.say("\nInterrupted. What was made is removed; Ctrl-C once more leaves the rest of it.")?;
        weir_tests::interrupt::reset();
    }
    if args.keep {
        run.screen.say("\nLeft in the cluster: weir, and the namespace weir-e2e.")?;
    } else {
        run.attempt(removal, args)?;
    }
    outcome?;
    run.screen.say(&format!(
        "\n{} checks passed, {} failed, in {:.0} s",
        run.passed,
        run.failed.len(),
        started.elapsed().as_secs_f64()
    ))?;
    if !run.failed.is_empty() {
        bail!("{}", run.failed.join("\n       "));
    }
    Ok(())
}

fn steps(run: &mut Run, args: &Args) -> Result<()> {
    if !args.no_image {
        images(run, args)?;
    }
    foreign::plant(run, args)?;
    install(run, args)?;
    application(run, args)?;
    run.attempt(traffic::before, args)?;
    run.attempt(traffic::opt_in, args)?;
    run.attempt(traffic::canary, args)?;
    run.attempt(traffic::shift, args)?;
    run.attempt(traffic::scale, args)?;
    run.attempt(traffic::tcp, args)?;
    run.attempt(rules::orders, args)?;
    run.attempt(rules::ejection, args)?;
    run.attempt(rules::fault, args)?;
    run.attempt(rules::mirror, args)?;
    run.attempt(rules::cookie, args)?;
    run.attempt(rules::breaker, args)?;
    run.attempt(rules::regions, args)?;
    run.attempt(lifecycle::pods, args)?;
    run.attempt(lifecycle::other_mesh, args)?;
    run.attempt(lifecycle::cluster, args)?;
    run.attempt(faults::upgrade, args)?;
    run.attempt(faults::outage, args)?;
    run.attempt(traffic::opt_out, args)
}

fn images(run: &mut Run, args: &Args) -> Result<()> {
    run.step("The images are made and brought into the nodes", "one static binary each; nothing is pulled")?;
    let load = args.load.as_deref().context("--load tells how an image archive gets into the nodes (or --no-image)")?;
    run.say("untrained (`cargo xtask train`): the same behaviour in half the time; --no-image takes released ones")?;
    for archive in image::all()? {
        run.say(&format!("{}", archive.display()))?;
        shell(&load.replace("{}", &archive.display().to_string()))?;
    }
    Ok(())
}

fn install(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("kubectl apply -k", "a DaemonSet and nothing else; ready on every node")?;
    let started = Instant::now();
    let kustomization = run.kustomization.display().to_string();
    run.kubectl.outside(&["apply", "-k", &kustomization])?;
    let timeout = format!("--timeout={}s", ROLLOUT.as_secs());
    run.kubectl.outside(&["-n", "weir-system", "rollout", "status", "daemonset/weir", &timeout])?;
    let took = started.elapsed();
    run.check(took < Duration::from_secs(10), &format!("ready on every node after {:.1} s", took.as_secs_f64()))
}

fn application(run: &mut Run, _args: &Args) -> Result<()> {
    run.step("Two services without weir", "nothing happens to a namespace that did not ask")?;
    run.kubectl.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n"))?;
    run.kubectl.apply(&manifest("tests/e2e/app.yaml", &[("IMAGE", &image::pods())])?)?;
    let timeout = format!("--timeout={}s", ROLLOUT.as_secs());
    for what in ["daemonset/client", "deployment/service-b-v1", "deployment/service-b-v2"] {
        run.kubectl.run(&["rollout", "status", what, &timeout])?;
    }
    let service = run.kubectl.json(&["get", "service", "service-b"])?;
    let address = service["spec"]["clusterIP"].as_str().context("service-b has no clusterIP")?;
    run.service = if address.contains(':') { format!("[{address}]:80") } else { format!("{address}:80") };
    let service = run.service.clone();
    run.say(&format!("service-b is {service}"))
}

/// A file of the workspace with words put in.
fn manifest(path: &str, words: &[(&str, &str)]) -> Result<String> {
    let file = workspace::root().join(path);
    let mut text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    for (word, value) in words {
        text = text.replace(word, value);
    }
    Ok(text)
}

fn shell(command: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", command]).status()?;
    ensure!(status.success(), "`{command}` ended with {status}");
    Ok(())
}

/// Takes away all that the run has made, however far it came.
fn removal(run: &mut Run, args: &Args) -> Result<()> {
    run.step("kubectl delete -k", "nothing of weir stays in the cluster or on a node; traffic flows as before")?;
    run.attempt(uninstall, args)?;
    run.attempt(foreign::compare, args)?;
    run.attempt(faults::nodes_are_clean, args)?;
    run.kubectl.run(&["delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true", "--timeout=120s"])?;
    foreign::uproot(run)
}

fn uninstall(run: &mut Run, _args: &Args) -> Result<()> {
    let kustomization: &Path = &run.kustomization;
    let kustomization = kustomization.display().to_string();
    let before = run.kubectl.run(&["get", "crds", "-o", "name"])?;
    let load = run.client().and_then(|client| {
        run.kubectl.load(&client, &["http", &run.service, "--fresh", "--pace", "100", "--connections", "2"])
    });
    run.kubectl.outside(&["delete", "-k", &kustomization, "--ignore-not-found", "--wait=true", "--timeout=120s"])?;
    let after = run.kubectl.run(&["get", "crds", "-o", "name"])?;
    run.check(before == after, "the CRDs are as they were")?;
    let report = load?.stop()?;
    run.check(
        report.failed == 0 && report.answered > 0,
        &format!("{} requests during the removal, {} failed {:?}", report.answered, report.failed, report.errors),
    )
}
