//! The control plane: HTTP/1.1 with JSON over a Unix socket. Its paths are stable; answers gain fields,
//! and lose or change none.

pub mod api;
pub mod app;
mod bodies;
pub mod client;
pub mod directories;
pub mod exit;
pub mod failure;
pub mod names;
pub mod patience;
pub mod place;
pub mod server;
pub mod show;
pub mod values;

pub use phalanx_core::level;
