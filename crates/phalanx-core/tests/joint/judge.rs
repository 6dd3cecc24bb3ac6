//! The rules, and who looks after them.

use std::collections::BTreeMap;

use phalanx_core::dispatch::machine::Share;
use phalanx_core::ids::WorkerId;
use phalanx_core::ledger::ListenerId;

use crate::world::World;

pub(crate) type Verdict = Result<(), String>;

/// Who has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The kernel: it has not been accepted.
    Backlog,
    /// The ledger: it waits to be offered again.
    Waiting,
    /// It is offered to this worker.
    Offered(WorkerId),
    /// This worker has accepted it.
    Worker(WorkerId),
    /// It was answered.
    Answered,
    /// It ended with the worker that had accepted it, which crashed or was killed.
    DiedWith(WorkerId),
    /// Its listener was given up by the app, or the app was killed.
    Refused,
}

/// All connections there ever were.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    pub(crate) owners: BTreeMap<u64, (ListenerId, Owner)>,
}

impl Connections {
    pub(crate) fn arrives(&mut self, listener: ListenerId) -> u64 {
        let number = u64::try_from(self.owners.len()).expect("a short history");
        self.owners.insert(number, (listener, Owner::Backlog));
        number
    }

    pub(crate) fn goes(&mut self, connection: u64, to: Owner) {
        if let Some((_, owner)) = self.owners.get_mut(&connection) {
            *owner = to;
        }
    }

    pub(crate) fn owner(&self, connection: u64) -> Option<Owner> {
        self.owners.get(&connection).map(|(_, owner)| *owner)
    }

    pub(crate) fn of(&self, owner: Owner) -> Vec<u64> {
        let all = self.owners.iter().filter(|(_, (_, one))| *one == owner);
        all.map(|(&number, _)| number).collect()
    }

    /// Neither answered nor ended in a way that may be.
    pub(crate) fn open(&self) -> Vec<(u64, Owner)> {
        let open = self.owners.iter().filter(|(_, (_, owner))| match owner {
            Owner::Answered | Owner::DiedWith(_) | Owner::Refused => false,
            Owner::Backlog | Owner::Waiting | Owner::Offered(_) | Owner::Worker(_) => true,
        });
        open.map(|(&number, (_, owner))| (number, *owner)).collect()
    }
}

impl World {
    /// Rule 1: the ledger knows of each connection what its clients would find, and no dead worker has any.
    pub(crate) fn expect_one_owner(&self) -> Verdict {
        let mut offered: BTreeMap<WorkerId, usize> = BTreeMap::new();
        let mut waiting = 0;
        for (number, (_, owner)) in &self.connections.owners {
            match *owner {
                Owner::Waiting => waiting += 1,
                Owner::Offered(worker) => *offered.entry(worker).or_default() += 1,
                Owner::Worker(worker) if !self.processes[&worker].is_alive => {
                    return Err(format!(
                        "connection {number} belongs to {worker}, which is dead"
                    ));
                }
                Owner::Worker(_)
                | Owner::Backlog
                | Owner::Answered
                | Owner::DiedWith(_)
                | Owner::Refused => {}
            }
        }
        if waiting != self.ledger.waiting() {
            let known = self.ledger.waiting();
            return Err(format!(
                "{waiting} connections wait, and the ledger has {known}"
            ));
        }
        for (&worker, process) in &self.processes {
            let (has, known) = (
                offered.get(&worker).copied().unwrap_or(0),
                self.ledger.in_flight(worker),
            );
            if has != known || (has > 0 && !process.is_alive) {
                return Err(format!(
                    "{has} are on their way to {worker}, and the ledger has {known}"
                ));
            }
        }
        Ok(())
    }

    /// Rule 2: looked at when a connection goes to a worker.
    pub(crate) fn expect_may_have(&self, worker: WorkerId, listener: ListenerId) -> Verdict {
        let standing = self.standing[&worker];
        if !standing.takes_part() || !standing.is_connected() {
            return Err(format!("{worker} gets a connection: {standing:?}"));
        }
        if self.held_back.contains(&worker) {
            return Err(format!("{worker} gets a connection while it is held back"));
        }
        let mut held = self.machine.held(worker);
        if !held.any(|(_, held)| held.listener == listener && held.share == Share::Serves) {
            return Err(format!(
                "{worker} gets a connection of a listener that it does not serve"
            ));
        }
        let position = self.processes[&worker].position;
        let mut others = self.processes.iter().filter(|(other, process)| {
            **other != worker && process.position == position && process.is_alive
        });
        let serves = |other: &WorkerId| {
            let other = self.standing[other];
            other.is_ready() && other.departure().is_none() && other.is_connected()
        };
        if !standing.is_ready() && others.any(|(other, _)| serves(other)) {
            return Err(format!(
                "{worker} is not ready, and gets what its predecessor is to have"
            ));
        }
        Ok(())
    }

    /// Rule 3: looked at when a listener closes. Its app has given it up: it serves, and nobody wants it.
    pub(crate) fn expect_given_up(&self, listener: ListenerId) -> Verdict {
        let mut stays = self.processes.iter().filter(|(worker, process)| {
            let standing = self.standing[worker];
            process.is_alive && standing.is_connected() && standing.departure().is_none()
        });
        if let Some((worker, _)) = stays.clone().find(|(_, process)| process.wants(listener)) {
            return Err(format!("{listener:?} closes, and {worker} wants it"));
        }
        if !stays.any(|(_, process)| process.listening) {
            return Err(format!("{listener:?} closes, and nobody serves without it"));
        }
        Ok(())
    }

    /// Rule 4.
    pub(crate) fn expect_drains_to_end(&self) -> Verdict {
        for (worker, draining) in &self.drains {
            let age = self.now.saturating_sub(draining.began);
            if age > draining.limit {
                return Err(format!("{worker} has been draining for {age:?}"));
            }
        }
        Ok(())
    }

    /// Nothing goes wrong any more, and all have had their time: all clients have been answered.
    pub(crate) fn expect_all_answered(&self) -> Verdict {
        let open = self.connections.open();
        match open.first() {
            Some((number, owner)) => Err(format!(
                "{} connections are not answered, as {number}, which is at {owner:?}",
                open.len()
            )),
            None => Ok(()),
        }
    }
}
