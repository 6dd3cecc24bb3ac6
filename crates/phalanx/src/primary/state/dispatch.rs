//! Dispatch by handoff: accept in batches, choose a worker, pass the descriptor on. `tasks/accept.rs` waits for who connects.
//!
//! The kernel's backlog is the queue: a listener accepts nothing while no worker has room, or while a
//! returned connection of its own still waits for another worker.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use phalanx_core::policy::{ClientHash, PolicyName};
use phalanx_sys::scoreboard::Scoreboard;
use phalanx_sys::socket::{self, AcceptError, accept};
use tokio::sync::Notify;

use crate::primary::mailbox::{Accepting, Alarm, Mailbox, Until};
use crate::primary::state::Hub;
use crate::primary::state::load::{Board, Source};
use crate::primary::tasks::accept::Acceptor;
use crate::primary::tasks::timer;
use crate::watched::watch;

/// Connections accepted in one turn; then other tasks have theirs.
const BATCH: usize = 64;
/// When every worker has returned a connection, it is offered to all again after this time.
const FORGIVE_AFTER: Duration = Duration::from_millis(50);

/// Under a policy that keeps turns, the others wait for a worker without room until it has answered
/// nothing for so long. One that keeps up answers several times meanwhile.
const PATIENCE: Duration = Duration::from_millis(25);

/// A listener from which the primary accepts.
#[derive(Debug)]
pub(in crate::primary) struct Handed {
    pub(in crate::primary) socket: Arc<OwnedFd>,
    acceptor: Acceptor,
    /// Its sockets that have lost their path, and may have connections left.
    former: Vec<Acceptor>,
    /// Rings when a worker has room again; only after `starved` was set.
    room: Arc<Notify>,
    starved: bool,
    exhausted: bool,
}

impl Handed {
    /// # Errors
    /// When the socket cannot be watched.
    pub(in crate::primary) fn start(
        mailbox: Mailbox,
        id: ListenerId,
        socket: Arc<OwnedFd>,
    ) -> io::Result<Self> {
        let room = Arc::new(Notify::new());
        let watched = Arc::new(watch(Arc::clone(&socket))?);
        Ok(Self {
            acceptor: Acceptor::start(mailbox, id, watched, Arc::clone(&room)),
            socket,
            former: Vec::new(),
            room,
            starved: false,
            exhausted: false,
        })
    }

    /// Accepts from this socket as well, in the place of one that clients do not find any more.
    ///
    /// # Errors
    /// When the socket cannot be watched.
    pub(in crate::primary) fn start_anew(
        &mut self,
        mailbox: Mailbox,
        id: ListenerId,
        socket: Arc<OwnedFd>,
    ) -> io::Result<()> {
        let watched = Arc::new(watch(Arc::clone(&socket))?);
        let room = Arc::clone(&self.room);
        let acceptor = Acceptor::start(mailbox, id, watched, room);
        self.former.retain(|former| !former.is_idle());
        self.former
            .push(std::mem::replace(&mut self.acceptor, acceptor));
        self.socket = socket;
        Ok(())
    }

    /// Whether connections wait at sockets that have lost their path.
    pub(in crate::primary) fn has_former_arrivals(&self) -> bool {
        !self.former.iter().all(Acceptor::is_idle)
    }
}

impl Hub {
    pub(super) fn accept_turn(&mut self, id: ListenerId, socket: &OwnedFd) -> Accepting {
        if !self.listeners.contains_key(&id) {
            return Accepting::Closed;
        }
        for _ in 0..BATCH {
            if self.ledger.has_waiting(id) || !self.ledger.has_room(id) {
                return self.starve(id);
            }
            match accept(socket.as_fd()) {
                Ok(connection) => {
                    if !self.dispatch(id, connection) {
                        return self.starve(id);
                    }
                }
                Err(AcceptError::WouldBlock) => return Accepting::Empty,
                Err(AcceptError::Connection(error)) => {
                    tracing::debug!(%error, "a connection ended before it was accepted");
                }
                Err(AcceptError::Exhausted(error)) => {
                    self.warn_exhausted(id, &error);
                    return Accepting::Exhausted;
                }
                Err(error) => {
                    tracing::error!(%error, "a listener accepts no more");
                    return Accepting::Closed;
                }
            }
        }
        Accepting::More
    }

    fn handed_mut(&mut self, id: ListenerId) -> Option<&mut Handed> {
        self.listeners.get_mut(&id)?.carrier.handed_mut()
    }

    fn starve(&mut self, id: ListenerId) -> Accepting {
        if let Some(handed) = self.handed_mut(id) {
            handed.starved = true;
        }
        if self.ledger.awaits_turn(id) {
            self.lose_patience_later();
        }
        Accepting::Full
    }

    fn warn_exhausted(&mut self, id: ListenerId, error: &io::Error) {
        if let Some(listener) = self.listeners.get_mut(&id)
            && let Some(handed) = listener.carrier.handed_mut()
            && !std::mem::replace(&mut handed.exhausted, true)
        {
            tracing::warn!(%error, address = %listener.address, "cannot accept: pausing until resources are free");
        }
    }

    /// Passes an accepted connection on. False when it has to wait.
    fn dispatch(&mut self, id: ListenerId, connection: OwnedFd) -> bool {
        if let Some(handed) = self.handed_mut(id) {
            handed.exhausted = false;
        }
        let client = self.client_of(&connection);
        let board = self.board.clone();
        let loads = Board(board.as_deref());
        while let Some(worker) = self.ledger.choose(id, client, &loads) {
            if self.hand_over(id, worker, &connection) {
                self.ledger.offer(id, worker, client, connection);
                self.count_offered(worker);
                self.after_offer(worker);
                return true;
            }
            self.ledger.set_blocked(worker, true);
        }
        self.ledger.hold(id, client, connection);
        false
    }

    /// Who connects, where the policy goes by that: it costs a system call.
    pub(super) fn client_of(&self, connection: &OwnedFd) -> ClientHash {
        if self.policy != PolicyName::SourceHash && self.custom_policy.is_none() {
            return ClientHash::UNKNOWN;
        }
        match socket::peer_address(connection.as_fd()) {
            Ok(socket::Address::Inet(address)) => address.ip().into(),
            Ok(_) | Err(_) => ClientHash::UNKNOWN,
        }
    }

    pub(in crate::primary) fn hand_over(
        &mut self,
        id: ListenerId,
        worker: WorkerId,
        connection: &OwnedFd,
    ) -> bool {
        let seq = self.ledger.next_seq();
        let (Some(listener), Some(state)) =
            (self.listeners.get(&id), self.workers.get_mut(&worker))
        else {
            return false;
        };
        let Some(channel) = state.channel.as_mut() else {
            return false;
        };
        match channel.hand_over(&listener.newconn, seq, connection.as_fd()) {
            Ok(()) => {
                state.last_handoff = Some(crate::primary::clock::now());
                true
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    // EPIPE: its end is near and will be seen. ETOOMANYREFS: too many descriptors are
                    // in flight for this user; an answer or the timer opens the channel again.
                    tracing::debug!(worker = worker.0, %error, "a connection could not be handed over");
                    self.forgive_later();
                }
                false
            }
        }
    }

    /// A connection is handed over to the worker: it counts from now on.
    pub(in crate::primary) fn count_offered(&self, worker: WorkerId) {
        if let Some((board, position)) = self.row_of(worker) {
            board.chosen(position);
        }
    }

    /// Offers to the worker came to nothing.
    pub(in crate::primary) fn count_returned(&self, worker: WorkerId, count: usize) {
        if let Some((board, position)) = self.row_of(worker) {
            for _ in 0..count {
                board.not_chosen(position);
            }
        }
    }

    /// The worker accepted a connection. One that tells nothing of its load counts what it was
    /// offered only.
    pub(in crate::primary) fn count_accepted(&self, worker: WorkerId) {
        let source = self
            .workers
            .get(&worker)
            .map(|state| state.load_source.source);
        if source == Some(Source::Unknown) {
            self.count_returned(worker, 1);
        }
    }

    fn row_of(&self, worker: WorkerId) -> Option<(&Scoreboard, u32)> {
        let position = self.workers.get(&worker)?.cell.position();
        Some((self.board.as_deref()?, position.0))
    }

    fn after_offer(&mut self, worker: WorkerId) {
        if let Some(channel) = self
            .workers
            .get(&worker)
            .and_then(|state| state.channel.as_ref())
            && !channel.is_clear()
        {
            self.ledger.set_blocked(worker, true);
        }
    }

    /// The worker answered an offer, or its channel took bytes: it may have room again.
    pub(in crate::primary) fn refresh(&mut self, worker: WorkerId) {
        let clear = self
            .workers
            .get(&worker)
            .and_then(|state| state.channel.as_ref())
            .is_some_and(crate::primary::sockets::channel::Channel::is_clear);
        self.ledger.set_blocked(worker, !clear);
        self.pump();
    }

    /// Offers what waits, then lets the listeners accept again that found no room.
    pub(in crate::primary) fn pump(&mut self) {
        while let Some((index, worker, listener)) = self.next_waiting() {
            if self.offer_waiting(index, worker, listener) {
                self.after_offer(worker);
            } else {
                self.ledger.set_blocked(worker, true);
            }
        }
        if self.ledger.has_refused() {
            self.forgive_later();
        }
        let mut awaits_turn = false;
        for (&id, listener) in &mut self.listeners {
            let handed = listener.carrier.handed_mut();
            let starved = handed.filter(|handed| handed.starved);
            let Some(handed) = starved.filter(|_| !self.ledger.has_waiting(id)) else {
                continue;
            };
            if self.ledger.has_room(id) {
                handed.starved = false;
                handed.room.notify_one();
            } else {
                awaits_turn |= self.ledger.awaits_turn(id);
            }
        }
        if awaits_turn {
            self.lose_patience_later();
        }
    }

    /// After a while, who has no room and answers nothing is not waited for any more.
    pub(super) fn lose_patience_later(&mut self) {
        if std::mem::replace(&mut self.waiting_for_turn, true) {
            return;
        }
        let at = Until::Later(PATIENCE);
        timer::ring(self.mailbox(), at, Alarm::TurnAwaited);
    }

    pub(super) fn loses_patience(&mut self) {
        self.waiting_for_turn = false;
        self.ledger.lose_patience();
        self.pump();
    }

    fn next_waiting(&mut self) -> Option<(usize, WorkerId, ListenerId)> {
        let board = self.board.as_deref();
        self.ledger
            .next_waiting(&Board(board))
            .map(|waiting| (waiting.index, waiting.worker, waiting.listener))
    }

    fn offer_waiting(&mut self, index: usize, worker: WorkerId, listener: ListenerId) -> bool {
        let Some(connection) = self.ledger.take_waiting(index) else {
            return false;
        };
        let passed = self.hand_over(listener, worker, connection.connection());
        if passed {
            self.ledger.place(worker, connection);
            self.count_offered(worker);
        } else {
            self.ledger.put_back(connection);
        }
        passed
    }

    /// After a while, returned connections may go to those that returned them, and channels that
    /// failed are tried again.
    pub(super) fn forgive_later(&mut self) {
        if std::mem::replace(&mut self.forgiving, true) {
            return;
        }
        let at = Until::Later(FORGIVE_AFTER);
        timer::ring(self.mailbox(), at, Alarm::Forgive);
    }

    pub(super) fn forgives(&mut self) {
        self.forgiving = false;
        self.ledger.forgive();
        let workers: Vec<_> = self.workers.keys().copied().collect();
        for worker in workers {
            self.refresh(worker);
        }
    }
}
