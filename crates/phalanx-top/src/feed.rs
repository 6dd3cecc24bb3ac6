//! What the app tells: its state at intervals, its events at once, what became of commands. An app that has ended, or does not
//! answer, is asked again.

use std::time::Duration;

use phalanx_control::api;
use phalanx_control::api::Status;
use phalanx_control::client::{Answer, App};
use phalanx_control::names::Name;
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::model::{Command, Effect, Figures, Input};

/// How long to wait before an app that was lost is looked for again.
const AGAIN: Duration = Duration::from_secs(1);

/// Nobody listens any more: `top` ends.
struct Unheard;

/// What asks an app, and carries commands out. All of it ends with this.
pub(crate) struct Feed {
    inputs: Sender<Input>,
    every: Duration,
    following: Option<(Name, JoinHandle<()>)>,
}

impl Feed {
    pub(crate) fn new(inputs: Sender<Input>, every: Duration) -> Self {
        Self {
            inputs,
            every,
            following: None,
        }
    }

    /// Tells of this app from now on, and of no other.
    pub(crate) fn follow(&mut self, name: Name) {
        self.stop();
        let inputs = self.inputs.clone();
        let task = tokio::spawn(follow(name.clone(), inputs, self.every));
        self.following = Some((name, task));
    }

    /// Does what the user wants. What comes of it is told.
    pub(crate) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Watch(name) => self.follow(name),
            Effect::Do(command) => {
                if let Some((name, _)) = &self.following {
                    let (name, inputs) = (name.clone(), self.inputs.clone());
                    tokio::spawn(async move {
                        let result = carry_out(&name, &command).await;
                        // Unheard it is done all the same.
                        drop(inputs.send(Input::Done(name, command, result)).await);
                    });
                }
            }
            Effect::Choose => {
                let inputs = self.inputs.clone();
                tokio::spawn(async move {
                    let apps = App::find_all().await;
                    let names = apps.into_iter().map(|app| app.name).collect();
                    drop(inputs.send(Input::Apps(names)).await);
                });
            }
            Effect::Quit => self.stop(),
        }
    }

    fn stop(&mut self) {
        if let Some((_, task)) = self.following.take() {
            task.abort();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn follow(name: Name, inputs: Sender<Input>, every: Duration) {
    loop {
        let Ok(lost) = hear(&name, &inputs, every).await else {
            return;
        };
        if inputs.send(Input::Lost(lost)).await.is_err() {
            return;
        }
        sleep_until(Instant::now() + AGAIN).await;
    }
}

/// Hears the app until it is lost. Returns why it is.
async fn hear(name: &Name, inputs: &Sender<Input>, every: Duration) -> Result<String, Unheard> {
    let found = App::find(Some(name)).await;
    let (app, mut events) = match found {
        Ok(app) => match app.events().await {
            Ok(events) => (app, events),
            Err(failure) => return Ok(failure.reason),
        },
        Err(failure) => return Ok(failure.reason),
    };
    let asking = ask(&app, inputs, every);
    let hearing = async {
        while let Some(event) = events.next().await {
            tell(inputs, Input::Event(event)).await?;
        }
        Ok(format!("{name} has ended, or closed the connection"))
    };
    tokio::select! {
        lost = asking => lost,
        lost = hearing => lost,
    }
}

/// Asks for the state again and again, until there is no answer. Returns why there is none.
async fn ask(app: &App, inputs: &Sender<Input>, every: Duration) -> Result<String, Unheard> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A primary of another version gives no figures: it is not asked again.
    let mut gives_figures = true;
    loop {
        ticks.tick().await;
        let status = match app.get(api::STATUS).await.map(serde_json::from_value) {
            Ok(Ok(status)) => status,
            Ok(Err(error)) => {
                return Ok(format!(
                    "what {} answers is not understood: {error}",
                    app.name
                ));
            }
            Err(failure) => return Ok(failure.reason),
        };
        let mut figures = None;
        if gives_figures {
            figures = app.get(Figures::PATH).await.ok().and_then(Figures::read);
            gives_figures = figures.is_some();
        }
        let status: Box<Status> = Box::new(status);
        tell(inputs, Input::Status(status, figures.map(Box::new))).await?;
    }
}

async fn tell(inputs: &Sender<Input>, input: Input) -> Result<(), Unheard> {
    inputs.send(input).await.map_err(|_| Unheard)
}

async fn carry_out(name: &Name, command: &Command) -> Result<Value, String> {
    let done: Answer = async {
        let app = App::find(Some(name)).await?;
        let (path, body) = request(command);
        app.post(path, &body).await
    }
    .await;
    done.map_err(|failure| failure.reason)
}

/// What the command is on the control socket.
fn request(command: &Command) -> (&'static str, Value) {
    match command {
        Command::Reload => (api::RELOAD, json!({})),
        Command::Canary => (api::RELOAD, json!({"canary": 1})),
        Command::Rollback => (api::ROLLBACK, json!({})),
        Command::ScaleUp => (api::SCALE, json!({"workers": "+1"})),
        Command::ScaleDown => (api::SCALE, json!({"workers": "-1"})),
        Command::StopWorker(worker) => (api::RECYCLE, json!({"workers": [worker]})),
        Command::Policy(policy) => (api::POLICY, json!({"policy": policy})),
    }
}
