//! How long a primary may leave its clients without an answer.
//!
//! A primary that was stopped (SIGSTOP, a frozen container) accepts connections and answers nothing: the kernel does the first for
//! it. No client waits for it without end.

use std::future::Future;
use std::io;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, interval_at, timeout};

use crate::client::App;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// What a primary can answer at once, it answers within this time, on a busy machine too.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// What came of asking an app for its status.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "there is nothing between these")]
pub enum Heard {
    /// Its status.
    Status(Value),
    /// It does not answer. The pid of its primary, where it is known.
    Nothing(Option<i32>),
    /// It has ended.
    Ended,
}

/// A connection is not even queued: as many wait already as may.
pub(crate) fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl App {
    /// Asks for the status, however that ends.
    pub async fn hear(&self) -> Heard {
        let status = async {
            let stream = match self.reach().await {
                Ok(stream) => stream,
                Err(error) if is_full(&error) => return Err(None),
                Err(_) => return Ok(Heard::Ended),
            };
            let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
            drop(stream);
            match timeout(ANSWER_LIMIT, self.get_at_leisure(crate::api::STATUS)).await {
                Ok(Ok(status)) => Ok(Heard::Status(status)),
                Ok(Err(_)) => Ok(Heard::Ended),
                Err(_) => Err(pid),
            }
        };
        status.await.unwrap_or_else(Heard::Nothing)
    }

    /// Awaits what the primary answers at once.
    pub(crate) async fn at_once<T>(&self, answer: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        match timeout(ANSWER_LIMIT, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(self.silent().await),
        }
    }

    /// Awaits what may take its time, as long as the primary answers other questions meanwhile.
    ///
    /// # Errors
    ///
    /// As `work` does, and if the primary has fallen silent.
    pub async fn as_long_as_it_answers<T>(
        &self,
        work: impl Future<Output = Outcome<T>>,
    ) -> Outcome<T> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.falls_silent() => Err(self.silent().await),
        }
    }

    async fn falls_silent(&self) {
        let mut pulse = interval_at(Instant::now(), ANSWER_LIMIT);
        loop {
            pulse.tick().await;
            if matches!(self.hear().await, Heard::Nothing(_)) {
                return;
            }
        }
    }

    async fn silent(&self) -> Failure {
        let pid = self.reach().await.ok();
        let pid = pid.and_then(|stream| stream.peer_cred().ok()?.pid());
        let (who, way) = pid.map_or((String::new(), String::new()), |pid| {
            (
                format!(" (pid {pid})"),
                format!(" (kill -CONT {pid} lets it go on)"),
            )
        });
        let reason = format!(
            "the primary of {}{who} has not answered for {ANSWER_LIMIT:?}: it is stopped{way}, or its machine is overloaded",
            self.name
        );
        Failure::new(Exit::Failed, reason)
    }
}
