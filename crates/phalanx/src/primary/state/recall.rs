//! Taking back what was offered to a worker that is stuck, so that others can have it.
//!
//! A connection that was sent and not answered may not simply be offered to somebody else: the worker would
//! accept it too when it wakes, and two would answer one client. So the primary takes the message itself out
//! of the channel ([`phalanx_sys::channel::WorkerEnd`]). What the worker has read already stays its own. Where messages
//! cannot be taken out, the worker is offered one connection at a time, as Node's own primary does.
//!
//! INVARIANT: of a channel only whole messages are taken: a read begins where the worker's last one ended,
//! nothing is taken unless an offer of the ledger's stands there, and a message with a descriptor ends a read.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use phalanx_core::ids::WorkerId;
use phalanx_core::wire::{ToWorker, parse_to_worker};
use phalanx_sys::channel::WorkerEnd;

use crate::primary::release::launch::CHANNEL_NUMBER;
use crate::primary::sockets::channel::Channel;
use crate::primary::sockets::outgoing::SentHandle;
use crate::primary::state::Hub;

/// More than a message with a connection has, and than what travels in one piece.
const READ_BYTES: usize = 64 << 10;

impl Channel {
    fn end_of(&self, process: BorrowedFd<'_>) -> io::Result<WorkerEnd> {
        WorkerEnd::of(process, CHANNEL_NUMBER, self.peer)
    }

    /// Takes the offers back that the worker has not read, as far as they are `known` and nothing else
    /// was sent before them. Returns their numbers.
    fn take_back(&mut self, process: BorrowedFd<'_>, known: &[u64]) -> io::Result<Vec<u64>> {
        let end = self.end_of(process)?;
        let mut taken = Vec::new();
        let mut bytes = vec![0; READ_BYTES];
        let mut handles = VecDeque::new();
        while let Ok(count) = end.peek(&mut bytes) {
            if offer_in(first_line(&bytes[..count]), known).is_none() {
                break;
            }
            let Ok(count) = end.take(&mut bytes, &mut handles) else {
                break;
            };
            let read = &bytes[..count];
            let Some(seq) = offer_in(read, known) else {
                // The worker woke up between the two reads and took the offer. What came next is its own.
                self.send_on(read, handles.front());
                break;
            };
            taken.push(seq);
            // The descriptor is a duplicate; the ledger has its own.
            handles.clear();
        }
        let gone: BTreeSet<u64> = taken.iter().copied().collect();
        let is_gone =
            |sent: &SentHandle| matches!(sent, SentHandle::Connection(seq) if gone.contains(seq));
        let before = self.sent.len();
        self.sent.retain(|sent| !is_gone(sent));
        for _ in self.sent.len()..before {
            self.pacing.answered();
        }
        Ok(taken)
    }

    /// Returns to the worker what was its own. There is room: it has just been taken out.
    fn send_on(&self, bytes: &[u8], handle: Option<&OwnedFd>) {
        let handle = handle.map(AsFd::as_fd);
        if let Err(error) = phalanx_sys::channel::send(self.socket.as_fd(), bytes, handle) {
            tracing::error!(%error, "a worker loses a message");
        }
    }
}

fn first_line(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|&byte| byte == b'\n');
    end.map_or(&[], |end| &bytes[..=end])
}

/// The number of the offer, if these bytes are one of those and nothing more.
fn offer_in(bytes: &[u8], known: &[u64]) -> Option<u64> {
    let line = bytes.strip_suffix(b"\n")?;
    if line.contains(&b'\n') {
        return None;
    }
    match parse_to_worker(line) {
        Ok(ToWorker::Connection { seq: Some(seq), .. }) => known.contains(&seq).then_some(seq),
        Ok(_) | Err(_) => None,
    }
}

impl Hub {
    /// Takes back what a stuck worker was offered and others could have. Returns how much that was.
    pub(in crate::primary) fn take_back_offers(&mut self, worker: WorkerId) -> usize {
        let known = self.ledger.recallable(worker);
        let Some(state) = self.workers.get_mut(&worker) else {
            return 0;
        };
        let Some(channel) = state.channel.as_mut().filter(|_| !known.is_empty()) else {
            return 0;
        };
        let taken = {
            let process = state.cell.process();
            process
                .as_ref()
                .map(|process| channel.take_back(process.as_fd(), &known))
        };
        let taken = match taken {
            Some(Ok(taken)) => taken,
            Some(Err(error)) => {
                tracing::debug!(worker = worker.0, %error, "what it was offered cannot be taken back");
                Vec::new()
            }
            None => Vec::new(),
        };
        let mut count = 0;
        for seq in taken {
            count += usize::from(self.ledger.recalled(worker, seq));
        }
        self.count_returned(worker, count);
        count
    }

    /// The worker takes part in handoff from now on: how much it may be offered at a time depends on whether it
    /// could be taken back.
    pub(in crate::primary) fn limit_offers(&mut self, worker: WorkerId) {
        let Some(state) = self.workers.get(&worker) else {
            return;
        };
        let Some(channel) = state.channel.as_ref() else {
            return;
        };
        let able = {
            let process = state.cell.process();
            process
                .as_ref()
                .map(|process| channel.end_of(process.as_fd()))
        };
        if let Some(Err(error)) = able {
            tracing::debug!(worker = worker.0, %error, "is offered one connection at a time: none could be taken back");
            self.ledger.offer_one_at_a_time(worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use phalanx_core::wire::outgoing;

    use super::*;

    fn line(seq: u64) -> Vec<u8> {
        let mut line = outgoing::new_connection_start("tcp:::1:80");
        line.extend_from_slice(seq.to_string().as_bytes());
        line.extend_from_slice(outgoing::NEW_CONNECTION_END);
        line
    }

    #[test]
    fn only_whole_offers_that_are_known_are_taken_for_such() {
        assert_eq!(offer_in(&line(7), &[6, 7]), Some(7));
        assert_eq!(offer_in(&line(7), &[6]), None);
        assert_eq!(offer_in(&line(7)[1..], &[7]), None);
        assert_eq!(offer_in(&[line(7), line(8)].concat(), &[7, 8]), None);
        assert_eq!(offer_in(b"", &[7]), None);
        assert_eq!(offer_in(outgoing::PROBE, &[7]), None);
        assert_eq!(first_line(&[line(7), line(8)].concat()), line(7));
        assert_eq!(first_line(b"no end"), b"");
    }
}
