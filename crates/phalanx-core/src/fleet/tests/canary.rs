//! Canaries: some are replaced first, and watched.

use super::super::{Canary, FailureReason};
use super::*;
use crate::health::{Finding, Health};
use crate::ids::Generation;

const WATCH: u64 = 60;

/// A reload with that many canaries, watched for a minute.
fn canaries(count: u32) -> Command {
    Command::Reload(ReloadPlan {
        canary: Some(Canary {
            workers: Amount::Count(count),
            watch: Duration::from_secs(WATCH),
        }),
        ..ReloadPlan::default()
    })
}

/// Three workers, of which position 0 has been replaced by worker 4, which is watched.
fn watched() -> Bench {
    let mut bench = Bench::serving(workers(3));
    assert_eq!(bench.command(canaries(1)), ["new g2", "spawn 4@0 g2"]);
    assert_eq!(bench.ready(4), ["drain 1", "watch"]);
    assert_eq!(bench.exits(1), NOTHING, "the others wait");
    bench
}

fn failure_of(bench: &Bench) -> &FailureReason {
    match bench.only_reply() {
        Err(Refusal::RolloutFailed { failure, .. }) => &failure.reason,
        other => panic!("the rollout should have failed: {other:?}"),
    }
}

impl Bench {
    /// So many answers of a worker, so many of them errors, each after so many milliseconds.
    fn answers(&mut self, worker: u32, requests: u64, errors: u64, millis: u64) -> Vec<String> {
        let mut health = Health::default();
        for number in 0..requests {
            health.record(number < errors, Duration::from_millis(millis));
        }
        let worker = WorkerId(worker);
        self.tell(Event::Health { worker, health })
    }

    fn hangs(&mut self, worker: u32) -> Vec<String> {
        let worker = WorkerId(worker);
        self.tell(Event::Hung { worker })
    }
}

#[test]
fn the_others_follow_when_the_canary_did_well() {
    let mut bench = watched();
    assert_eq!(bench.secs(WATCH - 1), NOTHING);
    assert_eq!(bench.secs(1), ["spawn 5@1 g2", "watch ends"]);
    bench.ready(5);
    bench.exits(2);
    bench.ready(6);
    assert_eq!(bench.exits(3), ["done #1", "settled g2"]);
    assert!(bench.has_reported(|report| matches!(report, Report::CanaryPassed { .. })));
}

#[test]
fn the_watch_is_told_of_as_it_goes_on() {
    let mut bench = watched();
    bench.answers(4, 10, 1, 1);
    bench.answers(2, 30, 0, 1);
    bench.secs(WATCH);
    let told: Vec<_> = bench
        .reports
        .iter()
        .filter_map(|report| {
            if let Report::CanaryProgress { canary, others, .. } = report {
                Some((canary, others))
            } else {
                None
            }
        })
        .collect();
    assert_eq!(told.len(), 19, "every twentieth of the watch but the last");
    let (canary, others) = told[0];
    assert_eq!((canary.workers, canary.reporting), (1, 1));
    assert_eq!((canary.requests, canary.server_errors), (10, 1));
    assert_eq!(
        (others.workers, others.reporting, others.requests),
        (2, 1, 30)
    );
}

#[test]
fn the_first_crash_of_a_canary_brings_the_old_release_back() {
    let mut bench = watched();
    assert_eq!(bench.crashes(4), ["spawn 5@0 g1", "watch ends", "drop g2"]);
    assert_eq!(bench.ready(5), ["refused #1", "settled g1"]);
    assert!(matches!(failure_of(&bench), FailureReason::Crashed { .. }));
}

#[test]
fn a_crash_before_all_canaries_are_ready_counts_too() {
    let mut bench = Bench::serving(workers(3));
    bench.command(canaries(2));
    bench.ready(4);
    assert_eq!(bench.exits(1), ["spawn 5@1 g2"]);
    assert_eq!(bench.crashes(4), ["stop 5", "spawn 6@0 g1"]);
}

#[test]
fn a_canary_that_hangs_brings_the_old_release_back() {
    let mut bench = watched();
    assert_eq!(bench.hangs(2), NOTHING, "it is none");
    assert_eq!(bench.hangs(4), ["spawn 5@0 g1", "watch ends"]);
    bench.ready(5);
    bench.exits(4);
    assert_eq!(failure_of(&bench), &FailureReason::Hung);
}

#[test]
fn a_canary_that_answers_with_errors_brings_the_old_release_back() {
    let mut bench = watched();
    bench.answers(2, 100, 0, 1);
    assert_eq!(bench.answers(4, 10, 10, 1), NOTHING, "too few");
    assert_eq!(bench.answers(4, 40, 40, 1), ["spawn 5@0 g1", "watch ends"]);
    bench.ready(5);
    bench.exits(4);
    let reason = failure_of(&bench);
    let FailureReason::Unhealthy {
        finding: Finding::ServerErrors { canary, others },
    } = reason
    else {
        panic!("{reason:?}");
    };
    assert_eq!((canary.errors, others.requests), (40, 100));
}

#[test]
fn a_slow_canary_is_found_at_the_end() {
    let mut bench = watched();
    bench.answers(2, 500, 0, 5);
    assert_eq!(bench.answers(4, 500, 0, 100), NOTHING);
    assert_eq!(bench.secs(WATCH), ["spawn 5@0 g1", "watch ends"]);
    bench.ready(5);
    bench.exits(4);
    let is_slow = matches!(
        failure_of(&bench),
        FailureReason::Unhealthy {
            finding: Finding::Slow { .. }
        }
    );
    assert!(is_slow);
}

#[test]
fn figures_from_before_the_watch_do_not_count() {
    let mut bench = Bench::serving(workers(3));
    assert_eq!(bench.answers(1, 100, 100, 1), NOTHING);
    bench.command(canaries(1));
    bench.ready(4);
    bench.exits(1);
    assert_eq!(bench.secs(WATCH), ["spawn 5@1 g2", "watch ends"]);
}

#[test]
fn a_canary_that_was_killed_from_outside_is_replaced_and_the_watch_waits_for_it() {
    let mut bench = watched();
    bench.secs(WATCH - 1);
    assert_eq!(bench.is_killed(4), ["spawn 5@0 g2"]);
    assert_eq!(
        bench.secs(5),
        NOTHING,
        "its time is over, but no canary lives"
    );
    assert_eq!(bench.ready(5), ["spawn 6@1 g2", "watch ends"]);
}

#[test]
fn with_as_many_canaries_as_workers_the_watch_comes_last() {
    let mut bench = Bench::serving(workers(1));
    bench.command(canaries(5));
    assert_eq!(bench.ready(2), ["drain 1", "watch"]);
    assert_eq!(bench.exits(1), NOTHING);
    assert_eq!(bench.secs(WATCH), ["done #1", "watch ends", "settled g2"]);
}

#[test]
fn a_share_of_the_workers_is_at_least_one() {
    let mut bench = Bench::serving(workers(3));
    bench.command(Command::Reload(ReloadPlan {
        canary: Some(Canary {
            workers: Amount::Percent(0),
            watch: Duration::ZERO,
        }),
        ..ReloadPlan::default()
    }));
    assert!(bench.has_reported(|report| matches!(
        report,
        Report::RolloutStarted {
            canaries: Some(1),
            ..
        }
    )));
}

#[test]
fn a_position_that_becomes_vacant_meanwhile_keeps_the_old_release() {
    let mut bench = watched();
    assert_eq!(bench.crashes(2), ["spawn 5@1 g1"]);
}

#[test]
fn positions_that_are_added_meanwhile_get_the_old_release() {
    let mut bench = watched();
    assert_eq!(bench.scale(4), ["spawn 5@3 g1"]);
}

#[test]
fn a_reload_takes_the_place_of_one_that_watches() {
    let mut bench = watched();
    assert_eq!(
        bench.reload(),
        ["new g3", "spawn 5@0 g3", "watch ends"],
        "its own plan has no canaries"
    );
}

#[test]
fn a_stop_ends_the_watch() {
    let mut bench = watched();
    assert!(
        bench
            .command(Command::Stop)
            .contains(&"watch ends".to_owned())
    );
}

#[test]
fn the_view_says_that_it_is_watched() {
    let bench = watched();
    let rollout = bench.fleet.view().rollout.unwrap();
    assert!(rollout.watching);
    assert_eq!(rollout.generation, Generation(2));
}
