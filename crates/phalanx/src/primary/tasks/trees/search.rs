//! Where to look for what workers have started: among what is new on the machine, as long as that is little.
//!
//! A list of children has to be read for each thread: with 64 Node workers that are some hundred thousand system calls a minute, although
//! nothing was started. The kernel numbers processes in turn, and tells the last number; so only what has a number of since can
//! be new.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use phalanx_core::ids::WorkerId;
use phalanx_sys::process::{Pid, ancestors_among, newest};

/// Every so many looks all lists of children are read, whatever is new: once a minute.
const THOROUGH: u32 = 60;
/// More new processes and threads than so many for each worker are not looked at one by one: its lists of children cost as much.
/// (Most of them are gone when they are looked at, which costs one call each.)
const NEW_MOST: u32 = 16;
/// A number is given before its process is to be seen: so many of the last look's are looked at once more.
const UNSEEN: u32 = 64;

/// Where it is searched for what workers have started.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    /// Nothing is new.
    Nowhere,
    /// Among the processes and threads with these numbers.
    Among(RangeInclusive<u32>),
    /// In the lists of children.
    Everywhere,
}

/// How far it was searched.
#[derive(Debug, Default)]
pub(super) struct Search {
    count: u32,
    /// The newest number at the last search, and at the one before.
    newest: [Option<u32>; 2],
    /// Whose lists of children were read once: what the others have started may be old.
    workers: BTreeSet<WorkerId>,
}

impl Search {
    /// Those of the workers that may have started something that was not found before. Reads files of `/proc`.
    pub(super) fn look(&mut self, workers: &[(WorkerId, Pid)]) -> BTreeSet<WorkerId> {
        let count = u32::try_from(workers.len()).unwrap_or(u32::MAX);
        let scope = self.next(newest().ok(), count);
        let mut found = scope.of(workers);
        found.extend(self.newcomers(workers));
        found
    }

    /// Those of the workers whose lists of children have never been read. They have, from now on.
    fn newcomers(&mut self, workers: &[(WorkerId, Pid)]) -> BTreeSet<WorkerId> {
        let all: BTreeSet<WorkerId> = workers.iter().map(|&(worker, _)| worker).collect();
        let before = std::mem::replace(&mut self.workers, all);
        self.workers.difference(&before).copied().collect()
    }

    /// Where to search, given the newest number that the kernel gave, for so many workers.
    fn next(&mut self, newest: Option<u32>, workers: u32) -> Scope {
        let is_thorough = self.count.is_multiple_of(THOROUGH);
        self.count = self.count.wrapping_add(1);
        let [last, before] = self.newest;
        self.newest = [newest, last];
        let (Some(newest), Some(last), Some(before)) = (newest, last, before) else {
            return Scope::Everywhere;
        };
        let before = before.max(last.saturating_sub(UNSEEN));
        match newest.checked_sub(before) {
            _ if is_thorough => Scope::Everywhere,
            Some(0) => Scope::Nowhere,
            Some(new) if new <= workers.saturating_mul(NEW_MOST) => {
                Scope::Among(before + 1..=newest)
            }
            // They began again, too.
            Some(_) | None => Scope::Everywhere,
        }
    }
}

impl Scope {
    /// Those of the workers that may have started something.
    fn of(self, workers: &[(WorkerId, Pid)]) -> BTreeSet<WorkerId> {
        let all: BTreeSet<Pid> = workers.iter().map(|&(_, pid)| pid).collect();
        let found = match self {
            Self::Nowhere => BTreeSet::new(),
            Self::Among(numbers) => ancestors_among(numbers.filter_map(Pid::from_number), &all),
            Self::Everywhere => all,
        };
        let found = workers.iter().filter(|(_, pid)| found.contains(pid));
        found.map(|&(worker, _)| worker).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_searched_and_all_once_a_minute() {
        let mut search = Search::default();
        let mut next = |newest| search.next(Some(newest), 2);
        // Nothing is known at first.
        assert_eq!(
            [100, 100].map(&mut next),
            [Scope::Everywhere, Scope::Everywhere]
        );
        assert_eq!(next(100), Scope::Nowhere);
        assert_eq!(next(103), Scope::Among(101..=103));
        assert_eq!(next(103), Scope::Among(101..=103));
        assert_eq!(
            [103, 140].map(&mut next),
            [Scope::Nowhere, Scope::Everywhere]
        );
        // The numbers begin again.
        assert_eq!(next(5), Scope::Everywhere);
        assert_eq!(
            [5, 5, 5, 5].map(&mut next)[1..],
            [const { Scope::Nowhere }; 3]
        );
        // Twelve looks were made by now.
        assert_eq!([5; 48].map(&mut next), [const { Scope::Nowhere }; 48]);
        assert_eq!([5, 5].map(&mut next), [Scope::Everywhere, Scope::Nowhere]);
    }

    #[test]
    fn little_of_what_was_looked_at_is_looked_at_again() {
        let mut search = Search::default();
        let mut next = |newest| search.next(Some(newest), 100);
        assert_eq!([100, 900].map(&mut next), [const { Scope::Everywhere }; 2]);
        assert_eq!(next(910), Scope::Among(837..=910));
        assert_eq!(next(910), Scope::Among(901..=910));
    }

    #[test]
    fn lists_of_children_of_newcomers_are_read() {
        let mut search = Search::default();
        let here = |workers: &[u32]| {
            let all = workers.iter();
            all.map(|&worker| (WorkerId(worker), Pid::current()))
                .collect::<Vec<_>>()
        };
        let mut newcomers = |workers: &[u32]| search.newcomers(&here(workers));
        assert_eq!(newcomers(&[1, 2]), BTreeSet::from([1, 2].map(WorkerId)));
        assert_eq!(newcomers(&[2, 3]), BTreeSet::from([WorkerId(3)]));
        assert_eq!(newcomers(&[2, 3]), BTreeSet::new());
    }

    #[test]
    fn who_has_started_something_is_found_among_what_is_new() {
        let (before, me) = (newest().unwrap(), Pid::current());
        let mut started = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let workers = [
            (WorkerId(1), me),
            (WorkerId(2), Pid::from_number(5_000_000).unwrap()),
        ];
        let found = Scope::Among(before + 1..=newest().unwrap()).of(&workers);
        started.kill().unwrap();
        started.wait().unwrap();
        assert_eq!(found, BTreeSet::from([WorkerId(1)]));
        assert_eq!(Scope::Nowhere.of(&workers), BTreeSet::new());
        assert_eq!(Scope::Everywhere.of(&workers).len(), 2);
    }
}
