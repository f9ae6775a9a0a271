//! The codes of files and objects of every kind.

use super::{Entry, Example};
use crate::finding::{Severity, code};

/// The entries.
pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        code: code::UNKNOWN_FIELD,
        name: "UnknownField",
        severity: Severity::Warning,
        title: "a field that does not exist, in an object that is in force without it",
        effect: "The agent leaves the field out. Before it is applied it is IST0106: an API server refuses it.",
        fix: "Mend its name or its place: the message says what was probably meant.",
        example: None,
    },
    Entry {
        code: code::SNAKE_CASE,
        name: "SnakeCase",
        severity: Severity::Warning,
        title: "a field's name in a spelling that files may have and an API server does not take",
        effect: "Istio's tools read it; an API server refuses it, or leaves it out.",
        fix: "Write it as the message has it.",
        example: None,
    },
    Entry {
        code: code::SYNTAX,
        name: "NoYaml",
        severity: Severity::Error,
        title: "the text is no YAML, or too large",
        effect: "The document is left out; a running agent keeps the last good version of what it held.",
        fix: "Mend the text where the message points to.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
    trafficPolicy: {loadBalancer: {simple: RANDOM}}
",
            silent: r"apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  trafficPolicy: {loadBalancer: {simple: RANDOM}}
",
        }),
    },
    Entry {
        code: code::NOT_SUPPORTED,
        name: "NotSupported",
        severity: Severity::Warning,
        title: "a kind or field that this version does not do",
        effect: "The message says what happens instead. It is an Error where something that was asked for is refused, or not protected.",
        fix: "Leave it out, or wait for a version that does it.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: filter, namespace: shop}
spec: {}
",
            silent: r"apiVersion: v1
kind: Namespace
metadata: {name: shop}
",
        }),
    },
    Entry {
        code: code::NOT_ENFORCED,
        name: "NotEnforced",
        severity: Severity::Error,
        title: "a policy that protects something is not enforced",
        effect: "What it protects refuses: nothing is left open that was to be closed.",
        fix: "Leave the policy out where the ports may be open, or wait for a version that enforces it.",
        example: None,
    },
    Entry {
        code: code::IGNORED_KIND,
        name: "IgnoredKind",
        severity: Severity::Info,
        title: "a kind that is none of weir's business",
        effect: "Objects of this kind are not looked at.",
        fix: "Nothing.",
        example: None,
    },
    Entry {
        code: code::NOT_ENROLLED,
        name: "NotEnrolled",
        severity: Severity::Warning,
        title: "a pod that was asked to take part and cannot",
        effect: "It is as if it had not been asked; the message says why.",
        fix: "Change what the message names, or leave the pod out by `weir.mesh/mode: disabled`.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {weir.mesh/mode: enabled}}
spec: {hostNetwork: true, containers: [{name: app}]}
",
            silent: r"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {weir.mesh/mode: enabled}}
spec: { containers: [{name: app}]}
",
        }),
    },
    Entry {
        code: code::MAY_NOT_LIST,
        name: "InsufficientPermissions",
        severity: Severity::Warning,
        title: "a kind that one may not list",
        effect: "Of objects of this kind nothing is said, or only of those of one namespace, and nothing follows from their being absent. It is told of with `--kubernetes`.",
        fix: "A ClusterRole that grants `list` for the kind.",
        example: None,
    },
    Entry {
        code: code::OLD_KUBERNETES,
        name: "UnsupportedKubernetesVersion",
        severity: Severity::Error,
        title: "a version of Kubernetes that is too old",
        effect: "weir is made for Kubernetes 1.30 and newer. It is told of with `--kubernetes`.",
        fix: "Upgrade the cluster.",
        example: None,
    },
    Entry {
        code: code::DUPLICATE,
        name: "Duplicate",
        severity: Severity::Error,
        title: "the same object twice",
        effect: "The first, by file and line, is in force.",
        fix: "Remove one of them.",
        example: Some(Example {
            fires: r"apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: disabled}}
",
            silent: r"apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {weir.mesh/mode: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: bank, labels: {weir.mesh/mode: disabled}}
",
        }),
    },
    Entry {
        code: code::BAD_SETTING,
        name: "BadSetting",
        severity: Severity::Error,
        title: "a label or annotation of weir's with a value that it cannot have",
        effect: "It is not looked at.",
        fix: "Mend the value.",
        example: Some(Example {
            fires: r#"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {weir.mesh/mode: "on"}}
spec: {containers: [{name: app}]}
"#,
            silent: r"apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {weir.mesh/mode: enabled}}
spec: {containers: [{name: app}]}
",
        }),
    },
    Entry {
        code: code::NO_EFFECT,
        name: "NoEffect",
        severity: Severity::Warning,
        title: "something written that changes nothing",
        effect: "The message says why. `weir status` tells of it; `weir analyze` has a code of its own for each case.",
        fix: "Leave it out, or change what keeps it from counting.",
        example: None,
    },
    Entry {
        code: code::LEFT_ALONE,
        name: "LeftAlone",
        severity: Severity::Warning,
        title: "a service port is left to kube-proxy",
        effect: "Connections to it go as they would without weir.",
        fix: "Nothing; the message says what keeps it.",
        example: None,
    },
    Entry {
        code: code::UNKNOWN_HOST,
        name: "UnknownHost",
        severity: Severity::Warning,
        title: "a VirtualService for a host that no address stands for",
        effect: "weir steers connections by the address that is dialled, and the Host header selects among the rules of that port; Istio selects by the Host of everything that is sent to a port 80. A host that no Service or ServiceEntry has, a wildcard that covers none, and the alias of an ExternalName Service have no address here: who asks DNS for them passes as without weir. The rules hold only for requests of this Host that dial port 80 of a service with rules of its own.",
        fix: "Mend the host, make a ServiceEntry with addresses and endpoints for it, or write the rules for the host that is dialled.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews}}]}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews}}]}]
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
",
        }),
    },
    Entry {
        code: code::UNREADABLE,
        name: "Unreadable",
        severity: Severity::Error,
        title: "a file or directory that cannot be read",
        effect: "What it said before stays in force.",
        fix: "Give the agent the right to read it.",
        example: None,
    },
    Entry {
        code: code::INTERNAL,
        name: "Internal",
        severity: Severity::Error,
        title: "a fault of weir itself",
        effect: "What was in force stays.",
        fix: "Report it.",
        example: None,
    },
    Entry {
        code: code::INVALID,
        name: "SchemaValidationError",
        severity: Severity::Error,
        title: "the object is not valid",
        effect: "It is refused as a whole: an API server would not take it, or its last good version stays in force.",
        fix: "Mend what the message names.",
        example: Some(Example {
            fires: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{match: [{uri: {prefix: /}}]}]
",
            silent: r"apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http: [{match: [{uri: {prefix: /}}], route: [{destination: {host: reviews}}]}]
",
        }),
    },
    Entry {
        code: code::WARNING,
        name: "SchemaWarning",
        severity: Severity::Warning,
        title: "the object is valid, but for something that is hardly meant so",
        effect: "The message says what it does.",
        fix: "Mend what the message names.",
        example: None,
    },
];
