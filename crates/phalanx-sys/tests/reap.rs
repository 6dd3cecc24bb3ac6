//! Reaping as PID 1 does it. Alone in its program: it reaps what other tests might wait for.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod support;

use std::os::fd::OwnedFd;

use phalanx_sys::process::{ExitStatus, FdMapping, Pid, Process, reap_strangers, spawn};
use rustix::process::{
    PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal, set_child_subreaper,
};
use support::{end_of, pipe, read_line, shell, wait_readable};

/// A worker that has exited, unreaped, and left a process that is ours to reap now.
fn exited_worker_with_orphan() -> (Process, OwnedFd) {
    let mut plan = shell("sleep 1000 & echo $!");
    let (output, writer) = pipe();
    plan.fds.push(FdMapping::owned(writer, 1));
    let worker = spawn(plan).unwrap();
    let number = read_line(&output).parse().unwrap();
    let pid = rustix::process::Pid::from_raw(number).unwrap();
    let orphan = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    wait_readable(&worker);
    (worker, orphan)
}

fn end(orphan: &OwnedFd) {
    pidfd_send_signal(orphan, Signal::KILL).unwrap();
    wait_readable(orphan);
}

#[test]
fn strangers_are_reaped_and_workers_are_not() {
    set_child_subreaper(Some(getpid())).unwrap();
    assert_eq!(reap_strangers(|_| false), 0);

    // A worker of ours is a zombie, and was there first.
    let (mut first, orphan) = exited_worker_with_orphan();
    assert_eq!(reap_strangers(|_| false), 0);
    end(&orphan);
    assert_eq!(reap_strangers(|_| false), 1);
    assert_eq!(reap_strangers(|_| false), 0);
    assert_eq!(end_of(&mut first), ExitStatus::Code(0));

    // None of ours; two at once, one of which somebody else claims.
    let (mut worker, orphan) = exited_worker_with_orphan();
    let (mut other, claimed) = exited_worker_with_orphan();
    assert_eq!(end_of(&mut worker), ExitStatus::Code(0));
    assert_eq!(end_of(&mut other), ExitStatus::Code(0));
    end(&orphan);
    end(&claimed);
    let claimed = pid_of(&claimed);
    assert_eq!(reap_strangers(|pid| pid == claimed), 1);
    assert_eq!(reap_strangers(|_| false), 1);

    // A worker that was dropped without being reaped is nobody's any more.
    let dropped = spawn(shell("exit 0")).unwrap();
    wait_readable(&dropped);
    assert_eq!(reap_strangers(|_| false), 0);
    drop(dropped);
    assert_eq!(reap_strangers(|_| false), 1);

    // A start that failed left no zombie behind.
    let mut plan = shell("exit 0");
    plan.program = "/nonexistent".into();
    assert!(spawn(plan).is_err());
    assert_eq!(reap_strangers(|_| false), 0);
}

/// The number in `/proc/self/fdinfo` of a pidfd.
fn pid_of(pidfd: &OwnedFd) -> Pid {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let info = std::fs::read_to_string(path).unwrap();
    let number = info.lines().find_map(|line| line.strip_prefix("Pid:"));
    Pid::from_number(number.unwrap().trim().parse().unwrap()).unwrap()
}
