//! The fields of the Gateway API: gateways.

use super::prelude::*;

message! {
    ADDRESSES {
        "type": Text(between(1, 253)),
        "value": Text(at_most(253)),
    }
}
message! {
    MATCH_EXPRESSIONS {
        must "key": TEXT,
        must "operator": TEXT,
        "values": List(&TEXT, ANY),
    }
}
message! {
    SELECTOR {
        "matchExpressions": List(&Message(&MATCH_EXPRESSIONS), ANY),
        "matchLabels": Map(&TEXT, ANY),
    }
}
message! {
    NAMESPACES {
        "from": Enum(&["All", "Selector", "Same", "None"]),
        "selector": Message(&SELECTOR),
    }
}
message! {
    ALLOWED_LISTENERS {
        "namespaces": Message(&NAMESPACES),
    }
}
message! {
    PARAMETERS_REF {
        must "group": GROUP,
        must "kind": KIND,
        must "name": Text(between(1, 253)),
    }
}
message! {
    INFRASTRUCTURE {
        "annotations": Map(&Text(at_most(4096)), at_most(16)),
        "labels": Map(&LABEL_VALUE, at_most(8)),
        "parametersRef": Message(&PARAMETERS_REF),
    }
}
message! {
    KINDS {
        "group": GROUP,
        must "kind": KIND,
    }
}
message! {
    ALLOWED_ROUTES_NAMESPACES {
        "from": Enum(&["All", "Selector", "Same"]),
        "selector": Message(&SELECTOR),
    }
}
message! {
    ALLOWED_ROUTES {
        "kinds": List(&Message(&KINDS), at_most(8)),
        "namespaces": Message(&ALLOWED_ROUTES_NAMESPACES),
    }
}
message! {
    CERTIFICATE_REFS {
        "group": GROUP,
        "kind": KIND,
        must "name": Text(between(1, 253)),
        "namespace": LABEL,
    }
}
message! {
    TLS {
        "certificateRefs": List(&Message(&CERTIFICATE_REFS), at_most(64)),
        "mode": Enum(&["Terminate", "Passthrough"]),
        "options": Map(&Text(at_most(4096)), at_most(16)),
    }
}
message! {
    LISTENERS {
        "allowedRoutes": Message(&ALLOWED_ROUTES),
        "hostname": HOSTNAME,
        must "name": DOMAIN,
        must "port": PORT_NUMBER,
        must "protocol": LISTENER_PROTOCOL,
        "tls": Message(&TLS),
    }
}
message! {
    BACKEND {
        "clientCertificateRef": Message(&CERTIFICATE_REFS),
    }
}
message! {
    CA_CERTIFICATE_REFS {
        must "group": GROUP,
        must "kind": KIND,
        must "name": Text(between(1, 253)),
        "namespace": LABEL,
    }
}
message! {
    VALIDATION {
        must "caCertificateRefs": List(&Message(&CA_CERTIFICATE_REFS), between(1, 16)),
        "mode": Enum(&["AllowValidOnly", "AllowInsecureFallback"]),
    }
}
message! {
    DEFAULT {
        "validation": Message(&VALIDATION),
    }
}
message! {
    PER_PORT {
        must "port": PORT_NUMBER,
        must "tls": Message(&DEFAULT),
    }
}
message! {
    FRONTEND {
        must "default": Message(&DEFAULT),
        "perPort": List(&Message(&PER_PORT), Size::BY_PORT.between(0, 64)),
    }
}
message! {
    GATEWAY_TLS {
        "backend": Message(&BACKEND),
        "frontend": Message(&FRONTEND),
    }
}
message! {
    GATEWAY_SPEC {
        "addresses": List(&Message(&ADDRESSES), at_most(16)),
        "allowedListeners": Message(&ALLOWED_LISTENERS),
        "defaultScope": Enum(&["All", "None"]),
        must "gatewayClassName": Text(between(1, 253)),
        "infrastructure": Message(&INFRASTRUCTURE),
        must "listeners": List(&Message(&LISTENERS), Size::BY_NAME.between(1, 64)),
        "tls": Message(&GATEWAY_TLS),
    }
}
message! {
    GATEWAY {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        must "spec": Message(&GATEWAY_SPEC),
        "status": Any,
    }
}
message! {
    GATEWAY_CLASS_SPEC {
        must "controllerName": CONTROLLER_NAME,
        "description": Text(at_most(64)),
        "parametersRef": Message(&CA_CERTIFICATE_REFS),
    }
}
message! {
    GATEWAY_CLASS {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        must "spec": Message(&GATEWAY_CLASS_SPEC),
        "status": Any,
    }
}
message! {
    FROM {
        must "group": GROUP,
        must "kind": KIND,
        must "namespace": LABEL,
    }
}
message! {
    TO {
        must "group": GROUP,
        must "kind": KIND,
        "name": Text(between(1, 253)),
    }
}
message! {
    REFERENCE_GRANT_SPEC {
        must "from": List(&Message(&FROM), between(1, 16)),
        must "to": List(&Message(&TO), between(1, 16)),
    }
}
message! {
    REFERENCE_GRANT {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        must "spec": Message(&REFERENCE_GRANT_SPEC),
    }
}
