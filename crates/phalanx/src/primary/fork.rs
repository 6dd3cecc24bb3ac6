//! Starting a worker, and the tasks that watch it to its end (`tasks/channel.rs`, `tasks/exit.rs` and others).

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use phalanx_core::ids::{Generation, Position, WorkerId};
use phalanx_sys::cgroup::Cgroup;
use phalanx_sys::channel::Identity;
use phalanx_sys::process::{self, Process};

use crate::error::{Error, Result, StartError};
use crate::primary::Cluster;
use crate::primary::cell::{Admission, Cell};
use crate::primary::release::inherited_fds::InheritedFds;
use crate::primary::release::launch::{Launch, Release};
use crate::primary::sockets::channel::Channel;
use crate::primary::state::inherited_fds;
use crate::primary::tasks::channel::{self, Socket};
use crate::primary::tasks::exit::{self, Watches};
use crate::primary::tasks::intercept;
use crate::primary::tasks::last_lines::LastLines;
use crate::primary::tasks::listen_pid;
use crate::primary::tasks::observe;
use crate::primary::tasks::output::{LinesSink, Outlet};
use crate::primary::tasks::sd_notify;
use crate::primary::tasks::unseen;
use crate::primary::worker::Worker;
use crate::settings::Adoption;
use crate::watched::watch;

/// A worker to be started.
pub(crate) struct Fork<'a> {
    pub(crate) worker: WorkerId,
    pub(crate) position: Position,
    pub(crate) generation: Generation,
    pub(crate) release: &'a Release,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) sink: Option<LinesSink>,
    pub(crate) last: LastLines,
    /// Whether it gets connections before [`Cluster::admit`].
    pub(crate) admission: Admission,
}

impl Cluster {
    /// Starts a worker and the tasks that watch it. Waits until its program is executed, which may take its time: the
    /// fleet's are started where blocking is allowed. Either it is registered when this returns, or it is not
    /// there.
    pub(crate) fn start(&self, fork: &Fork<'_>) -> Result<Worker> {
        self.shared.keep_time();
        let worker = fork.worker;
        let failed = |act| {
            move |source: io::Error| Error::Worker {
                act,
                worker,
                source,
            }
        };
        let adoption = fork.release.settings().adoption;
        let (socket, theirs) = match make_channel(adoption).map_err(failed("make the channel"))? {
            Some((socket, theirs, peer)) => (Some((socket, peer)), Some(theirs)),
            None => (None, None),
        };
        let (want_out, want_err) = fork.release.pipes();
        let (out_read, out_write) = pipe(want_out).map_err(failed("make the output pipe"))?;
        let (err_read, err_write) = pipe(want_err).map_err(failed("make the output pipe"))?;
        let (inspector, preload, inherited) = self.provide(fork)?;
        let cgroup = self.shared.trees.make_cgroup(worker);
        let plan = fork.release.plan(Launch {
            worker: fork.worker,
            position: fork.position,
            env: &fork.env,
            channel: theirs,
            inherited: &inherited,
            preload,
            stdout: out_write,
            stderr: err_write,
            inspector,
            mark: self.shared.trees.variable(),
            cgroup: cgroup.directory(),
        });
        let inspects = fork.release.inspector(inspector);
        let process = process::spawn(plan).map_err(|source| {
            self.free_slots(fork, &inherited);
            StartError::of(worker, source)
        })?;
        let outlet = Outlet {
            worker,
            position: fork.position,
            generation: fork.generation,
            sink: fork.sink.clone(),
            last: fork.last.clone(),
        };
        // The program begins meanwhile; it is not heard before it is registered.
        self.load_steering();
        let cgroup = cgroup.of(process.pid());
        match Watches::of(&process, [out_read, err_read], &outlet) {
            Ok(watches) => {
                let means = (socket, inherited, inspects, cgroup);
                Ok(self.enter(fork, process, watches, means))
            }
            Err(error) => {
                // Nobody would ever know of it.
                process.end();
                self.free_slots(fork, &inherited);
                Err(failed("watch the process")(error))
            }
        }
    }

    /// The worker was not started: its slots are nobody's.
    fn free_slots(&self, fork: &Fork<'_>, inherited: &InheritedFds) {
        let mut hub = self.shared.hub();
        hub.take_back(fork.worker, fork.position, inherited);
    }

    /// Registers a process that can be watched to its end. What fails from now on ends it, and its exit
    /// is told.
    fn enter(
        &self,
        fork: &Fork<'_>,
        mut process: Process,
        watches: Watches,
        (socket, mut inherited, inspects, cgroup): Means,
    ) -> Worker {
        let interception = process.take_interception();
        let settings = fork.release.settings();
        let cell = Cell::new(fork.worker, fork.position, process, settings);
        let cell = cell.admission(fork.admission).inspector(inspects);
        let cell = cell.in_cgroup(cgroup);
        let cell = Arc::new(cell.last_lines(fork.last.clone()));
        let notify = inherited.notify.take();
        self.shared.hub().enrol(&cell, fork.generation, settings);
        self.record(&cell, fork, socket, &inherited);
        let (shared, mailbox) = (Arc::downgrade(&self.shared), self.mailbox());
        let trees = Arc::clone(&self.shared.trees);
        tokio::spawn(exit::follow(
            mailbox.clone(),
            trees,
            Arc::clone(&cell),
            watches,
        ));
        let heard = notify.map_or(Ok(()), |notify| {
            sd_notify::follow(mailbox.clone(), Arc::clone(&cell), notify)
        });
        let intercepted = interception.map_or(Ok(()), |interception| {
            intercept::follow(mailbox.clone(), Arc::clone(&cell), interception)
        });
        if let Err(error) = heard.and(intercepted) {
            tracing::error!(worker = cell.id.0, %error, "cannot hear what it says, and kills it");
            if let Err(error) = cell.kill_group() {
                tracing::error!(worker = cell.id.0, %error, "cannot be killed");
            }
        }
        observe::start(&mailbox, &cell, inherited.sockets());
        self.shared.trees.has_changed(fork.worker);
        listen_pid::watch(mailbox.clone(), &cell);
        unseen::watch(mailbox, &cell);
        Worker { cell, shared }
    }

    /// What the primary has for a new worker: the number of its inspector, the script
    /// to be loaded before its own, and the descriptors that it inherits.
    fn provide(&self, fork: &Fork<'_>) -> Result<(u16, Option<PathBuf>, InheritedFds)> {
        let settings = fork.release.settings();
        if settings.adoption == Adoption::Activation {
            self.prepare_steering();
        }
        let notify = self.prepare_sd_notify(fork.worker, settings)?;
        let preloads = fork.release.preloads();
        let preload = preloads.then(|| self.shared.places.preload_script());
        let mut hub = self.shared.hub();
        let inherited = hub.prepare_inherited_fds(fork.worker, fork.position, settings, notify)?;
        Ok((hub.next_inspector(), preload.flatten(), inherited))
    }

    /// Registers a started worker. One without a channel is online by its program running:
    /// the spawn has seen it executed.
    fn record(
        &self,
        cell: &Arc<Cell>,
        fork: &Fork<'_>,
        socket: Option<(Socket, Identity)>,
        inherited: &InheritedFds,
    ) {
        let (held, generation) = (inherited_fds::held(inherited).collect(), fork.generation);
        let Some((socket, peer)) = socket else {
            let mut hub = self.shared.hub();
            hub.adopt(Arc::clone(cell), generation, None, held);
            hub.online(cell.id);
            return hub.claim_early_ack(cell);
        };
        let channel = Channel::new(
            Arc::clone(&socket),
            peer,
            fork.release.settings().serialization,
        );
        let notices = (
            Arc::clone(&channel.blocked_notice),
            Arc::clone(&channel.unread),
        );
        self.shared
            .hub()
            .adopt(Arc::clone(cell), generation, Some(channel), held);
        let mailbox = self.mailbox();
        tokio::spawn(channel::follow(mailbox, cell.id, socket, notices));
    }
}

/// What a started worker has: its channel, the descriptors that it is given, its inspector and its control group.
type Means = (
    Option<(Socket, Identity)>,
    InheritedFds,
    Option<u16>,
    Option<Cgroup>,
);

/// The two ends of a channel, and which socket the second is, for workers that have one.
fn make_channel(adoption: Adoption) -> io::Result<Option<(Socket, OwnedFd, Identity)>> {
    match adoption {
        Adoption::Channel => {
            let (ours, theirs) = phalanx_sys::channel::pair()?;
            let peer = Identity::of(theirs.as_fd())?;
            Ok(Some((Arc::new(watch(ours)?), theirs, peer)))
        }
        Adoption::Activation | Adoption::Intercept | Adoption::None => Ok(None),
    }
}

type Pipe = (Option<OwnedFd>, Option<OwnedFd>);

fn pipe(wanted: bool) -> io::Result<Pipe> {
    if !wanted {
        return Ok((None, None));
    }
    let (read, write) = io::pipe()?;
    let read: OwnedFd = read.into();
    phalanx_sys::socket::set_nonblocking(read.as_fd())?;
    Ok((Some(read), Some(write.into())))
}
