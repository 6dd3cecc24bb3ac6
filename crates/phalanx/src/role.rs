//! Primary or worker: decided from the environment, once, before any thread exists.

use std::io;
use std::sync::OnceLock;

use crate::error::{Result, RoleError};
use crate::primary::Cluster;
use crate::worker::ThisWorker;

const CHANNEL_FD: &str = "NODE_CHANNEL_FD";
const SERIALIZATION: &str = "NODE_CHANNEL_SERIALIZATION_MODE";
const UNIQUE_ID: &str = "NODE_UNIQUE_ID";

static IS_WORKER: OnceLock<bool> = OnceLock::new();

/// Which part of the cluster this process is.
#[derive(Debug)]
#[expect(
    clippy::exhaustive_enums,
    reason = "a process is one or the other; callers decide by it"
)]
pub enum Role {
    /// It starts and supervises workers.
    Primary(Cluster),
    /// It serves.
    Worker(ThisWorker),
}

/// Decides the role of this process.
///
/// A process is a worker when `NODE_UNIQUE_ID` and `NODE_CHANNEL_FD` are in its environment. They are
/// removed, so that programs it starts do not take themselves for workers, and the primary is told that
/// this worker is online. Call it first thing in `main`, before an async runtime starts: removing
/// variables is sound only while the process has one thread.
///
/// # Errors
/// [`RoleError::TooLate`] when there are other threads already, [`RoleError::Channel`] and
/// [`RoleError::Serialization`] when the environment names a channel that cannot be used.
pub fn init() -> Result<Role, RoleError> {
    phalanx_sys::marker::mark();
    crate::keeper::keep_if_asked();
    let (Some(id), Some(fd)) = (variable(UNIQUE_ID), variable(CHANNEL_FD)) else {
        IS_WORKER.get_or_init(|| false);
        return Ok(Role::Primary(Cluster::new()));
    };
    if let Some(mode) = variable(SERIALIZATION).filter(|mode| mode != "json") {
        return Err(RoleError::Serialization(mode));
    }
    let id = parse(UNIQUE_ID, &id)?;
    let number = parse(CHANNEL_FD, &fd)?;
    phalanx_sys::env::remove(&[CHANNEL_FD, SERIALIZATION, UNIQUE_ID])
        .map_err(|late| RoleError::TooLate(late.into()))?;
    let channel = phalanx_sys::channel::take_over(number).map_err(|source| RoleError::Channel {
        variable: CHANNEL_FD,
        value: fd,
        source,
    })?;
    // As this program's own primary has it. A worker of this library never uses select(2).
    raise_open_files();
    IS_WORKER.get_or_init(|| true);
    let worker = ThisWorker::new(id, channel).map_err(RoleError::Gone)?;
    Ok(Role::Worker(worker))
}

/// Is this process a worker? After [`init`] its answer; before it, what `init` would say.
#[must_use]
pub fn is_worker() -> bool {
    IS_WORKER
        .get()
        .copied()
        .unwrap_or_else(|| variable(UNIQUE_ID).is_some() && variable(CHANNEL_FD).is_some())
}

/// Is this process a primary (or no part of a cluster)?
#[must_use]
pub fn is_primary() -> bool {
    !is_worker()
}

/// Raises the soft limit of open files to the hard one; without it, things go on with fewer.
pub(crate) fn raise_open_files() {
    if let Err(error) = phalanx_sys::limits::raise_open_files() {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn parse<T: std::str::FromStr>(variable: &'static str, value: &str) -> Result<T, RoleError> {
    value.parse().map_err(|_| RoleError::Channel {
        variable,
        value: value.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidInput, "not a number"),
    })
}
