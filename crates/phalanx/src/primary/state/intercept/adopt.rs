//! How a socket becomes a worker's: which way is open, and what the hub does on it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use phalanx_core::dispatch::intercept::{Candidate, Refusal, Sockets, Way, way};
use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::ListenRequest;
use phalanx_sys::intercept::Act;

use super::Question;
use super::Verdict;
use super::decide::Asked;
use crate::primary::sockets::slots::Slots;
use crate::primary::state::Hub;

const EPERM: i32 = 1;

impl Hub {
    pub(super) fn way_of(
        &self,
        worker: WorkerId,
        question: &Question,
        asked: &Asked,
        id: ListenerId,
    ) -> Way {
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

    pub(super) fn refuse(&mut self, worker: WorkerId, refusal: Refusal) -> Verdict {
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
    pub(super) fn own_socket(
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
    pub(super) fn slot_of(
        &mut self,
        worker: WorkerId,
        id: ListenerId,
    ) -> io::Result<(Arc<OwnedFd>, bool)> {
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
