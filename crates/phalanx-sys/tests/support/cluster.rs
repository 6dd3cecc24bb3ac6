//! A listener with slots and a program, and clients for it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    reason = "each test takes what it needs, and one that cannot be set up has failed"
)]

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use phalanx_core::ids::Position;
use phalanx_core::policy::{Plan, PolicyName, PositionSet, Weights};
use phalanx_sys::socket::{Address, TcpOptions, accept, add_slot, bind_slots, local_address};
use phalanx_sys::steering::{self, Group, Rule, Steering};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

pub(crate) const BACKLOG: u32 = 1024;

/// The kernel's counterpart of a policy.
pub(crate) fn rule(policy: PolicyName) -> Rule {
    match policy {
        PolicyName::RoundRobin | PolicyName::Weighted => Rule::Turns,
        PolicyName::LeastConnections => Rule::LeastConnections,
        PolicyName::Fastest => Rule::Score,
        PolicyName::PowerOfTwo => Rule::TwoChoices,
        PolicyName::SourceHash => Rule::Source,
        PolicyName::Random => Rule::Chance,
        _ => Rule::Connection,
    }
}

/// Steering, or a loud word why there is none.
pub(crate) fn steering() -> Option<Steering> {
    match Steering::available() {
        Ok(()) => Some(Steering::load().unwrap()),
        Err(reason) if rustix::process::geteuid().is_root() => {
            phalanx_testkit::missing!("dispatch in the kernel: {reason}");
            None
        }
        Err(reason) => {
            eprintln!("NOT RUN: dispatch in the kernel: {reason}");
            None
        }
    }
}

pub(crate) struct Cluster {
    pub(crate) steering: Steering,
    pub(crate) group: Group,
    pub(crate) slots: BTreeMap<u32, OwnedFd>,
    pub(crate) plan: Plan,
    pub(crate) address: SocketAddr,
}

impl Cluster {
    /// Positions `0..count` on loopback, all eligible; `None` where there is no steering.
    pub(crate) fn start(count: u32, policy: PolicyName, weights: &str) -> Option<Self> {
        Self::start_at("127.0.0.1:0".parse().unwrap(), count, policy, weights)
    }

    pub(crate) fn start_at(
        address: SocketAddr,
        count: u32,
        policy: PolicyName,
        weights: &str,
    ) -> Option<Self> {
        let steering = steering()?;
        let options = TcpOptions {
            backlog: BACKLOG,
            ..TcpOptions::default()
        };
        let sockets = bind_slots(address, usize::try_from(count).unwrap(), &options).unwrap();
        let Address::Inet(address) = local_address(sockets[0].as_fd()).unwrap() else {
            panic!("no internet socket");
        };
        let group = steering.attach(sockets[0].as_fd()).unwrap();
        let slots: BTreeMap<u32, OwnedFd> = (0..count).zip(sockets).collect();
        for (&position, slot) in &slots {
            group.set_slot(position, slot.as_fd()).unwrap();
        }
        let weights = if weights.is_empty() {
            Weights::default()
        } else {
            weights.parse().unwrap()
        };
        let mut cluster = Self {
            steering,
            group,
            slots,
            plan: Plan::new(policy, weights),
            address,
        };
        cluster.eligible(&(0..count).collect::<Vec<_>>());
        Some(cluster)
    }

    pub(crate) fn eligible(&mut self, positions: &[u32]) {
        let eligible: PositionSet = positions.iter().copied().map(Position).collect();
        self.plan.set_eligible(&eligible, self.group.last_turn());
        self.switch();
    }

    pub(crate) fn policy(&mut self, policy: PolicyName, weights: &str) {
        let weights = weights.parse().unwrap_or_default();
        self.plan
            .set_policy(policy, weights, self.group.last_turn());
        self.switch();
    }

    fn switch(&mut self) {
        let plan = steering::Plan {
            rule: rule(self.plan.policy()),
            turns: self.plan.turns(),
            eligible: self.plan.eligible().words(),
            start: self.plan.start(),
        };
        self.group.switch(&plan).unwrap();
    }

    /// Another slot of the group.
    pub(crate) fn further_slot(&self) -> OwnedFd {
        let member = self.slots.values().next().unwrap();
        add_slot(member.as_fd(), BACKLOG).unwrap()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    pub(crate) fn connect_times(&self, count: u32) -> Vec<TcpStream> {
        (0..count).map(|_| self.connect()).collect()
    }

    /// Where one more connection went.
    pub(crate) fn next(&self) -> u32 {
        let _client = self.connect();
        self.accept(1)[0].0
    }

    /// Accepts so many connections, wherever they are, with their positions.
    #[track_caller]
    pub(crate) fn accept(&self, count: u32) -> Vec<(u32, TcpStream)> {
        let count = usize::try_from(count).unwrap();
        let mut accepted = Vec::new();
        loop {
            for (&position, slot) in &self.slots {
                while let Ok(connection) = accept(slot.as_fd()) {
                    accepted.push((position, TcpStream::from(connection)));
                }
            }
            if accepted.len() >= count {
                assert_eq!(accepted.len(), count, "more than there should be");
                return accepted;
            }
            self.wait(accepted.len(), count);
        }
    }

    #[track_caller]
    fn wait(&self, accepted: usize, count: usize) {
        let mut fds: Vec<_> = self
            .slots
            .values()
            .map(|slot| PollFd::new(slot, PollFlags::IN))
            .collect();
        let limit = Timespec::try_from(Duration::from_secs(20)).unwrap();
        let ready = poll(&mut fds, Some(&limit)).unwrap();
        assert!(ready > 0, "{accepted} connections of {count} came");
    }

    /// How many of the next `count` connections each position got.
    #[track_caller]
    pub(crate) fn spread(&self, count: u32) -> Vec<u32> {
        let clients = self.connect_times(count);
        let spread = self.tally(&self.accept(count));
        drop(clients);
        spread
    }

    pub(crate) fn tally(&self, accepted: &[(u32, TcpStream)]) -> Vec<u32> {
        let span = self.slots.keys().next_back().map_or(0, |last| last + 1);
        let of = |position| accepted.iter().filter(|(at, _)| *at == position).count();
        (0..span).map(|at| u32::try_from(of(at)).unwrap()).collect()
    }

    /// What the program counted for each position.
    pub(crate) fn chosen(&self) -> Vec<u64> {
        let span = self.slots.keys().next_back().map_or(0, |last| last + 1);
        (0..span).map(|at| self.group.tally(at).chosen).collect()
    }
}

/// A client that connects from this address of the machine.
pub(crate) fn connect_from(source: IpAddr, target: SocketAddr) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

    let family = if source.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = socket(family, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((source, 0))).unwrap();
    connect(&socket, &target).unwrap();
    socket.into()
}

/// True if the other end still has the connection: nothing to read, and no reset.
pub(crate) fn is_alive(client: &TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let read = (&mut &*client).read(&mut [0]);
    client.set_nonblocking(false).unwrap();
    matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
