//! An API server for tests: what clients of Kubernetes expect of one, in memory, with every way to fail. Used by the
//! suites about the cluster, and by whoever wants the agent to watch something without a cluster.
//!
//! It runs on a thread of its own, or as the process `weir-test-apiserver`; both are told the same things.
//!
//! ```no_run
//! use weir_tests::apiserver::{ApiServer, Fault};
//!
//! # fn main() -> anyhow::Result<()> {
//! let api = ApiServer::start()?;
//! api.apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {weir.mesh/mode: enabled}}}")?;
//! api.faults().inject(Fault::answer(429).retry_after(1).times(3).verb("list").resource("pods"))?;
//! let _kubectl = std::process::Command::new("kubectl").env("KUBECONFIG", api.kubeconfig());
//! assert_eq!(api.counters()?.requests("list", "pods"), 0);
//! # Ok(())
//! # }
//! ```

mod access;
mod admit;
mod certificates;
mod command;
mod counters;
mod discovery;
mod door;
mod faults;
mod object;
mod options;
mod patch;
mod population;
mod portforward;
mod read;
mod request;
mod resources;
mod selector;
mod serve;
mod server;
mod status;
mod store;
mod watching;
mod write;
mod yaml;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use tempfile::TempDir;

use self::command::Command;
use self::door::{Door, Started};
use self::options::Options;
use crate::netns::NetNs;

pub use self::counters::{Count, Counters};
pub use self::faults::{Bookmarks, Fault, Garbage};
pub use self::population::Population;

/// The token of the user that the plain kubeconfig names, who may do everything.
const ADMIN_TOKEN: &str = "admin";

/// A server that is to be started.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder {
    options: Options,
}

impl Builder {
    /// On this port of the loopback address, instead of one that is free.
    pub fn port(mut self, port: u16) -> Self {
        self.options.port = port;
        self
    }

    /// Listening inside a network namespace, on its loopback address.
    pub fn inside(mut self, netns: &NetNs) -> Self {
        self.options.netns = Some(netns.clone());
        self
    }

    /// How many changes of each resource are remembered (10,000); a watch from before them is told 410.
    pub fn history(mut self, changes: usize) -> Self {
        self.options.history = changes;
        self
    }

    /// How often watches that want them get bookmarks (5 s).
    pub fn bookmark_every(mut self, period: Duration) -> Self {
        self.options.bookmark_every = period;
        self
    }

    /// A watch from a forgotten version is answered with HTTP 410 at once. Without this it is opened, and told so by an
    /// event of type ERROR, as the real server does.
    pub fn gone_before_stream(mut self) -> Self {
        self.options.gone_before_stream = true;
        self
    }

    /// Requests need what the Roles and bindings in the store allow. The kubeconfig's own user may do everything.
    pub fn rbac(mut self) -> Self {
        self.options.rbac = true;
        self
    }

    /// HTTPS, with a certificate of an authority that the kubeconfig names.
    pub fn tls(mut self) -> Self {
        self.options.tls = true;
        self
    }

    /// Starts the server on a thread of this process.
    ///
    /// # Errors
    /// When the address is taken.
    pub fn start(self) -> Result<ApiServer> {
        let rbac = self.options.rbac;
        ApiServer::behind(Door::thread(self.options)?, rbac)
    }

    /// Starts the server as a process of its own, `weir-test-apiserver`.
    ///
    /// # Errors
    /// When the program has not been built, or the address is taken.
    pub fn spawn(self) -> Result<ApiServer> {
        ApiServer::behind(Door::process(&self.options)?, self.options.rbac)
    }
}

/// Runs a server with its control port until standard input ends; the program `weir-test-apiserver`.
///
/// # Errors
/// When an argument is not known, or an address is taken.
pub fn serve_process(arguments: impl Iterator<Item = String>) -> Result<()> {
    let (options, control_port) = Options::parse(arguments)?;
    door::serve(options, control_port)
}

/// A running API server; it ends when dropped. Resources are named as in `kubectl api-resources`, with the group:
/// `pods`, `virtualservices.networking.istio.io`.
#[derive(Debug)]
pub struct ApiServer {
    door: Door,
    started: Started,
    directory: TempDir,
}

impl ApiServer {
    /// Plain HTTP on a free port of the loopback address, everything allowed.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    fn behind((door, started): (Door, Started), rbac: bool) -> Result<Self> {
        let directory = tempfile::tempdir().context("making a directory for the kubeconfig")?;
        let api = Self { door, started, directory };
        if rbac {
            api.add_user(ADMIN_TOKEN, "admin", &["system:masters"])?;
        }
        api.write_kubeconfig("kubeconfig", ADMIN_TOKEN)?;
        Ok(api)
    }

    /// A server with options.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The process that it is, if it was started as one.
    pub fn pid(&self) -> Option<u32> {
        self.door.pid()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.started.address
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        let scheme = if self.started.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.started.address)
    }

    /// A kubeconfig whose user may do everything. It goes with the server.
    pub fn kubeconfig(&self) -> PathBuf {
        self.directory.path().join("kubeconfig")
    }

    fn tell(&self, command: Command) -> Result<Value> {
        self.door.tell(command)
    }

    /// Stores every document of a YAML text as it is written, status included, over what is there, past faults and
    /// authorization. Missing namespaces are made. Gives the resource version of the last one.
    ///
    /// # Errors
    /// When the text is no YAML, or of a kind that is not served (yet).
    pub fn apply(&self, yaml: &str) -> Result<u64> {
        let version = self.tell(Command::Apply { yaml: yaml.to_owned() })?;
        version.as_u64().context("the version is a number")
    }

    /// Applies every `.yaml` file of a directory, by name.
    ///
    /// # Errors
    /// When one cannot be read or applied.
    pub fn apply_directory(&self, directory: &Path) -> Result<()> {
        let entries = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
        files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
        files.sort();
        for file in files {
            let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            self.apply(&text).with_context(|| format!("applying {}", file.display()))?;
        }
        Ok(())
    }

    /// Deletes an object at once, whatever finalizers it has; with a namespace or a definition goes what is in it.
    /// Gives the resource version.
    ///
    /// # Errors
    /// When it is not there.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> Result<u64> {
        let [resource, namespace, name] = [resource, namespace, name].map(str::to_owned);
        self.tell(Command::Delete { resource, namespace, name })?.as_u64().context("the version is a number")
    }

    /// An object as it is stored.
    ///
    /// # Errors
    /// When the resource is not served.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let [resource, namespace, name] = [resource, namespace, name].map(str::to_owned);
        let found = self.tell(Command::Get { resource, namespace, name })?;
        Ok((!found.is_null()).then_some(found))
    }

    /// Every object of a resource.
    ///
    /// # Errors
    /// When the resource is not served.
    pub fn list(&self, resource: &str) -> Result<Vec<Value>> {
        let found = self.tell(Command::List { resource: resource.to_owned() })?;
        Ok(found.as_array().cloned().unwrap_or_default())
    }

    /// The resource version of the last change.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn version(&self) -> Result<u64> {
        self.tell(Command::Version)?.as_u64().context("the version is a number")
    }

    /// Creates the CustomResourceDefinitions of Istio's kinds, which are served at once.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn install_istio_crds(&self) -> Result<()> {
        self.tell(Command::InstallIstio).map(drop)
    }

    /// Creates many objects; gives how many bytes they take.
    ///
    /// # Errors
    /// When the CustomResourceDefinitions that it needs are missing.
    pub fn populate(&self, population: &Population) -> Result<u64> {
        self.tell(Command::Populate(population.clone()))?.as_u64().context("the size is a number")
    }

    /// Makes a bearer token known. As soon as one is, every request needs one.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn add_user(&self, token: &str, user: &str, groups: &[&str]) -> Result<()> {
        let groups = groups.iter().map(|g| (*g).to_owned()).collect();
        self.tell(Command::AddUser { token: token.to_owned(), user: user.to_owned(), groups }).map(drop)
    }

    /// Makes a bearer token unknown: who uses it gets 401.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn remove_user(&self, token: &str) -> Result<()> {
        self.tell(Command::RemoveUser { token: token.to_owned() }).map(drop)
    }

    /// Makes a user and gives a kubeconfig for it: `system:serviceaccount:NAMESPACE:NAME`, or anybody. It goes with the
    /// server.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn kubeconfig_for(&self, user: &str) -> Result<PathBuf> {
        let token = format!("token-{}", admit::serial());
        self.add_user(&token, user, &[])?;
        self.write_kubeconfig(&token, &token)
    }

    fn write_kubeconfig(&self, file: &str, token: &str) -> Result<PathBuf> {
        let mut cluster = serde_json::json!({"server": self.url()});
        if let Some(ca) = &self.started.ca {
            let path = self.directory.path().join("ca.pem");
            fs::write(&path, ca).with_context(|| format!("writing {}", path.display()))?;
            cluster["certificate-authority"] = path.display().to_string().into();
        }
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        let path = self.directory.path().join(file);
        fs::write(&path, config.to_string()).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// What goes wrong on purpose.
    pub fn faults(&self) -> Faults<'_> {
        Faults { api: self }
    }

    /// Ends: connections are cut, new ones are refused. State and port are kept for [`Self::resume`].
    ///
    /// # Errors
    /// When the server does not obey.
    pub fn stop(&self) -> Result<()> {
        self.tell(Command::Stop).map(drop)
    }

    /// Goes on after [`Self::stop`] or [`Faults::refuse_connections`], on the same port with the same state.
    ///
    /// # Errors
    /// When the port cannot be bound again.
    pub fn resume(&self) -> Result<()> {
        self.tell(Command::Open).map(drop)
    }

    /// What was counted.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn counters(&self) -> Result<Counters> {
        Ok(serde_json::from_value(self.tell(Command::Counters)?)?)
    }

    /// Counts from zero; watches that are open stay counted.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn reset_counters(&self) -> Result<()> {
        self.tell(Command::ResetCounters).map(drop)
    }
}

/// The server's faults. Everything holds until [`Faults::clear`], or until its dose is used up.
#[derive(Debug)]
pub struct Faults<'a> {
    api: &'a ApiServer,
}

impl Faults<'_> {
    /// Adds a fault to those in force.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn inject(&self, fault: Fault) -> Result<()> {
        self.api.tell(Command::Inject(fault)).map(drop)
    }

    /// Every request and every batch of events is late.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn latency(&self, delay: Duration) -> Result<()> {
        self.inject(Fault::latency(delay))
    }

    /// No fault is in force any more.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn clear(&self) -> Result<()> {
        self.api.tell(Command::ClearFaults).map(drop)
    }

    /// What bookmarks are like.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn bookmarks(&self, bookmarks: Bookmarks) -> Result<()> {
        self.api.tell(Command::SetBookmarks(bookmarks)).map(drop)
    }

    /// Ends every open watch well, as the real server does now and then.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn cut_watches(&self) -> Result<()> {
        self.api.tell(Command::CutWatches { abruptly: false }).map(drop)
    }

    /// Breaks the connection of every open watch.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn break_watches(&self) -> Result<()> {
        self.api.tell(Command::CutWatches { abruptly: true }).map(drop)
    }

    /// Forgets all history: every version but the present one is answered with 410. Watches that have seen everything
    /// go on.
    ///
    /// # Errors
    /// When the server cannot be told.
    pub fn expire_history(&self) -> Result<()> {
        self.api.tell(Command::Expire).map(drop)
    }

    /// Refuses new connections until [`ApiServer::resume`]; those that are there go on.
    ///
    /// # Errors
    /// When the server does not obey.
    pub fn refuse_connections(&self) -> Result<()> {
        self.api.tell(Command::Refuse).map(drop)
    }
}
