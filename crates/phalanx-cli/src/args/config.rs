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

    /// The profile of the configuration file: [profile.P.app.NAME] overrides [app.NAME]
    #[arg(
        long,
        value_name = "P",
        env = "PHALANX_PROFILE",
        hide_env_values = true
    )]
    pub(crate) profile: Option<String>,
}

/// Write a first phalanx.toml
///
/// It describes the script or program on the command line, or the one that package.json and similar files in this directory name.
/// An existing file is not changed. The first line names the schema, so that editors can complete and check the file.
#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// The script or program, and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND [ARGS]")]
    pub(crate) command: Vec<String>,

    /// Print it instead of writing a file
    #[arg(long)]
    pub(crate) print: bool,
}

/// Check phalanx.toml, and report every error in it
///
/// Each line names file, line and column. Programs and scripts are looked up, but nothing is started. The exit status is 78 if
/// there are errors.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Print JSON: an array of the errors
    #[arg(long)]
    pub(crate) json: bool,
}

/// Show what a reload would change in the running apps, by app and key
///
/// Values of environment variables are not shown.
#[derive(Args, Debug)]
pub(crate) struct DiffArgs {
    /// The apps [default: all apps in the file]
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
/// Each app has its own primary. The other commands find it by its name. There is one log, and each line begins with the
/// name of its app. SIGTERM (or Ctrl-C) stops all apps; SIGHUP and SIGUSR2 reload all apps.
#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    /// The apps [default: all apps in the file]
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
    /// The apps [default: all apps in the file]
    #[arg(value_name = "APP")]
    pub(crate) apps: Vec<Name>,

    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Do not wait for requests in service
    #[arg(long)]
    pub(crate) fast: bool,
}

/// Print a phalanx.toml made from another tool's configuration
///
/// Reads PM2's ecosystem.config.js (by running Node once) or .json, a Procfile, a gunicorn.conf.py or a config/puma.rb in the
/// common form. Comments name the settings that have no counterpart, with the reason.
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
