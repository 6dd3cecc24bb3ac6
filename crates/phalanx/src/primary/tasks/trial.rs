//! Waits for what comes of a listener on port 0: whose it is to be is decided by `phalanx-core` (`dispatch/any_port.rs`).

use std::time::Duration;

use phalanx_core::ids::WorkerId;
use phalanx_sys::process::{Pid, is_busy};

use crate::primary::clock;
use crate::primary::mailbox::Mailbox;

/// For how long the first worker that listens on port 0 may open another listener, which makes the one on
/// port 0 private.
const TRIAL: Duration = Duration::from_secs(1);
/// After that it has to be seen to do nothing in so many looks, that are so far apart: a program that the machine
/// lets wait for a processor is not quiet.
const QUIET_LOOKS: u32 = 3;
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// A program that is busy all the time serves by then.
const TRIAL_MAX: Duration = Duration::from_secs(10);

/// Watches the worker that has opened one until it is quiet, or for as long as a trial may last. One that is gone is not
/// waited for.
pub(in crate::primary) fn watch(mailbox: Mailbox, worker: WorkerId, pid: Option<Pid>) {
    tokio::spawn(async move {
        if let Some(pid) = pid {
            wait_for_quiet(pid).await;
        }
        if let Some(primary) = mailbox.open() {
            primary.end_trial(worker);
        }
    });
}

async fn wait_for_quiet(pid: Pid) {
    let begun = clock::now();
    let mut next = begun + TRIAL;
    let mut quiet_looks = 0;
    while quiet_looks < QUIET_LOOKS && next < begun + TRIAL_MAX {
        clock::sleep_until(next).await;
        let busy = tokio::task::spawn_blocking(move || is_busy(pid)).await;
        quiet_looks = if busy.unwrap_or(false) {
            0
        } else {
            quiet_looks + 1
        };
        next = clock::now() + LOOK_INTERVAL;
    }
}

/// Waits until it may be known whose a socket on port 0 is.
pub(in crate::primary) async fn wait(mailbox: &Mailbox) {
    let Some(decided) = mailbox.open().map(|primary| primary.any_port_decided()) else {
        return;
    };
    // What was decided since the question is found out at the end of the trial.
    let limit = clock::now() + TRIAL;
    let _is_decided = clock::timeout_at(limit, decided.notified()).await;
}
