//! What travels over the control socket, as types for both ends: the server writes them, clients read them.
//!
//! | file | what |
//! |---|---|
//! | `routes` | the paths |
//! | `questions` | requests that change nothing |
//! | `verbs` | requests that change something |
//! | `answers` | what answers verbs |
//! | `errors` | what answers a request that failed, and its status code |
//! | `snapshot` | the figures (docs/metrics.md) |
//! | `status` | the status document (docs/status-schema.md) |
//! | `events` | what a reader of the event stream goes by (docs/events.md) |
//! | `words` | states and kinds: enums that keep a word which they do not know |
//!
//! A new verb has its path in `routes`, its request in `verbs`, a line in `openapi` (then `just openapi`), and its handler in
//! `server/verbs`. A question takes the same way.
//!
//! INVARIANT: `/v1` stays compatible. Paths stay. Answers gain fields, and lose or change none. A client reads an
//! answer that lacks the fields of later versions, and one that has more. A client leaves out what it does not ask for, because an
//! older server refuses fields that it does not know.

use serde::Serialize;
use serde::de::DeserializeOwned;

mod answers;
#[cfg(test)]
mod documented;
mod errors;
mod events;
#[cfg(test)]
mod openapi;
mod questions;
mod routes;
mod snapshot;
mod status;
mod verbs;
mod words;

pub use answers::*;
pub use errors::*;
pub use events::*;
pub use questions::*;
pub use routes::*;
pub use snapshot::*;
pub use status::*;
pub use verbs::*;
pub use words::*;

/// A request: where it goes, its body, which is the value itself, and what answers it.
pub trait Request: Serialize + DeserializeOwned {
    /// What answers it when it succeeds.
    type Answer: Serialize + DeserializeOwned;
    /// How it is asked.
    const METHOD: Method;
    /// Where it is asked.
    const PATH: &'static str;
}

/// How a path is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a question or a verb")]
pub enum Method {
    /// A question. It has no body.
    Get,
    /// A verb. Its body is JSON; without one every field has its default.
    Post,
}
