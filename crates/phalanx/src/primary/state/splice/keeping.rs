//! What an engine gives into the hands of its holder while it lives, so that another can go on if it is killed: the ends
//! of channels, the sockets of listeners, and who has asked for which.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::dispatch::listener::Dispatch;
use phalanx_core::ids::WorkerId;
use phalanx_core::wire::ListenRequest;
use phalanx_core::wire::splice::Serialization;
use phalanx_sys::channel::Identity;
use phalanx_sys::process::Pid;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::unix::AsyncFd;

use crate::primary::mailbox::Mailbox;
use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::sockets::splice::Upstream;
use crate::primary::state::Hub;
use crate::primary::tasks::splice;
use crate::splice::record::{Key, Of, Record};

/// Who a worker is, for an engine to come.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Identified {
    pub(super) pid: u32,
    pub(super) position: u32,
    pub(super) mode: String,
    /// Which socket is its end of the channel.
    pub(super) peer: u64,
}

/// The way to the holder; closed where there is none.
#[derive(Debug, Default)]
pub(in crate::primary) struct Keeping {
    holder: Option<Upstream>,
}

impl Keeping {
    /// Tells the holder from now on.
    pub(super) fn begin(&mut self, mailbox: Mailbox, socket: Arc<AsyncFd<OwnedFd>>) {
        let holder = Upstream::new(Arc::clone(&socket), Serialization::Json);
        let end = (socket, Arc::clone(&holder.notice));
        tokio::spawn(splice::follow_holder(mailbox, end));
        self.holder = Some(holder);
    }

    /// Keeps that something is so.
    pub(in crate::primary) fn put(&mut self, key: Key) {
        self.put_with(key, Value::Null, None);
    }

    fn put_with(&mut self, key: Key, what: Value, handle: Option<Arc<OwnedFd>>) {
        let is_with = handle.is_some();
        let put = Record::Put {
            key,
            what,
            handle: is_with,
        };
        self.tell(&put, handle);
    }

    pub(in crate::primary) fn drop(&mut self, key: Key) {
        self.tell(&Record::Drop { key }, None);
    }

    pub(in crate::primary) fn forget(&mut self, worker: WorkerId) {
        self.tell(&Record::Forget { worker: worker.0 }, None);
    }

    fn tell(&mut self, record: &Record, handle: Option<Arc<OwnedFd>>) {
        let Some(holder) = &mut self.holder else {
            return;
        };
        match crate::splice::line(record) {
            Ok(bytes) => holder.queue(Outgoing { bytes, handle }),
            Err(error) => tracing::debug!(%error, "nothing is kept of this"),
        }
    }
}

impl Hub {
    /// The holder's socket takes bytes again.
    pub(in crate::primary) fn holder_writable(&mut self) {
        if let Some(holder) = &mut self.keeping.holder {
            holder.unblock();
        }
    }

    /// Keeps both ends of a worker's channel.
    pub(super) fn keep_worker(&mut self, worker: WorkerId) {
        if self.keeping.holder.is_none() {
            return;
        }
        let Some(state) = self.workers.get(&worker) else {
            return;
        };
        let (cell, Some(channel)) = (&state.cell, &state.channel) else {
            return;
        };
        let Some(splice) = &channel.splice else {
            return;
        };
        let who = Identified {
            pid: cell.pid.as_u32(),
            position: cell.position().0,
            mode: splice.serialization.as_str().to_owned(),
            peer: channel.peer.number(),
        };
        let ends = [&channel.socket, &splice.upstream.socket]
            .map(|socket| socket.get_ref().as_fd().try_clone_to_owned());
        let (Ok(who), [Ok(down), Ok(up)]) = (serde_json::to_value(who), ends) else {
            return;
        };
        let of = |of| Key::Worker(worker.0, of);
        self.keeping
            .put_with(of(Of::Down), who, Some(Arc::new(down)));
        self.keeping
            .put_with(of(Of::Up), Value::Null, Some(Arc::new(up)));
    }

    pub(super) fn keep_script(&mut self, lock: OwnedFd) {
        let lock = Some(Arc::new(lock));
        let key = Key::Script(std::process::id());
        self.keeping.put_with(key, Value::Null, lock);
    }

    pub(in crate::primary) fn keep_listener(
        &mut self,
        key: &str,
        dispatch: Dispatch,
        handle: Option<&Arc<OwnedFd>>,
    ) {
        let key = Key::Listener(key.to_owned());
        self.keeping
            .put_with(key, dispatch.as_str().into(), handle.cloned());
    }

    /// Keeps what a worker has asked for, and its slot.
    pub(in crate::primary) fn keep_query(
        &mut self,
        worker: WorkerId,
        key: &str,
        request: &ListenRequest,
        dispatch: Dispatch,
        handle: Option<&Arc<OwnedFd>>,
    ) {
        if self.keeping.holder.is_none() {
            return;
        }
        let slot = handle.filter(|_| dispatch == Dispatch::Kernel).cloned();
        // A path that is no text is not kept; its worker goes on without being known.
        if let Ok(request) = serde_json::to_value(request) {
            let key = Key::Worker(worker.0, Of::Query(key.to_owned()));
            self.keeping.put_with(key, request, slot);
        }
    }
}

impl Identified {
    pub(super) fn pid(&self) -> Option<Pid> {
        Pid::from_number(self.pid)
    }

    pub(super) fn peer(&self) -> Identity {
        Identity::from_number(self.peer)
    }
}
