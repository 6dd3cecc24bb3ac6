//! What workers occupy together with the processes that they have started, for the limit of memory.
//!
//! Memory that a family shares (pages from before a fork) counts once. That is slow to find out, so it is done beside the loop, and for workers
//! that have started something; whether one has is looked up every few seconds. The others cost nothing but that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use phalanx_core::ids::WorkerId;
use phalanx_sys::limits::{proportional_bytes, resident_bytes};
use phalanx_sys::process::{Pid, family_of};
use tokio::task::JoinHandle;

/// Every so many looks it is looked up who has started something.
const SEARCH: u32 = 5;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Families {
    /// What families of more than one take, in bytes.
    taken: Arc<Mutex<BTreeMap<WorkerId, u64>>>,
    looking: Option<JoinHandle<()>>,
    looks: u32,
}

impl Families {
    /// What the worker takes with its children, as it was found last; nothing where it has none.
    pub(super) fn taken_by(&self, worker: WorkerId) -> Option<u64> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.get(&worker).copied()
    }

    /// Has a look at these, unless the last one goes on still. Needs a runtime around it.
    pub(super) fn look(&mut self, workers: Vec<(WorkerId, Pid)>) {
        if self
            .looking
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            return;
        }
        let searches = self.looks.is_multiple_of(SEARCH);
        self.looks = self.looks.wrapping_add(1);
        let known: BTreeSet<WorkerId> = {
            let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
            taken.keys().copied().collect()
        };
        let wanted: Vec<_> = workers
            .into_iter()
            .filter(|(worker, _)| searches || known.contains(worker))
            .collect();
        if wanted.is_empty() && known.is_empty() {
            return;
        }
        let taken = Arc::clone(&self.taken);
        self.looking = Some(tokio::task::spawn_blocking(move || {
            let found = wanted.into_iter();
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
