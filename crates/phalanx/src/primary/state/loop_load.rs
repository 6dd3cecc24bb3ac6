//! How busy the event loops of Node workers are, where the size of the fleet follows the load. Their preloaded script tells once a second. A
//! loop that is blocked tells nothing: what was told long ago counts no more.

use std::collections::BTreeMap;
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::ids::WorkerId;
use phalanx_core::wire::outgoing;

use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::state::Hub;
use crate::primary::{Cluster, clock};

/// What was told counts for so long.
const FRESH: Duration = Duration::from_millis(2500);

/// What was told last, and when.
#[derive(Debug, Default)]
pub(in crate::primary) struct LoopLoads {
    wanted: bool,
    told: BTreeMap<WorkerId, (Moment, u32)>,
}

impl Cluster {
    /// Has workers tell how busy their event loops are, those to come.
    pub(crate) fn watch_loops(&self) {
        self.shared.hub().loops.wanted = true;
    }

    /// How busy the worker's event loop was of late, in thousandths of the time; nothing where that is not known.
    pub(crate) fn loop_busy(&self, worker: WorkerId) -> Option<u32> {
        let hub = self.shared.hub();
        let (at, busy) = hub.loops.told.get(&worker)?;
        (clock::now().since(*at) <= FRESH).then_some(*busy)
    }
}

impl Hub {
    /// A worker is online: it is asked, if that is of interest.
    pub(super) fn ask_loop(&mut self, worker: WorkerId) {
        if !self.loops.wanted {
            return;
        }
        if let Some(channel) = self.channel_mut(worker) {
            let number = channel.next_seq();
            channel.queue(Outgoing {
                bytes: outgoing::watch_loop(true, number),
                handle: None,
            });
        }
    }

    /// A worker tells how busy its loop was.
    pub(super) fn loop_told(&mut self, worker: WorkerId, busy: u32) {
        if self.loops.wanted {
            let here = &self.workers;
            self.loops
                .told
                .retain(|worker, _| here.contains_key(worker));
            self.loops.told.insert(worker, (clock::now(), busy));
        }
    }
}
