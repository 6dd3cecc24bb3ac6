//! Options of `run` on workers that hang.

use std::time::Duration;

use clap::Args;
use phalanx::{Hang, Signal};

use crate::values;

#[derive(Args, Debug)]
#[command(next_help_heading = "Health")]
pub(crate) struct HealthArgs {
    /// How long a worker may leave its work unanswered before it is replaced and then killed; off: for ever
    ///
    /// Time counts less while all processors are busy. It does not count while a debugger or SIGSTOP holds the worker.
    #[arg(long, value_name = "TIME|off", default_value = "30s", value_parser = limit)]
    hang_timeout: Limit,

    /// Request this path from each worker regularly; a worker that gives no answer at all hangs
    #[arg(long, value_name = "http:/PATH", value_parser = probe)]
    probe: Option<String>,

    /// The signal that makes the program print its stacks; a worker that hangs gets it before it is killed
    ///
    /// QUIT for Go and Java. Node workers do not need it: their stack is known without a signal.
    #[arg(long, value_name = "SIGNAL", value_parser = values::signal)]
    hang_signal: Option<Signal>,
}

/// A time, or none.
#[derive(Clone, Copy, Debug)]
struct Limit(Option<Duration>);

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "off" => Ok(Limit(None)),
        _ => values::positive_duration(text).map(|time| Limit(Some(time))),
    }
}

fn probe(text: &str) -> Result<String, String> {
    match values::readiness(text) {
        Ok(phalanx::Readiness::Http(path)) => Ok(path),
        Ok(_) | Err(_) => Err("use http:/PATH".to_owned()),
    }
}

impl HealthArgs {
    /// The same, as the library has it.
    pub(crate) fn hang(&self) -> Hang {
        let mut hang = Hang::default();
        hang.timeout = self.hang_timeout.0;
        hang.probe.clone_from(&self.probe);
        hang.signal = self.hang_signal;
        hang
    }
}
