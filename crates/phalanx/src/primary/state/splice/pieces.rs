//! What passes through a spliced channel: who gets it.

use std::sync::Arc;
use std::time::Instant;

use phalanx_core::dispatch::turn::Turn;
use phalanx_core::ids::WorkerId;
use phalanx_core::wire::splice::{OfPrimary, OfWorker, Piece, judge_of_primary, judge_of_worker};
use phalanx_core::wire::{FromWorker, HANDLE_ACK, HANDLE_NACK};

use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::sockets::splice::Side;
use crate::primary::state::Hub;
use crate::splice::record::{Key, Of};

impl Hub {
    /// Does what the pieces that have come ask for, until the turn is over or what follows has to wait.
    pub(super) fn take_pieces(
        &mut self,
        worker: WorkerId,
        side: Side,
        turn: &mut Turn,
        begun: Instant,
    ) {
        while !turn.is_over(begun.elapsed()) {
            if !self
                .side_state(worker, side)
                .is_some_and(|(_, may_read)| may_read)
            {
                return;
            }
            let Some(splice) = self.splice_mut(worker) else {
                return;
            };
            let serialization = splice.serialization;
            let Some(piece) = splice.cutter(side).next_piece() else {
                return;
            };
            turn.line();
            match (piece, side) {
                (Piece::Part { bytes, ends }, _) => {
                    let bytes = bytes.to_vec();
                    self.pass(
                        worker,
                        side,
                        Outgoing {
                            bytes,
                            handle: None,
                        },
                        ends,
                    );
                }
                (Piece::Internal(frame), Side::Worker) => {
                    let (what, bytes) = (judge_of_worker(frame, serialization), frame.to_vec());
                    self.take_of_worker(worker, what, bytes);
                }
                (Piece::Internal(frame), Side::Primary) => {
                    let (what, bytes) = (judge_of_primary(frame, serialization), frame.to_vec());
                    self.take_of_primary(worker, what, bytes);
                }
            }
        }
    }

    fn take_of_worker(&mut self, worker: WorkerId, what: OfWorker, bytes: Vec<u8>) {
        match what {
            OfWorker::Taken(FromWorker::QueryServer { .. }) if self.leaves_listeners => {
                self.pass_whole(worker, Side::Worker, bytes);
            }
            OfWorker::Taken(message) => self.handle(worker, message),
            OfWorker::Noted(message) => {
                if let FromWorker::Leaving { .. } = message {
                    self.keeping.put(Key::Worker(worker.0, Of::Left));
                }
                self.pass_whole(worker, Side::Worker, bytes);
                self.handle(worker, message);
            }
            OfWorker::Answer { arrived } => self.handle_answered(worker, arrived),
            OfWorker::Handle => self.pass_handle(worker, Side::Worker, bytes),
            OfWorker::Forwarded => self.pass_whole(worker, Side::Worker, bytes),
        }
    }

    fn take_of_primary(&mut self, worker: WorkerId, what: OfPrimary, bytes: Vec<u8>) {
        match what {
            OfPrimary::Disconnect if self.disconnect(worker) => {
                self.keeping.put(Key::Worker(worker.0, Of::Leaving));
                if let Some(splice) = self.splice_mut(worker) {
                    splice.holds = true;
                }
            }
            OfPrimary::Handle => self.pass_handle(worker, Side::Primary, bytes),
            OfPrimary::Disconnect | OfPrimary::Forwarded => {
                self.pass_whole(worker, Side::Primary, bytes);
            }
        }
    }

    /// Passes a message with a descriptor on. One whose descriptor did not come is refused here, as by its receiver.
    fn pass_handle(&mut self, worker: WorkerId, from: Side, bytes: Vec<u8>) {
        let Some(channel) = self.channel_mut(worker) else {
            return;
        };
        let handle = match (from, channel.splice.as_mut()) {
            (Side::Worker, _) => channel.received.pop_front(),
            (Side::Primary, Some(splice)) => splice.upstream.received.pop_front(),
            (Side::Primary, None) => None,
        };
        let Some(handle) = handle else {
            let bytes = HANDLE_NACK.to_vec();
            return match from {
                Side::Worker => channel.queue(Outgoing {
                    bytes,
                    handle: None,
                }),
                Side::Primary => self.answer_primary(worker, false),
            };
        };
        if from == Side::Primary {
            self.keeping.put(Key::Worker(worker.0, Of::Owes));
        }
        let handle = Some(Arc::new(handle));
        self.pass(worker, from, Outgoing { bytes, handle }, true);
    }

    /// Passes a whole message without a descriptor on.
    fn pass_whole(&mut self, worker: WorkerId, from: Side, bytes: Vec<u8>) {
        let message = Outgoing {
            bytes,
            handle: None,
        };
        self.pass(worker, from, message, true);
    }

    fn pass(&mut self, worker: WorkerId, from: Side, message: Outgoing, ends: bool) {
        let Some(channel) = self.channel_mut(worker) else {
            return;
        };
        match (from, channel.splice.as_mut()) {
            (Side::Primary, _) => channel.forward(message, ends),
            (Side::Worker, Some(splice)) => splice.upstream.queue(message),
            (Side::Worker, None) => {}
        }
    }

    /// The worker has answered a descriptor of Node's primary.
    pub(in crate::primary) fn answer_primary(&mut self, worker: WorkerId, arrived: bool) {
        let line = if arrived { HANDLE_ACK } else { HANDLE_NACK };
        self.keeping.drop(Key::Worker(worker.0, Of::Owes));
        if let Some(splice) = self.splice_mut(worker) {
            let bytes = splice.serialization.of_line(line.to_vec());
            splice.upstream.queue(Outgoing {
                bytes,
                handle: None,
            });
            // What waited behind the descriptor is on its way.
            splice.upstream.notice.notify_one();
        }
    }
}
