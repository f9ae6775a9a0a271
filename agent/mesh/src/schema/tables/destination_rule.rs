//! The fields of a DestinationRule.

use super::prelude::*;

message! {
    HTTP2_KEEP_ALIVE {
        "interval": DURATION,
        "timeout": DURATION,
    }
}
message! {
    HTTP {
        "h2UpgradePolicy": Enum(&["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"]),
        "http1MaxPendingRequests": I32,
        "http2KeepAlive": Message(&HTTP2_KEEP_ALIVE),
        "http2MaxRequests": I32,
        "idleTimeout": DURATION,
        "maxConcurrentStreams": I32,
        "maxRequestsPerConnection": I32,
        "maxRetries": I32,
        "useClientProtocol": Bool,
    }
}
message! {
    TCP_KEEPALIVE {
        "interval": DURATION,
        "probes": U32,
        "time": DURATION,
    }
}
message! {
    TCP {
        "connectTimeout": DURATION,
        "idleTimeout": TEXT,
        "maxConnectionDuration": DURATION,
        "maxConnections": I32,
        "tcpKeepalive": Message(&TCP_KEEPALIVE),
    }
}
message! {
    CONNECTION_POOL {
        "http": Message(&HTTP),
        "tcp": Message(&TCP),
    }
}
message! {
    ATTRIBUTES {
        must "name": TEXT,
        "value": TEXT,
    }
}
message! {
    HTTP_COOKIE {
        "attributes": List(&Message(&ATTRIBUTES), ANY),
        must "name": TEXT,
        "path": TEXT,
        "ttl": DURATION_OR_ZERO,
    }
}
message! {
    MAGLEV {
        "tableSize": U64,
    }
}
message! {
    RING_HASH {
        "minimumRingSize": U64,
    }
}
message! {
    CONSISTENT_HASH {
        "httpCookie": Message(&HTTP_COOKIE),
        "httpHeaderName": TEXT,
        "httpQueryParameterName": TEXT,
        "maglev": Message(&MAGLEV),
        "minimumRingSize": U64,
        "ringHash": Message(&RING_HASH),
        "useSourceIp": Bool,
    }
    one of "httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"
    one of "ringHash", "maglev"
}
message! {
    DISTRIBUTE {
        "from": TEXT,
        "to": Map(&U32, ANY),
    }
}
message! {
    FAILOVER {
        "from": TEXT,
        "to": TEXT,
    }
}
message! {
    LOCALITY_LB_SETTING {
        "distribute": List(&Message(&DISTRIBUTE), ANY),
        "enabled": Bool,
        "failover": List(&Message(&FAILOVER), ANY),
        "failoverPriority": List(&TEXT, ANY),
    }
}
message! {
    WARMUP {
        "aggression": Float(0.0, f64::MAX),
        must "duration": DURATION,
        "minimumPercent": Float(0.0, 100.0),
    }
}
message! {
    ZONE_AWARE_LB_SETTING {
        "enabled": Bool,
        "failover": List(&Message(&FAILOVER), ANY),
        "failoverPriority": List(&TEXT, ANY),
        "minClusterSize": Int(1, i64::MAX),
    }
}
message! {
    LOAD_BALANCER {
        "consistentHash": Message(&CONSISTENT_HASH),
        "localityLbSetting": Message(&LOCALITY_LB_SETTING),
        "simple": Enum(&["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"]),
        "warmup": Message(&WARMUP),
        "warmupDurationSecs": DURATION,
        "zoneAwareLbSetting": Message(&ZONE_AWARE_LB_SETTING),
    }
    one of "simple", "consistentHash"
}
message! {
    OUTLIER_DETECTION {
        "baseEjectionTime": DURATION,
        "consecutive5xxErrors": U32,
        "consecutiveErrors": I32,
        "consecutiveGatewayErrors": U32,
        "consecutiveLocalOriginFailures": U32,
        "interval": DURATION,
        "maxEjectionPercent": I32,
        "minHealthPercent": I32,
        "outlierDetectionHttpErrorCodes": List(&Int(100, 599), ANY),
        "splitExternalLocalOriginErrors": Bool,
    }
}
message! {
    PORT {
        "number": U32,
    }
}
message! {
    TLS {
        "caCertificates": TEXT,
        "caCrl": TEXT,
        "clientCertificate": TEXT,
        "credentialName": TEXT,
        "insecureSkipVerify": Bool,
        "mode": Enum(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]),
        "privateKey": TEXT,
        "sni": TEXT,
        "subjectAltNames": List(&TEXT, ANY),
    }
}
message! {
    PORT_LEVEL_SETTINGS {
        "connectionPool": Message(&CONNECTION_POOL),
        "loadBalancer": Message(&LOAD_BALANCER),
        "outlierDetection": Message(&OUTLIER_DETECTION),
        "port": Message(&PORT),
        "tls": Message(&TLS),
    }
}
message! {
    PROXY_PROTOCOL {
        "version": Enum(&["V1", "V2"]),
    }
}
message! {
    RETRY_BUDGET {
        "budgetInterval": TEXT,
        "minRetryConcurrency": U32,
        "percent": Float(0.0, 100.0),
    }
}
message! {
    TUNNEL {
        "protocol": TEXT,
        must "targetHost": TEXT,
        must "targetPort": U32,
    }
}
message! {
    TRAFFIC_POLICY {
        "connectionPool": Message(&CONNECTION_POOL),
        "loadBalancer": Message(&LOAD_BALANCER),
        "outlierDetection": Message(&OUTLIER_DETECTION),
        "portLevelSettings": List(&Message(&PORT_LEVEL_SETTINGS), at_most(4096)),
        "proxyProtocol": Message(&PROXY_PROTOCOL),
        "retryBudget": Message(&RETRY_BUDGET),
        "tls": Message(&TLS),
        "tunnel": Message(&TUNNEL),
    }
}
message! {
    SUBSETS {
        "labels": Map(&TEXT, ANY),
        must "name": TEXT,
        "trafficPolicy": Message(&TRAFFIC_POLICY),
    }
}
message! {
    WORKLOAD_SELECTOR {
        "matchLabels": Map(&Text(at_most(63)), at_most(4096)),
    }
}
message! {
    DESTINATION_RULE_SPEC {
        "exportTo": List(&TEXT, ANY),
        must "host": TEXT,
        "subsets": List(&Message(&SUBSETS), ANY),
        "trafficPolicy": Message(&TRAFFIC_POLICY),
        "workloadSelector": Message(&WORKLOAD_SELECTOR),
    }
}
message! {
    DESTINATION_RULE {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        "spec": Message(&DESTINATION_RULE_SPEC),
        "status": Any,
    }
}
