//! `metadata`, of every kind.

use super::prelude::*;

message! {
    OBJECT_META {
        "annotations": Map(&TEXT, ANY),
        "creationTimestamp": Any,
        "deletionGracePeriodSeconds": Any,
        "deletionTimestamp": Any,
        "finalizers": List(&TEXT, ANY),
        "generateName": TEXT,
        "generation": Any,
        "labels": Map(&TEXT, ANY),
        "managedFields": Any,
        "name": TEXT,
        "namespace": TEXT,
        "ownerReferences": Any,
        "resourceVersion": Any,
        "selfLink": TEXT,
        "uid": TEXT,
    }
}
