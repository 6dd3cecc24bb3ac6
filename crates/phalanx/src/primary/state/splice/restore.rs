//! An engine that is not the first: it goes on with what the one before it has left in the hands of the holder.
//!
//! Workers and Node's primary notice nothing: their channels and slots are the same sockets. What was in the memory of the
//! one before is lost: connections that it had accepted and nobody had been given, and a message that it had read in part.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::dispatch::listener::{Carrier, Dispatch};
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::splice::{FIRST_NUMBER, Serialization};
use phalanx_core::wire::{ListenRequest, Target};
use phalanx_sys::socket::{self, SocketPlace, TcpOptions};
use serde_json::Value;
use tokio::io::unix::AsyncFd;

use super::entry::Entry;
use super::keeping::Identified;
use crate::primary::Cluster;
use crate::primary::cell::Departure;
use crate::primary::clock;
use crate::primary::sockets::listening::{BACKLOG, Opened, OwnFile, from_sys};
use crate::primary::sockets::slots::Slots;
use crate::primary::sockets::splice::Upstream;
use crate::primary::state::open::Placed;
use crate::primary::state::{Held, Hub};
use crate::splice::record::{Key, Of};
use crate::watched::watch;

/// Engines number their offers in ranges of their own: an answer to one of before means none of these.
const NUMBERS: u64 = 1 << 32;
/// So long the kernel may take to let go of what the one before had.
const FREE_WITHIN: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(2);
const BECAUSE: &str = "as the engine before had it";

/// What was kept of one worker.
#[derive(Debug, Default)]
struct Kept {
    who: Option<Identified>,
    down: Option<OwnedFd>,
    up: Option<OwnedFd>,
    queries: Vec<(String, ListenRequest, Option<Arc<OwnedFd>>)>,
    serves: Vec<String>,
    is_leaving: bool,
    has_left: bool,
    owes: bool,
}

/// What was kept of all.
#[derive(Debug, Default)]
pub(crate) struct Estate {
    workers: BTreeMap<u32, Kept>,
    listeners: BTreeMap<String, (Dispatch, Option<OwnedFd>)>,
}

impl Estate {
    /// Adds what one record has.
    pub(crate) fn add(&mut self, key: Key, what: Value, handle: Option<OwnedFd>) {
        let (worker, of) = match key {
            Key::Listener(key) => {
                if let Some(dispatch) = what.as_str().and_then(Dispatch::from_name) {
                    self.listeners.insert(key, (dispatch, handle));
                }
                return;
            }
            // Workers to come are told of this engine's own.
            Key::Script(_) => return,
            Key::Worker(worker, of) => (self.workers.entry(worker).or_default(), of),
        };
        match of {
            Of::Down => {
                worker.who = serde_json::from_value(what).ok();
                worker.down = handle;
            }
            Of::Up => worker.up = handle,
            Of::Query(key) => {
                if let Ok(request) = serde_json::from_value(what) {
                    worker.queries.push((key, request, handle.map(Arc::new)));
                }
            }
            Of::Serves(key) => worker.serves.push(key),
            Of::Leaving => worker.is_leaving = true,
            Of::Left => worker.has_left = true,
            Of::Owes => worker.owes = true,
        }
    }
}

impl Cluster {
    /// Numbers offers as the how-many-eth engine, so that they are never taken for Node's own.
    pub(crate) fn number_from(&self, ordinal: u32) {
        let first = FIRST_NUMBER + u64::from(ordinal) * NUMBERS;
        self.shared.hub().ledger.number_from(first);
    }

    /// Goes on with what was kept, and has `holder` keep what there will be.
    pub(crate) async fn go_on(&self, mut estate: Estate, holder: Arc<AsyncFd<OwnedFd>>) {
        let mut entries = Vec::new();
        for (&id, kept) in &mut estate.workers {
            match self.take_back(WorkerId(id), kept) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    tracing::warn!(worker = id, %error, "a worker of the engine before is lost");
                }
            }
        }
        // First of all: what is answered and told below is not to be answered and told by the next engine as well.
        self.shared.hub().keeping.begin(self.mailbox(), holder);
        for entry in &entries {
            let worker = entry.cell.id;
            let Some(kept) = estate.workers.get_mut(&worker.0) else {
                continue;
            };
            if !kept.has_left {
                for (key, request, slot) in std::mem::take(&mut kept.queries) {
                    let listeners = &mut estate.listeners;
                    let held = self.hold_again(worker, (&key, request), slot, listeners);
                    if let Err(error) = held.await {
                        tracing::warn!(worker = worker.0, %error, "{key} cannot be gone on with");
                    }
                }
            }
            self.shared.hub().as_it_stood(worker, kept);
        }
        for (key, _) in estate.listeners {
            // Nobody has it any more, or it could not be taken back.
            self.shared.hub().keeping.drop(Key::Listener(key));
        }
        for entry in entries {
            entry.follow(&self.mailbox());
        }
    }

    fn take_back(&self, id: WorkerId, kept: &mut Kept) -> io::Result<Entry> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let who = kept.who.as_ref().ok_or_else(missing)?;
        let (Some(down), Some(up)) = (kept.down.take(), kept.up.take()) else {
            return Err(missing());
        };
        let serialization = Serialization::from_name(&who.mode).ok_or_else(missing)?;
        let pid = who.pid().ok_or_else(missing)?;
        let upstream = Upstream::new(Arc::new(watch(up)?), serialization);
        let position = Position(who.position);
        let mut hub = self.shared.hub();
        hub.enter_guest(
            (id, pid, Some(position)),
            (Arc::new(watch(down)?), who.peer()),
            upstream,
        )
    }

    async fn hold_again(
        &self,
        worker: WorkerId,
        (key, request): (&str, ListenRequest),
        slot: Option<Arc<OwnedFd>>,
        listeners: &mut BTreeMap<String, (Dispatch, Option<OwnedFd>)>,
    ) -> io::Result<()> {
        let found = listeners.remove(key);
        let id = {
            let mut hub = self.shared.hub();
            hub.listener_again(key, &request, slot.as_ref(), found)?
        };
        let until = clock::real_now() + FREE_WITHIN;
        if let Some(slot) = &slot {
            while !self.shared.hub().slot_again(id, worker, slot)? {
                if clock::real_now() >= until {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                clock::pause(RETRY).await;
            }
        }
        let held = Held::new(id, request);
        self.shared.hub().machine.hold(worker, key, held);
        Ok(())
    }
}

impl Hub {
    /// The listener of this key: the one that was taken back already, or that which was kept.
    fn listener_again(
        &mut self,
        key: &str,
        request: &ListenRequest,
        slot: Option<&Arc<OwnedFd>>,
        found: Option<(Dispatch, Option<OwnedFd>)>,
    ) -> io::Result<ListenerId> {
        let mut there = self.listeners.iter();
        if let Some((&id, _)) = there.find(|(_, listener)| listener.key == key) {
            return Ok(id);
        }
        if self.needs_load() {
            self.board()?;
        }
        let opened = match (slot, found) {
            (Some(slot), _) => self.slots_again(request, slot)?.map(Carrier::Kernel),
            (None, Some((Dispatch::Handoff, Some(handle)))) => {
                one_again(request, handle)?.map(Carrier::Handoff)
            }
            (None, Some((Dispatch::Shared, Some(handle)))) => {
                one_again(request, handle)?.map(Carrier::Shared)
            }
            (None, _) => return Err(io::ErrorKind::NotFound.into()),
        };
        let placed = Placed {
            opened,
            because: BECAUSE.to_owned(),
            asked_port: None,
        };
        self.enter_listener(key, request, placed)
    }

    fn slots_again(
        &mut self,
        request: &ListenRequest,
        slot: &Arc<OwnedFd>,
    ) -> io::Result<Opened<Slots>> {
        let Target::Tcp { only_v6, .. } = request.target else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let options = TcpOptions {
            only_v6,
            backlog: request.backlog.unwrap_or(BACKLOG),
            reuse_port: true,
        };
        let steering = self.steering().map(Arc::clone);
        let steering = steering.map_err(|error| io::Error::other(error.to_string()))?;
        let (policy, weights) = (self.policy, self.weights.clone());
        let slots = Slots::around(
            Some(&steering),
            Arc::clone(slot),
            &options,
            policy,
            &weights,
        )?;
        Ok(Opened {
            address: crate::address::Address::Inet(slots.address()),
            by: slots,
            udp: false,
            file: None,
        })
    }

    fn slot_again(
        &mut self,
        id: ListenerId,
        worker: WorkerId,
        slot: &Arc<OwnedFd>,
    ) -> io::Result<bool> {
        let position = self.workers.get(&worker).map(|state| state.cell.position());
        let slots = self
            .listeners
            .get_mut(&id)
            .and_then(|listener| listener.carrier.slots_mut());
        match (position, slots) {
            (Some(position), Some(slots)) => slots.take_back(position, worker, slot),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The worker is where it was: it serves, or leaves.
    fn as_it_stood(&mut self, worker: WorkerId, kept: &Kept) {
        self.online(worker);
        if kept.owes {
            // Whether it came, nobody knows any more; a second one would be worse.
            self.answer_primary(worker, true);
        }
        if kept.has_left {
            if let Some(state) = self.workers.get(&worker) {
                state.cell.depart(Departure::Asked);
            }
            return;
        }
        for key in &kept.serves {
            self.listens(worker, key);
        }
        self.reconsider(worker);
        if kept.is_leaving
            && self.disconnect(worker)
            && let Some(splice) = self.splice_mut(worker)
        {
            splice.holds = true;
        }
    }
}

/// A listener of one socket.
fn one_again(request: &ListenRequest, handle: OwnedFd) -> io::Result<Opened> {
    let address = from_sys(socket::local_address(handle.as_fd())?);
    let file = match &request.target {
        Target::UnixPath { path, .. } => own_file(path),
        Target::Tcp { .. }
        | Target::UnixAbstract(_)
        | Target::Udp { .. }
        | Target::Descriptor(_)
        | Target::DatagramDescriptor(_) => None,
    };
    Ok(Opened {
        address: if let Target::UnixPath { path, .. } = &request.target {
            crate::address::Address::Unix(path.clone())
        } else {
            address
        },
        by: Arc::new(handle),
        udp: false,
        file,
    })
}

/// The file of a Unix listener, if it is still there.
fn own_file(path: &Path) -> Option<OwnFile> {
    let file = SocketPlace::find(path).and_then(SocketPlace::file);
    file.ok().map(OwnFile::of)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::process::{Command, Stdio};

    use phalanx_core::wire::HANDLE_ACK;
    use phalanx_sys::channel;

    use super::*;
    use crate::splice::line;
    use crate::splice::record::Record;

    const WORKER: u32 = 1;
    const LIMIT: Duration = Duration::from_secs(2);

    /// What has been sent to this end.
    fn heard(end: &OwnedFd) -> String {
        let mut room = [0; 4096];
        let received = channel::receive_within(end.as_fd(), &mut room, &mut VecDeque::new(), LIMIT);
        let bytes = received.map_or(0, |received| received.bytes);
        String::from_utf8_lossy(&room[..bytes]).into_owned()
    }

    #[tokio::test]
    async fn what_the_next_engine_has_answered_is_owed_no_more() {
        let mut process = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let [down, up, holder] = [(); 3].map(|()| channel::pair().unwrap());
        let who = Identified {
            pid: process.id(),
            position: 0,
            mode: "json".to_owned(),
            peer: 0,
        };
        let of = |of| Key::Worker(WORKER, of);
        let mut estate = Estate::default();
        let who = serde_json::to_value(who).unwrap();
        estate.add(of(Of::Down), who, Some(down.0));
        estate.add(of(Of::Up), Value::Null, Some(up.0));
        estate.add(of(Of::Owes), Value::Null, None);

        let cluster = Cluster::new();
        let held_by = Arc::new(watch(holder.0).unwrap());
        cluster.go_on(estate, held_by).await;
        assert_eq!(heard(&up.1).as_bytes(), HANDLE_ACK);
        // Or the engine after this one would answer again.
        let dropped = Record::Drop { key: of(Of::Owes) };
        let dropped = String::from_utf8(line(&dropped).unwrap()).unwrap();
        assert_eq!(heard(&holder.1), dropped);
        drop(process.stdin.take());
        process.wait().unwrap();
    }
}
