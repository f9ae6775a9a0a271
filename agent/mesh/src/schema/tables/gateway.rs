//! The fields of Istio's Gateway.

use super::prelude::*;

message! {
    PORT {
        must "name": TEXT,
        must "number": U32,
        must "protocol": TEXT,
        "targetPort": U32,
    }
}
message! {
    TLS_CERTIFICATES {
        "caCertificates": TEXT,
        "privateKey": TEXT,
        "serverCertificate": TEXT,
    }
}
message! {
    TLS {
        "caCertCredentialName": TEXT,
        "caCertificates": TEXT,
        "caCrl": TEXT,
        "cipherSuites": List(&TEXT, ANY),
        "credentialName": TEXT,
        "credentialNames": List(&TEXT, between(1, 2)),
        "httpsRedirect": Bool,
        "insecureSkipVerify": Bool,
        "maxProtocolVersion": Enum(&["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]),
        "minProtocolVersion": Enum(&["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"]),
        "mode": Enum(&["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"]),
        "privateKey": TEXT,
        "serverCertificate": TEXT,
        "subjectAltNames": List(&TEXT, ANY),
        "tlsCertificates": List(&Message(&TLS_CERTIFICATES), between(1, 2)),
        "verifyCertificateHash": List(&TEXT, ANY),
        "verifyCertificateSpki": List(&TEXT, ANY),
    }
}
message! {
    SERVERS {
        "bind": TEXT,
        "defaultEndpoint": TEXT,
        must "hosts": List(&TEXT, ANY),
        "name": TEXT,
        must "port": Message(&PORT),
        "tls": Message(&TLS),
    }
}
message! {
    GATEWAY_SPEC {
        "selector": Map(&TEXT, ANY),
        "servers": List(&Message(&SERVERS), ANY),
    }
}
message! {
    GATEWAY {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": Message(&OBJECT_META),
        "spec": Message(&GATEWAY_SPEC),
        "status": Any,
    }
}
