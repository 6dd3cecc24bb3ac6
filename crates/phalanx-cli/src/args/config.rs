//! What can be typed about `phalanx.toml`.

use std::path::PathBuf;

use clap::Args;

use super::LogArgs;
use phalanx_control::names::Name;

/// Which file, and which part of it.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Configuration file")]
pub(crate) struct ConfigArgs {
    /// The configuration file [default: phalanx.toml here, or in the nearest directory above]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The profile of the configuration file: [profile.P.app.NAME] comes over [app.NAME]
    #[arg(
        long,
        value_name = "P",
        env = "PHALANX_PROFILE",
        hide_env_values = true
    )]
    pub(crate) profile: Option<String>,
}

/// Write a phalanx.toml to begin with
///
/// For the script or program that is named, or for what package.json and the like in this directory say. A file that is there
/// is left alone. The first line names the schema, by which editors complete and check it.
#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// The script or program, and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND [ARGS]")]
    pub(crate) command: Vec<String>,

    /// Print it instead
    #[arg(long)]
    pub(crate) print: bool,
}

/// Check phalanx.toml, and tell all that is wrong with it
///
/// Each line names file, line and column. Programs and scripts are looked up, nothing is started. Exit status 78 when
/// something is wrong.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Print JSON: an array of what is wrong
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what a reload would change in the running apps, by app and key
///
/// Values of variables are not shown.
#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// The apps [default: all of the file]
    #[arg(value_name = "APP")]
    pub(crate) apps: Vec<Name>,

    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Print JSON: one object for each app
    #[arg(long)]
    pub(crate) json: bool,
}

/// Run the apps of phalanx.toml together, in the foreground
///
/// Each app has a primary of its own, and answers to the other commands by its name. There is one log, with the app in front
/// of each line. SIGTERM (or Ctrl-C) stops all of them, SIGHUP and SIGUSR2 reload all of them.
#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// The apps [default: all of the file]
    #[arg(value_name = "APP")]
    pub(crate) apps: Vec<Name>,

    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    #[command(flatten)]
    pub(crate) log: LogArgs,
}

/// Stop the running apps of phalanx.toml, and wait until they have ended
#[derive(Args, Debug)]
pub(crate) struct DownArgs {
    /// The apps [default: all of the file]
    #[arg(value_name = "APP")]
    pub(crate) apps: Vec<Name>,

    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Give the workers no time to finish
    #[arg(long)]
    pub(crate) fast: bool,
}

/// Print a phalanx.toml made of another tool's configuration
///
/// PM2's ecosystem.config.js (Node is run once, to read it) or .json, a Procfile, a gunicorn.conf.py or a config/puma.rb in the
/// common form. What has no counterpart is named in a comment, with the reason.
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// The file
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,

    /// The Node that reads an ecosystem.config.js [default: node, found in PATH]
    #[arg(
        long,
        value_name = "PROGRAM",
        env = "PHALANX_NODE",
        hide_env_values = true
    )]
    pub(crate) node: Option<PathBuf>,
}
