//! What a drill shows while it runs: a bar on a terminal, else nothing.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::interval;

use super::session::Session;

const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// A bar that follows the session until it is finished.
#[derive(Debug)]
pub(super) struct Progress {
    drawn: Option<(ProgressBar, JoinHandle<()>)>,
}

impl Progress {
    pub(super) fn start(
        session: &Arc<Session>,
        length: Duration,
        actions: usize,
        quiet: bool,
    ) -> Self {
        if quiet || !io::stderr().is_terminal() {
            return Self { drawn: None };
        }
        let style = ProgressStyle::with_template("drill [{bar:24}] {msg}");
        let bar = ProgressBar::with_draw_target(Some(millis(length)), ProgressDrawTarget::stderr());
        let bar = bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let (drawn, session) = (bar.clone(), Arc::clone(session));
        let task = tokio::spawn(async move {
            let mut redraw = interval(REDRAW_EVERY);
            loop {
                redraw.tick().await;
                drawn.set_position(millis(session.now()));
                drawn.set_message(line(&session, length, actions));
            }
        });
        Self {
            drawn: Some((bar, task)),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(self) {
        if let Some((bar, task)) = self.drawn {
            task.abort();
            bar.finish_and_clear();
        }
    }
}

fn line(session: &Session, length: Duration, actions: usize) -> String {
    let now = session.now();
    let account = session.account();
    let all = account.all();
    let under_way = account
        .actions
        .last()
        .filter(|action| action.ended_at.is_none());
    let under_way = under_way.map_or(String::new(), |action| {
        format!(", {} {}", action.kind.as_str(), action.number)
    });
    format!(
        "{} s of {} s, {} requests, {} lost, {} retried; action {} of {actions}{under_way}",
        now.as_secs(),
        length.as_secs(),
        all.requests(),
        all.lost,
        all.retried,
        account.actions.len(),
    )
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
