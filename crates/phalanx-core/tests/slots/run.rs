//! Plays many histories, or one aloud; and with faults.

use std::env;

use crate::fault::{FAULTS, Fault};
use crate::world::{Verdict, World};

/// Histories to play unless told otherwise, of so many steps.
const HISTORIES: u64 = if cfg!(debug_assertions) {
    2_000
} else {
    20_000
};
const STEPS: u32 = 200;
/// A planted fault has to show within so many.
const UNTIL_FOUND: u64 = 400;

fn play(seed: u64, migrates: bool, fault: Option<Fault>, is_verbose: bool) -> Verdict {
    let mut world = World::new(seed, migrates, fault, is_verbose);
    for _ in 0..STEPS {
        world.step()?;
    }
    world.heal()
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Of all histories, or aloud.
fn expect_no_broken_rule(migrates: bool) {
    if let Some(seed) = number("PHALANX_SLOT_SEED") {
        if let Err(broken) = play(seed, migrates, None, true) {
            panic!("seed {seed}: {broken}");
        }
        return;
    }
    let histories = number("PHALANX_SLOT_HISTORIES").unwrap_or(HISTORIES);
    let broken: Vec<_> = (1..=histories)
        .filter_map(|seed| Some((seed, play(seed, migrates, None, false).err()?)))
        .collect();
    let shown: Vec<_> = broken.iter().take(12).collect();
    assert!(
        broken.is_empty(),
        "{} of {histories} histories broke a rule: {shown:#?}\nreplay with PHALANX_SLOT_SEED=…",
        broken.len()
    );
}

#[test]
fn nobody_is_refused_and_nothing_is_lost_where_queues_move() {
    expect_no_broken_rule(true);
}

#[test]
fn nobody_is_refused_and_nothing_is_lost_where_queues_stay() {
    expect_no_broken_rule(false);
}

#[test]
fn a_planted_fault_of_each_rule_is_found() {
    let mut missed = Vec::new();
    for fault in FAULTS {
        let found = (1..=UNTIL_FOUND).find_map(|seed| play(seed, true, Some(fault), false).err());
        match found {
            Some(broken) => println!("{fault:?}: {broken}"),
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "nobody notices: {missed:?}");
}
