//! What keys do: the command that each is, and the question that comes before some.

use phalanx_control::names::Name;
use phalanx_core::policy::PolicyName;
use serde_json::Value;

use super::{Effect, Model};
use crate::keys::Key;
use phalanx_control::show;

/// What can be asked of the app.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Command {
    Reload,
    /// Reload, and watch one new worker before the others follow.
    Canary,
    Rollback,
    ScaleUp,
    ScaleDown,
    /// The worker of this id finishes what it has begun and ends; another takes its place.
    StopWorker(u32),
    Policy(PolicyName),
}

impl Command {
    /// What is done, in words.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Reload => "reload".to_owned(),
            Self::Canary => "reload, one worker first".to_owned(),
            Self::Rollback => "roll back".to_owned(),
            Self::ScaleUp => "one worker more".to_owned(),
            Self::ScaleDown => "one worker fewer".to_owned(),
            Self::StopWorker(worker) => format!("replace worker {worker}"),
            Self::Policy(policy) => format!("policy {policy}"),
        }
    }
}

/// The policies that can be chosen: all but the one that needs weights.
pub(crate) const POLICIES: [PolicyName; 7] = [
    PolicyName::RoundRobin,
    PolicyName::LeastConnections,
    PolicyName::Fastest,
    PolicyName::PowerOfTwo,
    PolicyName::SourceHash,
    PolicyName::Random,
    PolicyName::None,
];

/// What lies over the picture and takes the keys.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Dialog {
    /// The keys.
    Help,
    /// Is it to be done?
    Confirm(Command),
    /// Which of [`POLICIES`].
    Policy(usize),
    /// Which app.
    Apps(Vec<Name>, usize),
}

/// What came of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Notice {
    pub(crate) text: String,
    pub(crate) is_fault: bool,
    pub(crate) at: u64,
}

impl Model {
    pub(super) fn press(&mut self, key: Key) -> Option<Effect> {
        if key == Key::Interrupt {
            return Some(Effect::Quit);
        }
        match self.dialog.take() {
            None => self.press_in_view(key),
            Some(Dialog::Help) => None,
            Some(Dialog::Confirm(command)) => {
                let is_sure = matches!(key, Key::Letter('y' | 'Y') | Key::Enter);
                is_sure.then(|| self.begin(command))
            }
            Some(Dialog::Policy(at)) => self.press_in_policies(key, at),
            Some(Dialog::Apps(names, at)) => self.press_in_apps(key, names, at),
        }
    }

    fn press_in_view(&mut self, key: Key) -> Option<Effect> {
        match key {
            Key::Letter('q') | Key::Escape | Key::Interrupt => return Some(Effect::Quit),
            Key::Letter('?' | 'h') => self.dialog = Some(Dialog::Help),
            Key::Letter('a') => return Some(Effect::Choose),
            Key::Letter('l') => self.log.toggle(),
            Key::Up | Key::Letter('k') => self.step(false),
            Key::Down | Key::Letter('j') => self.step(true),
            Key::Letter(letter) => return self.press_command(letter),
            Key::Enter => {}
        }
        None
    }

    fn press_command(&mut self, letter: char) -> Option<Effect> {
        let status = self.status.as_ref().filter(|_| self.lost.is_none())?;
        match letter {
            'r' => self.dialog = Some(Dialog::Confirm(Command::Reload)),
            'c' => self.dialog = Some(Dialog::Confirm(Command::Canary)),
            'b' => self.dialog = Some(Dialog::Confirm(Command::Rollback)),
            '+' | '=' => return Some(self.begin(Command::ScaleUp)),
            // The last one is not taken away by a slip.
            '-' if status.target <= 1 => self.dialog = Some(Dialog::Confirm(Command::ScaleDown)),
            '-' => return Some(self.begin(Command::ScaleDown)),
            'x' => {
                let worker = self.chosen()?.id.0;
                self.dialog = Some(Dialog::Confirm(Command::StopWorker(worker)));
            }
            'p' => {
                let current = POLICIES
                    .iter()
                    .position(|one| one.as_str() == status.policy.as_str());
                self.dialog = Some(Dialog::Policy(current.unwrap_or(0)));
            }
            _ => {}
        }
        None
    }

    fn press_in_policies(&mut self, key: Key, at: usize) -> Option<Effect> {
        match key {
            Key::Enter => return Some(self.begin(Command::Policy(POLICIES[at]))),
            Key::Escape | Key::Interrupt | Key::Letter('q' | 'p') => {}
            Key::Up | Key::Down | Key::Letter(_) => {
                self.dialog = Some(Dialog::Policy(moved(key, at, POLICIES.len())));
            }
        }
        None
    }

    fn press_in_apps(&mut self, key: Key, names: Vec<Name>, at: usize) -> Option<Effect> {
        let is_left = matches!(key, Key::Escape | Key::Letter('q'));
        if is_left && self.app.is_none() {
            return Some(Effect::Quit);
        }
        if key == Key::Enter {
            let name = names.get(at)?.clone();
            return Some(self.watch(name));
        }
        if !is_left {
            let at = moved(key, at, names.len());
            self.dialog = Some(Dialog::Apps(names, at));
        }
        None
    }

    /// Chooses the worker before or after the chosen one.
    fn step(&mut self, is_down: bool) {
        let Some(status) = &self.status else {
            return;
        };
        let ids: Vec<u32> = status.workers.iter().map(|worker| worker.id.0).collect();
        let at = ids.iter().position(|id| Some(*id) == self.chosen);
        let key = if is_down { Key::Down } else { Key::Up };
        let at = at.map_or(0, |at| moved(key, at, ids.len()));
        self.chosen = ids.get(at).copied();
    }

    fn begin(&mut self, command: Command) -> Effect {
        self.notice = None;
        self.under_way.push(command.clone());
        Effect::Do(command)
    }

    pub(super) fn take_result(&mut self, command: &Command, result: Result<Value, String>) {
        if let Some(at) = self.under_way.iter().position(|one| one == command) {
            self.under_way.remove(at);
        }
        let (text, is_fault) = match result {
            Ok(_) => (format!("{}: done", command.text()), false),
            Err(reason) => (format!("{}: {reason}", command.text()), true),
        };
        self.notice = Some(Notice {
            text: show::plain(&text).into_owned(),
            is_fault,
            at: self.now,
        });
    }
}

fn moved(key: Key, at: usize, of: usize) -> usize {
    match key {
        Key::Up | Key::Letter('k') => at.saturating_sub(1),
        Key::Down | Key::Letter('j') => (at + 1).min(of.saturating_sub(1)),
        Key::Letter(_) | Key::Enter | Key::Escape | Key::Interrupt => at,
    }
}
