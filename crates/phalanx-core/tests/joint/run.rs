//! Plays many histories, or one aloud; and with faults.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use phalanx_core::fleet::Command;

use crate::fault::{FAULTS, Fault};
use crate::histories;
use crate::judge::Verdict;
use crate::world::{HEALS_AT, World};

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

#[test]
fn every_connection_has_an_owner_and_every_drain_ends_in_every_history() {
    histories::expect_no_broken_rule("PHALANX_JOINT", |seed, is_verbose| {
        if is_verbose {
            play(seed, None, true)
        } else {
            play_caught(seed, None)
        }
    });
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
    histories::expect_each_found(&FAULTS, |seed, fault| play_caught(seed, Some(fault)));
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
