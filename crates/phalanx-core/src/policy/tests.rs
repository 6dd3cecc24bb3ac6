use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::rng::SplitMix64;

fn set(numbers: &[u32]) -> PositionSet {
    numbers.iter().copied().map(Position).collect()
}

fn choose(policy: &mut dyn Policy, eligible: &PositionSet) -> Option<u32> {
    let field = Field::new(eligible, &(), ClientHash::UNKNOWN);
    policy.choose(&field).map(|position| position.0)
}

fn client(number: u64) -> ClientHash {
    ClientHash(SplitMix64::new(number).next_u64())
}

/// One eligible set, load and client after another.
fn history() -> impl Strategy<Value = Vec<(PositionSet, Vec<Load>, ClientHash)>> {
    let numbers = prop_oneof![
        3 => proptest::collection::btree_set(0_u32..12, 0..12),
        1 => proptest::collection::btree_set(0_u32..200, 0..40),
    ];
    let eligible = numbers.prop_map(|numbers| numbers.into_iter().map(Position).collect());
    let value = prop_oneof![4 => 0_u32..5, 1 => any::<u32>()];
    let load = [value.clone(), value.clone(), value];
    let load = load.prop_map(|[open, outstanding, response_us]| Load {
        open,
        outstanding,
        response_us,
    });
    let loads = proptest::collection::vec(load, 0..12);
    proptest::collection::vec((eligible, loads, any::<u64>().prop_map(ClientHash)), 1..60)
}

#[test]
fn round_robin_takes_turns_in_order_and_wraps() {
    let mut policy = RoundRobin::default();
    let all = set(&[0, 1, 2]);
    let chosen: Vec<_> = (0..7).filter_map(|_| choose(&mut policy, &all)).collect();
    assert_eq!(chosen, [0, 1, 2, 0, 1, 2, 0]);
}

#[test]
fn round_robin_passes_over_a_missing_position_without_repaying_it() {
    let mut policy = RoundRobin::default();
    let all = set(&[0, 1, 2]);
    assert_eq!(choose(&mut policy, &all), Some(0));
    assert_eq!(choose(&mut policy, &set(&[0, 2])), Some(2));
    assert_eq!(choose(&mut policy, &all), Some(0));
    assert_eq!(choose(&mut policy, &all), Some(1));
}

#[test]
fn weighted_keeps_its_proportion_while_a_position_comes_and_goes() {
    let mut policy = Weighted::new("4,2,1".parse().unwrap());
    let mut counts = BTreeMap::new();
    for step in 0..7 * 60 {
        let eligible = if step % 2 == 0 {
            set(&[0, 1, 2])
        } else {
            set(&[0, 1])
        };
        *counts
            .entry(choose(&mut policy, &eligible))
            .or_insert(0_i32) += 1;
    }
    let (first, second) = (counts[&Some(0)], counts[&Some(1)]);
    assert!((first - 2 * second).abs() <= 4, "{counts:?}");
    assert!(counts[&Some(2)] > 0);
}

#[test]
fn weight_zero_gets_nothing_even_alone() {
    let mut policy = Weighted::new("0,2".parse().unwrap());
    for _ in 0..10 {
        assert_eq!(choose(&mut policy, &set(&[0, 1])), Some(1));
    }
    assert_eq!(choose(&mut policy, &set(&[0])), None);
}

#[test]
fn ties_of_least_connections_go_in_turn() {
    let mut policy = LeastConnections::default();
    let loads: Vec<Load> = [0, 3, 0, 0]
        .map(|open| Load {
            open,
            ..Load::default()
        })
        .to_vec();
    let eligible = set(&[0, 1, 2, 3]);
    let field = Field::new(&eligible, &loads, ClientHash::UNKNOWN);
    let chosen: Vec<_> = (0..6)
        .filter_map(|_| policy.choose(&field))
        .map(|p| p.0)
        .collect();
    assert_eq!(chosen, [0, 2, 3, 0, 2, 3]);
}

#[test]
fn fastest_avoids_the_slow_and_the_busy() {
    let mut policy = Fastest::default();
    let load = |response_us, outstanding| Load {
        open: 0,
        outstanding,
        response_us,
    };
    let loads = vec![load(900, 0), load(200, 3), load(100, 5), load(100, 9)];
    let eligible = set(&[0, 1, 2, 3]);
    let field = Field::new(&eligible, &loads, ClientHash::UNKNOWN);
    assert_eq!(policy.choose(&field), Some(Position(2)));
}

#[test]
fn a_reload_moves_no_client_and_a_scaling_few() {
    for workers in [1_u32, 2, 3, 8, 31] {
        let (before, after) = (
            PositionSet::first_of(workers),
            PositionSet::first_of(workers + 1),
        );
        let clients = 40_000_u64;
        let mut moved = 0_u64;
        for number in 0..clients {
            let at = |eligible: &PositionSet| {
                SourceHash.choose(&Field::new(eligible, &(), client(number)))
            };
            assert_eq!(at(&before), at(&before.clone()), "no memory, no drift");
            if at(&before) != at(&after) {
                assert_eq!(at(&after), Some(Position(workers)), "only to the new one");
                moved += 1;
            }
        }
        let share = clients / u64::from(workers + 1);
        assert!(
            2 * moved <= 3 * share,
            "{moved} of {clients} moved at {workers}"
        );
        assert!(
            2 * moved >= share,
            "{moved} of {clients} moved at {workers}"
        );
    }
}

#[test]
fn while_a_position_is_out_only_its_clients_move() {
    let all = PositionSet::first_of(5);
    let mut without = all.clone();
    without.remove(Position(2));
    let mut taken = BTreeMap::new();
    for number in 0..10_000 {
        let at = |eligible: &PositionSet| {
            SourceHash
                .choose(&Field::new(eligible, &(), client(number)))
                .unwrap()
        };
        if at(&all) == Position(2) {
            *taken.entry(at(&without)).or_insert(0) += 1;
        } else {
            assert_eq!(at(&all), at(&without));
        }
    }
    assert_eq!(taken.len(), 4, "the others share them: {taken:?}");
    assert!(taken.values().all(|&count| count > 350), "{taken:?}");
}

#[test]
fn random_reaches_everyone_about_equally() {
    let mut policy = Random::new(3);
    let eligible = set(&[1, 5, 70]);
    let mut counts = BTreeMap::new();
    for _ in 0..30_000 {
        *counts
            .entry(choose(&mut policy, &eligible))
            .or_insert(0_u32) += 1;
    }
    assert_eq!(counts.len(), 3);
    // Five standard deviations of a fair draw.
    assert!(
        counts.values().all(|count| count.abs_diff(10_000) < 410),
        "{counts:?}"
    );
}

#[test]
fn power_of_two_is_nearly_as_even_as_comparing_all() {
    let mut policy = PowerOfTwo::new(5);
    let eligible = PositionSet::first_of(50);
    let mut loads = vec![Load::default(); 50];
    for _ in 0..50_000 {
        let field = Field::new(&eligible, &loads, ClientHash::UNKNOWN);
        let chosen = policy.choose(&field).unwrap();
        loads[usize::try_from(chosen.0).unwrap()].open += 1;
    }
    assert!(loads.iter().all(|load| load.open.abs_diff(1000) < 10));
}

#[test]
fn a_plan_goes_on_where_the_last_one_was() {
    let mut plan = Plan::new(PolicyName::RoundRobin, Weights::default());
    plan.set_eligible(&set(&[0, 1, 2, 3]), None);
    assert_eq!((plan.turns(), plan.start()), (&[0, 1, 2, 3][..], 0));
    plan.set_eligible(&set(&[0, 1, 3]), Some(1));
    assert_eq!((plan.turns(), plan.start()), (&[0, 1, 3][..], 2));
    plan.set_eligible(&set(&[0, 1, 2, 3]), None);
    assert_eq!((plan.turns(), plan.start()), (&[0, 1, 2, 3][..], 2));
    plan.set_policy(PolicyName::Weighted, "1,2".parse().unwrap(), Some(3));
    assert_eq!((plan.turns(), plan.start()), (&[1, 0, 1, 2, 3][..], 0));
    plan.set_eligible(&PositionSet::new(), Some(4));
    assert_eq!((plan.turns(), plan.start()), (&[][..], 0));
}

#[test]
fn a_plan_has_room_for_any_weights() {
    let weights = Weights::new([&[1000; 12][..], &[0; 4084]].concat()).unwrap();
    let mut plan = Plan::new(PolicyName::Weighted, weights);
    plan.set_eligible(&PositionSet::first_of(POSITIONS_MAX), None);
    assert_eq!(plan.turns().len(), 12_000);
    plan.set_policy(
        PolicyName::Weighted,
        Weights::new(vec![1000; 12]).unwrap(),
        None,
    );
    assert_eq!(plan.turns().len(), 12_000 + 4084);
    assert!(plan.turns().len() <= ORDER_MAX);
}

#[test]
fn every_policy_serves_the_largest_fleet() {
    let all = PositionSet::first_of(POSITIONS_MAX);
    for name in PolicyName::ALL {
        let mut policy = name.create();
        let highest = (0..2 * POSITIONS_MAX).filter_map(|number| {
            let field = Field::new(&all, &(), client(u64::from(number)));
            policy.choose(&field)
        });
        let reached: PositionSet = highest.collect();
        assert!(
            reached.len() > POSITIONS_MAX / 2,
            "{name}: {}",
            reached.len()
        );
    }
}

proptest! {
    #[test]
    fn k_times_n_turns_put_exactly_k_on_each(n in 1_u32..300, k in 1_u32..8) {
        let all = PositionSet::first_of(n);
        for name in [PolicyName::RoundRobin, PolicyName::Weighted] {
            let mut policy = name.create();
            let mut counts = BTreeMap::new();
            for _ in 0..n * k {
                *counts.entry(choose(policy.as_mut(), &all)).or_insert(0) += 1;
            }
            prop_assert!(counts.values().all(|&count| count == k));
        }
    }

    #[test]
    fn every_round_of_weighted_is_exact(
        weights in proptest::collection::vec(0_u16..20, 1..20), rounds in 1_u32..4
    ) {
        let total: u32 = weights.iter().copied().map(u32::from).sum();
        prop_assume!(total > 0);
        let all = PositionSet::first_of(u32::try_from(weights.len()).unwrap());
        let mut policy = Weighted::new(Weights::new(weights.clone()).unwrap());
        for _ in 0..rounds {
            let mut counts = vec![0_u16; weights.len()];
            for _ in 0..total {
                let chosen = choose(&mut policy, &all).unwrap();
                counts[usize::try_from(chosen).unwrap()] += 1;
            }
            prop_assert_eq!(&counts, &weights);
        }
    }

    #[test]
    fn only_eligible_positions_are_chosen(history in history()) {
        for name in PolicyName::ALL {
            let mut policy = name.create();
            for (eligible, loads, client) in &history {
                let chosen = policy.choose(&Field::new(eligible, loads, *client));
                prop_assert_eq!(chosen.is_none(), eligible.is_empty());
                prop_assert!(chosen.is_none_or(|position| eligible.contains(position)));
            }
        }
    }

    #[test]
    fn the_same_history_gives_the_same_choices(history in history(), seed in any::<u64>()) {
        for name in PolicyName::ALL {
            let weights: Weights = "3,1,2".parse().unwrap();
            let run = || {
                let mut policy = name.create_with(&weights, seed);
                let chosen: Vec<_> = history
                    .iter()
                    .map(|(eligible, loads, client)| {
                        policy.choose(&Field::new(eligible, loads, *client))
                    })
                    .collect();
                chosen
            };
            prop_assert_eq!(run(), run());
        }
    }

    #[test]
    fn least_and_fastest_pick_a_minimum(history in history()) {
        let (mut least, mut fastest) = (LeastConnections::default(), Fastest::default());
        for (eligible, loads, client) in &history {
            let field = Field::new(eligible, loads, *client);
            let chosen = least.choose(&field).map(|position| loads.load(position).open);
            prop_assert_eq!(chosen, eligible.iter().map(|p| loads.load(p).open).min());
            let chosen = fastest.choose(&field).map(|position| loads.load(position).score());
            prop_assert_eq!(chosen, eligible.iter().map(|p| loads.load(p).score()).min());
        }
    }

    #[test]
    fn power_of_two_never_picks_the_worse_of_its_two(
        open in proptest::collection::vec(0_u32..9, 2..40), seed in any::<u64>()
    ) {
        let eligible = PositionSet::first_of(u32::try_from(open.len()).unwrap());
        let loads: Vec<Load> = open.iter().map(|&open| Load { open, ..Load::default() }).collect();
        let mut policy = PowerOfTwo::new(seed);
        let mut drawn = PowerOfTwo::new(seed);
        for _ in 0..20 {
            let (first, second) = drawn.draw(eligible.len());
            prop_assert_ne!(first, second);
            let field = Field::new(&eligible, &loads, ClientHash::UNKNOWN);
            let chosen = policy.choose(&field).unwrap();
            prop_assert!(chosen == Position(first) || chosen == Position(second));
            let open = |number| loads.load(Position(number)).open;
            prop_assert_eq!(open(chosen.0), open(first).min(open(second)));
        }
    }

    /// The program steps through a plan; a change of eligibility may come after any number of steps.
    #[test]
    fn stepping_through_plans_is_taking_turns(
        weights in proptest::collection::vec(0_u16..6, 0..6),
        phases in proptest::collection::vec(
            (proptest::collection::btree_set(0_u32..9, 1..9), 1_u32..30), 1..12),
    ) {
        let weights = Weights::new(weights).unwrap_or_default();
        for name in [PolicyName::RoundRobin, PolicyName::Weighted] {
            let mut plan = Plan::new(name, weights.clone());
            let mut policy = name.create_with(&weights, 0);
            let mut last = None;
            for (eligible, steps) in &phases {
                let eligible = eligible.iter().copied().map(Position).collect();
                plan.set_eligible(&eligible, last);
                last = None;
                let count = u32::try_from(plan.turns().len()).unwrap();
                for step in 0..*steps {
                    let turn = (plan.start() + step).checked_rem(count);
                    let planned = turn
                        .map(|turn| u32::from(plan.turns()[usize::try_from(turn).unwrap()]));
                    prop_assert_eq!(planned, choose(policy.as_mut(), &eligible));
                    last = turn;
                }
            }
        }
    }
}
