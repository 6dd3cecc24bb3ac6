//! What the tests of this crate share: shell programs as workers, and waiting with a deadline.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test takes what it needs, and one that cannot be set up has failed"
)]

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use phalanx_sys::process::{ExitStatus, FdMapping, Process, SpawnPlan, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};

/// Longer than anything here takes, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `fd` is readable: for a process, until it has exited.
#[track_caller]
pub(crate) fn wait_readable(fd: impl AsFd) {
    assert!(is_readable_within(&fd, DEADLINE), "nothing in {DEADLINE:?}");
}

/// Whether `fd` is readable now or within `limit`.
pub(crate) fn is_readable_within(fd: impl AsFd, limit: Duration) -> bool {
    let deadline = phalanx_sys::clock::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(phalanx_sys::clock::now());
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec::try_from(left).unwrap())) {
            Ok(count) => return count > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
    }
}

/// A plan for `/bin/sh -c script` with the usual `PATH`.
pub(crate) fn shell(script: &str) -> SpawnPlan {
    let mut plan = SpawnPlan::new(PathBuf::from("/bin/sh"));
    plan.args.extend(["-c".into(), script.into()]);
    plan.env.push(("PATH".into(), "/usr/bin:/bin".into()));
    plan
}

/// A close-on-exec pipe: (reading end, writing end).
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    pipe_with(PipeFlags::CLOEXEC).unwrap()
}

/// Reads until the other end is closed by all who have it.
#[track_caller]
pub(crate) fn read_all(fd: &OwnedFd) -> String {
    let mut text = Vec::new();
    loop {
        wait_readable(fd);
        let mut piece = [0; 4096];
        match rustix::io::read(fd, &mut piece).unwrap() {
            0 => return String::from_utf8(text).unwrap(),
            count => text.extend_from_slice(&piece[..count]),
        }
    }
}

/// Reads up to a newline, which is left out.
#[track_caller]
pub(crate) fn read_line(fd: &OwnedFd) -> String {
    let mut text = Vec::new();
    loop {
        wait_readable(fd);
        let mut byte = [0];
        assert_eq!(rustix::io::read(fd, &mut byte).unwrap(), 1, "early end");
        if byte == *b"\n" {
            return String::from_utf8(text).unwrap();
        }
        text.extend(byte);
    }
}

/// Waits for the process to exit and reaps it.
#[track_caller]
pub(crate) fn end_of(process: &mut Process) -> ExitStatus {
    wait_readable(&*process);
    process.try_reap().unwrap().unwrap()
}

/// What the process writes to stdout, and how it ends.
#[track_caller]
pub(crate) fn run(mut plan: SpawnPlan) -> (String, ExitStatus) {
    let (reader, writer) = pipe();
    plan.fds.push(FdMapping::owned(writer, 1));
    let mut process = spawn(plan).unwrap();
    (read_all(&reader), end_of(&mut process))
}
