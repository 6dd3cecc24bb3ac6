//! What is told of workers that do not tell: whether they are silent, and what they are waited for. They are looked at by
//! `tasks/observe.rs`.

use phalanx_core::dispatch::readiness::Lack;
use phalanx_core::ids::{Position, WorkerId};

use crate::primary::cell::Cell;
use crate::primary::state::Hub;
use crate::primary::tasks::observe::SILENCE;
use crate::settings::Adoption;

impl Hub {
    /// Is there a worker at this position that is not ready yet?
    pub(in crate::primary::state) fn has_newcomer(&self, position: Position) -> bool {
        let mut cells = self.workers.values().map(|state| &state.cell);
        cells.any(|cell| cell.position() == position && !cell.is_ready() && cell.is_connected())
    }

    /// Is the worker online and has asked for no listener? Nothing once that question is settled.
    pub(in crate::primary::state) fn is_silent(&self, worker: WorkerId) -> Option<bool> {
        let state = self.workers.get(&worker)?;
        let can_tell = state.channel.is_some() || state.cell.adoption == Adoption::Intercept;
        let is_settled = state.cell.is_ready() || !state.cell.is_connected();
        if is_settled || !can_tell {
            return None;
        }
        Some(state.online && self.machine.held(worker).next().is_none())
    }

    /// Tells what a worker is waited for, once for all that lack the same.
    pub(in crate::primary::state) fn tell_silence(&mut self, cell: &Cell) {
        let Some(lack) = self.machine.lack(cell.id) else {
            return;
        };
        if self.told_lacks.contains(lack) {
            return;
        }
        let (worker, pid, secs) = (cell.id.0, cell.pid.as_u32(), SILENCE.as_secs());
        let causes = causes(lack);
        tracing::warn!(
            worker,
            "worker {worker} (pid {pid}) is not ready after {secs} s: {lack}{causes}"
        );
        let lack = lack.clone();
        self.told_lacks.push(lack);
    }
}

/// The usual causes, for people.
fn causes(lack: &Lack) -> &'static str {
    match lack {
        Lack::AnyListener | Lack::EveryListener(_) => {
            ". Usual causes: it waits for something else first (a database, a file), or it listens in a process \
             or in a way that phalanx does not see"
        }
        Lack::Listeners(_) => ". It gets no new connections as long as its predecessor serves",
        Lack::Accepting(_) => {
            ". Usual causes: it listens before it has loaded, or waits for something else first. A word is enough with \
             --ready message"
        }
        Lack::Word => {
            ". It says so by process.send('ready'), or by READY=1 to NOTIFY_SOCKET (--ready message)"
        }
        Lack::Answer => {
            ". It is asked by GET until its status is between 200 and 399 (--ready http:)"
        }
    }
}
