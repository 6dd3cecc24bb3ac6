//! What the app tells: its state at intervals, its events at once, what became of commands. An app that has ended, or does not
//! answer, is asked again.

use std::convert::Infallible;
use std::time::Duration;

use phalanx_control::api::{
    ChangePolicy, GetStatus, NumberOrText, Recycle, Reload, Rollback, Scale,
};
use phalanx_control::client::App;
use phalanx_control::failure::Outcome;
use phalanx_control::names::Name;
use phalanx_core::fleet::RecycleTarget;
use phalanx_core::ids::WorkerId;
use serde_json::Value;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::model::{Command, Effect, Figures, GetFigures, Input};

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

/// Hears the app until its events end. Returns why they have.
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
        unheard = asking => match unheard? {},
        lost = hearing => lost,
    }
}

/// Asks for the state again and again. An app that does not answer is lost until it does; as long as it has not ended, its
/// events are heard all the same.
async fn ask(app: &App, inputs: &Sender<Input>, every: Duration) -> Result<Infallible, Unheard> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // A primary of another version gives no figures: it is not asked again.
    let mut gives_figures = true;
    loop {
        ticks.tick().await;
        let status = match app.ask(&GetStatus {}).await {
            Ok(status) => Box::new(status),
            Err(failure) => {
                tell(inputs, Input::Lost(failure.reason)).await?;
                sleep_until(Instant::now() + AGAIN).await;
                continue;
            }
        };
        let mut figures = None;
        if gives_figures {
            figures = app.ask(&GetFigures {}).await.ok().and_then(Figures::read);
            gives_figures = figures.is_some();
        }
        tell(inputs, Input::Status(status, figures.map(Box::new))).await?;
    }
}

async fn tell(inputs: &Sender<Input>, input: Input) -> Result<(), Unheard> {
    inputs.send(input).await.map_err(|_| Unheard)
}

async fn carry_out(name: &Name, command: &Command) -> Result<Value, String> {
    let done = async {
        let app = App::find(Some(name)).await?;
        carry_out_on(&app, command).await
    };
    done.await.map_err(|failure| failure.reason)
}

/// Does the command on the control socket.
async fn carry_out_on(app: &App, command: &Command) -> Outcome<Value> {
    let scale = async |by: &str| {
        let workers = NumberOrText::Text(by.to_owned());
        app.ask_for_json(&Scale { workers }).await
    };
    match command {
        Command::Reload => app.ask_for_json(&Reload::default()).await,
        Command::Canary => {
            let canary = Some(NumberOrText::Number(1));
            let canary = Reload {
                canary,
                ..Reload::default()
            };
            app.ask_for_json(&canary).await
        }
        Command::Rollback => app.ask_for_json(&Rollback {}).await,
        Command::ScaleUp => scale("+1").await,
        Command::ScaleDown => scale("-1").await,
        Command::StopWorker(worker) => {
            let target = RecycleTarget::Worker(WorkerId(*worker));
            app.ask_for_json(&Recycle::these([target])).await
        }
        Command::Policy(policy) => {
            let policy = ChangePolicy {
                policy: policy.to_string(),
                weights: None,
            };
            app.ask_for_json(&policy).await
        }
    }
}
