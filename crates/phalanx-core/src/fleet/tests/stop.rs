//! The end.

use super::*;

#[test]
fn a_stop_asks_who_serves_and_who_does_not() {
    let mut bench = Bench::started(workers(2));
    bench.ready(1);
    assert_eq!(bench.command(Command::Stop), ["drain 1", "drain 2"]);
    assert_eq!(bench.exits(2), NOTHING);
    assert_eq!(bench.exits(1), ["done #1", "finished: stopped"]);
}

#[test]
fn a_fleet_that_stops_does_not_respawn() {
    let mut bench = Bench::serving(workers(2));
    bench.command(Command::Stop);
    assert_eq!(bench.crashes(1), NOTHING);
    assert_eq!(bench.secs(29), NOTHING);
    assert_eq!(bench.secs(1), ["stop 2"]);
}

#[test]
fn whoever_waits_is_refused_when_the_fleet_stops() {
    let mut bench = Bench::serving(workers(1));
    bench.reload();
    bench.scale(3);
    let told = bench.command(Command::Stop);
    assert_eq!(told[..1], ["drain 1"]);
    assert!(told.contains(&"refused #1".to_owned()));
    assert!(told.contains(&"refused #2".to_owned()));
    assert!(
        bench
            .replies
            .iter()
            .all(|reply| *reply == Err(Refusal::Stopping))
    );
}

#[test]
fn a_second_stop_waits_along() {
    let mut bench = Bench::serving(workers(1));
    bench.command(Command::Stop);
    assert_eq!(bench.command(Command::Stop), NOTHING);
    assert_eq!(bench.exits(1), ["done #1", "done #2", "finished: stopped"]);
}

#[test]
fn a_fast_stop_hurries_a_graceful_one() {
    let mut bench = Bench::serving(workers(2));
    bench.command(Command::Stop);
    bench.disconnects(1);
    assert_eq!(bench.command(Command::StopFast), ["stop 1", "stop 2"]);
    assert_eq!(bench.command(Command::StopFast), NOTHING);
    assert_eq!(bench.secs(5), ["kill 1", "kill 2"]);
    bench.is_killed(1);
    assert_eq!(
        bench.is_killed(2),
        ["done #1", "done #2", "done #3", "finished: stopped"]
    );
}

#[test]
fn a_fast_stop_drains_nobody() {
    let mut bench = Bench::serving(workers(2));
    assert_eq!(bench.command(Command::StopFast), ["stop 1", "stop 2"]);
}

#[test]
fn a_leaver_is_not_drained_when_the_fleet_stops() {
    let mut bench = Bench::serving(workers(1));
    bench.leaves(1);
    assert_eq!(bench.command(Command::Stop), ["drain 2"]);
}

#[test]
fn newcomers_are_refused_before_anybody_is_asked_to_leave() {
    let mut bench = Bench::serving(workers(2));
    let event = Event::Command {
        id: CommandId(1),
        command: Command::Stop,
    };
    let actions = bench.fleet.step(event, bench.now);
    let mut told = actions
        .iter()
        .filter(|action| !matches!(action, Action::Report(_)));
    assert_eq!(told.next(), Some(&Action::Refuse));
    assert!(!told.any(|action| *action == Action::Refuse));
}

#[test]
fn commands_after_a_stop_are_refused() {
    let mut bench = Bench::serving(workers(1));
    bench.command(Command::Stop);
    assert_eq!(bench.reload(), ["refused #2"]);
    assert_eq!(bench.scale(2), ["refused #3"]);
}

#[test]
fn a_fleet_that_never_started_stops_at_once() {
    let mut bench = Bench::new(workers(2));
    assert_eq!(
        bench.command(Command::Stop),
        ["done #1", "finished: stopped"]
    );
    assert_eq!(bench.tell(Event::Start), NOTHING);
}
