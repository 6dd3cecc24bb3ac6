use proptest::prelude::*;

use super::*;

const STEP: Duration = Duration::from_millis(250);
const SILENCE: Duration = Limits::CONNECTIONS.silence;

fn at(steps: u32) -> Moment {
    Moment::after(STEP * steps)
}

fn seen(taken: u64, waiting: u32) -> Progress {
    Progress { taken, waiting }
}

fn new() -> Liveness {
    Liveness::new(Limits::CONNECTIONS)
}

/// Looks once a step from the step `from` until something follows; says what, and at which step.
fn until(liveness: &mut Liveness, progress: Progress, from: u32) -> (Finding, u32) {
    let looks = from..from + 1_000;
    looks
        .into_iter()
        .find_map(|step| Some((liveness.look(progress, Life::Unknown, at(step))?, step)))
        .expect("something follows in the end")
}

#[test]
fn who_takes_nothing_for_a_while_is_stuck() {
    let mut liveness = new();
    assert_eq!(liveness.look(seen(10, 2), Life::Unknown, at(0)), None);
    let (finding, step) = until(&mut liveness, seen(10, 3), 1);
    assert_eq!(finding, Finding::Stuck);
    assert_eq!(at(step).since(at(1)), SILENCE);
    assert!(liveness.is_stuck() && !liveness.is_tried());
}

#[test]
fn who_takes_something_is_not_stuck_however_much_waits() {
    let mut liveness = new();
    for step in 0..100 {
        let progress = seen(u64::from(step / 3), 5_000 + step);
        assert_eq!(liveness.look(progress, Life::Unknown, at(step)), None);
    }
}

#[test]
fn what_is_on_its_way_is_no_sign_of_life() {
    // A handshake counts as taken until the connection waits.
    let mut liveness = new();
    liveness.look(seen(10, 1), Life::Unknown, at(0));
    let mut stuck = false;
    for step in 1..12 {
        let on_its_way = u64::from(step % 3);
        stuck |= liveness.look(seen(10 + on_its_way, step), Life::Unknown, at(step))
            == Some(Finding::Stuck);
    }
    assert!(stuck);
}

#[test]
fn it_is_tried_at_longer_and_longer_intervals() {
    let mut liveness = new();
    let progress = seen(0, 1);
    let (finding, mut step) = until(&mut liveness, progress, 0);
    assert_eq!(finding, Finding::Stuck);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let began = step;
        let (finding, tried) = until(&mut liveness, progress, step + 1);
        assert_eq!(finding, Finding::Try);
        assert!(liveness.is_tried());
        pauses.push(at(tried).since(at(began)).as_secs());
        let (finding, failed) = until(&mut liveness, progress, tried + 1);
        assert_eq!(finding, Finding::Failed);
        step = failed;
    }
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 30, 30]);
}

#[test]
fn a_trial_lasts_until_somebody_connects() {
    let mut liveness = new();
    let (_, step) = until(&mut liveness, seen(0, 1), 0);
    assert_eq!(until(&mut liveness, seen(0, 0), step + 1).0, Finding::Try);
    for idle in step + 2..step + 200 {
        assert_eq!(liveness.look(seen(0, 0), Life::Unknown, at(idle)), None);
    }
    assert!(liveness.is_tried());
}

#[test]
fn who_takes_something_is_healthy_at_that_moment_and_forgiven() {
    let mut liveness = new();
    let (_, step) = until(&mut liveness, seen(0, 1), 0);
    until(&mut liveness, seen(0, 1), step + 1);
    let (_, failed) = until(&mut liveness, seen(0, 1), step + 2);
    let after = at(failed + 1).since(at(step));
    let finding = liveness.look(seen(1, 0), Life::Unknown, at(failed + 1));
    assert_eq!(finding, Some(Finding::Recovered { after }));
    assert!(!liveness.is_stuck());
    let (_, again) = until(&mut liveness, seen(1, 1), failed + 2);
    assert_eq!(until(&mut liveness, seen(1, 1), again + 1).1, again + 1);
}

#[test]
fn what_moves_away_is_not_taken() {
    let mut liveness = new();
    let (_, step) = until(&mut liveness, seen(0, 40), 0);
    liveness.rebase(40);
    assert_eq!(
        liveness.look(seen(40, 0), Life::Unknown, at(step + 1)),
        Some(Finding::Try)
    );
    assert!(liveness.is_stuck());
}

#[test]
fn where_all_are_stuck_nobody_is_punished() {
    assert_eq!(set_aside([(1, true), (2, false)]), BTreeSet::from([1]));
    assert!(set_aside([(1, true), (2, true)]).is_empty());
    assert!(set_aside::<u32>([]).is_empty());
}

#[test]
fn who_says_that_it_lives_is_believed_once() {
    let mut liveness = new();
    let (_, step) = until(&mut liveness, seen(0, 1), 0);
    let progress = seen(0, 0);
    assert_eq!(liveness.look(progress, Life::Silent, at(step + 99)), None);
    let finding = liveness.look(progress, Life::Shown, at(step + 100));
    assert_eq!(finding, Some(Finding::Recovered { after: STEP * 100 }));
    // It said so, and took nothing: from now on it is tried, after longer and longer times.
    let (finding, again) = until(&mut liveness, seen(0, 1), step + 101);
    assert_eq!(finding, Finding::Stuck);
    let mut looks =
        (again + 1..).map(|step| (liveness.look(progress, Life::Shown, at(step)), step));
    let (finding, tried) = looks.find(|(finding, _)| finding.is_some()).unwrap();
    assert_eq!(finding, Some(Finding::Try));
    assert_eq!(at(tried).since(at(again)), Limits::CONNECTIONS.trial_first);
}

proptest! {
    #[test]
    fn nobody_is_stuck_without_having_been_silent_for_the_limit(
        looks in proptest::collection::vec((0_u64..3, 0_u32..4, 1_u32..4), 1..200),
    ) {
        let mut liveness = new();
        let (mut taken, mut step) = (0, 0);
        let mut life_at = at(0);
        for (more, waiting, steps) in looks {
            step += steps;
            taken += more;
            let was_stuck = liveness.is_stuck();
            let finding = liveness.look(seen(taken, waiting), Life::Unknown, at(step));
            if more > 0 || waiting == 0 {
                life_at = at(step);
            }
            if finding == Some(Finding::Stuck) {
                prop_assert!(!was_stuck);
                prop_assert!(at(step).since(life_at) >= SILENCE);
            }
            if more > 0 {
                prop_assert!(!liveness.is_stuck(), "who takes something is healthy");
            }
        }
    }

    #[test]
    fn a_stuck_worker_is_always_tried_again(failures in 0_u32..40) {
        let mut liveness = new();
        let (_, mut step) = until(&mut liveness, seen(0, 1), 0);
        for _ in 0..failures {
            let (finding, tried) = until(&mut liveness, seen(0, 1), step + 1);
            prop_assert_eq!(finding, Finding::Try);
            prop_assert!(at(tried).since(at(step)) <= Limits::CONNECTIONS.trial_max + STEP);
            step = until(&mut liveness, seen(0, 1), tried + 1).1;
        }
    }
}
