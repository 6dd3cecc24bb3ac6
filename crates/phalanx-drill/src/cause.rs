//! Why a request was not answered, and what a conforming client may do about it.

use std::io::{self, ErrorKind};

use serde::Serialize;

/// Why a request failed, by what the client saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Cause {
    /// Nobody listened.
    Refused,
    /// The connection was reset while it was made.
    ResetWhileConnecting,
    /// The connection was not made in time.
    ConnectTimedOut,
    /// The connection was reset before any byte of the response.
    ResetBeforeResponse,
    /// The connection was reset in the middle of the response.
    ResetInResponse,
    /// The connection was closed before any byte of the response.
    ClosedWithoutAnswer,
    /// The connection was closed in the middle of the response.
    ClosedInResponse,
    /// The response did not come, or not all of it, in time.
    TimedOut,
    /// A 5xx status that this way of asking had not been answered with in calm.
    ServerError,
    /// What came is no HTTP/1 response, or more than was asked for.
    Malformed,
    /// A WebSocket ended without a closing handshake, or a ping was not answered.
    StreamCut,
    /// The drill itself could not ask: no port, no descriptor.
    ClientFault,
}

impl Cause {
    /// In words, after "the request was lost: ".
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ResetWhileConnecting => "reset while connecting",
            Self::ConnectTimedOut => "not connected in time",
            Self::ResetBeforeResponse => "reset before the response",
            Self::ResetInResponse => "reset in the middle of the response",
            Self::ClosedWithoutAnswer => "closed without an answer",
            Self::ClosedInResponse => "closed in the middle of the response",
            Self::TimedOut => "timed out",
            Self::ServerError => "a 5xx that calm did not show",
            Self::Malformed => "malformed response",
            Self::StreamCut => "stream cut",
            Self::ClientFault => "the drill could not ask",
        }
    }

    /// Whether this is how the death of a worker looks to its clients. A time-out is not: the kernel
    /// closes the sockets of the dead at once.
    pub(super) fn may_come_of_a_kill(self) -> bool {
        match self {
            Self::ResetWhileConnecting
            | Self::ResetBeforeResponse
            | Self::ResetInResponse
            | Self::ClosedWithoutAnswer
            | Self::ClosedInResponse
            | Self::StreamCut => true,
            Self::Refused
            | Self::ConnectTimedOut
            | Self::TimedOut
            | Self::ServerError
            | Self::Malformed
            | Self::ClientFault => false,
        }
    }

    /// Whether a client may send the request again by itself: the method is idempotent (RFC 9110, 9.2.2)
    /// and the connection, which had carried responses before, ended before any byte of this one
    /// (RFC 9112, 9.3.1).
    pub(super) fn may_be_repeated(self, is_idempotent: bool, had_carried_responses: bool) -> bool {
        is_idempotent
            && had_carried_responses
            && matches!(self, Self::ResetBeforeResponse | Self::ClosedWithoutAnswer)
    }
}

/// Whether repeating a request of this method does no more than sending it once (RFC 9110, 9.2.2).
pub(super) fn is_idempotent(method: &str) -> bool {
    ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE"].contains(&method)
}

/// Why no connection was made.
pub(super) fn of_connecting(error: &io::Error) -> Cause {
    let is = |kinds: &[ErrorKind]| kinds.contains(&error.kind());
    if is(&[ErrorKind::ConnectionRefused]) {
        Cause::Refused
    } else if is(&[ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted]) {
        Cause::ResetWhileConnecting
    } else if is(&[ErrorKind::TimedOut]) {
        Cause::ConnectTimedOut
    } else {
        Cause::ClientFault
    }
}

/// Why reading ended: by an error, or by the end of the stream where there is none.
pub(super) fn of_reading(error: Option<&io::Error>, response_has_begun: bool) -> Cause {
    match (error, response_has_begun) {
        (Some(_), false) => Cause::ResetBeforeResponse,
        (Some(_), true) => Cause::ResetInResponse,
        (None, false) => Cause::ClosedWithoutAnswer,
        (None, true) => Cause::ClosedInResponse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_repeated_is_what_the_standard_allows() {
        for (cause, method, reused, allowed) in [
            (Cause::ClosedWithoutAnswer, "GET", true, true),
            (Cause::ResetBeforeResponse, "PUT", true, true),
            (Cause::ClosedWithoutAnswer, "POST", true, false),
            (Cause::ClosedWithoutAnswer, "GET", false, false),
            (Cause::ClosedInResponse, "GET", true, false),
            (Cause::ResetInResponse, "GET", true, false),
            (Cause::TimedOut, "GET", true, false),
            (Cause::Refused, "GET", true, false),
        ] {
            let found = cause.may_be_repeated(is_idempotent(method), reused);
            assert_eq!(found, allowed, "{cause:?} {method} {reused}");
        }
    }

    #[test]
    fn errors_are_told_apart_by_the_moment() {
        let error = |kind: ErrorKind| of_connecting(&kind.into());
        assert_eq!(error(ErrorKind::ConnectionRefused), Cause::Refused);
        assert_eq!(
            error(ErrorKind::ConnectionReset),
            Cause::ResetWhileConnecting
        );
        assert_eq!(error(ErrorKind::AddrNotAvailable), Cause::ClientFault);
        let reset = ErrorKind::ConnectionReset.into();
        assert_eq!(of_reading(Some(&reset), false), Cause::ResetBeforeResponse);
        assert_eq!(of_reading(Some(&reset), true), Cause::ResetInResponse);
        assert_eq!(of_reading(None, false), Cause::ClosedWithoutAnswer);
        assert_eq!(of_reading(None, true), Cause::ClosedInResponse);
    }

    #[test]
    fn causes_have_names_in_json() {
        let name = |cause| serde_json::to_value(cause).unwrap();
        assert_eq!(name(Cause::ClosedWithoutAnswer), "closed_without_answer");
        assert_eq!(name(Cause::ServerError), "server_error");
    }
}
