//! Rolling restarts that fail.

use super::super::FailureReason;
use super::*;

fn failure_of(bench: &Bench) -> &FailureReason {
    match bench.only_reply() {
        Err(Refusal::RolloutFailed { failure, .. }) => &failure.reason,
        other => panic!("the rollout should have failed: {other:?}"),
    }
}

fn was_rolled_back(bench: &Bench) -> bool {
    match bench.only_reply() {
        Err(Refusal::RolloutFailed { rolled_back, .. }) => *rolled_back,
        other => panic!("the rollout should have failed: {other:?}"),
    }
}

/// Two workers, of which position 0 has been replaced and position 1 has its successor starting as
/// worker 4.
fn half_way() -> Bench {
    let mut bench = Bench::serving(workers(2));
    bench.reload();
    bench.ready(3);
    bench.exits(1);
    bench
}

#[test]
fn a_successor_that_exits_before_it_is_ready_leaves_the_old_worker_alone() {
    let mut bench = Bench::serving(workers(2));
    bench.reload();
    assert_eq!(bench.crashes(3), ["refused #1", "settled g1", "drop g2"]);
    assert!(matches!(
        failure_of(&bench),
        FailureReason::ExitedBeforeReady { .. }
    ));
    assert_eq!(bench.serving_now(), ["1@0 g1", "2@1 g1"]);
}

#[test]
fn a_successor_that_cannot_be_spawned_fails_the_rollout() {
    let mut bench = Bench::serving(workers(1));
    bench.reload();
    assert_eq!(
        bench.spawn_fails(2),
        ["refused #1", "settled g1", "drop g2"]
    );
}

#[test]
fn a_successor_that_is_not_ready_in_time_fails_the_rollout() {
    let mut bench = Bench::serving(workers(1));
    bench.reload();
    assert_eq!(bench.secs(30), ["stop 2"]);
    assert_eq!(bench.replies, [], "the reply waits until it is gone");
    assert_eq!(bench.exits(2), ["refused #1", "settled g1", "drop g2"]);
}

#[test]
fn a_successor_that_leaves_before_it_is_ready_fails_the_rollout() {
    let mut bench = Bench::serving(workers(1));
    bench.reload();
    assert_eq!(bench.leaves(2), NOTHING);
    bench.exits(2);
    assert_eq!(failure_of(&bench), &FailureReason::LeftBeforeReady);
}

#[test]
fn a_successor_that_loses_its_channel_and_lingers_fails_the_rollout() {
    let mut bench = Bench::serving(workers(1));
    bench.reload();
    assert_eq!(bench.disconnects(2), NOTHING);
    assert_eq!(bench.secs(5), ["stop 2"]);
    bench.exits(2);
    assert_eq!(failure_of(&bench), &FailureReason::ChannelLost);
}

#[test]
fn positions_already_replaced_go_back_before_the_reply() {
    let mut bench = half_way();
    assert_eq!(bench.crashes(4), ["spawn 5@0 g1"]);
    assert_eq!(bench.ready(5), ["drain 3"]);
    assert_eq!(bench.replies, []);
    assert_eq!(bench.exits(3), ["refused #1", "settled g1", "drop g2"]);
    assert!(was_rolled_back(&bench));
    assert_eq!(bench.serving_now(), ["5@0 g1", "2@1 g1"]);
}

#[test]
fn other_successors_that_start_are_stopped() {
    let config = FleetConfig {
        max_surge: Amount::Count(2),
        ..workers(2)
    };
    let mut bench = Bench::serving(config);
    bench.reload();
    assert_eq!(bench.crashes(3), ["stop 4"]);
    assert_eq!(bench.exits(4), ["refused #1", "settled g1", "drop g2"]);
}

#[test]
fn a_base_that_fails_too_leaves_the_new_worker_in_place() {
    let mut bench = half_way();
    bench.crashes(4);
    assert_eq!(bench.crashes(5), ["refused #1"]);
    assert!(!was_rolled_back(&bench));
    assert_eq!(bench.serving_now(), ["3@0 g2", "2@1 g1"]);
    assert!(bench.has_reported(|report| matches!(report, Report::RollbackAbandoned { .. })));
    assert_eq!(bench.secs(600), NOTHING);
    assert_eq!(bench.crashes(3), ["spawn 6@0 g1", "drop g2"]);
}

#[test]
fn a_rollback_takes_down_no_more_than_the_rollout_may() {
    let mut bench = Bench::serving(without_surge(3, 1));
    bench.reload();
    bench.exits(1);
    bench.ready(4);
    bench.exits(2);
    assert_eq!(bench.crashes(5), ["spawn 6@1 g1"]);
    assert_eq!(bench.ready(6), ["drain 4"]);
}

#[test]
fn the_second_crash_at_one_position_fails_the_rollout() {
    let mut bench = half_way();
    bench.crashes(3);
    bench.ready(5);
    assert_eq!(bench.crashes(5), ["stop 4", "spawn 6@0 g1"]);
    bench.exits(4);
    bench.ready(6);
    assert!(matches!(failure_of(&bench), FailureReason::Crashed { .. }));
}

#[test]
fn without_respawn_the_first_crash_fails_the_rollout() {
    let mut bench = Bench::serving(FleetConfig {
        respawn: false,
        ..workers(2)
    });
    bench.reload();
    bench.ready(3);
    bench.exits(1);
    assert_eq!(bench.crashes(3), ["stop 4", "spawn 5@0 g1"]);
    assert_eq!(bench.exits(4), ["drop g2"]);
    assert_eq!(bench.ready(5), ["refused #1", "settled g1"]);
}

#[test]
fn crashes_at_different_positions_do_not_add_up() {
    let mut bench = half_way();
    bench.ready(4);
    bench.crashes(3);
    bench.crashes(4);
    assert!(!bench.has_reported(|report| matches!(report, Report::RolloutFailed { .. })));
}

#[test]
fn the_fourth_kill_from_outside_fails_the_rollout() {
    let mut bench = Bench::serving(workers(1));
    bench.reload();
    for worker in 2..=4 {
        bench.is_killed(worker);
        bench.secs(1);
    }
    assert_eq!(bench.is_killed(5), ["refused #1", "settled g1", "drop g2"]);
    assert_eq!(
        failure_of(&bench),
        &FailureReason::KilledTooOften { times: 4 }
    );
}

#[test]
fn a_reload_during_a_rollback_begins_when_it_has_ended() {
    let mut bench = half_way();
    bench.crashes(4);
    assert_eq!(bench.reload(), NOTHING);
    bench.ready(5);
    assert_eq!(
        bench.exits(3),
        ["refused #1", "new g3", "spawn 6@0 g3", "drop g2"]
    );
}

#[test]
fn a_superseded_rollout_falls_back_to_the_last_one_that_succeeded() {
    let mut bench = half_way();
    bench.reload();
    bench.exits(4);
    assert_eq!(bench.crashes(5), ["spawn 6@0 g1", "drop g3"]);
    bench.ready(6);
    assert_eq!(
        bench.exits(3),
        ["refused #1", "refused #2", "settled g1", "drop g2"]
    );
}

#[test]
fn generation_numbers_are_never_used_again() {
    let mut bench = Bench::serving(workers(1));
    bench.reload();
    bench.crashes(2);
    assert_eq!(bench.reload()[0], "new g3");
}

#[test]
fn an_old_worker_that_crashes_meanwhile_comes_back_in_the_old_release() {
    let mut bench = half_way();
    bench.crashes(4);
    assert_eq!(bench.crashes(2), ["spawn 6@1 g1"]);
}

#[test]
fn a_rollout_without_room_to_move_fails_in_the_end() {
    let mut bench = Bench::serving(workers(2));
    bench.reload();
    bench.ready(3);
    let told = bench.secs(600);
    assert_eq!(told[..2], ["stop 1", "kill 1"]);
    assert!(
        matches!(failure_of(&bench), FailureReason::Stalled { .. }),
        "worker 1 cannot be killed, so there is never room for another"
    );
}

#[test]
fn a_rollback_does_not_wait_for_a_crash_loop_that_was_there_before() {
    let mut bench = Bench::serving(workers(3));
    for worker in [2, 4, 5, 6] {
        bench.crashes(worker);
        bench.secs(1);
    }
    bench.crashes(3);
    bench.crashes(8);
    bench.crashes(7);
    assert_eq!(bench.reload(), ["new g2", "spawn 9@1 g2", "spawn 10@0 g2"]);
    assert_eq!(bench.crashes(9), ["stop 10", "spawn 11@1 g1"]);
    assert_eq!(bench.ready(11), NOTHING);
    assert_eq!(bench.exits(10), ["refused #1", "drop g2"]);
    assert!(
        was_rolled_back(&bench),
        "although position 2 is still vacant"
    );
}
