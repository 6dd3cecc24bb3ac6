//! Plays many histories, or one aloud; and with faults.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use phalanx_core::fleet::Command;

use crate::fault::{FAULTS, Fault};
use crate::judge::Verdict;
use crate::world::{HEALS_AT, World};

/// Histories to play unless told otherwise.
const HISTORIES: u64 = if cfg!(debug_assertions) {
    2_000
} else {
    20_000
};
/// A planted fault has to show within so many.
const UNTIL_FOUND: u64 = 400;
/// Nothing goes wrong for so long before everybody must have been answered.
const REST: Duration = Duration::from_mins(1);
/// The app has to end within that.
const STOP_LIMIT: Duration = Duration::from_mins(1);

fn play(seed: u64, fault: Option<Fault>, is_verbose: bool) -> Verdict {
    let mut world = World::new(seed, fault, is_verbose);
    world.run(HEALS_AT + REST)?;
    world.expect_all_answered()?;
    let at = world.now;
    world.order(at, Command::Stop);
    world.run(at + STOP_LIMIT)?;
    if !world.is_finished {
        return Err("the app does not end".to_owned());
    }
    world.expect_all_answered()
}

fn play_caught(seed: u64, fault: Option<Fault>) -> Verdict {
    catch_unwind(AssertUnwindSafe(|| play(seed, fault, false)))
        .unwrap_or_else(|_| Err("it panicked".to_owned()))
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn every_connection_has_an_owner_and_every_drain_ends_in_every_history() {
    if let Some(seed) = number("PHALANX_JOINT_SEED") {
        if let Err(broken) = play(seed, None, true) {
            panic!("seed {seed}: {broken}");
        }
        return;
    }
    let histories = number("PHALANX_JOINT_HISTORIES").unwrap_or(HISTORIES);
    let broken: Vec<_> = (1..=histories)
        .filter_map(|seed| Some((seed, play_caught(seed, None).err()?)))
        .collect();
    let shown: Vec<_> = broken.iter().take(12).collect();
    assert!(
        broken.is_empty(),
        "{} of {histories} histories broke a rule: {shown:#?}\nreplay with PHALANX_JOINT_SEED=…",
        broken.len()
    );
}

/// The last worker crashes in the moment in which the fleet settles, which does not know it yet.
#[test]
fn a_listener_stays_when_its_last_worker_dies_as_the_fleet_settles() {
    assert_eq!(play(16_752, None, false), Ok(()));
}

/// A worker is stuck before it asks for its second listener, and is waited for no longer: the fleet settles.
#[test]
fn a_listener_stays_for_a_worker_that_asks_for_it_late() {
    assert_eq!(play(10_837, None, false), Ok(()));
}

#[test]
fn a_planted_fault_of_each_rule_is_found() {
    let mut missed = Vec::new();
    for fault in FAULTS {
        let found = (1..=UNTIL_FOUND).find_map(|seed| play_caught(seed, Some(fault)).err());
        match found {
            Some(broken) => println!("{fault:?}: {broken}"),
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "nobody notices: {missed:?}");
}

#[test]
fn a_machine_that_is_written_down_and_read_again_goes_on_alike() {
    for seed in 1..=60 {
        let end = |continued_every| {
            let mut world = World::new(seed, None, false);
            world.continued_every = continued_every;
            let verdict = world.run(HEALS_AT);
            format!("{verdict:?} {:?} {:?}", world.connections, world.machine)
        };
        assert_eq!(end(None), end(Some(7)), "seed {seed}");
    }
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 1..=5 {
        let end = || {
            let mut world = World::new(seed, None, false);
            let verdict = world.run(HEALS_AT);
            format!("{verdict:?} {:?}", world.connections)
        };
        assert_eq!(end(), end());
    }
}
