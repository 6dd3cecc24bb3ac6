//! What is known of a worker that hangs, kept before it is killed: the stack of its JavaScript, what it prints at a signal,
//! and what `/proc` tells.
//!
//! All of it takes [`limit`] at most and is done where blocking is allowed: reading about a process whose memory is locked may wait
//! as long as that is.

mod inspector;
mod place;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use phalanx_core::dispatch::hang::Evidence;
use phalanx_sys::process::{Pid, catches, portrait};
use phalanx_sys::signal::Signal;

use crate::primary::cell::Cell;

/// The most that gathering may take on a machine that is not busy.
const LIMIT: Duration = Duration::from_secs(4);
/// It may take up to so many times as long on one that is.
const TIMES_MAX: f64 = 4.0;
/// How long a worker may take to say something at a signal.
const SAYS_WITHIN: Duration = Duration::from_secs(2);
/// It has said all when it has said something, and then nothing for so long: on a busy machine it waits for a processor in the midst of
/// its words.
const SAID_ALL: Duration = Duration::from_millis(250);
/// Between two looks at what it has said.
const LOOK: Duration = Duration::from_millis(10);

/// Who hangs, and why that is believed.
#[derive(Debug)]
pub(in crate::primary) struct Subject {
    pub(in crate::primary) cell: Arc<Cell>,
    pub(in crate::primary) by: Evidence,
    pub(in crate::primary) silent: Duration,
    /// The most that gathering may take; what is there by then is kept.
    pub(in crate::primary) limit: Duration,
    /// The signal at which it prints its stacks.
    pub(in crate::primary) signal: Option<Signal>,
}

/// What was kept.
#[derive(Debug, Default)]
pub(in crate::primary) struct Kept {
    /// The file; none if there is no place for it.
    pub(in crate::primary) path: Option<PathBuf>,
    /// The function that it is in, where that is known.
    pub(in crate::primary) function: Option<String>,
}

/// The most that gathering may take about a worker that has been silent, when so much of that time was enough to give it up. More was
/// needed where it waited for a processor, and what opens its inspector waits for the same.
pub(in crate::primary) fn limit(silent: Duration, enough: Duration) -> Duration {
    if enough.is_zero() {
        return LIMIT;
    }
    LIMIT.mul_f64(silent.div_duration_f64(enough).clamp(1.0, TIMES_MAX))
}

/// Gathers and keeps everything. Blocks.
pub(in crate::primary) fn gather(subject: &Subject) -> Kept {
    let Subject {
        cell, by, silent, ..
    } = subject;
    let deadline = phalanx_sys::clock::now() + subject.limit;
    let mut text = format!(
        "worker {} at position {}, process {}: {by}, for {:.1} s\n",
        cell.id,
        cell.position(),
        cell.pid,
        silent.as_secs_f64()
    );
    let stack = inspector::is_askable(cell.pid).then(|| javascript(cell, deadline));
    let mut function = None;
    match stack {
        Some(Ok(stack)) => {
            function = stack.first().map(ToString::to_string);
            text.push_str("== JavaScript stack\n");
            for frame in stack {
                text.extend([format!("    at {frame}\n")]);
            }
        }
        Some(Err(error)) => text.extend([format!("== no JavaScript stack: {error}\n")]),
        None => {}
    }
    if let Some(signal) = subject.signal {
        text.extend([format!("== after {signal}\n")]);
        for line in said_at(cell, signal, deadline).lines() {
            text.extend([format!("    {line}\n")]);
        }
    }
    text.push_str("== last lines\n");
    for line in cell.last.to_vec() {
        text.extend([format!("    {line}\n")]);
    }
    text.push_str(&portrait(cell.pid));
    let path = place::keep(cell.id, &text).inspect_err(
        |error| tracing::warn!(%error, "no place for what is known of a worker that hangs"),
    );
    Kept {
        path: path.ok(),
        function,
    }
}

/// Has Node open its inspector, asks there for the stack, and closes it: a client that leaves lets the program go on.
fn javascript(cell: &Cell, deadline: Instant) -> std::io::Result<Vec<inspector::Frame>> {
    cell.signal(Signal::USR1)?;
    let find = || {
        cell.last
            .to_vec()
            .iter()
            .rev()
            .find_map(|line| inspector::Address::find(line))
    };
    let address = wait(deadline, find)
        .ok_or_else(|| std::io::Error::other("it did not open its inspector"))?;
    inspector::stack(&address, deadline)
}

/// What the worker writes at a signal. Waits until it has said all, has ended, or takes too long.
fn said_at(cell: &Cell, signal: Signal, deadline: Instant) -> String {
    cell.last.record();
    if let Err(error) = cell.signal(signal) {
        return error.to_string();
    }
    let until = deadline.min(phalanx_sys::clock::now() + SAYS_WITHIN);
    let mut said = (0, phalanx_sys::clock::now());
    wait(until, || {
        let (bytes, now) = (cell.last.recorded_bytes(), phalanx_sys::clock::now());
        if bytes != said.0 {
            said = (bytes, now);
        }
        let has_said_all = bytes > 0 && now - said.1 >= SAID_ALL;
        (has_said_all || cell.exit_status().is_some()).then_some(())
    });
    cell.last.recorded()
}

/// Looks again and again until there is something, or the time is over.
fn wait<T>(until: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        let left = until.saturating_duration_since(phalanx_sys::clock::now());
        if left.is_zero() {
            return None;
        }
        std::thread::park_timeout(LOOK.min(left));
    }
}

/// Whether the worker opens an inspector at USR1 whose address only its own output tells.
fn publishes_to_output(pid: Pid) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let wanted = crate::primary::release::preload::PUBLISH.as_bytes();
    environment.windows(wanted.len()).any(|part| part == wanted)
        && catches(pid, Signal::USR1)
        && std::fs::read_link(format!("/proc/{pid}/exe"))
            .is_ok_and(|path| path.file_stem().is_some_and(|stem| stem == "node"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gathering_may_take_longer_where_little_of_the_time_counted() {
        let second = Duration::from_secs(1);
        for (silent, enough, expected) in [(2, 2, 4), (1, 2, 4), (4, 2, 8), (100, 2, 16), (1, 0, 4)]
        {
            assert_eq!(limit(silent * second, enough * second), expected * second);
        }
    }
}
