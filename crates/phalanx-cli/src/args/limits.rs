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

    /// How long a worker of the first generation must open no further listener before it counts as ready
    ///
    /// Later workers are ready as soon as they have the listeners of their predecessors.
    #[arg(long, value_name = "TIME", default_value = "100ms", value_parser = values::duration)]
    pub(crate) ready_quiet: Duration,

    /// After --ready-timeout, accept a release that does not open all listeners of the previous one
    #[arg(long)]
    pub(crate) allow_fewer_listeners: bool,

    /// How long a worker may take to finish its requests before it is told to stop; 0s: no time
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub(crate) drain_timeout: Duration,

    /// How long a worker without a channel may take to close its connections before it is told to stop
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = values::duration)]
    pub(crate) settle_timeout: Duration,

    /// The signal that tells a worker to stop: a name or a number
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = values::signal)]
    pub(crate) stop_signal: Signal,

    /// How long a worker may take to stop before it is killed
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

    /// Draining workers that do not count as extra: a number, or a percentage
    /// [default: 100%, or 0 with --max-surge 0]
    #[arg(long, value_name = "N|N%")]
    pub(crate) max_draining: Option<Amount>,

    /// Workers that may start at the same time [default: 8 per processor, at least 16]
    #[arg(long, value_name = "N")]
    pub(crate) max_starting: Option<NonZeroU32>,

    /// How long the first new workers of a reload must run before they get connections
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = values::duration)]
    pub(crate) soak: Duration,

    /// What to do if no worker becomes ready at the start
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    pub(crate) on_boot_failure: OnBootFailure,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnBootFailure {
    /// Exit with status 1 and the failed worker's last output
    #[default]
    Exit,
    /// Keep trying, and wait longer each time
    Retry,
}
