//! The codes of what Istio does not look for.

use super::{Entry, Example};
use crate::finding::{Severity, code};

/// The entries.
pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        code: code::LONE_WEIGHT,
        name: "LoneWeight",
        severity: Severity::Warning,
        title: "a weight beside a destination that is alone",
        effect: "The only destination of a rule gets everything, whatever its weight.",
        fix: "To split traffic, list all destinations with their weights under one `route`; two rules without matches do not split.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 80}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 80}
    - {destination: {host: reviews, subset: v2}, weight: 20}
",
        }),
    },
    Entry {
        code: code::WEIGHT_MISSING,
        name: "WeightMissing",
        severity: Severity::Warning,
        title: "a destination without a weight beside others that have one",
        effect: "It gets nothing: no weight is weight 0.",
        fix: "Give each destination a weight.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
",
        }),
    },
    Entry {
        code: code::SHADOWED,
        name: "ShadowedMatch",
        severity: Severity::Warning,
        title: "a match that an earlier rule takes everything of",
        effect: "The first rule that matches wins: this one is never used. It is told of where it can be proved: an exact path below a prefix or regex that takes it, the same regex, or conditions that an earlier rule has without the rest.",
        fix: "Put the narrower rule first.",
        example: Some(Example {
            fires: r#"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {regex: "/api/.*"}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{uri: {exact: /api/beta}}]
    route: [{destination: {host: reviews, subset: v2}}]
"#,
            silent: r#"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {exact: /api/beta}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {regex: "/api/.*"}}]
    route: [{destination: {host: reviews, subset: v1}}]
"#,
        }),
    },
    Entry {
        code: code::RIVAL_RULES,
        name: "RivalDestinationRules",
        severity: Severity::Warning,
        title: "several DestinationRules of a namespace for one host",
        effect: "They are merged: the `trafficPolicy` of the oldest that has one holds as a whole, and the first definition of a subset. The rest of the others is not in force.",
        fix: "Put the settings of a host into one DestinationRule.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec: {host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: shop}
spec: {host: reviews, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a, namespace: shop}
spec: {host: reviews, trafficPolicy: {loadBalancer: {simple: RANDOM}}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: shop}
spec: {host: ratings, trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}}
",
        }),
    },
    Entry {
        code: code::PORT_DROPS,
        name: "PortSettingsDropBlocks",
        severity: Severity::Warning,
        title: "settings of a port that drop what the level above says",
        effect: "`portLevelSettings` replace connectionPool, loadBalancer, outlierDetection and tls of the level above as a whole: what the port does not repeat is the default there.",
        fix: "Repeat the blocks in the settings of the port.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 100}}
    portLevelSettings:
    - port: {number: 80}
      loadBalancer: {simple: RANDOM}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 100}}
    portLevelSettings:
    - port: {number: 80}
      loadBalancer: {simple: RANDOM}
      connectionPool: {tcp: {maxConnections: 100}}
",
        }),
    },
    Entry {
        code: code::REWRITE_JOINT,
        name: "RewriteJoint",
        severity: Severity::Warning,
        title: "a rewrite that joins paths wrongly",
        effect: "The matched prefix is replaced as text: `/v2` by `/` makes `/v2/x` into `//x`. Without a match of the uri it is `/` that is replaced: with `/foo`, `/a` becomes `/fooa`.",
        fix: "Match `/v2/` as a prefix and `/v2` as exact, and rewrite each; or use `uriRegexRewrite`.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /v2}}]
    rewrite: {uri: /}
    route: [{destination: {host: reviews}}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /v2/}}]
    rewrite: {uri: /}
    route: [{destination: {host: reviews}}]
",
        }),
    },
    Entry {
        code: code::GREEDY_PREFIX,
        name: "GreedyPrefix",
        severity: Severity::Info,
        title: "a prefix that takes more than the path segment that it names",
        effect: "A prefix is compared as text: `/v2` takes `/v2foo`, too. It is told of where the path is rewritten, or where a later rule is for such a path.",
        fix: "Match `/v2/` as a prefix and `/v2` as exact.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /v2}}]
    rewrite: {uri: /new}
    route: [{destination: {host: reviews}}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /v2/}}]
    rewrite: {uri: /new/}
    route: [{destination: {host: reviews}}]
",
        }),
    },
    Entry {
        code: code::NO_ATTEMPTS,
        name: "RetriesWithoutAttempts",
        severity: Severity::Warning,
        title: "retries without attempts",
        effect: "No attempts is 0: nothing is sent again, not even what is by default, such as a request whose connection could not be made: that is answered with 503.",
        fix: "Add `attempts`, or remove the block.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - retries: {}
    route: [{destination: {host: reviews}}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - retries: {attempts: 2}
    route: [{destination: {host: reviews}}]
",
        }),
    },
    Entry {
        code: code::NO_FAULT,
        name: "FaultWithoutPercentage",
        severity: Severity::Warning,
        title: "a fault that never happens",
        effect: "No percentage is 0 %.",
        fix: "Add `percentage: {value: 100}`.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - fault: {abort: {httpStatus: 503}}
    route: [{destination: {host: reviews}}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - fault: {abort: {httpStatus: 503, percentage: {value: 5}}}
    route: [{destination: {host: reviews}}]
",
        }),
    },
    Entry {
        code: code::FAULT_FIRST,
        name: "FaultHidesRetries",
        severity: Severity::Warning,
        title: "a fault that retries and timeouts of the same rule do not see",
        effect: "Faults are injected before a request is sent: an injected error is not repeated, and an injected delay does not count as time of the request.",
        fix: "Inject the fault elsewhere than in the rule whose retries and timeout are to be tested.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - fault: {abort: {httpStatus: 503, percentage: {value: 5}}}
    retries: {attempts: 3}
    route: [{destination: {host: reviews}}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - fault: {abort: {httpStatus: 503, percentage: {value: 5}}}
    route: [{destination: {host: reviews}}]
",
        }),
    },
    Entry {
        code: code::NO_EJECTION,
        name: "EjectsNothing",
        severity: Severity::Warning,
        title: "outlier detection that ejects nothing, or nothing in Istio",
        effect: "Without an error to count, or with one pod, nothing is ever ejected. At the default of 10 % Istio ejects nothing below ten pods, and weir ejects one as long as two are healthy.",
        fix: "Set the counters, and `maxEjectionPercent` to at least one pod's share.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 7}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 7, maxEjectionPercent: 50}
",
        }),
    },
    Entry {
        code: code::HASH_AND_WEIGHTS,
        name: "HashBehindWeights",
        severity: Severity::Warning,
        title: "a consistent hash behind weights",
        effect: "The destination is drawn by weight for each request, before the hash picks one of its pods: a client does not stay.",
        fix: "Choose the version by a header or cookie, or accept it.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {simple: RANDOM}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
",
        }),
    },
    Entry {
        code: code::COOKIE_WITHOUT_TTL,
        name: "CookieWithoutTtl",
        severity: Severity::Warning,
        title: "a hash by a cookie that nobody sets",
        effect: "The proxy makes the cookie only where it has a `ttl`: clients that do not bring it go to any pod.",
        fix: "Add `ttl: 0s` for a cookie of the session, or a time.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: user}}}}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: user, ttl: 0s}}}}
",
        }),
    },
    Entry {
        code: code::NO_CLIENTS,
        name: "NoClients",
        severity: Severity::Warning,
        title: "rules for clients none of which takes part",
        effect: "Rules hold for clients that take part in the mesh: the proxy is on the client's side.",
        fix: "Label the clients' namespace `weir.mesh/mode=enabled`.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews}}]}]
",
            silent: r"apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: enabled}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews}}]}]
",
        }),
    },
    Entry {
        code: code::HIDDEN_RULE,
        name: "HiddenDestinationRule",
        severity: Severity::Warning,
        title: "a DestinationRule of the clients' namespace that hides the owner's",
        effect: "A rule of the client's namespace comes before those of the namespace of the service, even one for `*` before one for the very host, and rules of different namespaces are never merged. In a namespace, one with a workloadSelector comes before those without, and is not merged with them. Where a VirtualService names a subset that only the hidden rule defines, its share is answered with 503 (NC).",
        fix: "Repeat the subsets in the rule of the clients, or move it to the root namespace, whose rules come last.",
        example: Some(Example {
            fires: r#"apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews, subset: v1}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all, namespace: clients}
spec: {host: "*", trafficPolicy: {loadBalancer: {simple: RANDOM}}}
"#,
            silent: r#"apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews, subset: v1}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all, namespace: istio-system}
spec: {host: "*", trafficPolicy: {loadBalancer: {simple: RANDOM}}}
"#,
        }),
    },
];
