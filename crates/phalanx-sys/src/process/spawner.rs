//! The one thread that forks.
//!
//! `PR_SET_PDEATHSIG` means the end of the *thread* that forked (prctl(2)), and the threads of
//! an async runtime come and go. So all forks happen on one thread, which is started by the
//! first spawn and never ends. It has all signals blocked, so that no handler of the primary
//! runs in a new process.
#![allow(unsafe_code, reason = "fork and the signal mask")]

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::io::{read, retry_on_intr};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, WaitOptions, kill_process, pidfd_open, waitpid};

use super::child::{self, Failure, Instructions, Step};
use super::prepare::{PidVariable, Prepared};
use super::{Pid, Process, SpawnError, SpawnPlan, reap};
use crate::fd;
use crate::signal::{self, Signal};

/// Starts a process. When this returns, the program is being executed, or nothing is left.
///
/// The new process has exactly what the plan says; all its signals have their default
/// disposition and none is blocked. Descriptors that the plan owns are closed on return.
///
/// Waits for fork and exec, which takes about a millisecond (longer when the program lies on a
/// slow disk): from async code, call it where blocking is allowed. Forks are done one after
/// the other, and do not wait for each other's exec. Fork-safe: no lock of this process is needed on the other side.
///
/// # Errors
///
/// [`SpawnError`] says which step failed.
pub fn spawn(plan: SpawnPlan) -> Result<Process, SpawnError> {
    let prepared = Prepared::new(plan)?;
    let spawner = spawner().map_err(|source| SpawnError::Thread { source })?;
    let (answer, answered) = mpsc::sync_channel(1);
    spawner
        .send(Request { prepared, answer })
        .map_err(|_| SpawnError::ThreadGone)?;
    let forked = answered.recv().map_err(|_| SpawnError::ThreadGone)??;
    forked.executed()
}

struct Request {
    prepared: Prepared,
    answer: SyncSender<Result<Forked, SpawnError>>,
}

/// A new process that is on its way to its program.
struct Forked {
    prepared: Prepared,
    process: Process,
    /// Ends at exec, or tells what failed.
    report: OwnedFd,
}

fn spawner() -> io::Result<Sender<Request>> {
    static SPAWNER: Mutex<Option<Sender<Request>>> = Mutex::new(None);

    let mut spawner = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(sender) = &*spawner {
        return Ok(sender.clone());
    }
    let (sender, requests) = mpsc::channel();
    thread::Builder::new()
        .name("phalanx-spawner".to_owned())
        .spawn(move || serve(&requests))?;
    Ok(spawner.insert(sender).clone())
}

/// INVARIANT: never ends and never panics, or every worker with a parent-death signal dies.
/// The sender is in a static, so the requests never end.
fn serve(requests: &Receiver<Request>) {
    signal::block_all();
    for Request { prepared, answer } in requests {
        let result = forked(prepared);
        // The caller waits for the answer; if it is gone nevertheless, so is its interest.
        let _delivered = answer.send(result);
    }
}

fn forked(prepared: Prepared) -> Result<Forked, SpawnError> {
    let (report, pid) = {
        let (report, writer) = report_pipe(&prepared)?;
        // The new process keeps the only writing end, and closes it by exec or by exiting.
        (report, fork(&prepared, &writer)?)
    };
    let process = open_process(pid, prepared.plan.new_process_group)?;
    Ok(Forked {
        prepared,
        process,
        report,
    })
}

impl Forked {
    /// Waits until it is executed. The descriptors that the plan owns are closed on return.
    fn executed(self) -> Result<Process, SpawnError> {
        let Forked {
            prepared,
            mut process,
            report,
        } = self;
        let mut bytes = [0; Failure::BYTES];
        let failure = match retry_on_intr(|| read(&report, &mut bytes)) {
            // The end without a report: it has become the program, or was killed on the way there,
            // which is then the status that it is reaped with.
            Ok(0) => match prepared.receive_interception() {
                Ok(interception) => {
                    process.set_interception(interception);
                    return Ok(process);
                }
                Err(error) => error,
            },
            Ok(_) => {
                process.reap_waiting();
                return Err(spawn_error(&prepared.plan, Failure::from_bytes(bytes)));
            }
            Err(errno) => SpawnError::Pipe {
                source: errno.into(),
            },
        };
        process.end();
        Err(failure)
    }
}

/// A close-on-exec pipe, the writing end of which no planned descriptor overwrites.
fn report_pipe(prepared: &Prepared) -> Result<(OwnedFd, OwnedFd), SpawnError> {
    let made = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from);
    made.and_then(|(report, writer)| Ok((report, prepared.lift(writer.as_fd())?)))
        .map_err(|source| SpawnError::Pipe { source })
}

fn fork(prepared: &Prepared, report: &OwnedFd) -> Result<Pid, SpawnError> {
    let plan = &prepared.plan;
    let args = pointers(&prepared.args);
    let mut env: Vec<_> = prepared.env.iter().map(|text| text.as_ptr()).collect();
    env.extend(prepared.own_pid_env.iter().map(PidVariable::as_ptr));
    env.push(ptr::null());
    let executable = prepared.executable.as_ref();
    let instructions = Instructions {
        report: report.as_fd(),
        primary: Pid::current().as_rustix(),
        new_process_group: plan.new_process_group,
        fds: &prepared.fds,
        cwd: prepared.cwd.as_deref(),
        drops_groups: prepared.drops_groups,
        gid: plan.gid,
        uid: plan.uid,
        death_signal: plan.die_with_parent.map(Signal::as_rustix),
        open_files: crate::limits::inherited_open_files(),
        program: &prepared.program,
        executable: executable.map(|(file, path)| (file.as_fd(), path.as_c_str())),
        intercepts_paths: prepared.intercepts_paths,
        interception: prepared
            .interception
            .as_ref()
            .map(|(_, theirs)| theirs.as_fd()),
        own_pid_env: &prepared.own_pid_env,
        args: &args,
        env: &env,
    };
    let mut registry = reap::registry();
    // SAFETY: the new process runs nothing but `child::run`, which keeps to async-signal-safe
    // calls and never returns.
    let forked = unsafe { fork_into(plan.cgroup.as_deref()) };
    if let Ok(0) = forked {
        // SAFETY: this is the new process; its signals are blocked, as this thread's are; the
        // pointers are into `prepared`, which outlives the call, and end with null.
        unsafe { child::run(&instructions) }
    }
    let number = forked.map_err(|source| SpawnError::Fork { source })?;
    let pid = Pid::from_raw(number).ok_or_else(|| SpawnError::Fork {
        source: io::ErrorKind::InvalidData.into(),
    })?;
    registry.insert(pid);
    Ok(pid)
}

/// `CLONE_INTO_CGROUP` (clone3(2), Linux 5.7), which does not fit the type that the C library has for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// The fields of `struct clone_args` as of Linux 5.7 that are not 0 here.
const CLONE_FLAGS: usize = 0;
const CLONE_EXIT_SIGNAL: usize = 4;
const CLONE_CGROUP: usize = 10;

/// fork(2), and the new process begins in this control group. To move it there afterwards would take it 5 to 15 ms:
/// the kernel waits for all processors then. Without a group, and where the kernel refuses, it is a plain fork.
///
/// # Safety
///
/// As for fork(2). In the new process, what the C library knows of its own thread is that of the forking one: it may
/// make system calls only.
unsafe fn fork_into(cgroup: Option<&OwnedFd>) -> io::Result<libc::c_int> {
    if let Some(number) = cgroup.and_then(|cgroup| u64::try_from(cgroup.as_raw_fd()).ok()) {
        let mut args = [0_u64; 11];
        args[CLONE_FLAGS] = CLONE_INTO_CGROUP;
        args[CLONE_EXIT_SIGNAL] = libc::SIGCHLD.unsigned_abs().into();
        args[CLONE_CGROUP] = number;
        // SAFETY: the arguments are valid, and nothing is shared: the new process has a copy of this stack.
        let forked = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
        if let Ok(forked @ 0..) = libc::c_int::try_from(forked) {
            return Ok(forked);
        }
    }
    // SAFETY: the caller's promise is passed on.
    fd::check(unsafe { libc::fork() })
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    let null = std::iter::once(ptr::null());
    texts.iter().map(|text| text.as_ptr()).chain(null).collect()
}

/// The process is ours and unreaped, so its number is still its own.
fn open_process(pid: Pid, leads_group: bool) -> Result<Process, SpawnError> {
    let number = pid.as_rustix().ok_or(SpawnError::Pidfd {
        source: io::ErrorKind::InvalidInput.into(),
    })?;
    match retry_on_intr(|| pidfd_open(number, PidfdFlags::empty())) {
        Ok(pidfd) => Ok(Process::new(pid, pidfd, leads_group)),
        Err(errno) => {
            let mut registry = reap::registry();
            // Both fail only when it is gone already.
            let _killed = kill_process(number, rustix::process::Signal::KILL);
            let _reaped = retry_on_intr(|| waitpid(Some(number), WaitOptions::empty()));
            registry.remove(&pid);
            Err(SpawnError::Pidfd {
                source: errno.into(),
            })
        }
    }
}

fn spawn_error(plan: &SpawnPlan, failure: Option<Failure>) -> SpawnError {
    let Some(Failure {
        step,
        target,
        errno,
    }) = failure
    else {
        return SpawnError::Pipe {
            source: io::ErrorKind::InvalidData.into(),
        };
    };
    let source = io::Error::from_raw_os_error(errno);
    match step {
        Step::ProcessGroup => SpawnError::ProcessGroup { source },
        Step::PlaceFd => SpawnError::PlaceFd { target, source },
        Step::Chdir => SpawnError::Chdir {
            path: plan.cwd.clone().unwrap_or_default(),
            source,
        },
        Step::SetGroups => SpawnError::SetGroups { source },
        Step::SetGid => SpawnError::SetGid {
            gid: plan.gid.unwrap_or_default(),
            source,
        },
        Step::SetUid => SpawnError::SetUid {
            uid: plan.uid.unwrap_or_default(),
            source,
        },
        Step::DeathSignal => SpawnError::DeathSignal {
            signal: plan.die_with_parent.unwrap_or(Signal::KILL),
            source,
        },
        Step::Intercept => SpawnError::Intercept { source },
        Step::Exec => SpawnError::Exec {
            program: plan.program.clone(),
            source,
        },
    }
}
