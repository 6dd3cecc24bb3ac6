//! What the service manager is told of a program with a primary of its own (`sd_notify(3)`): it is up when a worker listens, by its
//! control socket. Without a service manager nothing of it happens.

use std::env;
use std::sync::Arc;
use std::time::Duration;

use phalanx_control::api::{GetStatus, Status, WorkerState};
use phalanx_control::client::App;
use phalanx_control::names::Name;
use sd_notify::NotifyState;

use super::service::Speaker;
use crate::report::Outcome;

/// How often the control socket is looked for while the program starts.
const LOOK: Duration = Duration::from_millis(100);

/// The service manager, if there is one.
pub(super) struct ServiceManager {
    speaker: Option<Arc<Speaker>>,
}

impl ServiceManager {
    /// Tells it from now on that this process lives, and once that the app of this name is up.
    pub(super) fn follow(name: &Name) -> Self {
        if env::var_os("NOTIFY_SOCKET").is_none() {
            return Self { speaker: None };
        }
        let speaker = match Speaker::start() {
            Ok(speaker) => Arc::new(speaker),
            Err(error) => {
                tracing::warn!(%error, "the service manager is told nothing");
                return Self { speaker: None };
            }
        };
        tokio::spawn(tell_up(name.clone(), Arc::clone(&speaker)));
        // As often as sd_watchdog_enabled(3) recommends.
        if let Some(limit) = sd_notify::watchdog_enabled() {
            tokio::spawn(ping(limit / 2, Arc::clone(&speaker)));
        }
        Self {
            speaker: Some(speaker),
        }
    }

    /// The program was asked to end.
    pub(super) fn stops(&self) {
        if let Some(speaker) = &self.speaker {
            speaker.tell(&[NotifyState::Stopping]);
        }
    }
}

async fn ping(period: Duration, speaker: Arc<Speaker>) {
    let mut pings = tokio::time::interval(period);
    loop {
        pings.tick().await;
        speaker.tell(&[NotifyState::Watchdog]);
    }
}

async fn tell_up(name: Name, speaker: Arc<Speaker>) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        looks.tick().await;
        // Its engine is not there yet, or was replaced meanwhile.
        if let Ok(true) = is_up(&name).await {
            let main_pid = NotifyState::MainPid(std::process::id());
            return speaker.tell(&[NotifyState::Ready, main_pid]);
        }
    }
}

/// Waits until a worker of the program listens. False if its engine ends before that.
async fn is_up(name: &Name) -> Outcome<bool> {
    let app = App::find(Some(name)).await?;
    // Before the first question, so that nothing happens between that and the first event.
    let mut events = app.events().await?;
    loop {
        if serves(&app.ask(&GetStatus {}).await?) {
            return Ok(true);
        }
        if events.next().await.is_none() {
            return Ok(false);
        }
        while events.next_arrived().is_some() {}
    }
}

/// Not all workers of such a program need to listen, so the first one that does decides.
fn serves(status: &Status) -> bool {
    let mut workers = status.workers.iter();
    workers.any(|worker| worker.state == WorkerState::Ready)
}
