//! What the calls of intercepted workers are answered with. `tasks/intercept.rs` receives and answers them.
//!
//! A socket that binds may be a server's or, rarely, a client's that wants to come from a certain address,
//! and only listen(2) tells. So a bind passes, beside those of other workers, and the socket becomes the
//! worker's slot at listen: it joins the listener's group, or is replaced by a slot that is planted
//! (`phalanx_core::dispatch::intercept` decides). Where there is a listener on the address already, a bind could not
//! pass: the socket is bound as one of the group, or the slot is planted at once. The same goes for published
//! ports, on which the program is not to bind at all.

mod any_port;
mod paths;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use phalanx_core::dispatch::any_port::Owner;
use phalanx_core::dispatch::intercept::{
    AnyPorts, Asked, Candidate, Refusal, Sockets, Way, is_any_port, is_key_of, way,
};
use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::{ListenRequest, Target};
use phalanx_sys::intercept::{self, Act};
use phalanx_sys::socket::SocketId;

use crate::event::Event;
use crate::primary::mailbox::{Decision, Question, Verdict};
use crate::primary::sockets::listening::scope_of;
use crate::primary::sockets::slots::Slots;
use crate::primary::state::open::Asker;
use crate::primary::state::program::is_not_ready;
use crate::primary::state::{Held, Hub};
use crate::primary::tasks::observe;

const EPERM: i32 = 1;

/// The shortest queue. The primary keeps the queue over a worker's death, and there it has to hold
/// what comes meanwhile, whatever the program thinks of its own speed.
const LEAST_BACKLOG: u32 = 511;

/// Sockets that were bound to port 0 and do not listen yet: most of them never will.
const UNDECIDED: usize = 256;

/// What is known of a worker's calls.
#[derive(Debug, Default)]
pub(in crate::primary) struct Calls {
    any_ports: AnyPorts,
    /// What those sockets were bound for, by and large the oldest first.
    undecided: BTreeMap<SocketId, Asked>,
    /// Under which key each socket became the worker's.
    planted: BTreeMap<SocketId, String>,
    /// What Unix sockets that do not listen yet are bound to.
    paths: BTreeMap<SocketId, ListenRequest>,
    /// It was told that it does not choose among the sockets.
    knows_steering: bool,
}

impl Calls {
    fn bound_to_path(&mut self, socket: SocketId, request: ListenRequest) {
        self.paths.insert(socket, request);
        if self.paths.len() > UNDECIDED {
            self.paths.pop_first();
        }
    }

    fn path_of(&self, socket: SocketId) -> Option<ListenRequest> {
        self.paths.get(&socket).cloned()
    }

    fn remember(&mut self, socket: SocketId, asked: Asked) {
        self.undecided.insert(socket, asked);
        if self.undecided.len() > UNDECIDED {
            self.undecided.pop_first();
        }
    }
}

impl Hub {
    /// What is to be done about a call of the worker.
    pub(in crate::primary::state) fn decide(
        &mut self,
        worker: WorkerId,
        question: &mut Question,
    ) -> Decision {
        let Some(state) = self.workers.get_mut(&worker) else {
            return Verdict::Pass.into();
        };
        let planted = state.calls.planted.get(&question.socket);
        match (question.act.clone(), planted) {
            // A signal may take a program out of the call after it was answered: it calls again.
            (Act::Bind(address), Some(key)) if is_key_of(key, address, question.only_v6) => {
                Verdict::Done.into()
            }
            (Act::Listen { .. }, Some(key)) => Decision {
                verdict: Verdict::Done,
                serves: Some(key.clone()),
            },
            (Act::Steer, _) => {
                if !std::mem::replace(&mut state.calls.knows_steering, true) {
                    tracing::info!(
                        worker = worker.0,
                        "would choose among the sockets of its port by a program of its own: phalanx chooses"
                    );
                }
                Verdict::Done.into()
            }
            _ if question.is_listening || state.cell.departure().is_some() => Verdict::Pass.into(),
            (Act::BindPath { .. }, _) => self.decide_path(worker, question).into(),
            (Act::Listen { .. }, None) if question.is_unix => self.listen_on_path(worker, question),
            (Act::Bind(address), _) => self.decide_bind(worker, question, address).into(),
            (Act::Listen { backlog }, None) => self.decide_listen(worker, question, backlog),
        }
    }

    fn decide_bind(
        &mut self,
        worker: WorkerId,
        question: &mut Question,
        address: SocketAddr,
    ) -> Verdict {
        let Some(state) = self.workers.get_mut(&worker) else {
            return Verdict::Pass;
        };
        let only_v6 = question.only_v6;
        let calls = &mut state.calls;
        let asked = question
            .key
            .get_or_insert_with(|| calls.any_ports.asked(address, only_v6))
            .clone();
        let is_open = self.listeners.values().any(|one| one.key == asked.key);
        if is_open && !asked.is_numbered {
            match self.owner_of(worker, &asked.key, question) {
                Owner::App => {}
                Owner::Worker => return Verdict::Pass,
                Owner::Undecided => return Verdict::Wait,
            }
        }
        if is_open || self.is_published(address.port()) {
            let verdict = self.adopt_socket(worker, question, &asked, address, LEAST_BACKLOG);
            self.expect_no_listen(worker, &asked.key, &verdict);
            return verdict;
        }
        if address.port() == 0 {
            if let Some(state) = self.workers.get_mut(&worker) {
                state.calls.remember(question.socket, asked);
            }
            return Verdict::Pass;
        }
        match (&question.duplicate, question.is_attached) {
            // It is replaced already at bind.
            (None, None) => Verdict::Look,
            (None, Some(true)) => self.refuse(worker, Refusal::Hidden),
            (Some(_), _) | (None, Some(false)) => Verdict::Beside(address),
        }
    }

    /// What was planted listens already, and some programs (gunicorn) look and do not call listen(2) then:
    /// such a one is ready when it is seen to wait for connections.
    fn expect_no_listen(&self, worker: WorkerId, key: &str, verdict: &Verdict) {
        if let (Verdict::Plant { slot, .. }, Some(state)) = (verdict, self.workers.get(&worker)) {
            let given = (key.to_owned(), Arc::downgrade(slot));
            observe::watch_for_waiting(&self.mailbox(), &state.cell, vec![given]);
        }
    }

    fn decide_listen(
        &mut self,
        worker: WorkerId,
        question: &mut Question,
        backlog: u32,
    ) -> Decision {
        let Some(state) = self.workers.get_mut(&worker) else {
            return Verdict::Pass.into();
        };
        let (local, only_v6) = (question.local, question.only_v6);
        let bound_for = state.calls.undecided.remove(&question.socket);
        let calls = &mut state.calls;
        // Where it was never bound, the kernel would choose a port now.
        let asked = question
            .key
            .get_or_insert_with(|| {
                bound_for.unwrap_or_else(|| calls.any_ports.asked(local, only_v6))
            })
            .clone();
        if asked.is_numbered {
            self.opens_another();
        } else {
            match self.owner_of(worker, &asked.key, question) {
                Owner::App => {}
                Owner::Worker => return Verdict::Pass.into(),
                Owner::Undecided => return Verdict::Wait.into(),
            }
        }
        Decision {
            verdict: self.adopt_socket(worker, question, &asked, local, backlog),
            serves: Some(asked.key),
        }
    }

    /// The worker is to have its socket of this listener, which is opened if need be.
    fn adopt_socket(
        &mut self,
        worker: WorkerId,
        question: &Question,
        asked: &Asked,
        address: SocketAddr,
        backlog: u32,
    ) -> Verdict {
        let key = &asked.key;
        let request = ListenRequest {
            target: Target::Tcp {
                address: Some(address.ip()),
                port: address.port(),
                only_v6: question.only_v6,
            },
            scope: scope_of(&address),
            index: 0,
            backlog: Some(backlog.max(LEAST_BACKLOG)),
            data: serde_json::Value::Null,
            key: key.to_owned(),
        };
        let place = self.place_shown(&request);
        let done = self
            .listener_for(key, &request, Asker::Worker)
            .and_then(|id| match self.way_of(worker, question, asked, id) {
                Way::Look => Ok(Verdict::Look),
                Way::Refuse(refusal) => Ok(self.refuse(worker, refusal)),
                Way::Own => self.own_socket(worker, question, asked, id, request),
                Way::Plant => {
                    let (slot, again) = self.slot_of(worker, id)?;
                    let planted = intercept::id_of(slot.as_fd());
                    self.hold(worker, key, request, planted.ok());
                    Ok(Verdict::Plant { slot, again })
                }
            });
        done.unwrap_or_else(|error| {
            if is_not_ready(&error) {
                // One call of a thread: they need no bound.
                self.waits_for_program(worker, 0);
                return Verdict::Prepare;
            }
            tracing::warn!(worker = worker.0, %error, "cannot listen on {place}");
            Verdict::Fail(error)
        })
    }

    fn hold(
        &mut self,
        worker: WorkerId,
        key: &str,
        mut request: ListenRequest,
        planted: Option<SocketId>,
    ) {
        if let Target::Tcp { port, .. } = &mut request.target
            && is_any_port(key)
        {
            // As the program asked for it, whatever the kernel has chosen.
            *port = 0;
        }
        let mut listeners = self.listeners.iter();
        let found = listeners.find(|(_, listener)| listener.key == key);
        let (Some((&listener, _)), Some(state)) = (found, self.workers.get_mut(&worker)) else {
            return;
        };
        if let Some(planted) = planted {
            state.calls.planted.insert(planted, key.to_owned());
        }
        self.machine.hold(worker, key, Held::new(listener, request));
    }

    /// The worker listens on its socket of this listener: from now on it has its share.
    pub(in crate::primary) fn serves_on(&mut self, worker: WorkerId, key: &str) {
        // One that has closed its listener and listens again had its share all the time.
        if self.listens(worker, key)
            && let Some(held) = self.machine.held_as(worker, key)
            && let Some(listener) = self.listeners.get(&held.listener)
        {
            let address = listener.address.clone();
            self.emit(&Event::Listening { worker, address });
            if let Some(state) = self.workers.get(&worker) {
                observe::watch_for_accepting(&self.mailbox(), &state.cell, key.to_owned());
            }
        }
        self.reconsider(worker);
    }

    /// The socket from which the worker is to accept what comes to a listener that it has asked for.
    pub(in crate::primary) fn socket_of(
        &mut self,
        worker: WorkerId,
        key: &str,
    ) -> Option<Arc<OwnedFd>> {
        let position = self.workers.get(&worker)?.cell.position();
        let id = self.machine.held_as(worker, key)?.listener;
        match &mut self.listeners.get_mut(&id)?.carrier {
            Carrier::Handoff(handed) => Some(Arc::clone(&handed.socket)),
            Carrier::Shared(socket) => Some(Arc::clone(socket)),
            Carrier::Kernel(slots) => slots.socket_of(position, worker),
        }
    }
}

/// How a socket becomes a worker's: which way is open, and what is done on it.
impl Hub {
    fn way_of(&self, worker: WorkerId, question: &Question, asked: &Asked, id: ListenerId) -> Way {
        let candidate = Candidate {
            is_visible: question.duplicate.is_some(),
            is_attached: question.is_attached,
            is_numbered: asked.is_numbered,
        };
        let slots = self.listeners.get(&id).and_then(|one| one.carrier.slots());
        let sockets = slots.map_or(Sockets::One, Slots::sockets);
        way(candidate, sockets, self.has_one(worker, id))
    }

    fn has_one(&self, worker: WorkerId, id: ListenerId) -> bool {
        self.machine.holds(worker, id)
    }

    fn refuse(&mut self, worker: WorkerId, refusal: Refusal) -> Verdict {
        let cut_off = "has registered its socket with epoll, or duplicated it, before it listens, which would be cut \
                       off. The call fails with EPERM: ";
        let way_out = match refusal {
            Refusal::Hidden => {
                "allow pidfd_getfd(2), which the container's seccomp profile forbids (with Docker: --cap-add \
                 SYS_PTRACE), or give it its listeners with --bind"
            }
            Refusal::Shared => {
                "all workers share one socket here (a Unix path, or --dispatch shared): give it its listeners with --bind"
            }
        };
        self.error(worker, format!("{cut_off}{way_out}"));
        Verdict::Fail(io::Error::from_raw_os_error(EPERM))
    }

    /// The program's socket joins the listener's: at bind it is bound there, at listen it becomes the worker's slot.
    fn own_socket(
        &mut self,
        worker: WorkerId,
        question: &Question,
        asked: &Asked,
        id: ListenerId,
        request: ListenRequest,
    ) -> io::Result<Verdict> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let own = question.duplicate.as_ref().ok_or_else(gone)?;
        let state = self.workers.get_mut(&worker).ok_or_else(gone)?;
        let listener = self.listeners.get_mut(&id).ok_or_else(gone)?;
        let slots = listener.carrier.slots_mut().ok_or_else(gone)?;
        if matches!(question.act, Act::Bind(_)) {
            let asked = Asked {
                key: asked.key.clone(),
                is_numbered: true,
            };
            state.calls.remember(question.socket, asked);
            return Ok(Verdict::InGroup(slots.address()));
        }
        slots.join(state.cell.position(), worker, own)?;
        self.hold(worker, &asked.key, request, Some(question.socket));
        Ok(Verdict::Done)
    }

    /// The worker's socket of a listener, and whether it has been given it before.
    fn slot_of(&mut self, worker: WorkerId, id: ListenerId) -> io::Result<(Arc<OwnedFd>, bool)> {
        let again = self.has_one(worker, id);
        let state = self.workers.get(&worker).ok_or(io::ErrorKind::NotFound)?;
        let position: Position = state.cell.position();
        let listener = self.listeners.get_mut(&id).ok_or(io::ErrorKind::NotFound)?;
        let slot = match &mut listener.carrier {
            Carrier::Handoff(handed) => Arc::clone(&handed.socket),
            Carrier::Shared(socket) => Arc::clone(socket),
            Carrier::Kernel(slots) => slots.slot_again(position, worker)?,
        };
        Ok((slot, again))
    }
}
