//! Processes that ask before they bind and listen. The programs are in `programs`: this test program
//! itself, started again.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "this whole file is a test"
)]

mod intercepted;
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use intercepted::{Started, is_available, slot, start};
use phalanx_sys::intercept::{Act, Call, Next};
use phalanx_sys::process::ExitStatus;
use phalanx_sys::signal::Signal;
use support::{end_of, wait_readable};

/// The next call; whatever is none of ours is passed over.
#[track_caller]
fn next_call(started: &Started) -> Call {
    loop {
        wait_readable(&started.calls);
        match started.calls.next().unwrap() {
            Next::Call(call) => return call,
            Next::Passed | Next::Nothing | Next::Unlink(_) => {}
            other @ (Next::Ended | Next::Hidden) => panic!("{other:?}"),
        }
    }
}

/// Lets all calls pass until nobody is left; their number.
#[track_caller]
fn pass_all(started: &Started) -> usize {
    let mut count = 0;
    loop {
        wait_readable(&started.calls);
        match started.calls.next().unwrap() {
            Next::Call(call) => {
                count += 1;
                call.pass();
            }
            Next::Passed | Next::Nothing | Next::Unlink(_) => {}
            Next::Ended => return count,
            Next::Hidden => panic!("may not look"),
        }
    }
}

#[test]
fn a_slot_is_planted_and_the_program_never_notices() {
    if !is_available() {
        return;
    }
    let mut started = start("serve");
    let call = next_call(&started);
    let Act::Bind(asked) = call.act() else {
        panic!("{call:?}");
    };
    assert_eq!(asked.to_string(), "127.0.0.1:0");
    assert!(call.pass());
    let call = next_call(&started);
    assert_eq!(call.act(), Act::Listen { backlog: 7 });
    assert!(!call.caller_holds(call.socket().unwrap().as_fd()));
    let (slot, address) = slot();
    call.plant(slot.as_fd()).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"hello").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    // The program tells which address it sees, and what became of its options.
    assert_eq!(
        answer,
        format!("{address} nonblock=1 cloexec=1 nodelay=1 hello")
    );
    assert_eq!(end_of(&mut started.process), ExitStatus::Code(0));
    assert!(matches!(started.calls.next().unwrap(), Next::Ended));
}

#[test]
fn what_is_no_tcp_socket_passes_untouched() {
    if !is_available() {
        return;
    }
    let mut started = start("others");
    assert_eq!(pass_all(&started), 0, "nothing of it is a call");
    assert_eq!(end_of(&mut started.process), ExitStatus::Code(0));
}

#[test]
fn answers_are_what_the_call_returns() {
    if !is_available() {
        return;
    }
    let mut started = start("answers");
    assert!(next_call(&started).succeed());
    assert!(next_call(&started).fail(&std::io::Error::from_raw_os_error(libc::EADDRINUSE)));
    // Dropped: it passes.
    drop(next_call(&started));
    assert_eq!(pass_all(&started), 0, "the last is about no address");
    assert_eq!(end_of(&mut started.process), ExitStatus::Code(0));
}

#[test]
fn every_thread_and_descendant_is_heard() {
    if !is_available() {
        return;
    }
    let mut started = start("family");
    let mut callers = std::collections::HashSet::new();
    for _ in 0..16 {
        let call = next_call(&started);
        callers.insert(call.process());
        match call.act() {
            Act::Bind(_) => assert!(call.pass()),
            Act::Listen { .. } => call.plant(slot().0.as_fd()).unwrap(),
            Act::Steer | Act::BindPath { .. } => panic!("{call:?}"),
        }
    }
    assert_eq!(pass_all(&started), 0);
    assert_eq!(
        callers.len(),
        5,
        "four descendants, and one process of four threads"
    );
    assert_eq!(end_of(&mut started.process), ExitStatus::Code(0));
}

#[test]
fn a_program_killed_in_the_middle_of_a_call_leaves_nothing_behind() {
    if !is_available() {
        return;
    }
    for answered in 0..4 {
        let mut started = start("serve");
        let call = next_call(&started);
        started.process.signal(Signal::KILL).unwrap();
        assert_eq!(end_of(&mut started.process), ExitStatus::Signal(9));
        match answered {
            0 => assert!(!call.pass()),
            1 => assert!(!call.succeed()),
            2 => drop(call),
            _ => {
                let error = call.plant(slot().0.as_fd()).unwrap_err();
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
            }
        }
        assert!(matches!(started.calls.next().unwrap(), Next::Ended));
    }
}

#[test]
fn a_signal_does_not_interrupt_a_call_that_is_being_answered() {
    if !is_available() {
        return;
    }
    let mut started = start("signalled");
    let call = next_call(&started);
    for _ in 0..3 {
        started.process.signal(Signal::USR1).unwrap();
    }
    if call.pass() {
        pass_all(&started);
        assert_eq!(end_of(&mut started.process), ExitStatus::Code(0));
    } else {
        // Before Linux 5.19 it is, and the program calls again.
        pass_all(&started);
        end_of(&mut started.process);
    }
}
