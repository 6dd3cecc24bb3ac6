//! Says when an intercepted worker listens only where phalanx has no part in it: it answers, but nothing is
//! dispatched, and nothing of what waits there outlives the worker.

use phalanx_core::ids::WorkerId;

use crate::primary::state::Hub;

impl Hub {
    /// The worker was seen to listen, on nothing of the cluster's.
    pub(super) fn listens_unseen(&mut self, worker: WorkerId) {
        self.unseen.insert(worker);
        let message = "listens only where phalanx has no part in it, so far: through io_uring, on a Unix path \
                       that the command does not name, or in another network. Its connections are not \
                       dispatched, and a reload, which takes --allow-unseen, loses some: name the path with \
                       --share unix:PATH, or give it its listeners with --bind";
        self.error(worker, message.to_owned());
    }

    pub(super) fn lives_without_listener(&self, worker: WorkerId) -> bool {
        self.workers.contains_key(&worker) && self.machine.held(worker).next().is_none()
    }

    /// How many live workers listen only where phalanx has no part in it.
    pub(in crate::primary) fn unseen_count(&self) -> usize {
        let unseen = self.unseen.iter();
        unseen
            .filter(|&&id| self.lives_without_listener(id))
            .count()
    }
}
