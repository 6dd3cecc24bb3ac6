//! The command that returns to an earlier release.

use super::super::FailureReason;
use super::*;
use crate::ids::Generation;

/// One worker, 2, of generation 2.
fn reloaded() -> Bench {
    let mut bench = Bench::serving(workers(1));
    bench.reload();
    bench.ready(2);
    bench.exits(1);
    bench.replies.clear();
    bench
}

#[test]
fn a_rollback_returns_to_the_generation_before() {
    let mut bench = reloaded();
    assert_eq!(bench.command(Command::Rollback), ["spawn 3@0 g1"]);
    assert_eq!(bench.ready(3), ["drain 2"]);
    assert_eq!(bench.exits(2), ["done #2", "settled g1", "drop g2"]);
    let generation = Generation(1);
    assert_eq!(bench.only_reply(), &Ok(Done::RolledBack { generation }));
    assert_eq!(bench.fleet.view().generation, generation);
}

#[test]
fn there_is_nothing_before_the_first_release_and_nothing_behind_a_rollback() {
    let mut bench = Bench::serving(workers(1));
    bench.command(Command::Rollback);
    assert_eq!(bench.only_reply(), &Err(Refusal::NoEarlierRelease));
    let mut bench = reloaded();
    bench.command(Command::Rollback);
    bench.ready(3);
    bench.exits(2);
    bench.replies.clear();
    bench.command(Command::Rollback);
    assert_eq!(bench.only_reply(), &Err(Refusal::NoEarlierRelease));
}

#[test]
fn an_earlier_release_that_fails_leaves_the_present_one() {
    let mut bench = reloaded();
    bench.command(Command::Rollback);
    assert_eq!(bench.crashes(3), ["refused #2", "settled g2"]);
    let refused = bench.only_reply();
    let is_told = matches!(
        refused,
        Err(Refusal::RolloutFailed {
            generation: Generation(1),
            rolled_back: true,
            failure,
        }) if matches!(failure.reason, FailureReason::ExitedBeforeReady { .. })
    );
    assert!(is_told, "{refused:?}");
    assert_eq!(bench.serving_now(), ["2@0 g2"]);
}

#[test]
fn a_rollback_during_a_reload_undoes_it() {
    let mut bench = Bench::serving(workers(2));
    bench.reload();
    bench.ready(3);
    bench.exits(1);
    assert_eq!(bench.command(Command::Rollback), ["refused #1", "stop 4"]);
    assert_eq!(bench.replies, [Err(Refusal::Superseded)]);
    assert_eq!(bench.exits(4), ["spawn 5@0 g1"]);
    bench.ready(5);
    assert_eq!(bench.exits(3), ["done #2", "settled g1", "drop g2"]);
}

#[test]
fn a_rollback_joins_the_way_back_of_a_reload_that_failed() {
    let mut bench = Bench::serving(workers(2));
    bench.reload();
    bench.ready(3);
    bench.exits(1);
    bench.crashes(4);
    assert_eq!(bench.command(Command::Rollback), NOTHING);
    bench.ready(5);
    assert_eq!(
        bench.exits(3),
        ["refused #1", "done #2", "settled g1", "drop g2"]
    );
}

#[test]
fn a_reload_takes_the_place_of_a_rollback() {
    let mut bench = reloaded();
    bench.command(Command::Rollback);
    assert_eq!(bench.reload(), ["new g3", "stop 3", "refused #2"]);
    assert_eq!(bench.replies, [Err(Refusal::Superseded)]);
    bench.exits(3);
    bench.ready(4);
    assert_eq!(bench.exits(2), ["done #3", "settled g3", "drop g1"]);
}

#[test]
fn only_one_earlier_release_is_kept() {
    let mut bench = reloaded();
    bench.reload();
    bench.ready(3);
    assert_eq!(bench.exits(2), ["done #2", "settled g3", "drop g1"]);
    assert_eq!(bench.fleet.view().previous, Some(Generation(2)));
}
