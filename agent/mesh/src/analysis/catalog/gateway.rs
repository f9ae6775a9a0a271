//! The codes of Gateways.

use super::{Entry, Example};
use crate::finding::{Severity, code};

/// The entries.
pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        code: code::SAME_CERTIFICATE,
        name: "GatewayDuplicateCertificate",
        severity: Severity::Warning,
        title: "one certificate in several Gateways",
        effect: "A client that finds two hosts in one certificate uses one HTTP/2 connection for both. What comes for the other Gateway's host gets 404.",
        fix: "Put the hosts of a certificate into one Gateway, or give each its own.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: a, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [a.example.com]
    tls: {mode: SIMPLE, credentialName: wildcard}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: b, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [b.example.com]
    tls: {mode: SIMPLE, credentialName: wildcard}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: a, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [a.example.com]
    tls: {mode: SIMPLE, credentialName: wildcard}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: b, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [b.example.com]
    tls: {mode: SIMPLE, credentialName: b}
",
        }),
    },
    Entry {
        code: code::RIVAL_GATEWAYS,
        name: "ConflictingGateways",
        severity: Severity::Error,
        title: "Gateways that want the same host on the same port of the same pods",
        effect: "One of them gets it: the oldest.",
        fix: "Give each host on a port to one Gateway.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: a, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [www.example.com]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: b, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [www.example.com]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: a, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [www.example.com]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: b, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [shop.example.com]
",
        }),
    },
    Entry {
        code: code::BAD_CERTIFICATE,
        name: "InvalidGatewayCredential",
        severity: Severity::Error,
        title: "a Gateway's certificate cannot be used",
        effect: "The server refuses connections, or clients refuse the certificate.",
        fix: "Put a certificate that is in its time into `tls.crt` and its key into `tls.key`, both as PEM.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Secret
metadata: {name: web, namespace: weir-system}
type: kubernetes.io/tls
stringData: {tls.crt: not a certificate, tls.key: not a key}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [www.example.com]
    tls: {mode: SIMPLE, credentialName: web}
",
            silent: r"apiVersion: v1
kind: Secret
metadata: {name: web, namespace: weir-system}
type: kubernetes.io/tls
stringData:
  tls.crt: |
    -----BEGIN CERTIFICATE-----
    MIIBpzCCAU2gAwIBAgIUFkH7NOzEkj+LiZnxip0Lk6dTw/swCgYIKoZIzj0EAwIw
    GjEYMBYGA1UEAwwPd3d3LmV4YW1wbGUuY29tMCAXDTI2MTEyMTE5NTU1NFoYDzIx
    MjYxMDI4MTk1NTU0WjAaMRgwFgYDVQQDDA93d3cuZXhhbXBsZS5jb20wWTATBgcq
    hkjOPQIBBggqhkjOPQMBBwNCAAShIVaOT0QZgKaXxvN2wzd/W5D+x3vW3r4gFziR
    fjNlXQx7eD+8VWkQX6qXlRs0Mb9okSIyhUMxl3e9bPiDG+GAo28wbTAdBgNVHQ4E
    FgQUw4dPJizKasjSedJupcUGM9tYk2IwHwYDVR0jBBgwFoAUw4dPJizKasjSedJu
    pcUGM9tYk2IwDwYDVR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgg93d3cuZXhhbXBs
    ZS5jb20wCgYIKoZIzj0EAwIDSAAwRQIhAIpqslpmP5aCEJFSYu97BsROhOn3tmR6
    NkTgPmxzSYGxAiAp+4Dr7ahM4J5BOxLB6F7CtEBFFKwM+5ckqTW1JQVDgw==
    -----END CERTIFICATE-----
  tls.key: |
    -----BEGIN PRIVATE KEY-----
    (the key)
    -----END PRIVATE KEY-----
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: https, protocol: HTTPS}
    hosts: [www.example.com]
    tls: {mode: SIMPLE, credentialName: web}
",
        }),
    },
    Entry {
        code: code::PORT_NOT_EXPOSED,
        name: "GatewayPortNotDefinedOnService",
        severity: Severity::Warning,
        title: "a Gateway's port that no Service leads to",
        effect: "The gateway listens, and nobody reaches it from outside. weir's own gateway (label `istio: ingressgateway`) is reached at 80 and 443.",
        fix: "Use a port that the gateway's Service leads to, or add it there.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 8080, name: http, protocol: HTTP}
    hosts: [www.example.com]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: shop}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [www.example.com]
",
        }),
    },
    Entry {
        code: code::SELECTOR_ON_GATEWAY,
        name: "IneffectiveSelector",
        severity: Severity::Warning,
        title: "a selector that means the pods of a Gateway of the Gateway API",
        effect: "Policies hold for such a Gateway when they name it: the selector has no effect on it.",
        fix: "Write `targetRefs` with the Gateway's name.",
        example: Some(Example {
            fires: r#"apiVersion: v1
kind: Pod
metadata:
  name: front
  namespace: shop
  labels: {gateway.networking.k8s.io/gateway-name: front}
spec: {containers: [{name: proxy}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  selector: {matchLabels: {gateway.networking.k8s.io/gateway-name: front}}
  jwtRules: [{issuer: "https://login.example.com", jwksUri: "https://login.example.com/keys"}]
"#,
            silent: r#"apiVersion: v1
kind: Pod
metadata:
  name: front
  namespace: shop
  labels: {gateway.networking.k8s.io/gateway-name: front}
spec: {containers: [{name: proxy}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: front}]
  jwtRules: [{issuer: "https://login.example.com", jwksUri: "https://login.example.com/keys"}]
"#,
        }),
    },
    Entry {
        code: code::OLD_GATEWAY_API,
        name: "GatewayAPICRDVersionBelowMinimum",
        severity: Severity::Warning,
        title: "a CustomResourceDefinition of the Gateway API that is too old",
        effect: "It does not serve the version of its kind that is read, so objects of that kind have no effect.",
        fix: "Install a newer release of the Gateway API's definitions.",
        example: Some(Example {
            fires: r"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: tlsroutes.gateway.networking.k8s.io
  annotations: {gateway.networking.k8s.io/bundle-version: v1.4.0}
spec: {group: gateway.networking.k8s.io, names: {kind: TLSRoute}}
",
            silent: r"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: tlsroutes.gateway.networking.k8s.io
  annotations: {gateway.networking.k8s.io/bundle-version: v1.5.0}
spec: {group: gateway.networking.k8s.io, names: {kind: TLSRoute}}
",
        }),
    },
    Entry {
        code: code::UNREAD_GATEWAY_API,
        name: "UnsupportedGatewayAPIVersion",
        severity: Severity::Error,
        title: "a CustomResourceDefinition of the Gateway API without a version that is read",
        effect: "Objects of this kind have no effect.",
        fix: "Install a newer release of the Gateway API's definitions.",
        example: Some(Example {
            fires: r"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: httproutes.gateway.networking.k8s.io}
spec: {group: gateway.networking.k8s.io, names: {kind: HTTPRoute}, versions: [{name: v1alpha2, served: true}]}
",
            silent: r"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: httproutes.gateway.networking.k8s.io}
spec: {group: gateway.networking.k8s.io, names: {kind: HTTPRoute}, versions: [{name: v1beta1, served: true}, {name: v1, served: true}]}
",
        }),
    },
    Entry {
        code: code::ENDING_GATEWAY_API,
        name: "FutureUnsupportedGatewayAPIVersion",
        severity: Severity::Warning,
        title: "a CustomResourceDefinition of the Gateway API of before its release 1.0",
        effect: "Objects of this kind are read at v1beta1, which newer releases of the Gateway API end.",
        fix: "Install a newer release of the Gateway API's definitions.",
        example: Some(Example {
            fires: r"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: httproutes.gateway.networking.k8s.io}
spec: {group: gateway.networking.k8s.io, names: {kind: HTTPRoute}, versions: [{name: v1beta1, served: true}]}
",
            silent: r"apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: httproutes.gateway.networking.k8s.io}
spec: {group: gateway.networking.k8s.io, names: {kind: HTTPRoute}, versions: [{name: v1beta1, served: true}, {name: v1, served: true}]}
",
        }),
    },
];
