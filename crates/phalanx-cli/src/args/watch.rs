//! What can be typed about reloading when files change.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::values;

#[derive(Args, Debug)]
#[command(next_help_heading = "Development")]
pub(crate) struct WatchArgs {
    /// Reload when a file below the working directory changes
    ///
    /// Names that begin with a dot, `node_modules`, `target`, `__pycache__`, `*.log`, `*.pid`, `*.sock`, `*.swp` and `*~` are passed over, links are
    /// not followed. A reload that fails leaves the old workers serving, and the next change tries again.
    #[arg(long)]
    pub(crate) watch: bool,

    /// Watch this file or directory instead of the working directory; can be repeated
    #[arg(long, value_name = "PATH", requires = "watch")]
    pub(crate) watch_path: Vec<PathBuf>,

    /// Pass over files and directories of this name, as `uploads` or `*.sqlite`; can be repeated
    #[arg(long, value_name = "NAME", requires = "watch")]
    pub(crate) watch_ignore: Vec<String>,

    /// How long nothing must have changed before the reload
    #[arg(long, value_name = "TIME", default_value = "200ms", value_parser = values::duration)]
    pub(crate) watch_delay: Duration,
}
