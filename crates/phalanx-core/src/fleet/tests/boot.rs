//! The time until the first worker is ready.

use super::super::{BootPolicy, FailureReason, FleetPhase, Outcome};
use super::*;

fn retrying(count: u32) -> FleetConfig {
    FleetConfig {
        boot: BootPolicy::Retry,
        ..workers(count)
    }
}

#[test]
fn a_start_spawns_one_worker_for_each_position() {
    let mut bench = Bench::new(workers(3));
    assert_eq!(
        bench.tell(Event::Start),
        ["new g1", "spawn 1@0 g1", "spawn 2@1 g1", "spawn 3@2 g1"]
    );
}

fn in_turn(count: u32, first: u32) -> FleetConfig {
    FleetConfig {
        first_starting: std::num::NonZeroU32::new(first),
        ..workers(count)
    }
}

#[test]
fn the_others_start_when_one_of_the_first_is_ready() {
    let mut bench = Bench::new(in_turn(4, 2));
    let first = ["new g1", "spawn 1@0 g1", "spawn 2@1 g1"];
    assert_eq!(bench.tell(Event::Start), first);
    assert_eq!(bench.millis(100), NOTHING);
    assert_eq!(bench.ready(2), ["spawn 3@2 g1", "spawn 4@3 g1"]);
}

#[test]
fn the_others_start_a_moment_after_one_of_the_first_serves() {
    let mut bench = Bench::started(in_turn(4, 1));
    assert_eq!(bench.serves(1), NOTHING);
    assert_eq!(bench.millis(19), NOTHING);
    assert_eq!(bench.serves(1), NOTHING);
    let others = ["spawn 2@1 g1", "spawn 3@2 g1", "spawn 4@3 g1"];
    assert_eq!(bench.millis(1), others);
}

#[test]
fn the_others_start_soon_when_the_first_take_their_time() {
    let mut bench = Bench::started(in_turn(4, 2));
    assert_eq!(bench.millis(499), NOTHING);
    assert_eq!(bench.millis(1), ["spawn 3@2 g1", "spawn 4@3 g1"]);
}

#[test]
fn the_others_start_at_once_when_one_of_the_first_fails() {
    let mut bench = Bench::started(in_turn(4, 2));
    assert_eq!(bench.crashes(1), ["spawn 3@2 g1", "spawn 4@3 g1"]);
}

#[test]
fn later_starts_do_not_wait_for_each_other() {
    let mut bench = Bench::started(in_turn(2, 1));
    bench.ready(1);
    bench.ready(2);
    assert_eq!(bench.scale(4), ["spawn 3@2 g1", "spawn 4@3 g1"]);
    assert_eq!(
        bench.fleet.next_deadline(),
        Some(bench.now + Duration::from_secs(30))
    );
}

#[test]
fn a_fleet_is_settled_when_the_last_worker_is_ready() {
    let mut bench = Bench::started(workers(2));
    assert_eq!(bench.ready(2), NOTHING);
    assert_eq!(bench.ready(1), ["settled g1"]);
    assert!(bench.fleet.view().settled);
}

#[test]
fn a_fleet_of_no_workers_is_settled_at_once() {
    let mut bench = Bench::new(workers(0));
    assert_eq!(bench.tell(Event::Start), ["new g1", "settled g1"]);
}

#[test]
fn the_boot_fails_when_the_first_attempt_of_every_position_failed() {
    let mut bench = Bench::started(workers(2));
    assert_eq!(bench.crashes(1), NOTHING);
    assert_eq!(bench.secs(1), NOTHING, "it waits for the other");
    assert_eq!(bench.spawn_fails(2), ["finished: boot failed"]);
}

#[test]
fn a_failed_boot_names_the_first_failure() {
    let mut bench = Bench::started(workers(2));
    bench.spawn_fails(2);
    let actions = bench.fleet.step(
        Event::Exited {
            worker: WorkerId(1),
            status: ExitStatus::Code(1),
        },
        bench.now,
    );
    let Some(Action::Finished(Outcome::BootFailed { failure })) = actions.last() else {
        panic!("the boot should have failed: {actions:?}");
    };
    assert_eq!(failure.worker, Some(WorkerId(2)));
    assert!(matches!(failure.reason, FailureReason::SpawnFailed { .. }));
}

#[test]
fn a_failed_boot_ends_only_when_all_processes_are_gone() {
    let mut bench = Bench::started(workers(1));
    assert_eq!(bench.secs(30), ["stop 1"]);
    assert_eq!(bench.fleet.view().phase, FleetPhase::Stopping);
    assert_eq!(bench.secs(5), ["kill 1"]);
    assert_eq!(bench.is_killed(1), ["finished: boot failed"]);
}

#[test]
fn positions_that_failed_first_are_retried_once_another_is_ready() {
    let mut bench = Bench::started(workers(2));
    bench.crashes(1);
    assert_eq!(bench.ready(2), ["spawn 3@0 g1"]);
    assert_eq!(bench.crashes(3), NOTHING, "from now on by backoff");
    assert_eq!(bench.millis(120), ["spawn 4@0 g1"]);
}

#[test]
fn a_boot_that_retries_never_gives_up() {
    let mut bench = Bench::started(retrying(1));
    assert_eq!(bench.crashes(1), ["spawn 2@0 g1"]);
    for worker in 2..30 {
        bench.crashes(worker);
        assert_eq!(bench.secs(30), [format!("spawn {}@0 g1", worker + 1)]);
    }
}

#[test]
fn a_reload_during_the_boot_waits_for_its_end() {
    let mut bench = Bench::started(workers(2));
    assert_eq!(bench.reload(), NOTHING);
    assert_eq!(bench.ready(1), ["new g2", "spawn 3@0 g2"]);
}

#[test]
fn a_reload_helps_a_fleet_that_could_never_boot() {
    let mut bench = Bench::started(retrying(1));
    bench.reload();
    assert_eq!(bench.crashes(1), ["new g2", "spawn 2@0 g2"]);
    assert_eq!(bench.ready(2), ["done #1", "settled g2", "drop g1"]);
}

#[test]
fn scaling_away_the_workers_of_a_failed_boot_stops_them() {
    let mut bench = Bench::started(workers(2));
    bench.crashes(1);
    assert_eq!(bench.scale(1), ["drain 2", "refused #1"]);
    assert_eq!(bench.exits(2), ["finished: boot failed"]);
}
