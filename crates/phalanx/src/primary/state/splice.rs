//! Workers of Node's own primary: phalanx stands in the middle of their channels. What passes is decided in
//! `phalanx-core` (`wire/splice.rs`); here it is read and written.
//!
//! INVARIANT: each side's bytes reach the other in order. A side that is not read does not make this process grow:
//! the one that writes is not read either, then. What was read before a side ended reaches the other before that
//! one ends too.

mod entry;
mod keeping;
mod pieces;
mod restore;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::dispatch::turn::Turn;
use phalanx_core::ids::{ExitStatus, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::splice::Serialization;
use phalanx_sys::channel::Identity;
use phalanx_sys::process::Pid;

use crate::primary::Cluster;
use crate::primary::clock;
use crate::primary::mailbox::{Alarm, Flow, Until};
use crate::primary::release::preload;
use crate::primary::sockets::splice::{Side, Splice, Upstream};
use crate::primary::state::Hub;
use crate::primary::state::intake::Intake;
use crate::primary::state::messages::STRAYS;
use crate::primary::tasks::splice;
use crate::primary::tasks::timer;
use crate::watched::watch;
pub(in crate::primary) use keeping::Keeping;
pub(crate) use restore::Estate;

/// A side is not read while so much waits for the other.
const WAITING_MAX: usize = 1 << 20;
/// A listener that no worker has stays open for so long, and while one starts that may ask for it: who restarts his
/// workers one after the other, and has one, refuses nobody.
const UNHELD_MAX: Duration = Duration::from_secs(1);

/// A worker that Node's own primary has started.
#[derive(Debug)]
pub(crate) struct Guest {
    /// Its id, as Node counts.
    pub(crate) id: WorkerId,
    pub(crate) pid: Pid,
    pub(crate) serialization: Serialization,
    /// The end of its channel that Node's primary has given it.
    pub(crate) upstream: OwnedFd,
}

impl Cluster {
    /// Enters a worker of Node's own primary. Returns its new end of the channel, and the option by which it loads the
    /// script of Node workers.
    ///
    /// # Errors
    /// `AlreadyExists` when a live worker has this id; as socketpair(2) and `epoll_ctl(2)`.
    pub(crate) fn splice(&self, guest: Guest) -> io::Result<(OwnedFd, Option<OsString>)> {
        let Guest {
            id,
            pid,
            serialization,
            upstream,
        } = guest;
        self.shared.keep_time();
        phalanx_sys::socket::set_nonblocking(upstream.as_fd())?;
        let (ours, theirs) = phalanx_sys::channel::pair()?;
        let identity = Identity::of(theirs.as_fd())?;
        let down = (Arc::new(watch(ours)?), identity);
        let upstream = Upstream::new(Arc::new(watch(upstream)?), serialization);
        let mut hub = self.shared.hub();
        hub.strike_unfinished(id, pid);
        let entry = hub.enter_guest((id, pid, None), down, upstream)?;
        hub.keep_worker(id);
        let no_preload = hub.settings.no_preload;
        drop(hub);
        let script = (!no_preload)
            .then(|| self.shared.places.locked_preload_script())
            .flatten();
        let option = script.map(|(script, lock)| {
            self.shared.hub().keep_script(lock);
            preload::option(&script)
        });
        entry.follow(&self.mailbox());
        Ok((theirs, option))
    }

    /// Whether Node's primary opens itself what its workers ask for.
    pub(crate) fn leave_listeners(&self, leaves: bool) {
        self.shared.hub().leaves_listeners = leaves;
    }

    /// Node's primary has reaped a worker of its own: this is how it ended.
    pub(crate) fn guest_exited(&self, worker: WorkerId, status: ExitStatus) {
        self.shared.hub().exited(worker, status);
    }
}

impl Hub {
    fn splice_mut(&mut self, worker: WorkerId) -> Option<&mut Splice> {
        self.channel_mut(worker)?.splice.as_deref_mut()
    }

    /// Whether this side is full, and may be read. Nothing when the worker has left.
    pub(super) fn side_state(&mut self, worker: WorkerId, side: Side) -> Option<(bool, bool)> {
        let channel = self.channel_mut(worker)?;
        let (full, waiting) = (channel.is_blocked(), channel.queued_bytes());
        let splice = channel.splice.as_ref()?;
        Some(match side {
            Side::Worker => (full, splice.upstream.waiting_bytes() < WAITING_MAX),
            Side::Primary => {
                let may_read = waiting < WAITING_MAX && !splice.holds;
                (splice.upstream.is_blocked(), may_read)
            }
        })
    }

    /// A side takes bytes again. True when it is full once more.
    pub(super) fn side_writable(&mut self, worker: WorkerId, side: Side) -> bool {
        let Some(channel) = self.channel_mut(worker) else {
            return false;
        };
        if side == Side::Worker {
            channel.unblock();
            if let Some(splice) = &channel.splice {
                splice.upstream.notice.notify_one();
            }
            let full = channel.is_blocked();
            self.refresh(worker);
            return full;
        }
        // Whoever writes to it may be read again.
        channel.blocked_notice.notify_one();
        channel
            .splice
            .as_mut()
            .is_some_and(|splice| splice.upstream.unblock())
    }

    pub(super) fn read_side(&mut self, worker: WorkerId, side: Side) -> Flow {
        let begun = phalanx_sys::clock::now();
        let mut turn = Turn::default();
        let flow = loop {
            self.take_pieces(worker, side, &mut turn, begun);
            match self.side_state(worker, side) {
                None => return Flow::Closed,
                Some((_, false)) => break Flow::Paused,
                Some((_, true)) => {}
            }
            if turn.is_over(begun.elapsed()) {
                break Flow::More;
            }
            match self.receive_from(worker, side) {
                Ok(0) => break Flow::Closed,
                Ok(bytes) => turn.read(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Flow::Drained,
                Err(error) => {
                    tracing::debug!(worker = worker.0, %error, "a spliced channel cannot be read");
                    break Flow::Closed;
                }
            }
        };
        if let Some(splice) = self.splice_mut(worker) {
            splice.cutter(side).rest();
        }
        if side == Side::Worker {
            self.refresh(worker);
        }
        flow
    }

    fn receive_from(&mut self, worker: WorkerId, side: Side) -> io::Result<usize> {
        let closed = || io::Error::from(io::ErrorKind::NotConnected);
        let channel = self.channel_mut(worker).ok_or_else(closed)?;
        let splice = channel.splice.as_deref_mut().ok_or_else(closed)?;
        let (socket, cutter, handles) = match side {
            Side::Worker => (
                &channel.socket,
                &mut splice.from_worker,
                &mut channel.received,
            ),
            Side::Primary => {
                let upstream = &mut splice.upstream;
                (
                    &upstream.socket,
                    &mut upstream.cutter,
                    &mut upstream.received,
                )
            }
        };
        let received = phalanx_sys::channel::receive(socket.as_fd(), cutter.room(), handles)?;
        cutter.fill(received.bytes);
        // What no message speaks of must not fill the table of descriptors.
        if handles.len() > STRAYS {
            handles.clear();
        }
        if side == Side::Worker {
            channel.heard += 1;
        }
        Ok(received.bytes)
    }

    /// A side has ended: the other ends too, when it has everything.
    pub(super) fn side_closed(&mut self, worker: WorkerId, side: Side) {
        let Some(channel) = self.channel_mut(worker) else {
            return;
        };
        let Some(splice) = channel.splice.take() else {
            return;
        };
        splice.upstream.notice.notify_one();
        let rest = match side {
            Side::Worker => splice.upstream.into_rest(),
            Side::Primary => (Arc::clone(&channel.socket), channel.take_rest()),
        };
        let held = self.held_by(worker).map(|(id, _)| id).collect();
        self.channel_closed(worker);
        self.close_unheld(held);
        // Whoever hears of the end finds the addresses free that were to be.
        splice::write_rest(rest);
    }

    /// Node's primary has workers again, while those that `cluster.disconnect()` meant still leave: as there, what was
    /// open is closed, and opened anew.
    pub(in crate::primary) fn begin_anew(&mut self) {
        if self.intake == Intake::Refused {
            self.close_listeners();
        }
    }

    /// A worker has gone that held these: who is left without a holder closes after a while, or with the last worker
    /// when all were told to leave.
    pub(super) fn close_unheld(&mut self, listeners: Vec<ListenerId>) {
        if self.intake == Intake::Refused && self.cells().iter().all(|cell| !cell.is_connected()) {
            self.intake = Intake::Open;
            for id in self.unserved() {
                self.close_listener(id);
            }
            return;
        }
        // The file of a Unix listener goes with its last worker, as Node has it.
        let (files, listeners): (Vec<_>, Vec<_>) = listeners.into_iter().partition(|id| {
            let listener = self.listeners.get(id);
            listener.is_some_and(|listener| listener.file.is_some())
        });
        for id in files {
            self.close_if_unheld(id);
        }
        if listeners.is_empty() {
            return;
        }
        let alarm = Alarm::Unheld(listeners);
        timer::ring(self.mailbox(), unheld_until(), alarm);
    }

    /// Closes what nobody holds by now. When to look again: while a worker starts, it may ask for it.
    pub(super) fn look_at_unheld(&mut self, listeners: &[ListenerId]) -> Option<Until> {
        let mut workers = self.workers.values();
        if workers.any(|state| state.cell.is_connected() && !state.listening) {
            return Some(unheld_until());
        }
        for &id in listeners {
            self.close_if_unheld(id);
        }
        None
    }

    fn close_if_unheld(&mut self, id: ListenerId) {
        if self.users(id) == 0 && !self.is_bound(id) {
            self.close_listener(id);
        }
    }
}

fn unheld_until() -> Until {
    Until::At(clock::now() + UNHELD_MAX)
}
