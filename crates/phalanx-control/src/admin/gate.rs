//! Whether a request is answered: who asks, and on whose behalf.
//!
//! A page of somebody else can make a browser ask, and the browser has the rights of its user. It says so: by `Origin`, by
//! `Sec-Fetch-Site`, and by `Host`, which has the name by which the page was reached, whatever address that name has now (DNS
//! rebinding). There are no cookies, so a browser adds nothing by itself that would open anything; and no header of ours lets a page of
//! another origin read an answer (CORS).

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, ORIGIN,
    REFERRER_POLICY, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::token::{Kept, Token};
use crate::api::ErrorKind;
use crate::server::Refusal as Answer;

const API: &str = "/v1/";
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SCHEME: &[u8] = b"Bearer ";

/// What every answer carries. The page loads nothing but itself, runs nothing inline, is framed by nobody, and is kept nowhere.
const HEADERS: [(HeaderName, &str); 7] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

/// What a request is judged by.
#[derive(Debug)]
pub(super) struct Gate {
    token: Option<Kept>,
}

/// Why a request is not answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    /// It was meant for another name.
    Host,
    /// A page of another origin asks, or may be asking.
    Origin,
    /// It has not the token.
    Token,
}

/// Answers what may be answered.
pub(super) async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(Authority::as_str);
    let path = request.uri().path();
    if let Some(token) = gate.token.as_ref().filter(|_| path.starts_with(API)) {
        token.renew().await;
    }
    let judged = gate.judge(request.method(), authority, path, request.headers());
    let mut response = match judged {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.response(),
    };
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    response
}

impl Gate {
    pub(super) fn new(token: Option<Token>) -> Self {
        let token = token.map(Kept::new);
        Self { token }
    }

    fn judge(
        &self,
        method: &Method,
        authority: Option<&str>,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let host = only(headers, &HOST)
            .map_err(|()| Refusal::Host)?
            .ok_or(Refusal::Host)?;
        if authority.is_some_and(|one| !one.eq_ignore_ascii_case(host)) {
            return Err(Refusal::Host);
        }
        // With a token it does not matter by which name one came: no other page has it.
        if self.token.is_none() && !is_loopback(host) {
            return Err(Refusal::Host);
        }
        let origin = only(headers, &ORIGIN).map_err(|()| Refusal::Origin)?;
        if origin.is_some_and(|origin| !is_of(origin, host)) {
            return Err(Refusal::Origin);
        }
        let is_api = path.starts_with(API);
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        if is_api || !is_read {
            let site = only(headers, &FETCH_SITE).map_err(|()| Refusal::Origin)?;
            if site.is_some_and(|site| !["same-origin", "none"].contains(&site)) {
                return Err(Refusal::Origin);
            }
        }
        let Some(token) = &self.token else {
            // Browsers say where a POST comes from; one that does not say is no page of ours.
            let is_known = is_read || origin.is_some();
            return is_known.then_some(()).ok_or(Refusal::Origin);
        };
        let is_free = is_read && !is_api;
        let is_let_in = is_free || has(headers, token);
        is_let_in.then_some(()).ok_or(Refusal::Token)
    }
}

impl Refusal {
    fn response(self) -> Response {
        let (kind, reason) = match self {
            Self::Host => (
                ErrorKind::OtherHost,
                "without a token this is served to localhost, 127.0.0.1 and [::1] only, and the request names another host",
            ),
            Self::Origin => (
                ErrorKind::OtherOrigin,
                "the request comes from a page of another origin, or does not say of which (a POST has to: Origin: http://HOST:PORT)",
            ),
            Self::Token => (
                ErrorKind::TokenNeeded,
                "the request has not the token (Authorization: Bearer TOKEN)",
            ),
        };
        let mut response = Answer::new(kind, reason).into_response();
        if self == Self::Token {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// The value of a header that may be there once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(());
    }
    first.map(|value| value.to_str().map_err(drop)).transpose()
}

/// Whether a host, perhaps with a port, is this machine's own name. The port may be that of a tunnel.
fn is_loopback(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|one| one.is_ascii_digit()) => {
            name
        }
        Some(_) | None => host,
    };
    if without_port.eq_ignore_ascii_case("localhost") {
        return true;
    }
    let bare = without_port
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address: Result<IpAddr, _> = match bare {
        Some(bare) => bare.parse().map(IpAddr::V6),
        None => without_port.parse().map(IpAddr::V4),
    };
    address.is_ok_and(|address| address.is_loopback())
}

/// Whether the origin is that of a page that was reached by this host; also through a proxy that speaks TLS.
fn is_of(origin: &str, host: &str) -> bool {
    let authority = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
}

fn has(headers: &HeaderMap, token: &Kept) -> bool {
    let mut all = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else {
        return false;
    };
    let given = value.as_bytes().strip_prefix(SCHEME);
    given.is_some_and(|given| token.is(given))
}

#[cfg(test)]
mod tests;
