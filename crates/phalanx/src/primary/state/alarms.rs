//! What is done when it is time for it: the one entrance for timers.

use crate::primary::mailbox::{Alarm, Until};
use crate::primary::state::Hub;

impl Hub {
    /// It is time for that. When it is again, if ever.
    pub(super) fn rings(&mut self, alarm: Alarm) -> Option<(Until, Alarm)> {
        let again = match alarm {
            Alarm::Watch => self.look_around()?,
            Alarm::Health(watch) => self.look_at_health(watch)?,
            Alarm::Balance => self.rebalances()?,
            Alarm::Settle(listener) => self.settle_slots(listener)?,
            Alarm::Unheld(ref listeners) => self.look_at_unheld(listeners)?,
            Alarm::Reconsider(worker) => {
                self.reconsider(worker);
                return None;
            }
            Alarm::Abandoned => {
                self.look_at_abandoned();
                return None;
            }
            Alarm::SlotUnheld(listener, position) => {
                self.give_up_slot(listener, position);
                return None;
            }
            Alarm::SendAgain(worker, message) => {
                self.sends_again(worker, message);
                return None;
            }
            Alarm::SendDelayed(worker) => {
                self.sends_delayed(worker);
                return None;
            }
            Alarm::Forgive => {
                self.forgives();
                return None;
            }
            Alarm::TurnAwaited => {
                self.loses_patience();
                return None;
            }
        };
        Some((again, alarm))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::time::Duration;

    use phalanx_core::ids::{Generation, Position, WorkerId};
    use phalanx_core::ledger::ListenerId;
    use phalanx_core::policy::PolicyName;
    use phalanx_core::wire::{ListenRequest, Target};
    use phalanx_sys::process::Pid;

    use crate::primary::cell::Cell;
    use crate::primary::clock::by_hand::ByHand;
    use crate::primary::state::inbox::mailbox;
    use crate::primary::state::open::Asker;
    use crate::primary::tasks::{splice, trial};
    use crate::primary::{Cluster, Shared};
    use crate::settings::{DispatchChoice, Settings};

    const MOMENT: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    fn primary() -> Arc<Shared> {
        Shared::new(PolicyName::RoundRobin)
    }

    fn listener(shared: &Shared) -> ListenerId {
        let mut hub = shared.hub();
        hub.dispatch = DispatchChoice::Handoff;
        let request = ListenRequest {
            target: Target::Tcp {
                address: Some(Ipv4Addr::LOCALHOST.into()),
                port: 0,
                only_v6: false,
            },
            scope: None,
            index: 0,
            backlog: None,
            data: serde_json::Value::Null,
            key: "a".to_owned(),
        };
        hub.listener_for("a", &request, Asker::Operator).unwrap()
    }

    #[tokio::test]
    async fn a_listener_that_a_guest_has_left_closes_after_a_while() {
        let (hand, shared) = (ByHand::new(), primary());
        let id = listener(&shared);
        shared.hub().close_unheld(vec![id]);
        hand.pass(SECOND.saturating_sub(MOMENT)).await;
        assert!(shared.hub().listeners.contains_key(&id));
        hand.pass(MOMENT).await;
        assert!(shared.hub().listeners.is_empty());
    }

    #[tokio::test]
    async fn it_stays_while_a_worker_starts_that_may_ask_for_it() {
        let (hand, shared) = (ByHand::new(), primary());
        let id = listener(&shared);
        let cell = newcomer(&shared);
        shared.hub().close_unheld(vec![id]);
        hand.pass(SECOND * 10).await;
        assert!(shared.hub().listeners.contains_key(&id));
        shared.hub().ended(cell.id);
        hand.pass(SECOND).await;
        assert!(shared.hub().listeners.is_empty());
    }

    fn newcomer(shared: &Shared) -> Arc<Cell> {
        let settings = Settings::default();
        let cell = Cell::of_stranger(WorkerId(1), Position(0), Pid::current(), &settings);
        let cell = Arc::new(cell);
        let mut hub = shared.hub();
        hub.adopt(Arc::clone(&cell), Generation(1), None, BTreeMap::new());
        cell
    }

    #[tokio::test]
    async fn a_guest_of_whose_end_nobody_tells_is_forgotten() {
        let (hand, shared) = (ByHand::new(), primary());
        let cell = newcomer(&shared);
        let mailbox = mailbox(&Arc::downgrade(&shared));
        tokio::spawn(splice::follow_end(mailbox, Arc::clone(&cell), None));
        hand.pass(SECOND * 10).await;
        shared.hub().ended(cell.id);
        hand.pass((SECOND * 2).saturating_sub(MOMENT)).await;
        assert_eq!(shared.hub().worker_count(), 1);
        hand.pass(MOMENT).await;
        assert_eq!(shared.hub().worker_count(), 0);
    }

    #[tokio::test]
    async fn what_was_returned_is_offered_again_and_a_turn_is_not_awaited_for_ever() {
        let (hand, shared) = (ByHand::new(), primary());
        shared.hub().forgive_later();
        shared.hub().lose_patience_later();
        hand.pass(MOMENT * 24).await;
        assert!(shared.hub().waiting_for_turn);
        hand.pass(MOMENT).await;
        assert!(!shared.hub().waiting_for_turn);
        hand.pass(MOMENT * 24).await;
        assert!(shared.hub().forgiving);
        hand.pass(MOMENT).await;
        assert!(!shared.hub().forgiving);
    }

    #[tokio::test]
    async fn a_rebalance_of_nobody_is_over_at_the_first_look() {
        let (hand, shared) = (ByHand::new(), primary());
        let cluster = Cluster { shared };
        let running = tokio::spawn(async move { cluster.rebalance_if_worth_it().await });
        hand.pass(MOMENT * 99).await;
        assert!(!running.is_finished());
        hand.pass(MOMENT).await;
        assert_eq!(running.await.unwrap(), Ok(None));
    }

    #[tokio::test]
    async fn whose_port_0_is_shows_when_it_is_decided_and_is_asked_again_after_a_second() {
        let (hand, shared) = (ByHand::new(), primary());
        let wait = || {
            let mailbox = mailbox(&Arc::downgrade(&shared));
            tokio::spawn(async move { trial::wait(&mailbox).await })
        };
        let waiting = wait();
        hand.pass(SECOND.saturating_sub(MOMENT)).await;
        assert!(!waiting.is_finished());
        hand.pass(MOMENT).await;
        assert!(waiting.is_finished());
        let waiting = wait();
        hand.pass(MOMENT).await;
        shared.hub().any_port_decided.notify_waiters();
        hand.pass(Duration::ZERO).await;
        assert!(waiting.is_finished());
    }
}
