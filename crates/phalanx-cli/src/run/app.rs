//! One app from its first worker to its last: what it occupies, who follows it, and how it ended.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use phalanx::supervisor::{Control, Outcome as Ended, Supervisor, SupervisorOptions};
use phalanx::{Bind, StartError, StartFailureKind};
use phalanx_control::exit::Exit;
use phalanx_control::logs::Logs;
use phalanx_control::names::Name;
use phalanx_control::place::Place;
use phalanx_control::runtime_dirs::RuntimeDirs;
use phalanx_control::server;
use phalanx_sys::process;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::event_logger::{Asked, EventLogger};
use super::service::Service;
use super::watch::Watched;
use super::web_view::{WebView, end_of};
use super::{ANSWER_LIMIT, controls, metrics, revisions};
use crate::args::{ControlWay, Dispatch, RunArgs};
use crate::config::Live;
use crate::log::{Level, Log};
use crate::pid_file::PidFile;
use crate::report::{Failure, Outcome, with_causes};

/// An app that is being run.
pub(super) struct App {
    pub(super) args: RunArgs,
    pub(super) name: Name,
    pub(super) log: Log,
    /// The workers' last output, if any of it is kept.
    pub(super) logs: Option<Logs>,
    /// The description that it is run by, if it is one of a file.
    pub(super) live: Option<Arc<Live>>,
    pub(super) inherited: Vec<Bind>,
}

impl App {
    /// Runs it to its end.
    pub(super) async fn run(self, mut options: SupervisorOptions) -> Outcome {
        let (place, listener) = Place::take(&RuntimeDirs::here(), &self.name)?;
        let metrics = metrics::listen(self.args.metrics.metrics, &self.log).await?;
        let pid_file = self
            .args
            .pid_file
            .as_deref()
            .map(PidFile::create)
            .transpose()?;
        let web_view = WebView::open(&self.args.admin, &place)?;
        options.adopts_orphans = adopt_orphans();
        options.settings.ack_socket = Some(place.ack_socket());
        let (known, revise) =
            revisions::of(self.live.as_ref(), (&self.name, &self.inherited), &options);
        options.revise = revise;
        self.tell_start(&options);
        let watched = Watched::of(&self.args.watch, options.settings.cwd.as_deref());
        let (target, adopts) = (options.fleet.workers, options.adopts_orphans);
        let supervisor = Supervisor::start(options).map_err(|error| cannot_start(&error))?;
        supervisor
            .handle_signals()
            .map_err(|error| Failure::caused(Exit::Failed, "cannot handle signals", &error))?;
        let control = supervisor.control();
        let (end_server, server_ends) = oneshot::channel::<()>();
        // Nobody can have set it before.
        drop(known.set(control.clone()));
        let extras = self.extras(&control);
        let web_view = web_view.map(|view| view.serve(&control, extras.clone(), &self.log));
        let server = server::serve(listener, control.clone(), extras, async {
            // Its sender sends nothing: being dropped is the message.
            drop(server_ends.await);
        });
        let server = tokio::spawn(server);
        let metrics = metrics::Readers::start(metrics, &self.args.metrics, &control, &self.name);
        let asked = Asked {
            binds: self.args.bound.bind.clone(),
            publishes: self.args.bound.publish.clone(),
        };
        let mut event_logger = EventLogger::new(control.clone(), self.log.clone(), target, asked);
        let ended = alongside(supervisor.finished(), async {
            tokio::join!(
                event_logger.follow(),
                Service::new(&control, target).follow(),
                self.take_commands(&control, pid_file.as_ref()),
                self.reload_on_changes(watched, &control),
                reap_strangers(adopts)
            );
        });
        let ended = ended.await;
        event_logger.finish();
        if let Some(logs) = &self.logs {
            logs.close();
        }
        drop(end_server);
        // A client that does not take its answer does not hold up the end.
        let both = async { tokio::join!(server, end_of(web_view)) };
        drop(timeout(ANSWER_LIMIT, both).await);
        metrics.finish().await;
        drop(pid_file);
        drop(place);
        outcome(ended)
    }

    /// What the control plane serves besides the app itself.
    fn extras(&self, control: &Control) -> server::Extras {
        let mut extras = server::Extras::default();
        extras.compare = self.live.as_ref().map(|live| {
            let (live, control) = (Arc::clone(live), control.clone());
            Arc::new(move || live.differences(&control)) as server::Compare
        });
        extras.logs.clone_from(&self.logs);
        extras
    }

    /// Reloads the app whenever a watched file changes, if any is watched.
    async fn reload_on_changes(&self, watched: Option<Watched>, control: &Control) {
        if let Some(watched) = watched {
            watched.reload_on_changes(control, &self.log).await;
        }
    }

    fn tell_start(&self, options: &SupervisorOptions) {
        let pid = std::process::id();
        let workers = options.fleet.workers;
        let dispatch = match self.args.dispatch {
            Dispatch::Auto => "auto",
            Dispatch::Handoff => "handoff",
            Dispatch::Shared => "shared",
            Dispatch::Kernel => "kernel",
        };
        let text = format!(
            "{}: primary {pid}, {}, {}, dispatch {dispatch}",
            self.name,
            phalanx_control::level::counted(workers),
            options.policy
        );
        let fields = json!({
            "name": self.name.as_str(), "pid": pid, "workers": workers,
            "policy": options.policy, "dispatch": dispatch,
        });
        self.log.tell(Level::Info, "start", &text, fields);
    }

    /// Takes commands by the ways that were asked for.
    async fn take_commands(&self, control: &Control, pid_file: Option<&PidFile>) {
        let is_asked = |way| self.args.control.contains(&way);
        let from_stdin = async {
            if is_asked(ControlWay::Stdin) {
                controls::obey_stdin(control, &self.log).await;
            }
        };
        let from_pid_file = async {
            if let Some(pid_file) = pid_file.filter(|_| is_asked(ControlWay::PidFile)) {
                controls::obey_deletions(control, &self.log, pid_file).await;
            }
        };
        tokio::join!(from_stdin, from_pid_file);
    }
}

/// Runs `work` to its end, with `beside` as long as that takes.
async fn alongside<T>(work: impl Future<Output = T>, beside: impl Future<Output = ()>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        result = &mut work => return result,
        () = beside => {}
    }
    work.await
}

/// Has what workers leave behind adopted by this process, which ends it and starts nothing but workers.
fn adopt_orphans() -> bool {
    let adopts = process::adopt_orphans();
    if let Err(error) = &adopts {
        tracing::warn!(%error, "orphans of workers cannot be adopted");
    }
    adopts.is_ok()
}

/// Who adopts orphans, as PID 1 of a container does too, has to reap them.
async fn reap_strangers(adopts: bool) {
    if !adopts && std::process::id() != 1 {
        return;
    }
    match signal(SignalKind::child()) {
        Ok(mut children) => {
            while children.recv().await.is_some() {
                // The engine's own workers are left out, and this process starts no others.
                process::reap_strangers(|_| false);
            }
        }
        Err(error) => tracing::warn!(%error, "cannot reap orphans"),
    }
}

fn cannot_start(error: &phalanx::Error) -> Failure {
    let kind = if let phalanx::Error::Start(StartError::Program { source, .. }) = error {
        Some(source.kind())
    } else {
        None
    };
    let exit = if kind == Some(StartFailureKind::NotFound) {
        Exit::NotFound
    } else if kind == Some(StartFailureKind::NotExecutable) {
        Exit::NotExecutable
    } else {
        Exit::Failed
    };
    Failure::new(exit, with_causes(error))
}

fn outcome(ended: Ended) -> Outcome {
    match ended {
        Ended::Stopped => Ok(()),
        Ended::BootFailed { reason, last_lines } => {
            let mut failure =
                Failure::new(Exit::Failed, format!("no worker became ready: {reason}"));
            failure.last_lines = last_lines;
            Err(failure)
        }
        Ended::WorkersGone => Err(Failure::new(Exit::Failed, "all workers are gone")),
        _ => Err(Failure::new(
            Exit::Failed,
            "the app ended in a way that this version does not know",
        )),
    }
}
