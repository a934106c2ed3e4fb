//! The refusals of notifications, whatever way they arrive.

use axum::http::StatusCode;
use carillon_protocol::FieldError;
use carillon_protocol::limits::{ENTRY_MAX_BYTES, WAITING_MAX_ENTRIES};

use crate::refusal::Refusal;

pub(crate) fn list_full() -> Refusal {
    let detail = format!("{WAITING_MAX_ENTRIES} notifications wait to be claimed; try again shortly");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "list full", detail)
}

pub(crate) fn invalid(errors: Vec<FieldError>) -> Refusal {
    Refusal::fields("invalid notification", errors)
}

pub(crate) fn too_large() -> Refusal {
    let detail = format!("a notification has at most {ENTRY_MAX_BYTES} bytes");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "payload too large", detail)
}
