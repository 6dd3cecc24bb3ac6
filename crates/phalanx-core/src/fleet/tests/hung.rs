//! Workers that hang.

use std::time::Duration;

use super::*;
use crate::fleet::{Reason, RecycleTarget, Wear};

impl Bench {
    fn is_given_up(&mut self, worker: u32) -> Vec<String> {
        let silent = Duration::from_secs(30);
        let (worker, wear) = (WorkerId(worker), Wear::Hung { silent });
        self.tell(Event::Worn { worker, wear })
    }

    fn recovers(&mut self, worker: u32) -> Vec<String> {
        let worker = WorkerId(worker);
        self.tell(Event::Recovered { worker })
    }
}

#[test]
fn one_that_hangs_is_killed_when_its_successor_serves() {
    let mut bench = Bench::serving(workers(2));
    assert_eq!(bench.is_given_up(1), ["spawn 3@0 g1"]);
    assert_eq!(bench.ready(3), ["kill 1"]);
    let says_so = |report: &Report| {
        matches!(
            report,
            Report::Changed {
                reason: Reason::Recycled {
                    wear: Wear::Hung { .. }
                },
                ..
            }
        )
    };
    assert!(bench.has_reported(says_so));
    assert_eq!(bench.is_killed(1), ["settled g1"]);
    assert_eq!(bench.serving_now(), ["3@0 g1", "2@1 g1"]);
}

#[test]
fn one_that_ends_before_its_successor_serves_has_hung_all_the_same() {
    let mut bench = Bench::serving(workers(2));
    assert_eq!(bench.is_given_up(1), ["spawn 3@0 g1"]);
    bench.ends(1, ExitStatus::Signal(11));
    bench.ready(3);
    assert_eq!(bench.serving_now(), ["3@0 g1", "2@1 g1"]);
    let view = bench.fleet.view();
    let why = |at: usize| view.workers[at].recycled.map(|recycled| recycled.wear);
    assert!(matches!(why(0), Some(Wear::Hung { .. })));
    assert_eq!(why(1), None);
}

#[test]
fn one_at_a_time_and_before_those_that_are_worn_out() {
    let mut bench = Bench::serving(workers(4));
    let worn = |worker| Event::Worn {
        worker: WorkerId(worker),
        wear: Wear::Requests { requests: 9 },
    };
    assert_eq!(bench.tell(worn(1)), ["spawn 5@0 g1"]);
    assert_eq!(bench.tell(worn(2)), NOTHING);
    assert_eq!(bench.is_given_up(3), NOTHING);
    assert_eq!(bench.is_given_up(4), NOTHING);
    assert_eq!(bench.ready(5), ["drain 1"]);
    assert_eq!(bench.exits(1), ["spawn 6@2 g1"]);
    assert_eq!(bench.ready(6), ["kill 3"]);
    assert_eq!(bench.is_killed(3), ["spawn 7@3 g1"]);
    assert_eq!(bench.ready(7), ["kill 4"]);
    assert_eq!(bench.is_killed(4), ["spawn 8@1 g1"]);
}

#[test]
fn so_many_at_a_time_as_are_allowed() {
    let config = FleetConfig {
        max_recycling: std::num::NonZeroU32::new(2).unwrap(),
        max_surge: Amount::Count(2),
        ..workers(4)
    };
    let mut bench = Bench::serving(config);
    assert_eq!(bench.is_given_up(1), ["spawn 5@0 g1"]);
    assert_eq!(bench.is_given_up(2), ["spawn 6@1 g1"]);
    assert_eq!(bench.is_given_up(3), NOTHING);
    assert_eq!(bench.ready(6), ["kill 2"]);
    assert_eq!(bench.is_killed(2), ["spawn 7@2 g1"]);
    assert_eq!(bench.ready(5), ["kill 1"]);
    bench.is_killed(1);
    assert_eq!(bench.ready(7), ["kill 3"]);
    assert_eq!(bench.is_killed(3), ["settled g1"]);
}

#[test]
fn one_that_recovers_stays() {
    let mut bench = Bench::serving(workers(3));
    bench.is_given_up(1);
    bench.is_given_up(2);
    assert_eq!(bench.recovers(2), NOTHING);
    bench.ready(4);
    assert_eq!(bench.is_killed(1), ["settled g1"]);
}

#[test]
fn one_that_recovers_too_late_may_finish_its_work() {
    let mut bench = Bench::serving(workers(2));
    assert_eq!(bench.is_given_up(1), ["spawn 3@0 g1"]);
    assert_eq!(bench.recovers(1), NOTHING);
    assert_eq!(bench.ready(3), ["drain 1"]);
}

#[test]
fn where_the_successor_does_not_start_it_lives_on_and_the_next_try_waits() {
    let mut bench = Bench::serving(workers(2));
    bench.is_given_up(1);
    let mut told = bench.crashes(3);
    told.extend(bench.secs(1));
    assert!(told.contains(&"spawn 4@0 g1".to_owned()), "{told:?}");
    assert!(
        !told.iter().any(|action| action.starts_with("kill 1")),
        "{told:?}"
    );
}

#[test]
fn where_there_may_be_no_extra_worker_it_goes_first() {
    let mut bench = Bench::serving(without_surge(2, 1));
    assert_eq!(bench.is_given_up(1), ["kill 1"]);
    assert_eq!(bench.is_killed(1), ["spawn 3@0 g1"]);
}

#[test]
fn a_reload_goes_first_and_kills_it_in_its_turn() {
    let mut bench = Bench::serving(workers(2));
    bench.reload();
    assert_eq!(bench.is_given_up(2), NOTHING);
    assert_eq!(bench.ready(3), ["drain 1"]);
    assert_eq!(bench.exits(1), ["spawn 4@1 g2"]);
    assert_eq!(bench.ready(4), ["kill 2"]);
}

#[test]
fn a_reload_that_takes_its_turn_kills_it_all_the_same() {
    let mut bench = Bench::serving(workers(2));
    assert_eq!(bench.is_given_up(1), ["spawn 3@0 g1"]);
    bench.reload();
    bench.exits(3);
    assert_eq!(bench.ready(4), ["kill 1"]);
}

#[test]
fn one_that_recovers_in_a_reload_stays_when_that_fails() {
    let mut bench = Bench::serving(workers(2));
    assert_eq!(bench.is_given_up(1), ["spawn 3@0 g1"]);
    bench.reload();
    bench.recovers(1);
    bench.exits(3);
    bench.crashes(4);
    assert_eq!(bench.secs(60), NOTHING);
    assert_eq!(bench.serving_now(), ["1@0 g1", "2@1 g1"]);
}

#[test]
fn whoever_asked_for_one_that_recovers_in_a_reload_gets_it_recycled() {
    let mut bench = Bench::serving(workers(2));
    bench.reload();
    let target = RecycleTarget::Worker(WorkerId(1));
    bench.command(Command::Recycle(target));
    bench.is_given_up(1);
    bench.recovers(1);
    let told = bench.crashes(3);
    assert!(told.contains(&"spawn 4@0 g1".to_owned()), "{told:?}");
}

#[test]
fn its_own_long_life_does_not_end_the_crash_loop_of_its_successors() {
    let mut bench = Bench::serving(workers(2));
    bench.secs(60);
    bench.is_given_up(1);
    for successor in 3..20 {
        bench.crashes(successor);
        bench.secs(60);
    }
    assert!(bench.has_reported(|report| matches!(report, Report::CrashLoopEntered { .. })));
    assert!(!bench.has_reported(|report| matches!(report, Report::CrashLoopLeft { .. })));
}

#[test]
fn only_one_that_serves_can_hang() {
    let mut bench = Bench::started(workers(1));
    assert_eq!(bench.is_given_up(1), NOTHING);
    assert_eq!(bench.is_given_up(7), NOTHING);
    assert_eq!(bench.recovers(1), NOTHING);
}

#[test]
fn when_the_fleet_stops_nobody_waits_for_it() {
    let mut bench = Bench::serving(workers(2));
    bench.is_given_up(1);
    bench.ready(3);
    bench.is_given_up(2);
    let told = bench.command(Command::Stop);
    assert!(told.contains(&"kill 2".to_owned()), "{told:?}");
    assert!(told.contains(&"drain 3".to_owned()), "{told:?}");
}

impl Bench {
    fn gives_way_early(&mut self, worker: u32) -> Vec<String> {
        let silent = Duration::from_secs(6);
        let (worker, wear) = (WorkerId(worker), Wear::Outage { silent });
        self.tell(Event::Worn { worker, wear })
    }
}

#[test]
fn one_that_gives_way_early_may_finish_its_work() {
    let mut bench = Bench::serving(workers(2));
    assert_eq!(bench.gives_way_early(1), ["spawn 3@0 g1"]);
    assert_eq!(bench.ready(3), ["drain 1"]);
}

#[test]
fn one_that_gives_way_early_is_killed_if_it_is_given_up_before_its_successor_serves() {
    let mut bench = Bench::serving(workers(2));
    assert_eq!(bench.gives_way_early(1), ["spawn 3@0 g1"]);
    assert_eq!(bench.is_given_up(1), NOTHING);
    assert_eq!(bench.ready(3), ["kill 1"]);
}

#[test]
fn one_that_recovers_before_its_turn_stays_though_it_gave_way() {
    let mut bench = Bench::serving(workers(3));
    bench.is_given_up(1);
    bench.gives_way_early(2);
    assert_eq!(bench.recovers(2), NOTHING);
    bench.ready(4);
    assert_eq!(bench.is_killed(1), ["settled g1"]);
}
