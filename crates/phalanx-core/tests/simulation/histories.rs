//! Histories from seeds: many, or one aloud as the environment says; and with planted faults.

use std::env;
use std::fmt::Debug;

/// Histories to play unless told otherwise.
const HISTORIES: u64 = if cfg!(debug_assertions) {
    2_000
} else {
    20_000
};
/// A planted fault has to show within so many.
const UNTIL_FOUND: u64 = 400;
/// How many broken histories are named.
const SHOWN: usize = 12;

/// The number in the variable, if there is one.
pub(crate) fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// Plays `{variables}_HISTORIES` of them, or the one of `{variables}_SEED` aloud (`true`).
pub(crate) fn expect_no_broken_rule(
    variables: &str,
    play: impl Fn(u64, bool) -> Result<(), String>,
) {
    if let Some(seed) = number(&format!("{variables}_SEED")) {
        if let Err(broken) = play(seed, true) {
            panic!("seed {seed}: {broken}");
        }
        return;
    }
    let histories = number(&format!("{variables}_HISTORIES")).unwrap_or(HISTORIES);
    let broken: Vec<_> = (1..=histories)
        .filter_map(|seed| Some((seed, play(seed, false).err()?)))
        .collect();
    let shown: Vec<_> = broken.iter().take(SHOWN).collect();
    assert!(
        broken.is_empty(),
        "{} of {histories} histories broke a rule: {shown:#?}\nreplay with {variables}_SEED=…",
        broken.len()
    );
}

/// Each fault breaks a rule in one of the first histories.
pub(crate) fn expect_each_found<F: Copy + Debug>(
    faults: &[F],
    play: impl Fn(u64, F) -> Result<(), String>,
) {
    let mut missed = Vec::new();
    for &fault in faults {
        let found = (1..=UNTIL_FOUND).find_map(|seed| play(seed, fault).err());
        match found {
            Some(broken) => println!("{fault:?}: {broken}"),
            None => missed.push(fault),
        }
    }
    assert!(missed.is_empty(), "nobody notices: {missed:?}");
}
