//! The command that shows the output of workers.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use regex::Regex;

use super::LogTime;
use crate::output::{Forming, Prefix, Turning};
use crate::values;
use phalanx_control::names::Name;
use phalanx_core::ids::{Position, WorkerId};

/// A log file is turned over before it is larger, and so many of those before are kept, unless it is said otherwise.
const LOG_FILE_BYTES: u64 = 100 << 20;
const LOG_FILES_KEPT: u32 = 5;

/// Show the last output of an app's workers, or of all apps
///
/// The primary of each app keeps the last of it in memory (`run --log-memory`). What is older is where `run` wrote it: its standard
/// output, its log file, or the journal.
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// Names of apps [default: all that run]
    #[arg(value_name = "NAME", env = "PHALANX_NAME", hide_env_values = true)]
    pub(crate) names: Vec<Name>,

    /// Name of an app, as for the other commands; can be repeated
    #[arg(long = "name", value_name = "NAME")]
    pub(crate) more_names: Vec<Name>,

    /// Go on with what comes, until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,

    /// Begin with so many of the last lines of each app [default: 100, or all with --since or --grep]
    #[arg(short = 'n', long, value_name = "N")]
    pub(crate) lines: Option<u64>,

    /// Only lines of one worker: its position, or its id as `id:12`
    #[arg(long, value_name = "POSITION|id:ID")]
    pub(crate) worker: Option<Whose>,

    /// Only lines of the last so much time: 30s, 10m, 2h
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub(crate) since: Option<Duration>,

    /// Only lines in which this regular expression is found; (?i) in front: in small letters and capitals
    #[arg(long, value_name = "REGEX")]
    pub(crate) grep: Option<Regex>,

    /// Print one JSON object a line, in the form that docs/logs.md describes
    #[arg(long)]
    pub(crate) json: bool,

    /// Print the lines alone, without time and position
    #[arg(long, conflicts_with = "json")]
    pub(crate) raw: bool,
}

/// Where the output of workers goes.
#[derive(Args, Debug)]
#[command(next_help_heading = "Log")]
#[expect(
    clippy::struct_field_names,
    reason = "they are the names of the options"
)]
pub(crate) struct OutputArgs {
    /// How much of the workers' last output is kept in memory for `phalanx logs`: 1M, 256K; 0: none
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = values::log_memory)]
    pub(crate) log_memory: usize,

    /// Write the workers' output to this file instead, and the log too
    ///
    /// SIGUSR1 opens it anew.
    #[arg(long, value_name = "FILE")]
    pub(crate) log_file: Option<PathBuf>,

    /// Turn the log file over before it is larger: FILE.1 is the one before; 0: never [default: 100M]
    #[arg(long, value_name = "SIZE", value_parser = values::size, requires = "log_file")]
    pub(crate) log_file_size: Option<u64>,

    /// Turn the log file over when it is older: 24h
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration, requires = "log_file")]
    pub(crate) log_file_age: Option<Duration>,

    /// How many log files before the present one are kept [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(..=1000), requires = "log_file")]
    pub(crate) log_file_keep: Option<u32>,

    /// What stands in front of a worker's line [default: worker on a terminal, none elsewhere]
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(crate) log_prefix: Option<Prefix>,

    /// The output ends on a terminal, though behind a pipe
    #[arg(long, hide = true)]
    pub(crate) log_terminal: bool,

    /// Whether lines of workers begin with the time, whatever holds for the log
    #[arg(long, hide = true)]
    pub(crate) log_line_time: Option<bool>,

    /// The output goes to the journal, though by a pipe: standard error, and standard output too if this is true
    #[arg(long, hide = true)]
    pub(crate) log_journal: Option<bool>,
}

impl OutputArgs {
    /// When the log file is turned over.
    pub(crate) fn turning(&self) -> Turning {
        let size = self.log_file_size.unwrap_or(LOG_FILE_BYTES);
        Turning {
            size: Some(size).filter(|size| *size > 0),
            age: self.log_file_age,
            keep: self.log_file_keep.unwrap_or(LOG_FILES_KEPT),
        }
    }

    /// What stands in front of lines.
    pub(crate) fn forming(&self, time: LogTime) -> Forming {
        Forming {
            is_json: false,
            prefix: self.log_prefix,
            time: self.log_line_time.or(match time {
                LogTime::Auto => None,
                LogTime::Always => Some(true),
                LogTime::Never => Some(false),
            }),
            is_terminal: self.log_terminal,
        }
    }
}

/// Whose lines are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Of all workers at a position, one after the other.
    Position(u32),
    /// Of one worker.
    Worker(u32),
}

impl Whose {
    /// Whether this worker is one of them.
    pub(crate) fn is(self, worker: WorkerId, position: Position) -> bool {
        match self {
            Self::Position(wanted) => position == Position(wanted),
            Self::Worker(wanted) => worker == WorkerId(wanted),
        }
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Position(position) => write!(f, "at position {position}"),
            Self::Worker(worker) => write!(f, "id:{worker}"),
        }
    }
}

impl FromStr for Whose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = match text.strip_prefix("id:") {
            Some(id) => id.parse().map(Self::Worker),
            None => text.parse().map(Self::Position),
        };
        read.map_err(|_| "use a position such as 0, or an id such as id:12".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_a_position_or_an_id() {
        assert_eq!("3".parse(), Ok(Whose::Position(3)));
        assert_eq!("id:12".parse(), Ok(Whose::Worker(12)));
        for text in ["", "-1", "id:", "id:x", "all"] {
            assert!(text.parse::<Whose>().is_err(), "{text}");
        }
    }
}
