//! What a worker's messages do. Nothing a worker writes can harm more than itself: a bad message is
//! an `error` event for that worker and is dropped.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use phalanx_core::dispatch::turn::Turn;
use phalanx_core::ids::WorkerId;
use phalanx_core::wire::{
    Frame, FromWorker, MAX_MESSAGE_BYTES, WireError, outgoing, parse_advanced_from_worker,
    parse_from_worker, take_long_from_worker,
};

use crate::error::{MessageError, Result};
use crate::event::Event;
use crate::message::Message;
use crate::primary::cell::Departure;
use crate::primary::mailbox::{Alarm, Reading, Until};
use crate::primary::sink::Fact;
use crate::primary::sockets::outgoing::{Answered, Outgoing, SentHandle};
use crate::primary::state::Hub;
use crate::primary::tasks::timer;

/// Descriptors that may wait for their message. Node has one on its way at most.
pub(in crate::primary) const STRAYS: usize = 8;
/// A listener that did not arrive is sent again after this time.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

impl Hub {
    /// Reads from a worker's channel, for one turn, and does what the messages say.
    pub(in crate::primary) fn read_channel(&mut self, worker: WorkerId) -> Reading {
        let begun = phalanx_sys::clock::now();
        let mut turn = Turn::default();
        let reading = loop {
            // What the turn before has left over comes first.
            self.handle_frames(worker, &mut turn, begun);
            if turn.is_over(begun.elapsed()) {
                break Reading::More;
            }
            let (reading, bytes) = self.receive(worker);
            turn.read(bytes);
            if reading == Reading::More {
                continue;
            }
            self.handle_frames(worker, &mut turn, begun);
            let state = self.workers.get(&worker);
            let channel = state.and_then(|state| state.channel.as_ref());
            if channel.is_some_and(|channel| channel.frames.has_more()) {
                break Reading::More;
            }
            break reading;
        };
        let state = self.workers.get_mut(&worker);
        if let Some(channel) = state.and_then(|state| state.channel.as_mut()) {
            channel.frames.reclaim(&mut self.scratch);
        }
        self.close_strays(worker);
        self.refresh(worker);
        reading
    }

    /// The socket takes bytes again. True when it is full once more.
    pub(super) fn channel_writable(&mut self, worker: WorkerId) -> bool {
        let Some(channel) = self.channel_mut(worker) else {
            return false;
        };
        channel.unblock();
        let full = channel.is_blocked();
        self.refresh(worker);
        full
    }

    /// Reads once. Tells how many bytes came.
    fn receive(&mut self, worker: WorkerId) -> (Reading, usize) {
        let state = self.workers.get_mut(&worker);
        let Some(channel) = state.and_then(|state| state.channel.as_mut()) else {
            return (Reading::Closed, 0);
        };
        channel.frames.lend(&mut self.scratch);
        let room = channel.frames.room();
        let room_bytes = room.len();
        let received =
            phalanx_sys::channel::receive(channel.socket.as_fd(), room, &mut channel.received);
        match received {
            Ok(received) if received.bytes == 0 => (Reading::Closed, 0),
            Ok(received) => {
                channel.frames.fill(received.bytes);
                channel.heard += 1;
                // A short read without descriptors has emptied the socket; what comes later wakes again.
                let more = received.bytes == room_bytes || !channel.received.is_empty();
                let reading = if more {
                    Reading::More
                } else {
                    Reading::Drained
                };
                (reading, received.bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (Reading::Drained, 0),
            Err(error) => {
                tracing::debug!(worker = worker.0, %error, "a worker's channel cannot be read");
                (Reading::Closed, 0)
            }
        }
    }

    /// Descriptors that no message speaks of must not fill the primary's table.
    fn close_strays(&mut self, worker: WorkerId) {
        let Some(channel) = self
            .workers
            .get_mut(&worker)
            .and_then(|state| state.channel.as_mut())
            .filter(|channel| channel.received.len() > STRAYS)
        else {
            return;
        };
        channel.received.clear();
        self.complain(
            worker,
            "sent descriptors without a message for them: closed",
        );
    }

    /// Does what the lines that have come say, until the turn is over.
    fn handle_frames(&mut self, worker: WorkerId, turn: &mut Turn, begun: Instant) {
        while !turn.is_over(begun.elapsed()) {
            let Some(channel) = self.channel_mut(worker) else {
                return;
            };
            let parsed = match channel.frames.next_frame() {
                None => return,
                Some(Frame::Line(line)) => parse_from_worker(line),
                Some(Frame::Long(line)) => take_long_from_worker(line),
                Some(Frame::Value(value)) => parse_advanced_from_worker(value),
                Some(Frame::Senseless) => {
                    self.complain(worker, "sent a long message that is not JSON: dropped");
                    continue;
                }
                Some(Frame::Oversized) => {
                    let limit = MAX_MESSAGE_BYTES >> 20;
                    let text =
                        format!("sent an oversized message, of more than {limit} MiB: dropped");
                    self.complain(worker, &text);
                    continue;
                }
            };
            turn.line();
            match parsed {
                Ok(message) => self.handle(worker, message),
                Err(error) => self.complain(worker, &describe(&error)),
            }
        }
    }

    pub(in crate::primary) fn handle(&mut self, worker: WorkerId, message: FromWorker) {
        match message {
            FromWorker::HandleAck => self.handle_answered(worker, true),
            FromWorker::HandleNack => self.handle_answered(worker, false),
            FromWorker::Accepted { ack, accepted } => self.offer_answered(worker, ack, accepted),
            FromWorker::Online => self.online(worker),
            FromWorker::QueryServer { seq, request } => self.query_server(worker, seq, request),
            FromWorker::Listening(request) => self.listening(worker, &request),
            FromWorker::Close { key } => self.release(worker, &key),
            FromWorker::Leaving { seq } => self.leaving(worker, seq),
            FromWorker::Handle { message } => self.handle_received(worker, message),
            // phalanx sends a worker no sockets that it would count: all of them are closed, always.
            FromWorker::SocketsClosing { key } => {
                self.write(worker, outgoing::sockets_closed(&key));
            }
            FromWorker::SocketCount { key } => self.write(worker, outgoing::socket_count(&key, 0)),
            FromWorker::Board { seq } => self.board_asked(worker, seq),
            FromWorker::Duplicates { key, count } => self.duplicates_asked(worker, &key, count),
            FromWorker::Full { key, full } => self.full_told(worker, &key, full),
            FromWorker::Returned { key } => self.connection_returned(worker, &key),
            FromWorker::Load(report) => self.load_told(worker, report),
            FromWorker::Holds { report, ack } => self.rebalancing.told(worker, report, ack),
            FromWorker::Loop { busy } => self.loop_told(worker, busy),
            FromWorker::Health(health) => self.health_told(worker, health),
            FromWorker::User(message) => {
                let Some(message) = self.take_app_metrics(worker, message) else {
                    return;
                };
                if says_ready(&message) {
                    self.says_ready_by_message(worker);
                }
                self.tell_message(worker, Message::new(message));
            }
            FromWorker::Patience { by } => self.has_streams(worker, by),
            FromWorker::Ignored => {}
        }
    }

    /// A worker that drains has streams, which have a limit of their own; it gets no more than that.
    fn has_streams(&mut self, worker: WorkerId, by: Duration) {
        let Some(limits) = self.drain_limits else {
            return;
        };
        let by = by.min(limits.drain + limits.stream);
        self.happened(Fact::Extends { worker, by });
    }

    /// Answers a line of the worker's.
    pub(super) fn write(&mut self, worker: WorkerId, bytes: Vec<u8>) {
        let handle = None;
        self.answer(worker, |_| Outgoing { bytes, handle });
    }

    /// Answers a worker, with a message made for the next number. One that asks and asks and takes no answer
    /// gets none any more.
    pub(in crate::primary) fn answer(
        &mut self,
        worker: WorkerId,
        message: impl FnOnce(u64) -> Outgoing,
    ) {
        let Some(channel) = self.channel_mut(worker) else {
            return;
        };
        if !channel.has_room_for_answers() {
            self.complain(worker, "does not read its answers: one was dropped");
            return;
        }
        let number = channel.next_seq();
        channel.queue(message(number));
    }

    /// An application's message to a worker.
    pub(in crate::primary) fn send(
        &mut self,
        worker: WorkerId,
        bytes: Vec<u8>,
    ) -> Result<(), MessageError> {
        let channel = self.channel_mut(worker);
        let channel = channel.ok_or(MessageError::Disconnected)?;
        if !channel.queue_user(bytes) {
            return Err(MessageError::ChannelFull {
                queued_bytes: channel.queued_bytes(),
            });
        }
        self.refresh(worker);
        Ok(())
    }

    /// A message to every connected worker. Returns how many took it.
    pub(in crate::primary) fn broadcast(&mut self, line: &[u8]) -> usize {
        let connected = self
            .workers
            .iter()
            .filter(|(_, state)| state.channel.is_some());
        let workers: Vec<_> = connected.map(|(&id, _)| id).collect();
        let mut reached = 0;
        for worker in workers {
            match self.send(worker, line.to_vec()) {
                Ok(()) => reached += 1,
                Err(error) => self.complain(worker, &format!("missed a broadcast: {error}")),
            }
        }
        reached
    }

    pub(in crate::primary) fn online(&mut self, worker: WorkerId) {
        if let Some(state) = self.workers.get_mut(&worker).filter(|state| !state.online) {
            state.online = true;
            if self.answered.wanted {
                // Before it is told where to listen: so it counts from its first request on.
                self.ask_health(worker, true);
            }
            self.ask_loop(worker);
            self.tell_app_metrics_wanted(worker);
            self.happened(Fact::Online { worker });
        }
    }

    /// ACK or NACK for the oldest handle on its way.
    pub(in crate::primary) fn handle_answered(&mut self, worker: WorkerId, arrived: bool) {
        let Some(channel) = self.channel_mut(worker) else {
            return;
        };
        let sent = match channel.handle_answered(arrived) {
            Some(Answered::Done(sent)) => sent,
            Some(Answered::Again) => return self.send_delayed(worker),
            None => return self.complain(worker, "answered a handle that was not sent"),
        };
        match sent {
            SentHandle::Forwarded => self.answer_primary(worker, arrived),
            _ if arrived => {}
            SentHandle::Application(_) => self.complain(
                worker,
                "did not receive a handle that was sent to it, time after time: it was closed",
            ),
            SentHandle::Connection(seq) => {
                if self.ledger.returned(worker, seq) {
                    self.count_returned(worker, 1);
                }
            }
            SentHandle::Probe => {}
            SentHandle::Listener(message) => self.send_again(worker, message),
        }
    }

    /// A listener did not arrive (the worker was out of descriptors): it still waits for its answer.
    fn send_again(&self, worker: WorkerId, message: Outgoing) {
        let alarm = Alarm::SendAgain(worker, message);
        timer::ring(self.mailbox(), Until::Later(AGAIN_AFTER), alarm);
    }

    pub(super) fn sends_again(&mut self, worker: WorkerId, message: Outgoing) {
        if let Some(channel) = self.channel_mut(worker) {
            channel.queue_again(message);
        }
    }

    /// The same for a handle of the application: what is behind it waits.
    fn send_delayed(&self, worker: WorkerId) {
        let alarm = Alarm::SendDelayed(worker);
        timer::ring(self.mailbox(), Until::Later(AGAIN_AFTER), alarm);
    }

    pub(super) fn sends_delayed(&mut self, worker: WorkerId) {
        if let Some(channel) = self.channel_mut(worker) {
            channel.send_delayed();
        }
    }

    fn offer_answered(&mut self, worker: WorkerId, seq: u64, accepted: bool) {
        let known = if accepted {
            // Dropping it closes the primary's copy; the worker has its own.
            self.ledger.accepted(worker, seq).is_some()
        } else {
            self.ledger.returned(worker, seq)
        };
        match (known, accepted) {
            (true, true) => self.count_accepted(worker),
            (true, false) => self.count_returned(worker, 1),
            (false, _) => {}
        }
        if !known {
            let text = format!("answered the offer {seq}, which it does not hold");
            self.complain(worker, &text);
        }
        if self.ledger.stuck_since(worker).is_some() {
            // It is healthy again at once.
            let now = crate::primary::clock::now();
            self.look_at_offers(now);
            self.tell_stuck(now);
        }
    }

    fn leaving(&mut self, worker: WorkerId, seq: Option<u64>) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        let first = state.cell.depart(Departure::OwnWish);
        if let Some(seq) = seq {
            self.answer(worker, |number| Outgoing {
                bytes: outgoing::acknowledge(seq, number),
                handle: None,
            });
        }
        self.exclude(worker);
        if first {
            self.happened(Fact::Leaving { worker });
        }
        self.pump();
    }

    /// A message of the application, to whoever wants to see it.
    pub(super) fn tell_message(&mut self, worker: WorkerId, message: Message) {
        let bytes = message.as_json().len();
        tracing::trace!(worker = worker.0, bytes, "sent a message");
        if self.sink.want_messages(worker) {
            self.emit(&Event::Message { worker, message });
        }
    }
}

/// The word that PM2 takes too, and an object of that type.
fn says_ready(text: &str) -> bool {
    const LONGEST: usize = 256;
    let message = (text.len() <= LONGEST).then(|| serde_json::from_str::<serde_json::Value>(text));
    matches!(message, Some(Ok(message)) if message == "ready" || message["type"] == "ready")
}

fn describe(error: &WireError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("sent a bad message: {error}: {source}"),
        None => format!("sent a bad message: {error}"),
    }
}
