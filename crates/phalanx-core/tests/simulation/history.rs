//! One history from its seed: a time with faults, the healing, and proof that the fleet is sound
//! again.

use std::time::Duration;

use phalanx_core::fleet::{
    Amount, Canary, Command, CommandId, Done, Outcome, RecycleTarget, Refusal, ReloadPlan, ScaleTo,
};

use crate::coverage::Coverage;
use crate::judge::Verdict;
use crate::plan::LARGEST;
use crate::world::World;

/// Plays the history of a seed; says which situations it reached, or which rule was broken and
/// when.
pub(crate) fn play(seed: u64, is_verbose: bool) -> Result<Coverage, String> {
    let mut world = World::new(seed, is_verbose);
    let verdict = live(&mut world);
    match verdict {
        Ok(()) => Ok(world.coverage),
        Err(broken) => Err(format!("at {:?}: {broken}", world.now)),
    }
}

fn live(world: &mut World) -> Verdict {
    let heals_at = world.plan.heals_at;
    world.run(heals_at, |_| false)?;
    world.heal();
    if !world.plan.config.respawn {
        // Positions that are to stay empty are filled by a reload alone.
        world.order(Duration::ZERO, Command::Reload(ReloadPlan::default()));
    }
    recover(world)?;
    if is_finished(world) {
        return Ok(());
    }
    prove(world)
}

/// Without faults, the fleet becomes what it should be and every command has its answer.
fn recover(world: &mut World) -> Verdict {
    let until = world.now + longest_recovery(world);
    world.run(until, |world| {
        is_finished(world) || (is_quiet(world) && world.model().is_converged())
    })?;
    if is_finished(world) {
        // Late and doubled events still arrive, and later commands still get an answer.
        world.order(
            Duration::from_secs(1),
            Command::Reload(ReloadPlan::default()),
        );
        world.order(Duration::from_secs(1), Command::Stop);
        world.run(world.now + Duration::from_mins(1), |_| false)?;
        return expect(
            world.model().waiting.is_empty() && world.fleet().next_deadline().is_none(),
            "a finished fleet has business left",
        );
    }
    expect(world.model().waiting.is_empty(), "a command has no answer")?;
    expect(world.model().is_converged(), "the fleet does not converge")?;
    let model = world.model();
    expect(
        model.is_uniform() || model.may_be_mixed,
        "converged on a generation that no reload brought",
    )?;
    expect(
        world.fleet().view().settled == model.is_uniform(),
        "the view and the model differ on whether the fleet is settled",
    )?;
    expect(
        world.alive().into_iter().eq(model.workers.keys().copied()),
        "processes live that the fleet does not know of",
    )
}

/// In a world without faults, commands succeed.
fn prove(world: &mut World) -> Verdict {
    let reload = world.order(Duration::ZERO, Command::Reload(ReloadPlan::default()));
    recover(world)?;
    expect_done(world, reload, |done| matches!(done, Done::Reloaded { .. }))?;
    expect(world.model().is_uniform(), "a reload left older workers")?;
    prove_canaries(world)?;
    prove_rollback(world)?;
    prove_recycling(world)?;
    let workers = world.rng.between(0, LARGEST / 4);
    let scale = world.order(Duration::ZERO, Command::Scale(ScaleTo::Exactly(workers)));
    recover(world)?;
    expect_done(world, scale, |done| done == Done::Scaled { workers })?;
    let how = world.rng.pick(&[Command::Stop, Command::StopFast]);
    let stop = world.order(Duration::ZERO, how);
    recover(world)?;
    expect_done(world, stop, |done| done == Done::Stopped)?;
    expect(
        world.model().outcome == Some(Outcome::Stopped),
        "a fleet that was told to stop did not finish",
    )
}

/// A reload whose canaries do well ends well.
fn prove_canaries(world: &mut World) -> Verdict {
    let canary = Some(Canary {
        workers: Amount::Count(world.rng.between(1, 4)),
        watch: world.rng.millis(0, 30_000),
    });
    let plan = ReloadPlan {
        canary,
        ..ReloadPlan::default()
    };
    let reload = world.order(Duration::ZERO, Command::Reload(plan));
    recover(world)?;
    expect_done(world, reload, |done| matches!(done, Done::Reloaded { .. }))
}

/// All workers are replaced on request, by others of their release.
fn prove_recycling(world: &mut World) -> Verdict {
    let spares = world.model().spare_ids();
    let before = &world.alive() - &spares;
    let target = world.model().target;
    let base = world.model().base;
    let all = Command::Recycle(RecycleTarget::All);
    let recycle = world.order(Duration::ZERO, all);
    recover(world)?;
    if target == 0 {
        return Ok(());
    }
    expect_done(world, recycle, |done| {
        done == Done::Recycled { workers: target }
    })?;
    let stayed = before.intersection(&world.alive()).count();
    expect(stayed == 0, "a recycled worker lives")?;
    expect(
        world.model().is_uniform() && world.model().base == base,
        "recycling changed the release",
    )
}

/// Two reloads have succeeded: the first of them can be returned to, once.
fn prove_rollback(world: &mut World) -> Verdict {
    let Some(previous) = world.fleet().view().previous else {
        let is_empty = world.model().target == 0;
        return expect(is_empty, "no earlier release after two reloads");
    };
    let back = world.order(Duration::ZERO, Command::Rollback);
    recover(world)?;
    let generation = previous;
    expect_done(world, back, |done| done == Done::RolledBack { generation })?;
    let again = world.order(Duration::ZERO, Command::Rollback);
    recover(world)?;
    let refused = world.replies.get(&again);
    expect(
        matches!(refused, Some(Err(Refusal::NoEarlierRelease))),
        "rolled back twice",
    )
}

/// Every time limit there is, for each worker in turn, and then some.
fn longest_recovery(world: &World) -> Duration {
    let config = &world.plan.config;
    let limits =
        config.ready_timeout * 3 + config.drain_timeout + config.kill_timeout * 6 + config.soak;
    let workers = u32::try_from(world.model().workers.len()).expect("few workers");
    let turns = workers + world.model().target + 4;
    let watch = Duration::from_mins(1);
    watch + limits * turns + config.backoff.max_delay() * 2 + config.backoff.stable_after()
}

fn is_finished(world: &World) -> bool {
    world.model().outcome.is_some()
}

/// Every command has its answer, and nothing is on its way to the fleet.
fn is_quiet(world: &World) -> bool {
    world.model().waiting.is_empty() && world.has_delivered_all()
}

fn expect(holds: bool, otherwise: &str) -> Verdict {
    if holds {
        Ok(())
    } else {
        Err(otherwise.to_owned())
    }
}

fn expect_done(world: &World, command: CommandId, is_right: impl Fn(Done) -> bool) -> Verdict {
    let reply: Option<&Result<Done, Refusal>> = world.replies.get(&command);
    match reply {
        Some(Ok(done)) if is_right(*done) => Ok(()),
        Some(Ok(_) | Err(_)) | None => Err(format!("{command:?} was answered by {reply:?}")),
    }
}
