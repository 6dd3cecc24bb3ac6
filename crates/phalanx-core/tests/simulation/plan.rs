//! What a history is made of: the fleet's configuration, what users want and when, and the fate of
//! each worker.

use std::num::NonZeroU32;
use std::time::Duration;

use phalanx_core::backoff::BackoffConfig;
use phalanx_core::fleet::{
    Amount, BootPolicy, Canary, Command, FleetConfig, RecycleTarget, ReloadPlan, ScaleTo,
};
use phalanx_core::ids::{ExitStatus, Position, WorkerId};

use crate::dice::Dice;

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
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let config = draw_config(dice);
        let some_hang = dice.chance(4);
        let heals_at = if some_hang {
            dice.millis(60_000, 300_000)
        } else {
            dice.millis(500, 90_000)
        };
        let orders = (0..dice.between(0, 8))
            .map(|_| (dice.up_to(heals_at), draw_command(dice)))
            .collect();
        let kills = if dice.chance(40) {
            (0..dice.between(1, 20))
                .map(|_| dice.up_to(heals_at))
                .collect()
        } else {
            Vec::new()
        };
        let wears = if dice.chance(50) {
            (0..dice.between(1, 20))
                .map(|_| dice.up_to(heals_at))
                .collect()
        } else {
            Vec::new()
        };
        let resizes = if dice.chance(30) {
            (0..dice.between(1, 6))
                .map(|_| dice.up_to(heals_at))
                .collect()
        } else {
            Vec::new()
        };
        Self {
            config,
            resizes,
            wears,
            faults_percent: dice.pick(&[0, 0, 5, 20, 50, 90]),
            some_hang,
            orders,
            kills,
            heals_at,
        }
    }
}

fn draw_config(dice: &mut Dice) -> FleetConfig {
    let workers = match dice.between(0, 19) {
        0 | 1 => dice.between(0, 1),
        2..=18 => dice.between(1, 8),
        _ => dice.between(9, LARGEST),
    };
    loop {
        let config = FleetConfig {
            workers,
            max_surge: draw_amount(dice),
            max_unavailable: draw_amount(dice),
            max_draining: dice.chance(40).then(|| draw_amount(dice)),
            max_starting: NonZeroU32::new(dice.pick(&[0, 0, 1, 2, 3, 8])),
            first_starting: NonZeroU32::new(dice.pick(&[0, 0, 1, 2])),
            soak: dice.pick(&[0, 0, 0, 500, 5_000]) * Duration::from_millis(1),
            ready_timeout: dice.millis(500, 30_000),
            allow_fewer_listeners: dice.chance(30),
            drain_timeout: dice.pick(&[0, 200, 3_000, 30_000]) * Duration::from_millis(1),
            kill_timeout: dice.millis(200, 5_000),
            backoff: draw_backoff(dice),
            respawn: dice.chance(90),
            boot: dice.pick(&[BootPolicy::Exit, BootPolicy::Retry]),
            seed: dice.seed(),
        };
        if config.check().is_ok() {
            return config;
        }
    }
}

fn draw_amount(dice: &mut Dice) -> Amount {
    match dice.between(0, 9) {
        0..=4 => Amount::Count(dice.between(0, 1)),
        5 | 6 => Amount::Count(dice.between(0, 8)),
        7 => Amount::Percent(100),
        _ => Amount::Percent(u8::try_from(dice.between(0, 100)).expect("at most 100")),
    }
}

fn draw_backoff(dice: &mut Dice) -> BackoffConfig {
    if dice.chance(50) {
        return BackoffConfig::default();
    }
    let first = dice.millis(20, 500);
    BackoffConfig::new(first, first * dice.between(1, 60), dice.millis(100, 10_000))
        .expect("a cap above the first delay")
}

fn draw_command(dice: &mut Dice) -> Command {
    match dice.between(0, 99) {
        0..=41 => Command::Reload(draw_reload(dice)),
        42..=49 => Command::Rollback,
        50..=55 => Command::Recycle(draw_target(dice)),
        56..=64 => Command::Scale(ScaleTo::Exactly(dice.between(0, LARGEST / 4))),
        65..=77 => Command::Scale(ScaleTo::Up(dice.between(0, 6))),
        78..=90 => Command::Scale(ScaleTo::Down(dice.between(0, 6))),
        91 if dice.chance(30) => {
            Command::Scale(ScaleTo::Exactly(dice.pick(&[LARGEST, 4_097, u32::MAX])))
        }
        91..=95 => Command::Stop,
        _ => Command::StopFast,
    }
}

fn draw_target(dice: &mut Dice) -> RecycleTarget {
    match dice.between(0, 2) {
        0 => RecycleTarget::All,
        1 => RecycleTarget::Position(Position(dice.between(0, 8))),
        _ => RecycleTarget::Worker(WorkerId(dice.between(0, 20))),
    }
}

fn draw_reload(dice: &mut Dice) -> ReloadPlan {
    ReloadPlan {
        canary: dice.chance(35).then(|| Canary {
            workers: draw_amount(dice),
            watch: dice.millis(0, 20_000),
        }),
        max_surge: dice.chance(15).then(|| draw_amount(dice)),
        max_unavailable: dice.chance(15).then(|| draw_amount(dice)),
        allow_fewer_listeners: false,
        allow_unseen: false,
    }
}

impl Release {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        match dice.between(0, 9) {
            0 | 1 => Self::Broken,
            2 => Self::Crashing,
            3 => Self::Hungry,
            4 => dice.pick(&[Self::Failing, Self::Hanging]),
            _ => Self::Ordinary,
        }
    }
}

impl Fate {
    /// The fate of a worker after the faults have ended.
    pub(crate) fn healthy(dice: &mut Dice) -> Self {
        let online = dice.millis(1, 40);
        Self {
            start: Start::Serves {
                online,
                ready: online + dice.millis(1, 200),
            },
            life: Life::Serves,
            drain: Drain::Finishes {
                after: dice.millis(0, 150),
            },
            term: Some((dice.millis(0, 30), ExitStatus::Signal(15))),
            kill: dice.millis(0, 20),
        }
    }

    pub(crate) fn draw(plan: &Plan, release: Release, dice: &mut Dice) -> Self {
        let mut fate = Self::healthy(dice);
        let ready_timeout = plan.config.ready_timeout;
        if dice.chance(10) {
            let online = dice.up_to(ready_timeout);
            fate.start = Start::Serves {
                online,
                ready: online + dice.up_to(ready_timeout),
            };
        }
        match release {
            Release::Broken => fate.start = draw_start_fault(ready_timeout, dice),
            Release::Crashing => {
                fate.life = Life::Crashes {
                    after: dice.millis(0, 3_000),
                    status: draw_status(dice),
                };
            }
            Release::Hungry => {
                let after = dice.millis(0, 3_000);
                let status = ExitStatus::Signal(9);
                if dice.chance(50) {
                    fate.start = Start::Exits { after, status };
                } else {
                    fate.life = Life::Crashes { after, status };
                }
            }
            Release::Failing | Release::Hanging => {}
            Release::Ordinary => {
                if dice.chance(plan.faults_percent / 2) {
                    fate.start = draw_start_fault(ready_timeout, dice);
                }
                if dice.chance(plan.faults_percent) {
                    fate.life = draw_life_fault(dice);
                }
            }
        }
        if dice.chance(plan.faults_percent) {
            fate.drain = draw_drain_fault(plan.config.drain_timeout, dice);
        }
        if dice.chance(plan.faults_percent) {
            fate.term = dice
                .chance(50)
                .then(|| (dice.up_to(plan.config.kill_timeout * 2), draw_status(dice)));
        }
        if plan.some_hang && dice.chance(30) {
            fate.drain = Drain::Ignores;
            fate.term = None;
            fate.kill = dice.up_to(LONGEST_DEATH);
        }
        fate
    }
}

fn draw_start_fault(ready_timeout: Duration, dice: &mut Dice) -> Start {
    let after = if dice.chance(80) {
        dice.millis(0, 300)
    } else {
        dice.up_to(ready_timeout)
    };
    match dice.between(0, 9) {
        0 | 1 => Start::SpawnFails { after },
        2..=5 => Start::Exits {
            after,
            status: draw_status(dice),
        },
        6 | 7 => Start::Hangs {
            online: after,
            lacks: dice.chance(50),
        },
        8 => Start::LosesChannel { after },
        _ => Start::Leaves { after },
    }
}

fn draw_life_fault(dice: &mut Dice) -> Life {
    let after = if dice.chance(50) {
        dice.millis(0, 1_000)
    } else {
        dice.millis(0, 40_000)
    };
    match dice.between(0, 9) {
        0..=4 => Life::Crashes {
            after,
            status: draw_status(dice),
        },
        5 | 6 => Life::LosesChannel { after },
        _ => Life::Leaves { after },
    }
}

fn draw_drain_fault(drain_timeout: Duration, dice: &mut Dice) -> Drain {
    let after = dice.up_to(drain_timeout * 2);
    match dice.between(0, 3) {
        0 => Drain::Finishes { after },
        1 => Drain::ExitsAtOnce { after },
        2 => Drain::DisconnectsOnly { after },
        _ => Drain::Ignores,
    }
}

fn draw_status(dice: &mut Dice) -> ExitStatus {
    dice.pick(&[
        ExitStatus::Code(0),
        ExitStatus::Code(1),
        ExitStatus::Signal(11),
        ExitStatus::Signal(9),
    ])
}
