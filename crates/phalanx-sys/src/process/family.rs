//! Who descends from whom.

use std::fs;

use super::Pid;

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
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
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
        assert_eq!(descends_from(parent, me), Some(false));
        let nobody = Pid::from_number(5_000_000).unwrap();
        assert_eq!(descends_from(nobody, me), None);
        assert!(family_of(parent).contains(&me));
    }
}
