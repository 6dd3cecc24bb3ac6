//! What `top` knows of an app, and what a key means now. Pure: time is an argument.
//!
//! INVARIANT: everything here is bounded: the log by lines, histories by samples, positions by the workers that an app may have.

mod acts;
mod figures;
mod history;
mod log;
mod rollout;

use std::collections::BTreeMap;

use phalanx_control::api::{Status, WorkerStatus};
use phalanx_control::names::Name;
use phalanx_control::show;
use serde_json::Value;

pub(crate) use acts::{Command, Dialog, Notice, POLICIES};
pub(crate) use figures::{Figures, GetFigures, PositionFigures};
pub(crate) use history::History;
pub(crate) use log::{Line, Log};
pub(crate) use rollout::{Rollout, Side, Stage};

use crate::keys::Key;

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Input {
    /// The app's state, with its figures where it gives some.
    Status(Box<Status>, Option<Box<Figures>>),
    /// An event of the app.
    Event(Value),
    /// The app has ended, or does not answer: why.
    Lost(String),
    /// What came of a command to that app.
    Done(Name, Command, Result<Value, String>),
    /// The apps that run.
    Apps(Vec<Name>),
    /// A key.
    Key(Key),
    /// Time has passed, or the terminal has another size.
    Nothing,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Effect {
    /// A command to the app.
    Do(Command),
    /// Another app is to be watched.
    Watch(Name),
    /// The running apps are to be told.
    Choose,
    /// The end.
    Quit,
}

/// What is known of a position.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Requests a second where they are known, else connections.
    pub(crate) rate: History,
    /// Why its worker was replaced last.
    pub(crate) why: Option<String>,
}

/// All that is known.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) app: Option<Name>,
    pub(crate) now: u64,
    pub(crate) status: Option<Box<Status>>,
    pub(crate) figures: Option<Box<Figures>>,
    /// When the status came.
    pub(crate) heard_at: u64,
    /// Why nothing is heard, and since when.
    pub(crate) lost: Option<(String, u64)>,
    pub(crate) seen: BTreeMap<u32, Seen>,
    /// Requests a second of all positions where they are known, else connections.
    pub(crate) rate: History,
    pub(crate) log: Log,
    pub(crate) rollout: Option<Rollout>,
    pub(crate) dialog: Option<Dialog>,
    pub(crate) notice: Option<Notice>,
    /// The id of the chosen worker.
    pub(crate) chosen: Option<u32>,
    /// Commands that are not carried out yet.
    pub(crate) under_way: Vec<Command>,
}

impl Model {
    /// With one app it is watched, with several one is to be chosen.
    pub(crate) fn new(mut apps: Vec<Name>) -> Self {
        let only = if apps.len() == 1 { apps.pop() } else { None };
        Self {
            dialog: only.is_none().then_some(Dialog::Apps(apps, 0)),
            app: only,
            now: 0,
            status: None,
            figures: None,
            heard_at: 0,
            lost: None,
            seen: BTreeMap::new(),
            rate: History::default(),
            log: Log::default(),
            rollout: None,
            notice: None,
            chosen: None,
            under_way: Vec::new(),
        }
    }

    /// The app that is watched.
    pub(crate) fn watched(&self) -> Option<&Name> {
        self.app.as_ref()
    }

    /// Takes what happened at `now`, in milliseconds since the Unix epoch.
    pub(crate) fn take(&mut self, input: Input, now: u64) -> Option<Effect> {
        self.now = now;
        match input {
            Input::Status(status, figures) => self.take_status(status, figures),
            Input::Event(event) => self.take_event(&event),
            Input::Lost(reason) => self.take_loss(&reason),
            Input::Done(name, command, result) => {
                if self.app.as_ref() == Some(&name) {
                    self.take_result(&command, result);
                }
            }
            Input::Apps(names) => {
                let chosen = names
                    .iter()
                    .position(|name| self.app.as_ref() == Some(name));
                self.dialog = Some(Dialog::Apps(names, chosen.unwrap_or(0)));
            }
            Input::Key(key) => return self.press(key),
            Input::Nothing => {}
        }
        None
    }

    fn take_status(&mut self, status: Box<Status>, figures: Option<Box<Figures>>) {
        let rates = self.rates(&status, figures.as_deref());
        for (&position, &rate) in &rates {
            self.seen.entry(position).or_default().rate.push(rate);
        }
        if !rates.is_empty() {
            self.rate.push(rates.values().sum());
        }
        let is_there = |id: u32| status.workers.iter().any(|worker| worker.id.0 == id);
        if !self.chosen.is_some_and(is_there) {
            self.chosen = status.workers.first().map(|worker| worker.id.0);
        }
        if !status.reloading {
            // One that ended while nothing was heard.
            self.rollout = self.rollout.take().filter(Rollout::is_over);
        }
        self.seen.retain(|position, _| {
            let is_theirs = |worker: &WorkerStatus| worker.position.0 == *position;
            *position < status.target || status.workers.iter().any(is_theirs)
        });
        self.lost = None;
        self.heard_at = self.now;
        self.status = Some(status);
        self.figures = figures;
    }

    /// Requests a second by position where they are known, else connections; nothing of the first status.
    fn rates(&self, status: &Status, figures: Option<&Figures>) -> BTreeMap<u32, f64> {
        let mut rates = BTreeMap::new();
        if let Some(figures) = figures {
            let known = figures.positions.iter();
            rates.extend(known.filter_map(|one| Some((one.position, one.rate()?))));
        }
        let Some(before) = self.status.as_ref().filter(|_| self.lost.is_none()) else {
            return rates;
        };
        let seconds = history::seconds(self.now.saturating_sub(self.heard_at));
        for worker in &status.workers {
            let Some(count) = worker.connections else {
                continue;
            };
            if rates_of_figures(figures, worker.position.0) {
                continue;
            }
            let same = before.workers.iter().find(|one| one.id == worker.id);
            let base = same.and_then(|one| one.connections).unwrap_or(0);
            let rate = history::float(count.saturating_sub(base)) / seconds;
            *rates.entry(worker.position.0).or_insert(0.0) += rate;
        }
        rates
    }

    fn take_event(&mut self, event: &Value) {
        self.log.push(event);
        self.rollout = Rollout::after(self.rollout.take(), event, self.now);
        if event["report"] == "changed" {
            let why = &event["reason"]["why"];
            let is_end = why.as_str().is_some_and(|why| {
                [
                    "crashed",
                    "failed_to_start",
                    "not_ready_in_time",
                    "recycle",
                    "own_wish",
                ]
                .contains(&why)
                    || why == "channel_lost"
            });
            let position = event["position"]
                .as_u64()
                .and_then(|one| u32::try_from(one).ok());
            if let (true, Some(position), Some(text)) = (is_end, position, event["text"].as_str()) {
                self.seen.entry(position).or_default().why = Some(show::plain(text).into_owned());
            }
        }
    }

    fn take_loss(&mut self, reason: &str) {
        let since = self.lost.as_ref().map_or(self.now, |(_, since)| *since);
        self.lost = Some((show::plain(reason).into_owned(), since));
        self.rollout = None;
    }

    fn watch(&mut self, name: Name) -> Effect {
        let mut fresh = Self::new(vec![name.clone()]);
        fresh.now = self.now;
        *self = fresh;
        Effect::Watch(name)
    }

    /// The chosen worker.
    pub(crate) fn chosen(&self) -> Option<&WorkerStatus> {
        let mut workers = self.status.as_ref()?.workers.iter();
        workers.find(|worker| Some(worker.id.0) == self.chosen)
    }

    /// The figures of a worker: those of its position, if it is the one that serves there.
    pub(crate) fn figures_of(&self, worker: &WorkerStatus) -> Option<&PositionFigures> {
        let mut positions = self.figures.as_ref()?.positions.iter();
        positions.find(|one| one.position == worker.position.0 && one.worker == Some(worker.id.0))
    }
}

fn rates_of_figures(figures: Option<&Figures>, position: u32) -> bool {
    let mut known = figures.into_iter().flat_map(|one| &one.positions);
    known.any(|one| one.position == position && one.rate().is_some())
}

#[cfg(test)]
pub(crate) mod tests;
