//! What a command shows while it waits: a bar on a terminal, else lines; on standard error, so that
//! standard output has the answer alone.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use phalanx_control::show;

use crate::report;

/// Shows the events of an app as the progress of a command.
#[derive(Debug)]
pub(crate) struct Progress {
    verb: &'static str,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn new(verb: &'static str) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg} [{bar:24}] {pos}/{len}");
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                .with_message(verb)
        });
        Self { verb, bar }
    }

    /// Takes an event in.
    pub(crate) fn show(&self, event: &Value) {
        if event["event"] != "fleet" {
            return;
        }
        let text = event["text"].as_str().unwrap_or_default();
        if event["report"] == "canary_progress" {
            // What happens while nothing is replaced.
            match &self.bar {
                Some(bar) => bar.set_message(text.to_owned()),
                None => report::show_progress(text),
            }
            return;
        }
        if let (Some(bar), Some("canary_passed")) = (&self.bar, event["report"].as_str()) {
            bar.set_message(self.verb);
        }
        match (&self.bar, event["level"].as_str()) {
            (Some(bar), Some("error" | "warn")) => {
                bar.println(format!("phalanx: {}", show::plain(text)));
            }
            (None, Some("error" | "warn" | "info")) => report::show_progress(text),
            (_, _) => {}
        }
        if let (Some(bar), Some(step)) = (&self.bar, Step::of(event)) {
            bar.set_length(step.of);
            bar.set_position(step.done);
        }
    }

    /// Removes the bar.
    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// How far a command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    done: u64,
    of: u64,
}

impl Step {
    fn of(event: &Value) -> Option<Self> {
        let number = |field: &str| event[field].as_u64();
        let (done, of) = match event["report"].as_str()? {
            "rollout_started" | "stop_started" => (0, number("workers")?),
            "rollout_progress" => (number("done")?, number("workers")?),
            "scale_progress" => (number("done")?, number("of")?),
            "scale_started" => (0, number("from")?.abs_diff(number("to")?)),
            _ => return None,
        };
        Some(Self { done, of })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_tell_how_far_a_command_has_come() {
        let step = |event| Step::of(&event).map(|step| (step.done, step.of));
        assert_eq!(
            step(json!({"report": "rollout_progress", "done": 1, "workers": 4})),
            Some((1, 4))
        );
        assert_eq!(
            step(json!({"report": "scale_started", "from": 4, "to": 1})),
            Some((0, 3))
        );
        assert_eq!(
            step(json!({"report": "scale_progress", "done": 2, "of": 3})),
            Some((2, 3))
        );
        assert_eq!(step(json!({"report": "boot_over"})), None);
        assert_eq!(step(json!({"event": "fork"})), None);
    }
}
