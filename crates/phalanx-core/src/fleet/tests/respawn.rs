//! Replacing workers that crash or leave.

use super::super::Reason;
use super::*;

fn not_respawning(count: u32) -> FleetConfig {
    FleetConfig {
        respawn: false,
        ..workers(count)
    }
}

#[test]
fn a_crash_is_respawned_at_once_in_the_same_position() {
    let mut bench = Bench::serving(workers(2));
    assert_eq!(bench.crashes(2), ["spawn 3@1 g1"]);
}

#[test]
fn an_unexpected_exit_with_code_zero_is_a_crash_too() {
    let mut bench = Bench::serving(workers(1));
    assert_eq!(bench.exits(1), ["spawn 2@0 g1"]);
    assert!(bench.has_reported(|report| matches!(
        report,
        Report::Changed {
            reason: Reason::Crashed { .. },
            ..
        }
    )));
}

#[test]
fn a_worker_that_recycles_itself_again_and_again_is_no_crash_and_has_no_backoff() {
    let mut bench = Bench::serving(workers(1));
    for worker in 1..20 {
        bench.secs(2);
        assert_eq!(bench.exits(worker), [format!("spawn {}@0 g1", worker + 1)]);
        bench.ready(worker + 1);
    }
    assert_eq!(bench.fleet.view().workers[0].restarts, 0);
    assert!(!bench.has_reported(|report| matches!(
        report,
        Report::Changed {
            reason: Reason::Crashed { .. },
            ..
        }
    )));
}

#[test]
fn so_does_one_whose_channel_ends_before_it_exits() {
    let mut bench = Bench::serving(workers(1));
    for worker in 1..20 {
        bench.secs(2);
        assert_eq!(
            bench.disconnects(worker),
            [format!("spawn {}@0 g1", worker + 1)]
        );
        bench.exits(worker);
        bench.ready(worker + 1);
    }
    assert_eq!(bench.fleet.view().workers[0].restarts, 0);
}

#[test]
fn a_program_that_exits_as_soon_as_it_serves_cannot_spin() {
    let mut bench = Bench::serving(workers(1));
    bench.millis(900);
    assert_eq!(bench.exits(1), ["spawn 2@0 g1"]);
    bench.ready(2);
    assert_eq!(bench.exits(2), NOTHING);
}

#[test]
fn the_second_crash_in_a_row_waits_and_the_third_waits_longer() {
    let mut bench = Bench::serving(workers(1));
    bench.crashes(1);
    assert_eq!(bench.crashes(2), NOTHING);
    assert_eq!(bench.millis(79), NOTHING);
    assert_eq!(bench.millis(41), ["spawn 3@0 g1"]);
    assert_eq!(bench.crashes(3), NOTHING);
    assert_eq!(bench.millis(159), NOTHING);
    assert_eq!(bench.millis(81), ["spawn 4@0 g1"]);
}

#[test]
fn kills_from_outside_do_not_make_the_next_try_wait_longer_each_time() {
    let mut bench = Bench::serving(workers(1));
    assert_eq!(bench.is_killed(1), ["spawn 2@0 g1"]);
    for worker in 2..20 {
        bench.ready(worker);
        // Its channel ends first, and then it is known how.
        bench.disconnects(worker);
        assert_eq!(bench.is_killed(worker), NOTHING);
        assert_eq!(bench.millis(121), [format!("spawn {}@0 g1", worker + 1)]);
    }
}

#[test]
fn a_kill_from_outside_forgives_no_crash_before_it() {
    let mut bench = Bench::serving(workers(1));
    bench.crashes(1);
    bench.ready(2);
    bench.crashes(2);
    bench.millis(121);
    bench.ready(3);
    bench.crashes(3);
    bench.millis(241);
    bench.ready(4);
    assert_eq!(bench.is_killed(4), NOTHING);
    assert_eq!(bench.millis(159), NOTHING, "three failures before it");
    assert_eq!(bench.millis(82), ["spawn 5@0 g1"]);
}

#[test]
fn a_stable_run_makes_the_crashes_before_it_forgotten() {
    let mut bench = Bench::serving(workers(1));
    bench.crashes(1);
    bench.ready(2);
    bench.secs(10);
    assert_eq!(bench.crashes(2), ["spawn 3@0 g1"]);
}

#[test]
fn a_short_run_does_not_make_them_forgotten() {
    let mut bench = Bench::serving(workers(1));
    bench.crashes(1);
    bench.ready(2);
    bench.secs(9);
    assert_eq!(bench.crashes(2), NOTHING);
}

#[test]
fn a_crash_loop_is_reported_once_and_so_is_its_end() {
    let mut bench = Bench::serving(workers(1));
    for worker in 1..20 {
        bench.crashes(worker);
        bench.secs(30);
    }
    bench.ready(20);
    assert!(!bench.has_reported(|report| matches!(report, Report::CrashLoopLeft { .. })));
    bench.secs(10);
    let entered = |report: &&Report| matches!(report, Report::CrashLoopEntered { .. });
    let left = |report: &&Report| matches!(report, Report::CrashLoopLeft { .. });
    assert_eq!(bench.reports.iter().filter(entered).count(), 1);
    assert_eq!(bench.reports.iter().filter(left).count(), 1);
    assert_eq!(bench.fleet.next_deadline(), None);
}

#[test]
fn a_worker_that_leaves_by_its_own_wish_gets_its_successor_at_once() {
    let mut bench = Bench::serving(workers(2));
    bench.secs(10);
    assert_eq!(bench.leaves(1), ["spawn 3@0 g1"]);
    assert_eq!(bench.disconnects(1), NOTHING);
    assert_eq!(bench.exits(1), NOTHING);
    assert_eq!(bench.ready(3), ["settled g1"]);
    assert_eq!(
        bench.fleet.view().workers[0].restarts,
        0,
        "it is not a crash"
    );
}

#[test]
fn without_room_the_successor_of_a_leaver_waits_for_its_exit() {
    let mut bench = Bench::serving(without_surge(2, 1));
    bench.secs(10);
    assert_eq!(bench.leaves(1), NOTHING);
    assert_eq!(bench.exits(1), ["spawn 3@0 g1"]);
}

#[test]
fn a_program_that_always_leaves_at_once_cannot_spin() {
    let mut bench = Bench::serving(workers(1));
    bench.leaves(1);
    bench.exits(1);
    bench.ready(2);
    assert_eq!(bench.leaves(2), NOTHING);
    assert_eq!(bench.millis(120), ["spawn 3@0 g1"]);
}

#[test]
fn a_leaver_is_never_told_to_drain_but_has_the_drain_limit() {
    let mut bench = Bench::serving(workers(1));
    bench.leaves(1);
    bench.ready(2);
    assert_eq!(bench.secs(29), NOTHING);
    assert_eq!(bench.secs(1), ["stop 1"]);
    assert_eq!(bench.secs(5), ["kill 1"]);
}

#[test]
fn a_lost_channel_is_a_crash_whose_process_gets_time_to_exit() {
    let mut bench = Bench::serving(without_surge(1, 1));
    assert_eq!(bench.disconnects(1), ["spawn 2@0 g1"]);
    assert_eq!(bench.secs(5), ["stop 1"]);
    assert_eq!(bench.secs(5), ["kill 1"]);
    assert_eq!(bench.is_killed(1), NOTHING);
}

#[test]
fn a_channel_lost_before_readiness_waits_for_the_exit() {
    let mut bench = Bench::serving(workers(1));
    bench.crashes(1);
    assert_eq!(bench.disconnects(2), NOTHING, "one try at a time");
    bench.crashes(2);
    assert_eq!(bench.millis(120), ["spawn 3@0 g1"]);
}

#[test]
fn a_failed_start_counts_like_a_crash() {
    let mut bench = Bench::serving(workers(1));
    assert_eq!(bench.crashes(1), ["spawn 2@0 g1"]);
    assert_eq!(bench.spawn_fails(2), NOTHING);
    assert_eq!(bench.millis(120), ["spawn 3@0 g1"]);
    assert_eq!(bench.secs(30), ["stop 3"]);
    assert_eq!(bench.secs(1), NOTHING, "one try at a time");
    assert_eq!(bench.exits(3), ["spawn 4@0 g1"]);
}

#[test]
fn without_respawn_a_position_stays_empty() {
    let mut bench = Bench::serving(not_respawning(2));
    assert_eq!(bench.crashes(1), NOTHING);
    assert_eq!(bench.secs(600), NOTHING);
    assert_eq!(bench.crashes(2), ["finished: all gone"]);
}

#[test]
fn without_respawn_a_reload_fills_the_empty_positions() {
    let mut bench = Bench::serving(not_respawning(2));
    bench.crashes(1);
    assert_eq!(bench.reload(), ["new g2", "spawn 3@0 g2", "spawn 4@1 g2"]);
}
