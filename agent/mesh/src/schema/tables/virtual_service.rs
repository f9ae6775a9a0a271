//! The fields of a VirtualService.

use super::prelude::*;

message! {
    STRING_MATCH {
        "exact": TEXT,
        "prefix": TEXT,
        "regex": TEXT,
    }
    one of "exact", "prefix", "regex"
}
message! {
    CORS_POLICY {
        "allowCredentials": Bool,
        "allowHeaders": List(&TEXT, ANY),
        "allowMethods": List(&TEXT, ANY),
        "allowOrigin": List(&TEXT, ANY),
        "allowOrigins": List(&Message(&STRING_MATCH), ANY),
        "exposeHeaders": List(&TEXT, ANY),
        "maxAge": DURATION,
        "unmatchedPreflights": Enum(&["UNSPECIFIED", "FORWARD", "IGNORE"]),
    }
}
message! {
    DELEGATE {
        "name": TEXT,
        "namespace": TEXT,
    }
}
message! {
    HTTP_BODY {
        "bytes": TEXT,
        "string": TEXT,
    }
    one of "string", "bytes"
}
message! {
    DIRECT_RESPONSE {
        "body": Message(&HTTP_BODY),
        must "status": U32,
    }
}
message! {
    PERCENT {
        "value": FLOAT,
    }
}
message! {
    ABORT {
        "grpcStatus": TEXT,
        "http2Error": TEXT,
        "httpStatus": I32,
        "percentage": Message(&PERCENT),
    }
    one of "httpStatus", "grpcStatus", "http2Error"
}
message! {
    DELAY {
        "exponentialDelay": DURATION,
        "fixedDelay": DURATION,
        "percent": I32,
        "percentage": Message(&PERCENT),
    }
    one of "fixedDelay", "exponentialDelay"
}
message! {
    FAULT {
        "abort": Message(&ABORT),
        "delay": Message(&DELAY),
    }
}
message! {
    HEADER_OPERATIONS {
        "add": Map(&TEXT, ANY),
        "remove": List(&TEXT, ANY),
        "set": Map(&TEXT, ANY),
    }
}
message! {
    HEADERS {
        "request": Message(&HEADER_OPERATIONS),
        "response": Message(&HEADER_OPERATIONS),
    }
}
message! {
    HTTP_MATCH {
        "authority": Message(&STRING_MATCH),
        "gateways": List(&TEXT, ANY),
        "headers": Map(&Message(&STRING_MATCH), ANY),
        "ignoreUriCase": Bool,
        "method": Message(&STRING_MATCH),
        "name": TEXT,
        "port": U32,
        "queryParams": Map(&Message(&STRING_MATCH), ANY),
        "scheme": Message(&STRING_MATCH),
        "sourceLabels": Map(&TEXT, ANY),
        "sourceNamespace": TEXT,
        "statPrefix": TEXT,
        "uri": Message(&STRING_MATCH),
        "withoutHeaders": Map(&Message(&STRING_MATCH), ANY),
    }
}
message! {
    PORT_SELECTOR {
        "number": U32,
    }
}
message! {
    DESTINATION {
        must "host": TEXT,
        "port": Message(&PORT_SELECTOR),
        "subset": TEXT,
    }
}
message! {
    MIRROR {
        must "destination": Message(&DESTINATION),
        "percentage": Message(&PERCENT),
    }
}
message! {
    REDIRECT {
        "authority": TEXT,
        "derivePort": Enum(&["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"]),
        "port": U32,
        "prefixRewrite": TEXT,
        "redirectCode": U32,
        "scheme": TEXT,
        "uri": TEXT,
    }
    one of "port", "derivePort"
}
message! {
    RETRIES {
        "attempts": I32,
        "backoff": DURATION,
        "perTryTimeout": DURATION,
        "retryIgnorePreviousHosts": Bool,
        "retryOn": TEXT,
        "retryRemoteLocalities": Bool,
    }
}
message! {
    REGEX_REWRITE {
        "match": TEXT,
        "rewrite": TEXT,
    }
}
message! {
    REWRITE {
        "authority": TEXT,
        "uri": TEXT,
        "uriRegexRewrite": Message(&REGEX_REWRITE),
    }
}
message! {
    HTTP_ROUTE_DESTINATION {
        must "destination": Message(&DESTINATION),
        "headers": Message(&HEADERS),
        "weight": I32,
    }
}
message! {
    HTTP_ROUTE {
        "corsPolicy": Message(&CORS_POLICY),
        "delegate": Message(&DELEGATE),
        "directResponse": Message(&DIRECT_RESPONSE),
        "fault": Message(&FAULT),
        "headers": Message(&HEADERS),
        "match": List(&Message(&HTTP_MATCH), ANY),
        "mirror": Message(&DESTINATION),
        "mirror_percent": U32,
        "mirrorPercent": U32,
        "mirrorPercentage": Message(&PERCENT),
        "mirrors": List(&Message(&MIRROR), ANY),
        "name": TEXT,
        "redirect": Message(&REDIRECT),
        "retries": Message(&RETRIES),
        "rewrite": Message(&REWRITE),
        "route": List(&Message(&HTTP_ROUTE_DESTINATION), ANY),
        "timeout": DURATION,
    }
}
message! {
    MATCH {
        "destinationSubnets": List(&TEXT, ANY),
        "gateways": List(&TEXT, ANY),
        "port": U32,
        "sourceLabels": Map(&TEXT, ANY),
        "sourceNamespace": TEXT,
        "sourceSubnet": TEXT,
    }
}
message! {
    ROUTE_DESTINATION {
        must "destination": Message(&DESTINATION),
        "weight": I32,
    }
}
message! {
    TCP_ROUTE {
        "match": List(&Message(&MATCH), ANY),
        "route": List(&Message(&ROUTE_DESTINATION), ANY),
    }
}
message! {
    TLS_MATCH {
        "destinationSubnets": List(&TEXT, ANY),
        "gateways": List(&TEXT, ANY),
        "port": U32,
        must "sniHosts": List(&TEXT, ANY),
        "sourceLabels": Map(&TEXT, ANY),
        "sourceNamespace": TEXT,
    }
}
message! {
    TLS_ROUTE {
        must "match": List(&Message(&TLS_MATCH), ANY),
        "route": List(&Message(&ROUTE_DESTINATION), ANY),
    }
}
message! {
    VIRTUAL_SERVICE_SPEC {
        "exportTo": List(&TEXT, ANY),
        "gateways": List(&TEXT, ANY),
        "hosts": List(&TEXT, ANY),
        "http": List(&Message(&HTTP_ROUTE), ANY),
        "tcp": List(&Message(&TCP_ROUTE), ANY),
        "tls": List(&Message(&TLS_ROUTE), ANY),
    }
}
message! {
    VIRTUAL_SERVICE {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        "spec": Message(&VIRTUAL_SERVICE_SPEC),
        "status": Any,
    }
}
