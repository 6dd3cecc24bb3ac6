//! What tasks tell and ask: the one entrance for them ([`mailbox`](crate::primary::mailbox)).

use std::collections::{BTreeMap, BTreeSet};
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
use crate::primary::clock;
use crate::primary::mailbox::{Arrivals, Inbox, Leaver, Look, Mailbox, Reading, Way};
use crate::primary::state::{Hub, Shared};
use crate::primary::tasks::evidence::Kept;

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

    fn noticed(&self, worker: WorkerId, notice: Notice) {
        self.hub().noticed(worker, notice);
    }

    fn silent_too_long(&self, cell: &Cell, times: u32) {
        self.hub().silent_too_long(cell, times);
    }

    fn acknowledged(&self, pid: Pid) {
        self.hub().acknowledged(pid);
    }

    fn proves(&self, worker: WorkerId) {
        self.hub().proves(worker);
    }

    fn way_to(&self, worker: WorkerId, turn: usize) -> Option<Way> {
        self.hub().way_to(worker, turn)
    }

    fn probed_slot(
        &self,
        worker: WorkerId,
        listener: ListenerId,
    ) -> Option<(Position, SocketAddr)> {
        self.hub().probed_slot(worker, listener)
    }

    fn begin_probe(&self, listener: ListenerId, worker: WorkerId, port: u16) -> io::Result<()> {
        self.hub().begin_probe(listener, worker, port)
    }

    fn end_probe(&self, listener: ListenerId) {
        self.hub().end_probe(listener);
    }

    fn hand_probe(
        &self,
        listener: ListenerId,
        worker: WorkerId,
        connection: OwnedFd,
    ) -> io::Result<()> {
        self.hub().hand_probe(listener, worker, connection)
    }

    fn tried(&self, listener: ListenerId, who: (Position, WorkerId), trial: Option<TcpStream>) {
        self.hub().tried(listener, who, trial);
    }

    fn ask_event_loops(&self) -> Vec<Look> {
        self.hub().ask_all(clock::now())
    }

    fn sees_silent(&self, pressure: f64, silent: &BTreeMap<WorkerId, Sight>, held: Vec<WorkerId>) {
        self.hub().sees_silent(pressure, silent, held);
    }

    fn answers_probe(&self, worker: WorkerId, answers: bool) {
        self.hub().answers_probe(worker, answers);
    }

    fn hangs(&self, worker: WorkerId, silent: (Evidence, Duration), early: bool, kept: Kept) {
        self.hub().hangs(worker, silent, early, kept);
    }

    fn reconsider(&self, worker: WorkerId) {
        self.hub().reconsider(worker);
    }

    fn waits_on(&self, worker: WorkerId, key: &str) {
        self.hub().waits_on(worker, key);
    }

    fn has_newcomer(&self, position: Position) -> bool {
        self.hub().has_newcomer(position)
    }

    fn is_silent(&self, worker: WorkerId) -> Option<bool> {
        self.hub().is_silent(worker)
    }

    fn listens_by_itself(&self, worker: WorkerId, names: Vec<ListenerName>) {
        self.hub().listens_by_itself(worker, names);
    }

    fn tell_silence(&self, cell: &Cell) {
        self.hub().tell_silence(cell);
    }

    fn lives_without_listener(&self, worker: WorkerId) -> bool {
        self.hub().lives_without_listener(worker)
    }

    fn listens_unseen(&self, worker: WorkerId) {
        self.hub().listens_unseen(worker);
    }

    fn cells(&self) -> Vec<Arc<Cell>> {
        self.hub().cells()
    }
}
