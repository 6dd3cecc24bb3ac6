//! The user's server as a cluster of the drill's own: `phalanx run` of the same executable, in a process of its
//! own and with a runtime directory that no other command looks into.
//!
//! INVARIANT: nothing is left behind: the primary ends with the drill, whatever ends that, and the workers end
//! with their primary.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use phalanx_sys::delay::DelayLink;
use phalanx_sys::process::{ExitStatus, SpawnPlan};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::timeout;

use super::args::DrillArgs;
use super::external::Running;
use super::launch::{self, OpensPorts};
use super::target;
use phalanx_control::api::{GetStatus, Status, Stop};
use phalanx_control::client::App;
use phalanx_control::exit::Exit;
use phalanx_control::failure::{Failure, Outcome};
use phalanx_control::names::Name;

/// How long the cluster may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long an app that is ready may say nothing before the port that is to be asked is not waited for any more.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// Lines of its log that are kept for the case that it does not start.
const TAIL_LINES: usize = 20;

/// A cluster that ends with this value.
#[derive(Debug)]
pub(super) struct Cluster {
    running: Running,
    pub(super) app: App,
    log: Log,
    /// Removed last.
    _directory: TempDir,
}

impl Cluster {
    /// Starts it, at the server's end of the link if there is one, and returns when all workers are ready; its status
    /// then.
    pub(super) async fn start(
        args: &DrillArgs,
        opens_ports: OpensPorts,
        link: Option<&DelayLink>,
    ) -> Outcome<(Self, Status)> {
        let failed =
            |what: &str, error: &dyn std::error::Error| Failure::caused(Exit::Failed, what, error);
        let directory = tempfile::Builder::new().prefix("phalanx-drill-").tempdir();
        let directory =
            directory.map_err(|error| failed("cannot make a directory for the drill", &error))?;
        let (reader, writer) = io::pipe().map_err(|error| failed("cannot make a pipe", &error))?;
        let at = link.map_or(target::LOOPBACK, |_| target::far());
        let plan = launch::plan(args, opens_ports, at, &directory, writer.into());
        let plan = plan.map_err(|error| failed("cannot run phalanx itself again", &error))?;
        let running = run(plan, link);
        let running = running.map_err(|error| Failure::new(Exit::Failed, error))?;
        let name: Name = launch::NAME
            .parse()
            .map_err(|error: String| Failure::new(Exit::Failed, error))?;
        let log =
            Log::follow(reader.into()).map_err(|error| failed("cannot read the log", &error))?;
        let mut cluster = Self {
            running,
            app: App::at(name, directory.path())?,
            log,
            _directory: directory,
        };
        let status = cluster.until_ready(args.port).await?;
        Ok((cluster, status))
    }

    /// Ready is what serves; a port that the drill shall ask may be opened later.
    async fn until_ready(&mut self, port: Option<u16>) -> Outcome<Status> {
        let (app, log) = (&self.app, &self.log);
        let ready = async {
            log.first_line().await;
            let mut events = app.events().await?;
            loop {
                let status = app.ask(&GetStatus {}).await?;
                let is_open = port.is_none() || target::of_status(&status, port).is_some();
                let is_complete = target::is_complete(&status);
                if is_complete && is_open {
                    return Ok(status);
                }
                let limit = if is_complete {
                    OPEN_LIMIT
                } else {
                    Duration::MAX
                };
                match timeout(limit, events.next()).await {
                    Ok(Some(_)) => {}
                    Ok(None) => return Err(Failure::new(Exit::Failed, "the app ended")),
                    // Whoever looks finds out why.
                    Err(_) => return Ok(status),
                }
            }
        };
        let ended = tokio::select! {
            biased;
            ended = self.running.wait() => ended,
            status = ready => match status {
                Ok(status) => return Ok(status),
                // Its end tells more than the broken connection.
                Err(failure) => timeout(STOP_LIMIT, self.running.wait()).await.map_err(|_| failure)?,
            },
        };
        self.log.end().await;
        Err(did_not_start(ended.ok(), &self.log.tail()))
    }

    /// Stops it at once: its clients have what they wanted.
    pub(super) async fn stop(mut self) {
        drop(timeout(STOP_LIMIT, self.app.ask(&Stop { fast: true })).await);
        // Whoever does not end by now is killed with the value.
        drop(timeout(STOP_LIMIT, self.running.wait()).await);
    }
}

/// INVARIANT: the first process that the drill starts. The thread that forks begins here, at the server's end, and
/// stays there; the calling thread goes back to the clients' end.
fn run(plan: SpawnPlan, link: Option<&DelayLink>) -> Result<Running, String> {
    let Some(link) = link else {
        return Running::start(plan);
    };
    let cannot = |error: io::Error| format!("cannot enter a network namespace: {error}");
    link.enter_server().map_err(cannot)?;
    let running = Running::start(plan);
    link.enter_client().map_err(cannot)?;
    running
}

fn did_not_start(ended: Option<ExitStatus>, tail: &[String]) -> Failure {
    let exit = match ended {
        Some(ExitStatus::Code(64)) => Exit::Usage,
        Some(ExitStatus::Code(126)) => Exit::NotExecutable,
        Some(ExitStatus::Code(127)) => Exit::NotFound,
        Some(_) | None => Exit::Failed,
    };
    let mut reason = "the app did not start".to_owned();
    for line in tail {
        reason += "\n    ";
        reason += line;
    }
    Failure::new(exit, reason)
}

/// The cluster's log, read as it comes; its last lines are kept.
#[derive(Debug)]
struct Log {
    tail: Arc<Mutex<VecDeque<String>>>,
    state: watch::Receiver<LogState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogState {
    Silent,
    Begun,
    Ended,
}

impl Log {
    fn follow(reader: OwnedFd) -> io::Result<Self> {
        let reader = pipe::Receiver::from_owned_fd(reader)?;
        let (says, state) = watch::channel(LogState::Silent);
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let kept = Arc::clone(&tail);
        tokio::spawn(async move {
            let mut lines = BufReader::new(reader).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let mut tail = kept.lock().unwrap_or_else(PoisonError::into_inner);
                tail.extend(in_words(line));
                let surplus = tail.len().saturating_sub(TAIL_LINES);
                tail.drain(..surplus);
                says.send_replace(LogState::Begun);
            }
            says.send_replace(LogState::Ended);
        });
        Ok(Self { tail, state })
    }

    /// Waits for the first line: then the control socket is there.
    async fn first_line(&self) {
        drop(
            self.state
                .clone()
                .wait_for(|state| *state != LogState::Silent)
                .await,
        );
    }

    async fn end(&self) {
        let mut state = self.state.clone();
        let end = state.wait_for(|state| *state == LogState::Ended);
        // A stranger may hold the pipe open.
        drop(timeout(STOP_LIMIT, end).await);
    }

    fn tail(&self) -> Vec<String> {
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.iter().cloned().collect()
    }
}

/// A line of the log as people read it.
fn in_words(line: String) -> Vec<String> {
    let event: Value = serde_json::from_str(&line).unwrap_or_default();
    let Some(text) = event["text"].as_str() else {
        return vec![line];
    };
    let last = event["last_lines"].as_array().into_iter().flatten();
    let last = last.filter_map(|line| line.as_str().map(str::to_owned));
    std::iter::once(text.to_owned()).chain(last).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_in_words() {
        let line = r#"{"event":"failed","text":"no worker","last_lines":["a","b"]}"#;
        assert_eq!(in_words(line.to_owned()), ["no worker", "a", "b"]);
        assert_eq!(in_words("plain".to_owned()), ["plain"]);
    }
}
