//! How long a primary may leave its clients without an answer.
//!
//! A primary that was stopped (SIGSTOP, a frozen container) accepts connections and answers nothing: the kernel does the first for
//! it. No client waits for it without end. One that runs, or waits for a processor, is busy: it gets more time.

use std::future::Future;
use std::time::Duration;

use phalanx_sys::process::{Pid, Turns, turns};
use serde_json::Value;
use tokio::time::{Instant, interval_at, sleep_until};

use crate::api::GetStatus;
use crate::client::{App, is_full};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};

/// What a primary can answer at once, it answers within this time.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A primary that is busy, or whose machine is, has this long. Hundreds of workers that end at the same moment leave it so small a
/// share of two processors that [`ANSWER_LIMIT`] passed in a test run.
pub const BUSY_LIMIT: Duration = Duration::from_secs(30);

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
            tokio::select! {
                biased;
                status = self.ask_at_leisure(&GetStatus {}) => Ok(status.map_or(Heard::Ended, Heard::Status)),
                _ = fell_silent(pid) => Err(pid),
            }
        };
        status.await.unwrap_or_else(Heard::Nothing)
    }

    /// Awaits what the primary, of which the connection told this pid, answers at once.
    pub(crate) async fn at_once<T>(
        &self,
        pid: Option<i32>,
        answer: impl Future<Output = Outcome<T>>,
    ) -> Outcome<T> {
        tokio::select! {
            biased;
            answer = answer => answer,
            waited = fell_silent(pid) => Err(self.silent(pid, waited)),
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
            (pid, waited) = self.falls_silent() => Err(self.silent(pid, waited)),
        }
    }

    async fn falls_silent(&self) -> (Option<i32>, Duration) {
        let mut pulse = interval_at(Instant::now(), ANSWER_LIMIT);
        loop {
            pulse.tick().await;
            let asked = Instant::now();
            if let Heard::Nothing(pid) = self.hear().await {
                return (pid, Duration::from_secs(asked.elapsed().as_secs()));
            }
        }
    }

    fn silent(&self, pid: Option<i32>, waited: Duration) -> Failure {
        let (who, way) = pid.map_or((String::new(), String::new()), |pid| {
            (
                format!(" (pid {pid})"),
                format!(" (kill -CONT {pid} lets it go on)"),
            )
        });
        let reason = format!(
            "the primary of {}{who} has not answered for {waited:?}: it is stopped{way}, or its machine is overloaded",
            self.name
        );
        Failure::new(Exit::Failed, reason)
    }
}

/// Awaits the moment when a primary has had its time for an answer. Returns how long that was.
async fn fell_silent(pid: Option<i32>) -> Duration {
    let pid = pid.and_then(|pid| Pid::from_number(u32::try_from(pid).ok()?));
    let look = || pid.and_then(turns);
    let began = Instant::now();
    let mut waited = Duration::ZERO;
    let mut before = look();
    loop {
        waited += ANSWER_LIMIT;
        sleep_until(began + waited).await;
        let now = look();
        if waited >= BUSY_LIMIT || !is_busy(before, now) {
            return waited;
        }
        before = now;
    }
}

/// Whether a process was busy between two looks at it: it ran, or wants to. One that cannot be seen is not.
fn is_busy(before: Option<Turns>, now: Option<Turns>) -> bool {
    let (Some(before), Some(now)) = (before, now) else {
        return false;
    };
    now.is_runnable || now.ran > before.ran
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(milliseconds: u64, is_runnable: bool) -> Turns {
        let ran = Duration::from_millis(milliseconds);
        Turns { is_runnable, ran }
    }

    #[test]
    fn who_ran_or_waits_for_a_processor_is_busy() {
        let judge = |before, now| is_busy(Some(before), Some(now));
        assert!(judge(after(7, false), after(8, false)));
        assert!(judge(after(7, true), after(7, true)));
        assert!(!judge(after(7, false), after(7, false)), "stopped");
        assert!(!judge(after(7, true), after(7, false)), "stopped meanwhile");
        assert!(
            !is_busy(Some(after(7, true)), None),
            "gone, or out of sight"
        );
    }
}
