//! A running app that a file describes: what of the file stands, what a reload would change, and what it cannot change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use phalanx::supervisor::Control;
use phalanx_config::diff::{COMMAND, ENV};
use phalanx_config::{App, Change, compare};
use phalanx_control::api::{AppliedBy, Difference, Differences};

use super::Source;
use crate::args::RunArgs;
use crate::report::Outcome;

/// Keys that new workers, or the primary, take over at a reload. What is not among them needs a stop and a start: so a
/// key that was forgotten here is told not to be applied, and is not.
const APPLIED: [&str; 28] = [
    COMMAND,
    "workers",
    "policy",
    "weights",
    "cwd",
    "node",
    "ready",
    "ready-quiet",
    "watchdog",
    "ready-timeout",
    "allow-fewer-listeners",
    "drain-timeout",
    "settle-timeout",
    "stop-signal",
    "kill-timeout",
    "spares",
    "max-surge",
    "max-unavailable",
    "max-draining",
    "max-starting",
    "max-recycling",
    "soak",
    "on-boot-failure",
    "user",
    "group",
    "stream-timeout",
    "no-preload",
    "serialization",
];

/// Generations of which it is remembered what stood: more than there can be ways back.
const KEPT: usize = 8;

/// Whether a reload applies a change of this key.
pub(super) fn is_applied(key: &str) -> bool {
    APPLIED.contains(&key) || key.starts_with(ENV)
}

/// A running app of a file.
#[derive(Debug)]
pub(crate) struct Live {
    source: Source,
    /// What stands, by generation.
    standing: Mutex<BTreeMap<u32, App>>,
}

/// An app as the next reload will have it.
#[derive(Debug)]
pub(crate) struct Next {
    pub(crate) args: RunArgs,
    app: App,
    /// Keys that stay as they are.
    pub(crate) left: Vec<String>,
}

impl Live {
    /// An app whose first generation is as `app` says.
    pub(crate) fn new(source: Source, app: App) -> Arc<Self> {
        Arc::new(Self {
            source,
            standing: Mutex::new(BTreeMap::from([(1, app)])),
        })
    }

    fn standing(&self) -> MutexGuard<'_, BTreeMap<u32, App>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands in this generation, or in the last one before it of which that is known.
    fn at(&self, generation: u32) -> Option<App> {
        let standing = self.standing();
        let known = standing.range(..=generation).next_back();
        known
            .or_else(|| standing.iter().next())
            .map(|(_, app)| app.clone())
    }

    /// Reads the file, and what a reload makes of it.
    ///
    /// # Errors
    /// When something is wrong with the file.
    pub(crate) fn next(&self, generation: u32) -> Outcome<Next> {
        let wanted = self.source.read()?;
        let Some(before) = self.at(generation) else {
            let args = self.source.args(&wanted)?;
            return Ok(Next {
                args,
                app: wanted,
                left: Vec::new(),
            });
        };
        let changes = compare(&before, &wanted).into_iter();
        let left = changes
            .map(|change| change.key)
            .filter(|key| !is_applied(key));
        let left: Vec<String> = left.collect();
        let mut app = wanted;
        for key in &left {
            match before.settings.get(key) {
                Some(setting) => drop(app.settings.insert(key.clone(), setting.clone())),
                None => drop(app.settings.remove(key)),
            }
        }
        let args = self.source.args(&app)?;
        Ok(Next { args, app, left })
    }

    /// This generation is as `next` says.
    pub(crate) fn stands(&self, generation: u32, next: Next) {
        let mut standing = self.standing();
        standing.insert(generation, next.app);
        while standing.len() > KEPT {
            standing.pop_first();
        }
    }

    /// What a reload would change, and what only a stop and a start can.
    ///
    /// # Errors
    /// What is wrong with the file, in words.
    pub(crate) fn differences(&self, control: &Control) -> Result<Differences, String> {
        let wanted = self.source.read().map_err(|failure| failure.reason)?;
        let before = self.at(control.status().generation.0);
        let changes = before
            .map(|before| compare(&before, &wanted))
            .unwrap_or_default();
        Ok(Differences {
            file: self.source.path.display().to_string(),
            profile: self.source.profile.clone(),
            changes: changes.into_iter().map(difference).collect(),
        })
    }
}

fn difference(change: Change) -> Difference {
    let by = if is_applied(&change.key) {
        AppliedBy::Reload
    } else {
        AppliedBy::Restart
    };
    let Change { key, from, to, .. } = change;
    Difference { key, from, to, by }
}

#[cfg(test)]
mod tests {
    use super::super::flags::Flags;
    use super::*;

    #[test]
    fn every_key_that_a_reload_applies_is_a_key() {
        let keys = Flags::new().keys();
        for key in APPLIED.iter().filter(|key| **key != COMMAND) {
            assert!(keys.find(key).is_some(), "{key}");
        }
        assert!(is_applied("env.PORT") && !is_applied("dispatch"));
    }
}
