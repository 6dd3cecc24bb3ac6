//! How many at a time: those that drain, those that start, those that soak.

use std::num::NonZeroU32;

use super::super::{BootPolicy, FailureReason};
use super::*;

/// Defaults, with those that drain overlooked.
fn overlooking(count: u32) -> FleetConfig {
    FleetConfig {
        max_draining: None,
        ..workers(count)
    }
}

fn at_a_time(count: u32, starting: u32) -> FleetConfig {
    FleetConfig {
        max_starting: NonZeroU32::new(starting),
        ..workers(count)
    }
}

fn soaking(count: u32) -> FleetConfig {
    FleetConfig {
        soak: Duration::from_secs(2),
        ..workers(count)
    }
}

#[test]
fn a_rollout_does_not_wait_for_those_that_drain() {
    let mut bench = Bench::serving(overlooking(2));
    bench.reload();
    assert_eq!(bench.ready(3), ["drain 1", "spawn 4@1 g2"]);
    assert_eq!(bench.ready(4), ["drain 2"]);
    assert_eq!(bench.exits(2), NOTHING);
    assert_eq!(bench.exits(1), ["done #1", "settled g2"]);
}

#[test]
fn those_that_drain_can_be_limited() {
    let config = FleetConfig {
        max_draining: Some(Amount::Count(1)),
        ..workers(3)
    };
    let mut bench = Bench::serving(config);
    bench.reload();
    assert_eq!(bench.ready(4), ["drain 1", "spawn 5@1 g2"]);
    assert_eq!(
        bench.ready(5),
        ["drain 2"],
        "two drain, and one is overlooked"
    );
    assert_eq!(bench.exits(1), ["spawn 6@2 g2"]);
}

#[test]
fn without_surge_the_successor_waits_for_the_end() {
    let config = FleetConfig {
        max_draining: None,
        ..without_surge(2, 1)
    };
    let mut bench = Bench::serving(config);
    assert_eq!(bench.reload(), ["new g2", "drain 1"]);
    assert_eq!(bench.exits(1), ["spawn 3@0 g2"]);
}

#[test]
fn of_two_workers_never_both_are_replaced_at_once() {
    for surge in [Amount::Count(1), Amount::Count(2), Amount::Percent(100)] {
        let config = FleetConfig {
            max_surge: surge,
            ..overlooking(2)
        };
        let mut bench = Bench::serving(config);
        bench.reload();
        for worker in 3..=4 {
            bench.ready(worker);
            assert_eq!(bench.serving_now().len(), 2, "{surge}");
        }
    }
}

#[test]
fn a_reload_may_have_limits_of_its_own() {
    let mut bench = Bench::serving(workers(4));
    let plan = ReloadPlan {
        max_surge: Some(Amount::Percent(50)),
        ..ReloadPlan::default()
    };
    assert_eq!(
        bench.command(Command::Reload(plan)),
        ["new g2", "spawn 5@0 g2", "spawn 6@1 g2"]
    );
    for (ready, exits) in [(5, 1), (6, 2), (7, 3), (8, 4)] {
        bench.ready(ready);
        bench.exits(exits);
    }
    assert_eq!(
        bench.reload(),
        ["new g3", "spawn 9@0 g3"],
        "and no other has them"
    );
}

#[test]
fn a_reload_in_which_nothing_may_move_is_refused() {
    let mut bench = Bench::serving(workers(4));
    let plan = ReloadPlan {
        max_surge: Some(Amount::Count(0)),
        ..ReloadPlan::default()
    };
    assert_eq!(bench.command(Command::Reload(plan)), ["refused #1"]);
    assert!(matches!(bench.only_reply(), Err(Refusal::Invalid { .. })));
}

#[test]
fn no_more_than_so_many_start_at_the_same_moment() {
    let mut bench = Bench::new(at_a_time(5, 2));
    assert_eq!(
        bench.tell(Event::Start),
        ["new g1", "spawn 1@0 g1", "spawn 2@1 g1"]
    );
    assert_eq!(bench.ready(1), ["spawn 3@2 g1"]);
    assert_eq!(bench.ready(2), ["spawn 4@3 g1"]);
    bench.ready(3);
    bench.ready(4);
    assert_eq!(bench.ready(5), ["settled g1"]);
}

#[test]
fn a_rollout_starts_one_even_if_others_use_up_the_starts() {
    let mut bench = Bench::serving(at_a_time(3, 1));
    assert_eq!(bench.crashes(3), ["spawn 4@2 g1"]);
    assert_eq!(bench.reload(), ["new g2", "spawn 5@0 g2"]);
    assert_eq!(bench.crashes(2), NOTHING, "now both are taken");
    assert_eq!(bench.ready(4), NOTHING, "one still starts");
    assert_eq!(bench.ready(5), ["spawn 6@1 g2"]);
}

#[test]
fn a_program_that_cannot_start_is_found_out_by_the_first_tries() {
    let mut bench = Bench::started(at_a_time(500, 2));
    assert_eq!(bench.crashes(1), NOTHING);
    assert_eq!(bench.crashes(2), ["finished: boot failed"]);
}

#[test]
fn with_retries_all_are_tried_in_the_end() {
    let config = FleetConfig {
        boot: BootPolicy::Retry,
        ..at_a_time(3, 1)
    };
    let mut bench = Bench::started(config);
    assert_eq!(bench.crashes(1), ["spawn 2@1 g1"]);
    assert_eq!(bench.crashes(2), ["spawn 3@2 g1"]);
}

#[test]
fn the_first_successor_soaks_without_connections() {
    let mut bench = Bench::serving(soaking(2));
    assert_eq!(bench.reload(), ["new g2", "spawn 3@0 g2 held"]);
    assert_eq!(bench.ready(3), NOTHING);
    assert_eq!(bench.secs(1), NOTHING);
    assert_eq!(bench.secs(1), ["admit 3", "drain 1"]);
    assert_eq!(bench.exits(1), ["spawn 4@1 g2"], "the release is proven");
}

#[test]
fn who_ends_while_it_soaks_fails_the_rollout() {
    let mut bench = Bench::serving(soaking(2));
    bench.reload();
    bench.ready(3);
    bench.secs(1);
    bench.disconnects(3);
    assert_eq!(bench.crashes(3), ["refused #1", "settled g1", "drop g2"]);
    let refused = bench.only_reply();
    let is_told = matches!(
        refused,
        Err(Refusal::RolloutFailed { failure, .. })
            if matches!(failure.reason, FailureReason::EndedInSoak { .. })
    );
    assert!(is_told, "{refused:?}");
}

#[test]
fn who_soaks_is_needed_when_the_other_one_crashes() {
    let mut bench = Bench::serving(soaking(2));
    bench.reload();
    bench.ready(3);
    assert_eq!(bench.crashes(1), ["admit 3", "spawn 4@1 g2"]);
}

#[test]
fn nobody_soaks_at_the_start_or_after_a_crash() {
    let mut bench = Bench::new(soaking(1));
    assert_eq!(bench.tell(Event::Start), ["new g1", "spawn 1@0 g1"]);
    bench.ready(1);
    assert_eq!(bench.crashes(1), ["spawn 2@0 g1"]);
}
