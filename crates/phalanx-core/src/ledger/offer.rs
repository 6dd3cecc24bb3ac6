//! Connections on their way.

use super::ListenerId;
use crate::ids::WorkerId;
use crate::policy::ClientHash;

/// A connection on its way; `C` is its descriptor in the runtime and a number in tests.
#[derive(Debug)]
pub struct Offer<C> {
    pub(super) listener: ListenerId,
    pub(super) client: ClientHash,
    pub(super) connection: C,
    /// Workers that have returned this connection since the last [`super::Ledger::forgive`].
    pub(super) refused_by: Vec<WorkerId>,
}

impl<C> Offer<C> {
    pub(super) fn new(listener: ListenerId, client: ClientHash, connection: C) -> Self {
        Self {
            listener,
            client,
            connection,
            refused_by: Vec::new(),
        }
    }

    /// The connection.
    pub fn connection(&self) -> &C {
        &self.connection
    }
}

/// A connection that waits and could go somewhere: see [`super::Ledger::next_waiting`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Waiting {
    /// Its place in the queue, for [`super::Ledger::take_waiting`].
    pub index: usize,
    /// The worker chosen for it.
    pub worker: WorkerId,
    /// The listener it came from.
    pub listener: ListenerId,
}
