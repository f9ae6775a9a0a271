//! The annotations that Istio documents: which objects they are for, and how settled they are. Read by
//! [`super::annotations`].

use Status::{Alpha, AlphaDeprecated, Deprecated, Settled};

/// How settled an annotation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Alpha,
    AlphaDeprecated,
    Deprecated,
    Settled,
}

/// Name, status, and the kinds that it is for.
#[derive(Debug)]
pub(super) struct Known(pub(super) &'static str, pub(super) Status, pub(super) &'static [&'static str]);

/// By name.
pub(super) const KNOWN: &[Known] = &[
    Known("alpha.istio.io/canonical-serviceaccounts", AlphaDeprecated, &["Service"]),
    Known("alpha.istio.io/kubernetes-serviceaccounts", AlphaDeprecated, &["Service"]),
    Known("ambient.istio.io/bypass-inbound-capture", Alpha, &["Pod"]),
    Known("ambient.istio.io/dns-capture", Alpha, &["Pod"]),
    Known("ambient.istio.io/redirection", Settled, &["Pod"]),
    Known("ambient.istio.io/waypoint-inbound-binding", Alpha, &["GatewayClass", "Gateway"]),
    Known("galley.istio.io/analyze-suppress", Alpha, &["Any"]),
    Known("gateway.istio.io/controller-version", Alpha, &["Any"]),
    Known("gateway.istio.io/name-override", Alpha, &["Gateway"]),
    Known("gateway.istio.io/service-account", Alpha, &["Gateway"]),
    Known("inject.istio.io/templates", Alpha, &["Pod"]),
    Known("istio.io/autoRegistrationGroup", Alpha, &["WorkloadEntry"]),
    Known("istio.io/connectedAt", Alpha, &["WorkloadEntry"]),
    Known("istio.io/disconnectedAt", Alpha, &["WorkloadEntry"]),
    Known("istio.io/dry-run", Alpha, &["AuthorizationPolicy"]),
    Known("istio.io/reroute-virtual-interfaces", Alpha, &["Pod"]),
    Known("istio.io/rev", Alpha, &["Pod"]),
    Known("istio.io/use-waypoint-canary-weight", Alpha, &["Service", "ServiceEntry", "Namespace"]),
    Known("istio.io/workloadController", Alpha, &["WorkloadEntry"]),
    Known("kubernetes.io/ingress.class", Settled, &["Ingress"]),
    Known("networking.istio.io/exportTo", Alpha, &["Service"]),
    Known("networking.istio.io/service-type", Alpha, &["Gateway"]),
    Known("networking.istio.io/traffic-distribution", Alpha, &["Namespace", "Service", "ServiceEntry"]),
    Known("prometheus.istio.io/merge-metrics", Alpha, &["Pod"]),
    Known("proxy.istio.io/config", Settled, &["Pod"]),
    Known("proxy.istio.io/overrides", Alpha, &["Pod"]),
    Known("readiness.status.sidecar.istio.io/applicationPorts", Alpha, &["Pod"]),
    Known("readiness.status.sidecar.istio.io/failureThreshold", Alpha, &["Pod"]),
    Known("readiness.status.sidecar.istio.io/initialDelaySeconds", Alpha, &["Pod"]),
    Known("readiness.status.sidecar.istio.io/periodSeconds", Alpha, &["Pod"]),
    Known("sidecar.istio.io/agentLogLevel", Alpha, &["Pod"]),
    Known("sidecar.istio.io/bootstrapOverride", Alpha, &["Pod"]),
    Known("sidecar.istio.io/componentLogLevel", Alpha, &["Pod"]),
    Known("sidecar.istio.io/discoveryAddress", AlphaDeprecated, &["Pod"]),
    Known("sidecar.istio.io/extraStatTags", AlphaDeprecated, &["Pod"]),
    Known("sidecar.istio.io/inject", Deprecated, &["Pod"]),
    Known("sidecar.istio.io/interceptionMode", Alpha, &["Pod"]),
    Known("sidecar.istio.io/logLevel", Alpha, &["Pod"]),
    Known("sidecar.istio.io/nativeSidecar", Alpha, &["Pod"]),
    Known("sidecar.istio.io/proxyCPU", Alpha, &["Pod"]),
    Known("sidecar.istio.io/proxyCPULimit", Alpha, &["Pod"]),
    Known("sidecar.istio.io/proxyImage", Alpha, &["Pod"]),
    Known("sidecar.istio.io/proxyImageType", Alpha, &["Pod"]),
    Known("sidecar.istio.io/proxyMemory", Alpha, &["Pod"]),
    Known("sidecar.istio.io/proxyMemoryLimit", Alpha, &["Pod"]),
    Known("sidecar.istio.io/rewriteAppHTTPProbers", Alpha, &["Pod"]),
    Known("sidecar.istio.io/statsCompression", AlphaDeprecated, &["Pod"]),
    Known("sidecar.istio.io/statsEvictionInterval", Alpha, &["Pod"]),
    Known("sidecar.istio.io/statsFlushInterval", Alpha, &["Pod"]),
    Known("sidecar.istio.io/statsHistogramBins", Alpha, &["Pod"]),
    Known("sidecar.istio.io/statsHistogramBuckets", Alpha, &["Pod"]),
    Known("sidecar.istio.io/statsInclusionPrefixes", AlphaDeprecated, &["Pod"]),
    Known("sidecar.istio.io/statsInclusionRegexps", AlphaDeprecated, &["Pod"]),
    Known("sidecar.istio.io/statsInclusionSuffixes", AlphaDeprecated, &["Pod"]),
    Known("sidecar.istio.io/status", Alpha, &["Pod"]),
    Known("sidecar.istio.io/userVolume", Alpha, &["Pod"]),
    Known("sidecar.istio.io/userVolumeMount", Alpha, &["Pod"]),
    Known("status.sidecar.istio.io/port", Alpha, &["Pod"]),
    Known("topology.istio.io/controlPlaneClusters", Alpha, &["Namespace"]),
    Known("traffic.istio.io/nodeSelector", Settled, &["Service"]),
    Known("traffic.sidecar.istio.io/excludeInboundPorts", Alpha, &["Pod"]),
    Known("traffic.sidecar.istio.io/excludeInterfaces", Alpha, &["Pod"]),
    Known("traffic.sidecar.istio.io/excludeOutboundIPRanges", Alpha, &["Pod"]),
    Known("traffic.sidecar.istio.io/excludeOutboundPorts", Alpha, &["Pod"]),
    Known("traffic.sidecar.istio.io/includeInboundPorts", Alpha, &["Pod"]),
    Known("traffic.sidecar.istio.io/includeOutboundIPRanges", Alpha, &["Pod"]),
    Known("traffic.sidecar.istio.io/includeOutboundPorts", Alpha, &["Pod"]),
    Known("traffic.sidecar.istio.io/kubevirtInterfaces", AlphaDeprecated, &["Pod"]),
];
