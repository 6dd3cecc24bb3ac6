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
/// the exit status is 1. With --canary some workers are replaced first and watched: they must not
/// crash or hang, or answer with more server errors or more slowly than the others. Then the others
/// follow, or the old release comes back.
#[derive(Args, Debug)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,

    /// Workers to replace first and to watch: a number, or a percentage
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

    /// Extra workers during this reload, in place of what run was told
    #[arg(long, value_name = "N|N%")]
    pub(crate) max_surge: Option<Amount>,

    /// Missing workers during this reload, in place of what run was told
    #[arg(long, value_name = "N|N%")]
    pub(crate) max_unavailable: Option<Amount>,

    /// Accept new workers that do not open all listeners of the old ones, when their time to become ready is over
    #[arg(long)]
    pub(crate) allow_fewer_listeners: bool,

    /// Reload workers that listen only where phalanx has no part in it, although that loses connections
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

/// Return to the release before the present one
///
/// Replaces all workers by those of the release that the last reload replaced, as carefully as a
/// reload. During a reload it undoes that instead. There is one way back: after a rollback, only a
/// reload leads on.
#[derive(Args, Debug)]
pub(crate) struct RollbackArgs {
    #[command(flatten)]
    pub(crate) app: AppArgs,
}
