//! Answers as JSON, and refusals with their status code.

use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use phalanx_core::command::CommandError;
use serde::Serialize;

use crate::api::{Error, ErrorKind, Failed};

/// What was asked for.
pub(super) struct Answer<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        json(StatusCode::OK, &self.0)
    }
}

/// Why a request is not answered otherwise.
pub(crate) struct Refusal(Box<Error>);

impl Refusal {
    pub(crate) fn new(kind: ErrorKind, reason: impl Into<String>) -> Self {
        let (reason, last_lines) = (reason.into(), Vec::new());
        Self(Box::new(Error {
            kind,
            reason,
            last_lines,
        }))
    }

    pub(super) fn invalid(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, reason)
    }
}

impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        Self(Box::new(error.into()))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = *self.0;
        // What is still to come of a body is not waited for.
        let is_last = error.kind == ErrorKind::TooSlow;
        // INVARIANT: the codes are those of HTTP.
        let code = StatusCode::from_u16(error.kind.status_code()).unwrap_or_default();
        let mut response = json(code, &Failed { error });
        if is_last {
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        response
    }
}

/// The fields are in the order of the alphabet, as they always were.
fn json<T: Serialize>(code: StatusCode, value: &T) -> Response {
    // INVARIANT: what answers has text keys and finite numbers; that always becomes JSON.
    let value = serde_json::to_value(value).unwrap_or_default();
    (code, axum::Json(value)).into_response()
}
