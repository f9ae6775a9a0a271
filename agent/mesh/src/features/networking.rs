//! The fields of Istio's networking kinds. Read through [`super::KINDS`].

use super::{Feature, decided, no, part, yes};

/// What becomes of a match with a condition that is not evaluated.
const NEVER: &str = "this match takes nothing, so that it does not take more than was meant (Error)";

const PATHS: &str = "routing::the_canary_is_chosen_by_what_a_request_says";
const HEADERS: &str = "routing::the_canary_is_chosen_by_what_a_request_says";
const ITEMS: &str = "hosts::the_access_log_names_the_rule_and_the_match_that_took_a_request";
const FIRST: &str = "routing::the_canary_is_chosen_by_what_a_request_says";
const BY_CLIENT: &str = "routing::the_canary_is_chosen_by_who_asks";
const IN_TIME: &str = "patience::a_request_waits_as_long_as_its_rule_says";
const OTHER_PORT: &str = "routing::the_canary_is_chosen_by_who_asks";
const CANARY: &str = "canary::http_is_split_90_10_in_both_families";
const MISSING: &str = "canary::http_is_split_90_10_in_both_families";
const RARER: &str = "routing::the_canary_is_chosen_by_what_a_request_says";
const DELEGATE: &str = "routing::a_delegates_rules_stand_in_the_place_of_the_root";
const CLIENTS: &str = "layer4::tcp_rules_choose_their_clients_ports_and_addresses";
const TLS_CLIENTS: &str = "layer4::tls_rules_choose_their_clients_ports_and_addresses";
const TCP_MATCH: &str = "layer4::tcp_rules_choose_their_clients_ports_and_addresses";
const CHANGED: &str = "answers::rewrites_and_headers_change_what_the_other_side_sees";
const ANSWERED: &str = "answers::redirects_and_direct_responses_are_the_rules_own";
const LOCATION: &str = "answers::a_redirect_has_the_path_scheme_and_port_that_its_rule_says";
const REWRITTEN: &str = "answers::rewrites_and_headers_change_what_the_other_side_sees";
const REPEATED: &str = "patience::retries_hide_a_pod_that_fails";
const BY_NAME: &str = "layer4::tls_passes_through_to_the_pod_that_its_name_says";
const ABORTED: &str = "patience::faults_delay_and_abort_their_share";
const DELAYED: &str = "patience::faults_delay_and_abort_their_share";
const NOT_VALID: &str = "Istio refuses it, and so does weir ";
const COPIED: &str = "faults::a_mirror_gets_a_copy_of_everything_and_nobody_waits_for_it";
const COPIED_SHARE: &str = "patience::a_mirror_gets_its_share_of_copies_and_nobody_notices";
const CORS: &str = "answers::a_page_of_another_origin_is_answered_as_the_policy_says";
const OLDER: &str = "older::percentages_and_origins_by_their_older_names_are_in_force";
const TCP: &str = "canary::tcp_is_split_in_the_kernel_without_a_proxy_hop";

pub(super) const VIRTUAL_SERVICE: &[Feature] = &[
    yes("hosts", "hosts::a_host_is_known_by_all_of_its_names_and_by_short_ones_where_they_are_short_for_it"),
    yes("exportTo", BY_CLIENT),
    part(
        "gateways",
        "hosts::rules_for_gateways_alone_change_nothing_between_pods",
        "`mesh` is in force; what is for gateways is compiled and decided, but no port is opened for them",
    ),
    yes("http", FIRST),
    yes("http[].name", ITEMS),
    yes("http[].match", ITEMS),
    yes("http[].match[].name", ITEMS),
    yes("http[].match[].uri", PATHS),
    yes("http[].match[].uri.{exact,prefix,regex}", PATHS),
    yes("http[].match[].ignoreUriCase", PATHS),
    yes("http[].match[].method", PATHS),
    yes("http[].match[].method.{exact,prefix,regex}", PATHS),
    yes("http[].match[].headers", HEADERS),
    yes("http[].match[].headers.*.{exact,prefix,regex}", HEADERS),
    yes("http[].match[].port", OTHER_PORT),
    yes("http[].match[].gateways", OTHER_PORT),
    yes("http[].match[].{authority,scheme,queryParams,withoutHeaders}", RARER),
    yes("http[].match[].{authority,scheme,queryParams.*,withoutHeaders.*}.{exact,prefix,regex}", RARER),
    yes("http[].match[].sourceLabels", BY_CLIENT),
    yes("http[].match[].sourceNamespace", BY_CLIENT),
    no("http[].match[].statPrefix", "a name for statistics that Envoy alone keeps: nothing is lost"),
    yes("http[].route", CANARY),
    yes("http[].route[].destination", CANARY),
    yes("http[].route[].destination.{host,subset}", CANARY),
    yes("http[].route[].destination.{port,port.number}", MISSING),
    yes("http[].route[].weight", FIRST),
    yes("http[].route[].headers{,.request,.response}", CHANGED),
    yes("http[].route[].headers.{request,response}.{set,add,remove}", CHANGED),
    yes("http[].delegate", DELEGATE),
    yes("http[].delegate.{name,namespace}", DELEGATE),
    yes("http[].redirect{,.uri,.authority,.redirectCode}", ANSWERED),
    yes("http[].redirect.{prefixRewrite,scheme,port,derivePort}", LOCATION),
    yes("http[].directResponse{,.status,.body,.body.string}", ANSWERED),
    yes("http[].directResponse.body.bytes", ANSWERED),
    yes("http[].rewrite{,.uri,.authority,.uriRegexRewrite}", REWRITTEN),
    yes("http[].rewrite.uriRegexRewrite.{match,rewrite}", REWRITTEN),
    yes("http[].timeout", IN_TIME),
    yes("http[].retries{,.attempts,.retryOn,.backoff}", REPEATED),
    yes("http[].retries.perTryTimeout", IN_TIME),
    yes("http[].retries.retryIgnorePreviousHosts", "retries::a_host_that_failed_is_avoided"),
    yes("http[].retries.retryRemoteLocalities", "localities::a_retry_goes_to_the_next_locality_where_the_rule_says_so"),
    yes("http[].fault{,.abort,.delay}", ABORTED),
    yes("http[].fault.abort.{httpStatus,grpcStatus,percentage,percentage.value}", ABORTED),
    yes("http[].fault.delay.{fixedDelay,percentage,percentage.value}", DELAYED),
    yes("http[].fault.delay.percent", OLDER),
    no("http[].fault.delay.exponentialDelay", NOT_VALID),
    no("http[].fault.abort.http2Error", NOT_VALID),
    yes("http[].mirrors", COPIED),
    yes("http[].{mirror,mirrors[].destination}{,.host,.subset,.port,.port.number}", COPIED),
    yes("http[].mirrorPercentage{,.value}", COPIED_SHARE),
    yes("http[].mirrors[].percentage{,.value}", COPIED),
    yes("http[].{mirrorPercent,mirror_percent}", OLDER),
    yes("http[].headers{,.request,.response}", CHANGED),
    yes("http[].headers.{request,response}.{set,add,remove}", CHANGED),
    yes("http[].corsPolicy", CORS),
    yes("http[].corsPolicy.{allowOrigins,allowMethods,allowHeaders,exposeHeaders,maxAge,allowCredentials}", CORS),
    yes("http[].corsPolicy.allowOrigins[].{exact,prefix,regex}", CORS),
    yes("http[].corsPolicy.unmatchedPreflights", CORS),
    yes("http[].corsPolicy.allowOrigin", OLDER),
    yes("tcp", TCP),
    yes("tcp[].match", TCP_MATCH),
    yes("tcp[].match[].{port,gateways}", TCP_MATCH),
    yes("tcp[].match[].{destinationSubnets,sourceLabels}", CLIENTS),
    yes("tcp[].match[].sourceNamespace", CLIENTS),
    no("tcp[].match[].sourceSubnet", NEVER),
    yes("tcp[].route", TCP),
    yes("tcp[].route[].{destination,weight}", TCP),
    yes("tcp[].route[].destination.{host,subset}", TCP),
    yes("tcp[].route[].destination.{port,port.number}", TCP_MATCH),
    yes("tls", BY_NAME),
    yes("tls[].match", BY_NAME),
    yes("tls[].match[].sniHosts", BY_NAME),
    yes("tls[].match[].{port,gateways,destinationSubnets,sourceLabels}", TLS_CLIENTS),
    yes("tls[].match[].sourceNamespace", TLS_CLIENTS),
    yes("tls[].route{,[].destination,[].weight}", BY_NAME),
    yes("tls[].route[].destination.{host,subset,port,port.number}", BY_NAME),
];

const SUBSETS: &str = "canary::http_is_split_90_10_in_both_families";
const FOR_WHOM: &str = "policies::a_rule_is_for_those_whom_it_is_exported_to_and_whom_it_selects";
const BALANCERS: &str = "shares::the_most_specific_balancer_is_in_force";
const SIMPLE: &str = "policies::requests_are_balanced_as_a_rule_says_and_connections_in_the_kernel_by_chance";
const OF_SUBSET: &str = "shares::the_most_specific_balancer_is_in_force";
const OF_PORT: &str = "shares::the_most_specific_balancer_is_in_force";
const TIMEOUT: &str = "policies::a_connect_is_given_up_when_the_rule_says_so_and_in_the_kernel_when_the_client_does";
const TLS: &str = "tls::a_good_server_gets_requests_over_one_connection_that_was_asked_for_by_its_name";
const TRUST: &str = "tls_trust::a_certificate_that_proves_nothing_is_refused";
const MUTUAL: &str = "tls::mutual_presents_the_clients_certificate_and_without_one_the_server_hangs_up";

const LB: &str = "in force; where the kernel balances, ROUND_ROBIN and LEAST_REQUEST are at random (Info)";
const CONNECT: &str = "in force in the proxy; where the kernel balances, the client's own timeout is (Info)";
const MODES: &str = "SIMPLE, MUTUAL and DISABLE are in force; of ISTIO_MUTUAL, connections that it is for are refused, as \
                     they would not be encrypted (Error)";
const NO_SECRET: &str = "no Secret is read: connections that it is for are refused (Error)";
const PER_NODE: &str =
    "in force, per node: its proxy counts for all of its pods together, and knows nothing of other nodes";
const WAITING: &str = "pools::requests_beyond_what_may_wait_for_a_connection_are_refused_at_once";
const UNDER_WAY: &str = "pools::more_requests_than_may_be_under_way_are_refused_and_not_repeated";
const LASTS: &str = "pools::a_connection_serves_so_many_requests_and_lasts_so_long";
const ENDS: &str = "pools::a_tcp_connection_ends_when_it_idles_or_has_lasted_long_enough";
const PROBED: &str = "pools::connections_are_probed_as_the_rule_says";
const AS_IT_IS: &str = "HTTP/2 connections are passed on as they are (Warning)";
const EJECTED: &str = "levels::what_counts_ejects_after_so_many_and_for_so_long";
const NOT_REACHED: &str = "outliers::connects_that_fail_are_counted_apart_where_that_is_asked_for";
const ALL_EJECTED: &str = "outliers::when_all_are_ejected_nobody_answers_and_with_too_few_left_all_do";
const HASH: &str = "levels::clients_stick_by_the_same_table";
const FAILOVER: &str = "localities::a_region_that_fails_is_replaced_by_the_next";
const BY_LABELS: &str = "localities::labels_decide_who_takes_over";
const SHARES: &str = "localities::shares_of_localities_are_kept_within_two_points";
const OFF: &str = "localities::without_outlier_detection_or_switched_off_all_are_used_alike";
const ZONES_DECIDED: &str = "locality::nothing_is_preferred_where_no_failure_is_noticed_or_it_is_switched_off";
const BY_COOKIE: &str = "balancing::a_client_without_the_cookie_gets_one_and_comes_back_with_it";
const BY_QUERY: &str = "balancing::requests_stick_by_a_query_parameter";
const WARMS: &str = "balancing::a_pod_that_is_new_gets_its_share_little_by_little";
const NO_LOCALITY: &str = "endpoints of every locality are used alike (Error)";
const NOR_BY_IT: &str = "endpoints of every locality are used alike";
const TOLD: &str = "levels::zones_and_upgrades_are_told_of_and_change_nothing";
const NO_TUNNEL: &str = "connections are not tunnelled (Error)";
const NO_PROXY_PROTOCOL: &str = "no PROXY header is sent (Error)";
const BUDGET: &str = "retries::a_retry_budget_bounds_what_is_repeated_at_a_time";

pub(super) const DESTINATION_RULE: &[Feature] = &[
    yes("host", "policies::the_clients_own_rule_comes_first_even_by_a_wildcard"),
    yes("exportTo", FOR_WHOM),
    yes("subsets", SUBSETS),
    yes("subsets[].{name,labels}", SUBSETS),
    yes("trafficPolicy{,.loadBalancer}", BALANCERS),
    yes("subsets[].trafficPolicy{,.loadBalancer}", OF_SUBSET),
    yes("{,subsets[].}trafficPolicy.portLevelSettings{,[].port,[].port.number,[].loadBalancer}", OF_PORT),
    part("trafficPolicy.loadBalancer.simple", SIMPLE, LB),
    part("subsets[].trafficPolicy.loadBalancer.simple", OF_SUBSET, LB),
    part("{,subsets[].}trafficPolicy.portLevelSettings[].loadBalancer.simple", OF_PORT, LB),
    yes("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.consistentHash{,.httpHeaderName}", HASH),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.consistentHash.httpCookie{,.name,.path,.ttl,.attributes}",
        BY_COOKIE,
    ),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.consistentHash.httpCookie.attributes[].{name,value}",
        BY_COOKIE,
    ),
    part(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.consistentHash.useSourceIp",
        HASH,
        "`true` is in force; `false` is as if nothing were hashed",
    ),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.consistentHash.httpQueryParameterName",
        BY_QUERY,
    ),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.consistentHash.{minimumRingSize,ringHash,ringHash.minimumRingSize}",
        HASH,
    ),
    yes("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.consistentHash.maglev{,.tableSize}", HASH),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.localityLbSetting{,.failover,.failover[].from,.failover[].to}",
        FAILOVER,
    ),
    yes("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.localityLbSetting.failoverPriority", BY_LABELS),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.localityLbSetting.distribute{,[].from,[].to}",
        SHARES,
    ),
    yes("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.localityLbSetting.enabled", OFF),
    part("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.zoneAwareLbSetting", TOLD, NO_LOCALITY),
    yes("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.zoneAwareLbSetting.enabled", TOLD),
    decided(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.zoneAwareLbSetting.{failover,failoverPriority,minClusterSize}",
        ZONES_DECIDED,
        NOR_BY_IT,
    ),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.warmup{,.duration,.minimumPercent,.aggression}",
        WARMS,
    ),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.loadBalancer.warmupDurationSecs",
        "levels::a_new_pod_warms_up_for_the_older_name_of_the_duration",
    ),
    yes("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool{,.tcp}", TIMEOUT),
    part("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool.tcp.connectTimeout", TIMEOUT, CONNECT),
    part("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool.tcp.maxConnections", WAITING, PER_NODE),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool.tcp.{idleTimeout,maxConnectionDuration}",
        ENDS,
    ),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool.tcp.tcpKeepalive{,.time,.interval,.probes}",
        PROBED,
    ),
    yes("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool.http", WAITING),
    part(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool.http.http1MaxPendingRequests",
        WAITING,
        PER_NODE,
    ),
    part("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool.http.http2MaxRequests", UNDER_WAY, PER_NODE),
    part("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool.http.maxRetries", BUDGET, PER_NODE),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool.http.{maxRequestsPerConnection,idleTimeout}",
        LASTS,
    ),
    part(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool.http.h2UpgradePolicy",
        TOLD,
        "DEFAULT and DO_NOT_UPGRADE are in force; UPGRADE: HTTP/1.1 is passed on as HTTP/1.1 (Warning)",
    ),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool.http.useClientProtocol",
        "http2::what_a_client_speaks_is_what_a_server_hears_where_a_rule_asks_for_it",
    ),
    decided(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.connectionPool.http.{maxConcurrentStreams,http2KeepAlive}",
        WAITING,
        AS_IT_IS,
    ),
    yes("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.outlierDetection", EJECTED),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.outlierDetection.{consecutive5xxErrors,baseEjectionTime}",
        EJECTED,
    ),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.outlierDetection.{consecutiveGatewayErrors,consecutiveErrors}",
        EJECTED,
    ),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.outlierDetection.{splitExternalLocalOriginErrors,consecutiveLocalOriginFailures}",
        NOT_REACHED,
    ),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.outlierDetection.interval",
        "breaking::a_quiet_interval_makes_the_next_time_shorter",
    ),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.outlierDetection.{maxEjectionPercent,minHealthPercent}",
        ALL_EJECTED,
    ),
    yes("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.outlierDetection.outlierDetectionHttpErrorCodes", EJECTED),
    part("trafficPolicy.tls{,.mode}", TLS, MODES),
    part("subsets[].trafficPolicy.tls{,.mode}", MUTUAL, MODES),
    part("{,subsets[].}trafficPolicy.portLevelSettings[].tls{,.mode}", MUTUAL, MODES),
    yes("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.tls.{caCertificates,caCrl,insecureSkipVerify}", TRUST),
    yes("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.tls.{clientCertificate,privateKey}", MUTUAL),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.tls.sni",
        "tls_trust::the_name_of_a_rule_is_asked_for_whatever_the_request_says",
    ),
    yes(
        "{,subsets[].}trafficPolicy{,.portLevelSettings[]}.tls.subjectAltNames",
        "tls_trust::names_of_the_rule_stand_for_the_name_that_was_asked_for",
    ),
    no("{,subsets[].}trafficPolicy{,.portLevelSettings[]}.tls.credentialName", NO_SECRET),
    decided(
        "{,subsets[].}trafficPolicy.proxyProtocol",
        "policy::settings_of_a_port_replace_their_level_and_drop_what_they_do_not_give",
        NO_PROXY_PROTOCOL,
    ),
    yes("{,subsets[].}trafficPolicy.retryBudget{,.percent,.minRetryConcurrency}", BUDGET),
    no("{,subsets[].}trafficPolicy.retryBudget.budgetInterval", "what is under way counts, and nothing of the past"),
    decided("{,subsets[].}trafficPolicy.tunnel", "decided::policies_of_every_sort_are_compiled", NO_TUNNEL),
    yes("workloadSelector{,.matchLabels}", FOR_WHOM),
];

const NO_PORT: &str = "no port is opened for it (Warning)";
const NO_CERTIFICATE: &str = "not looked at: a Secret is named, and files are not read";
const SERVED: &str = "gateways::rules_are_bound_by_name_host_and_namespace";
const BEHIND: &str = "gateways::a_port_is_the_one_behind_the_service_of_the_gateway";
const ENDS_TLS: &str = "gateways::plain_requests_are_sent_to_https_where_a_server_says_so";

pub(super) const GATEWAY: &[Feature] = &[
    decided("selector", "gateways::a_gateway_for_other_pods_is_not_served", NO_PORT),
    decided("servers", SERVED, NO_PORT),
    decided("servers[].hosts", SERVED, NO_PORT),
    decided("servers[].port", BEHIND, NO_PORT),
    decided("servers[].port.{number,protocol}", BEHIND, NO_PORT),
    decided("servers[].port.name", ENDS_TLS, NO_PORT),
    no("servers[].port.targetPort", "deprecated, and not looked at: the Service in front of the gateway says it"),
    no("servers[].name", "not shown anywhere"),
    decided("servers[].bind", "decided::a_server_may_be_bound_to_one_address", NO_PORT),
    no("servers[].defaultEndpoint", "not looked at"),
    decided("servers[].tls", ENDS_TLS, NO_PORT),
    decided("servers[].tls.{httpsRedirect,mode}", ENDS_TLS, NO_PORT),
    decided("servers[].tls.{credentialName,credentialNames}", ENDS_TLS, NO_PORT),
    no(
        "servers[].tls.{serverCertificate,privateKey,caCertificates,caCrl,caCertCredentialName,tlsCertificates}",
        NO_CERTIFICATE,
    ),
    no(
        "servers[].tls.{cipherSuites,minProtocolVersion,maxProtocolVersion,subjectAltNames,verifyCertificateHash,verifyCertificateSpki,insecureSkipVerify}",
        "not looked at",
    ),
];

const STATIC: &str = "entries::static_endpoints_get_by_weight_at_their_own_ports";
const OF_ENTRY: &str = "entries::rules_and_subsets_hold_for_the_hosts_of_an_entry";
const SELECTED: &str = "entries::selected_pods_and_workload_entries_are_endpoints_of_an_entry";
const PLACES: &str = "entries::endpoints_of_the_clients_locality_come_first";
const PASSES: &str = "entries::what_an_entry_cannot_resolve_passes_as_without_it";
const NO_NETWORKS: &str = "its address is dialled wherever it is (Warning)";
const NO_NAMES: &str = "IP addresses are; nothing is sent to a name or a path (Warning)";

pub(super) const SERVICE_ENTRY: &[Feature] = &[
    part("hosts", PASSES, "names are; what stands for many hosts (`*.`) passes as without weir (Warning)"),
    part("addresses", PASSES, "single addresses are; connections to a range pass as without weir (Warning)"),
    yes("ports{,[].number,[].name,[].protocol,[].targetPort}", STATIC),
    part(
        "resolution",
        PASSES,
        "STATIC is; connections to hosts of any other pass as without weir, or are refused at `addresses` where a \
         DestinationRule asks for TLS, and what rules send to them finds no endpoint (Warning)",
    ),
    yes("endpoints{,[].ports}", STATIC),
    part("endpoints[].address", PASSES, NO_NAMES),
    yes("endpoints[].labels", OF_ENTRY),
    yes("endpoints[].weight", STATIC),
    yes("endpoints[].locality", PLACES),
    no("endpoints[].network", NO_NETWORKS),
    no("endpoints[].serviceAccount", "no identity is looked at"),
    yes("workloadSelector{,.labels}", SELECTED),
    yes("exportTo", "entries::an_entry_is_for_those_whom_it_is_exported_to"),
    no("location", "clients see no difference: no mutual TLS is spoken"),
    yes("subjectAltNames", "tls::a_client_of_plain_http_reaches_a_host_beyond_the_mesh_by_tls"),
];

pub(super) const WORKLOAD_ENTRY: &[Feature] = &[
    part("address", SELECTED, NO_NAMES),
    yes("{labels,ports}", SELECTED),
    yes("weight", SELECTED),
    yes("locality", PLACES),
    no("network", NO_NETWORKS),
    no("serviceAccount", "no identity is looked at"),
];

pub(super) const WORKLOAD_GROUP: &[Feature] = &[no("", "it changes nothing (Warning)")];

pub(super) const SIDECAR: &[Feature] = &[no("", "it limits nothing: what it hides stays visible (Warning)")];
