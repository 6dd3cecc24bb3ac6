//! The options of `phalanx run` that set limits.

use std::num::NonZeroU32;
use std::time::Duration;

use clap::{Args, ValueEnum};
use phalanx::Signal;
use phalanx::fleet::Amount;

use crate::values;

#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// How long a worker may take to become ready
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::positive_duration)]
    pub(crate) ready_timeout: Duration,

    /// How long a worker of the first generation opens no further listener before it counts as ready
    ///
    /// Later workers are ready as soon as they have the listeners that those before them had.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = values::duration)]
    pub(crate) ready_quiet: Duration,

    /// Accept a release that does not open all listeners of the one before, when --ready-timeout is over
    #[arg(long)]
    pub(crate) allow_fewer_listeners: bool,

    /// How long a worker may take to finish its work before it is told to stop; 0s: no time
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub(crate) drain_timeout: Duration,

    /// How long a worker without a channel may take to finish its connections before it is told to stop
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = values::duration)]
    pub(crate) settle_timeout: Duration,

    /// The signal that tells a worker to stop: a name or a number
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = values::signal)]
    pub(crate) stop_signal: Signal,

    /// How long a worker that was told to stop may take before it is killed
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = values::positive_duration)]
    pub(crate) kill_timeout: Duration,

    /// Workers that are kept ready without connections, and take the position of one that crashes, hangs or is recycled at once
    ///
    /// They come besides --workers, are of the newest release, and go first in a reload. For a program that does its work without
    /// being asked (--adopt none), or where all workers share one socket (--dispatch shared), there can be none.
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) spares: u32,

    /// Extra workers during a reload: a number, or a percentage
    #[arg(long, value_name = "N|N%", default_value = "1")]
    pub(crate) max_surge: Amount,

    /// Missing workers during a reload: a number, or a percentage
    #[arg(long, value_name = "N|N%", default_value = "0")]
    pub(crate) max_unavailable: Amount,

    /// Workers that finish their work and are not counted as extra: a number, or a percentage
    /// [default: 100%, or 0 with --max-surge 0]
    #[arg(long, value_name = "N|N%")]
    pub(crate) max_draining: Option<Amount>,

    /// Workers that start at the same moment [default: 8 for each processor, at least 16]
    #[arg(long, value_name = "N")]
    pub(crate) max_starting: Option<NonZeroU32>,

    /// How long the first new workers of a reload must have served before they get connections
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = values::duration)]
    pub(crate) soak: Duration,

    /// What to do when no worker can be started at the beginning
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    pub(crate) on_boot_failure: OnBootFailure,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnBootFailure {
    /// End with status 1 and the failed worker's last output
    #[default]
    Exit,
    /// Keep trying, waiting longer each time
    Retry,
}
