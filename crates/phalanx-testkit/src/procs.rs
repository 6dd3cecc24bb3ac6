//! What `/proc` tells about processes: relations, descriptors, memory, CPU time. See proc(5).
//!
//! A process may end between any two reads; functions on a single process answer `None` then, and
//! walks over many skip it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::wait::{self, Deadline, LIMIT};

/// A few fields of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// The parent's pid.
    pub parent_pid: u32,
    /// The state letter: `R`, `S`, `D`, `T`, `Z` …
    pub state: char,
    /// User and system time of the process itself, all threads.
    pub own_cpu: Duration,
    /// User and system time of its children that have ended and been waited for.
    pub reaped_cpu: Duration,
}

/// Reads `/proc/PID/stat`; `None` when there is no such process.
#[must_use]
pub fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may itself contain blanks and parentheses.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    // The first of these fields has number 3 in proc(5).
    let ticks = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        parent_pid: fields.get(1)?.parse().ok()?,
        own_cpu: from_ticks(ticks(14)? + ticks(15)?),
        reaped_cpu: from_ticks(ticks(16)? + ticks(17)?),
    })
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_nanos(ticks * (1_000_000_000 / clock_ticks_per_second()))
}

/// Whether the process runs: it exists and is no zombie.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z')
}

/// The CPU time of the process itself: user and system, in steps of a clock tick (10 ms).
#[must_use]
pub fn cpu_time(pid: u32) -> Option<Duration> {
    stat(pid).map(|stat| stat.own_cpu)
}

/// The CPU time of the process and all its descendants, those that ended and were waited for
/// included.
#[must_use]
pub fn tree_cpu_time(pid: u32) -> Duration {
    let tree = descendants(pid).into_iter().chain([pid]);
    tree.filter_map(stat)
        .map(|stat| stat.own_cpu + stat.reaped_cpu)
        .sum()
}

/// The number of open descriptors; `None` when the process is gone or not ours to see.
#[must_use]
pub fn fd_count(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// What each open descriptor refers to (`socket:[…]`, a path …), sorted: for telling which leaked.
#[must_use]
pub fn fd_targets(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let mut targets: Vec<String> = links
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    targets.sort();
    targets
}

/// The resident memory in bytes (`VmRSS`).
#[must_use]
pub fn rss_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "VmRSS:")
}

/// The part of the resident memory that no file backs (`RssAnon`): without the program itself.
#[must_use]
pub fn anonymous_bytes(pid: u32) -> Option<u64> {
    status_bytes(pid, "RssAnon:")
}

fn status_bytes(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// The pids of all processes that can be seen.
pub(crate) fn all_pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The direct children of a process, zombies included, in ascending order of pid; without the keeper of a primary.
#[must_use]
pub fn children(pid: u32) -> Vec<u32> {
    let mut found: Vec<u32> = all_pids()
        .filter(|&candidate| stat(candidate).is_some_and(|stat| stat.parent_pid == pid))
        .filter(|&candidate| !is_keeper(candidate))
        .collect();
    found.sort_unstable();
    found
}

fn is_keeper(pid: u32) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.starts_with(b"phalanx-keeper\0")
}

/// All descendants of a process, without itself: children before grandchildren.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = all_pids()
        .filter_map(|one| Some((one, stat(one)?.parent_pid)))
        .collect();
    let mut found = Vec::new();
    let mut generation = vec![pid];
    while !generation.is_empty() {
        let is_next = |parent: u32| generation.contains(&parent);
        let next = parents
            .iter()
            .filter(|(_, parent)| is_next(*parent))
            .map(|(one, _)| *one);
        generation = next.collect();
        found.extend_from_slice(&generation);
    }
    found
}

/// Sends a signal; `false` when there is no such process any more.
pub fn signal(pid: u32, signal: Signal) -> bool {
    let Some(pidfd) = open(pid) else { return false };
    pidfd_send_signal(&pidfd, signal).is_ok()
}

/// Stops a process as `SIGSTOP` does, and waits until it has stopped.
#[track_caller]
pub fn suspend(pid: u32) {
    assert!(signal(pid, Signal::STOP), "no process {pid}");
    let state = || stat(pid).filter(|stat| stat.state == 'T');
    wait::eventually(LIMIT, "a stopped process", state);
}

/// Waits until a process that need not be ours has ended; `false` at the deadline.
#[must_use]
pub fn wait_gone(pid: u32, deadline: impl Into<Deadline>) -> bool {
    open(pid).is_none_or(|pidfd| wait::readable(pidfd.as_fd(), deadline))
}

/// A pidfd; `None` when there is no such process.
pub(crate) fn open(pid: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio, id};

    #[test]
    fn this_process_has_memory_descriptors_and_a_state() {
        assert!(rss_bytes(id()).is_some_and(|bytes| bytes > 100_000));
        assert!(fd_count(id()).is_some_and(|count| count >= 3));
        assert!(is_alive(id()));
    }

    #[test]
    fn a_child_is_found_and_its_end_is_seen() {
        let mut child = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        assert!(children(id()).contains(&child.id()));
        assert!(descendants(id()).contains(&child.id()));
        assert!(signal(child.id(), Signal::KILL));
        assert!(wait_gone(child.id(), LIMIT));
        assert!(!is_alive(child.id()));
        child.wait().unwrap();
        assert_eq!(stat(child.id()), None);
    }

    #[test]
    fn the_time_of_a_tree_includes_children_that_were_waited_for() {
        let busy = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done";
        let before = tree_cpu_time(id());
        Command::new("sh").args(["-c", busy]).status().unwrap();
        assert!(tree_cpu_time(id()) > before);
    }
}
