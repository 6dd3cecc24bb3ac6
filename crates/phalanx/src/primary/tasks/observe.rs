//! What workers do not tell, seen from outside: that they wait for connections on what they were given; that
//! they listen on sockets of their own (`exclusive` servers, `reusePort`, listeners in worker threads, Bun's
//! `http`), of which Node says nothing on the channel; and that nothing of the kind has happened for a while.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use phalanx_core::dispatch::readiness::{ListenerName, is_debugger};
use phalanx_sys::connections::has_connection_of;
use phalanx_sys::listening::{Listening, listeners};
use phalanx_sys::process::Pid;
use phalanx_sys::waiting::waits_on;

use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::mailbox::Mailbox;
use crate::primary::tasks::probe;
use crate::settings::{Adoption, Readiness};

/// How often a worker that is online and has not said that it listens is looked at.
const INTERVAL: Duration = Duration::from_millis(200);

/// How often a worker that was given its listeners is looked at; once it is ready and has no successor that starts, as often as
/// `INTERVAL`.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How often one that is ready is looked at while its successor starts. A busy one is seen accepting in some looks only, and what it
/// serves has to be known before its successor is judged.
const CLOSE_INTERVAL: Duration = Duration::from_millis(10);

/// How long a ready worker is looked at, for listeners that it waits on later than on the first.
const LOOK_LIMIT: Duration = Duration::from_mins(1);

/// After so long people are told what a worker is waited for.
pub(in crate::primary) const SILENCE: Duration = Duration::from_secs(3);

/// A socket that a worker was given, under the key by which it holds it.
pub(in crate::primary) type Given = (String, Weak<OwnedFd>);

/// Watches for the worker's readiness as its settings demand; `sockets` are those that it was given.
pub(in crate::primary) fn start(mailbox: &Mailbox, cell: &Arc<Cell>, sockets: Vec<Given>) {
    match cell.readiness {
        Readiness::Http(_) => {
            probe::start(mailbox.clone(), Arc::clone(cell));
        }
        Readiness::Auto | Readiness::Listen | Readiness::Notify | Readiness::Exec => {}
    }
    match cell.adoption {
        Adoption::Channel | Adoption::Intercept => {
            watch_the_silent(mailbox.clone(), Arc::clone(cell));
        }
        Adoption::Activation => match cell.readiness {
            Readiness::Auto | Readiness::Listen => watch_for_waiting(mailbox, cell, sockets),
            Readiness::Http(_) | Readiness::Notify | Readiness::Exec => {}
        },
        Adoption::None => {}
    }
    if let Some(primary) = mailbox.open() {
        primary.reconsider(cell.id);
    }
    tell_silence(mailbox.clone(), Arc::clone(cell));
}

/// Waits until the worker is seen to accept connections from each of its sockets.
pub(in crate::primary) fn watch_for_waiting(
    mailbox: &Mailbox,
    cell: &Arc<Cell>,
    mut sockets: Vec<Given>,
) {
    let (mailbox, cell) = (mailbox.clone(), Arc::clone(cell));
    tokio::spawn(async move {
        let mut look_at = phalanx_sys::clock::now();
        let end = look_at + LOOK_LIMIT;
        let mut pause = LOOK_INTERVAL;
        while !sockets.is_empty() {
            let now = phalanx_sys::clock::now();
            tokio::time::sleep_until((now + pause).into()).await;
            let Some(primary) = mailbox.open() else {
                return;
            };
            let will_say = cell.readiness == Readiness::Auto && cell.speaks();
            let is_over = cell.is_ready() && now > end;
            if will_say || is_over || !cell.is_connected() {
                return;
            }
            let has_successor = cell.is_ready() && primary.has_newcomer(cell.position());
            pause = if has_successor {
                CLOSE_INTERVAL
            } else {
                LOOK_INTERVAL
            };
            if cell.is_ready() && now < look_at && !has_successor {
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
                primary.waits_on(cell.id, &key);
            }
        }
    });
}

/// Whether the process is seen to accept connections from the socket: it waits for one, or is too busy to be seen waiting and has
/// one in its hands. What cannot be looked at is not seen.
fn accepts_from(pid: Pid, socket: BorrowedFd<'_>) -> bool {
    waits_on(pid, socket).unwrap_or(false) || has_connection_of(pid, socket).unwrap_or(false)
}

fn watch_the_silent(mailbox: Mailbox, cell: Arc<Cell>) {
    tokio::spawn(async move {
        loop {
            let next = phalanx_sys::clock::now() + INTERVAL;
            tokio::time::sleep_until(next.into()).await;
            let Some(primary) = mailbox.open() else {
                return;
            };
            let silent = primary.is_silent(cell.id);
            match silent {
                None => return,
                Some(false) => {}
                Some(true) => {
                    // Seen twice in a row would not prove more: a listening socket is a fact.
                    let names = own_listeners(&cell);
                    if !names.is_empty() {
                        primary.listens_by_itself(cell.id, names);
                    }
                }
            }
        }
    });
}

/// The names of the worker's own listeners; a debugger is none.
pub(super) fn own_listeners(cell: &Cell) -> Vec<ListenerName> {
    let found = listeners(cell.pid).unwrap_or_default();
    let named = found.into_iter().filter_map(|socket| match socket {
        Listening::Tcp(address) if is_debugger(address, cell.inspector) => None,
        Listening::Tcp(address) => Some(ListenerName::of_own(address)),
        Listening::Unix => Some(ListenerName::of_own_unix()),
    });
    named.collect()
}

fn tell_silence(mailbox: Mailbox, cell: Arc<Cell>) {
    let at = clock::now() + SILENCE;
    tokio::spawn(async move {
        clock::sleep_until(at).await;
        if let Some(primary) = mailbox.open()
            && !cell.is_ready()
            && cell.is_connected()
        {
            primary.tell_silence(&cell);
        }
    });
}
