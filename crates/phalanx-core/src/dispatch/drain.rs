//! The order in which a worker leaves.
//!
//! A worker that is to leave gets nothing new, what was on its way to it arrives, and only then is it told. When the
//! whole app stops, nobody else is there to take what has arrived: so newcomers are refused first, and the workers go
//! on taking connections until none waits.
//!
//! A connection is on its way longer than it is seen. Its handshake takes a round trip, and the kernel has chosen the
//! listening socket when it begins: so a slot is not empty before every handshake has ended that had begun when
//! its worker was excluded. Which of them are for this slot nobody can tell; all of the port are waited for.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Between two looks at a worker that is to leave, where nothing rings.
pub const LOOK: Duration = Duration::from_millis(20);
/// How long after its last connection a worker is told to leave. For Node ≥ 26, which resets a connection that it has
/// accepted but not read from when it closes its server (seen: 2 of 40,000 requests without it, none with 100 ms).
pub const SETTLE: Duration = Duration::from_millis(100);
/// How long a worker may leave offers unanswered, or its slot unemptied where others can take what waits in it.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// How long handshakes are waited for. A lost packet is sent again after one second, and after two more.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_millis(3500);
/// Handshakes that are seen for so long after the exclusion, and at the first look in any case, may have been chosen by what was in
/// force before it.
const NOTE: Duration = LOOK;
/// A connection is nowhere to be seen for a moment while it is being accepted, so one look is not enough.
const QUIET_LOOKS: u32 = 2;

/// How a worker is told to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "the runtime speaks in both ways")]
pub enum Voice {
    /// By `disconnect`, on its channel: it finishes its connections after that.
    Channel,
    /// By its stop signal, at which many programs drop their connections: so they end first, or this time passes.
    Signal {
        /// How long it may keep connections.
        patience: Duration,
    },
}

/// What there is to see of a worker that is to leave. Handshakes are looked up before everything else: what ends
/// meanwhile is seen twice, never not at all.
#[derive(Debug)]
pub struct Observed<'a, K> {
    /// Connections wait to be accepted from a listener at which newcomers are refused.
    pub arriving: bool,
    /// Connections wait in the worker's own slots.
    pub queued: bool,
    /// The handshakes that are under way at its ports.
    pub handshakes: &'a BTreeSet<K>,
    /// It has not answered all its offers.
    pub unanswered: bool,
    /// How long ago it was given its last connection, as far as that is known.
    pub since_connection: Option<Duration>,
    /// Connections in its hands; counted only for [`Voice::Signal`].
    pub open: usize,
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the runtime must do every one")]
pub enum Step {
    /// Look again at that time, or when something rings.
    Look {
        /// When.
        at: Duration,
    },
    /// Give it nothing new from now on, and look again.
    Exclude,
    /// Tell it to leave. That is all.
    Tell,
}

/// One worker's way out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "K: Deserialize<'de> + Ord"))]
pub struct Drain<K> {
    voice: Voice,
    stage: Stage<K>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "K: Deserialize<'de> + Ord"))]
enum Stage<K> {
    /// The app stops, and the worker takes what has arrived.
    Arriving {
        until: Duration,
        handshakes_until: Duration,
    },
    Leaving(Leaving<K>),
}

/// It gets nothing new.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound(deserialize = "K: Deserialize<'de> + Ord"))]
struct Leaving<K> {
    since: Duration,
    handshakes: BTreeSet<K>,
    /// Whether handshakes were noted at all: a look takes its time on a busy machine, and the first may come late.
    has_noted: bool,
    /// Others can take what is left in its slots.
    is_replaceable: bool,
    /// When something was last seen to be on its way.
    seen_at: Option<Duration>,
    quiet_looks: u32,
}

impl<K: Ord + Copy> Drain<K> {
    /// A worker leaves, others stay: it has been excluded just now.
    #[must_use]
    pub fn excluded(voice: Voice, now: Duration) -> Self {
        let stage = Stage::Leaving(Leaving::new(now, true));
        Self { voice, stage }
    }

    /// The app stops: newcomers are refused from now on, and what has arrived is taken for `patience` at most.
    #[must_use]
    pub fn with_all(voice: Voice, patience: Duration, now: Duration) -> Self {
        let stage = Stage::Arriving {
            until: now.saturating_add(patience),
            handshakes_until: now.saturating_add(patience.min(HANDSHAKE_LIMIT)),
        };
        Self { voice, stage }
    }

    /// Decides what comes next.
    pub fn step(&mut self, observed: &Observed<'_, K>, now: Duration) -> Step {
        match &mut self.stage {
            Stage::Arriving {
                until,
                handshakes_until,
            } => {
                let arrives = (observed.arriving || observed.queued) && now < *until;
                let begins = !observed.handshakes.is_empty() && now < *handshakes_until;
                if arrives || begins {
                    return look_after(now);
                }
                self.stage = Stage::Leaving(Leaving::new(now, false));
                Step::Exclude
            }
            Stage::Leaving(leaving) => {
                let rest = leaving.arrives(self.voice, observed, now);
                rest.or_else(|| leaving.rests(observed, now))
                    .or_else(|| leaving.finishes(self.voice, observed, now))
                    .unwrap_or(Step::Tell)
            }
        }
    }
}

fn look_after(now: Duration) -> Step {
    let at = now.saturating_add(LOOK);
    Step::Look { at }
}

impl<K> Leaving<K> {
    fn new(since: Duration, is_replaceable: bool) -> Self {
        Self {
            since,
            handshakes: BTreeSet::new(),
            has_noted: false,
            is_replaceable,
            seen_at: None,
            quiet_looks: 0,
        }
    }
}

impl<K: Ord + Copy> Leaving<K> {
    /// Something may still be on its way to the worker.
    fn arrives(&mut self, voice: Voice, observed: &Observed<'_, K>, now: Duration) -> Option<Step> {
        let age = now.saturating_sub(self.since);
        if age < NOTE || !self.has_noted {
            self.has_noted = true;
            self.handshakes.extend(observed.handshakes);
            return Some(look_after(now));
        }
        let noted = self.handshakes.len();
        self.handshakes
            .retain(|one| observed.handshakes.contains(one));
        let begins = !self.handshakes.is_empty() && age < HANDSHAKE_LIMIT;
        let others_take = self.is_replaceable && voice == Voice::Channel && age >= ANSWER_LIMIT;
        let queued = observed.queued && !others_take;
        if self.handshakes.len() < noted || queued {
            self.seen_at = Some(now);
        }
        let unanswered = observed.unanswered && age < ANSWER_LIMIT;
        (begins || queued || unanswered).then(|| look_after(now))
    }

    /// A moment after its last connection.
    fn rests(&self, observed: &Observed<'_, K>, now: Duration) -> Option<Step> {
        let seen = self.seen_at.map(|at| now.saturating_sub(at));
        let last = [seen, observed.since_connection]
            .into_iter()
            .flatten()
            .min()?;
        let rest = SETTLE.checked_sub(last).filter(|rest| !rest.is_zero())?;
        let at = now.saturating_add(rest);
        Some(Step::Look { at })
    }

    /// Who is told by a signal finishes first.
    fn finishes(
        &mut self,
        voice: Voice,
        observed: &Observed<'_, K>,
        now: Duration,
    ) -> Option<Step> {
        let Voice::Signal { patience } = voice else {
            return None;
        };
        self.quiet_looks = if observed.open == 0 {
            self.quiet_looks + 1
        } else {
            0
        };
        let is_late = now.saturating_sub(self.since) >= patience;
        let is_done = is_late || self.quiet_looks >= QUIET_LOOKS;
        (!is_done).then(|| look_after(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);
    const SIGNAL: Voice = Voice::Signal { patience: PATIENCE };

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn quiet(handshakes: &BTreeSet<u32>) -> Observed<'_, u32> {
        Observed {
            arriving: false,
            queued: false,
            handshakes,
            unanswered: false,
            since_connection: None,
            open: 0,
        }
    }

    /// Looks at the times it asks for, until it is told or told to be excluded; when that is.
    fn follow<'a>(
        drain: &mut Drain<u32>,
        mut now: Duration,
        wanted: Step,
        observed: impl Fn(Duration) -> Observed<'a, u32>,
    ) -> Duration {
        for _ in 0..10_000 {
            match drain.step(&observed(now), now) {
                Step::Look { at } => {
                    assert!(at > now, "time must pass");
                    now = at;
                }
                step @ (Step::Exclude | Step::Tell) => {
                    assert_eq!(step, wanted);
                    return now;
                }
            }
        }
        panic!("never done");
    }

    #[test]
    fn a_worker_without_anything_on_its_way_is_told_at_once() {
        let none = BTreeSet::new();
        let mut drain = Drain::excluded(Voice::Channel, ms(7));
        let told = follow(&mut drain, ms(7), Step::Tell, |_| quiet(&none));
        assert_eq!(told, ms(7) + LOOK);
    }

    #[test]
    fn handshakes_that_had_begun_are_waited_for_and_later_ones_are_not() {
        let (first, both, later) = (
            BTreeSet::from([1]),
            BTreeSet::from([1, 2]),
            BTreeSet::from([2]),
        );
        for voice in [Voice::Channel, SIGNAL] {
            let mut drain = Drain::excluded(voice, ms(0));
            let told = follow(&mut drain, ms(0), Step::Tell, |now| {
                quiet(match now {
                    now if now < ms(20) => &first,
                    now if now < ms(140) => &both,
                    _ => &later,
                })
            });
            assert!(
                told >= ms(140) + SETTLE && told < ms(140) + SETTLE * 2,
                "{told:?}"
            );
        }
    }

    #[test]
    fn handshakes_are_noted_by_a_first_look_that_comes_late() {
        let (begun, none) = (BTreeSet::from([1]), BTreeSet::new());
        let mut drain = Drain::excluded(Voice::Channel, ms(0));
        let told = follow(&mut drain, ms(60), Step::Tell, |now| {
            quiet(if now < ms(140) { &begun } else { &none })
        });
        assert!(told >= ms(140) + SETTLE, "{told:?}");
    }

    #[test]
    fn a_handshake_that_never_ends_is_not_waited_for_for_ever() {
        let begun = BTreeSet::from([1]);
        let mut drain = Drain::excluded(Voice::Channel, ms(0));
        let told = follow(&mut drain, ms(0), Step::Tell, |_| quiet(&begun));
        assert!(told >= HANDSHAKE_LIMIT && told < HANDSHAKE_LIMIT + SETTLE * 2);
    }

    #[test]
    fn an_offer_or_a_queue_that_others_can_take_is_waited_for_for_a_second() {
        let none = BTreeSet::new();
        for (queued, unanswered) in [(true, false), (false, true)] {
            let mut drain = Drain::excluded(Voice::Channel, ms(0));
            let told = follow(&mut drain, ms(0), Step::Tell, |_| Observed {
                queued,
                unanswered,
                ..quiet(&none)
            });
            assert!(
                told >= ANSWER_LIMIT && told < ANSWER_LIMIT + SETTLE * 2,
                "{told:?}"
            );
        }
    }

    #[test]
    fn a_queue_that_nobody_else_takes_is_waited_for() {
        let none = BTreeSet::new();
        let mut drain = Drain::excluded(SIGNAL, ms(0));
        let told = follow(&mut drain, ms(0), Step::Tell, |now| Observed {
            queued: now < ms(9_000),
            ..quiet(&none)
        });
        assert!(told >= ms(9_000));
    }

    #[test]
    fn who_is_told_by_a_signal_finishes_first_or_has_had_its_time() {
        let none = BTreeSet::new();
        for (until, wanted) in [(700, ms(700)), (60_000, PATIENCE)] {
            let mut drain = Drain::excluded(SIGNAL, ms(0));
            let told = follow(&mut drain, ms(0), Step::Tell, |now| Observed {
                open: usize::from(now < ms(until)),
                ..quiet(&none)
            });
            assert!(told >= wanted && told < wanted + SETTLE, "{told:?}");
        }
    }

    #[test]
    fn when_all_leave_what_has_arrived_is_taken_first() {
        let (none, begun) = (BTreeSet::new(), BTreeSet::from([1]));
        let mut drain = Drain::with_all(Voice::Channel, ms(30_000), ms(0));
        let excluded = follow(&mut drain, ms(0), Step::Exclude, |now| Observed {
            arriving: (ms(400)..ms(6_000)).contains(&now),
            ..quiet(if now < ms(400) { &begun } else { &none })
        });
        assert!(excluded >= ms(6_000));
        follow(&mut drain, excluded, Step::Tell, |_| quiet(&none));
    }

    #[test]
    fn when_all_leave_and_nobody_takes_anything_patience_ends() {
        let begun = BTreeSet::from([1]);
        let mut drain = Drain::with_all(Voice::Channel, PATIENCE, ms(0));
        let excluded = follow(&mut drain, ms(0), Step::Exclude, |_| Observed {
            arriving: true,
            ..quiet(&begun)
        });
        assert!(excluded >= PATIENCE && excluded < PATIENCE + SETTLE);
    }
}
