//! The fields of AuthorizationPolicy, PeerAuthentication and RequestAuthentication.

use super::prelude::*;

message! {
    PROVIDER {
        "name": TEXT,
    }
}
message! {
    SOURCE {
        "ipBlocks": List(&TEXT, ANY),
        "namespaces": List(&TEXT, ANY),
        "notIpBlocks": List(&TEXT, ANY),
        "notNamespaces": List(&TEXT, ANY),
        "notPrincipals": List(&TEXT, ANY),
        "notRemoteIpBlocks": List(&TEXT, ANY),
        "notRequestPrincipals": List(&TEXT, ANY),
        "notServiceAccounts": List(&Text(at_most(320)), at_most(16)),
        "notTrustDomains": List(&TEXT, ANY),
        "principals": List(&TEXT, ANY),
        "remoteIpBlocks": List(&TEXT, ANY),
        "requestPrincipals": List(&TEXT, ANY),
        "serviceAccounts": List(&Text(at_most(320)), at_most(16)),
        "trustDomains": List(&TEXT, ANY),
    }
}
message! {
    FROM {
        "source": Message(&SOURCE),
    }
}
message! {
    OPERATION {
        "hosts": List(&TEXT, ANY),
        "methods": List(&TEXT, ANY),
        "notHosts": List(&TEXT, ANY),
        "notMethods": List(&TEXT, ANY),
        "notPaths": List(&TEXT, ANY),
        "notPorts": List(&TEXT, ANY),
        "paths": List(&TEXT, ANY),
        "ports": List(&TEXT, ANY),
    }
}
message! {
    TO {
        "operation": Message(&OPERATION),
    }
}
message! {
    WHEN {
        must "key": TEXT,
        "notValues": List(&TEXT, ANY),
        "values": List(&TEXT, ANY),
    }
}
message! {
    RULES {
        "from": List(&Message(&FROM), at_most(512)),
        "to": List(&Message(&TO), ANY),
        "when": List(&Message(&WHEN), ANY),
    }
}
message! {
    SELECTOR {
        "matchLabels": Map(&Text(at_most(63)), at_most(4096)),
    }
}
message! {
    TARGET_REF {
        "group": GROUP,
        must "kind": KIND,
        must "name": Text(between(1, 253)),
        "namespace": TEXT,
    }
}
message! {
    AUTHORIZATION_POLICY_SPEC {
        "action": Enum(&["ALLOW", "DENY", "AUDIT", "CUSTOM"]),
        "provider": Message(&PROVIDER),
        "rules": List(&Message(&RULES), at_most(512)),
        "selector": Message(&SELECTOR),
        "targetRef": Message(&TARGET_REF),
        "targetRefs": List(&Message(&TARGET_REF), at_most(16)),
    }
}
message! {
    AUTHORIZATION_POLICY {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        "spec": Message(&AUTHORIZATION_POLICY_SPEC),
        "status": Any,
    }
}
message! {
    MTLS {
        "mode": Enum(&["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]),
    }
}
message! {
    PEER_AUTHENTICATION_SPEC {
        "mtls": Message(&MTLS),
        "portLevelMtls": Map(&Message(&MTLS), at_least(1)),
        "selector": Message(&SELECTOR),
    }
}
message! {
    PEER_AUTHENTICATION {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        "spec": Message(&PEER_AUTHENTICATION_SPEC),
        "status": Any,
    }
}
message! {
    FROM_HEADERS {
        must "name": Text(at_least(1)),
        "prefix": TEXT,
    }
}
message! {
    OUTPUT_CLAIM_TO_HEADERS {
        must "claim": Text(at_least(1)),
        must "header": HEADER_NAME,
    }
}
message! {
    JWT_RULES {
        "audiences": List(&Text(at_least(1)), ANY),
        "forwardOriginalToken": Bool,
        "fromCookies": List(&Text(at_least(1)), ANY),
        "fromHeaders": List(&Message(&FROM_HEADERS), ANY),
        "fromParams": List(&Text(at_least(1)), ANY),
        "issuer": Text(at_least(1)),
        "jwks": TEXT,
        "jwks_uri": Text(between(1, 2048)),
        "jwksUri": Text(between(1, 2048)),
        "outputClaimToHeaders": List(&Message(&OUTPUT_CLAIM_TO_HEADERS), ANY),
        "outputPayloadToHeader": TEXT,
        "spaceDelimitedClaims": List(&Text(at_least(1)), at_most(64)),
        "timeout": DURATION,
    }
}
message! {
    REQUEST_AUTHENTICATION_SPEC {
        "jwtRules": List(&Message(&JWT_RULES), at_most(4096)),
        "selector": Message(&SELECTOR),
        "targetRef": Message(&TARGET_REF),
        "targetRefs": List(&Message(&TARGET_REF), at_most(16)),
    }
}
message! {
    REQUEST_AUTHENTICATION {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        "spec": Message(&REQUEST_AUTHENTICATION_SPEC),
        "status": Any,
    }
}
