//! What workers do not tell, seen from outside: that they wait for connections on what they were given; that
//! they listen on sockets of their own (`exclusive` servers, `reusePort`, listeners in worker threads, Bun's
//! `http`), of which Node says nothing on the channel; and that nothing of the kind has happened for a while.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use phalanx_core::dispatch::readiness::{ListenerName, is_debugger};
use phalanx_sys::connections::has_connection_of;
use phalanx_sys::listening::{Listening, listeners};
use phalanx_sys::process::Pid;
use phalanx_sys::waiting::{self, Sight};
use tokio::task::spawn_blocking;

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

/// After so many looks in a row at a worker that cannot be seen, it is not waited to be seen: what it starts for the moment may be hidden, too.
const HIDDEN_LOOKS: u32 = 4;

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

/// Waits until the worker is seen to accept connections from each of its sockets; of one that speaks, from when it has said
/// that it is ready.
pub(in crate::primary) fn watch_for_waiting(
    mailbox: &Mailbox,
    cell: &Arc<Cell>,
    mut sockets: Vec<Given>,
) {
    let (mailbox, cell) = (mailbox.clone(), Arc::clone(cell));
    tokio::spawn(async move {
        let mut pace = Pace::new();
        while !sockets.is_empty() {
            if !pace.wait(&mailbox, &cell).await {
                return;
            }
            let will_say = cell.readiness == Readiness::Auto && cell.speaks() && !cell.has_word();
            if will_say && !cell.is_ready() {
                continue;
            }
            let pid = cell.pid;
            let looking = spawn_blocking(move || who_serves(pid, sockets)).await;
            let (Ok(seen), Some(primary)) = (looking, mailbox.open()) else {
                return;
            };
            for (key, _) in &seen.accepting {
                primary.waits_on(cell.id, key);
            }
            // What gives no word is not believed: then there is nothing at all.
            if pace.is_hidden(seen.is_hidden && cell.has_word()) {
                return primary.hides(cell.id);
            }
            sockets = seen.others;
        }
    });
}

/// Waits until the worker is seen to accept connections on a listener that it has asked for: to listen is not yet to accept.
pub(in crate::primary) fn watch_for_accepting(mailbox: &Mailbox, cell: &Arc<Cell>, key: String) {
    let (mailbox, cell) = (mailbox.clone(), Arc::clone(cell));
    tokio::spawn(async move {
        let mut pace = Pace::new();
        pace.pause = CLOSE_INTERVAL;
        while pace.wait(&mailbox, &cell).await {
            let Some(primary) = mailbox.open() else {
                return;
            };
            // One that has closed its listener may open it again.
            let Some(socket) = primary.socket_of(cell.id, &key) else {
                continue;
            };
            drop(primary);
            let pid = cell.pid;
            let looking = spawn_blocking(move || accepts_from(pid, socket.as_fd())).await;
            let (Ok(sight), Some(primary)) = (looking, mailbox.open()) else {
                return;
            };
            if sight == Sight::Waits {
                return primary.accepts(cell.id, &key);
            }
            if pace.is_hidden(sight == Sight::Hidden) {
                return primary.hides(cell.id);
            }
        }
    });
}

/// When a worker is looked at.
struct Pace {
    pause: Duration,
    look_at: Instant,
    end: Instant,
    /// So many looks in a row it could not be seen.
    hidden_looks: u32,
}

impl Pace {
    fn new() -> Self {
        let now = clock::real_now();
        Self {
            pause: LOOK_INTERVAL,
            look_at: now,
            end: now + LOOK_LIMIT,
            hidden_looks: 0,
        }
    }

    /// Waits for the next look. False when there is none.
    async fn wait(&mut self, mailbox: &Mailbox, cell: &Cell) -> bool {
        loop {
            let now = clock::real_now();
            clock::wait_until(now + self.pause).await;
            let is_over = cell.is_ready() && now > self.end;
            if is_over || !cell.is_connected() {
                return false;
            }
            let Some(primary) = mailbox.open() else {
                return false;
            };
            let has_successor = cell.is_ready() && primary.has_newcomer(cell.position());
            drop(primary);
            self.pause = if has_successor {
                CLOSE_INTERVAL
            } else {
                LOOK_INTERVAL
            };
            if cell.is_ready() && now < self.look_at && !has_successor {
                continue;
            }
            self.look_at = now + INTERVAL;
            return true;
        }
    }

    /// Whether it could not be seen often enough, this look included.
    fn is_hidden(&mut self, is_hidden: bool) -> bool {
        self.hidden_looks = if is_hidden { self.hidden_looks + 1 } else { 0 };
        self.hidden_looks >= HIDDEN_LOOKS
    }
}

/// What one look at a worker has shown.
struct Seen {
    /// From these it accepts.
    accepting: Vec<Given>,
    others: Vec<Given>,
    /// It cannot be seen whether it does.
    is_hidden: bool,
}

fn who_serves(pid: Pid, sockets: Vec<Given>) -> Seen {
    let mut seen = Seen {
        accepting: Vec::new(),
        others: Vec::new(),
        is_hidden: false,
    };
    for given in sockets {
        let socket = given.1.upgrade();
        let sight = socket.map_or(Sight::Idle, |socket| accepts_from(pid, socket.as_fd()));
        match sight {
            Sight::Waits => seen.accepting.push(given),
            Sight::Idle | Sight::Hidden => seen.others.push(given),
        }
        seen.is_hidden |= sight == Sight::Hidden;
    }
    seen
}

/// Whether the process is seen to accept connections from the socket: it waits for one, or is too busy to be seen waiting and has
/// one in its hands. A socket that cannot be looked at is not seen.
fn accepts_from(pid: Pid, socket: BorrowedFd<'_>) -> Sight {
    let sight = waiting::look(pid, socket).unwrap_or(Sight::Idle);
    if sight != Sight::Waits && has_connection_of(pid, socket).unwrap_or(false) {
        return Sight::Waits;
    }
    sight
}

fn watch_the_silent(mailbox: Mailbox, cell: Arc<Cell>) {
    tokio::spawn(async move {
        loop {
            clock::pause(INTERVAL).await;
            let Some(primary) = mailbox.open() else {
                return;
            };
            let silent = primary.is_silent(cell.id);
            drop(primary);
            match silent {
                None => return,
                Some(false) => {}
                Some(true) => {
                    // Seen twice in a row would not prove more: a listening socket is a fact.
                    let seen = Arc::clone(&cell);
                    let names = spawn_blocking(move || own_listeners(&seen)).await;
                    let names = names.unwrap_or_default();
                    // One that has spoken meanwhile holds what it was given.
                    if let Some(primary) = mailbox.open()
                        && primary.is_silent(cell.id) == Some(true)
                        && !names.is_empty()
                    {
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
