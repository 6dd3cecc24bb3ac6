//! What can be typed about units of systemd.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::ConfigArgs;
use crate::values;
use phalanx_control::names::Name;

/// Print a systemd unit for an app, or install it
///
/// The unit runs an app of phalanx.toml, a script or a program. If phalanx.toml has several apps and you name none, it runs all of
/// them (`phalanx up`). `systemctl start` waits until the app is ready. `systemctl reload` is a rolling restart and reports its
/// failure to systemd. Works with systemd 245 and later.
#[derive(Args, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of the command line"
)]
#[command(override_usage = "phalanx unit [OPTIONS] [APP | [--] COMMAND [ARGS]...]")]
pub(crate) struct UnitArgs {
    /// An app of phalanx.toml, or a script or program with its arguments; their own options follow --
    #[arg(value_name = "APP | COMMAND [ARGS]")]
    pub(crate) command: Vec<OsString>,

    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// Name of the unit [default: the app's; for several apps the directory's]
    #[arg(long)]
    pub(crate) name: Option<Name>,

    /// Use this user's service manager, not the system's
    #[arg(long)]
    pub(crate) user: bool,

    /// Run the service as this user, primary and workers [default: the owner of the configuration file or the directory]
    #[arg(long, value_name = "USER[:GROUP]", conflicts_with = "user", value_parser = values::account_name)]
    pub(crate) run_as: Option<String>,

    /// Let systemd open the listener with a socket unit; can be repeated
    ///
    /// ADDRESS as in ListenStream=: a port, an address and a port, or a path. Connections then wait while the service restarts, but the
    /// kernel cannot choose the worker: see docs/systemd.md.
    #[arg(long, value_name = "ADDRESS", value_parser = values::listen_stream)]
    pub(crate) listen: Vec<String>,

    /// Let the service open ports below 1024 (`CAP_NET_BIND_SERVICE`)
    #[arg(long, conflicts_with = "user")]
    pub(crate) low_ports: bool,

    /// Let the primary choose workers in the kernel (`CAP_BPF` and `CAP_PERFMON`; workers do not get them)
    #[arg(long, conflicts_with = "user")]
    pub(crate) kernel: bool,

    /// Write the units to systemd's directory, and enable them
    #[arg(long)]
    pub(crate) install: bool,

    /// Write the units into this directory instead, and do nothing else
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "install")]
    pub(crate) directory: Option<PathBuf>,

    /// Replace a unit that this command did not write
    #[arg(long)]
    pub(crate) force: bool,
}
