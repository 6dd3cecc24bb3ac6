//! Workers on their way out: each has its [`Drain`], from the moment in which it is asked to leave until it is told, or
//! is no more to be told.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Effect, Machine, StandingOf};
use crate::dispatch::drain::{Drain, Observed, Step};
use crate::dispatch::worker::Ending;
use crate::ids::WorkerId;

/// One worker's way out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "Handshake: Deserialize<'de> + Ord"))]
pub(super) struct Departure<Handshake> {
    drain: Drain<Handshake>,
    since: Duration,
}

impl<Handshake> Machine<Handshake> {
    /// The worker is asked to leave, in this order.
    pub fn departs(
        &mut self,
        worker: WorkerId,
        drain: Drain<Handshake>,
        now: Duration,
    ) -> Vec<Effect> {
        let departure = Departure { drain, since: now };
        self.departures.insert(worker, departure);
        vec![Effect::LookAtLeaver { worker, at: now }]
    }

    /// Since when the worker is on its way out. Nothing when it was told to leave, or is not asked to.
    #[must_use]
    pub fn departs_since(&self, worker: WorkerId) -> Option<Duration> {
        self.departures
            .get(&worker)
            .map(|departure| departure.since)
    }
}

impl<Handshake: Ord + Copy> Machine<Handshake> {
    /// Takes down what there is to see of a worker that leaves, and says what is to be done about it.
    pub fn sees_leaver(
        &mut self,
        worker: WorkerId,
        observed: &Observed<'_, Handshake>,
        now: Duration,
        standing: StandingOf<'_>,
    ) -> Vec<Effect> {
        let stands = standing(worker);
        let leaves =
            stands.is_some_and(|stands| stands.is_connected() && stands.ending() < Ending::Stopped);
        if !leaves {
            self.departures.remove(&worker);
            return Vec::new();
        }
        let Some(departure) = self.departures.get_mut(&worker) else {
            return Vec::new();
        };
        match departure.drain.step(observed, now) {
            Step::Look { at } => vec![Effect::LookAtLeaver { worker, at }],
            Step::Exclude => vec![
                Effect::Exclude { worker },
                Effect::LookAtLeaver { worker, at: now },
            ],
            Step::Tell => {
                self.departures.remove(&worker);
                vec![Effect::Tell { worker }]
            }
        }
    }
}
