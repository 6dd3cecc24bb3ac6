//! What a history is made of: the fleet's configuration, what users want and when, and the fate of
//! each worker.

use std::num::NonZeroU32;
use std::time::Duration;

use phalanx_core::backoff::BackoffConfig;
use phalanx_core::fleet::{
    Amount, BootPolicy, Canary, Command, FleetConfig, RecycleTarget, ReloadPlan, ScaleTo,
};
use phalanx_core::ids::{ExitStatus, Position, WorkerId};

use crate::rng::Rng;

/// The most workers of a simulated fleet.
pub(crate) const LARGEST: u32 = 64;

/// The longest that a process may outlive SIGKILL.
const LONGEST_DEATH: Duration = Duration::from_mins(5);

/// Everything about a history that is fixed before it begins.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) config: FleetConfig,
    /// How many of a hundred spawns of an ordinary release meet with a fault.
    pub(crate) faults_percent: u32,
    /// Some processes hang in the kernel, where no signal reaches them.
    pub(crate) some_hang: bool,
    /// What users want, and when.
    pub(crate) orders: Vec<(Duration, Command)>,
    /// When somebody kills a worker from outside.
    pub(crate) kills: Vec<Duration>,
    /// When the load asks for another size.
    pub(crate) resizes: Vec<Duration>,
    /// When a worker is found to be worn out.
    pub(crate) wears: Vec<Duration>,
    /// When the faults end.
    pub(crate) heals_at: Duration,
}

/// How good a release is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// Its workers meet with a fault as often as the plan says.
    Ordinary,
    /// None of its workers ever becomes ready.
    Broken,
    /// Its workers become ready and crash soon after.
    Crashing,
    /// Its workers answer every request with an error.
    Failing,
    /// Its workers become ready and hang soon after.
    Hanging,
    /// Its workers need more memory than there is: the system kills them.
    Hungry,
}

/// What one worker will do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    pub(crate) start: Start,
    pub(crate) life: Life,
    pub(crate) drain: Drain,
    /// How long after SIGTERM it exits, and how; none if it ignores it.
    pub(crate) term: Option<(Duration, ExitStatus)>,
    /// How long after SIGKILL it is gone: long if it hangs in the kernel.
    pub(crate) kill: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    SpawnFails {
        after: Duration,
    },
    Serves {
        online: Duration,
        ready: Duration,
    },
    /// It never becomes ready; and it says that it lacks listeners, or nothing.
    Hangs {
        online: Duration,
        lacks: bool,
    },
    Exits {
        after: Duration,
        status: ExitStatus,
    },
    LosesChannel {
        after: Duration,
    },
    Leaves {
        after: Duration,
    },
}

/// What it does once it is ready.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Life {
    Serves,
    Crashes { after: Duration, status: ExitStatus },
    LosesChannel { after: Duration },
    Leaves { after: Duration },
}

/// What it does when asked to drain.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Drain {
    Finishes { after: Duration },
    ExitsAtOnce { after: Duration },
    DisconnectsOnly { after: Duration },
    Ignores,
}

impl Plan {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let config = draw_config(rng);
        let some_hang = rng.chance(4);
        let heals_at = if some_hang {
            rng.millis(60_000, 300_000)
        } else {
            rng.millis(500, 90_000)
        };
        let orders = (0..rng.between(0, 8))
            .map(|_| (rng.up_to(heals_at), draw_command(rng)))
            .collect();
        let kills = if rng.chance(40) {
            (0..rng.between(1, 20))
                .map(|_| rng.up_to(heals_at))
                .collect()
        } else {
            Vec::new()
        };
        let wears = if rng.chance(50) {
            (0..rng.between(1, 20))
                .map(|_| rng.up_to(heals_at))
                .collect()
        } else {
            Vec::new()
        };
        let resizes = if rng.chance(30) {
            (0..rng.between(1, 6))
                .map(|_| rng.up_to(heals_at))
                .collect()
        } else {
            Vec::new()
        };
        Self {
            config,
            resizes,
            wears,
            faults_percent: rng.pick(&[0, 0, 5, 20, 50, 90]),
            some_hang,
            orders,
            kills,
            heals_at,
        }
    }
}

fn draw_config(rng: &mut Rng) -> FleetConfig {
    let workers = match rng.between(0, 19) {
        0 | 1 => rng.between(0, 1),
        2..=18 => rng.between(1, 8),
        _ => rng.between(9, LARGEST),
    };
    loop {
        let config = FleetConfig {
            workers,
            spares: rng.pick(&[0, 0, 0, 1, 1, 2, 4]),
            max_surge: draw_amount(rng),
            max_unavailable: draw_amount(rng),
            max_draining: rng.chance(40).then(|| draw_amount(rng)),
            max_starting: NonZeroU32::new(rng.pick(&[0, 0, 1, 2, 3, 8])),
            first_starting: NonZeroU32::new(rng.pick(&[0, 0, 1, 2])),
            max_recycling: rng.pick(&[1, 1, 2, 3]).try_into().expect("above 0"),
            soak: rng.pick(&[0, 0, 0, 500, 5_000]) * Duration::from_millis(1),
            ready_timeout: rng.millis(500, 30_000),
            allow_fewer_listeners: rng.chance(30),
            drain_timeout: rng.pick(&[0, 200, 3_000, 30_000]) * Duration::from_millis(1),
            kill_timeout: rng.millis(200, 5_000),
            backoff: draw_backoff(rng),
            respawn: rng.chance(90),
            boot: rng.pick(&[BootPolicy::Exit, BootPolicy::Retry]),
            seed: rng.seed(),
        };
        if config.check().is_ok() {
            return config;
        }
    }
}

fn draw_amount(rng: &mut Rng) -> Amount {
    match rng.between(0, 9) {
        0..=4 => Amount::Count(rng.between(0, 1)),
        5 | 6 => Amount::Count(rng.between(0, 8)),
        7 => Amount::Percent(100),
        _ => Amount::Percent(u8::try_from(rng.between(0, 100)).expect("at most 100")),
    }
}

fn draw_backoff(rng: &mut Rng) -> BackoffConfig {
    if rng.chance(50) {
        return BackoffConfig::default();
    }
    let first = rng.millis(20, 500);
    BackoffConfig::new(first, first * rng.between(1, 60), rng.millis(100, 10_000))
        .expect("a cap above the first delay")
}

fn draw_command(rng: &mut Rng) -> Command {
    match rng.between(0, 99) {
        0..=41 => Command::Reload(draw_reload(rng)),
        42..=49 => Command::Rollback,
        50..=55 => Command::Recycle(draw_target(rng)),
        56..=64 => Command::Scale(ScaleTo::Exactly(rng.between(0, LARGEST / 4))),
        65..=77 => Command::Scale(ScaleTo::Up(rng.between(0, 6))),
        78..=90 => Command::Scale(ScaleTo::Down(rng.between(0, 6))),
        91 if rng.chance(30) => {
            Command::Scale(ScaleTo::Exactly(rng.pick(&[LARGEST, 4_097, u32::MAX])))
        }
        91..=95 => Command::Stop,
        _ => Command::StopFast,
    }
}

fn draw_target(rng: &mut Rng) -> RecycleTarget {
    match rng.between(0, 2) {
        0 => RecycleTarget::All,
        1 => RecycleTarget::Position(Position(rng.between(0, 8))),
        _ => RecycleTarget::Worker(WorkerId(rng.between(0, 20))),
    }
}

fn draw_reload(rng: &mut Rng) -> ReloadPlan {
    ReloadPlan {
        canary: rng.chance(35).then(|| Canary {
            workers: draw_amount(rng),
            watch: rng.millis(0, 20_000),
        }),
        max_surge: rng.chance(15).then(|| draw_amount(rng)),
        max_unavailable: rng.chance(15).then(|| draw_amount(rng)),
        allow_fewer_listeners: false,
        allow_unseen: false,
    }
}

impl Release {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        match rng.between(0, 9) {
            0 | 1 => Self::Broken,
            2 => Self::Crashing,
            3 => Self::Hungry,
            4 => rng.pick(&[Self::Failing, Self::Hanging]),
            _ => Self::Ordinary,
        }
    }
}

impl Fate {
    /// The fate of a worker after the faults have ended.
    pub(crate) fn healthy(rng: &mut Rng) -> Self {
        let online = rng.millis(1, 40);
        Self {
            start: Start::Serves {
                online,
                ready: online + rng.millis(1, 200),
            },
            life: Life::Serves,
            drain: Drain::Finishes {
                after: rng.millis(0, 150),
            },
            term: Some((rng.millis(0, 30), ExitStatus::Signal(15))),
            kill: rng.millis(0, 20),
        }
    }

    pub(crate) fn draw(plan: &Plan, release: Release, rng: &mut Rng) -> Self {
        let mut fate = Self::healthy(rng);
        let ready_timeout = plan.config.ready_timeout;
        if rng.chance(10) {
            let online = rng.up_to(ready_timeout);
            fate.start = Start::Serves {
                online,
                ready: online + rng.up_to(ready_timeout),
            };
        }
        match release {
            Release::Broken => fate.start = draw_start_fault(ready_timeout, rng),
            Release::Crashing => {
                fate.life = Life::Crashes {
                    after: rng.millis(0, 3_000),
                    status: draw_status(rng),
                };
            }
            Release::Hungry => {
                let after = rng.millis(0, 3_000);
                let status = ExitStatus::Signal(9);
                if rng.chance(50) {
                    fate.start = Start::Exits { after, status };
                } else {
                    fate.life = Life::Crashes { after, status };
                }
            }
            Release::Failing | Release::Hanging => {}
            Release::Ordinary => {
                if rng.chance(plan.faults_percent / 2) {
                    fate.start = draw_start_fault(ready_timeout, rng);
                }
                if rng.chance(plan.faults_percent) {
                    fate.life = draw_life_fault(rng);
                }
            }
        }
        if rng.chance(plan.faults_percent) {
            fate.drain = draw_drain_fault(plan.config.drain_timeout, rng);
        }
        if rng.chance(plan.faults_percent) {
            fate.term = rng
                .chance(50)
                .then(|| (rng.up_to(plan.config.kill_timeout * 2), draw_status(rng)));
        }
        if plan.some_hang && rng.chance(30) {
            fate.drain = Drain::Ignores;
            fate.term = None;
            fate.kill = rng.up_to(LONGEST_DEATH);
        }
        fate
    }
}

fn draw_start_fault(ready_timeout: Duration, rng: &mut Rng) -> Start {
    let after = if rng.chance(80) {
        rng.millis(0, 300)
    } else {
        rng.up_to(ready_timeout)
    };
    match rng.between(0, 9) {
        0 | 1 => Start::SpawnFails { after },
        2..=5 => Start::Exits {
            after,
            status: draw_status(rng),
        },
        6 | 7 => Start::Hangs {
            online: after,
            lacks: rng.chance(50),
        },
        8 => Start::LosesChannel { after },
        _ => Start::Leaves { after },
    }
}

fn draw_life_fault(rng: &mut Rng) -> Life {
    let after = if rng.chance(50) {
        rng.millis(0, 1_000)
    } else {
        rng.millis(0, 40_000)
    };
    match rng.between(0, 9) {
        0..=4 => Life::Crashes {
            after,
            status: draw_status(rng),
        },
        5 | 6 => Life::LosesChannel { after },
        _ => Life::Leaves { after },
    }
}

fn draw_drain_fault(drain_timeout: Duration, rng: &mut Rng) -> Drain {
    let after = rng.up_to(drain_timeout * 2);
    match rng.between(0, 3) {
        0 => Drain::Finishes { after },
        1 => Drain::ExitsAtOnce { after },
        2 => Drain::DisconnectsOnly { after },
        _ => Drain::Ignores,
    }
}

fn draw_status(rng: &mut Rng) -> ExitStatus {
    rng.pick(&[
        ExitStatus::Code(0),
        ExitStatus::Code(1),
        ExitStatus::Signal(11),
        ExitStatus::Signal(9),
    ])
}
