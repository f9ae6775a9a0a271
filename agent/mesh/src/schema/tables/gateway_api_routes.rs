//! The fields of the Gateway API: routes.

use super::prelude::*;

message! {
    PARENT_REFS {
        "group": GROUP,
        "kind": KIND,
        must "name": Text(between(1, 253)),
        "namespace": LABEL,
        "port": PORT_NUMBER,
        "sectionName": DOMAIN,
    }
}
message! {
    CORS {
        "allowCredentials": Bool,
        "allowHeaders": List(&TOKEN, Size::SET.between(0, 64)),
        "allowMethods": List(&Enum(&[
            "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*",
        ]), Size::SET.between(0, 9)),
        "allowOrigins": List(&Text(between(1, 253)), Size::SET.between(0, 64)),
        "exposeHeaders": List(&TOKEN, Size::SET.between(0, 64)),
        "maxAge": Int(1, 2_147_483_647),
    }
}
message! {
    EXTENSION_REF {
        must "group": GROUP,
        must "kind": KIND,
        must "name": Text(between(1, 253)),
    }
}
message! {
    BACKEND_REF {
        "group": GROUP,
        "kind": KIND,
        must "name": Text(between(1, 253)),
        "namespace": LABEL,
        "port": PORT_NUMBER,
    }
}
message! {
    FORWARD_BODY {
        "maxSize": COUNT,
    }
}
message! {
    GRPC {
        "allowedHeaders": List(&TEXT, Size::SET.between(0, 64)),
    }
}
message! {
    HTTP {
        "allowedHeaders": List(&TEXT, Size::SET.between(0, 64)),
        "allowedResponseHeaders": List(&TEXT, Size::SET.between(0, 64)),
        "path": Text(at_most(1024)),
    }
}
message! {
    EXTERNAL_AUTH {
        must "backendRef": Message(&BACKEND_REF),
        "forwardBody": Message(&FORWARD_BODY),
        "grpc": Message(&GRPC),
        "http": Message(&HTTP),
        must "protocol": Enum(&["HTTP", "GRPC"]),
    }
}
message! {
    ADD {
        must "name": TOKEN,
        must "value": HEADER_VALUE,
    }
}
message! {
    REQUEST_HEADER_MODIFIER {
        "add": List(&Message(&ADD), Size::BY_NAME.between(0, 16)),
        "remove": List(&TEXT, Size::SET.between(0, 16)),
        "set": List(&Message(&ADD), Size::BY_NAME.between(0, 16)),
    }
}
message! {
    FRACTION {
        "denominator": Int(1, 2_147_483_647),
        must "numerator": COUNT,
    }
}
message! {
    REQUEST_MIRROR {
        must "backendRef": Message(&BACKEND_REF),
        "fraction": Message(&FRACTION),
        "percent": Int(0, 100),
    }
}
message! {
    PATH {
        "replaceFullPath": Text(at_most(1024)),
        "replacePrefixMatch": Text(at_most(1024)),
        must "type": Enum(&["ReplaceFullPath", "ReplacePrefixMatch"]),
    }
}
message! {
    REQUEST_REDIRECT {
        "hostname": DOMAIN,
        "path": Message(&PATH),
        "port": PORT_NUMBER,
        "scheme": Enum(&["http", "https"]),
        "statusCode": IntEnum(&[301, 302, 303, 307, 308]),
    }
}
message! {
    URL_REWRITE {
        "hostname": DOMAIN,
        "path": Message(&PATH),
    }
}
message! {
    FILTERS {
        "cors": Message(&CORS),
        "extensionRef": Message(&EXTENSION_REF),
        "externalAuth": Message(&EXTERNAL_AUTH),
        "requestHeaderModifier": Message(&REQUEST_HEADER_MODIFIER),
        "requestMirror": Message(&REQUEST_MIRROR),
        "requestRedirect": Message(&REQUEST_REDIRECT),
        "responseHeaderModifier": Message(&REQUEST_HEADER_MODIFIER),
        must "type": Enum(&[
            "RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "RequestRedirect", "URLRewrite",
            "ExtensionRef", "CORS", "ExternalAuth",
        ]),
        "urlRewrite": Message(&URL_REWRITE),
    }
}
message! {
    BACKEND_REFS {
        "filters": List(&Message(&FILTERS), at_most(16)),
        "group": GROUP,
        "kind": KIND,
        must "name": Text(between(1, 253)),
        "namespace": LABEL,
        "port": PORT_NUMBER,
        "weight": Int(0, 1_000_000),
    }
}
message! {
    HEADERS {
        must "name": TOKEN,
        "type": Enum(&["Exact", "RegularExpression"]),
        must "value": HEADER_VALUE,
    }
}
message! {
    MATCHES_PATH {
        "type": Enum(&["Exact", "PathPrefix", "RegularExpression"]),
        "value": Text(at_most(1024)),
    }
}
message! {
    QUERY_PARAMS {
        must "name": TOKEN,
        "type": Enum(&["Exact", "RegularExpression"]),
        must "value": Text(between(1, 1024)),
    }
}
message! {
    MATCHES {
        "headers": List(&Message(&HEADERS), Size::BY_NAME.between(0, 16)),
        "method": Enum(&["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]),
        "path": Message(&MATCHES_PATH),
        "queryParams": List(&Message(&QUERY_PARAMS), Size::BY_NAME.between(0, 16)),
    }
}
message! {
    RETRY {
        "attempts": Int(1, i64::MAX),
        "backoff": GATEWAY_DURATION,
        "codes": List(&Int(400, 599), Size::SET),
    }
}
message! {
    COOKIE {
        "lifetimeType": Enum(&["Permanent", "Session"]),
        "name": TOKEN,
        "path": Text(at_most(1024)),
    }
}
message! {
    HEADER {
        must "name": TOKEN,
    }
}
message! {
    SESSION_PERSISTENCE {
        "absoluteTimeout": GATEWAY_DURATION,
        "cookie": Message(&COOKIE),
        "header": Message(&HEADER),
        "type": Enum(&["Cookie", "Header"]),
    }
}
message! {
    TIMEOUTS {
        "backendRequest": GATEWAY_DURATION,
        "request": GATEWAY_DURATION,
    }
}
message! {
    RULES {
        "backendRefs": List(&Message(&BACKEND_REFS), at_most(16)),
        "filters": List(&Message(&FILTERS), at_most(16)),
        "matches": List(&Message(&MATCHES), at_most(64)),
        "name": DOMAIN,
        "retry": Message(&RETRY),
        "sessionPersistence": Message(&SESSION_PERSISTENCE),
        "timeouts": Message(&TIMEOUTS),
    }
}
message! {
    HTTPROUTE_SPEC {
        "hostnames": List(&HOSTNAME, at_most(16)),
        "parentRefs": List(&Message(&PARENT_REFS), at_most(32)),
        "rules": List(&Message(&RULES), between(1, 16)),
        "useDefaultGateways": Enum(&["All", "None"]),
    }
}
message! {
    HTTPROUTE {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        must "spec": Message(&HTTPROUTE_SPEC),
        "status": Any,
    }
}
message! {
    BACKEND_REFS_FILTERS {
        "extensionRef": Message(&EXTENSION_REF),
        "requestHeaderModifier": Message(&REQUEST_HEADER_MODIFIER),
        "requestMirror": Message(&REQUEST_MIRROR),
        "responseHeaderModifier": Message(&REQUEST_HEADER_MODIFIER),
        must "type": Enum(&["ResponseHeaderModifier", "RequestHeaderModifier", "RequestMirror", "ExtensionRef"]),
    }
}
message! {
    RULES_BACKEND_REFS {
        "filters": List(&Message(&BACKEND_REFS_FILTERS), at_most(16)),
        "group": GROUP,
        "kind": KIND,
        must "name": Text(between(1, 253)),
        "namespace": LABEL,
        "port": PORT_NUMBER,
        "weight": Int(0, 1_000_000),
    }
}
message! {
    MATCHES_HEADERS {
        must "name": TOKEN,
        "type": Enum(&["Exact", "RegularExpression"]),
        must "value": Text(between(1, 4096)),
    }
}
message! {
    METHOD {
        "method": Text(at_most(1024)),
        "service": Text(at_most(1024)),
        "type": Enum(&["Exact", "RegularExpression"]),
    }
}
message! {
    RULES_MATCHES {
        "headers": List(&Message(&MATCHES_HEADERS), Size::BY_NAME.between(0, 16)),
        "method": Message(&METHOD),
    }
}
message! {
    GRPCROUTE_RULES {
        "backendRefs": List(&Message(&RULES_BACKEND_REFS), at_most(16)),
        "filters": List(&Message(&BACKEND_REFS_FILTERS), at_most(16)),
        "matches": List(&Message(&RULES_MATCHES), at_most(64)),
        "name": DOMAIN,
        "sessionPersistence": Message(&SESSION_PERSISTENCE),
    }
}
message! {
    GRPCROUTE_SPEC {
        "hostnames": List(&HOSTNAME, at_most(16)),
        "parentRefs": List(&Message(&PARENT_REFS), at_most(32)),
        "rules": List(&Message(&GRPCROUTE_RULES), at_most(16)),
        "useDefaultGateways": Enum(&["All", "None"]),
    }
}
message! {
    GRPCROUTE {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        must "spec": Message(&GRPCROUTE_SPEC),
        "status": Any,
    }
}
message! {
    TLSROUTE_RULES_BACKEND_REFS {
        "group": GROUP,
        "kind": KIND,
        must "name": Text(between(1, 253)),
        "namespace": LABEL,
        "port": PORT_NUMBER,
        "weight": Int(0, 1_000_000),
    }
}
message! {
    TLSROUTE_RULES {
        must "backendRefs": List(&Message(&TLSROUTE_RULES_BACKEND_REFS), between(1, 16)),
        "name": DOMAIN,
    }
}
message! {
    TLSROUTE_SPEC {
        must "hostnames": List(&HOSTNAME, between(1, 1024)),
        "parentRefs": List(&Message(&PARENT_REFS), at_most(32)),
        must "rules": List(&Message(&TLSROUTE_RULES), between(1, 1)),
        "useDefaultGateways": Enum(&["All", "None"]),
    }
}
message! {
    TLSROUTE {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        must "spec": Message(&TLSROUTE_SPEC),
        "status": Any,
    }
}
message! {
    TCPROUTE_SPEC {
        "parentRefs": List(&Message(&PARENT_REFS), at_most(32)),
        must "rules": List(&Message(&TLSROUTE_RULES), between(1, 1)),
        "useDefaultGateways": Enum(&["All", "None"]),
    }
}
message! {
    TCPROUTE {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        must "spec": Message(&TCPROUTE_SPEC),
        "status": Any,
    }
}
