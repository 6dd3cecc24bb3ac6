//! Hears what workers say of themselves: by `sd_notify(3)`, each on a socket of its own, or by einhorn's
//! acknowledgement, on one for all; and waits for the watchdog of those that fall silent.
//!
//! A worker can speak only for itself: the kernel names the sender of each datagram and the peer of each
//! connection, and it must be the worker or descend from it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::turn::Turn;
use phalanx_core::ids::WorkerId;
use phalanx_core::notify::{Notice, Watchdog};
use phalanx_sys::notify::{self, NotifySocket};
use phalanx_sys::process::{Pid, acts_for, descends_from};
use phalanx_sys::socket::Credentials;
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::mailbox::Mailbox;
use crate::watched::watch;

/// The longest datagram or acknowledgement that is read whole; programs send a few hundred bytes.
const MESSAGE_BYTES_MAX: usize = 8192;
/// How long an acknowledgement may take to arrive on its connection.
const ACK_LIMIT: Duration = Duration::from_secs(5);
/// Connections for acknowledgements at the same time; more wait to be accepted.
const ACK_CONNECTIONS_MAX: usize = 64;
/// How long to leave off accepting when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens to a worker until it is gone.
pub(in crate::primary) fn follow(
    mailbox: Mailbox,
    cell: Arc<Cell>,
    notify: NotifySocket,
) -> io::Result<()> {
    let NotifySocket { socket, file, .. } = notify;
    let socket = watch(socket)?;
    tokio::spawn(async move {
        let _file = file;
        let mut strangers = 0_u32;
        let mut guard = Guard::new(&cell);
        loop {
            let changed = cell.changed.notified();
            if !cell.is_connected() {
                return;
            }
            let deadline = guard.deadline(&cell);
            tokio::select! {
                // What it has said counts before its time is up.
                biased;
                readable = socket.readable() => {
                    let (Ok(mut readable), Some(primary)) = (readable, mailbox.open()) else { return };
                    let ears = || receive(&socket, &cell);
                    let is_empty = listen(ears, |heard| match heard {
                        Ok(Some(notice)) => {
                            guard.heard(&notice);
                            primary.noticed(cell.id, notice);
                        }
                        Ok(None) => {
                            strangers = strangers.saturating_add(1);
                            tell_of_strangers(cell.id, strangers);
                        }
                        Err(error) => tracing::debug!(worker = cell.id.0, %error, "a notice is lost"),
                    });
                    if is_empty {
                        readable.clear_ready();
                    } else {
                        // The others have their turn: who speaks without end slows down itself.
                        drop((readable, primary));
                        tokio::task::yield_now().await;
                    }
                }
                () = changed => {}
                () = until(deadline) => {
                    let Some(primary) = mailbox.open() else { return };
                    guard.expired();
                    primary.silent_too_long(&cell, guard.times);
                }
            }
        }
    });
    Ok(())
}

/// Takes what has been said, for one turn. True when nothing is left.
fn listen(
    mut ears: impl FnMut() -> io::Result<Option<Notice>>,
    mut heard: impl FnMut(io::Result<Option<Notice>>),
) -> bool {
    let begun = phalanx_sys::clock::now();
    let mut turn = Turn::default();
    while !turn.is_over(begun.elapsed()) {
        match ears() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            said => heard(said),
        }
        turn.line();
    }
    false
}

async fn until(deadline: Option<Moment>) {
    match deadline {
        Some(deadline) => clock::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Strangers cannot fill the log: the first is told, then each time that they are twice as many.
fn tell_of_strangers(worker: WorkerId, count: u32) {
    if count.is_power_of_two() {
        tracing::warn!(
            worker = worker.0,
            count,
            "a stranger tried to speak for a worker"
        );
    }
}

/// Reads one datagram; one of a stranger says nothing.
fn receive(socket: &AsyncFd<OwnedFd>, cell: &Cell) -> io::Result<Option<Notice>> {
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    let datagram = notify::receive(socket.get_ref().as_fd(), &mut buffer)?;
    let is_heard = may_speak(datagram.sender, cell.pid);
    Ok(is_heard.then(|| Notice::parse(&buffer[..datagram.bytes])))
}

/// The worker and its descendants may, as long as they are there: what has gone meanwhile could have been anybody.
/// `systemd-notify(1)` waits until it was heard. Its user tells a process from a stranger's that had its number before.
fn may_speak(sender: Option<Credentials>, worker: Pid) -> bool {
    let spoken = sender.and_then(|sender| Some((sender.pid?, sender.uid)));
    spoken.is_some_and(|(pid, uid)| {
        acts_for(pid, uid) == Some(true) && descends_from(pid, worker) == Some(true)
    })
}

/// The watchdog of one worker.
struct Guard {
    limit: Option<Duration>,
    heard_at: Moment,
    is_armed: bool,
    /// How often the worker was found silent.
    times: u32,
}

impl Guard {
    fn new(cell: &Cell) -> Self {
        Self {
            limit: cell.watchdog,
            heard_at: clock::now(),
            is_armed: false,
            times: 0,
        }
    }

    /// From readiness until it is asked to leave; what it may take for anything else is limited already.
    fn deadline(&mut self, cell: &Cell) -> Option<Moment> {
        let is_due = cell.is_ready() && cell.departure().is_none();
        if is_due && !self.is_armed {
            self.heard_at = clock::now();
        }
        self.is_armed = is_due;
        let limit = self.limit.filter(|_| is_due)?;
        Some(self.heard_at + limit)
    }

    fn heard(&mut self, notice: &Notice) {
        if notice.watchdog == Some(Watchdog::Alive) {
            self.heard_at = clock::now();
        }
    }

    fn expired(&mut self) {
        self.times += 1;
        self.heard_at = clock::now();
    }
}

/// Takes acknowledgements, each on a connection of its own.
pub(in crate::primary) async fn take_acks(mailbox: Mailbox, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(ACK_CONNECTIONS_MAX));
    loop {
        // INVARIANT: nobody closes the semaphore. Whoever finds no place waits in the kernel's queue.
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(take_ack(mailbox.clone(), stream, place))),
            Err(error) => {
                tracing::debug!(%error, "an acknowledgement cannot be accepted");
                clock::pause(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Reads one line. Its `pid` is not believed: the kernel knows better.
async fn take_ack<P>(mailbox: Mailbox, mut stream: UnixStream, _place: P) {
    let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let pid = peer.and_then(|pid| Pid::from_number(u32::try_from(pid).ok()?));
    let mut text = Vec::new();
    let read = async {
        let mut part = [0; 512];
        while !text.contains(&b'\n') && text.len() < MESSAGE_BYTES_MAX {
            match stream.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(count) => text.extend_from_slice(&part[..count]),
            }
        }
    };
    let deadline = clock::now() + ACK_LIMIT;
    if clock::timeout_at(deadline, read).await.is_none() {
        return;
    }
    if let (true, Some(pid), Some(primary)) = (is_ack(&text), pid, mailbox.open()) {
        primary.acknowledged(pid);
    }
}

/// `{"command":"worker:ack","pid":1}`, or the same in YAML, percent-encoded, as older clients have it.
fn is_ack(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("worker:ack") || text.contains("worker%3Aack")
}

#[cfg(test)]
mod tests {
    use phalanx_core::ids::Position;

    use super::*;
    use crate::primary::clock::by_hand::ByHand;
    use crate::settings::Settings;

    #[test]
    fn who_speaks_without_end_is_heard_for_one_turn() {
        let mut heard = 0;
        let endless = || Ok(None);
        assert!(!listen(endless, |_| heard += 1));
        assert!((1..=100).contains(&heard), "{heard}");
        let mut words = 3;
        let few = || {
            words -= 1;
            let said = (words >= 0).then_some(None);
            said.ok_or_else(|| io::ErrorKind::WouldBlock.into())
        };
        heard = 0;
        assert!(listen(few, |_| heard += 1));
        assert_eq!(heard, 3);
    }

    #[tokio::test]
    async fn a_watchdog_counts_from_readiness_and_from_each_sign_of_life() {
        const LIMIT: Duration = Duration::from_secs(2);
        let hand = ByHand::new();
        let settings = Settings::default();
        let cell = Cell::of_stranger(WorkerId(1), Position(0), Pid::current(), &settings);
        let mut guard = Guard::new(&cell);
        guard.limit = Some(LIMIT);
        assert_eq!(guard.deadline(&cell), None);
        hand.pass(LIMIT * 2).await;
        cell.set_ready();
        let deadline = clock::now() + LIMIT;
        assert_eq!(guard.deadline(&cell), Some(deadline));
        hand.pass(LIMIT / 2).await;
        assert_eq!(guard.deadline(&cell), Some(deadline));
        guard.heard(&Notice::parse(b"STATUS=busy"));
        assert_eq!(guard.deadline(&cell), Some(deadline));
        guard.heard(&Notice::parse(b"WATCHDOG=1"));
        assert_eq!(guard.deadline(&cell), Some(deadline + LIMIT / 2));
    }
}
