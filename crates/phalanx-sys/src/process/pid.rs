//! Process numbers.

use std::fmt;
use std::num::NonZero;

use rustix::process::{getpid, getppid};

/// The number of a process. The kernel gives numbers away again, so a pid is fit for showing
/// and for `/proc`, and is no identity: that is what [`Process`](super::Process) is for.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Pid(NonZero<i32>);

impl Pid {
    /// This process.
    #[must_use]
    pub fn current() -> Pid {
        Pid(getpid().as_raw_nonzero())
    }

    /// The pid with this number; `None` for 0 and for numbers above `i32::MAX`.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Pid> {
        Pid::from_raw(i32::try_from(number).ok()?)
    }

    /// The number, from 1 to `i32::MAX`.
    #[must_use]
    pub fn as_u32(self) -> u32 {
        self.0.get().unsigned_abs()
    }

    /// The pid with this number, as the kernel writes it; `None` unless positive.
    pub(crate) fn from_raw(number: i32) -> Option<Pid> {
        NonZero::new(number)
            .filter(|number| number.get() > 0)
            .map(Pid)
    }

    pub(crate) fn as_raw(self) -> i32 {
        self.0.get()
    }

    pub(crate) fn as_rustix(self) -> Option<rustix::process::Pid> {
        rustix::process::Pid::from_raw(self.0.get())
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The process that started this one, or the one that adopted it since (getppid(2)). `None`
/// when it lives outside of this pid namespace, as for PID 1 of a container.
#[must_use]
pub fn parent_pid() -> Option<Pid> {
    getppid().map(|pid| Pid(pid.as_raw_nonzero()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_positive_numbers_are_pids() {
        assert_eq!(Pid::from_number(0), None);
        assert_eq!(Pid::from_number(u32::MAX), None);
        assert_eq!(Pid::from_raw(-5), None);
        assert_eq!(Pid::from_number(7).unwrap().as_u32(), 7);
        assert_eq!(Pid::from_number(7).unwrap().to_string(), "7");
    }

    #[test]
    fn this_process_and_its_parent_are_known() {
        assert_eq!(Pid::current().as_u32(), std::process::id());
        assert_eq!(
            parent_pid().map(Pid::as_u32),
            Some(std::os::unix::process::parent_id())
        );
    }
}
