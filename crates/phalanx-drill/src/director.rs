//! Does to the app what the plan says, one action after the other, and enters when each began and was complete.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use phalanx_sys::clock;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until, timeout};

use super::external;
use super::kill;
use super::plan::{Kind, Step};
use super::session::Session;
use phalanx_control::api::{
    Event, GetStatus, NumberOrText, Reload, Report, Scale, Status, What, WorkerState, WorkerStatus,
};
use phalanx_control::client::{App, Events};

/// How long a killed worker's successor may take.
const RESPAWN_LIMIT: Duration = Duration::from_mins(1);
/// How the app is reloaded.
#[derive(Clone, Debug)]
pub(super) enum Means {
    /// Over its control socket.
    Control(App),
    /// By a command of the user's; its effect is taken to last at least as long as `settle`.
    Command { command: String, settle: Duration },
}

/// Who carries the plan out.
pub(super) struct Director {
    pub(super) session: Arc<Session>,
    pub(super) means: Means,
    /// Connections by worker, as last seen in the status: its position and their number.
    pub(super) shares: BTreeMap<u32, (u32, u64)>,
    /// The next scale adds a worker.
    scales_up: bool,
}

impl Director {
    pub(super) fn new(session: Arc<Session>, means: Means) -> Self {
        Self {
            session,
            means,
            shares: BTreeMap::new(),
            scales_up: true,
        }
    }

    /// Carries the plan out, each step at its time or as soon as the one before is over.
    pub(super) async fn direct(&mut self, steps: &[Step]) {
        for step in steps {
            sleep_until(Instant::from_std(self.session.moment(step.at))).await;
            self.look_at_shares().await;
            let at = self.session.now();
            self.session.account().began(step.kind, step.number, at);
            let done = match step.kind {
                Kind::Reload => self.reload().await,
                Kind::Kill => self.kill(step.number).await,
                Kind::Scale => self.scale().await,
            };
            let at = self.session.now();
            self.session.account().ended(at, done.err());
        }
    }

    /// Notes how many connections each worker has accepted, where the primary knows.
    pub(super) async fn look_at_shares(&mut self) {
        // An app that does not answer is told by the next action.
        let Ok(status) = self.status().await else {
            return;
        };
        for worker in status.workers {
            if let Some(connections) = worker.connections {
                self.shares
                    .insert(worker.id.0, (worker.position.0, connections));
            }
        }
    }

    async fn status(&self) -> Result<Status, String> {
        let status = self.app()?.ask(&GetStatus {}).await;
        status.map_err(|failure| failure.reason)
    }

    fn app(&self) -> Result<&App, String> {
        match &self.means {
            Means::Control(app) => Ok(app),
            Means::Command { .. } => Err("the server has no control socket".to_owned()),
        }
    }

    async fn reload(&self) -> Result<(), String> {
        match &self.means {
            Means::Control(app) => {
                let reloaded = app.ask(&Reload::default()).await;
                reloaded.map(drop).map_err(|failure| failure.reason)
            }
            Means::Command { command, settle } => {
                let settled = Instant::from_std(clock::now() + *settle);
                external::run(command).await?;
                sleep_until(settled).await;
                Ok(())
            }
        }
    }

    /// One more, and next time one less.
    async fn scale(&mut self) -> Result<(), String> {
        let by = if self.scales_up { "+1" } else { "-1" };
        self.scales_up = !self.scales_up;
        let workers = NumberOrText::Text(by.to_owned());
        let scaled = self.app()?.ask(&Scale { workers }).await;
        scaled.map(drop).map_err(|failure| failure.reason)
    }

    /// Kills a worker that is ready, another position each time, and waits for the next one there.
    async fn kill(&self, number: u32) -> Result<(), String> {
        let events = self.app()?.events().await;
        let mut events = events.map_err(|failure| failure.reason)?;
        let status = self.status().await?;
        let ready: Vec<&WorkerStatus> = status
            .workers
            .iter()
            .filter(|worker| worker.state == WorkerState::Ready)
            .collect();
        let turn = usize::try_from(number).unwrap_or(0) % ready.len().max(1);
        let victim = ready.get(turn).ok_or("no worker is ready")?;
        let pid = victim.pid.ok_or("a worker without a pid")?;
        let session = Arc::clone(&self.session);
        let killed = spawn_blocking(move || kill::kill(pid, number, &session)).await;
        killed.map_err(|error| error.to_string())??;
        let position = victim.position.0;
        let replaced = timeout(RESPAWN_LIMIT, until_replaced(&mut events, position));
        match replaced.await {
            Ok(true) => Ok(()),
            Ok(false) => Err("the app ended".to_owned()),
            Err(_) => Err(format!("not replaced within {RESPAWN_LIMIT:?}")),
        }
    }
}

/// Waits until the position has a ready worker again. False if the stream of events ended before.
async fn until_replaced(events: &mut Events, position: u32) -> bool {
    while let Some(event) = events.next().await {
        let ready = What::Fleet(Report::Changed {
            position,
            to: WorkerState::Ready,
        });
        if Event::read(&event).is_some_and(|event| event.what == ready) {
            return true;
        }
    }
    false
}
