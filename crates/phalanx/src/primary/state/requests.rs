//! What a worker asks of listeners: to listen (`queryServer`), and that it does (`listening`).

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::dispatch::machine::Input;
use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::{ListenRequest, outgoing};

use crate::event::Event;
use crate::primary::mailbox::Query;
use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::state::open::Asker;
use crate::primary::state::program::is_not_ready;
use crate::primary::state::{Held, Hub, Share};
use crate::primary::tasks::program;
use crate::splice::record::{Key, Of};

const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const EADDRINUSE: i32 = 98;
const EMFILE: i32 = 24;

/// Listeners that one worker may have at the same time. Beyond it is answered `EMFILE`, as if the worker had
/// no descriptor left for one.
const LISTENERS_MAX: usize = 256;
/// Listeners that nobody serves and that are kept for whoever comes.
const UNSERVED_MAX: usize = 256;
/// Listeners of its own opening that a worker may tell of in its life; they are no more than news.
const UNKNOWN_MAX: u32 = 256;

/// Questions of one worker that wait for a program: so many, and so many bytes of them.
const AWAITED_MAX: usize = LISTENERS_MAX;
const AWAITED_MAX_BYTES: usize = 1 << 20;

/// What a worker has asked for and waits for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Awaited {
    count: usize,
    bytes: usize,
}

impl Awaited {
    /// Another one; false when there is no room for it.
    fn admit(&mut self, bytes: usize) -> bool {
        let has_room =
            self.count < AWAITED_MAX && self.bytes.saturating_add(bytes) <= AWAITED_MAX_BYTES;
        if has_room {
            self.count += 1;
            self.bytes += bytes;
        }
        has_room
    }

    fn is_nothing(self) -> bool {
        self.count == 0
    }

    fn answered(&mut self, bytes: usize) {
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Hub {
    /// A worker wants to listen. It is answered at once, or as soon as there is a program for its listener.
    pub(in crate::primary) fn query_server(
        &mut self,
        worker: WorkerId,
        seq: u64,
        request: ListenRequest,
    ) {
        let Some(request) = self.answer_query(worker, seq, request) else {
            return;
        };
        let (key, place) = (listener_key(&request), request.target.to_string());
        let bytes = request.key.len() + request.data.to_string().len();
        if !self.waits_for_program(worker, bytes) {
            let text = "asks for too many listeners at once";
            self.complain(worker, text);
            let error = io::Error::from_raw_os_error(EMFILE);
            return self.refuse_listen(worker, seq, (&key, &place), &error);
        }
        let query = Query {
            worker,
            seq,
            bytes,
            request,
        };
        tokio::spawn(program::ask_again(self.mailbox(), query));
    }

    /// Answers, if there is a program now; else gives the question back.
    pub(super) fn ask_again(&mut self, query: Query) -> Option<Query> {
        let Query {
            worker,
            seq,
            bytes,
            request,
        } = query;
        let unanswered = self.answer_query(worker, seq, request);
        if unanswered.is_none() {
            self.waited_for_program(worker, bytes);
        }
        unanswered.map(|request| Query { request, ..query })
    }

    /// The worker waits until there is a program for its listener, and is not ready before. False when it asks for too
    /// much.
    pub(super) fn waits_for_program(&mut self, worker: WorkerId, bytes: usize) -> bool {
        let state = self.workers.get_mut(&worker);
        let has_room = state.is_some_and(|state| state.awaited.admit(bytes));
        if has_room {
            self.step(worker, Input::Kept { waits: true });
        }
        has_room
    }

    pub(super) fn waited_for_program(&mut self, worker: WorkerId, bytes: usize) {
        if let Some(state) = self.workers.get_mut(&worker) {
            state.awaited.answered(bytes);
            let waits = !state.awaited.is_nothing();
            self.step(worker, Input::Kept { waits });
        }
    }

    /// Answers, or gives the request back when there is no program for its listener.
    fn answer_query(
        &mut self,
        worker: WorkerId,
        seq: u64,
        request: ListenRequest,
    ) -> Option<ListenRequest> {
        let key = listener_key(&request);
        let place = self.place_shown(&request);
        let state = self.workers.get(&worker)?;
        if state.cell.departure().is_some() {
            // As Node does it: a worker that leaves gets no answer.
            return None;
        }
        let position = state.cell.position();
        if state
            .channel
            .as_ref()
            .is_some_and(|channel| channel.splice.is_some())
        {
            self.begin_anew();
        }
        let id = match self.open_for(worker, &key, &request) {
            Ok(id) => id,
            Err(error) if is_not_ready(&error) => return Some(request),
            Err(error) => {
                self.refuse_listen(worker, seq, (&key, &place), &error);
                return None;
            }
        };
        let listener = self.listeners.get_mut(&id)?;
        let way = match &mut listener.carrier {
            Carrier::Handoff(_) => Ok(Carrier::Handoff(())),
            Carrier::Shared(socket) => Ok(Carrier::Shared(Arc::clone(socket))),
            Carrier::Kernel(slots) => slots.slot_for(position, worker).map(Carrier::Kernel),
        };
        let data = listener.data.clone();
        let (sockname, udp) = (listener.sockname(), listener.udp);
        let way = match way {
            Ok(way) => way,
            Err(error) => {
                self.refuse_listen(worker, seq, (&key, &place), &error);
                return None;
            }
        };
        let handle = match &way {
            Carrier::Handoff(()) => None,
            Carrier::Shared(socket) | Carrier::Kernel(socket) => Some(socket),
        };
        self.keep_query(worker, &key, &request, way.dispatch(), handle);
        self.machine.hold(worker, &key, Held::new(id, request));
        let kind = if udp { "dgram.Native" } else { "net.Native" };
        self.answer(worker, |number| match way {
            Carrier::Handoff(()) => Outgoing {
                bytes: outgoing::listen_handoff(seq, &key, &data, sockname.as_ref(), number),
                handle: None,
            },
            Carrier::Shared(socket) => Outgoing {
                bytes: outgoing::listen_shared(seq, &key, &data, kind, number),
                handle: Some(socket),
            },
            Carrier::Kernel(slot) => Outgoing {
                bytes: outgoing::listen_slot(seq, &key, &data, number),
                handle: Some(slot),
            },
        });
        None
    }

    /// The listener that a worker asks for, unless it has it already or has too many.
    fn open_for(
        &mut self,
        worker: WorkerId,
        key: &str,
        request: &ListenRequest,
    ) -> io::Result<ListenerId> {
        if self.machine.held_as(worker, key).is_some() {
            return Err(io::Error::from_raw_os_error(EADDRINUSE));
        }
        if self.machine.held(worker).count() >= LISTENERS_MAX {
            let text = format!("has {LISTENERS_MAX} listeners, the most there may be: no more");
            self.complain(worker, &text);
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        self.make_room(worker, key)?;
        self.listener_for(key, request, Asker::Worker)
    }

    /// Before a listener is opened: those that nobody serves any more must not pile up, as they do behind a
    /// worker that opens others each time it is started, and descriptors have to be left for everybody else.
    fn make_room(&mut self, worker: WorkerId, key: &str) -> io::Result<()> {
        if self.listeners.values().any(|listener| listener.key == key) {
            return Ok(());
        }
        let mut unserved = self.unserved();
        if unserved.len() > UNSERVED_MAX {
            // The oldest first.
            unserved.truncate(unserved.len() - UNSERVED_MAX);
            let count = unserved.len();
            tracing::warn!(
                count,
                "closing listeners that nobody serves: there are too many"
            );
            for id in unserved {
                self.close_listener(id);
            }
        }
        let Some(channel) = self.channel_mut(worker) else {
            return Ok(());
        };
        let left = phalanx_sys::limits::descriptors_left(channel.socket.get_ref().as_fd())?;
        if left < phalanx_sys::limits::descriptor_reserve() {
            let text = "wants another listener, and the primary has hardly any descriptors left: \
                        raise its limit of open files (LimitNOFILE=, ulimit -n)";
            self.complain(worker, text);
            return Err(io::Error::from_raw_os_error(EMFILE));
        }
        Ok(())
    }

    fn refuse_listen(
        &mut self,
        worker: WorkerId,
        seq: u64,
        (key, place): (&str, &str),
        error: &io::Error,
    ) {
        let is_taken = error.kind() == io::ErrorKind::AddrInUse;
        let way_out = if is_taken {
            "; `ss -ltnp` shows whose it is: end that, or choose another"
        } else {
            ""
        };
        self.complain(
            worker,
            &format!("cannot listen on {place}: {error}{way_out}"),
        );
        let is_refused = error.kind() == io::ErrorKind::PermissionDenied;
        let unnamed = if is_refused { EACCES } else { EINVAL };
        let errno = error.raw_os_error().unwrap_or(unnamed);
        self.answer(worker, |number| Outgoing {
            bytes: outgoing::listen_error(seq, key, -errno, number),
            handle: None,
        });
    }

    /// The worker serves: from now on it has its share.
    pub(in crate::primary) fn listening(&mut self, worker: WorkerId, request: &ListenRequest) {
        let listeners = &self.listeners;
        if !self.workers.contains_key(&worker) {
            return;
        }
        let found = self.machine.held(worker).find(|(_, held)| {
            let listener = listeners.get(&held.listener);
            let port = listener.and_then(|listener| listener.address.inet());
            held.share == Share::None
                && is_same(&held.request, request, port.map(|address| address.port()))
        });
        let found = found.map(|(key, held)| (key.clone(), held.listener));
        let address = match &found {
            Some((_, id)) => listeners.get(id).map(|listener| listener.address.clone()),
            None => requested_address(request),
        };
        let is_told = match found {
            Some((key, _)) => {
                self.keeping
                    .put(Key::Worker(worker.0, Of::Serves(key.clone())));
                self.listens(worker, &key);
                true
            }
            None => self.listens_elsewhere(worker),
        };
        if let Some(address) = address.filter(|_| is_told) {
            self.emit(&Event::Listening { worker, address });
        }
        self.reconsider(worker);
    }
}

/// Listeners that are not the primary's.
impl Hub {
    /// It says that it listens where it has not asked for anything. Nobody is believed because he says so: what the
    /// kernel shows of it proves that it serves, and is owed by its successors (`readiness.rs`). Where Node's primary
    /// opens everything, that believes it too. False when it says so without end, and is not listened to any more.
    fn listens_elsewhere(&mut self, worker: WorkerId) -> bool {
        let Some(state) = self.workers.get_mut(&worker) else {
            return false;
        };
        state.listening |= self.leaves_listeners;
        state.unknown_listeners = state.unknown_listeners.saturating_add(1);
        let is_told = state.unknown_listeners <= UNKNOWN_MAX;
        if !is_told {
            self.complain(worker, "tells of listeners that nobody knows");
        }
        is_told
    }
}

/// Node's newer key: the index counts only where the kernel chooses the port.
fn listener_key(request: &ListenRequest) -> String {
    use phalanx_core::wire::Target;
    let any_port = match &request.target {
        Target::Tcp { port, .. } | Target::Udp { port, .. } => *port == 0,
        Target::UnixPath { .. }
        | Target::UnixAbstract(_)
        | Target::Descriptor(_)
        | Target::DatagramDescriptor(_) => false,
    };
    // Several sockets of a worker may have one port then, and each gets its own.
    let may_share = matches!(
        &request.target,
        Target::Udp {
            reuse_address: true,
            ..
        }
    );
    if any_port || (may_share && request.index > 0) {
        format!("{}:{}", request.key, request.index)
    } else {
        request.key.clone()
    }
}

/// Is this `listening` about that `queryServer`? It repeats it, but with the actual port.
fn is_same(asked: &ListenRequest, listening: &ListenRequest, port: Option<u16>) -> bool {
    use phalanx_core::wire::Target;
    if asked.key == listening.key && asked.index == listening.index {
        return true;
    }
    let mut actual = asked.target.clone();
    match &mut actual {
        Target::Tcp {
            port: asked_port, ..
        }
        | Target::Udp {
            port: asked_port, ..
        } => {
            *asked_port = port.unwrap_or(*asked_port);
        }
        Target::UnixPath { .. }
        | Target::UnixAbstract(_)
        | Target::Descriptor(_)
        | Target::DatagramDescriptor(_) => {}
    }
    actual == listening.target && asked.index == listening.index
}

/// The address of a listener that the worker opened itself.
fn requested_address(request: &ListenRequest) -> Option<crate::address::Address> {
    use crate::address::Address;
    use phalanx_core::wire::Target;
    match &request.target {
        Target::Tcp { address, port, .. } | Target::Udp { address, port, .. } => {
            Some(match address {
                Some(address) => Address::Inet((*address, *port).into()),
                None => Address::AnyInet(*port),
            })
        }
        Target::UnixPath { path, .. } => Some(Address::Unix(path.clone())),
        Target::UnixAbstract(name) => Some(Address::Abstract(name.clone())),
        Target::Descriptor(_) | Target::DatagramDescriptor(_) => None,
    }
}
