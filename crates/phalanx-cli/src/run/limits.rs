//! The number of workers and their limits, from the command line to the fleet's configuration.

use phalanx::fleet::{BootPolicy, ElasticRange, FleetConfig, WearLimits};
use phalanx::supervisor::{starts_at_once, starts_first};
use phalanx_sys::{cpu, memory};

use crate::args::{MemoryLimit, OnBootFailure, RunArgs};
use crate::report::{Failure, Outcome};
use crate::values::WorkerCount;
use phalanx_control::exit::Exit;

pub(super) fn fleet(args: &RunArgs) -> Outcome<FleetConfig> {
    let limits = &args.limits;
    let fleet = FleetConfig {
        workers: match args.workers {
            WorkerCount::Auto => u32::try_from(cpu::usable_cores().get()).unwrap_or(1),
            WorkerCount::Exactly(count) => count,
            WorkerCount::Between(min, _) => min.get(),
        },
        spares: limits.spares,
        max_surge: limits.max_surge,
        max_unavailable: limits.max_unavailable,
        max_draining: limits.max_draining,
        max_starting: Some(limits.max_starting.unwrap_or_else(starts_at_once)),
        first_starting: Some(starts_first()),
        max_recycling: args.recycling.max_recycling,
        soak: limits.soak,
        ready_timeout: limits.ready_timeout,
        allow_fewer_listeners: limits.allow_fewer_listeners,
        drain_timeout: limits.drain_timeout,
        kill_timeout: limits.kill_timeout,
        boot: match limits.on_boot_failure {
            OnBootFailure::Exit => BootPolicy::Exit,
            OnBootFailure::Retry => BootPolicy::Retry,
        },
        seed: args.seed.unwrap_or_else(crate::log::now_millis),
        ..FleetConfig::default()
    };
    fleet
        .check()
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    Ok(fleet)
}

/// When workers are recycled. `tells` is whether they tell how many requests they answer.
pub(super) fn wear(args: &RunArgs, tells: bool) -> Outcome<WearLimits> {
    let limits = &args.recycling;
    if limits.max_requests.is_some() && !tells {
        let reason = "--max-requests needs workers that tell how many requests they answer: Node scripts without \
                      --no-preload, and programs built with the phalanx library; use --max-age or --max-memory";
        return Err(Failure::new(Exit::Usage, reason));
    }
    let max_memory = match limits.max_memory {
        None => None,
        Some(MemoryLimit::Bytes(bytes)) => Some(bytes),
        Some(MemoryLimit::Percent(percent)) => {
            let whole = memory::limit_bytes().ok_or_else(|| {
                let reason = format!(
                    "--max-memory {percent}%: how much memory there is cannot be read; use a size"
                );
                Failure::new(Exit::Usage, reason)
            })?;
            Some(whole / 100 * percent)
        }
    };
    Ok(WearLimits {
        max_memory,
        max_age: limits.max_age,
        max_requests: limits.max_requests,
    })
}

/// Between which numbers the size follows the load.
pub(super) fn elastic(args: &RunArgs) -> Option<ElasticRange> {
    match args.workers {
        WorkerCount::Auto | WorkerCount::Exactly(_) => None,
        WorkerCount::Between(min, max) => Some(ElasticRange { min, max }),
    }
}
