//! What tasks tell and ask: the one entrance for them ([`mailbox`](crate::primary::mailbox)).

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use phalanx_core::clock::Moment;
use phalanx_core::ids::{ExitStatus, WorkerId};
use phalanx_sys::connections::Handshake;

use crate::primary::cell::Cell;
use crate::primary::mailbox::{Arrivals, Inbox, Leaver, Mailbox, Reading};
use crate::primary::state::{Hub, Shared};

impl Hub {
    /// Where tasks of this cluster post.
    pub(in crate::primary) fn mailbox(&self) -> Mailbox {
        mailbox(&self.shared)
    }
}

/// Where tasks of this cluster post.
pub(in crate::primary) fn mailbox(shared: &Weak<Shared>) -> Mailbox {
    let shared: Weak<Shared> = Weak::clone(shared);
    Mailbox::new(shared)
}

impl Inbox for Shared {
    fn read_channel(&self, worker: WorkerId) -> Reading {
        self.hub().read_channel(worker)
    }

    fn channel_writable(&self, worker: WorkerId) -> bool {
        self.hub().channel_writable(worker)
    }

    fn channel_closed(&self, worker: WorkerId) {
        self.hub().channel_closed(worker);
    }

    fn ended(&self, worker: WorkerId) {
        self.hub().ended(worker);
    }

    fn exited(&self, worker: WorkerId, status: ExitStatus) {
        self.hub().exited(worker, status);
    }

    fn error(&self, worker: WorkerId, message: String) {
        self.hub().error(worker, message);
    }

    fn arrivals(&self, worker: WorkerId) -> Option<Arrivals> {
        self.hub().arrivals(worker)
    }

    fn handshakes_seen(&self, ports: Vec<u16>, at: Moment, found: Arc<BTreeSet<Handshake>>) {
        self.hub().handshakes_seen(ports, at, found);
    }

    fn leaver(&self, worker: WorkerId) -> Option<Leaver> {
        self.hub().leaver(worker)
    }

    fn sees_leaver(
        &self,
        worker: WorkerId,
        leaver: &Leaver,
        handshakes: &BTreeSet<Handshake>,
        open: usize,
    ) {
        self.hub().sees_leaver(worker, leaver, handshakes, open);
    }

    fn cells(&self) -> Vec<Arc<Cell>> {
        self.hub().cells()
    }
}
