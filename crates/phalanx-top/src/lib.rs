//! `phalanx top`: an app, live, in a terminal.
//!
//! Pure are `model` (what is known, what a key means) and `draw` (how it looks): both take what they need, time too, as arguments.
//! `feed` asks the app and hears its events, `screen` has the terminal, `keys` turns its input into ours. What workers
//! chose themselves is escaped in `model`, where it comes in: nothing behind that sees a control character of theirs.

mod args;
mod draw;
mod feed;
mod keys;
mod model;
mod screen;

pub use args::TopArgs;

use std::io::{self, IsTerminal};
use std::time::Duration;

use futures_util::StreamExt;
use phalanx_control::client::App;
use phalanx_control::exit::Exit;
use phalanx_control::failure::{Failure, Outcome};
use phalanx_control::names::Name;
use phalanx_core::level::now_millis;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use draw::Look;
use feed::Feed;
use keys::Key;
use model::{Effect, Input, Model};
use screen::Screen;

/// Frames are at least this far apart: a flood of events floods no slow line.
const FRAME: Duration = Duration::from_millis(100);
/// What may wait to be shown; more waits in the primary, which bounds it.
const INPUTS_MAX: usize = 256;

/// Shows an app until the user has seen enough.
///
/// # Errors
///
/// Fails if there is no terminal, or no such app when it begins.
pub async fn top(args: TopArgs) -> Outcome {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let reason = "top draws on a terminal, and standard input or output is none; \
                      `phalanx status` and `phalanx events` print the same";
        return Err(Failure::new(Exit::Usage, reason));
    }
    let look = Look::of_environment();
    let apps = first_apps(args.name()).await?;
    let screen = Screen::open();
    let mut screen = screen.map_err(|error| broken(&error))?;
    let shown = watch(&mut screen, Model::new(apps), look, args.interval).await;
    // The terminal is given back before anything is said.
    drop(screen);
    shown.map_err(|error| broken(&error))
}

/// The app that is meant, or those to choose from.
async fn first_apps(name: Option<&Name>) -> Outcome<Vec<Name>> {
    if name.is_none() {
        let apps = App::find_all().await;
        if apps.len() > 1 {
            return Ok(apps.into_iter().map(|app| app.name).collect());
        }
    }
    Ok(vec![App::find(name).await?.name])
}

fn broken(error: &io::Error) -> Failure {
    Failure::caused(Exit::Failed, "cannot use the terminal", error)
}

/// Hears, thinks and draws, until the user leaves or the terminal is gone.
async fn watch(
    screen: &mut Screen,
    mut model: Model,
    look: Look,
    every: Duration,
) -> io::Result<()> {
    let (inputs, mut heard) = mpsc::channel(INPUTS_MAX);
    let mut feed = Feed::new(inputs, every);
    if let Some(name) = model.watched() {
        feed.follow(name.clone());
    }
    let mut keys = Screen::keys();
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_frame = Instant::now();
    let mut is_drawn = false;
    loop {
        let input = tokio::select! {
            biased;
            key = keys.next() => match key {
                Some(Ok(event)) => Key::of(&event).map_or(Input::Nothing, Input::Key),
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            },
            () = sleep_until(next_frame), if !is_drawn => {
                screen.draw(|frame| draw::draw(frame, &model, look))?;
                next_frame = Instant::now() + FRAME;
                is_drawn = true;
                continue;
            }
            // INVARIANT: the feed holds a sender as long as it lives.
            Some(input) = heard.recv() => input,
            _ = seconds.tick() => Input::Nothing,
            () = screen.ended() => return Ok(()),
        };
        is_drawn = false;
        match model.take(input, now_millis()) {
            Some(Effect::Quit) => return Ok(()),
            Some(effect) => feed.carry_out(effect),
            None => {}
        }
    }
}
