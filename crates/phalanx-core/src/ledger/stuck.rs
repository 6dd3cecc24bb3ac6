//! Workers that do not answer what they are offered, and what becomes of their offers.

use std::collections::BTreeSet;

use super::{Ledger, ListenerId};
use crate::clock::Moment;
use crate::dispatch::liveness::{Finding, Life, Progress, set_aside};
use crate::ids::WorkerId;

impl<C> Ledger<C> {
    /// Looks at all workers: who answers nothing of what it was offered is stuck. `shows_life` says whether
    /// anything came from the worker since it was found stuck: before, a trial would only cost a client time.
    pub fn look(
        &mut self,
        now: Moment,
        shows_life: impl Fn(WorkerId) -> bool,
    ) -> Vec<(WorkerId, Finding)> {
        let mut findings = Vec::new();
        for (&worker, member) in &mut self.members {
            let progress = Progress {
                taken: member.answers,
                waiting: u32::try_from(member.in_flight.len()).unwrap_or(u32::MAX),
            };
            let life = if shows_life(worker) {
                Life::Shown
            } else {
                Life::Silent
            };
            let finding = member.liveness.look(progress, life, now);
            findings.extend(finding.map(|finding| (worker, finding)));
        }
        self.set_aside();
        findings
    }

    /// Who is stuck is offered nothing by a listener that somebody else serves who is not.
    fn set_aside(&mut self) {
        let mut aside: BTreeSet<WorkerId> = self
            .members
            .iter()
            .filter(|(_, member)| member.liveness.is_stuck())
            .map(|(&worker, _)| worker)
            .collect();
        for listener in self.groups.keys() {
            let members = self
                .members
                .iter()
                .filter(|(_, member)| member.listeners.contains(listener))
                .map(|(&worker, member)| (worker, member.liveness.is_stuck()));
            let members: Vec<_> = members.collect();
            let here = set_aside(members.iter().copied());
            aside.retain(|worker| {
                here.contains(worker) || members.iter().all(|(member, _)| member != worker)
            });
        }
        let changed = self.members.iter_mut().filter_map(|(&worker, member)| {
            let is_aside = aside.contains(&worker);
            let changed = member.aside != is_aside || member.liveness.is_stuck();
            member.aside = is_aside;
            changed.then_some(worker)
        });
        let changed: Vec<_> = changed.collect();
        // One that was just found healthy may have been aside, or tried.
        for worker in changed {
            self.refresh_worker(worker);
        }
    }

    /// Since when the worker is stuck.
    #[must_use]
    pub fn stuck_since(&self, worker: WorkerId) -> Option<Moment> {
        self.members.get(&worker)?.liveness.stuck_since()
    }

    /// The offers that a stuck worker leaves unanswered and that somebody else could take, oldest first.
    /// The runtime takes back what the worker has not read, and says so by [`Ledger::recalled`].
    #[must_use]
    pub fn recallable(&self, worker: WorkerId) -> Vec<u64> {
        let Some(member) = self.members.get(&worker) else {
            return Vec::new();
        };
        if !member.liveness.is_stuck() || member.liveness.is_tried() {
            return Vec::new();
        }
        let others: BTreeSet<ListenerId> = self
            .members
            .values()
            .filter(|other| !other.liveness.is_stuck())
            .flat_map(|other| other.listeners.iter().copied())
            .collect();
        let offers = member.in_flight.iter();
        offers
            .filter(|(_, offer)| others.contains(&offer.listener))
            .map(|(&seq, _)| seq)
            .collect()
    }

    /// The offer was taken back before the worker read it: it waits for another. False when the worker does
    /// not hold it.
    pub fn recalled(&mut self, worker: WorkerId, seq: u64) -> bool {
        let Some(member) = self.members.get_mut(&worker) else {
            return false;
        };
        let Some(offer) = member.in_flight.remove(&seq) else {
            return false;
        };
        self.wait_last(offer);
        self.refresh_worker(worker);
        true
    }

    /// Nothing could be taken back from this worker: it is offered one connection at a time.
    pub fn offer_one_at_a_time(&mut self, worker: WorkerId) {
        if let Some(member) = self.members.get_mut(&worker) {
            member.window_max = 1;
            self.refresh_worker(worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{LISTENER, ledger, offer};
    use super::*;
    use crate::dispatch::liveness::Limits;

    const SILENCE: Duration = Limits::CONNECTIONS.silence;

    fn at(millis: u64) -> Moment {
        Moment::after(Duration::from_millis(millis))
    }

    /// Two workers, of which the second answers all it gets; the first gets `count` that it leaves unanswered.
    fn with_one_stuck(count: u64) -> (Ledger<u64>, WorkerId, Vec<u64>) {
        let mut ledger = ledger(16, 2);
        let stuck = WorkerId(1);
        let mut seqs = Vec::new();
        while seqs.len() < usize::try_from(count).unwrap() {
            let (worker, seq) = offer(&mut ledger, 100 + seqs.len() as u64).unwrap();
            if worker == stuck {
                seqs.push(seq);
            } else {
                ledger.accepted(worker, seq).unwrap();
            }
        }
        assert!(ledger.look(at(0), |_| false).is_empty());
        let later = Moment::after(SILENCE);
        assert_eq!(ledger.look(later, |_| false), [(stuck, Finding::Stuck)]);
        (ledger, stuck, seqs)
    }

    /// The worker gets something again, and leaves it unanswered again.
    fn relapse(ledger: &mut Ledger<u64>, stuck: WorkerId, from: u64) {
        let mut held = Vec::new();
        for connection in 0..4 {
            let (worker, seq) = offer(ledger, connection).unwrap();
            if worker == stuck {
                held.push(seq);
            } else {
                ledger.accepted(worker, seq).unwrap();
            }
        }
        ledger.look(at(from), |_| false);
        let findings = ledger.look(at(from + 1_000), |_| false);
        assert_eq!(findings, [(stuck, Finding::Stuck)]);
        for seq in held {
            assert!(ledger.recalled(stuck, seq));
        }
    }

    #[test]
    fn who_answers_nothing_is_offered_nothing_and_its_offers_go_to_others() {
        let (mut ledger, stuck, seqs) = with_one_stuck(5);
        assert_eq!(ledger.recallable(stuck), seqs);
        for &seq in &seqs {
            assert!(ledger.recalled(stuck, seq));
            assert!(!ledger.recalled(stuck, seq));
        }
        assert_eq!((ledger.in_flight(stuck), ledger.waiting()), (0, 5));
        while let Some(waiting) = ledger.next_waiting(&()) {
            assert_eq!(waiting.worker, WorkerId(2));
            let offer = ledger.take_waiting(waiting.index).unwrap();
            ledger.place(waiting.worker, offer);
        }
        assert_eq!(ledger.in_flight(WorkerId(2)), 5);
        for connection in 0..10 {
            assert_eq!(offer(&mut ledger, connection).unwrap().0, WorkerId(2));
        }
    }

    #[test]
    fn one_that_only_says_that_it_lives_is_tried_with_one_connection() {
        let (mut ledger, stuck, seqs) = with_one_stuck(3);
        for seq in seqs {
            ledger.recalled(stuck, seq);
        }
        assert!(ledger.look(at(50_000), |_| false).is_empty());
        let findings = ledger.look(at(50_250), |_| true);
        assert!(matches!(findings[..], [(_, Finding::Recovered { .. })]));
        relapse(&mut ledger, stuck, 50_500);
        assert!(ledger.look(at(60_000), |_| false).is_empty());
        let findings = ledger.look(at(60_250), |_| true);
        assert_eq!(findings, [(stuck, Finding::Try)]);
        let mut seqs = Vec::new();
        for connection in 0..8 {
            let (worker, seq) = offer(&mut ledger, connection).unwrap();
            seqs.extend((worker == stuck).then_some(seq));
        }
        assert_eq!(seqs.len(), 1);
        assert!(ledger.recallable(stuck).is_empty());
        ledger.accepted(stuck, seqs[0]).unwrap();
        let findings = ledger.look(at(60_500), |_| true);
        assert!(matches!(findings[..], [(_, Finding::Recovered { .. })]));
        let workers: BTreeSet<_> = (0..8)
            .map(|connection| offer(&mut ledger, connection).unwrap().0)
            .collect();
        assert_eq!(workers.len(), 2);
    }

    #[test]
    fn a_trial_in_vain_is_taken_back_and_the_next_one_comes_later() {
        let (mut ledger, stuck, seqs) = with_one_stuck(1);
        ledger.recalled(stuck, seqs[0]);
        ledger.look(at(1_250), |_| true);
        relapse(&mut ledger, stuck, 1_500);
        assert_eq!(ledger.look(at(12_000), |_| true), [(stuck, Finding::Try)]);
        let tried = (0..4).find_map(|connection| {
            let (worker, seq) = offer(&mut ledger, connection).unwrap();
            if worker != stuck {
                ledger.accepted(worker, seq).unwrap();
            }
            (worker == stuck).then_some(seq)
        });
        ledger.look(at(12_250), |_| true);
        let findings = ledger.look(at(13_250), |_| true);
        assert_eq!(findings, [(stuck, Finding::Failed)]);
        assert_eq!(ledger.recallable(stuck), [tried.unwrap()]);
        assert!(ledger.look(at(15_000), |_| true).is_empty());
        assert_eq!(ledger.look(at(15_250), |_| true), [(stuck, Finding::Try)]);
    }

    #[test]
    fn where_all_are_stuck_nothing_is_taken_from_anybody() {
        let mut ledger = ledger(2, 2);
        let mut last = None;
        while let Some(offered) = offer(&mut ledger, 1) {
            last = Some(offered);
        }
        ledger.look(at(0), |_| false);
        assert_eq!(ledger.look(at(1_000), |_| false).len(), 2);
        for worker in [WorkerId(1), WorkerId(2)] {
            assert!(ledger.recallable(worker).is_empty());
        }
        let (first, seq) = last.unwrap();
        ledger.accepted(first, seq).unwrap();
        ledger.look(at(1_250), |worker| worker == first);
        let other = WorkerId(3 - first.0);
        assert_eq!(ledger.recallable(other).len(), 2);
        assert!(ledger.has_room(LISTENER));
    }

    #[test]
    fn one_from_which_nothing_could_be_taken_back_gets_one_at_a_time() {
        let mut ledger = ledger(16, 2);
        ledger.offer_one_at_a_time(WorkerId(1));
        for connection in 0..9 {
            offer(&mut ledger, connection).unwrap();
        }
        assert_eq!(ledger.in_flight(WorkerId(1)), 1);
    }
}
