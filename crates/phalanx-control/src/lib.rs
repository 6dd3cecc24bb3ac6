//! The control plane: HTTP/1.1 with JSON over a Unix socket. Its paths are stable; answers gain fields,
//! and lose or change none.
//!
//! [`api`] has what travels, as types. Without the feature `socket` there is nothing else.

#[cfg(feature = "admin")]
pub mod admin;
pub mod api;
#[cfg(feature = "socket")]
pub mod app;
#[cfg(feature = "socket")]
pub mod client;
#[cfg(feature = "socket")]
pub mod exit;
#[cfg(feature = "socket")]
pub mod failure;
#[cfg(feature = "socket")]
pub mod logs;
mod metric_families;
#[cfg(feature = "socket")]
pub mod metrics_port;
#[cfg(feature = "socket")]
pub mod names;
#[cfg(feature = "socket")]
pub mod patience;
#[cfg(feature = "socket")]
pub mod place;
#[cfg(feature = "socket")]
pub mod runtime_dirs;
#[cfg(feature = "socket")]
pub mod server;
#[cfg(feature = "socket")]
pub mod show;
#[cfg(feature = "socket")]
pub mod values;

pub use phalanx_core::level;
