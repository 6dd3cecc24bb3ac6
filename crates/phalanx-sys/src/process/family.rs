//! Who descends from whom.

use std::collections::{BTreeMap, BTreeSet};
use std::{fs, io};

use super::Pid;
use crate::procfs::told;

/// Longest line of descent that is followed.
const GENERATIONS_MAX: usize = 64;

/// Whether `pid` is `ancestor`, or was started by it or by one of its descendants, as far as `/proc`
/// shows now (`proc_pid_stat(5)`); `None` when there is no such process. One whose parent ended before it has been adopted,
/// and descends from whoever did that.
#[must_use]
pub fn descends_from(pid: Pid, ancestor: Pid) -> Option<bool> {
    let mut at = pid;
    for _ in 0..GENERATIONS_MAX {
        if at == ancestor {
            return Some(true);
        }
        match parent_of(at) {
            Some(parent) => at = parent,
            None if at == pid => return None,
            None => return Some(false),
        }
    }
    Some(false)
}

/// The ancestors of these processes that are `among` those, which means that these were started by them or by their descendants. Numbers
/// may be of threads, which descend as their processes do, and of processes that are gone, which tell nothing.
#[must_use]
pub fn ancestors_among(
    pids: impl IntoIterator<Item = Pid>,
    among: &BTreeSet<Pid>,
) -> BTreeSet<Pid> {
    let mut known: BTreeMap<Pid, Option<Pid>> = BTreeMap::new();
    known.insert(Pid::current(), None);
    let mut found = BTreeSet::new();
    for pid in pids {
        let mut line = Vec::new();
        let mut at = parent_of(pid);
        let ancestor = loop {
            let Some(here) = at.filter(|_| line.len() < GENERATIONS_MAX) else {
                break None;
            };
            if among.contains(&here) {
                break Some(here);
            }
            if let Some(&before) = known.get(&here) {
                break before;
            }
            line.push(here);
            at = parent_of(here);
        };
        known.extend(line.into_iter().map(|here| (here, ancestor)));
        found.extend(ancestor);
    }
    found
}

/// The number that the kernel gave to the newest process or thread (`/proc/loadavg`, `proc_loadavg(5)`). Numbers are given in turn, and begin
/// again when they are used up.
///
/// # Errors
///
/// When the file cannot be read, `InvalidData` when it cannot be understood.
pub fn newest() -> io::Result<u32> {
    let mut room = [0; 128];
    let line = told("/proc/loadavg", &mut room)?;
    let number = line.split_ascii_whitespace().nth(4);
    let number = number.and_then(|number| number.parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Whether one of the user ids of `pid` is `uid`: real, effective, saved, or that of the file system (proc(5)); `None`
/// when there is no such process.
#[must_use]
pub fn acts_for(pid: Pid, uid: u32) -> Option<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let mut ids = ids.split_ascii_whitespace();
    Some(ids.any(|id| id.parse() == Ok(uid)))
}

/// All processes that descend from `pid`, and itself, as far as the kernel lists them
/// (`/proc/PID/task/TID/children`, `proc_pid_task(5)`).
#[must_use]
pub fn family_of(pid: Pid) -> Vec<Pid> {
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(&member) = family.get(next) {
        next += 1;
        family.extend(children_of(member));
    }
    family
}

/// The children of `pid`, zombies included, those that it has adopted too.
pub(super) fn children_of(pid: Pid) -> Vec<Pid> {
    let mut children = Vec::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return children;
    };
    for task in tasks.flatten() {
        let listed = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let numbers = listed.split_ascii_whitespace();
        children.extend(numbers.filter_map(|number| Pid::from_number(number.parse().ok()?)));
    }
    children
}

/// Whether a thread of `pid` or of a descendant runs, would run if a processor were free, or waits for a disk (`state`
/// in `proc_pid_stat(5)`): whether the family is about to do something by itself.
#[must_use]
pub fn is_busy(pid: Pid) -> bool {
    family_of(pid).into_iter().any(|member| {
        let tasks = fs::read_dir(format!("/proc/{member}/task"));
        tasks.into_iter().flatten().flatten().any(|task| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
            fields.trim_start().starts_with(['R', 'D'])
        })
    })
}

/// The descendants of `pid`, without itself, in whose environment the variable has this value, the nearest first
/// (`proc_pid_environ(5)`). What cannot be looked at is left out.
#[must_use]
pub fn heirs_of(pid: Pid, variable: &str, value: &str) -> Vec<Pid> {
    let wanted = format!("{variable}={value}").into_bytes();
    let inherits = |heir: &Pid| {
        let environment = fs::read(format!("/proc/{heir}/environ")).unwrap_or_default();
        environment
            .split(|&byte| byte == 0)
            .any(|one| one == wanted)
    };
    family_of(pid)
        .into_iter()
        .skip(1)
        .filter(inherits)
        .collect()
}

/// What this process has adopted, zombies included, and what its first thread has started itself. Orphans go to the first
/// thread of their new parent that lives (prctl(2), `PR_SET_CHILD_SUBREAPER`); [`spawn`](super::spawn) forks on another. So one list is
/// read, however many threads there are.
pub(super) fn adopted_children() -> Vec<Pid> {
    let own = Pid::current();
    let path = format!("/proc/{own}/task/{own}/children");
    let listed = fs::read_to_string(path).unwrap_or_default();
    let numbers = listed.split_ascii_whitespace();
    numbers
        .filter_map(|number| Pid::from_number(number.parse().ok()?))
        .collect()
}

/// Nothing for the first process of a namespace, and for one that is not there.
fn parent_of(pid: Pid) -> Option<Pid> {
    let mut room = [0; 1024];
    let stat = told(&format!("/proc/{pid}/stat"), &mut room).ok()?;
    // The name may contain anything, parentheses included; the state and the parent follow it.
    let (_, fields) = stat.rsplit_once(')')?;
    Pid::from_number(fields.split_ascii_whitespace().nth(1)?.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::parent_pid;

    #[test]
    fn a_process_acts_for_its_user() {
        let me = Pid::current();
        let own = crate::identity::effective_uid();
        assert_eq!(acts_for(me, own), Some(true));
        assert_eq!(acts_for(me, own + 4711), Some(false));
    }

    #[test]
    fn this_process_descends_from_its_parent_and_not_the_other_way_round() {
        let (me, parent) = (Pid::current(), parent_pid().unwrap());
        assert_eq!(descends_from(me, parent), Some(true));
        assert_eq!(descends_from(me, me), Some(true));
        // The parent may be the first process of its namespace, of which nobody knows a parent.
        let is_known = parent_of(parent).is_some();
        assert_eq!(descends_from(parent, me), is_known.then_some(false));
        let nobody = Pid::from_number(5_000_000).unwrap();
        assert_eq!(descends_from(nobody, me), None);
        assert!(family_of(parent).contains(&me));
        let among = BTreeSet::from([parent]);
        let started = [me, nobody];
        assert_eq!(ancestors_among(started, &among), among);
        assert_eq!(ancestors_among([parent], &among), BTreeSet::new());
    }

    #[test]
    fn whatever_starts_has_the_newest_number_for_a_moment() {
        let before = newest().unwrap();
        let mut started = std::process::Command::new("true").spawn().unwrap();
        let after = newest().unwrap();
        // Others start something meanwhile, and numbers begin again.
        assert_ne!(before, after);
        started.wait().unwrap();
    }
}
