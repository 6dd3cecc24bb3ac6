//! Options of `run` on how workers take their leave from clients.

use std::time::Duration;

use clap::Args;

use crate::values;

#[derive(Args, Debug)]
#[command(next_help_heading = "Limits")]
pub(crate) struct PoliteArgs {
    /// How long upgraded connections and server-sent events may continue after --drain-timeout; 0s: not at all
    ///
    /// Works for Node workers, and for Rust workers that use the library's serve functions.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = values::duration)]
    pub(crate) stream_timeout: Duration,

    /// Do not load the script that lets Node workers close their connections politely
    #[arg(long, help_heading = "Connections")]
    pub(crate) no_preload: bool,
}
