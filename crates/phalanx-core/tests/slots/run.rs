//! Plays many histories, or one aloud; and with faults.

use crate::fault::{FAULTS, Fault};
use crate::histories;
use crate::world::{Verdict, World};

/// Steps of a history, before nothing goes wrong any more.
const STEPS: u32 = 200;

fn play(seed: u64, migrates: bool, fault: Option<Fault>, is_verbose: bool) -> Verdict {
    let mut world = World::new(seed, migrates, fault, is_verbose);
    for _ in 0..STEPS {
        world.step()?;
    }
    world.heal()
}

fn expect_no_broken_rule(migrates: bool) {
    let play = |seed, is_verbose| play(seed, migrates, None, is_verbose);
    histories::expect_no_broken_rule("PHALANX_SLOT", play);
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
    histories::expect_each_found(&FAULTS, |seed, fault| play(seed, true, Some(fault), false));
}
