//! The codes of Kubernetes' own kinds and ServiceEntries.

use super::{Entry, Example};
use crate::finding::{Severity, code};

/// The entries.
pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        code: code::NOT_OPTED_IN,
        name: "NamespaceNotInjected",
        severity: Severity::Info,
        title: "a namespace whose pods do not take part in the mesh",
        effect: "Rules do not hold for its pods as clients, unless pods take part by labels of their own.",
        fix: "Label it `weir.mesh/mode=enabled`; or `=disabled`, to say that it is meant so.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Namespace
metadata: {name: shop}
",
            silent: r"apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: enabled}}
",
        }),
    },
    Entry {
        code: code::OPT_IN_LABELS,
        name: "NamespaceMultipleInjectionLabels",
        severity: Severity::Warning,
        title: "labels of a namespace that ask for several ways of taking part",
        effect: "Which of them counts depends on what is installed.",
        fix: "Keep one of them, or write `weir.mesh/mode`, which wins.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled, istio.io/rev: canary}}
",
            silent: r"apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
",
        }),
    },
    Entry {
        code: code::ANNOTATION_PLACE,
        name: "MisplacedAnnotation",
        severity: Severity::Warning,
        title: "an annotation on a kind that it is not for",
        effect: "It has no effect. Annotations for pods belong under `spec.template.metadata` of a Deployment.",
        fix: "Move it to the kind that the message names.",
        example: Some(Example {
            fires: r"apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
  annotations: {sidecar.istio.io/logLevel: debug}
spec:
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app}]}
",
            silent: r"apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: shop
spec:
  template:
    metadata:
      labels: {app: web}
      annotations: {sidecar.istio.io/logLevel: debug}
    spec: {containers: [{name: app}]}
",
        }),
    },
    Entry {
        code: code::ANNOTATION_NAME,
        name: "UnknownAnnotation",
        severity: Severity::Warning,
        title: "an annotation of Istio's domain that does not exist",
        effect: "It has no effect.",
        fix: "Mend its name.",
        example: Some(Example {
            fires: r#"apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  annotations: {network.istio.io/exportTo: "."}
spec: {ports: [{name: http, port: 80}]}
"#,
            silent: r#"apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  annotations: {networking.istio.io/exportTo: "."}
spec: {ports: [{name: http, port: 80}]}
"#,
        }),
    },
    Entry {
        code: code::ANNOTATION_VALUE,
        name: "InvalidAnnotation",
        severity: Severity::Warning,
        title: "an annotation with a value that it cannot have",
        effect: "It is ignored, or the pod is refused.",
        fix: "Mend its value.",
        example: Some(Example {
            fires: r#"apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: shop
  annotations: {traffic.sidecar.istio.io/excludeOutboundPorts: "http"}
spec: {containers: [{name: app}]}
"#,
            silent: r#"apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: shop
  annotations: {traffic.sidecar.istio.io/excludeOutboundPorts: "80"}
spec: {containers: [{name: app}]}
"#,
        }),
    },
    Entry {
        code: code::ANNOTATION_DEPRECATED,
        name: "DeprecatedAnnotation",
        severity: Severity::Info,
        title: "an annotation that is deprecated",
        effect: "It may stop to work.",
        fix: "Use what the message names.",
        example: Some(Example {
            fires: r#"apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: shop
  annotations: {sidecar.istio.io/inject: "false"}
spec: {containers: [{name: app}]}
"#,
            silent: r#"apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: shop
  labels: {sidecar.istio.io/inject: "false"}
spec: {containers: [{name: app}]}
"#,
        }),
    },
    Entry {
        code: code::ANNOTATION_ALPHA,
        name: "AlphaAnnotation",
        severity: Severity::Info,
        title: "an annotation of a feature that Istio calls alpha",
        effect: "It may change or go.",
        fix: "Nothing, if it is needed.",
        example: Some(Example {
            fires: r#"apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  annotations: {networking.istio.io/exportTo: "."}
spec: {ports: [{name: http, port: 80}]}
"#,
            silent: r"apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  annotations: {}
spec: {ports: [{name: http, port: 80}]}
",
        }),
    },
    Entry {
        code: code::PORT_TRANSPORTS,
        name: "DeploymentAssociatedToMultipleServices",
        severity: Severity::Warning,
        title: "Services of one workload with a port of different transports",
        effect: "A pod's port is TCP or UDP: one of the Services does not reach it.",
        fix: "Give the ports different numbers.",
        example: Some(Example {
            fires: r"apiVersion: apps/v1
kind: Deployment
metadata: {name: dns, namespace: shop}
spec:
  template:
    metadata: {labels: {app: dns, weir.mesh/mode: enabled}}
    spec: {containers: [{name: app}]}
---
apiVersion: v1
kind: Service
metadata: {name: dns-tcp, namespace: shop}
spec: {selector: {app: dns}, ports: [{name: tcp, port: 5300}]}
---
apiVersion: v1
kind: Service
metadata: {name: dns-udp, namespace: shop}
spec: {selector: {app: dns}, ports: [{name: udp, port: 5300, protocol: UDP}]}
",
            silent: r"apiVersion: apps/v1
kind: Deployment
metadata: {name: dns, namespace: shop}
spec:
  template:
    metadata: {labels: {app: dns, weir.mesh/mode: enabled}}
    spec: {containers: [{name: app}]}
---
apiVersion: v1
kind: Service
metadata: {name: dns-tcp, namespace: shop}
spec: {selector: {app: dns}, ports: [{name: tcp, port: 5300}]}
---
apiVersion: v1
kind: Service
metadata: {name: dns-udp, namespace: shop}
spec: {selector: {app: dns}, ports: [{name: udp, port: 5301, protocol: UDP}]}
",
        }),
    },
    Entry {
        code: code::PORT_NUMBERS,
        name: "DeploymentConflictingPorts",
        severity: Severity::Warning,
        title: "Services of one workload that call one of its ports by different numbers",
        effect: "Policy is by the Service's port: what is said for one of the numbers does not hold for the other.",
        fix: "Use one port number for a `targetPort`.",
        example: Some(Example {
            fires: r"apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web, weir.mesh/mode: enabled}}
    spec: {containers: [{name: app}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-old, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 81, targetPort: 8080}]}
",
            silent: r"apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web, weir.mesh/mode: enabled}}
    spec: {containers: [{name: app}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-old, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
",
        }),
    },
    Entry {
        code: code::PORT_NAME,
        name: "PortNameIsNotUnderNamingConvention",
        severity: Severity::Info,
        title: "a port whose name declares no protocol",
        effect: "The protocol is detected from the first bytes of each connection. A server that speaks first waits for the detection to end.",
        fix: "Name the port `http`, `http-…`, `grpc`, `tcp` or the like, or set `appProtocol`.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{port: 80}]}
",
            silent: r"apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
",
        }),
    },
    Entry {
        code: code::EXTERNAL_NAME_PORT,
        name: "ExternalNameServiceTypeInvalidPortName",
        severity: Severity::Warning,
        title: "a port of an ExternalName Service that carries TCP",
        effect: "Such a Service has no address by which its connections could be told from others to that port.",
        fix: "Name the port `http`, `https` or `tls`, or make a ServiceEntry.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {type: ExternalName, externalName: db.example.com, ports: [{name: tcp, port: 5432}]}
",
            silent: r"apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {type: ExternalName, externalName: db.example.com, ports: [{name: tls, port: 5432}]}
",
        }),
    },
    Entry {
        code: code::ADDRESSES_MISSING,
        name: "ServiceEntryAddressesRequired",
        severity: Severity::Warning,
        title: "a ServiceEntry for TCP without addresses",
        effect: "TCP does not name its host: all connections to that port are taken for it.",
        fix: "Add `addresses`, or use a protocol that names the host (HTTP, HTTPS, TLS).",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db, namespace: shop}
spec:
  hosts: [db.example.com]
  resolution: DNS
  ports: [{number: 5432, name: tcp, protocol: TCP}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: db, namespace: shop}
spec:
  hosts: [db.example.com]
  resolution: DNS
  addresses: [240.0.0.7]
  ports: [{number: 5432, name: tcp, protocol: TCP}]
",
        }),
    },
    Entry {
        code: code::RIVAL_PROTOCOLS,
        name: "ConflictingServiceEntryProtocol",
        severity: Severity::Warning,
        title: "ServiceEntries that call a port of a host by different protocols",
        effect: "Which of them holds depends on their age.",
        fix: "Use one protocol, other ports, or different `exportTo`.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: shop}
spec:
  hosts: [api.example.com]
  resolution: DNS
  ports: [{number: 443, name: https, protocol: HTTPS}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: b, namespace: shop}
spec:
  hosts: [api.example.com]
  resolution: DNS
  ports: [{number: 443, name: http, protocol: HTTP}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a, namespace: shop}
spec:
  hosts: [api.example.com]
  resolution: DNS
  ports: [{number: 443, name: https, protocol: HTTPS}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: b, namespace: shop}
spec:
  hosts: [api.example.com]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
",
        }),
    },
];
