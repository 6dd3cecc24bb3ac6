//! The compiled program against the pure policies, on the same histories.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::fs::FileExt;

use phalanx_core::ids::Position;
use phalanx_core::policy::{
    ClientHash, Field, Load, Plan, PolicyName, PositionSet, SCAN_MAX, Weights,
};
use phalanx_core::rng::SplitMix64;
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::interpreter::{BOARD, GROUP, Machine, Packet, SLOTS};
use crate::mapping::Mapped;
use crate::scoreboard::{self, Scoreboard};
use crate::steering::Rule;
use crate::steering::memory::{self, GroupMemory};
use crate::steering::object::Object;

const SEED: u64 = 7;

/// When histories begin.
const START_TICK: u32 = 1_000_000;

/// The program with its maps, and both sides' view of them.
struct Bench {
    machine: Machine,
    group: Mapped<GroupMemory>,
    board: Scoreboard,
    plan: Plan,
    start: u32,
}

fn memory(bytes: usize) -> File {
    let fd = memfd_create("map", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&fd, u64::try_from(bytes).unwrap()).unwrap();
    File::from(fd)
}

fn rule(policy: PolicyName) -> Rule {
    match policy {
        PolicyName::RoundRobin | PolicyName::Weighted => Rule::Turns,
        PolicyName::LeastConnections => Rule::LeastConnections,
        PolicyName::Fastest => Rule::Score,
        PolicyName::PowerOfTwo => Rule::TwoChoices,
        PolicyName::SourceHash => Rule::Source,
        PolicyName::Random => Rule::Chance,
        PolicyName::None => Rule::Connection,
        other => panic!("{other} has no rule"),
    }
}

impl Bench {
    fn new(policy: PolicyName, weights: &Weights) -> Self {
        let maps = [("slots", SLOTS), ("group", GROUP), ("board", BOARD)];
        let program = Object::read().unwrap().link(&maps).unwrap().instructions;
        let group = memory(memory::SIZE_BYTES);
        let board = memory(scoreboard::SIZE_BYTES);
        let mut draws = SplitMix64::new(SEED);
        Self {
            group: Mapped::new(&group).unwrap(),
            board: Scoreboard::from_fd(board.try_clone().unwrap().into()).unwrap(),
            machine: Machine {
                program,
                group,
                board,
                slots: (0..4096).collect(),
                nanoseconds: 0,
                random: Box::new(move || u32::try_from(draws.next_u64() >> 32).unwrap()),
                steps: 0,
            },
            plan: Plan::new(policy, weights.clone()),
            start: 0,
        }
    }

    fn set_eligible(&mut self, eligible: &PositionSet) {
        self.plan
            .set_eligible(eligible, self.group.last(self.start));
        self.start = self.plan.start();
        let highest = self.plan.turns().iter().max();
        self.group.switch(
            rule(self.plan.policy()) as u8,
            self.plan.turns(),
            eligible.words(),
            highest.map_or(0, |highest| highest + 1),
            self.start,
        );
    }

    /// Writes what was given, and a row as a worker might, or might not.
    fn set_row(&self, position: u32, (given, row): (u32, [u32; 8])) {
        let position = u64::from(position);
        let bytes: Vec<u8> = row.iter().flat_map(|word| word.to_le_bytes()).collect();
        let rows = 4 * u64::from(scoreboard::POSITIONS_MAX);
        let board = &self.machine.board;
        board.write_all_at(&bytes, rows + 64 * position).unwrap();
        board
            .write_all_at(&given.to_le_bytes(), 4 * position)
            .unwrap();
    }

    fn loads(&self, tick: u32) -> Vec<Load> {
        let load = |position| {
            let load = self.board.load_at(position, tick);
            Load {
                open: load.open,
                outstanding: load.outstanding,
                response_us: load.response_us,
            }
        };
        (0..16).map(load).collect()
    }
}

fn opening(client: IpAddr, hash: u32) -> Packet {
    let mut transport = vec![0; 20];
    transport[13] = 0x02;
    let (protocol, network) = match client {
        IpAddr::V4(client) => {
            let mut header = vec![0; 20];
            header[12..16].copy_from_slice(&client.octets());
            (0x0800, header)
        }
        IpAddr::V6(client) => {
            let mut header = vec![0; 40];
            header[8..24].copy_from_slice(&client.octets());
            (0x86dd, header)
        }
    };
    Packet {
        network,
        transport,
        protocol,
        hash,
        migrating: None,
    }
}

fn eligible_set() -> impl Strategy<Value = PositionSet> {
    proptest::collection::btree_set(0_u32..12, 0..10)
        .prop_map(|numbers| numbers.into_iter().map(Position).collect())
}

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
    ]
}

/// Small counts, so that there are ties, and now and then anything.
fn row() -> impl Strategy<Value = Row> {
    let word = || prop_oneof![8 => 0_u32..4, 2 => 0_u32..5_000, 1 => any::<u32>()];
    // The clock of a history is there, and goes on for some ten thousand ticks.
    let tick = || prop_oneof![8 => START_TICK..START_TICK + 50_000, 1 => any::<u32>()];
    let row = (proptest::array::uniform6(word()), tick(), tick());
    (word(), row).prop_map(|(given, (words, response, busy))| {
        let [closed, even, odd, first, second, time] = words;
        (
            given,
            [closed, even, odd, first, second, time, response, busy],
        )
    })
}

/// What was given, and the words of a row.
type Row = (u32, [u32; 8]);

/// A client, a row that changes before, and how many ticks have gone by.
type Arrival = (IpAddr, Option<(u32, Row)>, u32);

#[derive(Clone, Debug)]
struct Phase {
    eligible: PositionSet,
    arrivals: Vec<Arrival>,
}

fn history() -> impl Strategy<Value = Vec<Phase>> {
    let change = proptest::option::of((0_u32..12, row()));
    let arrival = (address(), change, 0_u32..2_000);
    let phase = (eligible_set(), proptest::collection::vec(arrival, 1..12));
    let phase = phase.prop_map(|(eligible, arrivals)| Phase { eligible, arrivals });
    proptest::collection::vec(phase, 1..6)
}

/// Runs a history through the program and through the pure policy.
fn compare(policy: PolicyName, weights: &Weights, history: &[Phase]) -> Result<(), TestCaseError> {
    let mut bench = Bench::new(policy, weights);
    let mut pure = policy.create_with(weights, SEED);
    let mut tick = START_TICK;
    let mut total = 0;
    for phase in history {
        bench.set_eligible(&phase.eligible);
        for &(client, change, elapsed) in &phase.arrivals {
            tick += elapsed;
            bench.machine.nanoseconds = u64::from(tick) << 20;
            if let Some((position, row)) = change {
                bench.set_row(position, row);
            }
            let loads = bench.loads(tick);
            let field = Field::new(&phase.eligible, &loads, ClientHash::from(client));
            let expected = pure.choose(&field).map(|position| position.0);
            let chosen = bench.machine.run(&opening(client, 5));
            prop_assert_eq!(chosen, expected, "{} among {:?}", policy, phase.eligible);
            let Some(position) = chosen else { continue };
            total += 1;
            let before = loads[usize::try_from(position).unwrap()].open;
            let after = bench.board.load_at(position, tick).open;
            prop_assert!(
                after == before + 1 || before == 0 || after == 0,
                "counted once"
            );
        }
    }
    let counted: u64 = (0..12).map(|position| bench.group.tally(position).0).sum();
    prop_assert_eq!(counted, total);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_program_chooses_as_the_pure_policies_do(history in history()) {
        for policy in PolicyName::ALL {
            // `none` goes by the kernel's own hash: see below.
            if policy != PolicyName::None {
                compare(policy, &Weights::default(), &history)?;
            }
        }
    }

    #[test]
    fn weights_mean_the_same_to_both(
        weights in proptest::collection::vec(0_u16..5, 0..8), history in history()
    ) {
        let weights = Weights::new(weights).unwrap_or_default();
        compare(PolicyName::Weighted, &weights, &history)?;
    }

    #[test]
    fn none_goes_by_the_kernels_hash(eligible in eligible_set(), hash in any::<u32>()) {
        let mut bench = Bench::new(PolicyName::None, &Weights::default());
        bench.set_eligible(&eligible);
        let chosen = bench.machine.run(&opening([192, 0, 2, 1].into(), hash));
        let expected = hash.checked_rem(eligible.len()).and_then(|index| eligible.nth(index));
        prop_assert_eq!(chosen, expected.map(|position| position.0));
    }

    /// Packets that open nothing change nothing, and are answered by an eligible slot all the same:
    /// the last step of a handshake by SYN cookie is one of them.
    #[test]
    fn only_what_opens_a_connection_counts(
        eligible in eligible_set(), flags in any::<u8>(), length in 0_usize..20, hash in any::<u32>()
    ) {
        prop_assume!(flags & 0x12 != 0x02 || length < 14);
        for policy in PolicyName::ALL {
            let mut bench = Bench::new(policy, &Weights::default());
            bench.set_eligible(&eligible);
            let mut packet = opening([192, 0, 2, 1].into(), hash);
            packet.transport[13] = flags;
            packet.transport.truncate(length);
            let chosen = bench.machine.run(&packet);
            prop_assert_eq!(chosen.is_some(), !eligible.is_empty());
            prop_assert!(chosen.is_none_or(|position| eligible.contains(Position(position))));
            prop_assert_eq!(bench.group.last(bench.start), None, "no turn was taken");
            for position in 0..12 {
                prop_assert_eq!(bench.group.tally(position), (0, 0));
                prop_assert_eq!(bench.board.load_at(position, 0).open, 0);
            }
        }
    }

    #[test]
    fn a_missing_slot_makes_it_the_next_ones_turn(
        eligible in eligible_set(), slots in proptest::collection::btree_set(0_u32..12, 0..12)
    ) {
        for policy in PolicyName::ALL {
            let mut bench = Bench::new(policy, &Weights::default());
            bench.set_eligible(&eligible);
            bench.machine.slots = slots.clone();
            let chosen = bench.machine.run(&opening([192, 0, 2, 1].into(), 9));
            let able: BTreeSet<u32> =
                eligible.iter().map(|position| position.0).filter(|at| slots.contains(at)).collect();
            prop_assert_eq!(chosen.is_some(), !able.is_empty());
            prop_assert!(chosen.is_none_or(|position| able.contains(&position)));
            prop_assert_eq!(bench.group.unsteered(), u64::from(able.is_empty()));
        }
    }

    #[test]
    fn a_connection_that_moves_keeps_its_client(eligible in eligible_set(), client in address()) {
        prop_assume!(!eligible.is_empty());
        let mut bench = Bench::new(PolicyName::SourceHash, &Weights::default());
        bench.set_eligible(&eligible);
        let arrived = bench.machine.run(&opening(client, 1));
        // As struct bpf_sock has it: family at 4, dst_ip4 at 52, dst_ip6 at 56.
        let mut sock = vec![0; 80];
        match client {
            IpAddr::V4(client) => {
                sock[4] = 2;
                sock[52..56].copy_from_slice(&client.octets());
            }
            IpAddr::V6(client) => {
                sock[4] = 10;
                sock[56..72].copy_from_slice(&client.octets());
            }
        }
        let packet = Packet { migrating: Some(sock), ..Packet::default() };
        let position = bench.machine.run(&packet);
        prop_assert_eq!(position, arrived);
        prop_assert_eq!(bench.group.tally(position.unwrap()), (1, 1));
    }
}

#[test]
fn a_handshake_of_ipv4_on_a_dual_stack_slot_moves_by_its_ipv4_address() {
    let mut bench = Bench::new(PolicyName::SourceHash, &Weights::default());
    bench.set_eligible(&PositionSet::first_of(12));
    for last in 0..50 {
        let client = IpAddr::from([10, 0, 0, last]);
        let arrived = bench.machine.run(&opening(client, 1));
        let mut sock = vec![0; 80];
        sock[4] = 10;
        sock[52..56].copy_from_slice(&[10, 0, 0, last]);
        let packet = Packet {
            migrating: Some(sock),
            ..Packet::default()
        };
        assert_eq!(bench.machine.run(&packet), arrived);
        let mapped = IpAddr::from(Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, last.into()]));
        assert_eq!(bench.machine.run(&opening(mapped, 1)), arrived);
    }
}

#[test]
fn a_choice_costs_the_same_for_2_positions_and_for_256() {
    for policy in [
        PolicyName::RoundRobin,
        PolicyName::Weighted,
        PolicyName::Random,
    ] {
        let steps = [2, 256].map(|count| {
            let mut bench = Bench::new(policy, &Weights::default());
            bench.set_eligible(&PositionSet::first_of(count));
            bench
                .machine
                .run(&opening([192, 0, 2, 1].into(), 1))
                .unwrap();
            bench.machine.steps
        });
        assert_eq!(steps[0], steps[1], "{policy}");
    }
}

#[test]
fn beyond_so_many_positions_a_part_of_them_is_compared_in_turn() {
    let count = u32::try_from(3 * SCAN_MAX).unwrap();
    let all = PositionSet::first_of(count);
    for policy in [PolicyName::LeastConnections, PolicyName::Fastest] {
        let mut bench = Bench::new(policy, &Weights::default());
        bench.set_eligible(&all);
        let mut pure = policy.create();
        let mut loads = vec![Load::default(); usize::try_from(count).unwrap()];
        for _ in 0..2 * count {
            let field = Field::new(&all, &loads, ClientHash::UNKNOWN);
            let expected = pure.choose(&field).unwrap().0;
            let chosen = bench.machine.run(&opening([192, 0, 2, 1].into(), 1));
            assert_eq!(chosen, Some(expected), "{policy}");
            let load = &mut loads[usize::try_from(expected).unwrap()];
            (load.open, load.outstanding) = (load.open + 1, load.outstanding + 1);
        }
        assert!(loads.iter().all(|load| load.open == 2), "{policy}");
    }
}

#[test]
fn the_program_takes_down_since_when_there_is_something_to_answer() {
    let mut bench = Bench::new(PolicyName::Fastest, &Weights::default());
    bench.set_eligible(&PositionSet::first_of(1));
    // Closed 5 of 5 that were given, and answered within 2 ms.
    bench.set_row(0, (5, [5, 0, 0, 0, 0, 2_000, START_TICK, 0]));
    for (elapsed, response_us) in [(1_000, 2_000), (1_001, 2_000), (1_030, 30 << 10)] {
        bench.machine.nanoseconds = u64::from(START_TICK + elapsed) << 20;
        bench
            .machine
            .run(&opening([192, 0, 2, 1].into(), 1))
            .unwrap();
        let load = bench.board.load_at(0, START_TICK + elapsed);
        assert_eq!(load.response_us, response_us, "the first still waits");
    }
}
