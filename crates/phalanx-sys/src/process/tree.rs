//! Trees of processes: who belongs to one, also when its root has ended.
//!
//! A process belongs to a tree by any of these: it is in the tree's control group, it carries the tree's marks in its
//! environment, it is in one of the tree's groups or sessions, it has been seen in it before, or its parent belongs to
//! it. Where there is no control group none of the others alone suffices: daemons leave their group, `su -` empties
//! the environment, and who has lost its parent descends from nobody that is known.
//!
//! A [`Member`] is a number and the time at which that process began, so a number that was given away again is
//! not mistaken; it is signalled through a pidfd that was compared with it.

use std::collections::BTreeSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal, set_child_subreaper};

use super::{Pid, family_of, reap};
use crate::cgroup::Cgroup;
use crate::signal::Signal;

/// A process, also after its number has been given away again.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Member {
    /// Its number.
    pub pid: Pid,
    /// When it began, in ticks since the machine did (`proc_pid_stat(5)`).
    pub began: u64,
}

/// What tells who belongs to a tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Variables (`NAME=VALUE`), all of which its processes inherit.
    pub marks: Vec<String>,
    /// Its process groups and sessions.
    pub groups: BTreeSet<Pid>,
    /// Those that are known already.
    pub known: BTreeSet<Member>,
    /// The control group in which all of it began, if it has one.
    pub cgroup: Option<Cgroup>,
}

/// Where to look for the members of a tree.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_enums, reason = "there are no other places to look")]
pub enum Among {
    /// Everywhere, except at what is older than this process's parent or this process itself.
    All,
    /// Only at what this process has adopted, and what descends from that. For subreapers.
    Adopted,
}

impl Member {
    /// The process with this number, while it runs.
    #[must_use]
    pub fn of(pid: Pid) -> Option<Member> {
        Entry::read(pid).map(|entry| entry.member)
    }

    /// Whether it runs still; a zombie does not.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Member::of(self.pid) == Some(self)
    }

    /// A pidfd of it; nothing when it is gone.
    ///
    /// # Errors
    ///
    /// Those of `pidfd_open(2)`, such as `EMFILE`.
    pub fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(number) = self.pid.as_rustix() else {
            return Ok(None);
        };
        match retry_on_intr(|| pidfd_open(number, PidfdFlags::NONBLOCK)) {
            // Compared afterwards: what has the number now is what the descriptor means.
            Ok(pidfd) => Ok(self.is_alive().then_some(pidfd)),
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends it a signal. Harmless, and no error, when it is gone.
    ///
    /// # Errors
    ///
    /// `EPERM` when it has become another user and this process is not root.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        match self.open()? {
            Some(pidfd) => match pidfd_send_signal(&pidfd, signal.as_rustix()) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                Err(errno) => Err(errno.into()),
            },
            None => Ok(()),
        }
    }
}

impl Tree {
    /// Who belongs to it now, without this process. Costs a few system calls for each process that is looked at:
    /// from async code, call it where blocking is allowed.
    #[must_use]
    pub fn members(&self, among: Among) -> BTreeSet<Member> {
        let table = match among {
            Among::All => everybody(),
            Among::Adopted => adopted_families(),
        };
        let own = Pid::current();
        let mut found = BTreeSet::new();
        let mut pids: BTreeSet<Pid> = BTreeSet::new();
        for entry in &table {
            if entry.member.pid != own && self.has_root(entry) {
                found.insert(entry.member);
                pids.insert(entry.member.pid);
            }
        }
        for member in self.cgroup.iter().flat_map(living_in) {
            if member.pid != own {
                found.insert(member);
                pids.insert(member.pid);
            }
        }
        loop {
            let is_next = |entry: &&Entry| {
                let pid = entry.member.pid;
                let has_parent = entry.parent.is_some_and(|parent| pids.contains(&parent));
                pid != own && has_parent && !pids.contains(&pid)
            };
            let next: Vec<Member> = table.iter().filter(is_next).map(|one| one.member).collect();
            if next.is_empty() {
                return found;
            }
            pids.extend(next.iter().map(|member| member.pid));
            found.extend(next);
        }
    }

    /// Whether it belongs to the tree whoever its parent is.
    fn has_root(&self, entry: &Entry) -> bool {
        let groups = [entry.group, entry.session];
        groups
            .into_iter()
            .flatten()
            .any(|group| self.groups.contains(&group))
            || self.known.contains(&entry.member)
            || (!self.marks.is_empty() && carries(entry.member.pid, &self.marks))
    }
}

/// Everybody who lives in a control group or below it.
#[must_use]
pub fn living_in(cgroup: &Cgroup) -> BTreeSet<Member> {
    cgroup.pids().into_iter().filter_map(Member::of).collect()
}

/// Everybody who descends from `pid`, without itself, as [`family_of`].
#[must_use]
pub fn descendants_of(pid: Pid) -> BTreeSet<Member> {
    let family = family_of(pid).into_iter().skip(1);
    family.filter_map(Member::of).collect()
}

/// What this process has adopted and everything that descends from it: all of its descendants but those from
/// [`spawn`](super::spawn) with theirs. For subreapers that start processes in no other way.
#[must_use]
pub fn adopted() -> BTreeSet<Member> {
    let families = adopted_families().into_iter();
    families.map(|entry| entry.member).collect()
}

/// A pidfd of this process, for one that is to wait for its end: who asks for its parent's number instead may learn that of
/// whoever has adopted it (getppid(2)).
///
/// # Errors
///
/// Those of `pidfd_open(2)`, such as `EMFILE`.
pub fn own_pidfd() -> io::Result<OwnedFd> {
    let number = Pid::current().as_rustix().ok_or(io::ErrorKind::NotFound)?;
    Ok(retry_on_intr(|| pidfd_open(number, PidfdFlags::empty()))?)
}

/// The pidfd that this process has inherited as descriptor `number`; from then on it is close-on-exec.
///
/// # Errors
///
/// `EBADF` when it is not open, or was not inherited.
pub fn inherited_pidfd(number: i32) -> io::Result<OwnedFd> {
    crate::fd::adopt_inherited(number)
}

/// Waits until the process that a pidfd means has ended, at most for `limit`. False when it has not.
#[must_use]
pub fn wait_ended(pidfd: impl AsFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).ok();
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    matches!(retry_on_intr(|| poll(&mut fds, limit.as_ref())), Ok(1..))
}

/// Names this thread, and this process if it is its first (`PR_SET_NAME`), as `ps` shows it.
pub fn set_name(name: &CStr) {
    // A name is not worth failing for.
    let _named = rustix::thread::set_name(name);
}

/// Has orphans among this process's descendants adopted by it (`PR_SET_CHILD_SUBREAPER`, prctl(2)), instead of by
/// process 1. It has to reap them: [`reap_strangers`](super::reap_strangers).
///
/// # Errors
///
/// Those of prctl(2).
pub fn adopt_orphans() -> io::Result<()> {
    // The number of a process matters to nobody: any means yes.
    Ok(set_child_subreaper(Pid::current().as_rustix())?)
}

/// A process that runs.
#[derive(Copy, Clone, Debug)]
struct Entry {
    member: Member,
    /// These three are unknown where they are outside this process's PID namespace: whoever enters a container
    /// (`docker exec`, `nsenter`) is in a session, and often in a group, of the host, which `/proc` shows as 0.
    parent: Option<Pid>,
    group: Option<Pid>,
    session: Option<Pid>,
}

impl Entry {
    fn read(pid: Pid) -> Option<Entry> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Entry::parse(pid, &stat)
    }

    /// Nothing for zombies.
    fn parse(pid: Pid, stat: &str) -> Option<Entry> {
        // The name may contain anything, parentheses included; the state follows it.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_ascii_whitespace().take(20).collect();
        if matches!(fields.first(), Some(&"Z" | &"X")) {
            return None;
        }
        let number = |index: usize| Pid::from_number(fields.get(index)?.parse().ok()?);
        Some(Entry {
            member: Member {
                pid,
                began: fields.get(19)?.parse().ok()?,
            },
            parent: number(1),
            group: number(2),
            session: number(3),
        })
    }
}

/// All processes that may belong to a tree of this process or of its parent.
fn everybody() -> Vec<Entry> {
    let eldest = [super::parent_pid(), Some(Pid::current())];
    let eldest = eldest.into_iter().flatten().filter_map(Member::of);
    let eldest = eldest.map(|member| member.began).min().unwrap_or(0);
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| {
        let number = entry.ok()?.file_name().to_str()?.parse().ok()?;
        Pid::from_number(number)
    });
    let entries = pids.filter_map(Entry::read);
    entries
        .filter(|entry| entry.member.began >= eldest)
        .collect()
}

fn adopted_families() -> Vec<Entry> {
    let own = super::family::adopted_children();
    let strangers: Vec<Pid> = {
        let ours = reap::registry();
        own.into_iter().filter(|pid| !ours.contains(pid)).collect()
    };
    let families = strangers.into_iter().flat_map(family_of);
    families.filter_map(Entry::read).collect()
}

/// Whether all marks are among the variables that the process was executed with (`proc_pid_environ(5)`). No when
/// that may not be read.
fn carries(pid: Pid, marks: &[String]) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    let has = |mark: &String| {
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == mark.as_bytes())
    };
    marks.iter().all(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_tells_parent_group_session_and_beginning() {
        let pid = Pid::from_number(7).unwrap();
        let line = "7 (a) R (b)) S 4 5 6 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 99";
        let entry = Entry::parse(pid, line).unwrap();
        assert_eq!(entry.member, Member { pid, began: 4711 });
        let numbers = |entry: Entry| {
            [entry.parent, entry.group, entry.session].map(|pid| pid.map_or(0, Pid::as_u32))
        };
        assert_eq!(numbers(entry), [4, 5, 6]);
        let entered = Entry::parse(pid, &line.replace("4 5 6 0", "4 0 0 0")).unwrap();
        assert_eq!(numbers(entered), [4, 0, 0]);
        assert!(Entry::parse(pid, &line.replace(") S", ") Z")).is_none());
        assert!(Entry::parse(pid, "7 (a) S 4 5").is_none());
    }

    #[test]
    fn this_process_is_its_own_and_nobody_elses() {
        let own = Member::of(Pid::current()).unwrap();
        assert!(own.is_alive() && own.open().unwrap().is_some());
        let later = Member {
            began: own.began + 1,
            ..own
        };
        assert!(!later.is_alive() && later.open().unwrap().is_none());
    }
}
