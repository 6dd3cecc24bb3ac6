//! The control socket of an app, and what happens to it on the terminal: what the `phalanx` command gives to the
//! apps that it runs, for programs of the library.

use std::ffi::OsStr;
use std::future::Future;
use std::io::{self, Write};
use std::time::Duration;

use futures_util::{Stream, stream};
use phalanx_control::api::{self, Probe, Snapshot, Status};
use phalanx_control::app::{App, NotSent};
use phalanx_control::exit::Exit;
use phalanx_control::failure::{Outcome, with_causes};
use phalanx_control::names::Name;
use phalanx_control::place::Place;
use phalanx_control::runtime_dirs::RuntimeDirs;
use phalanx_control::server::{self, Extras};
use phalanx_core::command::CommandError;
use phalanx_core::exposition::Format;
use phalanx_core::fleet::{Done, RecycleTarget, ReloadPlan, ScaleTo};
use phalanx_core::ids::WorkerId;
use phalanx_core::level::Level;
use phalanx_core::policy::{PolicyName, Weights};
use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Control;
use crate::describe;
use crate::error::MessageError;
use crate::primary::{Streams, clock};
use crate::subscribers::Events;

/// How long a client may take to read its last answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

impl App for Control {
    fn status(&self) -> Status {
        Control::status(self)
    }

    fn snapshot(&self) -> impl Future<Output = Snapshot> + Send {
        Control::snapshot(self)
    }

    fn metrics(&self, format: Format) -> impl Future<Output = String> + Send {
        Control::metrics(self, format)
    }

    fn probe(&self, probe: Probe) -> Result<String, String> {
        Control::probe(self, probe)
    }

    fn reload(&self, plan: ReloadPlan) -> impl Future<Output = Result<Done, CommandError>> + Send {
        self.reload_by(plan)
    }

    fn rollback(&self) -> impl Future<Output = Result<Done, CommandError>> + Send {
        Control::rollback(self)
    }

    fn scale(&self, to: ScaleTo) -> impl Future<Output = Result<Done, CommandError>> + Send {
        Control::scale(self, to)
    }

    fn recycle(
        &self,
        target: RecycleTarget,
    ) -> impl Future<Output = Result<Done, CommandError>> + Send {
        Control::recycle(self, target)
    }

    async fn rebalance(&self, streams: bool) -> Result<api::Rebalanced, String> {
        let streams = if streams { Streams::End } else { Streams::Stay };
        let done = Control::rebalance(self, streams).await;
        let done = done.map_err(|error| error.to_string())?;
        Ok(api::Rebalanced {
            above_before: done.above_before,
            above_after: done.above_after,
            open: done.open,
        })
    }

    async fn stop(&self, fast: bool) -> Result<(), CommandError> {
        if fast {
            self.stop_fast().await
        } else {
            Control::stop(self).await
        }
    }

    fn change_policy(&self, policy: PolicyName, weights: Weights) -> Result<(), String> {
        Control::change_policy(self, policy, weights).map_err(|error| with_causes(&error))
    }

    fn send(&self, message: &Value, to: Option<WorkerId>) -> Result<usize, NotSent> {
        Control::send(self, message, to).map_err(|error| {
            let reason = with_causes(&error);
            if matches!(error, MessageError::NoSuchWorker(_)) {
                NotSent::NoSuchWorker(reason)
            } else {
                NotSent::Failed(reason)
            }
        })
    }

    fn events(&self) -> impl Stream<Item = String> + Send + 'static {
        stream::unfold(Control::events(self), async |mut events: Events| {
            let event = events.next().await?;
            Some((describe::to_json_text(&event), events))
        })
    }
}

/// A control socket that is served.
struct Served {
    /// Its end is the server's.
    end: oneshot::Sender<()>,
    server: JoinHandle<io::Result<()>>,
    _place: Place,
}

impl Served {
    /// Serves the control socket of an app. Without a place for it the app runs without; the log says why.
    fn start(control: &Control) -> Option<Self> {
        match take_place(control.name()) {
            Ok((place, listener)) => {
                let (end, ended) = oneshot::channel();
                let until = async { drop(ended.await) };
                let server = tokio::spawn(server::serve(
                    listener,
                    control.clone(),
                    Extras::default(),
                    until,
                ));
                Some(Self {
                    end,
                    server,
                    _place: place,
                })
            }
            Err(failure) => {
                tracing::warn!("no control socket: {}", failure.reason);
                None
            }
        }
    }

    /// Gives the last answers.
    async fn finish(self) {
        drop(self.end);
        // A client that does not take its answer does not hold up the end.
        let _is_answered = clock::within(ANSWER_LIMIT, self.server).await;
    }
}

/// What runs beside a supervised app.
pub(crate) struct Beside {
    served: Option<Served>,
    told: Option<JoinHandle<()>>,
}

impl Beside {
    pub(crate) fn start(control: &Control, serve: bool, telling: bool) -> Self {
        Self {
            told: telling.then(|| tokio::spawn(tell(control.life_events()))),
            served: if serve { Served::start(control) } else { None },
        }
    }

    /// The app has ended: the last is told and answered.
    pub(crate) async fn finish(self) {
        if let Some(told) = self.told {
            let _is_told = clock::within(ANSWER_LIMIT, told).await;
        }
        if let Some(served) = self.served {
            served.finish().await;
        }
    }
}

/// The app is found by its name; where another app of that name runs, by its name and pid.
fn take_place(name: &str) -> Outcome<(Place, UnixListener)> {
    let runtime_dirs = RuntimeDirs::here();
    match Place::take(&runtime_dirs, &Name::of_program(OsStr::new(name))) {
        Err(failure) if failure.exit == Exit::Taken => {
            let another = format!("{name}-{}", std::process::id());
            Place::take(&runtime_dirs, &Name::of_program(OsStr::new(&another)))
        }
        taken => taken,
    }
}

/// Tells on standard error what happens to the app: workers that die and are replaced, reloads, scaling, the stop.
/// Never returns before the app has ended.
async fn tell(mut events: Events) {
    while let Some(event) = events.next().await {
        let (level, text) = describe::describe(&event);
        if level <= Level::Info {
            // Where standard error is closed there is nobody left to tell.
            drop(writeln!(io::stderr(), "phalanx: {text}"));
        }
    }
}
