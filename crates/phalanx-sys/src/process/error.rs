//! Why a process could not be started.

use std::ffi::{NulError, OsString};
use std::io;
use std::path::PathBuf;

use crate::signal::Signal;

/// The step at which starting a process failed. Nothing is left behind: no process, no zombie,
/// no descriptor. Concerns this one start only.
///
/// Worth another attempt, later and unchanged: [`Fork`](SpawnError::Fork),
/// [`Pipe`](SpawnError::Pipe), [`Pidfd`](SpawnError::Pidfd) and
/// [`CopyFd`](SpawnError::CopyFd), when they stand for exhaustion (`EAGAIN`, `EMFILE`,
/// `ENOMEM`). All others fail the same way again until something is changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// No such program, neither at its path nor in any directory of `PATH`.
    #[error("program {program:?} not found")]
    NotFound {
        /// The name as given.
        program: OsString,
    },
    /// There is such a file, but it cannot be executed: no permission, or no regular file.
    #[error("{} is not an executable file", path.display())]
    NotExecutable {
        /// The first file of that name.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A path, an argument or a variable contains a NUL byte, which no program can be given.
    #[error("the {part} contains a NUL byte")]
    NulByte {
        /// What contains it: "program", "argument", "variable" or "directory".
        part: &'static str,
        /// Where in it.
        source: NulError,
    },
    /// A descriptor number of the plan is negative or is planned twice.
    #[error("descriptor {target} is no valid number or is planned twice")]
    InvalidTarget {
        /// The number.
        target: i32,
    },
    /// `/dev/null` could not be opened for [`FdSource::Null`](super::FdSource::Null).
    #[error("cannot open /dev/null")]
    OpenNull {
        /// Why not.
        source: io::Error,
    },
    /// The source of a descriptor could not be copied.
    #[error("cannot copy what is to become descriptor {target}")]
    CopyFd {
        /// The planned number in the new process.
        target: i32,
        /// Why not.
        source: io::Error,
    },
    /// The open executable could not be copied.
    #[error("cannot copy the descriptor of the executable")]
    CopyExecutable {
        /// Why not.
        source: io::Error,
    },
    /// The thread that forks could not be started.
    #[error("cannot start the spawner thread")]
    Thread {
        /// Why not.
        source: io::Error,
    },
    /// The thread that forks has ended, which it never should.
    #[error("the spawner thread is gone")]
    ThreadGone,
    /// The pipe on which the new process reports a failure could not be made or read.
    #[error("cannot use the report pipe")]
    Pipe {
        /// Why not.
        source: io::Error,
    },
    /// fork(2) failed.
    #[error("cannot fork")]
    Fork {
        /// Why not.
        source: io::Error,
    },
    /// No pidfd could be had (`pidfd_open(2)`); the new process was killed.
    #[error("cannot open a pidfd")]
    Pidfd {
        /// Why not.
        source: io::Error,
    },
    /// setpgid(2) failed in the new process.
    #[error("cannot make a process group")]
    ProcessGroup {
        /// Why not.
        source: io::Error,
    },
    /// A descriptor could not be put at its number in the new process.
    #[error("cannot place descriptor {target}")]
    PlaceFd {
        /// The planned number.
        target: i32,
        /// Why not.
        source: io::Error,
    },
    /// chdir(2) failed in the new process.
    #[error("cannot change to directory {}", path.display())]
    Chdir {
        /// The planned working directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// setgroups(2) failed in the new process.
    #[error("cannot drop the supplementary groups")]
    SetGroups {
        /// Why not.
        source: io::Error,
    },
    /// setgid(2) failed in the new process.
    #[error("cannot become group {gid}")]
    SetGid {
        /// The planned group.
        gid: u32,
        /// Why not.
        source: io::Error,
    },
    /// setuid(2) failed in the new process.
    #[error("cannot become user {uid}")]
    SetUid {
        /// The planned user.
        uid: u32,
        /// Why not.
        source: io::Error,
    },
    /// prctl(2) refused the parent-death signal.
    #[error("cannot ask for {signal} at the end of the primary")]
    DeathSignal {
        /// The planned signal.
        signal: Signal,
        /// Why not.
        source: io::Error,
    },
    /// The new process cannot be made to ask before it binds (`seccomp(2)`): `EBUSY` when somebody
    /// else watches it already, `EINVAL` or `ENOSYS` on a kernel that cannot, `EPERM` in a sandbox.
    #[error("cannot intercept bind and listen")]
    Intercept {
        /// Why not.
        source: io::Error,
    },
    /// execve(2) failed in the new process.
    #[error("cannot execute {}", program.display())]
    Exec {
        /// The planned program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
