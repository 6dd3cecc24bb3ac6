//! Workers of Node's own primary: phalanx stands in the middle of their channels. What passes is decided in
//! `phalanx-core` (`wire/splice.rs`); here it is read and written.
//!
//! INVARIANT: each side's bytes reach the other in order. A side that is not read does not make this process grow:
//! the one that writes is not read either, then. What was read before a side ended reaches the other before that
//! one ends too.

mod entry;
mod keeping;
mod linger;
mod pieces;
mod restore;
mod upstream;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::dispatch::turn::Turn;
use phalanx_core::ids::{ExitStatus, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::splice::{Cutter, Serialization};
use phalanx_sys::channel::Identity;
use phalanx_sys::process::Pid;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::primary::Cluster;
use crate::primary::Shared;
use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::release::preload;
use crate::primary::sockets::channel::{Channel, Outgoing};
use crate::primary::state::Hub;
use crate::primary::state::intake::Intake;
use crate::primary::state::messages::STRAYS;
use crate::watched::watch;
pub(in crate::primary) use keeping::Keeping;
pub(crate) use restore::Estate;
use upstream::Upstream;

/// A side is not read while so much waits for the other.
const WAITING_MAX: usize = 1 << 20;
/// A listener that no worker has stays open for so long, and while one starts that may ask for it: who restarts his
/// workers one after the other, and has one, refuses nobody.
const UNHELD_MAX: Duration = Duration::from_secs(1);

/// So long after a worker's end Node's primary has told how it ended, if it ever does.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

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

/// What stands behind a worker's channel: the channel to Node's primary.
#[derive(Debug)]
pub(in crate::primary) struct Splice {
    from_worker: Cutter,
    upstream: Upstream,
    serialization: Serialization,
    /// A message of Node's primary was forwarded in part.
    pub(in crate::primary) is_within: bool,
    /// What is to be written behind it.
    pub(in crate::primary) behind: VecDeque<Outgoing>,
    /// The worker is about to be told to leave: what comes behind that waits.
    holds: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Worker,
    Primary,
}

/// How a turn of reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Drained,
    More,
    /// The other side does not read.
    Paused,
    Closed,
}

impl Channel {
    /// What comes behind the word to leave may follow.
    pub(in crate::primary) fn release_hold(&mut self) {
        if let Some(splice) = &mut self.splice {
            splice.holds = false;
            splice.upstream.notice.notify_one();
        }
    }
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
        self.keep_time();
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
        let option = (!no_preload)
            .then(|| self.shared.places.preload_script())
            .flatten()
            .map(|script| preload::option(&script));
        entry.follow(&self.shared);
        Ok((theirs, option))
    }

    /// Node's primary has reaped a worker of its own: this is how it ended.
    pub(crate) fn guest_exited(&self, worker: WorkerId, status: ExitStatus) {
        self.shared.hub().exited(worker, status);
    }
}

/// Reads one side of a spliced channel, and writes it when it was full and is not any more.
async fn follow(
    shared: Weak<Shared>,
    worker: WorkerId,
    side: Side,
    socket: Arc<AsyncFd<OwnedFd>>,
    notice: Arc<Notify>,
) {
    let (mut full, mut paused) = (false, false);
    loop {
        tokio::select! {
            readable = socket.readable(), if !paused => {
                let (Ok(mut readable), Some(shared)) = (readable, shared.upgrade()) else { return };
                let flow = shared.hub().read_side(worker, side);
                match flow {
                    Flow::Drained => readable.clear_ready(),
                    Flow::More => {
                        drop(readable);
                        drop(shared);
                        tokio::task::yield_now().await;
                    }
                    Flow::Paused => paused = true,
                    Flow::Closed => return shared.hub().side_closed(worker, side),
                }
            }
            writable = socket.writable(), if full => {
                let (Ok(mut writable), Some(shared)) = (writable, shared.upgrade()) else { return };
                full = shared.hub().side_writable(worker, side);
                if full {
                    writable.clear_ready();
                }
            }
            () = notice.notified() => {
                let state = shared.upgrade().and_then(|shared| shared.hub().side_state(worker, side));
                let Some((is_full, may_read)) = state else { return };
                (full, paused) = (is_full, !may_read);
            }
        }
    }
}

/// A worker is gone when its process has ended and its channel is closed. How it ended tells who reaps it; should he
/// not, it is forgotten after a while.
async fn follow_end(shared: Weak<Shared>, cell: Arc<Cell>, pidfd: Option<AsyncFd<OwnedFd>>) {
    if let Some(pidfd) = pidfd {
        drop(pidfd.readable().await);
    }
    loop {
        let changed = cell.changed.notified();
        if !cell.is_connected() {
            break;
        }
        changed.await;
    }
    clock::sleep_until(clock::now() + TOLD_WITHIN).await;
    if let Some(shared) = shared.upgrade() {
        shared.hub().exited(cell.id, ExitStatus::Unknown);
    }
}

impl Hub {
    fn splice_mut(&mut self, worker: WorkerId) -> Option<&mut Splice> {
        self.channel_mut(worker)?.splice.as_deref_mut()
    }

    /// Whether this side is full, and may be read. Nothing when the worker has left.
    fn side_state(&mut self, worker: WorkerId, side: Side) -> Option<(bool, bool)> {
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
    fn side_writable(&mut self, worker: WorkerId, side: Side) -> bool {
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

    fn read_side(&mut self, worker: WorkerId, side: Side) -> Flow {
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
    fn side_closed(&mut self, worker: WorkerId, side: Side) {
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
        linger::until_written(rest);
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
    fn close_unheld(&mut self, listeners: Vec<ListenerId>) {
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
        let shared = self.shared.clone();
        tokio::spawn(async move {
            loop {
                clock::sleep_until(clock::now() + UNHELD_MAX).await;
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                let mut hub = shared.hub();
                let mut workers = hub.workers.values();
                if workers.any(|state| state.cell.is_connected() && !state.listening) {
                    continue;
                }
                for id in listeners {
                    hub.close_if_unheld(id);
                }
                return;
            }
        });
    }

    fn close_if_unheld(&mut self, id: ListenerId) {
        if self.users(id) == 0 && !self.is_bound(id) {
            self.close_listener(id);
        }
    }
}

impl Splice {
    fn cutter(&mut self, side: Side) -> &mut Cutter {
        match side {
            Side::Worker => &mut self.from_worker,
            Side::Primary => &mut self.upstream.cutter,
        }
    }
}
