//! The server's answer when it cannot do what was asked: a `Status` object with its HTTP code.

use serde_json::{Value, json};

/// A failed request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Status {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    details: Option<Value>,
    /// Seconds, for the header `Retry-After`.
    pub(super) retry_after: Option<u64>,
}

impl Status {
    /// A failure with the reason that goes with `code`.
    pub(super) fn new(code: u16, message: &str) -> Self {
        let reason = match code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            406 => "NotAcceptable",
            409 => "Conflict",
            410 => "Expired",
            413 => "RequestEntityTooLarge",
            415 => "UnsupportedMediaType",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "Unknown",
        };
        Self { code, reason, message: message.to_owned(), details: None, retry_after: None }
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::new(400, message)
    }

    pub(super) fn invalid(message: &str) -> Self {
        Self::new(422, message)
    }

    /// An object that is not there.
    pub(super) fn not_found(resource: &str, name: &str) -> Self {
        let mut status = Self::new(404, &format!("{resource} \"{name}\" not found"));
        status.details = Some(json!({"name": name, "kind": resource}));
        status
    }

    /// A path that is not served.
    pub(super) fn no_such_path() -> Self {
        Self::new(404, "the server could not find the requested resource")
    }

    pub(super) fn already_exists(resource: &str, name: &str) -> Self {
        let mut status = Self::new(409, &format!("{resource} \"{name}\" already exists"));
        status.reason = "AlreadyExists";
        status.details = Some(json!({"name": name, "kind": resource}));
        status
    }

    pub(super) fn conflict(resource: &str, name: &str, why: &str) -> Self {
        let mut status = Self::new(409, &format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}"));
        status.details = Some(json!({"name": name, "kind": resource}));
        status
    }

    /// The history that was asked for is no longer kept.
    pub(super) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, &format!("too old resource version: {asked} ({oldest})"))
    }

    /// The version that was asked for is not reached yet.
    pub(super) fn too_large(asked: u64, current: u64) -> Self {
        let mut status = Self::new(504, &format!("Too large resource version: {asked}, current: {current}"));
        status.details = Some(json!({
            "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
            "retryAfterSeconds": 1,
        }));
        status.retry_after = Some(1);
        status
    }

    pub(super) fn json(&self) -> Value {
        let mut value = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if let Some(details) = &self.details {
            value["details"] = details.clone();
        }
        value
    }
}
