//! phalanx as a service of systemd: what it was started with, and what it tells the service manager
//! (`sd_listen_fds(3)`, `sd_notify(3)`). Without a service manager nothing of it happens.

use std::collections::HashSet;
use std::env;
use std::io;
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use phalanx::fleet::{Report, WorkerState};
use phalanx::supervisor::Control;
use phalanx::{Bind, Event, Events, WorkerId};
use sd_notify::NotifyState;

use crate::report::{Failure, Outcome};
use phalanx_control::exit::Exit;
use phalanx_control::level::counted;

/// `SD_LISTEN_FDS_START`.
const FIRST_NUMBER: i32 = 3;

/// What may wait for a service manager that does not listen just now.
const WORDS_MAX: usize = 64;

/// The listeners that this process was started with.
pub(super) fn listeners() -> Outcome<Vec<Bind>> {
    let number = |name| {
        env::var(name)
            .ok()
            .and_then(|value| value.parse::<u32>().ok())
    };
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':').filter(|name| !name.is_empty());
    let numbers = (FIRST_NUMBER..).zip(0..count).map(|(number, _)| number);
    let take = |number| {
        Bind::inherited(number, names.next()).map_err(|error| {
            let what = format!("cannot listen on descriptor {number}, given by LISTEN_FDS");
            Failure::caused(Exit::Failed, &what, &error)
        })
    };
    numbers.map(take).collect()
}

/// Tells the service manager what happens in the app.
pub(super) struct Service {
    events: Events,
    target: u32,
    ready: HashSet<WorkerId>,
    /// All workers were ready once: the service is up.
    is_up: bool,
    /// The text that was told last.
    status: String,
}

impl Service {
    /// What happens from now on is told when [`Service::follow`] runs.
    pub(super) fn new(control: &Control, target: u32) -> Self {
        Self {
            events: control.life_events(),
            target,
            ready: HashSet::new(),
            is_up: false,
            status: String::new(),
        }
    }

    /// Tells what happens until the app is gone. May be dropped at any time.
    pub(super) async fn follow(mut self) {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return;
        }
        match Speaker::start() {
            Ok(speaker) => self.speak(&speaker).await,
            Err(error) => tracing::warn!(%error, "the service manager is told nothing"),
        }
    }

    async fn speak(&mut self, speaker: &Speaker) {
        // As often as sd_watchdog_enabled(3) recommends.
        let period = sd_notify::watchdog_enabled().map(|limit| limit / 2);
        let mut pings = period.map(tokio::time::interval);
        loop {
            let ping = async {
                match pings.as_mut() {
                    Some(pings) => drop(pings.tick().await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.events.next() => match event {
                    Some(Event::Fleet(report)) => self.take(&report, speaker),
                    Some(_) => {}
                    None => return,
                },
                () = ping => speaker.tell(&[NotifyState::Watchdog]),
            }
        }
    }

    fn take(&mut self, report: &Report, speaker: &Speaker) {
        match report {
            Report::Changed {
                worker, from, to, ..
            } => {
                if *to == WorkerState::Ready {
                    self.ready.insert(*worker);
                } else if *from == Some(WorkerState::Ready) {
                    self.ready.remove(worker);
                }
                self.tell_count(speaker);
            }
            Report::ScaleStarted { to, .. } | Report::Resizes { to, .. } => self.target = *to,
            Report::RolloutStarted { .. } => self.tell_reloading(speaker),
            Report::RolloutFinished { .. }
            | Report::RolledBack { .. }
            | Report::RollbackAbandoned { .. } => speaker.tell(&[NotifyState::Ready]),
            Report::StopStarted { .. } => speaker.tell(&[NotifyState::Stopping]),
            Report::RespawnScheduled { .. }
            | Report::CrashLoopEntered { .. }
            | Report::CrashLoopLeft { .. }
            | Report::BootOver
            | Report::RolloutProgress { .. }
            | Report::CanaryStarted { .. }
            | Report::CanaryProgress { .. }
            | Report::CanaryPassed { .. }
            | Report::RolloutCancelled { .. }
            | Report::RolloutFailed { .. }
            | Report::ScaleProgress { .. }
            | Report::FewerListeners { .. }
            | Report::StopProgress { .. } => {}
        }
    }

    fn tell_count(&mut self, speaker: &Speaker) {
        let count = self.ready.len();
        let status = format!("{count} of {} ready", counted(self.target));
        if !self.is_up && u32::try_from(count) == Ok(self.target) {
            self.is_up = true;
            let main_pid = NotifyState::MainPid(std::process::id());
            speaker.tell(&[NotifyState::Ready, main_pid]);
        }
        if self.status != status {
            speaker.tell(&[NotifyState::Status(&status)]);
            self.status = status;
        }
    }

    fn tell_reloading(&self, speaker: &Speaker) {
        // Before it is up, the service is starting, and that is not over.
        if !self.is_up {
            return;
        }
        match NotifyState::monotonic_usec_now() {
            Ok(now) => speaker.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "the service manager is not told of the reload"),
        }
    }
}

/// Speaks to the service manager from a thread of its own: its socket may be full, and the primary never waits.
pub(super) struct Speaker {
    words: SyncSender<String>,
}

impl Speaker {
    pub(super) fn start() -> io::Result<Self> {
        let (words, spoken) = mpsc::sync_channel::<String>(WORDS_MAX);
        let speak = move || {
            for text in spoken {
                if let Err(error) = sd_notify::notify(&[NotifyState::Custom(&text)]) {
                    tracing::warn!(%error, "the service manager cannot be told");
                }
            }
        };
        let thread = thread::Builder::new().name("phalanx-notify".to_owned());
        thread.spawn(speak)?;
        Ok(Self { words })
    }

    pub(super) fn tell(&self, state: &[NotifyState<'_>]) {
        let lines: Vec<_> = state.iter().map(ToString::to_string).collect();
        if self.words.try_send(lines.join("\n")).is_err() {
            tracing::warn!("the service manager does not listen");
        }
    }
}
