//! The control plane: HTTP/1.1 with JSON over a Unix socket. Its paths are stable; answers gain fields,
//! and lose or change none.

mod bodies;
pub(crate) mod client;
pub(crate) mod place;
pub(crate) mod server;
