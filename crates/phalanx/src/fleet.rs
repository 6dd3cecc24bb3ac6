//! What the supervision of an app is told, and what it tells: limits, commands and reports. How it decides is its own affair
//! (`phalanx-core`).

pub use phalanx_core::backoff::BackoffConfig;
pub use phalanx_core::fleet::{
    Amount, AmountError, BootPolicy, Canary, ConfigError, Done, ElasticLimit, ElasticRange,
    ElasticReason, Failure, FailureReason, FleetConfig, MAX_WORKERS, Reason, RecycleTarget,
    ReloadPlan, Report, ScaleTo, Wear, WearLimits, WorkerState,
};
