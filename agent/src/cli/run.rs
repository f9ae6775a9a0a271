//! `weir run`: arguments to a checked [`Config`], then the agent until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use weir_mesh::program::Share;

use crate::cluster::Access;
use crate::cluster::own::OwnPod;
use crate::config::{self, Config, LogFormat, Source};
use crate::{app, telemetry};

/// What `-` stands for.
const STDOUT: &str = "/dev/stdout";

/// Arguments of `weir run`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(group(clap::ArgGroup::new("source").required(true).args(["manifests", "kubernetes"])))]
pub(super) struct Args {
    /// Directory of Kubernetes manifests (YAML or JSON) to watch; Pods carry weir.mesh/netns and weir.mesh/cgroup, or are
    /// found by metadata.uid below kubepods
    #[arg(long, value_name = "DIR")]
    manifests: Option<PathBuf>,
    /// Watch a Kubernetes API server: that of the cluster this runs in, or of a kubeconfig
    #[arg(long)]
    kubernetes: bool,
    /// Kubeconfig file [default: KUBECONFIG, ~/.kube/config, or the pod's own service account]
    #[arg(long, value_name = "FILE", requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", requires = "kubernetes")]
    context: Option<String>,
    /// Name that keeps this agent's pins apart from those of other agents on the same kernel
    #[arg(long, default_value = config::DEFAULT_INSTANCE)]
    instance: String,
    /// Cgroup to attach the connect hooks to [default: kubepods, else the root of the v2 tree]
    #[arg(long, value_name = "DIR")]
    cgroup: Option<PathBuf>,
    /// Where the host's cgroup trees are mounted, in a container [default: found]
    #[arg(long, value_name = "DIR")]
    cgroup_root: Option<PathBuf>,
    /// Proxy workers, one pinned thread each
    #[arg(long, default_value_t = config::default_workers(), value_name = "N")]
    workers: usize,
    /// Where status, metrics and probes are served; loopback only
    #[arg(long, default_value = config::DEFAULT_ADMIN, value_name = "ADDRESS")]
    admin: SocketAddr,
    /// Where metrics, and nothing else, are served to others than this node: [::]:15020 is every address of either family
    /// [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Have the elected agent create the CustomResourceDefinitions of Istio's kinds that are absent
    #[arg(long, requires = "kubernetes")]
    create_crds: bool,
    /// Write an access log line per request to this file, or `-` for standard output [default: off]
    #[arg(long, value_name = "FILE|-")]
    access_log: Option<String>,
    /// How: Istio's default text, or JSON with Istio's keys
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT", requires = "access_log")]
    access_log_format: Format,
    /// Export spans of requests to this OpenTelemetry collector: OTLP over HTTP, http://HOST[:4318][/v1/traces] [default: off]
    #[arg(long, value_name = "URL", env = "WEIR_TRACE_COLLECTOR")]
    trace_collector: Option<String>,
    /// Which share of the requests, for which nobody has decided it yet, in percent
    #[arg(long, default_value_t = config::DEFAULT_TRACE_SAMPLING, value_name = "PERCENT", env = "WEIR_TRACE_SAMPLING")]
    trace_sampling: f64,
    /// With --kubernetes: directory of the files that `tls` of DestinationRules may name, in a subdirectory for each namespace
    #[arg(long, default_value = config::DEFAULT_TLS_FILES, value_name = "DIR", requires = "kubernetes")]
    tls_files: PathBuf,
    /// Name of this node: only pods with this spec.nodeName are enrolled [default: pods with weir.mesh/netns]
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// How long requests in flight may take after SIGTERM, in seconds
    #[arg(long, default_value_t = config::DEFAULT_DRAIN.as_secs(), value_name = "SECONDS")]
    drain: u64,
    /// Do not take istio-injection=enabled and istio.io/dataplane-mode=ambient for an opt-in
    #[arg(long)]
    no_istio_labels: bool,
    /// Run the debug build of the kernel programs and write their records to the log
    #[arg(long)]
    kernel_log: bool,
    /// Log as JSON lines; WEIR_LOG sets the level (default info)
    #[arg(long)]
    log_json: bool,
}

/// Of access log lines.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

pub(super) fn run(args: Args) -> Result<()> {
    telemetry::init_logging(args.log_json, args.kernel_log);
    app::run(&check(args)?)
}

fn check(args: Args) -> Result<Config> {
    let access = Access { kubeconfig: args.kubeconfig, context: args.context };
    let source = match args.manifests {
        Some(directory) => {
            ensure!(directory.is_dir(), "--manifests {}: not a directory", directory.display());
            Source::Manifests(directory)
        }
        None => Source::Kubernetes(access.clone()),
    };
    ensure!(
        args.admin.ip().is_loopback(),
        "--admin {}: the admin endpoint has no authentication and listens on loopback only",
        args.admin
    );
    ensure!(
        (1..=config::MAX_WORKERS).contains(&args.workers),
        "--workers {}: must be 1 to {}",
        args.workers,
        config::MAX_WORKERS
    );
    config::check_instance(&args.instance).context("--instance")?;
    ensure!((0.0..=100.0).contains(&args.trace_sampling), "--trace-sampling {}: must be 0 to 100", args.trace_sampling);
    let own = OwnPod::from_environment();
    Ok(Config {
        source,
        instance: args.instance,
        cgroup: args.cgroup,
        cgroup_root: args.cgroup_root,
        workers: args.workers,
        admin: args.admin,
        metrics: args.metrics,
        cluster: (args.kubernetes && (args.create_crds || own.is_some())).then_some(access),
        own,
        create_crds: args.create_crds,
        access_log: args.access_log.map(|file| if file == "-" { STDOUT.into() } else { file.into() }),
        log_format: match args.access_log_format {
            Format::Text => LogFormat::Text,
            Format::Json => LogFormat::Json,
        },
        tracing: args.trace_collector.map(|collector| (collector, Share::of_percent(args.trace_sampling))),
        tls_files: args.tls_files,
        node: args.node,
        drain: Duration::from_secs(args.drain),
        accept_istio_labels: !args.no_istio_labels,
        kernel_log: args.kernel_log,
    })
}
