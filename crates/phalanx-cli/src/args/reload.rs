//! What can be typed to replace all workers.

use std::time::Duration;

use clap::Args;
use phalanx::fleet::Amount;
use phalanx_control::api::{NumberOrText, Reload};

use super::AppArgs;
use crate::values;

/// Replace all workers, one by one, without losing a request
///
/// Waits until every worker is replaced. If a new worker fails, the old ones stay or come back, and
/// the exit status is 1. With --canary, it replaces some workers first and watches them: they must not
/// crash or hang, and must not answer more slowly or with more server errors than the others. Then it replaces
/// the others, or returns to the old release.
#[derive(Args, Debug)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,

    /// Workers to replace first and watch: a number, or a percentage
    #[arg(long, value_name = "N|N%", value_parser = values::some_workers)]
    pub(crate) canary: Option<Amount>,

    /// How long to watch them
    #[arg(
        long = "for",
        value_name = "TIME",
        default_value = "60s",
        value_parser = values::duration,
        requires = "canary"
    )]
    pub(crate) watch: Duration,

    /// Extra workers during this reload, instead of the value given to run
    #[arg(long, value_name = "N|N%")]
    pub(crate) max_surge: Option<Amount>,

    /// Missing workers during this reload, instead of the value given to run
    #[arg(long, value_name = "N|N%")]
    pub(crate) max_unavailable: Option<Amount>,

    /// Accept new workers that have not opened all listeners of the old ones when their ready timeout is over
    #[arg(long)]
    pub(crate) allow_fewer_listeners: bool,

    /// Reload workers whose listeners phalanx does not manage, although that loses connections
    #[arg(long)]
    pub(crate) allow_unseen: bool,
}

impl ReloadArgs {
    pub(crate) fn request(&self) -> Reload {
        let watch_ms = u64::try_from(self.watch.as_millis()).unwrap_or(u64::MAX);
        Reload {
            canary: self.canary.map(NumberOrText::from),
            watch_ms: self.canary.map(|_| watch_ms),
            max_surge: self.max_surge.map(NumberOrText::from),
            max_unavailable: self.max_unavailable.map(NumberOrText::from),
            allow_fewer_listeners: self.allow_fewer_listeners,
            allow_unseen: self.allow_unseen,
        }
    }
}

/// Return to the previous release
///
/// Replaces all workers by workers of the release that the last reload replaced, as carefully as a
/// reload does. During a reload, it undoes that reload. It goes back one release only: after a rollback,
/// use a reload to go forward.
#[derive(Args, Debug)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
}
