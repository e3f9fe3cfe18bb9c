//! What an answer looks like: a status code, a type, a body, and never from a cache.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

pub const JSON: &str = "application/json";
pub const PLAIN: &str = "text/plain; charset=utf-8";
pub const HTML: &str = "text/html; charset=utf-8";

pub fn page(code: StatusCode, content_type: &'static str, body: impl IntoResponse) -> Response {
    let headers: [(HeaderName, &'static str); 3] =
        [(CONTENT_TYPE, content_type), (CACHE_CONTROL, "no-store"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (code, headers, body).into_response()
}

/// One line of JSON.
pub fn json(code: StatusCode, value: &impl Serialize) -> Response {
    let mut body = serde_json::to_vec(value).expect("structs whose map keys are strings are always JSON");
    body.push(b'\n');
    page(code, JSON, body)
}

/// Anything but success: `status` for programs, `reason` for people.
pub fn refusal(code: StatusCode, status: &'static str, reason: &str) -> Response {
    #[derive(Serialize)]
    struct Refusal<'a> {
        status: &'a str,
        reason: &'a str,
    }
    json(code, &Refusal { status, reason })
}
