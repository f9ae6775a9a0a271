//! The codes of DestinationRules.

use super::{Entry, Example};
use crate::finding::{Severity, code};

/// The entries.
pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        code: code::NO_CA,
        name: "NoServerCertificateVerificationDestinationLevel",
        severity: Severity::Warning,
        title: "TLS to a host, and no authority is named that its certificate is checked against",
        effect: "Which authorities count is then up to the image that the proxy runs in.",
        fix: "Name a file in `caCertificates`; `system` means those of the image, said on purpose.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: shop}
spec:
  host: db.example.com
  trafficPolicy:
    tls: {mode: SIMPLE}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: shop}
spec:
  host: db.example.com
  trafficPolicy:
    tls: {mode: SIMPLE, caCertificates: system}
",
        }),
    },
    Entry {
        code: code::NO_CA_PORT,
        name: "NoServerCertificateVerificationPortLevel",
        severity: Severity::Warning,
        title: "TLS to a port of a host, and no authority is named that its certificate is checked against",
        effect: "Which authorities count is then up to the image that the proxy runs in.",
        fix: "Name a file in `caCertificates`; `system` means those of the image, said on purpose.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: shop}
spec:
  host: db.example.com
  trafficPolicy:
    portLevelSettings:
    - port: {number: 5432}
      tls: {mode: SIMPLE}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: shop}
spec:
  host: db.example.com
  trafficPolicy:
    portLevelSettings:
    - port: {number: 5432}
      tls: {mode: SIMPLE, caCertificates: system}
",
        }),
    },
    Entry {
        code: code::EMPTY_SUBSET,
        name: "DestinationRuleSubsetNotSelectPods",
        severity: Severity::Error,
        title: "a subset selects no pod",
        effect: "Its share of the traffic is refused with 503. It is not given to another subset: nobody asked for that.",
        fix: "Label the pods, or mend the labels. Pods and the templates of Deployments, StatefulSets, DaemonSets, ReplicaSets and Jobs count; the Service's own selector holds, too.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews, namespace: shop}
spec:
  template:
    metadata: {labels: {app: reviews}}
    spec: {containers: [{name: app}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets:
  - name: v1
    labels: {version: v1}
",
            silent: r"apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews, namespace: shop}
spec:
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec: {containers: [{name: app}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets:
  - name: v1
    labels: {version: v1}
",
        }),
    },
    Entry {
        code: code::RULE_WITHOUT_HOST,
        name: "UnknownDestinationRuleHost",
        severity: Severity::Warning,
        title: "a DestinationRule for a host that does not exist",
        effect: "The rule has no effect.",
        fix: "Mend the host. A short name is one of the rule's own namespace.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  ports: [{name: http, port: 80}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: clients}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {simple: RANDOM}}
",
            silent: r"apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec:
  ports: [{name: http, port: 80}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: clients}
spec:
  host: reviews.shop.svc.cluster.local
  trafficPolicy: {loadBalancer: {simple: RANDOM}}
",
        }),
    },
    Entry {
        code: code::TLS_TWICE,
        name: "TlsTwice",
        severity: Severity::Warning,
        title: "TLS around TLS",
        effect: "Clients of a port whose protocol is HTTPS or TLS encrypt themselves. With SIMPLE or MUTUAL for that port their connections are encrypted once more, as in Istio, and hardly any server expects that.",
        fix: "Leave out `tls`, or have clients ask for a port of plain HTTP whose `targetPort` is this one.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.example.com]
  addresses: [240.240.0.1]
  ports: [{number: 443, name: https, protocol: HTTPS}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.1}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: shop}
spec:
  host: api.example.com
  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /etc/ssl/certs/ca-certificates.crt}}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api, namespace: shop}
spec:
  hosts: [api.example.com]
  addresses: [240.240.0.1]
  ports: [{number: 80, targetPort: 443, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.1}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: shop}
spec:
  host: api.example.com
  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /etc/ssl/certs/ca-certificates.crt}}
",
        }),
    },
];
