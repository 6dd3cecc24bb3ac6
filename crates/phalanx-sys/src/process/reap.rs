//! Reaping of processes that nobody else will reap: the duty of PID 1 and of subreapers.
//!
//! An orphan becomes the child of the nearest such ancestor (prctl(2),
//! `PR_SET_CHILD_SUBREAPER`) and stays a zombie until that one waits for it. The processes from
//! [`spawn`](super::spawn) are kept in a registry, from before anybody could see them exit until
//! they are reaped, so that their status is never taken away from them.
#![allow(unsafe_code, reason = "rustix's waitid does not tell the pid")]

use std::collections::BTreeSet;
use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::retry_on_intr;
use rustix::process::{WaitOptions, waitpid};

use super::Pid;
use super::family::adopted_children;

/// The processes from `spawn` that are not reaped.
pub(super) type Registry = BTreeSet<Pid>;

static REGISTRY: Mutex<Registry> = Mutex::new(Registry::new());

/// The registry, locked. Held across fork and across reaping, so that nobody sees a process of
/// ours without its entry.
pub(super) fn registry() -> MutexGuard<'static, Registry> {
    // Entries are added and removed whole, so a panic cannot have left the set half changed.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps every zombie child of this process that did not come from [`spawn`](super::spawn) and
/// that `is_ours` does not claim either (as it should for children from elsewhere, such as
/// `std::process`). Returns how many there were. Never waits.
///
/// Call it after `SIGCHLD` if this process is PID 1 or a subreaper; elsewhere it finds nothing.
/// Costs one system call when there is nothing to reap, and a look at the list of those adopted when a
/// process of ours waits for being reaped.
pub fn reap_strangers(is_ours: impl Fn(Pid) -> bool) -> usize {
    let mut count = 0;
    while let Some(pid) = first_zombie() {
        if !reap_unless_ours(pid, &is_ours) {
            // It stays the first one, and hides those behind it.
            return count + reap_from_list(&is_ours);
        }
        count += 1;
    }
    count
}

/// The zombie child that the kernel finds first, left as it is (waitid(2), `WNOWAIT`).
fn first_zombie() -> Option<Pid> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: a `siginfo_t` of zeros is a valid one.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is valid for writing, and all options are known to the kernel.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) } == -1 {
        return None;
    }
    // SAFETY: waitid has filled the fields of SIGCHLD in, or left the zeros if it found nothing.
    Pid::from_raw(unsafe { info.si_pid() })
}

fn reap_from_list(is_ours: impl Fn(Pid) -> bool) -> usize {
    adopted_children()
        .into_iter()
        .filter(|pid| is_own_zombie(*pid) && reap_unless_ours(*pid, &is_ours))
        .count()
}

fn is_own_zombie(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state_and_parent(&stat) == Some(("Z", Pid::current()))
}

/// The state and the parent in a line of `/proc/PID/stat` (`proc_pid_stat(5)`). The name of the
/// program, in parentheses, may contain anything, parentheses and blanks included.
fn state_and_parent(stat: &str) -> Option<(&str, Pid)> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = Pid::from_number(fields.next()?.parse().ok()?)?;
    Some((state, parent))
}

/// Reaps a zombie child; `false` when it is ours, or is no zombie child any more.
fn reap_unless_ours(pid: Pid, is_ours: impl Fn(Pid) -> bool) -> bool {
    // Asked without the lock, which the answer may need: it may drop a `Process`.
    if is_ours(pid) {
        return false;
    }
    let registry = registry();
    if registry.contains(&pid) {
        return false;
    }
    let reaped = retry_on_intr(|| waitpid(pid.as_rustix(), WaitOptions::NOHANG));
    matches!(reaped, Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_are_no_trap() {
        let parent = Pid::from_number(42);
        let read = |stat| state_and_parent(stat);
        assert_eq!(read("7 (sh) Z 42 7 7 0 -1"), parent.map(|pid| ("Z", pid)));
        assert_eq!(read("7 (a) R 1 (b)) S 42 7"), parent.map(|pid| ("S", pid)));
        assert_eq!(read("7 (kthreadd) S 0 0"), None);
        assert_eq!(read(""), None);
    }
}
