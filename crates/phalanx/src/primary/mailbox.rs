//! What tasks tell the state, and what they ask of it.
//!
//! Tasks know this file and not the state, so that the state may start tasks. Each call takes the lock for as long as it
//! lasts, and none of them waits. Nothing comes of a task's words once the cluster is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::hang::{Evidence, Sight};
use phalanx_core::dispatch::intercept::Asked;
use phalanx_core::dispatch::readiness::ListenerName;
use phalanx_core::ids::{ExitStatus, Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::notify::Notice;
use phalanx_core::wire::ListenRequest;
use phalanx_sys::connections::Handshake;
use phalanx_sys::directory::FileId;
use phalanx_sys::intercept::Act;
use phalanx_sys::process::Pid;
use phalanx_sys::socket::SocketId;
use phalanx_sys::steering::Steering;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::primary::cell::Cell;
use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::sockets::slots::Place;
use crate::primary::sockets::splice::Side;
use crate::primary::tasks::evidence::Kept;

/// A connection of the primary's own, and the slot into which it was put.
#[derive(Debug)]
pub(in crate::primary) struct Put {
    pub(in crate::primary) stream: TcpStream,
    pub(in crate::primary) place: Place,
}

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

/// How a turn of accepting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Accepting {
    /// The queue is empty.
    Empty,
    /// There may be more.
    More,
    /// Nobody has room.
    Full,
    /// Out of descriptors or memory.
    Exhausted,
    /// The listener is gone.
    Closed,
}

/// How a turn of reading one side of a spliced channel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::primary) enum Flow {
    Drained,
    More,
    /// The other side does not read.
    Paused,
    Closed,
}

/// When a timer rings.
#[derive(Clone, Copy, Debug)]
pub(in crate::primary) enum Until {
    /// At this moment of the primary's run-time: somebody is judged by it.
    At(Moment),
    /// After this time: it paces the primary's own work.
    Later(Duration),
}

/// What a timer rings for.
#[derive(Debug)]
pub(in crate::primary) enum Alarm {
    /// Those who may be stuck are looked at.
    Watch,
    /// Workers are watched while a reload has canaries; in which watch.
    Health(u64),
    /// A rebalance is under way.
    Balance,
    /// A worker may be ready by now.
    Reconsider(WorkerId),
    /// Listeners were abandoned.
    Abandoned,
    /// Listeners that a worker of Node's own primary has left.
    Unheld(Vec<ListenerId>),
    /// A slot that waits for somebody to inherit it.
    SlotUnheld(ListenerId, Position),
    /// Sockets of a listener are to stop listening.
    Settle(ListenerId),
    /// A listener did not arrive at the worker.
    SendAgain(WorkerId, Outgoing),
    /// The same of the application's handle that the channel keeps.
    SendDelayed(WorkerId),
    /// Connections were returned by everybody.
    Forgive,
    /// A worker whose turn it is has no room.
    TurnAwaited,
}

/// A worker's question for a listener, which waits for a program.
#[derive(Debug)]
pub(in crate::primary) struct Query {
    pub(in crate::primary) worker: WorkerId,
    pub(in crate::primary) seq: u64,
    /// What it counts for.
    pub(in crate::primary) bytes: usize,
    pub(in crate::primary) request: ListenRequest,
}

/// A call, as far as the state has to know it.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Question {
    pub(in crate::primary) act: Act,
    pub(in crate::primary) socket: SocketId,
    /// A duplicate of the socket, where one is to be had.
    pub(in crate::primary) duplicate: Option<Arc<OwnedFd>>,
    /// Something stands for the socket; nothing before that was looked for.
    pub(in crate::primary) is_attached: Option<bool>,
    /// The listener's key, once it was decided on.
    pub(in crate::primary) key: Option<Asked>,
    /// Where the socket is bound; port 0 if it is not.
    pub(in crate::primary) local: SocketAddr,
    pub(in crate::primary) only_v6: bool,
    pub(in crate::primary) is_listening: bool,
    /// It is about a Unix socket.
    pub(in crate::primary) is_unix: bool,
}

impl Question {
    /// The address that it is about.
    pub(in crate::primary) fn asked_ip(&self) -> IpAddr {
        match self.act {
            Act::Bind(address) => address.ip(),
            Act::BindPath { .. } | Act::Listen { .. } | Act::Steer => self.local.ip(),
        }
    }
}

/// What is to be done about it.
#[derive(Debug)]
pub(in crate::primary) struct Decision {
    pub(in crate::primary) verdict: Verdict,
    /// The listener that the worker serves when this is done, by its key.
    pub(in crate::primary) serves: Option<String>,
}

#[derive(Debug)]
pub(in crate::primary) enum Verdict {
    /// It is none of ours.
    Pass,
    /// It may bind here, where others of its kind bind too.
    Beside(SocketAddr),
    /// The socket is bound here, as one of the listener's group.
    InGroup(SocketAddr),
    /// It will show soon what is to be done.
    Wait,
    /// A program has to be loaded for its listener first.
    Prepare,
    /// It has to be known whether something is attached to the socket.
    Look,
    /// It is done already.
    Done,
    Fail(io::Error),
    /// Its socket becomes this one.
    Plant {
        slot: Arc<OwnedFd>,
        /// The worker has been given it before: it may have it open still.
        again: bool,
    },
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            serves: None,
        }
    }
}

/// Where connections to a worker that leaves may begin.
#[derive(Debug)]
pub(in crate::primary) struct Arrivals {
    pub(in crate::primary) ports: Vec<u16>,
    /// The handshakes there, where somebody has looked just now.
    pub(in crate::primary) handshakes: Option<Arc<BTreeSet<Handshake>>>,
    /// Held by who walks through the kernel's tables: one at a time, so that 500 who leave do not walk on 500 threads.
    pub(in crate::primary) walk: Arc<tokio::sync::Mutex<()>>,
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
    /// The ports of the listeners that it holds.
    pub(in crate::primary) serves: Vec<u16>,
    /// What waits in vain; nothing where it is only asked whether somebody holds it while it starts.
    pub(in crate::primary) silent: Option<Evidence>,
}

/// The state, as tasks see it.
pub(in crate::primary) trait Inbox: Send + Sync {
    /// Something may have come on the worker's channel: it is read, for one turn.
    fn read_channel(&self, worker: WorkerId) -> Reading;
    /// The worker's channel takes bytes again. True when it is full once more.
    fn channel_writable(&self, worker: WorkerId) -> bool;
    /// A handle that the worker sent was taken, or closed because nobody took it.
    fn handle_read(&self, worker: WorkerId);
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
    /// The handshakes at these ports, by a walk that began at that moment and has ended now.
    fn handshakes_seen(&self, ports: Vec<u16>, began: Moment, found: Arc<BTreeSet<Handshake>>);
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
    fn begin_probe(&self, listener: ListenerId, worker: WorkerId, port: u16) -> io::Result<Place>;
    /// Whether no one but the worker can have been given the connection that was put there.
    fn has_stayed(&self, listener: ListenerId, worker: WorkerId, place: &Place) -> bool;
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
    fn tried(&self, listener: ListenerId, who: (Position, WorkerId), trial: Option<Put>);
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
    /// The worker was seen to accept connections on a listener that it has asked for.
    fn accepts(&self, worker: WorkerId, key: &str);
    /// The worker cannot be seen to accept connections.
    fn hides(&self, worker: WorkerId);
    /// The socket from which the worker is to accept what comes to a listener that it has asked for.
    fn socket_of(&self, worker: WorkerId, key: &str) -> Option<Arc<OwnedFd>>;
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

    /// It is time for that. When it is again, if ever.
    fn rings(&self, alarm: Alarm) -> Option<(Until, Alarm)>;

    /// Accepts from a socket of this listener, for one turn.
    fn accept(&self, listener: ListenerId, socket: &OwnedFd) -> Accepting;

    /// Something may have come on this side of the worker's channel: it is read, for one turn.
    fn read_side(&self, worker: WorkerId, side: Side) -> Flow;
    /// A side takes bytes again. True when it is full once more.
    fn side_writable(&self, worker: WorkerId, side: Side) -> bool;
    /// Whether this side is full, and may be read. Nothing when the worker has left.
    fn side_state(&self, worker: WorkerId, side: Side) -> Option<(bool, bool)>;
    /// A side has ended.
    fn side_closed(&self, worker: WorkerId, side: Side);
    /// The holder of what an engine to come needs takes bytes again.
    fn holder_writable(&self);

    /// What is to be done about a call of the worker.
    fn decide(&self, worker: WorkerId, question: &mut Question) -> Decision;
    /// The worker listens on its socket of this listener.
    fn serves_on(&self, worker: WorkerId, key: &str);
    /// Whether this file belongs to a listener, and shall stay.
    fn keeps_file(&self, file: FileId) -> bool;
    /// Rings when it was decided whose listeners on port 0 are.
    fn any_port_decided(&self) -> Arc<Notify>;
    /// The worker that has opened one has had its time to open another.
    fn end_trial(&self, worker: WorkerId);

    /// The means to dispatch in the kernel, if a program has to be loaded before there can be another listener.
    fn lacking_program(&self) -> Option<Arc<Steering>>;
    /// The worker that was told to wait for a program has waited.
    fn waited_for_program(&self, worker: WorkerId);
    /// Answers the question, or gives it back when there is no program still.
    fn ask_again(&self, query: Query) -> Option<Query>;

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
