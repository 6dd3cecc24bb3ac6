//! Changes of size.

use super::*;

#[test]
fn scaling_up_is_done_when_the_new_workers_are_ready() {
    let mut bench = Bench::serving(workers(1));
    assert_eq!(bench.scale(3), ["spawn 2@1 g1", "spawn 3@2 g1"]);
    assert_eq!(bench.ready(3), NOTHING);
    assert_eq!(bench.ready(2), ["done #1", "settled g1"]);
    assert_eq!(bench.only_reply(), &Ok(Done::Scaled { workers: 3 }));
}

#[test]
fn scaling_down_takes_the_highest_positions_first() {
    let mut bench = Bench::serving(workers(4));
    assert_eq!(bench.scale(2), ["drain 4", "drain 3"]);
    assert_eq!(bench.exits(3), NOTHING);
    assert_eq!(bench.exits(4), ["done #1", "settled g1"]);
}

#[test]
fn scaling_down_asks_workers_that_are_not_ready_too() {
    let mut bench = Bench::serving(workers(1));
    bench.scale(2);
    assert_eq!(bench.scale(1), ["refused #1", "drain 2"]);
    assert_eq!(bench.replies, [Err(Refusal::Superseded)]);
}

#[test]
fn scaling_down_keeps_as_many_ready_as_should_be() {
    let mut bench = Bench::serving(workers(2));
    bench.crashes(1);
    assert_eq!(bench.scale(1), NOTHING, "worker 2 is all there is");
    assert_eq!(bench.ready(3), ["drain 2"]);
}

#[test]
fn a_surplus_worker_goes_at_last_even_if_the_rest_never_gets_ready() {
    let mut bench = Bench::serving(workers(2));
    bench.crashes(1);
    bench.scale(1);
    let told = bench.secs(30);
    assert_eq!(told, ["stop 3", "drain 2"]);
}

#[test]
fn scaling_to_the_size_there_is_is_done_at_once() {
    let mut bench = Bench::serving(workers(2));
    assert_eq!(bench.scale(2), ["done #1"]);
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    let mut bench = Bench::serving(workers(2));
    bench.command(Command::Scale(ScaleTo::Down(3)));
    bench.command(Command::Scale(ScaleTo::Up(u32::MAX)));
    bench.command(Command::Scale(ScaleTo::Exactly(4_097)));
    assert_eq!(bench.replies.len(), 3);
    assert!(
        bench
            .replies
            .iter()
            .all(|reply| matches!(reply, Err(Refusal::Invalid { .. })))
    );
    assert_eq!(bench.fleet.view().target, 2);
}

#[test]
fn scaling_by_a_difference_counts_from_the_target() {
    let mut bench = Bench::serving(workers(2));
    bench.command(Command::Scale(ScaleTo::Up(2)));
    bench.command(Command::Scale(ScaleTo::Down(1)));
    assert_eq!(bench.fleet.view().target, 3);
}

#[test]
fn a_new_worker_that_fails_refuses_the_command_but_is_tried_again() {
    let mut bench = Bench::serving(workers(1));
    bench.scale(2);
    assert_eq!(bench.crashes(2), ["refused #1", "spawn 3@1 g1"]);
    assert!(matches!(
        bench.only_reply(),
        Err(Refusal::ScaleFailed { workers: 2, .. })
    ));
    assert_eq!(bench.ready(3), ["settled g1"]);
}

#[test]
fn a_position_that_drains_is_filled_again_as_the_surge_allows() {
    let mut bench = Bench::serving(workers(3));
    bench.scale(1);
    assert_eq!(bench.scale(3), ["refused #1", "spawn 4@1 g1"]);
    assert_eq!(bench.exits(3), ["spawn 5@2 g1"]);
    bench.exits(2);
    bench.ready(4);
    assert_eq!(bench.ready(5), ["done #2", "settled g1"]);
}

#[test]
fn scaling_to_nothing_and_back_works() {
    let mut bench = Bench::serving(workers(1));
    assert_eq!(bench.scale(0), ["drain 1"]);
    assert_eq!(bench.exits(1), ["done #1", "settled g1"]);
    assert_eq!(bench.scale(1), ["spawn 2@0 g1"]);
    assert_eq!(bench.ready(2), ["done #2", "settled g1"]);
}

#[test]
fn new_positions_get_the_generation_of_the_rollout_under_way() {
    let mut bench = Bench::serving(workers(1));
    bench.reload();
    assert_eq!(bench.scale(2), ["spawn 3@1 g2"]);
    bench.ready(2);
    bench.ready(3);
    bench.exits(1);
    assert_eq!(bench.serving_now(), ["2@0 g2", "3@1 g2"]);
    assert_eq!(bench.replies.len(), 2);
}

#[test]
fn a_rollout_goes_on_with_the_positions_that_are_left() {
    let mut bench = Bench::serving(workers(3));
    bench.reload();
    assert_eq!(bench.scale(1), ["drain 3", "drain 2"]);
    bench.exits(2);
    bench.exits(3);
    assert_eq!(bench.ready(4), ["drain 1"]);
    assert_eq!(bench.exits(1), ["done #1", "settled g2"]);
}
