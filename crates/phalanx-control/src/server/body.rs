//! The bodies of requests: read within a bound and a time, whatever type they claim to be (`curl -d` claims that of a form).

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::answer::Refusal;
use crate::api::ErrorKind;

/// How long a body may take to arrive, once the head has.
const LIMIT: Duration = Duration::from_secs(5);

/// What a request asks for. Without a body, every field has its default.
pub(super) struct Wanted<R>(pub(super) R);

impl<S: Send + Sync, R: DeserializeOwned> FromRequest<S> for Wanted<R> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let Ok(read) = timeout(LIMIT, Bytes::from_request(request, state)).await else {
            let reason = format!("the body has not arrived within {LIMIT:?}");
            return Err(Refusal::new(ErrorKind::TooSlow, reason));
        };
        let body = read.map_err(|rejection| {
            let is_too_large = rejection.status() == StatusCode::PAYLOAD_TOO_LARGE;
            let kind = if is_too_large {
                ErrorKind::TooLarge
            } else {
                ErrorKind::Invalid
            };
            Refusal::new(kind, rejection.body_text())
        })?;
        let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
        serde_json::from_slice(body)
            .map(Self)
            .map_err(|invalid| Refusal::invalid(format!("the body is not as expected: {invalid}")))
    }
}
