//! Processes that make wild calls, and are answered at random: nobody hangs, and no descriptor is left.
//! In a file of its own, because other tests open descriptors meanwhile.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this whole file is a test"
)]

mod intercepted;
mod support;

use std::os::fd::AsFd;

use intercepted::{is_available, slot, start};
use phalanx_sys::intercept::{Call, Next};
use phalanx_sys::process::ExitStatus;
use support::{end_of, wait_readable};

/// Descriptors that this process has open.
fn open_count() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn wild_calls_and_any_answers_end_and_leak_nothing() {
    if !is_available() {
        return;
    }
    wild(u64::MAX);
    // The first one has started what stays, such as the thread that forks.
    let before = open_count();
    let seeds = if std::env::var_os("PHALANX_TEST_LONG").is_some() {
        64
    } else {
        8
    };
    for seed in 0..seeds {
        wild(seed);
    }
    assert_eq!(open_count(), before);
}

fn wild(seed: u64) {
    let mut started = start(&format!("wild {seed}"));
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    let mut ended = false;
    while !ended {
        wait_readable(&started.calls);
        match started.calls.next().unwrap() {
            Next::Call(call) => answer_at_random(call, &mut rng),
            Next::Passed | Next::Nothing | Next::Unlink(_) => {}
            Next::Ended => ended = true,
            Next::Hidden => panic!("seed {seed}: may not look"),
        }
    }
    let status = end_of(&mut started.process);
    let fine = matches!(status, ExitStatus::Code(0) | ExitStatus::Signal(9));
    assert!(fine, "seed {seed}: {status:?}");
}

fn answer_at_random(call: Call, rng: &mut fastrand::Rng) {
    match rng.u32(..6) {
        0 => drop(call),
        1 => drop(call.pass()),
        2 => drop(call.succeed()),
        3 => drop(call.fail(&std::io::Error::from_raw_os_error(libc::EADDRINUSE))),
        // A caller may be gone, or have closed the descriptor since.
        _ => drop(call.plant(slot().0.as_fd())),
    }
}
