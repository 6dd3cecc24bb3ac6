//! What travels over the control socket, as types for both ends: the server writes them, clients read them.
//!
//! | file | what |
//! |---|---|
//! | `routes` | the paths |
//! | `status` | the status document (docs/status-schema.md) |
//! | `words` | states and kinds: enums that keep a word which they do not know |
//!
//! INVARIANT: `/v1` stays compatible. Paths stay. Answers gain fields, and lose or change none. A client reads an
//! answer that lacks the fields of later versions, and one that has more.

#[cfg(test)]
mod documented;
mod routes;
mod status;
mod words;

pub use routes::*;
pub use status::*;
pub use words::*;
