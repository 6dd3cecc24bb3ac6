//! A real app: the `phalanx` binary in the foreground, in a directory of its own.
//!
//! The directory is the app's `XDG_RUNTIME_DIR`, so apps of different tests never meet, whatever
//! their names. It is short, because the path of a Unix socket holds 107 bytes.

mod builder;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

pub use builder::AppBuilder;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::control::{Control, Events, Reply};
use crate::process::{Output, Process};
use crate::procs;
use crate::socket::Target;
use crate::wait::{self, Deadline, LIMIT};

/// How long a verb may take before the test gives up on it.
const VERB_LIMIT: Duration = Duration::from_mins(2);

/// A running app. Dropping it kills the primary and every worker, whoever their parent is by then.
///
/// It dereferences to [`Process`]: `signal`, `wait_exit`, `wait_for_line`, `write_line`, `family`.
#[derive(Debug)]
pub struct App {
    // Fields drop in order: the processes end before their directory goes.
    process: Process,
    control: Control,
    builder: AppBuilder,
    directory: TempDir,
}

impl App {
    /// An app of the `phalanx` binary at `binary`: in tests `env!("CARGO_BIN_EXE_phalanx")`.
    pub fn builder(binary: impl Into<PathBuf>) -> AppBuilder {
        AppBuilder::new(binary.into())
    }

    /// The app's `XDG_RUNTIME_DIR`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The client of its control socket.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// The status document; `None` while the socket does not answer.
    #[must_use]
    pub fn try_status(&self) -> Option<Value> {
        let reply = self
            .control
            .request("GET", "/v1/status", None, LIMIT)
            .ok()?;
        (reply.status == 200).then(|| reply.json())
    }

    /// The status document, as soon as the socket answers.
    #[track_caller]
    pub fn status(&mut self) -> Value {
        self.wait_status(LIMIT, |_| true)
    }

    /// Waits for a status of which `wanted` is true. Panics with the last status and the output at
    /// the deadline, and at once when the primary has ended.
    #[track_caller]
    pub fn wait_status(
        &mut self,
        deadline: impl Into<Deadline>,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let mut last = None;
        let found = wait::try_eventually(deadline, || {
            if let Some(status) = self.process.try_exit() {
                self.process.lines().wait_end(Duration::from_secs(1));
                panic!(
                    "the primary ended ({status}); output:\n{}",
                    self.lines().shown()
                );
            }
            last = self.try_status().or_else(|| last.take());
            last.clone().filter(|status| wanted(status))
        });
        found.unwrap_or_else(|| {
            let last = last.map_or("none".to_owned(), |status| format!("{status:#}"));
            panic!(
                "deadline passed; last status: {last}\noutput:\n{}",
                self.lines().shown()
            )
        })
    }

    /// Waits until exactly as many workers as wanted are there and every one is ready.
    #[track_caller]
    pub fn wait_ready(&mut self, deadline: impl Into<Deadline>) -> Value {
        self.wait_status(deadline, is_settled)
    }

    /// The first stream listener's address, once all workers are ready.
    #[track_caller]
    pub fn address(&mut self) -> Target {
        let addresses = self.addresses();
        addresses
            .into_iter()
            .next()
            .expect("an app with a stream listener")
    }

    /// The addresses of all stream listeners, once all workers are ready and something listens.
    #[track_caller]
    pub fn addresses(&mut self) -> Vec<Target> {
        let texts = self.address_texts().into_iter();
        texts.filter_map(|text| text.parse().ok()).collect()
    }

    /// The address of the first UDP listener, `udp:…` in the status.
    #[track_caller]
    pub fn udp_address(&mut self) -> SocketAddr {
        let texts = self.address_texts();
        let found = texts
            .iter()
            .find_map(|text| text.strip_prefix("udp:")?.parse().ok());
        found.expect("an app with a UDP listener")
    }

    #[track_caller]
    fn address_texts(&mut self) -> Vec<String> {
        let texts = |status: &Value| -> Vec<String> {
            let listeners = status["listeners"].as_array().into_iter().flatten();
            listeners
                .filter_map(|one| Some(one["address"].as_str()?.to_owned()))
                .collect()
        };
        let settled = |status: &Value| is_settled(status) && !texts(status).is_empty();
        texts(&self.wait_status(LIMIT, settled))
    }

    /// The pids of the workers that the status shows, in its order.
    #[track_caller]
    pub fn worker_pids(&mut self) -> Vec<u32> {
        pids(&self.status())
    }

    /// Kills a worker by `SIGKILL`; `false` when it was already gone.
    pub fn kill_worker(&self, pid: u32) -> bool {
        procs::signal(pid, Signal::KILL)
    }

    /// Sends a POST with a JSON body and waits for the answer.
    #[track_caller]
    pub fn post(&self, route: &str, body: &Value) -> Reply {
        match self.control.request("POST", route, Some(body), VERB_LIMIT) {
            Ok(reply) => reply,
            Err(error) => panic!("POST {route}: {error}; output:\n{}", self.lines().shown()),
        }
    }

    /// Opens the event stream, waiting for the socket to appear.
    #[track_caller]
    pub fn events(&mut self) -> Events {
        self.status();
        self.control
            .events()
            .expect("a socket that answers streams events")
    }

    /// Runs `phalanx VERB --name NAME ARGS…` to its end.
    #[track_caller]
    pub fn verb(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        Process::run(self.verb_command(words), VERB_LIMIT)
    }

    /// Starts a verb without waiting for it.
    #[track_caller]
    pub fn start_verb(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Process {
        Process::start(self.verb_command(words))
    }

    fn verb_command(&self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = self.builder.binary_command(self.directory());
        let mut words = words.into_iter();
        let verb = words.next().expect("a verb");
        command
            .arg(verb)
            .args(["--name", &self.builder.name])
            .args(words);
        command
    }

    /// Asks the primary to stop by `SIGTERM` and waits until it and all workers are gone and all that they printed is there.
    #[track_caller]
    pub fn stop(&mut self) -> std::process::ExitStatus {
        self.process.signal(Signal::TERM);
        let status = self.process.wait_exit(LIMIT);
        self.process.wait_family_gone(LIMIT);
        self.process.lines().wait_end(LIMIT);
        status
    }
}

impl Deref for App {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for App {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// Whether a status shows exactly as many workers and spares as wanted, all of them ready, and no reload under
/// way.
#[must_use]
pub fn is_settled(status: &Value) -> bool {
    let workers = status["workers"].as_array();
    workers.is_some_and(|workers| {
        let are = |state: &str| {
            let all = workers.iter();
            u64::try_from(all.filter(|worker| worker["state"] == state).count()).ok()
        };
        let spares = status["spares"].as_u64().unwrap_or(0);
        let wanted = status["target"].as_u64().map(|target| target + spares);
        status["reloading"] != true
            && wanted == u64::try_from(workers.len()).ok()
            && are("ready") == status["target"].as_u64()
            && are("spare") == Some(spares)
    })
}

/// The pids of the workers in a status, in its order.
#[must_use]
pub fn pids(status: &Value) -> Vec<u32> {
    let workers = status["workers"].as_array().into_iter().flatten();
    workers
        .filter_map(|worker| u32::try_from(worker["pid"].as_u64()?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settled_means_as_many_ready_workers_as_wanted() {
        let ready = json!({"state": "ready", "pid": 7});
        let starting = json!({"state": "starting", "pid": 8});
        assert!(is_settled(&json!({"target": 1, "workers": [ready]})));
        assert!(!is_settled(
            &json!({"target": 1, "reloading": true, "workers": [ready]})
        ));
        assert!(!is_settled(&json!({"target": 2, "workers": [ready]})));
        assert!(!is_settled(
            &json!({"target": 2, "workers": [ready, starting]})
        ));
        assert_eq!(pids(&json!({"workers": [ready, starting]})), [7, 8]);
    }
}
