//! Plays many histories on all cores, or one aloud.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::coverage::{Coverage, SITUATIONS};
use crate::histories::number;
use crate::history;

/// Histories to play unless told otherwise: enough to meet every situation, or few where the build
/// is slow.
const HISTORIES: u64 = if cfg!(debug_assertions) { 256 } else { 2_000 };

/// Below this many histories some rare situation may well not come up.
const ENOUGH_FOR_ALL: u64 = 2_000;

/// How many broken histories are named.
const SHOWN_FAILURES: usize = 12;

#[test]
fn every_history_keeps_the_rules_and_recovers() {
    if let Some(seed) = number("PHALANX_SIM_SEED") {
        if let Err(broken) = history::play(seed, true) {
            panic!("seed {seed}: {broken}");
        }
        return;
    }
    let histories = number("PHALANX_SIM_HISTORIES").unwrap_or(HISTORIES);
    let first = number("PHALANX_SIM_FIRST_SEED").unwrap_or(1);
    let coverage = play_all(first, histories);
    for situation in SITUATIONS {
        println!("{:>9} {situation}", coverage.times(situation));
    }
    let missed: Vec<&str> = SITUATIONS
        .into_iter()
        .filter(|situation| coverage.times(situation) == 0)
        .collect();
    assert!(
        missed.is_empty() || histories < ENOUGH_FOR_ALL,
        "no history reached: {missed:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_history() {
    for seed in 1..=20 {
        let reached = || format!("{:?}", history::play(seed, false));
        assert_eq!(reached(), reached());
    }
}

fn play_all(first: u64, histories: u64) -> Coverage {
    let next = AtomicU64::new(first);
    let failures = Mutex::new(Vec::new());
    let coverage = Mutex::new(Coverage::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut reached = Coverage::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed - first >= histories {
                        break;
                    }
                    match play_caught(seed) {
                        Ok(history) => reached.add(&history),
                        Err(broken) => lock(&failures).push((seed, broken)),
                    }
                }
                lock(&coverage).add(&reached);
            });
        }
    });
    let mut failures = failures
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    failures.sort();
    if let Some((seed, _)) = failures.first() {
        let shown: Vec<String> = failures
            .iter()
            .take(SHOWN_FAILURES)
            .map(|(seed, broken)| format!("  seed {seed}: {broken}"))
            .collect();
        panic!(
            "{} of {histories} histories broke a rule, among them\n{}\n\
             replay with PHALANX_SIM_SEED={seed}",
            failures.len(),
            shown.join("\n")
        );
    }
    coverage
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
}

/// A panic of the machine is a failure of this seed like any other.
fn play_caught(seed: u64) -> Result<Coverage, String> {
    catch_unwind(AssertUnwindSafe(|| history::play(seed, false)))
        .unwrap_or_else(|_| Err("it panicked".to_owned()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
