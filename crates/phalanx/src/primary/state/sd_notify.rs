//! What workers say of themselves: by `sd_notify(3)`, each on a socket of its own, or by einhorn's
//! acknowledgement, on one for all; and the watchdog that ends those that fall silent. They are heard by
//! `tasks/sd_notify.rs`.

use std::io;
use std::os::unix::net;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use phalanx_core::ids::WorkerId;
use phalanx_core::notify::{Notice, Watchdog};
use phalanx_sys::process::{Pid, descends_from};
use phalanx_sys::signal::Signal;
use phalanx_sys::socket::{PathOptions, SocketFile, SocketPlace};
use tokio::net::UnixListener;

use crate::primary::Cluster;
use crate::primary::cell::{Cell, Departure};
use crate::primary::mailbox::Mailbox;
use crate::primary::sink::Fact;
use crate::primary::state::Hub;
use crate::primary::tasks::sd_notify;
use crate::settings::{Adoption, Readiness};

/// Acknowledgements that may wait for their workers: strangers cannot fill the primary's memory.
const EARLY_MAX: usize = 64;
impl Hub {
    pub(super) fn noticed(&mut self, worker: WorkerId, notice: Notice) {
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

    /// A program that was given its listeners may say so before it has loaded (gunicorn does): where nothing but its word is
    /// asked for, it is enough; else it is to be seen accepting connections, too.
    fn says_ready(&mut self, cell: &Cell) {
        cell.set_word();
        match cell.readiness {
            Readiness::Auto if cell.adoption == Adoption::Activation => {}
            Readiness::Auto | Readiness::Notify => self.proves(cell.id),
            Readiness::Listen | Readiness::Http(_) | Readiness::Exec => {}
        }
    }

    /// A hung worker is ended by ABRT, so that it can leave a trace of where it hung, or else by force.
    pub(super) fn silent_too_long(&mut self, cell: &Cell, times: u32) {
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
    pub(super) fn acknowledged(&mut self, pid: Pid) {
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
            let acks = Acks::start(self.mailbox(), path)?;
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
    fn start(mailbox: Mailbox, path: &Path) -> io::Result<Self> {
        // What a primary left there that was killed is replaced.
        let (socket, file) = SocketPlace::find(path)?.listen(&PathOptions::default())?;
        let listener = UnixListener::from_std(net::UnixListener::from(socket))?;
        let task = tokio::spawn(sd_notify::take_acks(mailbox, listener));
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
