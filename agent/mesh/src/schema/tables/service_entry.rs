//! The fields of ServiceEntry, WorkloadEntry and WorkloadGroup.

use super::prelude::*;

message! {
    ENDPOINTS {
        "address": Text(at_most(256)),
        "labels": Map(&TEXT, at_most(256)),
        "locality": Text(at_most(2048)),
        "network": Text(at_most(2048)),
        "ports": Map(&PORT_NUMBER, at_most(128)),
        "serviceAccount": Text(at_most(253)),
        "weight": U32,
    }
}
message! {
    PORTS {
        must "name": Text(at_most(256)),
        must "number": PORT_NUMBER,
        "protocol": Text(at_most(256)),
        "targetPort": PORT_NUMBER,
    }
}
message! {
    WORKLOAD_SELECTOR {
        "labels": Map(&Text(at_most(63)), at_most(256)),
    }
}
message! {
    SERVICE_ENTRY_SPEC {
        "addresses": List(&Text(at_most(64)), at_most(256)),
        "endpoints": List(&Message(&ENDPOINTS), at_most(4096)),
        "exportTo": List(&TEXT, ANY),
        must "hosts": List(&TEXT, between(1, 256)),
        "location": Enum(&["MESH_EXTERNAL", "MESH_INTERNAL"]),
        "ports": List(&Message(&PORTS), Size::BY_NAME.between(0, 256)),
        "resolution": Enum(&["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]),
        "subjectAltNames": List(&TEXT, ANY),
        "workloadSelector": Message(&WORKLOAD_SELECTOR),
    }
}
message! {
    SERVICE_ENTRY {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        must "spec": Message(&SERVICE_ENTRY_SPEC),
        "status": Any,
    }
}
message! {
    WORKLOAD_ENTRY {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        must "spec": Message(&ENDPOINTS),
        "status": Any,
    }
}
message! {
    METADATA {
        "annotations": Map(&TEXT, at_most(256)),
        "labels": Map(&TEXT, at_most(256)),
    }
}
message! {
    EXEC {
        must "command": List(&Text(at_least(1)), ANY),
    }
}
message! {
    GRPC {
        "port": PORT_NUMBER,
        "service": TEXT,
    }
}
message! {
    HTTP_HEADERS {
        "name": HEADER_NAME,
        "value": TEXT,
    }
}
message! {
    HTTP_GET {
        "host": TEXT,
        "httpHeaders": List(&Message(&HTTP_HEADERS), ANY),
        "path": TEXT,
        must "port": PORT_NUMBER,
        "scheme": TEXT,
    }
}
message! {
    TCP_SOCKET {
        "host": TEXT,
        must "port": PORT_NUMBER,
    }
}
message! {
    PROBE {
        "exec": Message(&EXEC),
        "failureThreshold": COUNT,
        "grpc": Message(&GRPC),
        "httpGet": Message(&HTTP_GET),
        "initialDelaySeconds": COUNT,
        "periodSeconds": COUNT,
        "successThreshold": COUNT,
        "tcpSocket": Message(&TCP_SOCKET),
        "timeoutSeconds": COUNT,
    }
    one of "httpGet", "tcpSocket", "exec", "grpc"
}
message! {
    WORKLOAD_GROUP_SPEC {
        "metadata": Message(&METADATA),
        "probe": Message(&PROBE),
        must "template": Message(&ENDPOINTS),
    }
}
message! {
    WORKLOAD_GROUP {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        must "spec": Message(&WORKLOAD_GROUP_SPEC),
        "status": Any,
    }
}
