//! What tasks tell the state, and what they ask of it.
//!
//! Tasks know this file and not the state, so that the state may start tasks. Each call takes the lock for as long as it
//! lasts, and none of them waits. Nothing comes of a task's words once the cluster is gone.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Weak};

use phalanx_core::clock::Moment;
use phalanx_core::ids::{ExitStatus, WorkerId};
use phalanx_sys::connections::Handshake;

use crate::primary::cell::Cell;

/// How a turn of reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Reading {
    /// Everything there was has been read.
    Drained,
    /// There may be more.
    More,
    /// The other end is closed.
    Closed,
}

/// Where connections to a worker that leaves may begin.
#[derive(Debug)]
pub(in crate::primary) struct Arrivals {
    pub(in crate::primary) ports: Vec<u16>,
    /// The handshakes there, where somebody has looked just now.
    pub(in crate::primary) handshakes: Option<Arc<BTreeSet<Handshake>>>,
}

/// What the state knows of a worker that is to leave.
#[derive(Debug)]
pub(in crate::primary) struct Leaver {
    pub(in crate::primary) arriving: bool,
    pub(in crate::primary) queued: bool,
    pub(in crate::primary) unanswered: bool,
    pub(in crate::primary) last_connection: Option<Moment>,
    /// Where its open connections are to be counted, if it is told by its stop signal.
    pub(in crate::primary) counted_at: Vec<u16>,
}

/// The state, as tasks see it.
pub(in crate::primary) trait Inbox: Send + Sync {
    /// Something may have come on the worker's channel: it is read, for one turn.
    fn read_channel(&self, worker: WorkerId) -> Reading;
    /// The worker's channel takes bytes again. True when it is full once more.
    fn channel_writable(&self, worker: WorkerId) -> bool;
    /// The worker's end of the channel is closed.
    fn channel_closed(&self, worker: WorkerId);
    /// The worker's process has ended, though others of its tree may live.
    fn ended(&self, worker: WorkerId);
    /// The worker's process is gone, and what it wrote was read.
    fn exited(&self, worker: WorkerId, status: ExitStatus);
    /// Something went wrong with a worker, which is to be told.
    fn error(&self, worker: WorkerId, message: String);

    /// Where connections to a worker that leaves may begin. Nothing when it leaves no more.
    fn arrivals(&self, worker: WorkerId) -> Option<Arrivals>;
    /// The handshakes at these ports, at that moment.
    fn handshakes_seen(&self, ports: Vec<u16>, at: Moment, found: Arc<BTreeSet<Handshake>>);
    /// What is known of a worker that is to leave. Nothing when it leaves no more: it is gone, or was told otherwise.
    fn leaver(&self, worker: WorkerId) -> Option<Leaver>;
    /// A worker that is to leave was looked at. `open`: how many connections it has.
    fn sees_leaver(
        &self,
        worker: WorkerId,
        leaver: &Leaver,
        handshakes: &BTreeSet<Handshake>,
        open: usize,
    );

    /// The live workers.
    fn cells(&self) -> Vec<Arc<Cell>>;
}

/// The way to the state; it does not keep the cluster.
#[derive(Clone)]
pub(in crate::primary) struct Mailbox(Weak<dyn Inbox>);

impl Mailbox {
    pub(in crate::primary) fn new(inbox: Weak<dyn Inbox>) -> Self {
        Self(inbox)
    }

    /// Nothing when the cluster is gone.
    pub(in crate::primary) fn open(&self) -> Option<Arc<dyn Inbox>> {
        self.0.upgrade()
    }

    pub(in crate::primary) fn is_gone(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}
