//! Everything about a new process that allocates or can fail early, done before the fork.
//!
//! Descriptors are copied above the highest planned number, so that placing one can never
//! overwrite the source of another.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::{CString, OsStr, OsString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::fcntl_dupfd_cloexec;

use super::{FdMapping, FdSource, SpawnError, SpawnPlan};
use crate::intercept::Interception;
use crate::{channel, fd};

/// A plan in the form that the new process can carry out without allocating.
pub(super) struct Prepared {
    pub(super) plan: SpawnPlan,
    pub(super) program: CString,
    pub(super) args: Vec<CString>,
    pub(super) env: Vec<CString>,
    /// Variables that the new process writes its number into.
    pub(super) own_pid_env: Vec<PidVariable>,
    pub(super) cwd: Option<CString>,
    /// Copies of the planned descriptors, with the number that each is to have.
    pub(super) fds: Vec<(OwnedFd, i32)>,
    /// A copy of the executable and its path below `/proc`.
    pub(super) executable: Option<(OwnedFd, CString)>,
    /// The ends of the socket on which the descriptor of its calls comes: this process's, and its own.
    pub(super) interception: Option<(OwnedFd, OwnedFd)>,
    pub(super) intercepts_paths: bool,
    /// Whether the supplementary groups are to be dropped.
    pub(super) drops_groups: bool,
    /// The first number above all planned ones.
    lowest_free: i32,
}

impl Prepared {
    pub(super) fn new(plan: SpawnPlan) -> Result<Prepared, SpawnError> {
        let lowest_free = lowest_free(&plan.fds)?;
        let executable = match &plan.executable {
            Some(file) => Some(copy_executable(file.as_fd(), lowest_free)?),
            None => None,
        };
        let cwd = plan.cwd.as_ref().map(|dir| c_string(dir, "directory"));
        let interception = plan.intercept.then(|| interception_pair(lowest_free));
        let interception = interception.transpose();
        Ok(Prepared {
            program: c_string(&plan.program, "program")?,
            args: c_strings(&plan.args, "argument")?,
            env: variables(&plan)?,
            own_pid_env: own_pid_variables(&plan)?,
            cwd: cwd.transpose()?,
            fds: copy_fds(&plan.fds, lowest_free)?,
            executable,
            intercepts_paths: plan.intercept_paths,
            interception: interception.map_err(|source| SpawnError::Intercept { source })?,
            // An unprivileged process may "become" itself, but may not drop its groups.
            drops_groups: (plan.uid.is_some() || plan.gid.is_some()) && crate::identity::is_root(),
            lowest_free,
            plan,
        })
    }

    /// What the new process has sent, which runs its program by now; nothing if it was killed before.
    pub(super) fn receive_interception(&self) -> Result<Option<Interception>, SpawnError> {
        let Some((ours, _)) = &self.interception else {
            return Ok(None);
        };
        let mut handles = VecDeque::new();
        let received = channel::receive(ours.as_fd(), &mut [0; 1], &mut handles);
        match (received, handles.pop_front()) {
            (Ok(_), Some(fd)) => Interception::new(fd, self.intercepts_paths).map(Some),
            // It was killed before it could send it, which is then the status that it is reaped with.
            (Err(error), None) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            // Without it every bind and listen of the program would fail: there is no room for a descriptor.
            (Ok(_), None) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
            (Err(error), _) => Err(error),
        }
        .map_err(|source| SpawnError::Intercept { source })
    }

    /// A copy of `fd` that no planned descriptor overwrites.
    pub(super) fn lift(&self, fd: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
        Ok(fcntl_dupfd_cloexec(fd, self.lowest_free)?)
    }
}

fn interception_pair(lowest: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = channel::pair()?;
    Ok((ours, fcntl_dupfd_cloexec(theirs, lowest)?))
}

fn lowest_free(mappings: &[FdMapping]) -> Result<i32, SpawnError> {
    // The standard descriptors are in use even if the plan does not mention them.
    let mut highest = 2;
    for (index, FdMapping { target, .. }) in mappings.iter().enumerate() {
        let is_repeated = mappings.iter().skip(index + 1).any(|m| m.target == *target);
        if *target < 0 || *target == i32::MAX || is_repeated {
            return Err(SpawnError::InvalidTarget { target: *target });
        }
        highest = highest.max(*target);
    }
    Ok(highest + 1)
}

fn copy_fds(mappings: &[FdMapping], lowest: i32) -> Result<Vec<(OwnedFd, i32)>, SpawnError> {
    let mut copies = Vec::with_capacity(mappings.len());
    for FdMapping { source, target } in mappings {
        let target = *target;
        let copy = match source {
            FdSource::Shared(fd) => fcntl_dupfd_cloexec(fd, lowest).map_err(Into::into),
            FdSource::Inherit(number) => fd::duplicate(*number, lowest),
            FdSource::Null => fcntl_dupfd_cloexec(open_null()?, lowest).map_err(Into::into),
        };
        let copy = copy.map_err(|source| SpawnError::CopyFd { target, source })?;
        copies.push((copy, target));
    }
    Ok(copies)
}

fn open_null() -> Result<OwnedFd, SpawnError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
    open("/dev/null", flags, Mode::empty()).map_err(|errno| SpawnError::OpenNull {
        source: errno.into(),
    })
}

fn copy_executable(file: BorrowedFd<'_>, lowest: i32) -> Result<(OwnedFd, CString), SpawnError> {
    let copy = fcntl_dupfd_cloexec(file, lowest).map_err(|errno| SpawnError::CopyExecutable {
        source: errno.into(),
    })?;
    let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
    Ok((copy, c_string(path, "program")?))
}

fn variables(plan: &SpawnPlan) -> Result<Vec<CString>, SpawnError> {
    let joined = plan.env.iter().map(|(name, value)| {
        let mut variable = name.clone();
        variable.push("=");
        variable.push(value);
        c_string(variable, "variable")
    });
    joined.collect()
}

/// `NAME=` with room for a number behind it.
pub(super) struct PidVariable {
    text: Vec<Cell<u8>>,
    /// Where the number begins.
    number_at: usize,
}

/// The digits of the highest pid, and the NUL byte that ends the variable.
const PID_ROOM: usize = 11;

impl PidVariable {
    pub(super) fn as_ptr(&self) -> *const c_char {
        self.text.as_ptr().cast()
    }

    /// Writes the number. Without leading zeros, which some readers take for octal. Allocates nothing.
    pub(super) fn set(&self, number: u32) {
        let digits = number.checked_ilog10().unwrap_or(0) + 1;
        let places = (0..digits).rev().map(|place| 10_u32.pow(place));
        let room = self.text.iter().skip(self.number_at);
        for (byte, place) in room.zip(places) {
            let digit = u8::try_from(number / place % 10).unwrap_or(0);
            byte.set(b'0' + digit);
        }
    }
}

fn own_pid_variables(plan: &SpawnPlan) -> Result<Vec<PidVariable>, SpawnError> {
    let variable = |name: &OsString| {
        let name = c_string(name, "variable")?;
        let mut text: Vec<_> = name.as_bytes().iter().copied().map(Cell::new).collect();
        text.push(Cell::new(b'='));
        let number_at = text.len();
        text.extend([0; PID_ROOM].map(Cell::new));
        Ok(PidVariable { text, number_at })
    };
    plan.own_pid_env.iter().map(variable).collect()
}

fn c_strings(texts: &[impl AsRef<OsStr>], part: &'static str) -> Result<Vec<CString>, SpawnError> {
    texts.iter().map(|text| c_string(text, part)).collect()
}

fn c_string(text: impl AsRef<OsStr>, part: &'static str) -> Result<CString, SpawnError> {
    CString::new(text.as_ref().as_bytes()).map_err(|source| SpawnError::NulByte { part, source })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn prepare(change: impl FnOnce(&mut SpawnPlan)) -> Result<Prepared, SpawnError> {
        let mut plan = SpawnPlan::new(PathBuf::from("/bin/sh"));
        change(&mut plan);
        Prepared::new(plan)
    }

    #[test]
    fn copies_lie_above_every_planned_number() {
        let prepared = prepare(|plan| {
            plan.fds.push(FdMapping::inherit(0, 40));
            plan.fds.push(FdMapping::null(4));
        });
        for (copy, _) in &prepared.unwrap().fds {
            assert!(copy.as_raw_fd() > 40);
        }
    }

    #[test]
    fn impossible_numbers_are_refused() {
        for targets in [&[-1][..], &[3, 4, 3], &[i32::MAX]] {
            let result = prepare(|plan| {
                plan.fds
                    .extend(targets.iter().copied().map(FdMapping::null));
            });
            let refused = matches!(result, Err(SpawnError::InvalidTarget { .. }));
            assert!(refused, "{targets:?}");
        }
    }

    #[test]
    fn a_closed_source_is_reported_with_its_target() {
        let result = prepare(|plan| plan.fds.push(FdMapping::inherit(987_654, 5)));
        let Err(SpawnError::CopyFd { target, source }) = result else {
            panic!("a closed descriptor was copied");
        };
        assert_eq!((target, source.raw_os_error()), (5, Some(libc::EBADF)));
    }

    #[test]
    fn a_nul_byte_is_reported_with_its_place() {
        let result = prepare(|plan| plan.env.push(("A".into(), "b\0c".into())));
        let Err(SpawnError::NulByte { part, .. }) = result else {
            panic!("a NUL byte was accepted");
        };
        assert_eq!(part, "variable");
    }

    #[test]
    fn a_number_is_written_without_leading_zeros() {
        let prepared = prepare(|plan| plan.own_pid_env.push("A".into()));
        let prepared = prepared.unwrap_or_else(|error| panic!("{error}"));
        let variable = &prepared.own_pid_env[0];
        for (number, text) in [
            (1, "A=1\0"),
            (10, "A=10\0"),
            (4_194_304, "A=4194304\0"),
            (i32::MAX.unsigned_abs(), "A=2147483647\0"),
        ] {
            variable.set(number);
            let bytes: Vec<u8> = variable.text.iter().map(Cell::get).collect();
            assert!(bytes.starts_with(text.as_bytes()), "{number}");
        }
    }
}
