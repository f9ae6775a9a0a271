//! `weir crds`: the CustomResourceDefinitions of Istio's kinds that weir reads, into a cluster that lacks them.

use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::{ClusterArgs, output};
use crate::cluster::crds::{self, Outcome};

/// Arguments of `weir crds`.
#[derive(Debug, clap::Args)]
#[group(id = "what", required = true, multiple = false, args = ["if_absent", "print"])]
pub(super) struct Args {
    /// Create those that are absent; what is there is neither changed nor deleted
    #[arg(long)]
    if_absent: bool,
    /// Print them as YAML instead
    #[arg(long)]
    print: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn run(args: &Args) -> Result<()> {
    if args.print {
        return output::print(&render()?);
    }
    let outcomes = super::block_on(async {
        let client = args.cluster.access().client().await?;
        crds::create_absent(&client).await.context("creating what is absent (repeat it to go on)")
    })?;
    let mut text = String::new();
    for (name, outcome) in outcomes {
        let what = match outcome {
            Outcome::Created => "created",
            Outcome::Present => "there already, unchanged",
        };
        writeln!(text, "{name}: {what}")?;
    }
    output::print(&text)
}

/// One document each, for `kubectl create -f -`.
fn render() -> Result<String> {
    let mut text = String::new();
    for definition in crds::definitions() {
        text.push_str("---\n");
        text.push_str(serde_saphyr::to_string(&definition)?.trim_end());
        text.push('\n');
    }
    Ok(text)
}
