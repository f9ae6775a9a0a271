//! The fields of a Sidecar.

use super::prelude::*;

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
    INBOUND_CONNECTION_POOL {
        "http": Message(&HTTP),
        "tcp": Message(&TCP),
    }
}
message! {
    TLS_CERTIFICATES {
        "caCertificates": TEXT,
        "privateKey": TEXT,
        "serverCertificate": TEXT,
    }
}
message! {
    TLS {
        "caCertCredentialName": TEXT,
        "caCertificates": TEXT,
        "caCrl": TEXT,
        "cipherSuites": List(&TEXT, ANY),
        "credentialName": TEXT,
        "credentialNames": List(&TEXT, between(1, 2)),
        "httpsRedirect": Bool,
        "insecureSkipVerify": Bool,
        "maxProtocolVersion": Enum(&["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]),
        "minProtocolVersion": Enum(&["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]),
        "mode": Enum(&["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"]),
        "privateKey": TEXT,
        "serverCertificate": TEXT,
        "subjectAltNames": List(&TEXT, ANY),
        "tlsCertificates": List(&Message(&TLS_CERTIFICATES), between(1, 2)),
        "verifyCertificateHash": List(&TEXT, ANY),
        "verifyCertificateSpki": List(&TEXT, ANY),
    }
}
message! {
    INGRESS {
        "bind": TEXT,
        "captureMode": Enum(&["DEFAULT", "IPTABLES", "NONE"]),
        "connectionPool": Message(&INBOUND_CONNECTION_POOL),
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
    WORKLOAD_SELECTOR {
        "labels": Map(&Text(at_most(63)), at_most(256)),
    }
}
message! {
    SIDECAR_SPEC {
        "egress": List(&Message(&EGRESS), ANY),
        "inboundConnectionPool": Message(&INBOUND_CONNECTION_POOL),
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
