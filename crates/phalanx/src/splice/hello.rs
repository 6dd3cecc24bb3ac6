//! What a shim and the engine say to each other: a line each, and a descriptor with it.

use std::io;

use serde::{Deserialize, Serialize};

/// The version of both lines. An engine of another version takes nobody in.
pub(super) const VERSION: u32 = 1;
/// The longest line.
pub(super) const LINE_MAX: usize = 4096;

/// Names the abstract socket of the engine, and its process: `NAME:PID`.
pub const SOCKET_VARIABLE: &str = "PHALANX_ENGINE";
/// What an engine knows its workers by.
pub const TOKEN_VARIABLE: &str = "PHALANX_TOKEN";
/// The Node that is to be executed.
pub(super) const NODE_VARIABLE: &str = "PHALANX_SHIM_NODE";
/// Node's `cluster.schedulingPolicy`, as it was when the worker was forked: `rr` or `none`.
pub(super) const POLICY_VARIABLE: &str = "PHALANX_SHIM_POLICY";

/// From the shim, with the worker's end of its channel.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) v: u32,
    pub(super) token: String,
    pub(super) id: u32,
    pub(super) mode: String,
    pub(super) policy: String,
}

/// From the engine, with the worker's new end of its channel, unless there is an error.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Welcome {
    pub(super) error: Option<String>,
    /// What makes Node load the script of its workers.
    pub(super) preload: Option<String>,
}

pub(crate) fn line<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    Ok(line)
}
