//! The policy toward a destination: load balancing, connection pools, ejection, TLS. Decoded by `crd`, resolved by
//! `compile` over the levels of a DestinationRule, carried by [`super::Cluster`].

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use http::HeaderName;

use super::action::Share;
use super::client_tls::ClientTls;
use super::locality::TrafficDistribution;
use crate::source::{Location, ObjectRef};

/// How an endpoint is picked within a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum LoadBalancer {
    /// Two random choices, the one with fewer active requests. Istio's default.
    #[default]
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
    /// The address that the client dialled.
    Passthrough,
}

impl LoadBalancer {
    /// As Istio writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LeastRequest => "LEAST_REQUEST",
            Self::RoundRobin => "ROUND_ROBIN",
            Self::Random => "RANDOM",
            Self::Passthrough => "PASSTHROUGH",
        }
    }
}

/// `loadBalancer`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancing {
    /// `simple`
    pub simple: LoadBalancer,
    /// `consistentHash`, in the place of `simple`.
    pub hash: Option<ConsistentHash>,
    /// `localityLbSetting`
    pub locality: Option<Locality>,
    /// `zoneAwareLbSetting`, which comes before `localityLbSetting`.
    pub zone_aware: Option<ZoneAware>,
    /// `warmup`
    pub warmup: Option<Warmup>,
}

impl LoadBalancing {
    /// Whether it asks for balancing by zones, which is in the place of that by localities.
    pub(crate) fn is_zone_aware(&self) -> bool {
        self.zone_aware.as_ref().is_some_and(|zones| zones.enabled != Some(false))
    }

    /// As Istio calls it.
    pub fn as_str(&self) -> &'static str {
        if self.hash.is_some() { "consistentHash" } else { self.simple.as_str() }
    }
}

/// `consistentHash`: requests with one key go to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsistentHash {
    /// What is hashed. A request without it goes anywhere.
    pub key: HashKey,
    /// By what table.
    pub table: HashTable,
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// `httpHeaderName`
    Header(HeaderName),
    /// `httpCookie`
    Cookie(Cookie),
    /// `useSourceIp`
    SourceIp,
    /// `httpQueryParameterName`
    QueryParameter(Box<str>),
}

/// `httpCookie`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: Box<str>,
    /// Its path; empty = none.
    pub path: Box<str>,
    /// How long a cookie lives that is made for a client without one; zero = its session. `None`: none is made.
    pub ttl: Option<Duration>,
    /// Further attributes of a cookie that is made.
    pub attributes: Box<[(Box<str>, Box<str>)]>,
}

/// The table of a consistent hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashTable {
    /// At least so many points.
    Ring(u64),
    /// So many slots, a prime.
    Maglev(u64),
}

impl HashTable {
    /// Istio's default: a ring of 1024 points.
    pub const DEFAULT: Self = Self::Ring(1024);
}

/// From a region to another.
pub type Failover = (Box<str>, Box<str>);
/// For clients of a locality, the shares of others in percent.
pub type Distribute = (Box<str>, Box<[(Box<str>, u32)]>);

/// `localityLbSetting`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locality {
    /// `enabled`; `None` = as the mesh, which has it enabled.
    pub enabled: Option<bool>,
    /// `distribute`
    pub distribute: Box<[Distribute]>,
    /// `failover`
    pub failover: Box<[Failover]>,
    /// Labels, the most important first: `key` or `key=value`.
    pub failover_priority: Box<[Box<str>]>,
}

/// `zoneAwareLbSetting`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneAware {
    /// `enabled`
    pub enabled: Option<bool>,
    /// As in [`Locality`].
    pub failover: Box<[Failover]>,
    /// As in [`Locality`].
    pub failover_priority: Box<[Box<str>]>,
    /// With fewer endpoints zones do not count.
    pub min_cluster_size: Option<u32>,
}

/// `warmup`: new endpoints get their share little by little.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warmup {
    /// Until it is whole.
    pub duration: Duration,
    /// Where it begins, of the whole.
    pub minimum: Share,
    /// The curve: share = time ^ (1 / aggression). In thousandths.
    pub aggression_thousandths: u32,
}

/// `connectionPool`. What is `None` has no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionPool {
    /// Connections of this node's proxy to the cluster.
    pub max_connections: Option<u32>,
    /// How long a connect may take.
    pub connect_timeout: Option<Duration>,
    /// `tcp.idleTimeout`
    pub tcp_idle_timeout: Option<Duration>,
    /// `tcp.maxConnectionDuration`
    pub max_connection_duration: Option<Duration>,
    /// `tcp.tcpKeepalive`: probes, time and interval, each as the system has it where it is not given.
    pub keepalive: Option<(Option<u32>, Option<Duration>, Option<Duration>)>,
    /// Whether `http` is given.
    pub http: Option<HttpPool>,
}

impl ConnectionPool {
    /// Whether anything is said of connections that who dials them itself does not keep.
    pub fn is_beyond_kernel(&self) -> bool {
        self.max_connections.is_some()
            || self.max_connection_duration.is_some()
            || self.tcp_idle_timeout.is_some()
            || self.keepalive.is_some()
    }

    /// Whether anything is said of a connection beside how it is opened.
    pub fn has_terms(&self) -> bool {
        let of_http = |http: &HttpPool| http.max_requests_per_connection.is_some() || http.idle_timeout.is_some();
        self.max_connections.is_some()
            || self.max_connection_duration.is_some()
            || self.http.as_ref().is_some_and(of_http)
    }
}

/// `connectionPool.http`. The limits hold for HTTP/1 and HTTP/2 alike, whatever their names say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpPool {
    /// `http1MaxPendingRequests`: requests that wait for a connection.
    pub max_pending_requests: Option<u32>,
    /// `http2MaxRequests`: requests under way.
    pub max_requests: Option<u32>,
    /// 1 = no keep-alive.
    pub max_requests_per_connection: Option<u32>,
    /// Retries under way.
    pub max_retries: Option<u32>,
    /// Until a connection without requests is closed.
    pub idle_timeout: Option<Duration>,
    /// `h2UpgradePolicy`: `Some(true)` = UPGRADE.
    pub upgrade: Option<bool>,
    /// `useClientProtocol`
    pub use_client_protocol: bool,
    /// On one connection.
    pub max_concurrent_streams: Option<u32>,
    /// `http2KeepAlive`: interval and timeout.
    pub keepalive: Option<(Duration, Duration)>,
}

/// `outlierDetection`, with its defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutlierDetection {
    /// 0 = not counted.
    pub consecutive_5xx_errors: u32,
    /// 502, 503 and 504; 0 = not counted.
    pub consecutive_gateway_errors: u32,
    /// Connect failures and timeouts, where they are counted apart; 0 = not counted.
    pub consecutive_local_origin_failures: u32,
    /// Whether they are.
    pub split_local_origin_errors: bool,
    /// Between two looks at what may come back.
    pub interval: Duration,
    /// Times the number of ejections.
    pub base_ejection_time: Duration,
    /// Of all endpoints; one may always be ejected where two are healthy.
    pub max_ejection_percent: u8,
    /// Below it every endpoint is used.
    pub min_health_percent: u8,
    /// In the place of 5xx; empty = 5xx.
    pub http_error_codes: Box<[u16]>,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_5xx_errors: 5,
            consecutive_gateway_errors: 0,
            consecutive_local_origin_failures: 5,
            split_local_origin_errors: false,
            interval: Duration::from_secs(10),
            base_ejection_time: Duration::from_secs(30),
            max_ejection_percent: 10,
            min_health_percent: 0,
            http_error_codes: Box::default(),
        }
    }
}

/// `tunnel`: connections go through another host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// `POST` in the place of `CONNECT`.
    pub post: bool,
    /// `targetHost`
    pub host: Box<str>,
    /// `targetPort`
    pub port: u16,
}

/// `retryBudget`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Of the requests under way.
    pub share: Share,
    /// Retries that are allowed all the same.
    pub min_retry_concurrency: u32,
}

/// Which part of a DestinationRule a block is from. Later ones come before earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// `trafficPolicy`
    Rule,
    /// `trafficPolicy.portLevelSettings`
    RulePort,
    /// `subsets[].trafficPolicy`
    Subset,
    /// `subsets[].trafficPolicy.portLevelSettings`
    SubsetPort,
}

impl Level {
    /// As it is called in a rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rule => "trafficPolicy",
            Self::RulePort => "trafficPolicy.portLevelSettings",
            Self::Subset => "the subset's trafficPolicy",
            Self::SubsetPort => "the subset's trafficPolicy.portLevelSettings",
        }
    }
}

/// Where a block of a policy is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The DestinationRule.
    pub object: ObjectRef,
    /// Where it stands.
    pub at: Option<Location>,
    /// On which level.
    pub level: Level,
}

/// A block in force, and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<T> {
    /// What it says.
    pub value: Arc<T>,
    /// Who said it.
    pub origin: Arc<Origin>,
}

/// Everything that holds toward a cluster. A block that no rule gives is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is Istio's block of the same name")]
pub struct ClusterPolicy {
    pub load_balancer: Option<Block<LoadBalancing>>,
    pub connection_pool: Option<Block<ConnectionPool>>,
    pub outlier_detection: Option<Block<OutlierDetection>>,
    pub tls: Option<Block<ClientTls>>,
    pub tunnel: Option<Block<Tunnel>>,
    pub proxy_protocol: Option<Block<u8>>,
    pub retry_budget: Option<Block<RetryBudget>>,
}

impl ClusterPolicy {
    /// Istio's default for a connect.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

    /// What holds without any rule; one for all.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<ClusterPolicy>> = LazyLock::new(Arc::default);
        Arc::clone(&NONE)
    }

    /// A policy that no rule gave, for programs that are put together by hand.
    pub fn new(simple: LoadBalancer, connect_timeout: Duration) -> Arc<Self> {
        let object = ObjectRef {
            kind: "DestinationRule".into(),
            group: "networking.istio.io".into(),
            namespace: Arc::default(),
            name: Arc::default(),
        };
        let origin = Arc::new(Origin { object, at: None, level: Level::Rule });
        let pool = ConnectionPool { connect_timeout: Some(connect_timeout), ..ConnectionPool::default() };
        let balancing = LoadBalancing { simple, ..LoadBalancing::default() };
        Arc::new(Self {
            load_balancer: Some(Block { value: Arc::new(balancing), origin: Arc::clone(&origin) }),
            connection_pool: Some(Block { value: Arc::new(pool), origin }),
            ..Self::default()
        })
    }

    /// How an endpoint is picked where no hash decides.
    pub fn simple(&self) -> LoadBalancer {
        self.load_balancer.as_ref().map(|block| block.value.simple).unwrap_or_default()
    }

    /// How long a connect may take.
    pub fn connect_timeout(&self) -> Duration {
        let pool = self.connection_pool.as_ref();
        pool.and_then(|block| block.value.connect_timeout).unwrap_or(Self::CONNECT_TIMEOUT)
    }

    /// What is hashed, where requests stick to endpoints.
    pub fn hash(&self) -> Option<&ConsistentHash> {
        self.load_balancer.as_ref()?.value.hash.as_ref()
    }

    /// Whether connections go where the client dialled, whatever the endpoints are.
    pub fn passes_through(&self) -> bool {
        self.simple() == LoadBalancer::Passthrough && self.hash().is_none()
    }

    /// What is asked for that takes a look at requests, where they can be told apart: who said it, and what it is called.
    /// Nobody balances where clients dial the pods of a `headless` service.
    pub fn beyond_connections(&self, headless: bool) -> Option<(&Origin, &'static str)> {
        let balancer = self.load_balancer.as_ref().filter(|_| !headless);
        let pool = self.connection_pool.as_ref().filter(|pool| pool.value.http.is_some());
        let balancer = balancer.map(|block| (&*block.origin, block.value.as_str()));
        balancer.or_else(|| pool.map(|block| (&*block.origin, "connectionPool.http")))
    }

    fn detects_outliers(&self, headless: bool) -> Option<(&Origin, &'static str)> {
        let outliers = self.outlier_detection.as_ref().filter(|_| !headless);
        outliers.map(|block| (&*block.origin, "outlierDetection"))
    }

    fn balances_beyond_kernel(&self, headless: bool) -> Option<(&Origin, &'static str)> {
        let balancer = self.load_balancer.as_ref().filter(|_| !headless)?;
        let by_address = self.hash().is_some_and(|hash| hash.key == HashKey::SourceIp);
        let name = match () {
            () if by_address => "consistentHash by source IP",
            () if self.warmup().is_some() => "warmup",
            () if self.passes_through() => "PASSTHROUGH",
            () => return None,
        };
        Some((&balancer.origin, name))
    }

    /// How connections are encrypted by the proxy, where they are.
    pub fn originates(&self) -> Option<&Block<ClientTls>> {
        self.tls.as_ref().filter(|tls| tls.value.is_originated())
    }

    /// What is asked for that the kernel does not do for connections, likewise.
    pub fn beyond_kernel(&self, headless: bool) -> Option<(&Origin, &'static str)> {
        if let Some(tls) = self.originates() {
            return Some((&tls.origin, "TLS toward its endpoints"));
        }
        let pool = || {
            let pool = self.connection_pool.as_ref().filter(|pool| pool.value.is_beyond_kernel())?;
            Some((&*pool.origin, "connectionPool"))
        };
        self.balances_beyond_kernel(headless).or_else(|| self.detects_outliers(headless)).or_else(pool)
    }

    /// How new endpoints get their share. A hash has no use for it, nor has chance.
    pub fn warmup(&self) -> Option<&Warmup> {
        let balancing = &self.load_balancer.as_ref()?.value;
        let uses = matches!(balancing.simple, LoadBalancer::RoundRobin | LoadBalancer::LeastRequest);
        balancing.warmup.as_ref().filter(|_| uses && balancing.hash.is_none())
    }

    /// What holds of balancing by locality, who asks for it by which field, and whether endpoints farther away wait until
    /// the near ones fail; `None` = endpoints are used alike wherever they are. What a rule says comes before the Service's
    /// `distribution`, and that before the mesh's default. Nothing fails over where failing endpoints are not noticed,
    /// unless the Service asks for near ones.
    pub(crate) fn locality(
        &self,
        service: &ObjectRef,
        distribution: Option<TrafficDistribution>,
    ) -> Option<(Arc<Locality>, ObjectRef, &'static str, bool)> {
        let outliers = self.outlier_detection.as_ref();
        let balancer = self.load_balancer.as_ref();
        if self.passes_through() || balancer.is_some_and(|block| block.value.is_zone_aware()) {
            return None;
        }
        let given = balancer.and_then(|block| Some((block.value.locality.as_ref()?, &block.origin.object)));
        match (given, distribution, outliers) {
            (Some((setting, _)), ..) if setting.enabled == Some(false) => None,
            (Some((setting, by)), _, outliers) => (outliers.is_some() || !setting.distribute.is_empty())
                .then(|| (Arc::new(setting.clone()), by.clone(), "localityLbSetting", outliers.is_some())),
            (None, Some(wanted), _) => Some((Arc::new(wanted.setting()), service.clone(), "trafficDistribution", true)),
            (None, None, Some(outliers)) => {
                let object = outliers.origin.object.clone();
                Some((Arc::new(Locality::mesh_default()), object, "outlierDetection", true))
            }
            (None, None, None) => None,
        }
    }
}
