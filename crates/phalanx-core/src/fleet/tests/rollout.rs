//! Rolling restarts that go well, and what they wait for.

use super::*;

#[test]
fn a_reload_replaces_one_by_one_and_waits_for_readiness_each_time() {
    let mut bench = Bench::serving(workers(2));
    assert_eq!(bench.reload(), ["new g2", "spawn 3@0 g2"]);
    assert_eq!(bench.ready(3), ["drain 1"]);
    assert_eq!(bench.disconnects(1), NOTHING);
    assert_eq!(bench.exits(1), ["spawn 4@1 g2"]);
    assert_eq!(bench.ready(4), ["drain 2"]);
    assert_eq!(bench.exits(2), ["done #1", "settled g2"]);
    let generation = bench.fleet.view().generation;
    assert_eq!(bench.only_reply(), &Ok(Done::Reloaded { generation }));
}

#[test]
fn without_surge_the_old_worker_goes_first() {
    let mut bench = Bench::serving(without_surge(2, 1));
    assert_eq!(bench.reload(), ["new g2", "drain 1"]);
    assert_eq!(bench.exits(1), ["spawn 3@0 g2"]);
    assert_eq!(bench.ready(3), ["drain 2"]);
    assert_eq!(bench.exits(2), ["spawn 4@1 g2"]);
    assert_eq!(bench.ready(4), ["done #1", "settled g2"]);
}

#[test]
fn a_larger_surge_replaces_several_at_a_time() {
    let config = FleetConfig {
        max_surge: Amount::Percent(50),
        ..workers(4)
    };
    let mut bench = Bench::serving(config);
    assert_eq!(bench.reload(), ["new g2", "spawn 5@0 g2", "spawn 6@1 g2"]);
    bench.ready(5);
    assert_eq!(bench.ready(6), ["drain 2"]);
    assert_eq!(bench.exits(1), ["spawn 7@2 g2"]);
}

#[test]
fn surge_and_unavailability_work_side_by_side() {
    let config = FleetConfig {
        max_unavailable: Amount::Count(1),
        ..workers(3)
    };
    let mut bench = Bench::serving(config);
    assert_eq!(bench.reload(), ["new g2", "spawn 4@0 g2", "drain 2"]);
}

#[test]
fn a_reload_of_nothing_just_succeeds() {
    let mut bench = Bench::started(workers(0));
    assert_eq!(
        bench.reload(),
        ["new g2", "done #1", "settled g2", "drop g1"]
    );
}

#[test]
fn no_ready_worker_goes_while_a_crash_holds_the_fleet_short() {
    let mut bench = Bench::serving(workers(3));
    bench.reload();
    assert_eq!(bench.crashes(3), ["spawn 5@2 g1"]);
    assert_eq!(bench.ready(4), NOTHING, "worker 1 is needed");
    assert_eq!(bench.ready(5), ["drain 1"]);
}

#[test]
fn a_replaced_worker_goes_at_last_even_if_the_fleet_stays_short() {
    let mut bench = Bench::serving(workers(2));
    bench.reload();
    bench.crashes(2);
    bench.ready(3);
    assert_eq!(bench.secs(30), ["stop 4", "drain 1"]);
}

#[test]
fn a_vacant_position_is_the_first_to_try_the_new_release() {
    let mut bench = Bench::serving(workers(2));
    bench.crashes(2);
    bench.crashes(3);
    assert_eq!(bench.reload(), ["new g2", "spawn 4@1 g2", "spawn 5@0 g2"]);
}

#[test]
fn while_the_release_is_unproven_a_crash_gets_the_old_one_back() {
    let mut bench = Bench::serving(workers(3));
    bench.reload();
    assert_eq!(bench.crashes(2), ["spawn 5@1 g1"]);
}

#[test]
fn once_it_is_proven_a_crash_of_the_old_release_gets_the_new_one() {
    let mut bench = Bench::serving(workers(3));
    bench.reload();
    bench.ready(4);
    assert_eq!(bench.crashes(2), ["spawn 5@1 g2"]);
}

#[test]
fn a_reload_during_a_reload_supersedes_it() {
    let mut bench = Bench::serving(workers(2));
    bench.reload();
    assert_eq!(bench.reload(), ["new g3", "stop 3"]);
    assert_eq!(bench.exits(3), ["spawn 4@0 g3", "drop g2"]);
    bench.ready(4);
    bench.exits(1);
    bench.ready(5);
    assert_eq!(bench.exits(2), ["done #1", "done #2", "settled g3"]);
}

#[test]
fn positions_on_the_superseded_release_are_replaced_again() {
    let mut bench = Bench::serving(workers(2));
    bench.reload();
    bench.ready(3);
    bench.exits(1);
    assert_eq!(bench.reload(), ["new g3", "stop 4"]);
    assert_eq!(bench.exits(4), ["spawn 5@0 g3"]);
    assert_eq!(bench.ready(5), ["drain 3"]);
}

#[test]
fn a_worker_that_leaves_during_a_rollout_does_not_use_its_surge() {
    let mut bench = Bench::serving(workers(3));
    bench.secs(10);
    bench.reload();
    bench.ready(4);
    bench.exits(1);
    assert_eq!(bench.leaves(4), NOTHING);
    assert_eq!(bench.exits(4), ["spawn 6@0 g2"]);
}

#[test]
fn one_crash_of_a_new_worker_is_forgiven() {
    let mut bench = Bench::serving(workers(2));
    bench.reload();
    bench.ready(3);
    bench.exits(1);
    assert_eq!(bench.crashes(3), ["spawn 5@0 g2"]);
    bench.ready(4);
    bench.exits(2);
    assert_eq!(bench.replies, [], "position 0 is not ready again");
    assert_eq!(bench.ready(5), ["done #1", "settled g2"]);
}

#[test]
fn a_kill_from_outside_says_nothing_about_the_release() {
    let mut bench = Bench::serving(workers(1));
    bench.reload();
    assert_eq!(bench.is_killed(2), ["spawn 3@0 g2"]);
    assert_eq!(
        bench.disconnects(3),
        NOTHING,
        "the channel ends before the exit is known"
    );
    bench.is_killed(3);
    assert_eq!(bench.millis(120), ["spawn 4@0 g2"]);
    assert_eq!(bench.ready(4), ["drain 1"]);
}
