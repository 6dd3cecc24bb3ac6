//! How many workers a rollout may have beyond the target and below it.

use super::amount::Amount;
use super::config::{ConfigError, FleetConfig};
use super::event::ReloadPlan;

/// The limits that hold at present: those of the configuration, or of the reload under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) extra: Amount,
    pub(super) missing: Amount,
    overlooked: Option<Amount>,
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

    /// Those of a reload that has its own.
    pub(super) fn for_reload(config: &FleetConfig, plan: &ReloadPlan) -> Self {
        let limits = Self::of(config);
        Self {
            extra: plan.max_surge.unwrap_or(limits.extra),
            missing: plan.max_unavailable.unwrap_or(limits.missing),
            fewer_listeners: plan.allow_fewer_listeners || limits.fewer_listeners,
            ..limits
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
