//! The new process between fork and exec.
//!
//! The fork of a process with threads has one thread, and whatever locks the others held stay
//! locked for ever (fork(2), signal-safety(7)). So nothing here allocates, locks, logs or
//! panics, and there is no way back: the new process becomes the program, or it reports which
//! step failed and exits.
#![allow(
    unsafe_code,
    reason = "rustix has no fork side: signals, dup2 and exec"
)]

use std::convert::Infallible;
use std::ffi::{CStr, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, Resource, Rlimit, Signal, setrlimit};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use super::prepare::PidVariable;
use crate::{channel, intercept};

/// The exit code of a process that did not become its program, as shells have it.
const EXIT_NOT_EXECUTED: i32 = 127;

/// The highest signal number of Linux (`_NSIG`).
const HIGHEST_SIGNAL: usize = 64;

/// What the new process needs; all of it belongs to the memory that it was forked with.
pub(super) struct Instructions<'a> {
    /// Gets the report of a failure; close-on-exec, and above all planned numbers.
    pub(super) report: BorrowedFd<'a>,
    /// The process that must still be the parent when the parent-death signal is armed.
    pub(super) primary: Option<Pid>,
    pub(super) new_process_group: bool,
    pub(super) fds: &'a [(OwnedFd, i32)],
    pub(super) cwd: Option<&'a CStr>,
    pub(super) drops_groups: bool,
    pub(super) gid: Option<u32>,
    pub(super) uid: Option<u32>,
    pub(super) death_signal: Option<Signal>,
    /// Where the descriptor goes that its calls are reported on, if they are.
    pub(super) interception: Option<BorrowedFd<'a>>,
    /// The limits of open files that it starts with, if they are not this process's.
    pub(super) open_files: Option<Rlimit>,
    pub(super) intercepts_paths: bool,
    pub(super) program: &'a CStr,
    pub(super) executable: Option<(BorrowedFd<'a>, &'a CStr)>,
    /// Variables among `env` to write this process's number into.
    pub(super) own_pid_env: &'a [PidVariable],
    /// Pointers to C strings, ended by a null pointer.
    pub(super) args: &'a [*const c_char],
    /// Pointers to C strings, ended by a null pointer.
    pub(super) env: &'a [*const c_char],
}

/// The steps that can fail.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(i32)]
pub(super) enum Step {
    ProcessGroup = 1,
    PlaceFd,
    Chdir,
    SetGroups,
    SetGid,
    SetUid,
    DeathSignal,
    Intercept,
    Exec,
}

/// The report of the new process: the step that failed, the descriptor number that it was
/// about (else 0), and the error.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) target: i32,
    pub(super) errno: i32,
}

/// Carries the instructions out and becomes the program, or reports a failure and exits.
///
/// # Safety
///
/// Only for the new process right after fork(2), with all signals blocked. The pointers in
/// `args` and `env` must be valid and both must end with a null pointer.
pub(super) unsafe fn run(instructions: &Instructions<'_>) -> ! {
    // SAFETY: the caller's promise is passed on.
    let Err(failure) = unsafe { become_program(instructions) };
    // If the report cannot be written, then the primary is gone and nobody waits for it.
    let _unheard = rustix::io::write(instructions.report, &failure.to_bytes());
    exit()
}

/// # Safety
///
/// As for [`run`].
unsafe fn become_program(instructions: &Instructions<'_>) -> Result<Infallible, Failure> {
    reset_signals();
    if instructions.new_process_group {
        rustix::process::setpgid(None, None).map_err(Failure::at(Step::ProcessGroup))?;
    }
    close_on_exec_from_three();
    for (source, target) in instructions.fds {
        place(source, *target)?;
    }
    if let Some(directory) = instructions.cwd {
        rustix::process::chdir(directory).map_err(Failure::at(Step::Chdir))?;
    }
    if let Some(primary) = instructions.interception {
        report_calls(primary, instructions.intercepts_paths)
            .map_err(Failure::at(Step::Intercept))?;
    }
    change_credentials(instructions)?;
    keep_own_capabilities();
    if let Some(signal) = instructions.death_signal {
        arm_death_signal(signal, instructions.primary)?;
    }
    if let Some(limits) = instructions.open_files {
        // Only lowers the soft limit, which is always allowed.
        let _lowered = setrlimit(Resource::Nofile, limits);
    }
    let number = rustix::process::getpid().as_raw_nonzero().get();
    for variable in instructions.own_pid_env {
        variable.set(number.unsigned_abs());
    }
    // SAFETY: the caller's promise is passed on.
    Err(Failure::at(Step::Exec)(unsafe { exec(instructions) }))
}

/// Gives every signal its default disposition, ignored ones (SIGPIPE in every Rust program)
/// included, and then unblocks all. The system calls are made directly: those of the C library
/// leave its own signals out, which somebody may have ignored before this program was executed.
fn reset_signals() {
    // A `struct sigaction` of the kernel's and a signal mask: zeros mean the default
    // disposition without flags, and no signal. Longer than either on every architecture.
    let zeros = [0_u64; 8];
    let mask_bytes = HIGHEST_SIGNAL / 8;
    for signal in 1..=HIGHEST_SIGNAL {
        // Fails for SIGKILL and SIGSTOP, which need no reset.
        // SAFETY: `zeros` is valid, the old disposition is not asked for, and the default one
        // calls no code of this program.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                zeros.as_ptr(),
                ptr::null_mut::<u64>(),
                mask_bytes,
            )
        };
    }
    // SAFETY: `zeros` is valid and the old mask is not asked for.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            zeros.as_ptr(),
            ptr::null_mut::<u64>(),
            mask_bytes,
        )
    };
}

/// Marks every descriptor from 3 on, so that exec closes it: also those that this process
/// inherited without the mark. Kernels before 5.11 cannot; they pass the latter on.
fn close_on_exec_from_three() {
    // SAFETY: changes flags in this process's own descriptor table, and nothing else.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// Makes `source` inheritable as `target` (dup2(2) clears the close-on-exec flag).
fn place(source: &OwnedFd, target: i32) -> Result<(), Failure> {
    loop {
        // SAFETY: what `target` was before belongs to the primary; here nobody uses it.
        if unsafe { libc::dup2(source.as_raw_fd(), target) } != -1 {
            return Ok(());
        }
        let errno = last_errno();
        if errno != Errno::INTR {
            return Err(Failure {
                target,
                ..Failure::at(Step::PlaceFd)(errno)
            });
        }
    }
}

fn change_credentials(instructions: &Instructions<'_>) -> Result<(), Failure> {
    // The calls for one thread are plain system calls; those of the C library would signal
    // the other threads, of which there are none. The user comes last: it is the user who may
    // change groups.
    if instructions.drops_groups {
        set_thread_groups(&[]).map_err(Failure::at(Step::SetGroups))?;
    }
    if let Some(gid) = instructions.gid {
        let gid = rustix::process::Gid::from_raw_unchecked(gid);
        set_thread_gid(gid).map_err(Failure::at(Step::SetGid))?;
    }
    if let Some(uid) = instructions.uid {
        let uid = rustix::process::Uid::from_raw_unchecked(uid);
        set_thread_uid(uid).map_err(Failure::at(Step::SetUid))?;
    }
    Ok(())
}

/// The capabilities with which the primary loads its kernel program: `CAP_PERFMON` and `CAP_BPF` of linux/capability.h.
const OF_THE_PRIMARY: [libc::c_ulong; 2] = [38, 39];

/// Keeps back what was granted to the primary as ambient capabilities (`AmbientCapabilities=` of systemd.exec(5)): with them a worker could
/// read the kernel's memory. Others, as the right to open low ports, go on to it.
fn keep_own_capabilities() {
    for capability in OF_THE_PRIMARY {
        // Fails where there are no such capabilities, and then the worker has none.
        // SAFETY: changes rights of this process, and no memory.
        unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_LOWER,
                capability,
                0,
                0,
            )
        };
    }
}

/// From here on the primary hears of every bind and listen. Must come before the change of
/// credentials: a privileged process need not renounce setuid programs for it.
fn report_calls(primary: BorrowedFd<'_>, with_paths: bool) -> Result<(), Errno> {
    let calls = intercept::install(with_paths)?;
    match channel::send(primary, b"c", Some(calls.as_fd())) {
        Ok(_) => Ok(()),
        Err(error) => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// Must follow the change of credentials, which disarms the signal (prctl(2)).
fn arm_death_signal(signal: Signal, primary: Option<Pid>) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(signal))
        .map_err(Failure::at(Step::DeathSignal))?;
    if rustix::process::getppid() != primary {
        // The primary ended before the signal was armed.
        exit()
    }
    Ok(())
}

/// Executes the program; returns only with an error.
///
/// # Safety
///
/// As for [`run`].
unsafe fn exec(instructions: &Instructions<'_>) -> Errno {
    let Instructions { args, env, .. } = instructions;
    let Some((file, path)) = instructions.executable else {
        // SAFETY: the caller promises that both arrays are valid and end with null.
        unsafe { libc::execve(instructions.program.as_ptr(), args.as_ptr(), env.as_ptr()) };
        return last_errno();
    };
    // SAFETY: as above; the empty path goes with AT_EMPTY_PATH.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    match last_errno() {
        // Not known, or kept away by a seccomp filter.
        Errno::NOSYS | Errno::PERM => {
            // SAFETY: as above.
            unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
            last_errno()
        }
        errno => errno,
    }
}

fn exit() -> ! {
    // SAFETY: ends this process without running any handler of the primary's.
    unsafe { libc::_exit(EXIT_NOT_EXECUTED) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

impl Step {
    const ALL: [Step; 9] = [
        Step::ProcessGroup,
        Step::PlaceFd,
        Step::Chdir,
        Step::SetGroups,
        Step::SetGid,
        Step::SetUid,
        Step::DeathSignal,
        Step::Intercept,
        Step::Exec,
    ];
}

impl Failure {
    /// The length of a report. Writes of up to `PIPE_BUF` bytes are never split (pipe(7)).
    pub(super) const BYTES: usize = 12;

    fn at(step: Step) -> impl FnOnce(Errno) -> Failure {
        move |errno| Failure {
            step,
            target: 0,
            errno: errno.raw_os_error(),
        }
    }

    fn to_bytes(self) -> [u8; Failure::BYTES] {
        let fields = [self.step as i32, self.target, self.errno];
        let mut bytes = [0; Failure::BYTES];
        for (place, field) in bytes.as_chunks_mut().0.iter_mut().zip(fields) {
            *place = field.to_ne_bytes();
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; Failure::BYTES]) -> Option<Failure> {
        let [number, target, errno] = bytes.as_chunks().0 else {
            return None;
        };
        let number = i32::from_ne_bytes(*number);
        Some(Failure {
            step: Step::ALL.into_iter().find(|step| *step as i32 == number)?,
            target: i32::from_ne_bytes(*target),
            errno: i32::from_ne_bytes(*errno),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_is_understood() {
        for step in Step::ALL {
            let failure = Failure {
                step,
                target: 200,
                errno: libc::ENOENT,
            };
            assert_eq!(Failure::from_bytes(failure.to_bytes()), Some(failure));
        }
        assert_eq!(Failure::from_bytes([0; Failure::BYTES]), None);
    }
}
