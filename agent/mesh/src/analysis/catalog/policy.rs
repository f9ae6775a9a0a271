//! The codes of policies, Telemetry and Sidecars.

use super::{Entry, Example};
use crate::finding::{Severity, code};

/// The entries.
pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        code: code::NO_WORKLOAD,
        name: "NoMatchingWorkloadsFound",
        severity: Severity::Warning,
        title: "a policy that selects no workload of the mesh",
        effect: "It protects nothing: no pod has the labels, or those that have them do not take part.",
        fix: "Mend the selector, which holds for pods; write the policy in their namespace; or let the pods take part.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, weir.mesh/mode: enabled}}
spec: {containers: [{name: app}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: wbe}}
  action: DENY
  rules: [{to: [{operation: {methods: [DELETE]}}]}]
",
            silent: r"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, weir.mesh/mode: enabled}}
spec: {containers: [{name: app}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{to: [{operation: {methods: [DELETE]}}]}]
",
        }),
    },
    Entry {
        code: code::NO_PROVIDER,
        name: "InvalidTelemetryProvider",
        severity: Severity::Warning,
        title: "access logging without a provider",
        effect: "The entry is ignored, as the mesh has no default provider.",
        fix: "Name one: `providers: [{name: envoy}]`.",
        example: Some(Example {
            fires: r"apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: logs, namespace: shop}
spec:
  accessLogging:
  - filter: {expression: response.code >= 400}
",
            silent: r"apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: logs, namespace: shop}
spec:
  accessLogging:
  - providers: [{name: envoy}]
",
        }),
    },
    Entry {
        code: code::TELEMETRY_OVERLAP,
        name: "ConflictingTelemetryWorkloadSelectors",
        severity: Severity::Error,
        title: "Telemetry objects that select the same pod",
        effect: "One of them holds for it: the oldest.",
        fix: "Let each pod be selected by one of them.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec: {containers: [{name: app}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: a, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, tracing: [{randomSamplingPercentage: 1}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: b, namespace: shop}
spec: {selector: {matchLabels: {tier: front}}, tracing: [{randomSamplingPercentage: 9}]}
",
            silent: r"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec: {containers: [{name: app}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: a, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, tracing: [{randomSamplingPercentage: 1}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: b, namespace: shop}
spec: {selector: {matchLabels: {tier: back}}, tracing: [{randomSamplingPercentage: 9}]}
",
        }),
    },
    Entry {
        code: code::TELEMETRY_DEFAULT,
        name: "MultipleTelemetriesWithoutWorkloadSelectors",
        severity: Severity::Error,
        title: "several Telemetry objects of a namespace without a selector",
        effect: "One of them holds: the oldest.",
        fix: "Merge them, or give all but one a selector.",
        example: Some(Example {
            fires: r"apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: a, namespace: shop}
spec: {tracing: [{randomSamplingPercentage: 1}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: b, namespace: shop}
spec: {tracing: [{randomSamplingPercentage: 9}]}
",
            silent: r"apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: a, namespace: shop}
spec: {tracing: [{randomSamplingPercentage: 1}]}
---
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: b, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, tracing: [{randomSamplingPercentage: 9}]}
",
        }),
    },
    Entry {
        code: code::SIDECARS_OVERLAP,
        name: "ConflictingSidecarWorkloadSelectors",
        severity: Severity::Error,
        title: "Sidecars that select the same pod",
        effect: "One of them would hold for it. weir reads Sidecars for what their namespace sees, and limits nothing by them.",
        fix: "Let each pod be selected by one of them.",
        example: Some(Example {
            fires: r#"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec: {containers: [{name: app}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: a, namespace: shop}
spec: {workloadSelector: {labels: {app: web}}, egress: [{hosts: ["./*"]}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: b, namespace: shop}
spec: {workloadSelector: {labels: {tier: front}}, egress: [{hosts: ["./*"]}]}
"#,
            silent: r#"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web, tier: front}}
spec: {containers: [{name: app}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: a, namespace: shop}
spec: {workloadSelector: {labels: {app: web}}, egress: [{hosts: ["./*"]}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: b, namespace: shop}
spec: {workloadSelector: {labels: {tier: back}}, egress: [{hosts: ["./*"]}]}
"#,
        }),
    },
    Entry {
        code: code::SIDECARS_DEFAULT,
        name: "MultipleSidecarsWithoutWorkloadSelectors",
        severity: Severity::Error,
        title: "several Sidecars of a namespace without a selector",
        effect: "One of them would hold.",
        fix: "Merge them, or give all but one a selector.",
        example: Some(Example {
            fires: r#"apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: a, namespace: shop}
spec: {egress: [{hosts: ["./*"]}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: b, namespace: shop}
spec: {egress: [{hosts: ["./*"]}]}
"#,
            silent: r#"apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: a, namespace: shop}
spec: {egress: [{hosts: ["./*"]}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: b, namespace: shop}
spec: {workloadSelector: {labels: {app: web}}, egress: [{hosts: ["./*"]}]}
"#,
        }),
    },
    Entry {
        code: code::NO_IMPACT,
        name: "IneffectivePolicy",
        severity: Severity::Warning,
        title: "a policy for pods that it cannot hold for",
        effect: "A Sidecar limits the sidecar of a pod; its pods have none.",
        fix: "Limit what pods may reach by AuthorizationPolicy at the destination, and what they see by `exportTo`.",
        example: Some(Example {
            fires: r#"apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec: {egress: [{hosts: ["./*"]}]}
"#,
            silent: r#"apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec: {egress: [{hosts: ["./*"]}]}
"#,
        }),
    },
    Entry {
        code: code::CONDITION,
        name: "NegativeConditionStatus",
        severity: Severity::Warning,
        title: "a condition of an object's status is not met",
        effect: "What the condition is about does not work; whoever wrote it says why.",
        fix: "Mend what the message names.",
        example: Some(Example {
            fires: r#"apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
status:
  conditions:
  - {type: Programmed, status: "False", reason: NoAddress, message: no address is free}
"#,
            silent: r#"apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
status:
  conditions:
  - {type: Programmed, status: "True", reason: NoAddress, message: no address is free}
"#,
        }),
    },
    Entry {
        code: code::ALLOW_DENIES,
        name: "AllowPolicyDeniesTheRest",
        severity: Severity::Info,
        title: "an ALLOW policy refuses all that it does not name",
        effect: "As soon as one ALLOW policy selects a pod, requests to it that no ALLOW policy takes get 403. A policy without rules refuses everything.",
        fix: "Nothing, if that is what it is for. To refuse some requests and leave the rest, write `action: DENY`. To say that a policy allows everything, give it the rule `{}`.",
        example: Some(Example {
            fires: r"apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  rules:
  - from: [{source: {namespaces: [shop]}}]
    to: [{operation: {methods: [DELETE]}}]
",
            silent: r"apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  action: DENY
  rules:
  - from: [{source: {namespaces: [shop]}}]
    to: [{operation: {methods: [DELETE]}}]
",
        }),
    },
    Entry {
        code: code::PLAIN_TEXT_MATCHES,
        name: "NegativeIdentityMatchesPlainText",
        severity: Severity::Warning,
        title: "a negative condition on identities that clients without mutual TLS meet",
        effect: "notPrincipals, notNamespaces and notServiceAccounts are met by whoever is none of those named, and a client in plain text is nobody. An ALLOW policy lets it in.",
        fix: "Name beside it who is meant; `principals: [\"*\"]` is every client that has an identity.",
        example: Some(Example {
            fires: r"apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  rules:
  - from: [{source: {notPrincipals: [cluster.local/ns/db/sa/batch]}}]
",
            silent: r#"apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  rules:
  - from: [{source: {principals: ["*"], notPrincipals: [cluster.local/ns/db/sa/batch]}}]
"#,
        }),
    },
    Entry {
        code: code::SPIFFE_SCHEME,
        name: "PrincipalWithScheme",
        severity: Severity::Warning,
        title: "a principal with spiffe://",
        effect: "Certificates spell identities as spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT, policies without the scheme. With it a principal is that of nobody.",
        fix: "Leave `spiffe://` out.",
        example: Some(Example {
            fires: r#"apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  rules:
  - from: [{source: {principals: ["spiffe://cluster.local/ns/front/sa/web"]}}]
"#,
            silent: r"apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  rules:
  - from: [{source: {principals: [cluster.local/ns/front/sa/web]}}]
",
        }),
    },
    Entry {
        code: code::SERVICE_PORT_IN_POLICY,
        name: "PolicyNamesServicePort",
        severity: Severity::Warning,
        title: "a policy that names the port of a Service",
        effect: "Policies are enforced where the pod is, and `ports` is the port on which it listens. The port of the Service that clients dial never gets there.",
        fix: "Write the targetPort.",
        example: Some(Example {
            fires: r#"apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, image: web}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  rules:
  - to: [{operation: {ports: ["80"]}}]
"#,
            silent: r#"apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: web, image: web}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: web, namespace: shop}
spec:
  rules:
  - to: [{operation: {ports: ["8080"]}}]
"#,
        }),
    },
];
