//! Time limits, and what is done when they pass.

use super::*;
use crate::dispatch::readiness::Lack;

#[test]
fn a_worker_that_is_not_ready_in_time_is_stopped_and_then_killed() {
    let mut bench = Bench::started(workers(2));
    bench.ready(2);
    assert_eq!(bench.secs(29), NOTHING);
    assert_eq!(bench.secs(1), ["stop 1"]);
    assert_eq!(bench.secs(5), ["kill 1"]);
    assert_eq!(bench.secs(5), ["kill 1"], "until it is gone");
    assert_eq!(bench.is_killed(1), ["spawn 3@0 g1"]);
}

#[test]
fn the_program_running_does_not_move_the_ready_deadline() {
    let mut bench = Bench::started(workers(1));
    bench.secs(20);
    bench.tell(Event::Online {
        worker: WorkerId(1),
    });
    assert_eq!(bench.secs(10), ["stop 1"]);
}

#[test]
fn a_drain_that_takes_too_long_ends_in_stop_and_kill() {
    let mut bench = Bench::serving(workers(2));
    assert_eq!(bench.scale(1), ["drain 2"]);
    assert_eq!(bench.secs(29), NOTHING);
    assert_eq!(bench.secs(1), ["stop 2"]);
    assert_eq!(bench.secs(5), ["kill 2"]);
    assert_eq!(bench.is_killed(2), ["done #1", "settled g1"]);
}

#[test]
fn a_drained_worker_that_disconnects_has_the_rest_of_its_time_for_other_work() {
    let mut bench = Bench::serving(workers(2));
    bench.scale(1);
    bench.secs(1);
    assert_eq!(bench.disconnects(2), NOTHING);
    assert_eq!(bench.secs(28), NOTHING);
    assert_eq!(bench.secs(1), ["stop 2"]);
    assert_eq!(bench.secs(5), ["kill 2"]);
}

#[test]
fn a_drained_worker_that_disconnects_at_last_gets_time_to_exit_by_itself() {
    let mut bench = Bench::serving(workers(2));
    bench.scale(1);
    bench.secs(29);
    assert_eq!(bench.disconnects(2), NOTHING);
    assert_eq!(bench.secs(4), NOTHING);
    assert_eq!(bench.secs(1), ["stop 2"]);
}

#[test]
fn a_worker_whose_program_does_not_run_yet_has_nothing_to_finish() {
    let mut bench = Bench::started(workers(1));
    assert_eq!(bench.command(Command::Stop), ["drain 1"]);
    assert_eq!(bench.secs(5), ["stop 1"]);
}

#[test]
fn a_drain_limit_of_zero_stops_at_the_next_tick() {
    let mut bench = Bench::serving(FleetConfig {
        drain_timeout: Duration::ZERO,
        ..workers(2)
    });
    assert_eq!(bench.scale(1), ["drain 2"]);
    assert_eq!(bench.fleet.next_deadline(), Some(bench.now));
    assert_eq!(bench.tell(Event::Tick), ["stop 2"]);
}

#[test]
fn limits_without_end_are_no_deadlines() {
    let mut bench = Bench::serving(FleetConfig {
        ready_timeout: Duration::MAX,
        drain_timeout: Duration::MAX,
        kill_timeout: Duration::MAX,
        ..workers(2)
    });
    bench.secs(1);
    assert_eq!(bench.reload(), ["new g2", "spawn 3@0 g2"]);
    assert_eq!(bench.ready(3), ["drain 1"]);
    assert_eq!(bench.fleet.next_deadline(), None);
}

#[test]
fn only_a_tick_lets_deadlines_pass() {
    let mut bench = Bench::started(workers(2));
    bench.now += Duration::from_secs(40);
    assert_eq!(bench.ready(2), NOTHING, "its word was only not read yet");
    assert_eq!(bench.tell(Event::Tick), ["stop 1"]);
}

#[test]
fn a_worker_that_asks_for_patience_gets_it_and_never_less_than_it_had() {
    let mut bench = Bench::started(workers(1));
    bench.secs(29);
    let asks = |by| Event::Extends {
        worker: WorkerId(1),
        by: Duration::from_secs(by),
    };
    assert_eq!(bench.tell(asks(0)), NOTHING);
    assert_eq!(bench.tell(asks(10)), NOTHING);
    assert_eq!(bench.secs(9), NOTHING);
    assert_eq!(bench.secs(1), ["stop 1"]);
    assert_eq!(bench.tell(asks(60)), NOTHING);
    assert_eq!(bench.secs(59), NOTHING);
    assert_eq!(bench.secs(1), ["kill 1"]);
    assert_eq!(bench.tell(asks(60)), NOTHING);
    assert_eq!(bench.secs(5), ["kill 1"], "no patience with that");
}

fn lacks(worker: u32, names: &[&str]) -> Event {
    Event::Lacks {
        worker: WorkerId(worker),
        lack: Lack::Listeners(names.iter().map(|&name| name.into()).collect()),
    }
}

#[test]
fn a_release_that_gave_up_a_listener_is_refused_by_its_name() {
    let mut bench = Bench::serving(workers(1));
    bench.reload();
    bench.tell(lacks(2, &[":80"]));
    assert_eq!(bench.secs(30), ["stop 2"]);
    assert!(bench.is_killed(2).contains(&"refused #1".to_owned()));
    let refusal = bench.replies.pop().unwrap().unwrap_err().to_string();
    assert!(refusal.contains("does not listen on :80"), "{refusal}");
}

#[test]
fn a_release_that_gave_up_a_listener_is_accepted_where_that_is_allowed() {
    let mut bench = Bench::serving(FleetConfig {
        allow_fewer_listeners: true,
        ..workers(1)
    });
    bench.reload();
    bench.tell(lacks(2, &[":80"]));
    assert_eq!(bench.secs(30), ["accept 2", "drain 1"]);
    let told = bench.reports.iter().any(
        |report| matches!(report, Report::FewerListeners { worker, .. } if *worker == WorkerId(2)),
    );
    assert!(told);
}

#[test]
fn a_respawn_that_lacks_a_listener_serves_the_others_rather_than_none() {
    let mut bench = Bench::serving(workers(1));
    assert_eq!(bench.is_killed(1), ["spawn 2@0 g1"]);
    bench.tell(lacks(2, &[":80"]));
    assert_eq!(bench.secs(30), ["accept 2", "settled g1"]);
}

#[test]
fn whoever_listens_nowhere_is_never_accepted() {
    let mut bench = Bench::started(workers(1));
    let lack = Lack::EveryListener(Vec::new());
    bench.tell(Event::Lacks {
        worker: WorkerId(1),
        lack,
    });
    assert_eq!(bench.secs(30), ["stop 1"]);
}
