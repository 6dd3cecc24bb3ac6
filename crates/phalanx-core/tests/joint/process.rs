//! Processes with fates: when they listen, whether they crash, when they are stuck.

use std::collections::BTreeSet;
use std::time::Duration;

use phalanx_core::ids::Position;
use phalanx_core::ledger::ListenerId;

use crate::rng::Rng;

/// What every release listens on.
pub(crate) const WEB: ListenerId = ListenerId(1);
/// What some releases listen on.
pub(crate) const ADMIN: ListenerId = ListenerId(2);

/// What a generation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// It listens on both.
    Whole,
    /// It forgets one listener, and its reload fails.
    Partial,
    /// It dies before it listens.
    Broken,
}

impl Release {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        match rng.between(0, 9) {
            0 => Self::Broken,
            1 => Self::Partial,
            _ => Self::Whole,
        }
    }
}

/// What will become of a process.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    pub(crate) online: Duration,
    /// When it listens on what.
    pub(crate) listens: Vec<(Duration, ListenerId)>,
    pub(crate) crash: Option<Duration>,
    /// It leaves by its own wish.
    pub(crate) own_wish: Option<Duration>,
    /// When it is stuck, and for how long.
    pub(crate) stuck: Option<(Duration, Duration)>,
    /// It closes its listeners, and says so, when it is told to leave.
    pub(crate) closes: bool,
    /// The stop signal does nothing to it.
    pub(crate) is_deaf: bool,
}

impl Fate {
    pub(crate) fn healthy(rng: &mut Rng) -> Self {
        let online = rng.millis(1, 30);
        let web = online + rng.millis(1, 100);
        let admin = web + rng.millis(0, 150);
        Self {
            online,
            listens: vec![(web, WEB), (admin, ADMIN)],
            crash: None,
            own_wish: None,
            stuck: None,
            closes: rng.chance(50),
            is_deaf: false,
        }
    }

    pub(crate) fn draw(release: Release, rng: &mut Rng) -> Self {
        let mut fate = Self::healthy(rng);
        match release {
            Release::Whole => {}
            Release::Partial => fate.listens.truncate(1),
            Release::Broken => fate.crash = Some(rng.millis(1, 20)),
        }
        if rng.chance(15) {
            fate.crash.get_or_insert(rng.millis(1, 8_000));
        }
        if rng.chance(10) {
            fate.own_wish = Some(rng.millis(500, 8_000));
        }
        if rng.chance(25) {
            fate.stuck = Some((rng.millis(200, 6_000), rng.millis(100, 6_000)));
        }
        fate.is_deaf = rng.chance(10);
        fate
    }
}

/// A process, from its start on.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) position: Position,
    pub(crate) fate: Fate,
    pub(crate) is_alive: bool,
    /// It has begun to serve, as far as the primary knows.
    pub(crate) listening: bool,
    pub(crate) stuck_until: Duration,
    /// It was told to leave, or leaves by its own wish, and takes nothing more.
    pub(crate) leaves: bool,
    /// Offers that it has not read.
    pub(crate) inbox: Vec<(u64, u64)>,
    /// Answers that the primary has not read.
    pub(crate) outbox: Vec<(u64, bool)>,
    /// Connections that it has accepted and not answered.
    pub(crate) serving: BTreeSet<u64>,
}

impl Process {
    pub(crate) fn new(position: Position, fate: Fate) -> Self {
        Self {
            position,
            fate,
            is_alive: true,
            listening: false,
            stuck_until: Duration::ZERO,
            leaves: false,
            inbox: Vec::new(),
            outbox: Vec::new(),
            serving: BTreeSet::new(),
        }
    }

    pub(crate) fn wants(&self, listener: ListenerId) -> bool {
        self.fate
            .listens
            .iter()
            .any(|(_, wanted)| *wanted == listener)
    }

    /// It has finished what it had, after it was told to leave.
    pub(crate) fn is_done(&self) -> bool {
        self.leaves && self.serving.is_empty() && self.inbox.is_empty()
    }
}
