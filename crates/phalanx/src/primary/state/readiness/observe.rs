//! What workers do not tell, seen from outside: that they wait for connections on what they were given; that
//! they listen on sockets of their own (`exclusive` servers, `reusePort`, listeners in worker threads, Bun's
//! `http`), of which Node says nothing on the channel; and that nothing of the kind has happened for a while.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::dispatch::readiness::{Lack, ListenerName, is_debugger};
use phalanx_core::ids::{Position, WorkerId};
use phalanx_sys::connections::has_connection_of;
use phalanx_sys::listening::{Listening, listeners};
use phalanx_sys::process::Pid;
use phalanx_sys::waiting::waits_on;

use crate::primary::Shared;
use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::state::Hub;
use crate::settings::{Adoption, Readiness};

/// How often a worker that is online and has not said that it listens is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// How often a worker that was given its listeners is looked at; once it is ready and has no successor that starts, as often as
/// `INTERVAL`.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long a ready worker is looked at, for listeners that it waits on later than on the first.
const LOOK_LIMIT: Duration = Duration::from_mins(1);

/// After so long people are told what a worker is waited for.
const SILENCE: Duration = Duration::from_secs(3);

/// A socket that a worker was given, under the key by which it holds it.
pub(in crate::primary) type Given = (String, Weak<OwnedFd>);

/// Watches for the worker's readiness as its settings demand; `sockets` are those that it was given.
pub(in crate::primary) fn start(shared: &Weak<Shared>, cell: &Arc<Cell>, sockets: Vec<Given>) {
    match cell.readiness {
        Readiness::Http(_) => {
            crate::primary::state::probe::start(Weak::clone(shared), Arc::clone(cell));
        }
        Readiness::Auto | Readiness::Listen | Readiness::Notify | Readiness::Exec => {}
    }
    match cell.adoption {
        Adoption::Channel | Adoption::Intercept => {
            watch_the_silent(Weak::clone(shared), Arc::clone(cell));
        }
        Adoption::Activation => match cell.readiness {
            Readiness::Auto | Readiness::Listen => watch_for_waiting(shared, cell, sockets),
            Readiness::Http(_) | Readiness::Notify | Readiness::Exec => {}
        },
        Adoption::None => {}
    }
    if let Some(shared) = shared.upgrade() {
        shared.hub().reconsider(cell.id);
    }
    tell_silence(Weak::clone(shared), Arc::clone(cell));
}

/// Waits until the worker is seen to accept connections from each of its sockets.
pub(in crate::primary) fn watch_for_waiting(
    shared: &Weak<Shared>,
    cell: &Arc<Cell>,
    mut sockets: Vec<Given>,
) {
    let (shared, cell) = (Weak::clone(shared), Arc::clone(cell));
    tokio::spawn(async move {
        let mut look_at = phalanx_sys::clock::now();
        let end = look_at + LOOK_LIMIT;
        while !sockets.is_empty() {
            let now = phalanx_sys::clock::now();
            tokio::time::sleep_until((now + LOOK_INTERVAL).into()).await;
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let will_say = cell.readiness == Readiness::Auto && cell.speaks();
            let is_over = cell.is_ready() && now > end;
            if will_say || is_over || !cell.is_connected() {
                return;
            }
            // What a predecessor serves has to be known before its successor is judged.
            if cell.is_ready() && now < look_at && !shared.hub().has_newcomer(cell.position()) {
                continue;
            }
            look_at = now + INTERVAL;
            let serves = |(_, socket): &Given| {
                let socket = socket.upgrade();
                socket.is_some_and(|socket| accepts_from(cell.pid, socket.as_fd()))
            };
            let (seen, unseen) = sockets.into_iter().partition(serves);
            sockets = unseen;
            for (key, _) in seen {
                shared.hub().waits_on(cell.id, &key);
            }
        }
    });
}

/// Whether the process is seen to accept connections from the socket: it waits for one, or is too busy to be seen waiting and has
/// one in its hands. What cannot be looked at is not seen.
fn accepts_from(pid: Pid, socket: BorrowedFd<'_>) -> bool {
    waits_on(pid, socket).unwrap_or(false) || has_connection_of(pid, socket).unwrap_or(false)
}

fn watch_the_silent(shared: Weak<Shared>, cell: Arc<Cell>) {
    tokio::spawn(async move {
        loop {
            let next = phalanx_sys::clock::now() + INTERVAL;
            tokio::time::sleep_until(next.into()).await;
            let Some(shared) = shared.upgrade() else {
                return;
            };
            let silent = shared.hub().is_silent(cell.id);
            match silent {
                None => return,
                Some(false) => {}
                Some(true) => {
                    // Seen twice in a row would not prove more: a listening socket is a fact.
                    let names = own_listeners(&cell);
                    if !names.is_empty() {
                        shared.hub().listens_by_itself(cell.id, names);
                    }
                }
            }
        }
    });
}

/// The names of the worker's own listeners; a debugger is none.
pub(in crate::primary) fn own_listeners(cell: &Cell) -> Vec<ListenerName> {
    let found = listeners(cell.pid).unwrap_or_default();
    let named = found.into_iter().filter_map(|socket| match socket {
        Listening::Tcp(address) if is_debugger(address, cell.inspector) => None,
        Listening::Tcp(address) => Some(ListenerName::of_own(address)),
        Listening::Unix => Some(ListenerName::of_own_unix()),
    });
    named.collect()
}

impl Hub {
    /// Is there a worker at this position that is not ready yet?
    fn has_newcomer(&self, position: Position) -> bool {
        let mut cells = self.workers.values().map(|state| &state.cell);
        cells.any(|cell| cell.position() == position && !cell.is_ready() && cell.is_connected())
    }

    /// Is the worker online and has asked for no listener? Nothing once that question is settled.
    fn is_silent(&self, worker: WorkerId) -> Option<bool> {
        let state = self.workers.get(&worker)?;
        let can_tell = state.channel.is_some() || state.cell.adoption == Adoption::Intercept;
        let is_settled = state.cell.is_ready() || !state.cell.is_connected();
        if is_settled || !can_tell {
            return None;
        }
        Some(state.online && self.machine.held(worker).next().is_none())
    }

    /// Tells what a worker is waited for, once for all that lack the same.
    fn tell_silence(&mut self, cell: &Cell) {
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
        Lack::Word => {
            ". It says so by process.send('ready'), or by READY=1 to NOTIFY_SOCKET (--ready message)"
        }
        Lack::Answer => {
            ". It is asked by GET until its status is between 200 and 399 (--ready http:)"
        }
    }
}

fn tell_silence(shared: Weak<Shared>, cell: Arc<Cell>) {
    let at = clock::now() + SILENCE;
    tokio::spawn(async move {
        clock::sleep_until(at).await;
        if let Some(shared) = shared.upgrade()
            && !cell.is_ready()
            && cell.is_connected()
        {
            shared.hub().tell_silence(&cell);
        }
    });
}
