//! The codes of VirtualServices.

use super::{Entry, Example};
use crate::finding::{Severity, code};

/// The entries.
pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        code: code::REFERENCE,
        name: "ReferencedResourceNotFound",
        severity: Severity::Error,
        title: "something that is referred to does not exist",
        effect: "A rule that sends to a host, port or subset that does not exist answers 503; a VirtualService of a Gateway that does not exist gets no request; a Gateway or policy whose selector means no pod has no effect; a namespace in a policy matches nobody.",
        fix: "Mend the name. A short host name is one of the object's own namespace; a name with a dot is taken as it is (`reviews.prod` is not completed). Subsets are defined in a DestinationRule for the host.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  ports: [{name: http, port: 80}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviwes}
",
            silent: r"apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  ports: [{name: http, port: 80}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews}
",
        }),
    },
    Entry {
        code: code::CONFLICTING_HOSTS,
        name: "ConflictingMeshGatewayVirtualServiceHosts",
        severity: Severity::Error,
        title: "several VirtualServices are for one host of the mesh",
        effect: "Their rules are merged: the oldest object's first, then by name, then by namespace, and those that take everything last. Istio takes the oldest object alone and ignores the others. Where one of them is exported to some namespaces only, their clients follow that one as long as one of its rules is for them.",
        fix: "Put the rules of a host into one VirtualService, or make `exportTo` of each a different namespace.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews-canary, namespace: shop}
spec:
  hosts: [reviews.shop.svc.cluster.local]
  http: [{route: [{destination: {host: reviews}}]}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews}}]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews-canary, namespace: shop}
spec:
  hosts: [ratings]
  http: [{route: [{destination: {host: reviews}}]}]
",
        }),
    },
    Entry {
        code: code::PORT_MISSING,
        name: "VirtualServiceDestinationPortSelectorRequired",
        severity: Severity::Error,
        title: "a destination has several ports and none is named",
        effect: "Requests go to the port that the client dialled, which the destination may not have: then they are refused.",
        fix: "Add `port.number` to the destination.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  ports: [{name: http, port: 80}, {name: grpc, port: 9000}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews}
",
            silent: r"apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  ports: [{name: http, port: 80}, {name: grpc, port: 9000}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, port: {number: 80}}
",
        }),
    },
    Entry {
        code: code::UNREACHABLE,
        name: "VirtualServiceUnreachableRule",
        severity: Severity::Warning,
        title: "a rule that no request reaches",
        effect: "The first rule that matches wins. Below a rule without matches, or when earlier rules have all of its matches, a rule is never used. Two routes that were meant to split traffic send all of it to the first.",
        fix: "Put the rule without matches last. To split traffic, list the destinations with their weights under one `route`.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
  - match: [{uri: {prefix: /beta}}]
    route:
    - destination: {host: reviews, subset: v2}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /beta}}]
    route:
    - destination: {host: reviews, subset: v2}
  - route:
    - destination: {host: reviews, subset: v1}
",
        }),
    },
    Entry {
        code: code::REPEATED_MATCH,
        name: "VirtualServiceIneffectiveMatch",
        severity: Severity::Info,
        title: "a match that repeats an earlier one, or whose prefix an earlier one covers",
        effect: "The earlier rule takes the requests.",
        fix: "Remove the match, or put the longer prefix first.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /api}}]
    route: [{destination: {host: reviews, subset: v1}}]
  - match: [{uri: {prefix: /api/beta}}]
    route: [{destination: {host: reviews, subset: v2}}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /api/beta}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - match: [{uri: {prefix: /api}}]
    route: [{destination: {host: reviews, subset: v1}}]
",
        }),
    },
    Entry {
        code: code::HOST_NOT_IN_GATEWAY,
        name: "VirtualServiceHostNotFoundInGateway",
        severity: Severity::Warning,
        title: "a VirtualService whose hosts its Gateway does not serve",
        effect: "No request comes to its rules through the Gateway: it answers 404 for the host.",
        fix: "Add the host to the Gateway's server, or mend it here. `*.example.com` does not include `example.com`, and a host `other/example.com` of a server is for VirtualServices of namespace `other` only.",
        example: Some(Example {
            fires: r#"apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*.example.com"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: shop}
spec:
  hosts: [example.com]
  gateways: [front]
  http: [{route: [{destination: {host: web}}]}]
"#,
            silent: r#"apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*.example.com"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: shop}
spec:
  hosts: [www.example.com]
  gateways: [front]
  http: [{route: [{destination: {host: web}}]}]
"#,
        }),
    },
    Entry {
        code: code::NOT_FROM_GATEWAY,
        name: "IngressRouteRulesNotAffected",
        severity: Severity::Warning,
        title: "subsets that do not hold for what comes through a gateway",
        effect: "A gateway follows the VirtualServices that name it, and no others. Rules for clients in the mesh that send a host to its subsets do not hold for requests that a gateway's own rules send there.",
        fix: "Name the subsets in the gateway's rule, too, or bind the one VirtualService to both (`gateways: [front, mesh]`).",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: shop}
spec:
  hosts: [www.example.com]
  gateways: [front]
  http:
  - route:
    - destination: {host: reviews}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: shop}
spec:
  hosts: [www.example.com]
  gateways: [front]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
",
        }),
    },
    Entry {
        code: code::CLAIMS_UNCHECKED,
        name: "JwtClaimBasedRoutingWithoutRequestAuthN",
        severity: Severity::Error,
        title: "rules that look at claims of a token that nobody checks",
        effect: "Claims are known only where a RequestAuthentication has checked the token: without one for the gateway's pods the rule never matches.",
        fix: "Add a RequestAuthentication that selects the gateway's pods.",
        example: Some(Example {
            fires: r#"apiVersion: v1
kind: Pod
metadata: {name: gateway, namespace: edge, labels: {app: gateway}}
spec: {containers: [{name: proxy}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: edge}
spec:
  selector: {app: gateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: edge}
spec:
  hosts: [www.example.com]
  gateways: [front]
  http:
  - match: [{headers: {"@request.auth.claims.group": {exact: admin}}}]
    route: [{destination: {host: admin}}]
"#,
            silent: r#"apiVersion: v1
kind: Pod
metadata: {name: gateway, namespace: edge, labels: {app: gateway}}
spec: {containers: [{name: proxy}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: edge}
spec:
  selector: {app: gateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: ["*"]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: edge}
spec:
  hosts: [www.example.com]
  gateways: [front]
  http:
  - match: [{headers: {"@request.auth.claims.group": {exact: admin}}}]
    route: [{destination: {host: admin}}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: edge}
spec:
  selector: {matchLabels: {app: gateway}}
  jwtRules: [{issuer: "https://login.example.com", jwksUri: "https://login.example.com/keys"}]
"#,
        }),
    },
    Entry {
        code: code::INTERNAL_GATEWAY,
        name: "ReferencedInternalGateway",
        severity: Severity::Warning,
        title: "a reference to a Gateway that Istio makes for itself",
        effect: "Gateways named `…~istio-autogenerated-k8s-gateway~…` are Istio's own, made from those of the Gateway API. Here there are none: no request comes to these rules.",
        fix: "Name the Gateway of the Gateway API, or write an HTTPRoute.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: shop}
spec:
  hosts: [www.example.com]
  gateways: [front~istio-autogenerated-k8s-gateway~http]
  http: [{route: [{destination: {host: web}}]}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: shop}
spec:
  hosts: [www.example.com]
  gateways: [front]
  http: [{route: [{destination: {host: web}}]}]
",
        }),
    },
    Entry {
        code: code::DEPRECATED,
        name: "Deprecated",
        severity: Severity::Warning,
        title: "a field or kind that is deprecated",
        effect: "It still works, or has stopped to: the message says which.",
        fix: "Use what the message names.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - fault: {delay: {percent: 10, fixedDelay: 2s}}
    route: [{destination: {host: reviews}}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - fault: {delay: {percentage: {value: 10}, fixedDelay: 2s}}
    route: [{destination: {host: reviews}}]
",
        }),
    },
];
