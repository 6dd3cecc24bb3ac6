//! What workers occupy together with the processes that they have started, for the limit of memory.
//!
//! Memory that a family shares (pages from before a fork) counts once. That is slow to find out, so it is done beside the loop, and for workers
//! that have started something, as whoever looks after their trees has found out. The others cost nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use phalanx_core::ids::WorkerId;
use phalanx_sys::limits::{proportional_bytes, resident_bytes};
use phalanx_sys::process::{Pid, family_of};
use tokio::task::JoinHandle;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Families {
    /// What families of more than one take, in bytes.
    taken: Arc<Mutex<BTreeMap<WorkerId, u64>>>,
    looking: Option<JoinHandle<()>>,
}

impl Families {
    /// What the worker takes with its children, as it was found last; nothing where it has none.
    pub(super) fn taken_by(&self, worker: WorkerId) -> Option<u64> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.get(&worker).copied()
    }

    /// Has a look at these, who have started something, unless the last one goes on still. Needs a runtime around it.
    pub(super) fn look(&mut self, workers: Vec<(WorkerId, Pid)>) {
        let looks = |task: &JoinHandle<()>| !task.is_finished();
        if self.looking.as_ref().is_some_and(looks) {
            return;
        }
        let are_known = {
            let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            !taken.is_empty()
        };
        if workers.is_empty() && !are_known {
            return;
        }
        let taken = Arc::clone(&self.taken);
        self.looking = Some(tokio::task::spawn_blocking(move || {
            let found = workers.into_iter();
            let found = found.filter_map(|(worker, pid)| Some((worker, family_bytes(pid)?)));
            let found = found.collect();
            *taken.lock().unwrap_or_else(PoisonError::into_inner) = found;
        }));
    }
}

/// Nothing for one without children.
fn family_bytes(pid: Pid) -> Option<u64> {
    let family = family_of(pid);
    // One that may not be looked at counts with all that it has.
    let bytes = |&pid: &Pid| {
        proportional_bytes(pid)
            .or_else(|_| resident_bytes(pid))
            .ok()
    };
    (family.len() > 1).then(|| family.iter().filter_map(bytes).sum())
}
