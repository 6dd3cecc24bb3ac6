//! What tasks tell the state, and what they ask of it.
//!
//! Tasks know this file and not the state, so that the state may start tasks. Each call takes the lock for as long as it
//! lasts, and none of them waits. Nothing comes of a task's words once the cluster is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::hang::{Evidence, Sight};
use phalanx_core::dispatch::readiness::ListenerName;
use phalanx_core::ids::{ExitStatus, Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::notify::Notice;
use phalanx_sys::connections::Handshake;
use phalanx_sys::process::Pid;
use tokio::net::TcpStream;

use crate::primary::cell::Cell;
use crate::primary::tasks::evidence::Kept;

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

/// How a connection of the primary's own reaches a worker, and nobody else.
#[derive(Clone, Copy, Debug)]
pub(in crate::primary) enum Way {
    /// Over the worker's slot of this listener, which is at this address.
    Slot(ListenerId, SocketAddr),
    /// Handed over as one of this listener.
    Handed(ListenerId),
}

/// Somebody to have a look at.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Look {
    pub(in crate::primary) worker: WorkerId,
    pub(in crate::primary) pid: Pid,
    pub(in crate::primary) inspector: Option<u16>,
    /// What waits in vain; nothing where it is only asked whether somebody holds it while it starts.
    pub(in crate::primary) silent: Option<Evidence>,
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

    /// The worker has said something of itself.
    fn noticed(&self, worker: WorkerId, notice: Notice);
    /// The worker has failed its watchdog, so many times by now.
    fn silent_too_long(&self, cell: &Cell, times: u32);
    /// A process has acknowledged, as einhorn's workers do when they serve.
    fn acknowledged(&self, pid: Pid);
    /// The worker has given its word, or a good answer.
    fn proves(&self, worker: WorkerId);
    /// How the worker is asked this time: on each of its TCP listeners in turn.
    fn way_to(&self, worker: WorkerId, turn: usize) -> Option<Way>;
    /// The worker's position, and where its slot of this listener is reached.
    fn probed_slot(&self, worker: WorkerId, listener: ListenerId)
    -> Option<(Position, SocketAddr)>;
    /// The next connection from this port is for the worker's slot.
    ///
    /// # Errors
    /// When another question is under way, or the slot is gone.
    fn begin_probe(&self, listener: ListenerId, worker: WorkerId, port: u16) -> io::Result<()>;
    /// That connection has come, or will not.
    fn end_probe(&self, listener: ListenerId);
    /// Hands the worker this connection, as one of the listener.
    ///
    /// # Errors
    /// When its channel is full or gone.
    fn hand_probe(
        &self,
        listener: ListenerId,
        worker: WorkerId,
        connection: OwnedFd,
    ) -> io::Result<()>;
    /// The stuck worker was tried over its slot; `trial` is the connection that waits there.
    fn tried(&self, listener: ListenerId, who: (Position, WorkerId), trial: Option<TcpStream>);
    /// Questions are put to those whose turn it is. Returns whom to have a look at.
    fn ask_event_loops(&self) -> Vec<Look>;
    /// The silent were looked at, and those found `held` that start.
    fn sees_silent(&self, pressure: f64, silent: &BTreeMap<WorkerId, Sight>, held: Vec<WorkerId>);
    /// The worker was asked by the user's probe.
    fn answers_probe(&self, worker: WorkerId, answers: bool);
    /// What there was to know of a worker that hangs is kept.
    fn hangs(&self, worker: WorkerId, silent: (Evidence, Duration), early: bool, kept: Kept);
    /// Looks whether the worker is ready by now.
    fn reconsider(&self, worker: WorkerId);
    /// The worker was seen to wait for connections on a listener that it was given.
    fn waits_on(&self, worker: WorkerId, key: &str);
    /// Is there a worker at this position that is not ready yet?
    fn has_newcomer(&self, position: Position) -> bool;
    /// Is the worker online and has asked for no listener? Nothing once that question is settled.
    fn is_silent(&self, worker: WorkerId) -> Option<bool>;
    /// The worker listens on sockets of its own, of which it has told nobody.
    fn listens_by_itself(&self, worker: WorkerId, names: Vec<ListenerName>);
    /// The worker is not ready after a while: people are told what it is waited for.
    fn tell_silence(&self, cell: &Cell);
    /// Whether the worker lives, and has no listener of the cluster's.
    fn lives_without_listener(&self, worker: WorkerId) -> bool;
    /// The worker was seen to listen, on nothing of the cluster's.
    fn listens_unseen(&self, worker: WorkerId);

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
