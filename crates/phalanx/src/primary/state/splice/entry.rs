//! Entering a worker of Node's own primary: its cell, its channel, and the tasks that watch both ends of that.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use phalanx_core::ids::{ExitStatus, Generation, Position, WorkerId};
use phalanx_core::wire::splice::Cutter;
use phalanx_sys::channel::Identity;
use phalanx_sys::process::{Member, Pid};
use tokio::io::unix::AsyncFd;

use crate::primary::cell::Cell;
use crate::primary::mailbox::Mailbox;
use crate::primary::sockets::channel::Channel;
use crate::primary::sockets::splice::{Side, Splice, Upstream};
use crate::primary::state::Hub;
use crate::primary::tasks::splice::{self, End};
use crate::watched::watch;

/// A worker that was entered, and is not watched yet.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) cell: Arc<Cell>,
    pidfd: Option<AsyncFd<OwnedFd>>,
    down: End,
    up: End,
}

impl Entry {
    pub(super) fn follow(self, mailbox: &Mailbox) {
        let id = self.cell.id;
        for (side, end) in [(Side::Worker, self.down), (Side::Primary, self.up)] {
            tokio::spawn(splice::follow(mailbox.clone(), id, side, end));
        }
        tokio::spawn(splice::follow_end(mailbox.clone(), self.cell, self.pidfd));
    }
}

impl Hub {
    /// Enters a worker with both ends of its channel; at a free position, unless it has one.
    pub(super) fn enter_guest(
        &mut self,
        (id, pid, position): (WorkerId, Pid, Option<Position>),
        (socket, peer): (Arc<AsyncFd<OwnedFd>>, Identity),
        upstream: Upstream,
    ) -> io::Result<Entry> {
        let member = Member::of(pid).map(Member::open).transpose()?.flatten();
        let pidfd = member.map(watch).transpose()?;
        if self.workers.contains_key(&id) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let serialization = upstream.serialization;
        let up = (Arc::clone(&upstream.socket), Arc::clone(&upstream.notice));
        let splice = Splice {
            from_worker: Cutter::new(serialization),
            upstream,
            serialization,
            is_within: false,
            behind: VecDeque::new(),
            holds: false,
        };
        let channel = Channel::spliced(Arc::clone(&socket), peer, serialization, splice);
        let notice = Arc::clone(&channel.blocked_notice);
        let settings = self.settings.clone();
        let position = position.unwrap_or_else(|| self.free_position());
        let cell = Arc::new(Cell::of_stranger(id, position, pid, &settings));
        self.enrol(&cell, Generation(1), &settings);
        let held = BTreeMap::new();
        self.adopt(Arc::clone(&cell), Generation(1), Some(channel), held);
        Ok(Entry {
            cell,
            pidfd,
            down: (socket, notice),
            up,
        })
    }

    /// A worker asks again to be entered: the engine that had entered it was killed before it was told.
    pub(super) fn strike_unfinished(&mut self, id: WorkerId, pid: Pid) {
        let state = self.workers.get(&id);
        if state.is_some_and(|state| state.cell.pid == pid && !state.listening) {
            self.exited(id, ExitStatus::Unknown);
        }
    }
}
