//! The command line: what can be typed. Help, completions and man pages come from these definitions.
//!
//! Parse, don't validate: what leaves this module has the type that its user needs. What the options
//! mean for an app is decided in `run` and `program`.

mod admin;
mod config;
mod connections;
mod habits;
mod health;
mod limits;
mod logs;
mod metrics;
mod polite;
mod privileges;
mod recycle;
mod reload;
mod unit;
mod unknown;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use phalanx::fleet::ScaleTo;
use phalanx::{PolicyName, Serialization, Weights};

pub(crate) use admin::AdminArgs;
pub(crate) use config::{CheckArgs, ConfigArgs, DiffArgs, DownArgs, ImportArgs, InitArgs, UpArgs};
pub(crate) use connections::{Adopt, BindArgs, Dispatch, Listen};
pub(crate) use habits::translate;
pub(crate) use health::HealthArgs;
pub(crate) use limits::{LimitArgs, OnBootFailure};
pub(crate) use logs::{LogsArgs, OutputArgs, Whose};
pub(crate) use metrics::{MetricsArgs, MetricsFormat, ShowMetricsArgs};
pub(crate) use polite::PoliteArgs;
pub(crate) use privileges::PrivilegeArgs;
pub(crate) use recycle::{MemoryLimit, RebalanceArgs, RebalanceWhen, RecycleArgs, RecyclingArgs};
pub(crate) use reload::{ReloadArgs, RollbackArgs};
pub(crate) use unit::UnitArgs;
pub(crate) use unknown::explain;
pub(crate) use watch::WatchArgs;

use crate::values::{self, Variable, WorkerCount};
use phalanx_control::names::Name;
use phalanx_drill::DrillArgs;
#[cfg(feature = "top")]
use phalanx_top::TopArgs;

/// Put any server on every core, and never drop a request.
///
/// `phalanx run` starts an app in the foreground: a primary that supervises workers, shares the
/// incoming connections between them, and replaces them without losing a connection. The other commands
/// talk to a running app over its control socket.
#[derive(Debug, Parser)]
#[command(name = "phalanx", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    Run(Box<RunArgs>),
    Up(UpArgs),
    Down(DownArgs),
    Status(StatusArgs),
    List(ListArgs),
    Reload(ReloadArgs),
    Rollback(RollbackArgs),
    Scale(ScaleArgs),
    Recycle(RecycleArgs),
    Rebalance(RebalanceArgs),
    Policy(PolicyArgs),
    Stop(StopArgs),
    Send(SendArgs),
    Logs(LogsArgs),
    Events(EventsArgs),
    Metrics(ShowMetricsArgs),
    #[cfg(feature = "top")]
    Top(TopArgs),
    Drill(Box<DrillArgs>),
    Init(InitArgs),
    Check(CheckArgs),
    Diff(DiffArgs),
    Import(ImportArgs),
    Unit(Box<UnitArgs>),
    Generate(GenerateArgs),
    #[command(hide = true)]
    Engine(EngineArgs),
    #[command(hide = true)]
    Hold(EngineArgs),
}

/// Options about workers that phalanx starts itself.
const OF_OWN_WORKERS: [&str; 28] = [
    "workers",
    "bind",
    "publish",
    "share",
    "adopt",
    "ready",
    "watchdog",
    "serialization",
    "control",
    "spares",
    "max_memory",
    "max_age",
    "max_requests",
    "user",
    "metrics",
    "watch",
    "admin",
    "ready_timeout",
    "ready_quiet",
    "allow_fewer_listeners",
    "settle_timeout",
    "stop_signal",
    "kill_timeout",
    "max_surge",
    "max_unavailable",
    "max_draining",
    "max_starting",
    "soak",
];

/// Run a server as a cluster, in the foreground
///
/// `phalanx run server.js` runs a script with Node; `phalanx run -- ./server --flag` runs a program; `phalanx run api` runs the
/// app of that name in phalanx.toml, whose keys are the long options here. Options on the command line override the file.
/// Everything after COMMAND belongs to it. The app stops on SIGTERM (or Ctrl-C), reloads on SIGUSR2
/// or SIGHUP, and adds or removes a worker on SIGTTIN or SIGTTOU.
#[derive(Args, Debug)]
#[command(override_usage = "phalanx run [OPTIONS] [--] COMMAND [ARGS]...")]
pub(crate) struct RunArgs {
    /// The script or program, and its arguments
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_name = "COMMAND [ARGS]"
    )]
    pub(crate) command: Vec<OsString>,

    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// The script has a primary of its own, by Node's cluster: run it, and take its workers' connections
    ///
    /// How many workers there are, and when they are replaced, is the script's affair. It is started again when it fails. Signals
    /// are passed on; where it has no handler, SIGUSR2 and SIGHUP replace its workers, SIGTERM and SIGINT let them finish and end it.
    #[arg(long, conflicts_with_all = OF_OWN_WORKERS)]
    pub(crate) primary: bool,

    /// Number of workers; auto: one per processor that this process may use; 2..8: between these, by their load
    #[arg(
        short = 'n',
        long,
        value_name = "N|auto|MIN..MAX",
        default_value = "auto"
    )]
    pub(crate) workers: WorkerCount,

    /// Who chooses the worker for a connection
    ///
    /// round-robin (rr): each worker in turn. weighted (wrr): by --weights. least-connections (least):
    /// fewest open connections. fastest (ewma): lowest response time × (outstanding + 1). power-of-two
    /// (p2c): the better of two. source-hash (sticky): by client address. random (rand). none (os): the
    /// operating system. Without this option, `NODE_CLUSTER_SCHED_POLICY=none` or `rr` decides, as for
    /// Node's cluster.
    #[arg(long, value_parser = values::policy(), help_heading = "Connections")]
    pub(crate) policy: Option<PolicyName>,

    /// Weights by position for --policy weighted: 3,1,1. Positions that are not listed weigh 1
    #[arg(long, value_name = "N,…", help_heading = "Connections")]
    pub(crate) weights: Option<Weights>,

    /// How connections reach the workers
    #[arg(long, value_enum, default_value_t, help_heading = "Connections")]
    pub(crate) dispatch: Dispatch,

    #[command(flatten)]
    pub(crate) bound: BindArgs,

    /// How the program becomes a worker
    #[arg(long, value_enum, default_value_t, help_heading = "Connections")]
    pub(crate) adopt: Adopt,

    /// Name of the app, for the other commands [default: the script's or program's, without extension]
    #[arg(long, env = "PHALANX_NAME", hide_env_values = true)]
    pub(crate) name: Option<Name>,

    /// Set an environment variable of the workers; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::variable())]
    pub(crate) env: Vec<Variable>,

    /// Working directory of the workers
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) cwd: Option<PathBuf>,

    /// The Node that runs scripts [default: node, found in PATH]
    #[arg(
        long,
        value_name = "PROGRAM",
        env = "PHALANX_NODE",
        hide_env_values = true
    )]
    pub(crate) node: Option<OsString>,

    /// Format of messages to and from Node workers: json, or V8's own, advanced [default: what Node's variable says, or json]
    #[arg(long, value_name = "FORMAT", value_parser = values::serialization)]
    pub(crate) serialization: Option<Serialization>,

    /// Write the primary's pid to this file, and remove the file at the end
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,

    /// Also take commands in this way; can be repeated
    #[arg(long, value_name = "WAY", value_enum)]
    pub(crate) control: Vec<ControlWay>,

    /// Give each worker a cgroup of its own, so that nothing it starts can outlive it
    #[arg(long, value_enum, default_value_t)]
    pub(crate) cgroup: Cgroups,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    #[command(flatten)]
    pub(crate) recycling: RecyclingArgs,

    #[command(flatten)]
    pub(crate) health: HealthArgs,

    #[command(flatten)]
    pub(crate) privileges: PrivilegeArgs,

    #[command(flatten)]
    pub(crate) metrics: MetricsArgs,

    #[command(flatten)]
    pub(crate) polite: PoliteArgs,

    #[command(flatten)]
    pub(crate) watch: WatchArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,

    #[command(flatten)]
    pub(crate) admin: AdminArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,

    /// Seed of the jitter in waiting times
    #[arg(long, hide = true)]
    pub(crate) seed: Option<u64>,
}

#[derive(Args, Debug)]
#[command(next_help_heading = "Log")]
pub(crate) struct LogArgs {
    /// Format of the log on standard error
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,

    /// Whether lines of text begin with the time, in UTC
    #[arg(long, value_enum, default_value_t)]
    pub(crate) log_time: LogTime,

    /// Log more: each step of each worker; twice: internal details
    #[arg(short, long, action = ArgAction::Count)]
    pub(crate) verbose: u8,

    /// Log less: warnings only; twice: errors only
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "verbose")]
    pub(crate) quiet: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ControlWay {
    /// Lines on standard input: reload, rollback, scale N, status, stop
    Stdin,
    /// Deleting the pid file reloads the app
    PidFile,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Cgroups {
    /// Where systemd has delegated it, or there is no systemd and no limit that workers might look for
    #[default]
    Auto,
    /// Never
    Off,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogTime {
    /// Unless journald takes the log, which adds its own
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Which app a command is for.
#[derive(Args, Debug)]
pub(crate) struct AppArgs {
    /// Name of the app; not needed if only one is running
    #[arg(long, env = "PHALANX_NAME", hide_env_values = true)]
    pub(crate) name: Option<Name>,
}

/// Show the state of an app and its workers
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,

    /// Print JSON in the format that docs/status-schema.md describes
    #[arg(long)]
    pub(crate) json: bool,
}

/// List the running apps
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Print JSON: an array with one status object per app
    #[arg(long)]
    pub(crate) json: bool,
}

/// Change the number of workers
///
/// Waits until the new workers are ready, or the surplus workers are gone.
#[derive(Args, Debug)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,

    /// The new number, or how many more or fewer
    #[arg(value_name = "N|+N|-N", value_parser = values::scale_to, allow_negative_numbers = true)]
    pub(crate) workers: ScaleTo,
}

/// Show the policy of an app, or change it
///
/// The change takes effect with the next connection, on all listeners. No connection is lost.
#[derive(Args, Debug)]
pub(crate) struct PolicyArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,

    /// The new policy
    #[arg(value_parser = values::policy())]
    pub(crate) policy: Option<PolicyName>,

    /// Weights by position, for the policy weighted: 3,1,1. Positions that are not listed weigh 1
    #[arg(long, value_name = "N,…", requires = "policy")]
    pub(crate) weights: Option<Weights>,
}

/// Stop an app, and wait until it has ended
///
/// Workers finish their requests within the time that `run --drain-timeout` allows.
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,

    /// Do not wait for requests in service
    #[arg(long)]
    pub(crate) fast: bool,
}

/// Send a message to all workers, or to one
///
/// A Node worker receives it in `process.on('message', …)`.
#[derive(Args, Debug)]
pub(crate) struct SendArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,

    /// Id of the worker to send to, as `status` shows it
    #[arg(long, value_name = "ID")]
    pub(crate) to: Option<u32>,

    /// The message: any JSON value
    #[arg(value_name = "JSON", value_parser = values::json, allow_negative_numbers = true)]
    pub(crate) message: serde_json::Value,
}

/// Print what happens in an app, one JSON object per line, until interrupted
#[derive(Args, Debug)]
pub(crate) struct EventsArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
}

/// Generate shell completions, man pages or the schema of phalanx.toml
#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    #[command(subcommand)]
    pub(crate) what: Generated,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Generated {
    /// Print the completions for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the JSON schema of phalanx.toml
    Schema,
    /// Print the keys of phalanx.toml, as Markdown
    Keys,
    /// Write the man pages into a directory, and create it if it is missing
    Man {
        /// The directory
        directory: PathBuf,
    },
}

/// Take the connections of a program that uses Node's cluster
///
/// The npm package phalanx-cluster starts it, with a socket as descriptor 3.
#[derive(Args, Debug)]
pub(crate) struct EngineArgs {
    /// Name of the app, for the other commands; without one it has no control socket
    #[arg(long, env = "PHALANX_NAME", hide_env_values = true)]
    pub(crate) name: Option<Name>,

    /// Who chooses the worker for a connection
    #[arg(long, env = "PHALANX_POLICY", value_parser = values::policy())]
    pub(crate) policy: Option<PolicyName>,

    /// Weights by position
    #[arg(long, env = "PHALANX_WEIGHTS")]
    pub(crate) weights: Option<Weights>,

    /// How connections reach the workers
    #[arg(long, env = "PHALANX_DISPATCH", value_enum, default_value_t)]
    pub(crate) dispatch: Dispatch,

    /// Who opens what workers listen on
    #[arg(long, env = "PHALANX_LISTEN", value_enum, default_value_t)]
    pub(crate) listen: Listen,

    /// How long workers may take to leave
    #[arg(long, env = "PHALANX_DRAIN_TIMEOUT", value_parser = values::positive_duration)]
    pub(crate) drain_timeout: Option<Duration>,

    /// Leave out the script that lets workers drain politely
    #[arg(long)]
    pub(crate) no_preload: bool,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// Whether the program of these words of `phalanx run` opens ports of which they do not say where they
/// shall be. Words that cannot be read are for `phalanx run` to refuse.
pub(crate) fn opens_unpublished_ports(words: Vec<OsString>) -> bool {
    let Ok(Cli {
        verb: Verb::Run(run),
        ..
    }) = Cli::try_parse_from(words)
    else {
        return false;
    };
    let opens_ports = match run.adopt {
        Adopt::Auto => run.bound.bind.is_empty(),
        Adopt::Channel | Adopt::Intercept => true,
        Adopt::Activation | Adopt::None => false,
    };
    opens_ports && run.bound.publish.iter().all(|rule| rule.app_port.is_some())
}

#[cfg(test)]
mod tests;
