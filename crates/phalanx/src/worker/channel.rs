//! The worker's end of its channel.
//!
//! INVARIANT: a connection that arrived is answered exactly once: accepted when the application takes
//! it from its listener, returned when this worker leaves or closes the listener before that.

mod handles;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::wire::{
    DrainLimits, HANDLE_ACK, HANDLE_NACK, ReplyBody, Shed as Wanted, ToWorker, outgoing,
};
use phalanx_sys::scoreboard::{Lane, Scoreboard, Seat};
use tokio::sync::{Notify, oneshot};

use super::health::Counts;
use super::leaving::Leaving;
use super::mailbox::{Letter, Mailbox};
use super::outbox::Outbox;
use super::queue::{Arrived, Queue};
use super::shed::Shed;
use crate::address::Address;
use crate::error::{MessageError, Result};

/// How long the end of this worker waits for a primary that does not read its last messages.
const LAST_WORDS_LIMIT: Duration = Duration::from_secs(1);

type Answer = (ReplyBody, Option<OwnedFd>);

pub(super) struct Inner {
    pub(super) id: WorkerId,
    pub(super) channel: Arc<OwnedFd>,
    state: Mutex<State>,
    pub(super) started: AtomicBool,
    /// Connections that it is to end although it stays.
    pub(super) shed: Shed,
    /// A spare's place, until it has a position.
    position: AtomicU32,
    seat: OnceLock<Seat>,
    /// What it answered, while the primary wants to know.
    pub(super) health: Counts,
    /// Rings when a message of the application came, or the channel closed.
    message: Notify,
    /// INVARIANT: begun under the lock of `state`, by which a connection that arrives meanwhile is
    /// either queued before what waits goes back, or refused.
    pub(super) leaving: Leaving,
    /// Rings when bytes wait to be written.
    pub(super) blocked: Notify,
}

#[derive(Default)]
struct State {
    outbox: Outbox,
    seq: u64,
    unacknowledged: u32,
    answers: HashMap<u64, oneshot::Sender<Answer>>,
    queues: BTreeMap<String, Arc<Queue>>,
    places: Vec<(Address, u32)>,
    messages: Mailbox,
    drain_limits: Option<DrainLimits>,
    /// Kept by a spare, which has no place there yet.
    board: Option<Arc<Scoreboard>>,
    closed: bool,
}

/// Which listener of this worker on its address one is, from the asking until it is closed. Workers
/// that ask for port 0 share a port where they ask from the same place.
pub(super) struct Place {
    inner: Arc<Inner>,
    pub(super) address: Address,
    pub(super) index: u32,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.inner.state();
        let taken =
            |(address, index): &(Address, u32)| *address == self.address && *index == self.index;
        state.places.retain(|place| !taken(place));
    }
}

impl Drop for Inner {
    /// What was sent and the socket has not taken yet is written before the process ends.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if state.outbox.is_empty() || state.closed {
            return;
        }
        let written = self.channel.try_clone().and_then(|channel| {
            let channel = UnixStream::from(channel);
            channel.set_write_timeout(Some(LAST_WORDS_LIMIT))?;
            channel.set_nonblocking(false)?;
            state.outbox.push_all(channel.as_fd())
        });
        if let Err(error) = written {
            tracing::debug!(%error, "the primary did not take the last messages");
        }
    }
}

impl Inner {
    pub(super) fn new(id: WorkerId, position: Position, channel: OwnedFd) -> Self {
        Self {
            id,
            channel: Arc::new(channel),
            state: Mutex::default(),
            started: AtomicBool::new(false),
            shed: Shed::default(),
            position: AtomicU32::new(position.0),
            seat: OnceLock::new(),
            health: Counts::default(),
            message: Notify::new(),
            leaving: Leaving::default(),
            blocked: Notify::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a line that carries the next number.
    pub(super) fn send_line(&self, line: impl FnOnce(u64) -> Vec<u8>) -> Result<(), MessageError> {
        let mut state = self.state();
        let seq = state.seq;
        state.seq += 1;
        self.write(&mut state, &line(seq))
    }

    /// Writes a line and waits for the message that answers its number.
    pub(super) fn ask(
        &self,
        line: impl FnOnce(u64) -> Vec<u8>,
    ) -> Result<oneshot::Receiver<Answer>, MessageError> {
        let (sender, receiver) = oneshot::channel();
        let mut state = self.state();
        let seq = state.seq;
        state.seq += 1;
        self.write(&mut state, &line(seq))?;
        state.answers.insert(seq, sender);
        Ok(receiver)
    }

    fn write(&self, state: &mut State, line: &[u8]) -> Result<(), MessageError> {
        Self::enqueue(state, line)?;
        self.push(state);
        Ok(())
    }

    fn enqueue(state: &mut State, line: &[u8]) -> Result<(), MessageError> {
        if state.closed {
            return Err(MessageError::Disconnected);
        }
        Self::acknowledge_connections(state);
        state.outbox.put(line)
    }

    /// Writes what may be written; the rest is the business of the channel's task.
    fn push(&self, state: &mut State) {
        if state.outbox.push(self.channel.as_fd()) {
            self.blocked.notify_one();
        }
    }

    pub(super) fn flush(&self) -> bool {
        self.state().outbox.push(self.channel.as_fd())
    }

    pub(super) fn handle(&self, message: ToWorker, handles: &mut VecDeque<OwnedFd>) {
        match message {
            ToWorker::Connection { key, seq } => self.connection(&key, seq, handles.pop_front()),
            ToWorker::Reply { ack, handle, body } => {
                let handle = if handle { handles.pop_front() } else { None };
                let mut state = self.state();
                if handle.is_some() {
                    self.acknowledge(&mut state, HANDLE_ACK);
                }
                if let Some(answer) = state.answers.remove(&ack) {
                    drop(state);
                    if let Err((body, _)) = answer.send((body, handle)) {
                        self.decline(&body);
                    }
                }
            }
            ToWorker::Disconnect(limits) => {
                self.state().drain_limits = limits;
                self.drain();
            }
            ToWorker::Handle(message) => {
                let arrived = handles.pop_front();
                let taken = arrived.is_some_and(|handle| self.deliver(&message, Some(handle)));
                let answer = if taken { HANDLE_ACK } else { HANDLE_NACK };
                self.acknowledge(&mut self.state(), answer);
            }
            ToWorker::Position { position, lane } => self.takes_position(position, lane),
            ToWorker::Shed { wanted, seq } => self.sheds(wanted, seq),
            ToWorker::WatchHealth { wanted } => self.health.watch(wanted),
            ToWorker::User(message) => {
                self.deliver(&message, None);
            }
            ToWorker::HandleAck => self.handle_answered(true),
            ToWorker::HandleNack => self.handle_answered(false),
            ToWorker::Ignored => {}
        }
    }

    /// Connections are rebalanced: keeps so many, and tells what it holds.
    fn sheds(&self, wanted: Wanted, asked: u64) {
        self.shed.keep(wanted);
        let report = self.shed.report(self.held());
        if let Err(error) = self.send_line(|seq| outgoing::worker::holds(report, asked, seq)) {
            tracing::debug!(%error, "the primary is gone");
        }
    }

    /// Connections that the scoreboard knows of.
    pub(super) fn held(&self) -> u32 {
        self.seat().map_or(0, Seat::held)
    }

    /// Who asked has stopped waiting: what was opened for it is closed again.
    fn decline(&self, body: &ReplyBody) {
        let refused = body.errno.is_some_and(|errno| errno < 0);
        let Some(key) = super::key_of(body).filter(|_| !refused) else {
            return;
        };
        if let Err(error) = self.send_line(|seq| outgoing::worker::close(&key, seq)) {
            tracing::debug!(%error, "the primary is gone");
        }
    }

    fn connection(&self, key: &str, seq: Option<u64>, connection: Option<OwnedFd>) {
        let mut state = self.state();
        let Some(connection) = connection else {
            return self.acknowledge(&mut state, HANDLE_NACK);
        };
        state.unacknowledged += 1;
        let queue = if self.leaving.has_begun() {
            None
        } else {
            state.queues.get(key).cloned()
        };
        drop(state);
        let arrived = Arrived { connection, seq };
        let refused = match queue {
            Some(queue) => queue.push(arrived),
            None => Some(arrived),
        };
        if let Some(arrived) = refused {
            self.answer_offer(arrived.seq, false);
        }
    }

    pub(super) fn answer_offer(&self, ack: Option<u64>, accepted: bool) {
        let Some(ack) = ack else { return };
        let mut state = self.state();
        let seq = state.seq;
        state.seq += 1;
        let line = outgoing::worker::accepted(ack, accepted, seq);
        match Self::enqueue(&mut state, &line) {
            // It travels with the answers that follow at once, in the next turn of the channel's task.
            Ok(()) => self.blocked.notify_one(),
            Err(error) => tracing::debug!(%error, "the primary is gone"),
        }
    }

    /// A place among this worker's listeners on an address: the lowest that is free.
    pub(super) fn place(self: &Arc<Self>, address: &Address) -> Place {
        let mut state = self.state();
        let is_free = |index: &u32| !state.places.iter().any(|(a, i)| a == address && i == index);
        let index = (0..u32::MAX).find(is_free).unwrap_or(u32::MAX);
        state.places.push((address.clone(), index));
        drop(state);
        Place {
            inner: Arc::clone(self),
            address: address.clone(),
            index,
        }
    }

    pub(super) fn open(&self, key: &str) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        self.state()
            .queues
            .insert(key.to_owned(), Arc::clone(&queue));
        queue
    }

    pub(super) fn shut(&self, key: &str) -> Option<Arc<Queue>> {
        self.state().queues.remove(key)
    }

    /// Returns what the application has not taken.
    pub(super) fn hand_back(&self, queue: &Queue) {
        for arrived in queue.close() {
            self.answer_offer(arrived.seq, false);
        }
    }

    pub(super) async fn next_message(&self) -> Option<Letter> {
        loop {
            let arrived = self.message.notified();
            {
                let mut state = self.state();
                if let Some(message) = state.messages.take() {
                    if !state.messages.is_empty() {
                        self.message.notify_one();
                    }
                    return Some(message);
                }
                if state.closed {
                    self.message.notify_one();
                    return None;
                }
            }
            arrived.await;
        }
    }

    /// Begins to leave: no connection is taken any more, what was not taken goes back.
    pub(super) fn drain(&self) {
        let queues: Vec<_> = {
            let state = self.state();
            self.leaving.begin();
            state.queues.values().cloned().collect()
        };
        for queue in queues {
            self.hand_back(&queue);
        }
        self.leaving.ring();
    }

    /// Where this worker counts; nothing before the primary gave it a place.
    pub(super) fn seat(&self) -> Option<&Seat> {
        self.seat.get()
    }

    pub(super) fn position(&self) -> Position {
        Position(self.position.load(Ordering::Acquire))
    }

    /// Takes its place at the scoreboard; a spare does when it has a position.
    pub(super) fn sit_down(&self, board: Arc<Scoreboard>, lane: Lane) {
        let mut state = self.state();
        let position = self.position();
        if position.is_spare() {
            state.board = Some(board);
        } else if let Some(seat) = board.seat(position.0, lane) {
            // Asked for by two listeners at once, it is the same place.
            drop(self.seat.set(seat));
        }
    }

    /// This spare holds that position from now on.
    fn takes_position(&self, position: u32, lane: u8) {
        let mut state = self.state();
        self.position.store(position, Ordering::Release);
        let board = state.board.take();
        drop(state);
        let lane = if lane == 0 { Lane::Even } else { Lane::Odd };
        if let Some(board) = board {
            self.sit_down(board, lane);
        }
    }

    /// What the primary said of the time there is.
    #[cfg(feature = "serve")]
    pub(super) fn drain_limits(&self) -> Option<DrainLimits> {
        self.state().drain_limits
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.state().closed
    }

    pub(super) fn close(&self) {
        {
            let mut state = self.state();
            state.closed = true;
            state.outbox.clear();
            state.answers.clear();
        }
        self.drain();
        self.message.notify_one();
    }
}
