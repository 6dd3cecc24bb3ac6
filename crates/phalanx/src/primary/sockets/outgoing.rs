//! What goes to a worker, and what becomes of the handles that go with it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use phalanx_core::wire::HANDLE_RETRIES;

/// A message to be written, with the descriptor that goes with it.
#[derive(Clone, Debug)]
pub(in crate::primary) struct Outgoing {
    pub(in crate::primary) bytes: Vec<u8>,
    pub(in crate::primary) handle: Option<Arc<OwnedFd>>,
}

/// A handle on its way, until its ACK or NACK.
#[derive(Debug)]
pub(in crate::primary) enum SentHandle {
    /// A connection, by its number in the ledger.
    Connection(u64),
    /// Nothing: only the answer matters.
    Probe,
    /// A listener; kept, because one that did not arrive has to be sent again.
    Listener(Outgoing),
    /// One of the application's. Nothing follows it before its answer, so that the order stays when it is sent again.
    Application(Parcel),
    /// One of Node's primary, who waits for the answer.
    Forwarded,
}

/// What an answer to a handle means.
#[derive(Debug)]
pub(in crate::primary) enum Answered {
    /// That was it.
    Done(SentHandle),
    /// It is to be sent again, after a moment.
    Again,
}

/// A message of the application with its handle, and how often it was sent.
#[derive(Debug)]
pub(in crate::primary) struct Parcel {
    message: Outgoing,
    sent: u8,
}

impl Parcel {
    /// Whether it is to be sent again when it did not arrive.
    pub(super) fn may_go_again(&self) -> bool {
        self.sent <= HANDLE_RETRIES
    }

    pub(super) fn into_waiting(self) -> Waiting {
        Waiting {
            message: self.message,
            origin: Origin::Application { sent: self.sent },
        }
    }
}

/// Who has made a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Own,
    /// The application, with a handle.
    Application {
        sent: u8,
    },
    /// Node's primary; it is only passed on.
    Forwarded,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) message: Outgoing,
    pub(super) origin: Origin,
}

impl Waiting {
    /// A message that had a handle was written.
    pub(super) fn into_sent(self) -> SentHandle {
        let message = self.message;
        match self.origin {
            Origin::Own => SentHandle::Listener(message),
            Origin::Application { sent } => SentHandle::Application(Parcel {
                message,
                sent: sent + 1,
            }),
            Origin::Forwarded => SentHandle::Forwarded,
        }
    }
}

/// How many of these are handles of the application.
pub(super) fn handles_in(waiting: &VecDeque<Waiting>) -> usize {
    let is_handle = |one: &&Waiting| matches!(one.origin, Origin::Application { .. });
    waiting.iter().filter(is_handle).count()
}
