use proptest::prelude::*;

use super::*;
use crate::policy::{Load, PolicyName, Weights};

pub(super) const LISTENER: ListenerId = ListenerId(1);

pub(super) fn ledger(window: usize, workers: u32) -> Ledger<u64> {
    let mut ledger = Ledger::new(window);
    ledger.add_listener(LISTENER, PolicyName::RoundRobin.create());
    for number in 0..workers {
        ledger.join(LISTENER, WorkerId(number + 1), Position(number));
    }
    ledger
}

pub(super) fn offer(ledger: &mut Ledger<u64>, connection: u64) -> Option<(WorkerId, u64)> {
    let worker = ledger.choose(LISTENER, ClientHash::UNKNOWN, &())?;
    let seq = ledger.next_seq();
    ledger.offer(LISTENER, worker, ClientHash::UNKNOWN, connection);
    Some((worker, seq))
}

#[test]
fn sequential_connections_go_in_turn() {
    let mut ledger = ledger(4, 3);
    for connection in 0..30 {
        let (worker, seq) = offer(&mut ledger, connection).unwrap();
        assert_eq!(ledger.accepted(worker, seq), Some(connection));
    }
    for number in 1..=3 {
        assert_eq!(ledger.accepted_count(WorkerId(number)), 10);
    }
}

#[test]
fn a_full_fleet_takes_nothing_until_one_is_accepted() {
    let mut ledger = ledger(2, 2);
    let offers: Vec<_> = (0..4).map(|c| offer(&mut ledger, c).unwrap()).collect();
    assert!(!ledger.has_room(LISTENER));
    assert_eq!(offer(&mut ledger, 9), None);
    ledger.accepted(offers[0].0, offers[0].1).unwrap();
    assert_eq!(
        offer(&mut ledger, 9).map(|(worker, _)| worker),
        Some(offers[0].0)
    );
}

#[test]
fn a_dead_workers_connections_are_offered_to_another() {
    let mut ledger = ledger(8, 2);
    for connection in 0..6 {
        offer(&mut ledger, connection).unwrap();
    }
    assert_eq!(ledger.worker_gone(WorkerId(1)), 3);
    let mut again = Vec::new();
    while let Some(waiting) = ledger.next_waiting(&()) {
        assert_eq!(waiting.worker, WorkerId(2));
        let offer = ledger.take_waiting(waiting.index).unwrap();
        again.push(*offer.connection());
        ledger.place(waiting.worker, offer);
    }
    assert_eq!(again, [0, 2, 4]);
    assert_eq!(ledger.waiting(), 0);
}

#[test]
fn a_returned_connection_goes_to_another_worker_and_only_later_back() {
    let mut ledger = ledger(8, 2);
    let (first, seq) = offer(&mut ledger, 7).unwrap();
    assert!(ledger.returned(first, seq));
    let Waiting {
        index,
        worker: second,
        ..
    } = ledger.next_waiting(&()).unwrap();
    assert_ne!(first, second);
    let seq = ledger.next_seq();
    let offer = ledger.take_waiting(index).unwrap();
    ledger.place(second, offer);
    assert!(ledger.returned(second, seq));
    assert!(ledger.next_waiting(&()).is_none());
    assert!(ledger.has_refused());
    ledger.forgive();
    assert!(ledger.next_waiting(&()).is_some());
}

#[test]
fn new_connections_go_to_the_successor_at_the_same_position() {
    let mut ledger = ledger(8, 1);
    ledger.join(LISTENER, WorkerId(2), Position(0));
    assert_eq!(offer(&mut ledger, 1).unwrap().0, WorkerId(2));
    ledger.worker_gone(WorkerId(2));
    assert_eq!(ledger.next_waiting(&()).unwrap().worker, WorkerId(1));
}

#[test]
fn an_excluded_worker_keeps_what_is_in_flight_and_gets_nothing_new() {
    let mut ledger = ledger(8, 2);
    let (worker, seq) = offer(&mut ledger, 1).unwrap();
    ledger.exclude(worker);
    for connection in 2..5 {
        assert_ne!(offer(&mut ledger, connection).unwrap().0, worker);
    }
    assert_eq!(ledger.in_flight(worker), 1);
    assert_eq!(ledger.accepted(worker, seq), Some(1));
}

#[test]
fn a_blocked_channel_takes_no_offers() {
    let mut ledger = ledger(8, 2);
    ledger.set_blocked(WorkerId(1), true);
    assert_eq!(offer(&mut ledger, 1).unwrap().0, WorkerId(2));
    assert_eq!(offer(&mut ledger, 2).unwrap().0, WorkerId(2));
    ledger.set_blocked(WorkerId(1), false);
    assert_eq!(offer(&mut ledger, 3).unwrap().0, WorkerId(1));
}

#[test]
fn connections_of_a_closed_listener_do_not_wait_for_anybody() {
    const OTHER: ListenerId = ListenerId(2);
    let mut ledger = ledger(8, 2);
    ledger.add_listener(OTHER, PolicyName::RoundRobin.create());
    ledger.join(OTHER, WorkerId(2), Position(1));
    let (first, seq) = offer(&mut ledger, 1).unwrap();
    let (second, _) = offer(&mut ledger, 2).unwrap();
    assert!(ledger.remove_listener(LISTENER).is_empty());
    assert!(ledger.returned(first, seq));
    ledger.worker_gone(second);
    assert_eq!(ledger.waiting(), 0);
}

#[test]
fn a_connection_that_waits_holds_up_its_own_listener_alone() {
    const OTHER: ListenerId = ListenerId(2);
    let mut ledger = ledger(8, 1);
    ledger.add_listener(OTHER, PolicyName::RoundRobin.create());
    ledger.join(OTHER, WorkerId(1), Position(0));
    let (worker, seq) = offer(&mut ledger, 1).unwrap();
    assert!(ledger.returned(worker, seq));
    assert!(ledger.has_waiting(LISTENER));
    assert!(!ledger.has_waiting(OTHER));
}

#[test]
fn a_number_nobody_was_given_changes_nothing() {
    let mut ledger = ledger(8, 1);
    let (worker, seq) = offer(&mut ledger, 1).unwrap();
    assert_eq!(ledger.accepted(worker, seq + 1), None);
    assert!(!ledger.returned(WorkerId(9), seq));
    assert_eq!(ledger.accepted(worker, seq), Some(1));
    assert_eq!(ledger.accepted(worker, seq), None);
}

#[test]
fn removing_a_listener_gives_its_waiting_connections_back() {
    let mut ledger = ledger(8, 1);
    offer(&mut ledger, 1).unwrap();
    ledger.worker_gone(WorkerId(1));
    assert_eq!(ledger.remove_listener(LISTENER), [1]);
    assert_eq!(ledger.waiting(), 0);
}

#[test]
fn the_policy_sees_loads_and_clients_and_can_be_replaced() {
    let mut ledger = ledger(8, 3);
    ledger.set_policy(LISTENER, PolicyName::LeastConnections.create());
    let load = |open| Load {
        open,
        ..Load::default()
    };
    let loads = vec![load(2), load(1), load(2)];
    let chosen = ledger.choose(LISTENER, ClientHash::UNKNOWN, &loads);
    assert_eq!(chosen, Some(WorkerId(2)));
    ledger.set_policy(LISTENER, PolicyName::SourceHash.create());
    let client = ClientHash::from(std::net::Ipv4Addr::new(192, 0, 2, 1));
    let home = ledger.choose(LISTENER, client, &loads);
    for connection in 0..3 {
        ledger.hold(LISTENER, client, connection);
        let waiting = ledger.next_waiting(&loads).unwrap();
        assert_eq!(Some(waiting.worker), home, "a client that waited too");
        assert!(ledger.take_waiting(waiting.index).is_some());
    }
}

/// Two workers with these weights.
fn weighted(window: usize, weights: &str) -> Ledger<u64> {
    let mut ledger = ledger(window, 2);
    let weights: Weights = weights.parse().unwrap();
    ledger.set_policy(LISTENER, PolicyName::Weighted.create_with(&weights, 0));
    ledger
}

/// Offers as long as there is room; how many each worker got.
fn fill(ledger: &mut Ledger<u64>) -> (Vec<u64>, Vec<u64>) {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    while ledger.has_room(LISTENER) {
        let (worker, seq) = offer(ledger, 0).unwrap();
        if worker == WorkerId(1) {
            &mut first
        } else {
            &mut second
        }
        .push(seq);
    }
    (first, second)
}

/// The worker accepts everything it was offered.
fn accept_all(ledger: &mut Ledger<u64>, worker: WorkerId) {
    let seqs: Vec<u64> = ledger.members[&worker].in_flight.keys().copied().collect();
    for seq in seqs {
        ledger.accepted(worker, seq).unwrap();
    }
}

#[test]
fn weights_hold_when_more_clients_push_than_a_window_takes() {
    let mut ledger = weighted(4, "3,1");
    for _ in 0..100 {
        fill(&mut ledger);
        accept_all(&mut ledger, WorkerId(1));
        accept_all(&mut ledger, WorkerId(2));
    }
    let counts = [1, 2].map(|id| ledger.accepted_count(WorkerId(id)));
    assert!(counts[0].abs_diff(3 * counts[1]) <= 3, "{counts:?}");
}

#[test]
fn a_worker_that_is_stuck_is_waited_for_only_so_long() {
    let mut ledger = weighted(4, "1,1");
    let (first, _) = fill(&mut ledger);
    accept_all(&mut ledger, WorkerId(2));
    assert!(ledger.awaits_turn(LISTENER) && !ledger.has_room(LISTENER));
    ledger.lose_patience();
    assert!(ledger.has_room(LISTENER), "it goes on without the first");
    assert_eq!(offer(&mut ledger, 1).unwrap().0, WorkerId(2));
    // One answer does not make everybody wait for it anew; half of its window does.
    ledger.accepted(WorkerId(1), first[0]).unwrap();
    let (again, _) = fill(&mut ledger);
    assert_eq!(again.len(), 1);
    assert!(!ledger.awaits_turn(LISTENER));
    accept_all(&mut ledger, WorkerId(1));
    accept_all(&mut ledger, WorkerId(2));
    let (first, second) = fill(&mut ledger);
    assert!(
        first.len().abs_diff(second.len()) <= 1,
        "turn by turn again"
    );
}

#[test]
fn round_robin_waits_for_nobody() {
    let mut ledger = ledger(2, 2);
    while let Some((worker, seq)) = offer(&mut ledger, 0) {
        if worker == WorkerId(2) {
            ledger.accepted(worker, seq).unwrap();
        }
        if ledger.accepted_count(WorkerId(2)) == 20 {
            break;
        }
    }
    assert_eq!(ledger.in_flight(WorkerId(1)), 2);
    assert!(!ledger.awaits_turn(LISTENER));
}

#[derive(Clone, Debug)]
enum Step {
    Arrive,
    Accept(usize),
    Return(usize),
    Die(u32),
    Exclude(u32),
    Born(u32),
    Forgive,
    Block(u32, bool),
    LosePatience,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Arrive),
        4 => (0_usize..64).prop_map(Step::Accept),
        1 => (0_usize..64).prop_map(Step::Return),
        1 => (0_u32..8).prop_map(Step::Die),
        1 => (0_u32..8).prop_map(Step::Exclude),
        1 => (0_u32..8).prop_map(Step::Born),
        1 => Just(Step::Forgive),
        1 => (0_u32..8, any::<bool>()).prop_map(|(n, on)| Step::Block(n, on)),
        1 => Just(Step::LosePatience),
    ]
}

/// The connections `0..born` each have one owner: a worker, the queue of those that wait, or they are done.
fn expect_one_owner_each(ledger: &Ledger<u64>, done: &[u64], born: u64, window: usize) {
    let mut owned = done.to_vec();
    owned.extend(ledger.waiting.iter().map(|offer| offer.connection));
    for member in ledger.members.values() {
        assert!(
            member.in_flight.len() <= window,
            "more in flight than the window"
        );
        owned.extend(member.in_flight.values().map(|offer| offer.connection));
    }
    owned.sort_unstable();
    let all: Vec<u64> = (0..born).collect();
    assert_eq!(owned, all, "each connection has exactly one owner");
}

/// Runs a history as the runtime would, and counts every connection's owners after each step.
fn conserve(steps: Vec<Step>, window: usize, policy: PolicyName) {
    let mut ledger = ledger(window, 4);
    ledger.set_policy(LISTENER, policy.create());
    let mut next_worker = 5;
    let mut born = 0_u64;
    let mut done = Vec::new();
    let mut open: Vec<(WorkerId, u64)> = Vec::new();
    for step in steps {
        match step {
            Step::Arrive => {
                if let Some(offered) = offer(&mut ledger, born) {
                    open.push(offered);
                    born += 1;
                }
            }
            Step::Accept(n) if !open.is_empty() => {
                let (worker, seq) = open.remove(n % open.len());
                done.extend(ledger.accepted(worker, seq));
            }
            Step::Return(n) if !open.is_empty() => {
                let (worker, seq) = open.remove(n % open.len());
                ledger.returned(worker, seq);
            }
            Step::Accept(_) | Step::Return(_) => {}
            Step::Die(n) => {
                let worker = WorkerId(n + 1);
                ledger.worker_gone(worker);
                open.retain(|&(holder, _)| holder != worker);
            }
            Step::Exclude(n) => ledger.exclude(WorkerId(n + 1)),
            Step::Born(position) => {
                ledger.join(LISTENER, WorkerId(next_worker), Position(position % 4));
                next_worker += 1;
            }
            Step::Forgive => ledger.forgive(),
            Step::Block(n, on) => ledger.set_blocked(WorkerId(n + 1), on),
            Step::LosePatience => {
                ledger.lose_patience();
                assert!(
                    !ledger.awaits_turn(LISTENER) || ledger.members.values().any(|m| !m.stalled)
                );
            }
        }
        while let Some(waiting) = ledger.next_waiting(&()) {
            let offer = ledger.take_waiting(waiting.index).unwrap();
            open.push((waiting.worker, ledger.next_seq()));
            ledger.place(waiting.worker, offer);
        }
        expect_one_owner_each(&ledger, &done, born, window);
    }
}

proptest! {
    #[test]
    fn every_connection_has_exactly_one_owner(
        steps in proptest::collection::vec(step(), 1..200), window in 1_usize..6) {
        for policy in [PolicyName::RoundRobin, PolicyName::Weighted] {
            conserve(steps.clone(), window, policy);
        }
    }
}
