//! How an API server is to be: what its builder sets, and the same as arguments of the program.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::netns::NetNs;

/// Changes that each resource remembers: a minute of 100 updates a second and some more.
const HISTORY: usize = 10_000;
/// The real server sends a bookmark about once a minute; tests do not wait that long.
const BOOKMARK_EVERY: Duration = Duration::from_secs(5);

/// Options of a server.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) address: IpAddr,
    /// 0 for one that is free.
    pub(super) port: u16,
    pub(super) netns: Option<NetNs>,
    pub(super) history: usize,
    pub(super) bookmark_every: Duration,
    /// A watch from a forgotten version is answered with HTTP 410, not with an event in the stream.
    pub(super) gone_before_stream: bool,
    pub(super) tls: bool,
    pub(super) rbac: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::LOCALHOST.into(),
            port: 0,
            netns: None,
            history: HISTORY,
            bookmark_every: BOOKMARK_EVERY,
            gone_before_stream: false,
            tls: false,
            rbac: false,
        }
    }
}

impl Options {
    /// As arguments, which [`Self::parse`] reads.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--address={}", self.address),
            format!("--port={}", self.port),
            format!("--history={}", self.history),
            format!("--bookmark-ms={}", self.bookmark_every.as_millis()),
        ];
        arguments.extend(self.netns.iter().map(|n| format!("--netns={}", n.name())));
        for (given, flag) in
            [(self.gone_before_stream, "--gone-before-stream"), (self.tls, "--tls"), (self.rbac, "--rbac")]
        {
            arguments.extend(given.then(|| flag.to_owned()));
        }
        arguments
    }

    /// Reads arguments; the second value is the control port, 0 for one that is free.
    ///
    /// # Errors
    /// When one is not known or not well formed.
    pub(super) fn parse(arguments: impl Iterator<Item = String>) -> Result<(Self, u16)> {
        let (mut options, mut control) = (Self::default(), 0);
        for argument in arguments {
            let (name, value) = argument.split_once('=').unwrap_or((&argument, ""));
            let number = || value.parse::<u64>().with_context(|| format!("{name} takes a number, not {value:?}"));
            match name {
                "--address" => options.address = value.parse().with_context(|| format!("{value:?} is no address"))?,
                "--port" => options.port = u16::try_from(number()?)?,
                "--control-port" => control = u16::try_from(number()?)?,
                "--history" => options.history = number()? as usize,
                "--bookmark-ms" => options.bookmark_every = Duration::from_millis(number()?),
                "--netns" => options.netns = Some(NetNs::open(value)?),
                "--gone-before-stream" => options.gone_before_stream = true,
                "--tls" => options.tls = true,
                "--rbac" => options.rbac = true,
                _ => bail!(
                    "unknown argument {name:?}; there are --address=IP --port=N --control-port=N --history=N \
                     --bookmark-ms=N --netns=NAME --gone-before-stream --tls --rbac"
                ),
            }
        }
        Ok((options, control))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_survive_the_way_through_arguments() {
        let options = Options { port: 7, history: 3, tls: true, gone_before_stream: true, ..Options::default() };
        let (read, control) = Options::parse(options.arguments().into_iter()).expect("our own arguments");
        assert_eq!((read.port, read.history, read.tls, read.rbac, control), (7, 3, true, false, 0));
        assert_eq!(read.arguments(), options.arguments());
        assert!(Options::parse(["--nonsense".to_owned()].into_iter()).is_err());
    }
}
