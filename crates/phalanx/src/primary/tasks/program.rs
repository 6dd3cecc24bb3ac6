//! Has the eBPF program of the next listener loaded for whoever waits for it. The kernel takes its time to verify it, so that is
//! done where blocking is allowed.

use phalanx_sys::steering::Steering;

use crate::primary::mailbox::{Mailbox, Query};

/// One after the other: whoever has waited for a program takes it before the next is loaded.
static TURNS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Loads it, where blocking is allowed.
pub(in crate::primary) fn prepare(steering: &Steering) {
    if let Err(error) = steering.prepare() {
        tracing::debug!(%error, "no program is kept ready for the next listener");
    }
}

/// Waits until there is a program for the next listener; somebody else may be faster, and take it.
pub(in crate::primary) async fn have(mailbox: &Mailbox) {
    let _turn = TURNS.lock().await;
    load(mailbox).await;
}

async fn load(mailbox: &Mailbox) {
    let lacking = mailbox.open().map(|primary| primary.lacking_program());
    if let Some(steering) = lacking.flatten() {
        // It fails when the runtime ends.
        let _loaded = tokio::task::spawn_blocking(move || prepare(&steering)).await;
    }
}

/// Asks for a listener until that had the program that it needs.
pub(in crate::primary) async fn ask_again(mailbox: Mailbox, mut query: Query) {
    let _turn = TURNS.lock().await;
    while let Some(primary) = mailbox.open() {
        let Some(unanswered) = primary.ask_again(query) else {
            return;
        };
        query = unanswered;
        drop(primary);
        load(&mailbox).await;
    }
}
