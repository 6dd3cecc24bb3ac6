//! Signals, groups, exit statuses and the parent-death signal.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod support;

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use phalanx_sys::process::{ExitStatus, FdMapping, Pid, Process, parent_pid, spawn};
use phalanx_sys::signal::Signal;
use rustix::process::{PidfdFlags, pidfd_open};
use support::{end_of, is_readable_within, pipe, read_all, read_line, run, shell, wait_readable};

/// A shell that says `up`, waits for a line on stdin, and then runs `script`.
fn waiting_shell(script: &str) -> (Process, OwnedFd, OwnedFd) {
    let mut plan = shell(&format!("echo up; read line; {script}"));
    let (output, writer) = pipe();
    let (reader, input) = pipe();
    plan.fds.push(FdMapping::owned(reader, 0));
    plan.fds.push(FdMapping::owned(writer, 1));
    plan.new_process_group = true;
    plan.die_with_parent = Some(Signal::KILL);
    let process = spawn(plan).unwrap();
    assert_eq!(read_line(&output), "up");
    (process, input, output)
}

fn go_on(input: &OwnedFd) {
    assert_eq!(rustix::io::write(input, b"\n").unwrap(), 1);
}

#[test]
fn codes_and_signals_are_told_apart() {
    for code in [0, 1, 127, 255] {
        let (_, status) = run(shell(&format!("exit {code}")));
        assert_eq!(status, ExitStatus::Code(code));
    }
    let (_, status) = run(shell("kill -TERM $$"));
    assert_eq!(status, ExitStatus::Signal(15));
}

#[test]
fn ignored_and_blocked_signals_are_reset() {
    // Rust programs ignore SIGPIPE; the new process must not.
    let (_, status) = run(shell("kill -PIPE $$; exit 3"));
    assert_eq!(status, ExitStatus::Signal(13));
    let (output, _) = run(shell("cat /proc/self/status"));
    for signals in ["SigBlk", "SigIgn"] {
        let empty = format!("{signals}:\t0000000000000000");
        assert!(output.lines().any(|line| line == empty), "{output}");
    }
}

#[test]
fn the_pidfd_becomes_readable_on_exit_only() {
    let (mut process, input, _output) = waiting_shell("exit 4");
    assert!(!is_readable_within(&process, Duration::ZERO));
    assert!(!process.has_exited().unwrap());
    assert_eq!(process.try_reap().unwrap(), None);
    go_on(&input);
    wait_readable(&process);
    assert!(process.has_exited().unwrap());
    assert_eq!(process.try_reap().unwrap(), Some(ExitStatus::Code(4)));
    assert!(process.has_exited().unwrap());
}

#[test]
fn a_reaped_process_can_be_signalled_without_harm() {
    let mut process = spawn(shell("exit 0")).unwrap();
    wait_readable(&process);
    process.signal(Signal::TERM).unwrap();
    assert_eq!(process.try_reap().unwrap(), Some(ExitStatus::Code(0)));
    process.signal(Signal::KILL).unwrap();
    process.signal_group(Signal::KILL).unwrap();
    let error = process.try_reap().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(10), "ECHILD");
}

#[test]
fn a_signal_ends_the_process() {
    let (mut process, _input, _output) = waiting_shell("exit 0");
    process.signal(Signal::USR1).unwrap();
    assert_eq!(
        end_of(&mut process),
        ExitStatus::Signal(u8::try_from(Signal::USR1.number()).unwrap())
    );
}

#[test]
fn a_group_is_reached_even_after_its_leader() {
    let mut plan = shell("sleep 1000 & exit 0");
    let (output, writer) = pipe();
    plan.fds.push(FdMapping::owned(writer, 1));
    plan.new_process_group = true;
    let mut process = spawn(plan).unwrap();
    wait_readable(&process);
    assert!(process.has_exited().unwrap());
    process.signal_group(Signal::KILL).unwrap();
    // The end of the pipe: the sleeper, who had it too, is gone.
    assert_eq!(read_all(&output), "");
    assert_eq!(process.try_reap().unwrap(), Some(ExitStatus::Code(0)));
}

#[test]
fn without_a_group_only_the_process_is_signalled() {
    let mut plan = shell("read line");
    let (reader, _input) = pipe();
    plan.fds.push(FdMapping::owned(reader, 0));
    let mut process = spawn(plan).unwrap();
    process.signal_group(Signal::TERM).unwrap();
    assert_eq!(end_of(&mut process), ExitStatus::Signal(15));
}

#[test]
fn a_group_of_its_own_is_made_on_request() {
    let script = "cut -d' ' -f5 /proc/$$/stat; echo $$; exit 0";
    let mut plan = shell(script);
    plan.new_process_group = true;
    let (output, _) = run(plan);
    let numbers: Vec<_> = output.lines().collect();
    assert_eq!(numbers[0], numbers[1]);
    let (output, _) = run(shell(script));
    let numbers: Vec<_> = output.lines().collect();
    assert_ne!(numbers[0], numbers[1]);
}

#[test]
fn a_worker_survives_the_thread_that_asked_for_it() {
    let asking = std::thread::spawn(|| waiting_shell("exit 7"));
    let (mut process, input, _output) = asking.join().unwrap();
    go_on(&input);
    assert_eq!(end_of(&mut process), ExitStatus::Code(7));
}

#[test]
fn the_parent_of_a_worker_is_this_process() {
    let (output, _) = run(shell("echo $PPID"));
    assert_eq!(output.trim(), Pid::current().to_string());
    assert_ne!(parent_pid(), Some(Pid::current()));
}

#[test]
fn many_threads_can_spawn_at_once() {
    std::thread::scope(|scope| {
        for code in 0..16 {
            scope.spawn(move || {
                let (_, status) = run(shell(&format!("exit {code}")));
                assert_eq!(status, ExitStatus::Code(code));
            });
        }
    });
}

/// Not a test by itself: the primary of the next one, in a process of its own.
#[test]
fn as_a_primary_that_will_be_killed() {
    if std::env::var_os("PHALANX_SYS_TEST_PRIMARY").is_none() {
        return;
    }
    let (process, input, _output) = waiting_shell("exit 0");
    println!("\nworker {}", process.pid());
    // Waits for ever: the worker never writes again, and the primary is killed.
    wait_readable(&process);
    drop(input);
}

#[test]
fn a_worker_ends_with_its_primary() {
    let mut primary = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "as_a_primary_that_will_be_killed"])
        .env("PHALANX_SYS_TEST_PRIMARY", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = OwnedFd::from(primary.stdout.take().unwrap());
    let number = loop {
        if let Some(number) = read_line(&output).strip_prefix("worker ") {
            break number.parse().unwrap();
        }
    };
    let pid = rustix::process::Pid::from_raw(number).unwrap();
    let worker = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    assert!(!is_readable_within(worker.as_fd(), Duration::ZERO));
    primary.kill().unwrap();
    primary.wait().unwrap();
    wait_readable(&worker);
}
