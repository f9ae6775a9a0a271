//! The fields of a Telemetry.

use super::prelude::*;
use super::security::{SELECTOR, TARGET_REF};

message! {
    FILTER {
        "expression": TEXT,
    }
}
message! {
    MATCH {
        "mode": Enum(&["CLIENT_AND_SERVER", "CLIENT", "SERVER"]),
    }
}
message! {
    PROVIDERS {
        must "name": Text(at_least(1)),
    }
}
message! {
    ACCESS_LOGGING {
        "disabled": Bool,
        "filter": Message(&FILTER),
        "match": Message(&MATCH),
        "providers": List(&Message(&PROVIDERS), ANY),
    }
}
message! {
    OVERRIDES_MATCH {
        "customMetric": Text(at_least(1)),
        "metric": Enum(&[
            "ALL_METRICS", "REQUEST_COUNT", "REQUEST_DURATION", "REQUEST_SIZE", "RESPONSE_SIZE",
            "TCP_OPENED_CONNECTIONS", "TCP_CLOSED_CONNECTIONS", "TCP_SENT_BYTES", "TCP_RECEIVED_BYTES",
            "GRPC_REQUEST_MESSAGES", "GRPC_RESPONSE_MESSAGES",
        ]),
        "mode": Enum(&["CLIENT_AND_SERVER", "CLIENT", "SERVER"]),
    }
    one of "metric", "customMetric"
}
message! {
    TAG_OVERRIDES {
        "operation": Enum(&["UPSERT", "REMOVE"]),
        "value": TEXT,
    }
}
message! {
    OVERRIDES {
        "disabled": Bool,
        "match": Message(&OVERRIDES_MATCH),
        "tagOverrides": Map(&Message(&TAG_OVERRIDES), ANY),
    }
}
message! {
    METRICS {
        "overrides": List(&Message(&OVERRIDES), ANY),
        "providers": List(&Message(&PROVIDERS), ANY),
        "reportingInterval": DURATION,
    }
}
message! {
    ENVIRONMENT {
        "defaultValue": TEXT,
        must "name": Text(at_least(1)),
    }
}
message! {
    FORMATTER {
        must "value": Text(at_least(1)),
    }
}
message! {
    CUSTOM_TAGS {
        "environment": Message(&ENVIRONMENT),
        "formatter": Message(&FORMATTER),
        "header": Message(&ENVIRONMENT),
        "literal": Message(&FORMATTER),
    }
    one of "literal", "environment", "header", "formatter"
}
message! {
    TRACING {
        "customTags": Map(&Message(&CUSTOM_TAGS), ANY),
        "disableContextPropagation": Bool,
        "disableSpanReporting": Bool,
        "enableIstioTags": Bool,
        "match": Message(&MATCH),
        "providers": List(&Message(&PROVIDERS), ANY),
        "randomSamplingPercentage": Float(0.0, 100.0),
        "useRequestIdForTraceSampling": Bool,
    }
}
message! {
    TELEMETRY_SPEC {
        "accessLogging": List(&Message(&ACCESS_LOGGING), ANY),
        "metrics": List(&Message(&METRICS), ANY),
        "selector": Message(&SELECTOR),
        "targetRef": Message(&TARGET_REF),
        "targetRefs": List(&Message(&TARGET_REF), at_most(16)),
        "tracing": List(&Message(&TRACING), ANY),
    }
}
message! {
    TELEMETRY {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        "spec": Message(&TELEMETRY_SPEC),
        "status": Any,
    }
}
