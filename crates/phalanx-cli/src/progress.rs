//! What a command shows while it waits: a bar on a terminal, else lines; on standard error, so that
//! standard output has the answer alone.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use phalanx_control::api::{Event, Report, What};
use phalanx_control::level::Level;
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
    pub(crate) fn show(&self, event: &Event) {
        let What::Fleet(report) = &event.what else {
            return;
        };
        if matches!(report, Report::CanaryProgress {}) {
            // What happens while nothing is replaced.
            match &self.bar {
                Some(bar) => bar.set_message(event.text.clone()),
                None => report::show_progress(&event.text),
            }
            return;
        }
        if let (Some(bar), Report::CanaryPassed {}) = (&self.bar, report) {
            bar.set_message(self.verb);
        }
        match &self.bar {
            Some(bar) if event.level <= Level::Warn => {
                bar.println(format!("phalanx: {}", show::plain(&event.text)));
            }
            None if event.level <= Level::Info => report::show_progress(&event.text),
            Some(_) | None => {}
        }
        if let (Some(bar), Some(step)) = (&self.bar, Step::of(report)) {
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
    fn of(report: &Report) -> Option<Self> {
        if let Report::RolloutStarted { workers } | Report::StopStarted { workers } = *report {
            return Some(Self {
                done: 0,
                of: workers,
            });
        }
        if let Report::ScaleStarted { from, to } = *report {
            let of = from.abs_diff(to);
            return Some(Self { done: 0, of });
        }
        if let Report::RolloutProgress { done, workers: of } | Report::ScaleProgress { done, of } =
            *report
        {
            return Some(Self { done, of });
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_tell_how_far_a_command_has_come() {
        let step = |report| Step::of(&report).map(|step| (step.done, step.of));
        let replaced = Report::RolloutProgress {
            done: 1,
            workers: 4,
        };
        assert_eq!(step(replaced), Some((1, 4)));
        assert_eq!(step(Report::ScaleStarted { from: 4, to: 1 }), Some((0, 3)));
        assert_eq!(step(Report::ScaleProgress { done: 2, of: 3 }), Some((2, 3)));
        assert_eq!(step(Report::Other), None);
    }
}
