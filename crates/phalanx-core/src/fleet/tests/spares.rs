//! Warm spares.

use super::{Bench, NOTHING, workers};
use crate::fleet::{
    Command, Event, FailureReason, FleetConfig, FleetPhase, RecycleTarget, Refusal, Wear,
    WorkerState,
};
use crate::ids::{Position, WorkerId};
use std::time::Duration;

fn with_spares(count: u32, spares: u32) -> FleetConfig {
    FleetConfig {
        spares,
        ..workers(count)
    }
}

/// Workers 1 to `count` serve, and the spares after them are ready.
fn serving(count: u32, spares: u32) -> Bench {
    let mut bench = Bench::serving(with_spares(count, spares));
    for worker in 1..=spares {
        bench.ready(count + worker);
    }
    bench
}

#[test]
fn spares_start_when_all_positions_are_served() {
    let mut bench = Bench::started(with_spares(2, 1));
    assert_eq!(bench.ready(1), NOTHING);
    assert_eq!(bench.ready(2), ["spawn 3@spare-0 g1 held"]);
    assert_eq!(bench.ready(3), ["settled g1"]);
    assert_eq!(bench.serving_now(), ["1@0 g1", "2@1 g1"]);
    let view = bench.fleet.view();
    assert_eq!((view.target, view.spares), (2, 1));
    assert_eq!(view.workers[2].state, WorkerState::Spare);
    assert!(view.workers[2].position.is_spare());
}

#[test]
fn a_crash_gives_the_position_to_a_spare_at_once() {
    let mut bench = serving(2, 1);
    assert_eq!(
        bench.is_killed(1),
        ["promote 3@0", "spawn 4@spare-0 g1 held"]
    );
    assert_eq!(bench.serving_now(), ["3@0 g1", "2@1 g1"]);
    assert_eq!(bench.ready(4), ["settled g1"]);
}

#[test]
fn the_end_of_the_channel_is_enough() {
    let mut bench = serving(2, 1);
    assert_eq!(
        bench.disconnects(2),
        ["promote 3@1", "spawn 4@spare-0 g1 held"]
    );
}

#[test]
fn the_new_spare_waits_what_the_position_would_have_waited() {
    let mut bench = serving(1, 1);
    assert_eq!(bench.crashes(1), ["promote 2@0", "spawn 3@spare-0 g1 held"]);
    bench.ready(3);
    assert_eq!(
        bench.crashes(2),
        ["promote 3@0"],
        "the second crash in a row"
    );
    assert_eq!(bench.secs(1), ["spawn 4@spare-0 g1 held"]);
}

#[test]
fn a_spare_that_is_not_ready_yet_is_not_waited_for() {
    let mut bench = Bench::serving(with_spares(2, 1));
    assert_eq!(bench.is_killed(1), ["spawn 4@0 g1"]);
    assert_eq!(bench.ready(3), NOTHING);
    assert_eq!(bench.ready(4), ["settled g1"]);
}

#[test]
fn a_recycled_worker_gives_way_to_a_spare() {
    let mut bench = serving(2, 1);
    let all = Command::Recycle(RecycleTarget::Position(Position(0)));
    assert_eq!(
        bench.command(all),
        ["promote 3@0", "drain 1", "spawn 4@spare-0 g1 held"]
    );
    assert_eq!(bench.exits(1), ["done #1"]);
}

#[test]
fn a_hung_worker_is_killed_when_a_spare_has_its_place() {
    let mut bench = serving(2, 1);
    let silent = Duration::from_secs(30);
    let hung = Event::Worn {
        worker: WorkerId(2),
        wear: Wear::Hung { silent },
    };
    assert_eq!(
        bench.tell(hung),
        ["promote 3@1", "kill 2", "spawn 4@spare-0 g1 held"]
    );
}

#[test]
fn a_fleet_that_grows_takes_its_spares_first() {
    let mut bench = serving(1, 1);
    assert_eq!(bench.scale(3), ["promote 2@1", "spawn 3@2 g1"]);
    assert_eq!(
        bench.ready(3),
        ["spawn 4@spare-0 g1 held", "done #1"],
        "the spare after the positions"
    );
}

#[test]
fn a_reload_begins_with_the_spares() {
    let mut bench = serving(2, 1);
    assert_eq!(bench.reload(), ["new g2", "stop 3"]);
    assert_eq!(bench.exits(3), ["spawn 4@spare-0 g2 held"]);
    assert_eq!(bench.ready(4), ["spawn 5@0 g2"], "the release is proven");
    bench.ready(5);
    bench.exits(1);
    bench.ready(6);
    assert_eq!(bench.exits(2), ["done #1", "settled g2"]);
    assert_eq!(bench.serving_now(), ["5@0 g2", "6@1 g2"]);
}

#[test]
fn a_release_whose_spare_does_not_start_touches_no_serving_worker() {
    let mut bench = serving(2, 1);
    bench.reload();
    bench.exits(3);
    let told = bench.crashes(4);
    assert_eq!(told, ["refused #1", "spawn 5@spare-0 g1 held", "drop g2"]);
    let Err(Refusal::RolloutFailed { failure, .. }) = bench.only_reply() else {
        panic!("{:?}", bench.replies);
    };
    assert!(matches!(
        failure.reason,
        FailureReason::ExitedBeforeReady { .. }
    ));
    assert_eq!(bench.serving_now(), ["1@0 g1", "2@1 g1"]);
    assert_eq!(bench.ready(5), ["settled g1"]);
}

#[test]
fn spares_end_at_once_when_the_fleet_stops() {
    let mut bench = serving(1, 1);
    assert_eq!(bench.command(Command::Stop), ["drain 1", "stop 2"]);
    bench.exits(2);
    assert_eq!(bench.exits(1), ["done #1", "finished: stopped"]);
    assert_eq!(bench.fleet.view().phase, FleetPhase::Finished);
}

#[test]
fn fewer_spares_are_kept_from_the_next_look_on() {
    let mut bench = serving(1, 2);
    bench.fleet.configure(with_spares(1, 1)).unwrap();
    assert_eq!(bench.tell(Event::Tick), ["stop 3"]);
    bench.exits(3);
    bench.fleet.configure(with_spares(1, 0)).unwrap();
    assert_eq!(bench.tell(Event::Tick), ["stop 2"]);
    assert_eq!(bench.exits(2), ["settled g1"]);
}

#[test]
fn a_worn_spare_makes_way_for_another() {
    let mut bench = serving(1, 1);
    let worn = Event::Worn {
        worker: WorkerId(2),
        wear: Wear::Memory { bytes: 2, limit: 1 },
    };
    assert_eq!(bench.tell(worn), ["stop 2"]);
    assert_eq!(bench.exits(2), ["spawn 3@spare-0 g1 held"]);
}

#[test]
fn an_empty_fleet_has_no_spares() {
    let mut bench = serving(1, 1);
    assert_eq!(bench.scale(0), ["stop 2", "drain 1"]);
    bench.exits(1);
    assert_eq!(bench.exits(2), ["settled g1"]);
}
