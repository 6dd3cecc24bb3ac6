//! Late, doubled, lost and unknown events.

use super::super::{FleetPhase, WorkerState};
use super::*;

#[test]
fn events_of_unknown_workers_change_nothing() {
    let mut bench = Bench::serving(workers(1));
    assert_eq!(bench.ready(99), NOTHING);
    assert_eq!(bench.leaves(99), NOTHING);
    assert_eq!(bench.disconnects(99), NOTHING);
    assert_eq!(bench.spawn_fails(99), NOTHING);
    assert_eq!(bench.crashes(99), NOTHING);
    assert_eq!(bench.serving_now(), ["1@0 g1"]);
}

#[test]
fn doubled_events_change_nothing() {
    let mut bench = Bench::serving(workers(1));
    assert_eq!(bench.tell(Event::Start), NOTHING);
    assert_eq!(bench.ready(1), NOTHING);
    bench.secs(10);
    assert_eq!(bench.leaves(1), ["spawn 2@0 g1"]);
    assert_eq!(bench.leaves(1), NOTHING);
    assert_eq!(bench.exits(1), NOTHING);
    assert_eq!(bench.exits(1), NOTHING);
}

#[test]
fn readiness_without_a_sign_of_life_before_it_counts() {
    let mut bench = Bench::started(workers(1));
    let worker = WorkerId(1);
    assert_eq!(bench.tell(Event::Ready { worker }), ["settled g1"]);
    assert_eq!(bench.tell(Event::Online { worker }), NOTHING);
    assert_eq!(bench.fleet.view().workers[0].state, WorkerState::Ready);
}

#[test]
fn readiness_comes_too_late_for_a_worker_that_is_going() {
    let mut bench = Bench::started(workers(2));
    bench.ready(1);
    assert_eq!(bench.scale(1), ["drain 2"]);
    assert_eq!(bench.ready(2), NOTHING);
    assert_eq!(bench.serving_now(), ["1@0 g1"]);
}

#[test]
fn the_wish_to_leave_of_a_worker_that_drains_is_nothing_new() {
    let mut bench = Bench::serving(workers(2));
    bench.scale(1);
    assert_eq!(bench.leaves(2), NOTHING);
    assert_eq!(bench.disconnects(2), NOTHING);
    assert_eq!(bench.exits(2), ["done #1", "settled g1"]);
}

#[test]
fn the_end_of_the_channel_may_come_after_the_exit() {
    let mut bench = Bench::serving(workers(1));
    assert_eq!(bench.crashes(1), ["spawn 2@0 g1"]);
    assert_eq!(bench.disconnects(1), NOTHING);
}

#[test]
fn a_failed_spawn_of_a_running_worker_is_not_believed() {
    let mut bench = Bench::serving(workers(1));
    assert_eq!(bench.spawn_fails(1), NOTHING);
    assert_eq!(bench.serving_now(), ["1@0 g1"]);
}

#[test]
fn a_spawn_may_fail_after_the_worker_was_told_to_stop() {
    let mut bench = Bench::started(workers(1));
    assert_eq!(bench.command(Command::Stop), ["drain 1"]);
    assert_eq!(bench.spawn_fails(1), ["done #1", "finished: stopped"]);
}

#[test]
fn time_that_runs_backwards_is_taken_for_no_time() {
    let mut bench = Bench::serving(workers(1));
    bench.now = Duration::from_secs(100);
    bench.tell(Event::Tick);
    bench.now = Duration::ZERO;
    assert_eq!(bench.crashes(1), ["spawn 2@0 g1"]);
    assert!(bench.fleet.view().workers[0].since >= Duration::from_secs(100));
}

#[test]
fn a_finished_fleet_does_nothing_but_answer() {
    let mut bench = Bench::serving(workers(1));
    bench.command(Command::StopFast);
    assert_eq!(bench.exits(1), ["done #1", "finished: stopped"]);
    assert_eq!(bench.fleet.view().phase, FleetPhase::Finished);
    assert_eq!(bench.tell(Event::Start), NOTHING);
    assert_eq!(bench.ready(1), NOTHING);
    assert_eq!(bench.tell(Event::Tick), NOTHING);
    assert_eq!(bench.reload(), ["refused #2"]);
    assert_eq!(bench.scale(3), ["refused #3"]);
    assert_eq!(bench.command(Command::Stop), ["done #4"]);
}

#[test]
fn the_same_events_give_the_same_actions() {
    let play = || {
        let mut bench = Bench::serving(workers(3));
        let mut told = bench.reload();
        for worker in 1..=12 {
            told.extend(bench.crashes(worker));
            told.extend(bench.secs(2));
        }
        (told, bench.reports)
    };
    assert_eq!(play(), play());
}
