//! What workers say of themselves: by `sd_notify(3)`, each on a socket of its own, or by einhorn's
//! acknowledgement, on one for all; and the watchdog that ends those that fall silent.
//!
//! A worker can speak only for itself: the kernel names the sender of each datagram and the peer of each
//! connection, and it must be the worker or descend from it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::turn::Turn;
use phalanx_core::ids::WorkerId;
use phalanx_core::notify::{Notice, Watchdog};
use phalanx_sys::notify::{self, NotifySocket};
use phalanx_sys::process::{Pid, acts_for, descends_from};
use phalanx_sys::signal::Signal;
use phalanx_sys::socket::{Credentials, PathOptions, SocketFile, SocketPlace};
use tokio::io::AsyncReadExt;
use tokio::io::unix::AsyncFd;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::primary::Cluster;
use crate::primary::Shared;
use crate::primary::cell::{Cell, Departure};
use crate::primary::clock;
use crate::primary::sink::Fact;
use crate::primary::state::Hub;
use crate::settings::Readiness;
use crate::watched::watch;

/// The longest datagram or acknowledgement that is read whole; programs send a few hundred bytes.
const MESSAGE_BYTES_MAX: usize = 8192;
/// Acknowledgements that may wait for their workers: strangers cannot fill the primary's memory.
const EARLY_MAX: usize = 64;
/// How long an acknowledgement may take to arrive on its connection.
const ACK_LIMIT: Duration = Duration::from_secs(5);
/// Connections for acknowledgements at the same time; more wait to be accepted.
const ACK_CONNECTIONS_MAX: usize = 64;
/// How long to leave off accepting when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens to a worker until it is gone.
pub(in crate::primary) fn follow(
    shared: Weak<Shared>,
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
                    let (Ok(mut readable), Some(shared)) = (readable, shared.upgrade()) else { return };
                    let ears = || receive(&socket, &cell);
                    let is_empty = listen(ears, |heard| match heard {
                        Ok(Some(notice)) => {
                            guard.heard(&notice);
                            shared.hub().noticed(cell.id, notice);
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
                        drop((readable, shared));
                        tokio::task::yield_now().await;
                    }
                }
                () = changed => {}
                () = until(deadline) => {
                    let Some(shared) = shared.upgrade() else { return };
                    guard.expired();
                    shared.hub().silent_too_long(&cell, guard.times);
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

impl Hub {
    fn noticed(&mut self, worker: WorkerId, notice: Notice) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        let cell = Arc::clone(&state.cell);
        cell.set_speaks();
        if notice.status.is_some() {
            state.says = notice.status;
        }
        if let Some(by) = notice.extend {
            self.happened(Fact::Extends { worker, by });
        }
        if notice.ready {
            self.says_ready(&cell);
        }
        if notice.stopping && cell.depart(Departure::OwnWish) {
            self.exclude(worker);
            self.happened(Fact::Leaving { worker });
        }
        if notice.watchdog == Some(Watchdog::Trigger) {
            self.silent_too_long(&cell, 1);
        }
    }

    /// By its channel, where that is asked for.
    pub(in crate::primary) fn says_ready_by_message(&mut self, worker: WorkerId) {
        let state = self.workers.get(&worker);
        if state.is_some_and(|state| state.cell.readiness == Readiness::Notify) {
            self.proves(worker);
        }
    }

    fn says_ready(&mut self, cell: &Cell) {
        match cell.readiness {
            Readiness::Auto | Readiness::Notify => self.proves(cell.id),
            Readiness::Listen | Readiness::Http(_) | Readiness::Exec => {}
        }
    }

    /// A hung worker is ended by ABRT, so that it can leave a trace of where it hung, or else by force.
    fn silent_too_long(&mut self, cell: &Cell, times: u32) {
        let signal = if times > 1 {
            Signal::KILL
        } else {
            Signal::ABRT
        };
        self.error(cell.id, format!("failed its watchdog: sending it {signal}"));
        if let Err(error) = cell.signal(signal) {
            self.error(cell.id, format!("cannot be ended: {error}"));
        }
    }

    /// A process has acknowledged, as einhorn's workers do when they serve.
    fn acknowledged(&mut self, pid: Pid) {
        let descends = |cell: &Arc<Cell>| descends_from(pid, cell.pid) == Some(true);
        let mut cells = self.workers.values().map(|state| &state.cell);
        if let Some(cell) = cells.find(|cell| descends(cell)).cloned() {
            return self.says_ready(&cell);
        }
        // It may be one that was started just now, and is not registered yet.
        let early = self.acks.as_mut().map(|acks| &mut acks.early);
        if let Some(early) = early.filter(|early| early.len() < EARLY_MAX) {
            early.push(pid);
        }
    }

    /// A worker is registered: it may have acknowledged before.
    pub(in crate::primary) fn claim_early_ack(&mut self, cell: &Cell) {
        let Some(acks) = self.acks.as_mut() else {
            return;
        };
        let early = std::mem::take(&mut acks.early);
        if early
            .iter()
            .any(|&pid| descends_from(pid, cell.pid) == Some(true))
        {
            self.says_ready(cell);
        }
    }
}

impl Cluster {
    /// Takes acknowledgements from now on, if it does not yet. The socket is made beside the lock.
    ///
    /// # Errors
    /// As bind(2).
    pub(in crate::primary) fn take_acks(&self, path: &Path) -> io::Result<()> {
        // Workers are started side by side: one of them makes it, the others wait.
        static MAKING: Mutex<()> = Mutex::new(());
        let _one = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        if self.shared.hub().acks.is_none() {
            let acks = Acks::start(Arc::downgrade(&self.shared), path)?;
            self.shared.hub().acks = Some(acks);
        }
        Ok(())
    }
}

/// Takes einhorn's acknowledgements until it is dropped.
#[derive(Debug)]
pub(in crate::primary) struct Acks {
    /// Who acknowledged and belongs to no worker yet.
    early: Vec<Pid>,
    task: tokio::task::JoinHandle<()>,
    file: SocketFile,
}

impl Acks {
    fn start(shared: Weak<Shared>, path: &Path) -> io::Result<Self> {
        // What a primary left there that was killed is replaced.
        let (socket, file) = SocketPlace::find(path)?.listen(&PathOptions::default())?;
        let listener = UnixListener::from_std(net::UnixListener::from(socket))?;
        let task = tokio::spawn(async move {
            let places = Arc::new(Semaphore::new(ACK_CONNECTIONS_MAX));
            loop {
                // INVARIANT: nobody closes the semaphore. Whoever finds no place waits in the kernel's queue.
                let place = Arc::clone(&places).acquire_owned().await;
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(take_ack(shared.clone(), stream, place))),
                    Err(error) => {
                        tracing::debug!(%error, "an acknowledgement cannot be accepted");
                        let pause = phalanx_sys::clock::now() + ACCEPT_PAUSE;
                        tokio::time::sleep_until(pause.into()).await;
                    }
                }
            }
        });
        Ok(Self {
            early: Vec::new(),
            task,
            file,
        })
    }
}

impl Drop for Acks {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(error) = self.file.remove() {
            let path = self.file.path().display();
            tracing::debug!(%error, %path, "cannot remove a socket's file");
        }
    }
}

/// Reads one line. Its `pid` is not believed: the kernel knows better.
async fn take_ack<P>(shared: Weak<Shared>, mut stream: UnixStream, _place: P) {
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
    if let (true, Some(pid), Some(shared)) = (is_ack(&text), pid, shared.upgrade()) {
        shared.hub().acknowledged(pid);
    }
}

/// `{"command":"worker:ack","pid":1}`, or the same in YAML, percent-encoded, as older clients have it.
fn is_ack(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("worker:ack") || text.contains("worker%3Aack")
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
