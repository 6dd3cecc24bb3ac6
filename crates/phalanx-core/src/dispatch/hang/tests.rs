//! What is found of workers that fall silent, are held, starve, or come back.

use proptest::prelude::*;

use super::*;

const LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(500);

const LOOPS: Process = Process {
    frozen: None,
    starved: 0.0,
    ran: 1.0,
    moves: false,
};
const SLEEPS: Process = Process { ran: 0.0, ..LOOPS };

fn silent(process: Process) -> Sight {
    Sight {
        silent: Some(Evidence::Question),
        process,
    }
}

/// A fleet that is looked at every [`LOOK`].
struct Looked {
    hangs: Hangs,
    now: Moment,
}

impl Looked {
    fn new() -> Self {
        Self {
            hangs: Hangs::new(LIMIT),
            now: Moment::default(),
        }
    }

    /// Looks for so long; what was found, and when.
    fn look_for(
        &mut self,
        time: Duration,
        pressure: f64,
        sights: &[Sight],
    ) -> Vec<(Duration, Finding)> {
        let ids = (1_u32..).map(WorkerId);
        let sights: Vec<_> = ids.zip(sights.iter().copied()).collect();
        let (begun, mut found) = (self.now, Vec::new());
        while self.now.since(begun) < time {
            let findings = self.hangs.look(self.now, pressure, &sights);
            found.extend(findings.into_iter().map(|one| (self.now - begun, one)));
            self.now = self.now + LOOK;
        }
        found
    }
}

fn given_up(found: &[(Duration, Finding)]) -> Vec<(WorkerId, Duration)> {
    let hung = |(at, finding): &(Duration, Finding)| {
        let Finding::Hung { worker, early, .. } = finding else {
            return None;
        };
        (!early).then_some((*worker, *at))
    };
    found.iter().filter_map(hung).collect()
}

const WELL: Sight = Sight {
    silent: None,
    process: SLEEPS,
};

#[test]
fn one_that_loops_is_given_up_when_its_time_is_over_and_once() {
    let mut fleet = Looked::new();
    let found = fleet.look_for(LIMIT * 3, 0.0, &[WELL, silent(LOOPS)]);
    assert_eq!(
        found[0].1,
        Finding::Suspect(WorkerId(2), Evidence::Question)
    );
    assert_eq!(given_up(&found), [(WorkerId(2), LIMIT)]);
}

#[test]
fn one_that_shows_life_begins_anew() {
    let mut fleet = Looked::new();
    assert!(given_up(&fleet.look_for(LIMIT, 0.0, &[WELL, silent(LOOPS)])).is_empty());
    let found = fleet.look_for(LOOK, 0.0, &[WELL, WELL]);
    assert!(matches!(found[0].1, Finding::Recovered { after, .. } if after + LOOK >= LIMIT));
    assert_eq!(fleet.hangs.stage(WorkerId(2)), None);
    assert!(given_up(&fleet.look_for(LIMIT, 0.0, &[WELL, silent(LOOPS)])).is_empty());
}

#[test]
fn one_that_is_held_is_never_given_up_and_has_all_its_time_afterwards() {
    for frozen in [
        Frozen::Stopped,
        Frozen::Traced,
        Frozen::Inspected,
        Frozen::Cgroup,
    ] {
        let mut fleet = Looked::new();
        fleet.look_for(LIMIT.saturating_sub(LOOK), 0.0, &[WELL, silent(LOOPS)]);
        let held = silent(Process {
            frozen: Some(frozen),
            ..SLEEPS
        });
        let found = fleet.look_for(LIMIT * 100, 0.0, &[WELL, held]);
        let froze = (Duration::ZERO, Finding::Froze(WorkerId(2), frozen));
        let is_stopped =
            |(_, finding): &(Duration, Finding)| matches!(finding, Finding::Stopped(..));
        let (gave_way, others): (Vec<_>, Vec<_>) = found.into_iter().partition(is_stopped);
        assert_eq!(others, [froze]);
        assert_eq!(gave_way.len(), usize::from(frozen == Frozen::Stopped));
        let found = fleet.look_for(LIMIT * 2, 0.0, &[WELL, silent(LOOPS)]);
        assert_eq!(given_up(&found), [(WorkerId(2), LIMIT)]);
    }
}

#[test]
fn one_that_is_given_up_stays_so_while_it_is_looked_at() {
    let mut fleet = Looked::new();
    fleet.look_for(LIMIT * 2, 0.0, &[WELL, silent(LOOPS)]);
    let held = silent(Process {
        frozen: Some(Frozen::Inspected),
        ..SLEEPS
    });
    assert_eq!(fleet.look_for(LIMIT, 0.0, &[WELL, held]), []);
    let stage = fleet.hangs.stage(WorkerId(2)).map(|(stage, _)| stage);
    assert_eq!(stage, Some(Stage::Hung(Evidence::Question)));
}

#[test]
fn where_most_are_silent_only_loops_are_given_up_and_that_is_said_once() {
    let mut fleet = Looked::new();
    let found = fleet.look_for(LIMIT * 4, 0.0, &[silent(SLEEPS), silent(SLEEPS), WELL]);
    assert!(given_up(&found).is_empty());
    let said = |found: &[(Duration, Finding)]| {
        let findings = found.iter().map(|(_, finding)| *finding);
        findings
            .filter(|one| matches!(one, Finding::Spared { silent: 2, of: 3 }))
            .count()
    };
    assert_eq!(said(&found), 1);
    let found = fleet.look_for(
        LIMIT * 2,
        0.0,
        &[silent(SLEEPS), silent(LOOPS), silent(LOOPS)],
    );
    let who: Vec<WorkerId> = given_up(&found).into_iter().map(|(who, _)| who).collect();
    assert!(!who.contains(&WorkerId(1)), "{who:?}");
    assert!(who.contains(&WorkerId(3)), "{who:?}");
}

#[test]
fn half_of_a_fleet_is_not_most_and_one_alone_is_none() {
    for sights in [&[silent(SLEEPS), WELL][..], &[silent(SLEEPS)]] {
        let found = Looked::new().look_for(LIMIT * 2, 0.0, sights);
        assert_eq!(given_up(&found).len(), 1);
    }
}

#[test]
fn those_that_are_held_do_not_count_as_silent() {
    let held = silent(Process {
        frozen: Some(Frozen::Stopped),
        ..SLEEPS
    });
    let found = Looked::new().look_for(LIMIT * 2, 0.0, &[held, held, silent(SLEEPS), WELL]);
    assert_eq!(given_up(&found).len(), 1);
}

#[test]
fn limits_stretch_for_one_that_gets_no_processor_up_to_four_times() {
    let stretched = |process: Process, pressure| {
        let found = Looked::new().look_for(LIMIT * 5, pressure, &[WELL, silent(process)]);
        given_up(&found)[0].1
    };
    let starves = |starved| Process {
        starved,
        ran: 1.0 - starved,
        ..LOOPS
    };
    assert_eq!(stretched(starves(0.5), 0.5), LIMIT);
    assert_eq!(stretched(starves(0.75), 0.0), LIMIT * 2);
    assert_eq!(stretched(starves(1.0), 0.0), LIMIT * 4);
    // The machine's pressure is no excuse for one that runs.
    assert_eq!(stretched(LOOPS, 1.0), LIMIT);
    assert_eq!(stretched(SLEEPS, 1.0), LIMIT * 4);
}

#[test]
fn one_of_which_only_the_queue_tells_has_longer_while_it_moves() {
    let sight = |evidence| Sight {
        silent: Some(evidence),
        process: Process {
            moves: true,
            ..SLEEPS
        },
    };
    let at = |evidence| {
        let found = Looked::new().look_for(LIMIT * 5, 0.0, &[WELL, sight(evidence)]);
        given_up(&found)[0].1
    };
    assert_eq!(at(Evidence::Queue), LIMIT * 4);
    assert_eq!(at(Evidence::Question), LIMIT);
}

#[test]
fn a_look_that_comes_late_counts_for_little() {
    let mut hangs = Hangs::new(LIMIT);
    let sights = [(WorkerId(1), silent(LOOPS))];
    for at in [0, 3600, 7200] {
        let now = Moment::after(Duration::from_secs(at));
        let found = hangs.look(now, 0.0, &sights);
        assert!(!found.iter().any(|one| matches!(one, Finding::Hung { .. })));
    }
}

fn any_process() -> impl Strategy<Value = Process> {
    (
        0.0..=1.0,
        0.0..=1.0,
        any::<bool>(),
        prop_oneof![3 => Just(None), 1 => Just(Some(Frozen::Stopped))],
    )
        .prop_map(|(starved, ran, moves, frozen)| Process {
            frozen,
            starved,
            ran,
            moves,
        })
}

proptest! {
    /// Whatever happens: nobody is given up that was not silent, and free, for the whole limit before; and one that is, in a
    /// fleet that is well, is given up after four times the limit.
    #[test]
    fn nobody_is_given_up_too_soon_or_never(
        history in proptest::collection::vec(
            (proptest::collection::vec((proptest::bool::weighted(0.9), any_process()), 4), 0.0_f64..=1.0), 1..300,
        ),
    ) {
        let limit = LOOK * 20;
        let mut hangs = Hangs::new(limit);
        let mut free_for = [Duration::ZERO; 4];
        let mut now = Moment::default();
        for (seen, pressure) in history {
            let sights: Vec<_> = (0_u32..).zip(&seen).map(|(id, (is_silent, process))| {
                let silent = is_silent.then_some(Evidence::Question);
                (WorkerId(id), Sight { silent, process: *process })
            }).collect();
            for (free, (_, sight)) in free_for.iter_mut().zip(&sights) {
                let is_free = sight.silent.is_some() && sight.process.frozen.is_none();
                *free = if is_free { *free + LOOK } else { Duration::ZERO };
            }
            for finding in hangs.look(now, pressure, &sights) {
                if let Finding::Hung { worker, early, .. } = finding {
                    let limit = if early { limit / OUTAGE } else { limit };
                    let free = free_for[usize::try_from(worker.0).unwrap()];
                    prop_assert!(free > limit, "{worker} after {free:?}");
                }
            }
            now = now + LOOK;
        }
        let last = [(WorkerId(9), silent(Process { starved: 1.0, ..SLEEPS })), (WorkerId(8), WELL)];
        let mut given_up = false;
        for _ in 0..=80 {
            let findings = hangs.look(now, 1.0, &last);
            given_up |= findings.iter().any(|one| matches!(one, Finding::Hung { .. }));
            now = now + LOOK;
        }
        prop_assert!(given_up);
    }
}

fn early(found: &[(Duration, Finding)]) -> Vec<(WorkerId, Duration)> {
    let gives_way = |(at, finding): &(Duration, Finding)| {
        let Finding::Hung { worker, early, .. } = finding else {
            return None;
        };
        early.then_some((*worker, *at))
    };
    found.iter().filter_map(gives_way).collect()
}

#[test]
fn while_nobody_serves_the_first_that_fell_silent_gives_way_early() {
    let mut fleet = Looked::new();
    fleet.look_for(LOOK * 2, 0.0, &[WELL, silent(LOOPS)]);
    let found = fleet.look_for(LIMIT / 2, 0.0, &[silent(LOOPS), silent(LOOPS)]);
    assert_eq!(
        early(&found),
        [(WorkerId(2), (LIMIT / OUTAGE).saturating_sub(LOOK * 2))]
    );
    assert!(fleet.hangs.is_replaced(WorkerId(2)));
    assert!(!fleet.hangs.is_replaced(WorkerId(1)));
}

#[test]
fn nobody_gives_way_early_while_one_serves_or_those_that_are_silent_sleep() {
    for sights in [
        [WELL, silent(LOOPS)],
        [silent(SLEEPS), silent(LOOPS)],
        [silent(SLEEPS), silent(SLEEPS)],
    ] {
        let mut fleet = Looked::new();
        let found = fleet.look_for(LIMIT.saturating_sub(LOOK), 0.0, &sights);
        assert_eq!(early(&found), []);
        assert_eq!(given_up(&found), []);
    }
    let mut fleet = Looked::new();
    let found = fleet.look_for(LIMIT.saturating_sub(LOOK), 0.0, &[silent(LOOPS)]);
    assert_eq!(early(&found), [], "a single worker has its whole time");
}

#[test]
fn loops_are_told_from_sleep_however_little_processor_time_there_is() {
    for starved in [0.5, 0.66, 0.8, 0.9, 0.97] {
        let loops = silent(Process {
            starved,
            // Two clocks never agree to the last digit.
            ran: (1.0 - starved) * 0.99,
            ..LOOPS
        });
        let mut fleet = Looked::new();
        let found = fleet.look_for(LIMIT * 5, 0.9, &[loops, loops]);
        assert_eq!(early(&found).len(), 1, "{starved}");
        assert_eq!(given_up(&found).len(), 2, "{starved}");
    }
    let sleeps = silent(Process {
        starved: 0.02,
        ran: 0.01,
        ..LOOPS
    });
    let never_runs = silent(Process {
        starved: 1.0,
        ..SLEEPS
    });
    for sight in [sleeps, never_runs] {
        let mut fleet = Looked::new();
        let found = fleet.look_for(LIMIT * 5, 0.9, &[sight, sight]);
        assert_eq!((early(&found), given_up(&found)), (vec![], vec![]));
    }
}

#[test]
fn one_that_gave_way_early_and_does_not_recover_is_given_up_in_its_time() {
    let mut fleet = Looked::new();
    let both = [silent(LOOPS), silent(LOOPS)];
    let found = fleet.look_for(LIMIT + LOOK, 0.0, &both);
    assert_eq!(early(&found).len(), 1);
    assert_eq!(
        given_up(&found),
        [(WorkerId(1), LIMIT), (WorkerId(2), LIMIT)]
    );
}

#[test]
fn one_that_a_signal_has_stopped_gives_way_while_another_serves_and_once() {
    let held = silent(Process {
        frozen: Some(Frozen::Stopped),
        ..SLEEPS
    });
    let mut fleet = Looked::new();
    assert!(fleet.look_for(LIMIT * 4, 0.0, &[held, held]).len() == 2);
    let found = fleet.look_for(LIMIT * 4, 0.0, &[WELL, held]);
    let stopped = |(_, finding): &(Duration, Finding)| match finding {
        Finding::Stopped(worker, stopped) => Some((*worker, *stopped)),
        Finding::Suspect(..)
        | Finding::Froze(..)
        | Finding::Hung { .. }
        | Finding::Recovered { .. }
        | Finding::Spared { .. } => None,
    };
    let gave_way: Vec<_> = found.iter().filter_map(stopped).collect();
    assert_eq!(gave_way.len(), 1);
    let mut fleet = Looked::new();
    let early = (LIMIT / STOPPED).saturating_sub(LOOK);
    let found = fleet.look_for(early, 0.0, &[WELL, held]);
    assert!(found.iter().find_map(stopped).is_none());
    let found = fleet.look_for(LOOK * 3, 0.0, &[WELL, held]);
    assert!(found.iter().find_map(stopped).is_some());
}
