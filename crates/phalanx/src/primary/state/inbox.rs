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
use phalanx_sys::directory::FileId;
use phalanx_sys::process::Pid;
use phalanx_sys::steering::Steering;
use tokio::sync::Notify;

use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::mailbox::{
    Accepting, Alarm, Arrivals, Decision, Flow, Inbox, Leaver, Look, Mailbox, Put, Query, Question,
    Reading, Until, Way,
};
use crate::primary::sockets::slots::Place;
use crate::primary::sockets::splice::Side;
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

    fn handle_read(&self, worker: WorkerId) {
        self.hub().handle_read(worker);
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

    fn handshakes_seen(&self, ports: Vec<u16>, began: Moment, found: Arc<BTreeSet<Handshake>>) {
        self.hub().handshakes_seen(ports, began, found);
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

    fn begin_probe(&self, listener: ListenerId, worker: WorkerId, port: u16) -> io::Result<Place> {
        self.hub().begin_probe(listener, worker, port)
    }

    fn has_stayed(&self, listener: ListenerId, worker: WorkerId, place: &Place) -> bool {
        self.hub().has_stayed(listener, worker, place)
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

    fn tried(&self, listener: ListenerId, who: (Position, WorkerId), trial: Option<Put>) {
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

    fn accepts(&self, worker: WorkerId, key: &str) {
        self.hub().accepts(worker, key);
    }

    fn hides(&self, worker: WorkerId) {
        self.hub().hides(worker);
    }

    fn socket_of(&self, worker: WorkerId, key: &str) -> Option<Arc<OwnedFd>> {
        self.hub().socket_of(worker, key)
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

    fn rings(&self, alarm: Alarm) -> Option<(Until, Alarm)> {
        self.hub().rings(alarm)
    }

    fn accept(&self, listener: ListenerId, socket: &OwnedFd) -> Accepting {
        self.hub().accept_turn(listener, socket)
    }

    fn read_side(&self, worker: WorkerId, side: Side) -> Flow {
        self.hub().read_side(worker, side)
    }

    fn side_writable(&self, worker: WorkerId, side: Side) -> bool {
        self.hub().side_writable(worker, side)
    }

    fn side_state(&self, worker: WorkerId, side: Side) -> Option<(bool, bool)> {
        self.hub().side_state(worker, side)
    }

    fn side_closed(&self, worker: WorkerId, side: Side) {
        self.hub().side_closed(worker, side);
    }

    fn holder_writable(&self) {
        self.hub().holder_writable();
    }

    fn decide(&self, worker: WorkerId, question: &mut Question) -> Decision {
        self.hub().decide(worker, question)
    }

    fn serves_on(&self, worker: WorkerId, key: &str) {
        self.hub().serves_on(worker, key);
    }

    fn keeps_file(&self, file: FileId) -> bool {
        self.hub().keeps_file(file)
    }

    fn any_port_decided(&self) -> Arc<Notify> {
        Arc::clone(&self.hub().any_port_decided)
    }

    fn end_trial(&self, worker: WorkerId) {
        self.hub().end_trial(worker);
    }

    fn lacking_program(&self) -> Option<Arc<Steering>> {
        self.hub().lacking_program()
    }

    fn waited_for_program(&self, worker: WorkerId) {
        self.hub().waited_for_program(worker, 0);
    }

    fn ask_again(&self, query: Query) -> Option<Query> {
        self.hub().ask_again(query)
    }

    fn cells(&self) -> Vec<Arc<Cell>> {
        self.hub().cells()
    }
}
