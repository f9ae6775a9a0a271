//! The fields of a Sidecar.

use super::destination_rule::CONNECTION_POOL;
use super::gateway::TLS;
use super::prelude::*;
use super::service_entry::WORKLOAD_SELECTOR;

message! {
    SIDECAR_PORT {
        "name": TEXT,
        "number": U32,
        "protocol": TEXT,
        "targetPort": U32,
    }
}
message! {
    EGRESS {
        "bind": TEXT,
        "captureMode": Enum(&["DEFAULT", "IPTABLES", "NONE"]),
        must "hosts": List(&TEXT, ANY),
        "port": Message(&SIDECAR_PORT),
    }
}
message! {
    INGRESS {
        "bind": TEXT,
        "captureMode": Enum(&["DEFAULT", "IPTABLES", "NONE"]),
        "connectionPool": Message(&CONNECTION_POOL),
        "defaultEndpoint": TEXT,
        must "port": Message(&SIDECAR_PORT),
        "tls": Message(&TLS),
    }
}
message! {
    PORT {
        "number": U32,
    }
}
message! {
    EGRESS_PROXY {
        must "host": TEXT,
        "port": Message(&PORT),
        "subset": TEXT,
    }
}
message! {
    OUTBOUND_TRAFFIC_POLICY {
        "egressProxy": Message(&EGRESS_PROXY),
        "mode": Enum(&["REGISTRY_ONLY", "ALLOW_ANY"]),
    }
}
message! {
    SIDECAR_SPEC {
        "egress": List(&Message(&EGRESS), ANY),
        "inboundConnectionPool": Message(&CONNECTION_POOL),
        "ingress": List(&Message(&INGRESS), ANY),
        "outboundTrafficPolicy": Message(&OUTBOUND_TRAFFIC_POLICY),
        "workloadSelector": Message(&WORKLOAD_SELECTOR),
    }
}
message! {
    SIDECAR {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        "spec": Message(&SIDECAR_SPEC),
        "status": Any,
    }
}
