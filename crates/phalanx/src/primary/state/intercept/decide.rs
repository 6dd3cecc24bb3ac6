//! What a worker's calls are answered with.
//!
//! A socket that binds may be a server's or, rarely, a client's that wants to come from a certain address,
//! and only listen(2) tells. So a bind passes, beside those of other workers, and the socket becomes the
//! worker's slot at listen: it joins the listener's group, or is replaced by a slot that is planted
//! (`phalanx_core::dispatch::intercept` decides). Where there is a listener on the address already, a bind could not
//! pass: the socket is bound as one of the group, or the slot is planted at once. The same goes for published
//! ports, on which the program is not to bind at all.
//!
//! Port 0 lets the kernel choose. The n-th bind of one worker to port 0 of an address is taken for the
//! same server as the n-th of another, so all workers of a program get the same port.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;

use phalanx_core::dispatch::any_port::Owner;
use phalanx_core::dispatch::intercept::{Refusal, Way};
use phalanx_core::ids::WorkerId;
use phalanx_core::wire::{ListenRequest, Target};
use phalanx_sys::intercept::{self, Act};
use phalanx_sys::socket::SocketId;

use super::Decision;
use super::Question;
use super::Verdict;
use super::any_port;
use crate::event::Event;
use crate::primary::state::choice;
use crate::primary::state::open::{Asker, scope_of};
use crate::primary::state::{Held, Hub};
use crate::primary::tasks::observe;

/// The shortest queue. The primary keeps the queue over a worker's death, and there it has to hold
/// what comes meanwhile, whatever the program thinks of its own speed.
pub(super) const LEAST_BACKLOG: u32 = 511;

/// Sockets that were bound to port 0 and do not listen yet: most of them never will.
const UNDECIDED: usize = 256;

/// What is known of a worker's calls.
#[derive(Debug, Default)]
pub(in crate::primary) struct Calls {
    /// How often it has bound port 0 of each address.
    any_port: BTreeMap<(IpAddr, bool), u32>,
    /// What those sockets were bound for, by and large the oldest first.
    undecided: BTreeMap<SocketId, Asked>,
    /// Under which key each socket became the worker's.
    planted: BTreeMap<SocketId, String>,
    /// What Unix sockets that do not listen yet are bound to.
    paths: BTreeMap<SocketId, ListenRequest>,
    /// It was told that it does not choose among the sockets.
    knows_steering: bool,
}

/// What a socket is bound for.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The listener's key.
    pub(super) key: String,
    /// The port was named, by the program or by the primary.
    pub(super) is_numbered: bool,
}

impl Calls {
    fn next_any_port(&mut self, ip: IpAddr, only_v6: bool) -> String {
        let count = self.any_port.entry((ip, only_v6)).or_default();
        *count = count.saturating_add(1);
        let address = key(SocketAddr::new(ip, 0), only_v6);
        let address = address.trim_start_matches("intercept:");
        format!("{}{address}:{count}", any_port::PREFIX)
    }

    pub(super) fn bound_to_path(&mut self, socket: SocketId, request: ListenRequest) {
        self.paths.insert(socket, request);
        if self.paths.len() > UNDECIDED {
            self.paths.pop_first();
        }
    }

    pub(super) fn path_of(&self, socket: SocketId) -> Option<ListenRequest> {
        self.paths.get(&socket).cloned()
    }

    pub(super) fn remember(&mut self, socket: SocketId, asked: Asked) {
        self.undecided.insert(socket, asked);
        if self.undecided.len() > UNDECIDED {
            self.undecided.pop_first();
        }
    }
}

impl Asked {
    fn for_address(calls: &mut Calls, address: SocketAddr, only_v6: bool) -> Self {
        let is_numbered = address.port() != 0;
        let key = if is_numbered {
            key(address, only_v6)
        } else {
            calls.next_any_port(address.ip(), only_v6)
        };
        Self { key, is_numbered }
    }
}

/// What the same server asks for in every worker. The kernel counts every socket that is bound to one IPv6 address
/// as one that leaves IPv4 alone (`inet6_bind`), but tells so only afterwards.
fn key(address: SocketAddr, only_v6: bool) -> String {
    let is_one = matches!(address, SocketAddr::V6(one) if !one.ip().is_unspecified());
    let only_v6 = only_v6 || is_one;
    let v6 = if only_v6 { "v6:" } else { "" };
    format!("intercept:{v6}{address}")
}

/// Whether it is the key of a bind to port 0.
fn is_any_port(key: &str) -> bool {
    let address = key.rsplit_once(':').map(|(address, _)| address);
    address.is_some_and(|address| address.ends_with(":0"))
}

impl Hub {
    pub(super) fn decide(&mut self, worker: WorkerId, question: &mut Question) -> Decision {
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
            .get_or_insert_with(|| Asked::for_address(calls, address, only_v6))
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
                bound_for.unwrap_or_else(|| Asked::for_address(calls, local, only_v6))
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
            if choice::is_not_ready(&error) {
                return Verdict::Prepare;
            }
            tracing::warn!(worker = worker.0, %error, "cannot listen on {address}");
            Verdict::Fail(error)
        })
    }

    pub(super) fn hold(
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
        }
        self.reconsider(worker);
    }
}

/// Whether a socket that was planted under this key is what a bind to this address asks for.
fn is_key_of(planted: &str, address: SocketAddr, only_v6: bool) -> bool {
    let asked = key(address, only_v6);
    match planted.strip_prefix(any_port::PREFIX) {
        Some(rest) => {
            let address = asked.trim_start_matches("intercept:");
            let count = rest.strip_prefix(address);
            count.is_some_and(|count| count.starts_with(':'))
        }
        None => planted == asked,
    }
}

impl From<Verdict> for Decision {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            serves: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_server_has_the_same_key_in_every_worker() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let (mut one, mut other) = (Calls::default(), Calls::default());
        for _ in 0..3 {
            let key = one.next_any_port(any.ip(), false);
            assert_eq!(key, other.next_any_port(any.ip(), false));
            assert!(is_any_port(&key));
            assert!(is_key_of(&key, any, false));
            assert!(!is_key_of(&key, any, true));
            assert!(!is_key_of(&key, "127.0.0.1:80".parse().unwrap(), false));
        }
        let one: SocketAddr = "[::1]:80".parse().unwrap();
        assert_eq!(key(one, true), key(one, false));
        let v6: SocketAddr = "[::]:80".parse().unwrap();
        assert_ne!(key(v6, true), key(v6, false));
        assert!(!is_any_port(&key(v6, true)) && !is_any_port(&key(v6, false)));
        assert!(is_key_of(&key(v6, true), v6, true));
        assert!(!is_key_of(
            &key(v6, false),
            "[::]:8".parse().unwrap(),
            false
        ));
    }
}
