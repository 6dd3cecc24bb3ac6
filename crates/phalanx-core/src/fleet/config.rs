//! What a fleet is told at its start, and how many workers a rollout may have beyond the target and below it.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::Serialize;
use thiserror::Error;

use super::amount::Amount;
use crate::backoff::BackoffConfig;
use crate::ids::Position;

/// The most workers a fleet may have.
pub const MAX_WORKERS: u32 = Position::SPARES;

/// What a fleet is told at its start. [`FleetConfig::check`] says whether it can work;
/// [`Fleet::new`](super::Fleet::new) calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FleetConfig {
    /// The target at the start, from 0 to [`MAX_WORKERS`]. Default 1.
    pub workers: u32,
    /// How many workers are kept ready without connections, for positions that lose their worker. Default 0.
    pub spares: u32,
    /// How many extra processes a rolling restart may have at any moment; a share rounds up.
    /// Default 1.
    pub max_surge: Amount,
    /// How many workers a rolling restart may have missing at any moment; a share rounds down.
    /// Default 0.
    pub max_unavailable: Amount,
    /// How many workers that finish their work `max_surge` does not count; a share rounds up. None
    /// means all of them, and none where no surge is allowed: then memory is short. Default none.
    pub max_draining: Option<Amount>,
    /// How many workers may start at the same moment, and one more for a rollout; none for as many
    /// as there are. While the fleet boots no more than this many are tried, so that a program that
    /// cannot start is found out soon. Default none.
    pub max_starting: Option<NonZeroU32>,
    /// How many start first while the fleet boots: the others start when one of them serves or has failed, and half a second
    /// later at the latest. One fewer than there are processors give the first answer soonest. None for all. Default none.
    pub first_starting: Option<NonZeroU32>,
    /// How many workers may be replaced for their health at the same time: those that hang, and those that are worn out. `max_surge`
    /// holds for them, too. Default 1.
    pub max_recycling: NonZeroU32,
    /// How long the first successors of a rollout must have served before they are given
    /// connections and count as ready. Default 0 s.
    pub soak: Duration,
    /// A worker that is not ready this long after its spawn failed to start. Default 30 s.
    pub ready_timeout: Duration,
    /// Whether a worker that lacks listeners which its predecessor held is accepted after `ready_timeout`,
    /// provided that it holds some. One that replaces a worker of its own release is, in any case. Default false.
    pub allow_fewer_listeners: bool,
    /// How long a worker may take to finish its work before it is told to stop. Default 30 s.
    pub drain_timeout: Duration,
    /// How long a worker that should exit may take, before each stronger means. Default 5 s.
    pub kill_timeout: Duration,
    /// The waiting times between tries at the same position.
    pub backoff: BackoffConfig,
    /// Whether a worker that ended unasked is replaced. Default true.
    pub respawn: bool,
    /// What to do when no worker can be started at all.
    pub boot: BootPolicy,
    /// Seed of the jitter in the waiting times.
    pub seed: u64,
}

/// What to do when the first attempt of every position fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "give up or go on")]
pub enum BootPolicy {
    /// End with [`Outcome::BootFailed`](super::Outcome::BootFailed): who started it is there to
    /// see.
    #[default]
    Exit,
    /// Keep trying by backoff.
    Retry,
}

/// Why a [`FleetConfig`] cannot work.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// More workers than [`MAX_WORKERS`].
    #[error("{0} workers are more than the {MAX_WORKERS} that a fleet may have")]
    TooManyWorkers(u32),
    /// Spares in a fleet that replaces nobody.
    #[error("spares take the places of workers that ended, but respawning is off")]
    SparesWithoutRespawn,
    /// A share above 100 percent.
    #[error("{name} {amount} is more than 100%")]
    ShareAboveWhole {
        /// The setting.
        name: &'static str,
        /// Its value.
        amount: Amount,
    },
    /// Neither an extra worker nor a missing one is allowed, so none could ever be replaced.
    #[error(
        "max_surge {max_surge} and max_unavailable {max_unavailable} of {workers} workers are both zero: \
         no worker could ever be replaced"
    )]
    NothingMayMove {
        /// The number of workers that the shares were taken of.
        workers: u32,
        /// How many more are allowed.
        max_surge: Amount,
        /// How many fewer are allowed.
        max_unavailable: Amount,
    },
    /// A time limit of zero that would make a worker fail, or be killed, the moment it starts.
    #[error("{0} must be above zero")]
    ZeroTimeout(&'static str),
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            spares: 0,
            max_surge: Amount::Count(1),
            max_unavailable: Amount::Count(0),
            max_draining: None,
            max_starting: None,
            first_starting: None,
            max_recycling: NonZeroU32::MIN,
            soak: Duration::ZERO,
            ready_timeout: Duration::from_secs(30),
            allow_fewer_listeners: false,
            drain_timeout: Duration::from_secs(30),
            kill_timeout: Duration::from_secs(5),
            backoff: BackoffConfig::default(),
            respawn: true,
            boot: BootPolicy::default(),
            seed: 0,
        }
    }
}

impl FleetConfig {
    /// Says whether a fleet can work with this.
    ///
    /// # Errors
    ///
    /// Too many workers, spares where respawning is off, a share above 100 %, a zero `ready_timeout` or `kill_timeout`, and a surge
    /// and an unavailability that both come to zero workers are refused.
    pub fn check(&self) -> Result<(), ConfigError> {
        let all = self.workers.saturating_add(self.spares);
        if all > MAX_WORKERS {
            return Err(ConfigError::TooManyWorkers(all));
        }
        if self.spares > 0 && !self.respawn {
            return Err(ConfigError::SparesWithoutRespawn);
        }
        for (name, timeout) in [
            ("ready_timeout", self.ready_timeout),
            ("kill_timeout", self.kill_timeout),
        ] {
            if timeout.is_zero() {
                return Err(ConfigError::ZeroTimeout(name));
            }
        }
        Limits::of(self).check(self.workers)
    }

    /// How many extra processes this target allows.
    #[must_use]
    pub fn surge(&self, target: u32) -> u32 {
        Limits::of(self).surge(target)
    }

    /// How many workers may be missing from this target. At least 1 if no surge is allowed: a
    /// smaller fleet, whose share has rounded down to nothing, must still be able to move.
    #[must_use]
    pub fn unavailable(&self, target: u32) -> u32 {
        Limits::of(self).unavailable(target)
    }
}

/// The limits that hold at present: those of the configuration, or of the reload under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) extra: Amount,
    pub(super) missing: Amount,
    pub(super) overlooked: Option<Amount>,
    /// Whether a release may give up listeners.
    pub(super) fewer_listeners: bool,
}

impl Limits {
    pub(super) fn of(config: &FleetConfig) -> Self {
        Self {
            extra: config.max_surge,
            missing: config.max_unavailable,
            overlooked: config.max_draining,
            fewer_listeners: config.allow_fewer_listeners,
        }
    }

    /// How many extra processes this target allows.
    pub(super) fn surge(&self, target: u32) -> u32 {
        self.extra.rounded_up(target)
    }

    /// How many workers may be missing from this target. At least 1 if no surge is allowed: a
    /// smaller fleet, whose share has rounded down to nothing, must still be able to move.
    pub(super) fn unavailable(&self, target: u32) -> u32 {
        let allowed = self.missing.rounded_down(target);
        if self.surge(target) == 0 {
            allowed.max(1)
        } else {
            allowed
        }
    }

    /// How many workers that finish their work the surge does not count.
    pub(super) fn draining(&self, target: u32) -> u32 {
        match self.overlooked {
            Some(amount) => amount.rounded_up(target),
            None if self.extra.is_zero() => 0,
            None => target,
        }
    }

    /// Says whether a fleet of so many workers can move within them.
    pub(super) fn check(&self, workers: u32) -> Result<(), ConfigError> {
        self.check_ever(workers)?;
        let not_now =
            self.extra.rounded_up(workers) == 0 && self.missing.rounded_down(workers) == 0;
        if not_now && workers > 0 {
            return Err(self.nothing_may_move(workers));
        }
        Ok(())
    }

    /// Says whether a fleet of whatever size can: one that shrank is helped by
    /// [`unavailable`](Self::unavailable).
    pub(super) fn check_ever(&self, workers: u32) -> Result<(), ConfigError> {
        let draining = self.overlooked.unwrap_or(Amount::Count(0));
        for (name, amount) in [
            ("max_surge", self.extra),
            ("max_unavailable", self.missing),
            ("max_draining", draining),
        ] {
            if matches!(amount, Amount::Percent(101..)) {
                return Err(ConfigError::ShareAboveWhole { name, amount });
            }
        }
        if self.extra.is_zero() && self.missing.is_zero() {
            return Err(self.nothing_may_move(workers));
        }
        Ok(())
    }

    fn nothing_may_move(&self, workers: u32) -> ConfigError {
        ConfigError::NothingMayMove {
            workers,
            max_surge: self.extra,
            max_unavailable: self.missing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_work_with_any_number_of_workers() {
        for workers in [0, 1, 2, 64, MAX_WORKERS] {
            let config = FleetConfig {
                workers,
                ..FleetConfig::default()
            };
            assert_eq!(config.check(), Ok(()));
        }
    }

    #[test]
    fn a_fleet_in_which_nothing_may_move_is_refused() {
        let refused = |workers, max_surge, max_unavailable| {
            let config = FleetConfig {
                workers,
                max_surge,
                max_unavailable,
                ..FleetConfig::default()
            };
            matches!(config.check(), Err(ConfigError::NothingMayMove { .. }))
        };
        assert!(refused(4, Amount::Count(0), Amount::Count(0)));
        assert!(refused(0, Amount::Count(0), Amount::Percent(0)));
        assert!(refused(3, Amount::Count(0), Amount::Percent(25)));
        assert!(!refused(4, Amount::Count(0), Amount::Percent(25)));
        assert!(!refused(0, Amount::Count(0), Amount::Percent(25)));
        assert!(!refused(1, Amount::Percent(1), Amount::Count(0)));
    }

    #[test]
    fn a_fleet_that_shrank_can_still_move() {
        let config = FleetConfig {
            workers: 4,
            max_surge: Amount::Count(0),
            max_unavailable: Amount::Percent(25),
            ..FleetConfig::default()
        };
        assert_eq!(config.unavailable(4), 1);
        assert_eq!(config.unavailable(2), 1);
    }

    #[test]
    fn limits_out_of_range_are_refused() {
        let base = FleetConfig::default;
        let too_many = FleetConfig {
            workers: MAX_WORKERS + 1,
            ..base()
        };
        assert_eq!(
            too_many.check(),
            Err(ConfigError::TooManyWorkers(MAX_WORKERS + 1))
        );
        let above_whole = FleetConfig {
            max_surge: Amount::Percent(101),
            ..base()
        };
        assert!(matches!(
            above_whole.check(),
            Err(ConfigError::ShareAboveWhole { .. })
        ));
        let no_time = FleetConfig {
            kill_timeout: Duration::ZERO,
            ..base()
        };
        assert_eq!(
            no_time.check(),
            Err(ConfigError::ZeroTimeout("kill_timeout"))
        );
    }
}
