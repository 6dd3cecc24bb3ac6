//! By whom a listener's slots are chosen: an eBPF program, or, without the privilege for one, a
//! classic BPF program that draws at random or by client address.
//!
//! The two differ in what becomes of a queue whose slot is closed: the eBPF program moves it to other
//! positions; without it, a queue stays where it is until a worker inherits the slot.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;

use phalanx_core::ids::Position;
use phalanx_core::policy::{Plan, PolicyName};
use phalanx_sys::steering::{
    self, ClassicGroup, Draw, Group, Member, Rule, Steering, SteeringError,
};

/// The socket is in another map (`bpf(2)`, `BPF_MAP_TYPE_REUSEPORT_SOCKARRAY`).
const EBUSY: i32 = 16;

/// Who chooses.
#[derive(Debug)]
pub(super) enum Steer {
    /// The program of `bpf/`.
    Program(Group),
    /// A classic program: no turns, no loads, no migration.
    Classic(ClassicGroup),
}

/// A socket's name for a classic program; eBPF programs know slots by position.
pub(super) type Name = Option<Member>;

impl Steer {
    /// Steers the group whose one socket is `first`.
    pub(super) fn new(
        steering: Option<&Steering>,
        first: BorrowedFd<'_>,
    ) -> io::Result<(Self, Name)> {
        if let Some(steering) = steering {
            let group = steering.attach(first).map_err(io::Error::other)?;
            return Ok((Self::Program(group), None));
        }
        let (group, member) = ClassicGroup::new(first)?;
        Ok((Self::Classic(group), Some(member)))
    }

    /// A further socket has begun to listen.
    pub(super) fn joins(&mut self, socket: BorrowedFd<'_>) -> io::Result<Name> {
        match self {
            Self::Program(group) => {
                group.attach_again(socket).map_err(io::Error::other)?;
                Ok(None)
            }
            Self::Classic(group) => group.add(socket).map(Some),
        }
    }

    /// The socket is the position's from now on.
    pub(super) fn takes(&self, position: Position, socket: BorrowedFd<'_>) {
        if let Self::Program(group) = self
            && let Err(error) = group.set_slot(position.0, socket)
        {
            tracing::error!(%error, "a slot cannot be steered to");
        }
    }

    /// Whether the socket may be the position's. It may not while the program of an engine that is gone has it.
    pub(super) fn may_take(&self, position: Position, socket: BorrowedFd<'_>) -> io::Result<bool> {
        let Self::Program(group) = self else {
            return Ok(true);
        };
        match group.set_slot(position.0, socket) {
            Ok(()) => {
                self.clears(position);
                Ok(true)
            }
            Err(SteeringError::StoreSlot { source, .. })
                if source.raw_os_error() == Some(EBUSY) =>
            {
                Ok(false)
            }
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// The position has no slot any more.
    pub(super) fn clears(&self, position: Position) {
        if let Self::Program(group) = self
            && let Err(error) = group.clear_slot(position.0)
        {
            tracing::error!(%error, "a slot cannot be taken out");
        }
    }

    /// Connections from this source port go to the socket, which is no position's, until [`Steer::end_probe`].
    pub(super) fn probe(
        &mut self,
        port: u16,
        socket: BorrowedFd<'_>,
        name: Name,
    ) -> io::Result<()> {
        match (self, name) {
            (Self::Program(group), _) => group.probe(port, socket).map_err(io::Error::other),
            (Self::Classic(group), Some(member)) => group.probe(port, member),
            (Self::Classic(_), None) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    pub(super) fn end_probe(&mut self) {
        let ended = match self {
            Self::Program(group) => group.end_probe().map_err(io::Error::other),
            Self::Classic(group) => group.end_probe(),
        };
        if let Err(error) = ended {
            tracing::error!(%error, "a probe cannot be ended");
        }
    }

    /// The socket is wanted no more; its descriptors are closed by who holds them.
    pub(super) fn leaves(&mut self, name: Name) {
        if let (Self::Classic(group), Some(member)) = (self, name) {
            group.remove(member);
        }
    }

    /// Does what waits in a slot that is closed move to others?
    pub(super) fn migrates(&self) -> bool {
        matches!(self, Self::Program(_))
    }

    pub(super) fn last_turn(&self) -> Option<u32> {
        match self {
            Self::Program(group) => group.last_turn(),
            Self::Classic(_) => None,
        }
    }

    /// What the position has received; nothing where nobody counts.
    pub(super) fn received(&self, position: Position) -> Option<u64> {
        match self {
            Self::Program(group) => {
                let tally = group.tally(position.0);
                Some(tally.chosen.saturating_add(tally.migrated))
            }
            Self::Classic(_) => None,
        }
    }

    /// New connections that were chosen for the position; nothing where nobody counts.
    pub(super) fn chosen(&self, position: Position) -> Option<u64> {
        match self {
            Self::Program(group) => Some(group.tally(position.0).chosen),
            Self::Classic(_) => None,
        }
    }

    /// What it does instead of the policy, where it cannot do that.
    pub(super) fn drawn_by(&self, policy: PolicyName) -> Option<&'static str> {
        match (self, policy) {
            (Self::Program(_), _) => None,
            (Self::Classic(_), PolicyName::SourceHash | PolicyName::Random | PolicyName::None) => {
                None
            }
            (Self::Classic(_), PolicyName::Weighted) => Some("random by weight"),
            (Self::Classic(_), _) => Some("random"),
        }
    }

    /// Puts a plan in force. `names` are those of the positions' slots.
    pub(super) fn switch(&mut self, plan: &Plan, names: &BTreeMap<Position, Name>) {
        let switched = match self {
            Self::Program(group) => group
                .switch(&steering::Plan {
                    rule: rule_of(plan.policy()),
                    turns: plan.turns(),
                    eligible: plan.eligible().words(),
                    start: plan.start(),
                })
                .map_err(io::Error::other),
            Self::Classic(group) => group.share(draw_of(plan.policy()), &shares(plan, names)),
        };
        if let Err(error) = switched {
            tracing::error!(%error, "the kernel keeps the plan before");
        }
    }
}

/// How often each slot has a turn in a round.
fn shares(plan: &Plan, names: &BTreeMap<Position, Name>) -> Vec<(Member, u32)> {
    let mut turns: BTreeMap<Position, u32> = BTreeMap::new();
    for &turn in plan.turns() {
        *turns.entry(Position(u32::from(turn))).or_default() += 1;
    }
    turns
        .into_iter()
        .filter_map(|(position, count)| Some(((*names.get(&position)?)?, count)))
        .collect()
}

/// The eBPF program's rule for a policy.
fn rule_of(policy: PolicyName) -> Rule {
    match policy {
        PolicyName::LeastConnections => Rule::LeastConnections,
        PolicyName::Fastest => Rule::Score,
        PolicyName::PowerOfTwo => Rule::TwoChoices,
        PolicyName::SourceHash => Rule::Source,
        PolicyName::Random => Rule::Chance,
        PolicyName::None => Rule::Connection,
        PolicyName::RoundRobin | PolicyName::Weighted | _ => Rule::Turns,
    }
}

/// The nearest that a classic program can do.
fn draw_of(policy: PolicyName) -> Draw {
    match policy {
        PolicyName::SourceHash => Draw::Source,
        PolicyName::RoundRobin
        | PolicyName::Weighted
        | PolicyName::LeastConnections
        | PolicyName::Fastest
        | PolicyName::PowerOfTwo
        | PolicyName::Random
        | PolicyName::None
        | _ => Draw::Chance,
    }
}
