//! The exit statuses of the command, as `docs/exit-codes.md` documents them.
//!
//! INVARIANT: a status is never given another meaning; scripts depend on them.

use std::process::ExitCode;

/// How the command ended. Numbers below 64 are its own, 64 to 78 those of sysexits.h, 126, 127
/// and 130 those of the shells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(
    clippy::exhaustive_enums,
    reason = "the documented statuses are all there are"
)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It was not done; standard error says why.
    Failed = 1,
    /// The command line is wrong; nothing was tried.
    Usage = 64,
    /// No such app is running, or it is not clear which is meant.
    NoApp = 69,
    /// A directory, socket, pid file or network namespace cannot be created.
    CannotCreate = 73,
    /// An app of this name, or with this pid file, is already running.
    Taken = 75,
    /// The primary refuses to talk to this user.
    Refused = 77,
    /// Something is wrong with the configuration file, or there is none.
    Config = 78,
    /// The program is there and cannot be executed.
    NotExecutable = 126,
    /// The program, or the script, is not there.
    NotFound = 127,
    /// A drill was interrupted, and had found no fault until then. As of a program that died of SIGINT.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
