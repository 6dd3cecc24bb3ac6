//! What lies between the machines, as it does in the primary: who is told what, and in which order.

use std::collections::BTreeSet;
use std::time::Duration;

use phalanx_core::dispatch::drain::{self, Drain, Observed, Voice};
use phalanx_core::dispatch::listener::{Stance, Unheld, is_given_up};
use phalanx_core::dispatch::machine::{Effect, Held, Input};
use phalanx_core::dispatch::readiness::ListenerName;
use phalanx_core::dispatch::worker::Departure;
use phalanx_core::fleet::Event;
use phalanx_core::ids::{ExitStatus, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_core::policy::{ClientHash, PolicyName, Weights};
use phalanx_core::wire::{ListenRequest, Target};

use crate::fault::Fault;
use crate::judge::{Owner, Verdict};
use crate::world::{Draining, Item, Listener, World};

/// As the primary has it where no worker may take longer to leave.
const PATIENCE_MIN: Duration = Duration::from_secs(5);
/// A drain takes no longer, beside what has arrived when the app stops: an answer, and a moment for the last one.
const DRAIN_MOST: Duration = Duration::from_millis(1_500);

fn request(listener: ListenerId) -> (String, ListenRequest) {
    let port = u16::try_from(listener.0).expect("few listeners");
    let target = Target::Tcp {
        address: None,
        port,
        only_v6: false,
    };
    let request = ListenRequest {
        target,
        scope: None,
        index: 0,
        backlog: None,
        data: serde_json::Value::Null,
        key: port.to_string(),
    };
    (request.key.clone(), request)
}

impl World {
    fn step(&mut self, worker: WorkerId, input: Input) -> Verdict {
        let standing = self.standing.clone();
        let of = |worker| standing.get(&worker).copied();
        let effects = self.machine.step(worker, input, self.now, &of);
        self.do_all(effects)
    }

    fn do_all(&mut self, effects: Vec<Effect>) -> Verdict {
        for effect in effects {
            match effect {
                Effect::Serve { worker, listener } => {
                    let position = self.processes[&worker].position;
                    self.ledger.join(listener, worker, position);
                }
                Effect::HasBegun { worker } => {
                    self.process(worker).listening = true;
                    self.send(Event::Serves { worker });
                    self.pump()?;
                }
                Effect::HasProven { worker } => {
                    self.process(worker).listening = true;
                    self.stand(worker).become_ready();
                }
                Effect::Ready { worker, .. } => self.send(Event::Ready { worker }),
                Effect::Lacks { worker, lack } => self.send(Event::Lacks { worker, lack }),
                Effect::LookAt { worker, at } => self.at(at, Item::LookAt(worker)),
                Effect::LookAtLeaver { worker, at } => {
                    if !self.has_fault(Fault::ForgetsDrains) {
                        let at = if self.has_fault(Fault::DrainsByAStoppedClock) {
                            self.now + drain::LOOK
                        } else {
                            at
                        };
                        self.at(at, Item::Drain(worker));
                    }
                }
                Effect::Exclude { worker } => self.exclude(worker)?,
                Effect::Tell { worker } => {
                    self.drains.remove(&worker);
                    self.after(Duration::from_millis(1), Item::Told(worker));
                }
            }
        }
        Ok(())
    }

    pub(crate) fn look_at(&mut self, worker: WorkerId) -> Verdict {
        self.step(worker, Input::Look)
    }

    pub(crate) fn accept(&mut self, worker: WorkerId) -> Verdict {
        self.step(worker, Input::Accepted)
    }

    pub(crate) fn admit(&mut self, worker: WorkerId) -> Verdict {
        self.held_back.remove(&worker);
        self.stand(worker).admit();
        self.step(worker, Input::Admitted)
    }

    /// A worker asks for a listener and listens.
    pub(crate) fn listens(&mut self, worker: WorkerId, listener: ListenerId) -> Verdict {
        if self.standing[&worker].departure().is_some() {
            return Ok(());
        }
        if !self.listeners.contains_key(&listener) {
            let policy = PolicyName::RoundRobin.create_with(&Weights::default(), 0);
            self.ledger.add_listener(listener, policy);
            self.listeners.insert(listener, Listener::default());
        }
        let (key, request) = request(listener);
        self.machine
            .hold(worker, &key, Held::new(listener, request));
        if self.has_fault(Fault::ChoosesTooEarly) {
            let position = self.processes[&worker].position;
            self.ledger.join(listener, worker, position);
        }
        let counts = true;
        self.step(worker, Input::Listens { key, counts })?;
        self.step(worker, Input::Look)
    }

    /// A worker has closed its server.
    pub(crate) fn releases(&mut self, worker: WorkerId, listener: ListenerId) -> Verdict {
        let (key, _) = request(listener);
        let Some(held) = self.machine.let_go(worker, &key) else {
            return Ok(());
        };
        self.ledger.leave(listener, worker);
        let name = ListenerName::of_request(&held.request, &key);
        self.step(worker, Input::Closes { name })?;
        if self.machine.holders(listener).next().is_none() {
            if self.has_fault(Fault::ClosesWithItsWorker) {
                self.close(listener)?;
            } else {
                self.abandoned.insert(listener, self.now);
                self.after(self.patience(), Item::Abandoned);
            }
        }
        self.pump()
    }

    fn patience(&self) -> Duration {
        self.config.drain_timeout.max(PATIENCE_MIN)
    }

    /// What the live workers are about, as far as this listener is concerned.
    fn stances(&self, listener: ListenerId) -> Vec<Stance> {
        let all = self.processes.iter();
        let alive = all.filter(|(_, process)| process.is_alive);
        let stances = alive.map(|(&worker, process)| {
            let standing = self.standing[&worker];
            let holds = self.machine.holds(worker, listener);
            if standing.departure().is_some() || !standing.is_connected() {
                Stance::Leaving
            } else if !process.listening {
                Stance::Starting
            } else if self.machine.is_late(worker) {
                Stance::Late { holds }
            } else {
                Stance::Serving { holds }
            }
        });
        stances.collect()
    }

    pub(crate) fn look_at_abandoned(&mut self) -> Verdict {
        for (listener, since) in std::mem::take(&mut self.abandoned) {
            if self.machine.holders(listener).next().is_some() {
                continue;
            }
            let unheld = Unheld::For {
                time: self.now.saturating_sub(since),
                patience: self.patience(),
            };
            if is_given_up(self.stances(listener), unheld) {
                self.close(listener)?;
            } else {
                self.abandoned.insert(listener, since);
                self.after(self.patience() / 2, Item::Abandoned);
            }
        }
        Ok(())
    }

    /// The fleet has settled: what nobody holds, nobody will, unless somebody comes late or has gone just now.
    pub(crate) fn close_orphans(&mut self, workers: u32) -> Verdict {
        let held = self.machine.all_held();
        let all: Vec<_> = self.listeners.keys().copied().collect();
        for listener in all {
            if held.contains(&listener) {
                continue;
            }
            if is_given_up(self.stances(listener), Unheld::Settled { workers }) {
                self.close(listener)?;
            } else {
                self.abandoned.entry(listener).or_insert(self.now);
                self.after(self.patience(), Item::Abandoned);
            }
        }
        Ok(())
    }

    fn close(&mut self, listener: ListenerId) -> Verdict {
        self.expect_given_up(listener)?;
        let Some(closed) = self.listeners.remove(&listener) else {
            return Ok(());
        };
        for connection in closed.backlog {
            self.connections.goes(connection, Owner::Refused);
        }
        for connection in self.ledger.remove_listener(listener) {
            self.connections.goes(connection, Owner::Refused);
        }
        Ok(())
    }

    /// Asks a worker to leave. False when it leaves already.
    pub(crate) fn disconnect(&mut self, worker: WorkerId) -> Result<bool, String> {
        let standing = self.stand(worker);
        if !standing.is_connected() || !standing.leave(Departure::Asked) {
            return Ok(false);
        }
        let patience = self.config.drain_timeout;
        let (drain, limit) = if self.is_refusing {
            let drain = Drain::with_all(Voice::Channel, patience, self.now);
            (drain, DRAIN_MOST + patience)
        } else {
            self.exclude(worker)?;
            let drain = Drain::excluded(Voice::Channel, self.now);
            (drain, DRAIN_MOST)
        };
        let began = self.now;
        self.drains.insert(worker, Draining { began, limit });
        let effects = self.machine.departs(worker, drain, self.now);
        self.do_all(effects)?;
        Ok(true)
    }

    fn exclude(&mut self, worker: WorkerId) -> Verdict {
        if !self.has_fault(Fault::ChoosesWhoLeaves) {
            self.ledger.exclude(worker);
        }
        self.step(worker, Input::Leaves)?;
        self.pump()
    }

    /// A worker said that it leaves by its own wish.
    pub(crate) fn leaves(&mut self, worker: WorkerId) -> Verdict {
        if self.stand(worker).leave(Departure::OwnWish) {
            self.exclude(worker)?;
            self.send(Event::Leaving { worker });
        }
        Ok(())
    }

    pub(crate) fn look_at_drain(&mut self, worker: WorkerId) -> Verdict {
        let none = BTreeSet::<u32>::new();
        let arrives = |(id, listener): (&ListenerId, &Listener)| {
            let holds = self.machine.holds(worker, *id);
            holds && (!listener.backlog.is_empty() || self.ledger.has_waiting(*id))
        };
        let observed = Observed {
            arriving: self.is_refusing && self.listeners.iter().any(arrives),
            queued: false,
            handshakes: &none,
            unanswered: self.ledger.in_flight(worker) > 0,
            since_connection: self
                .last_handoff
                .get(&worker)
                .map(|&at| self.now.saturating_sub(at)),
            open: 0,
        };
        let now = if self.has_fault(Fault::DrainsByAStoppedClock) {
            self.machine.departs_since(worker).unwrap_or(self.now)
        } else {
            self.now
        };
        let standing = self.standing.clone();
        let of = |worker| standing.get(&worker).copied();
        let effects = self.machine.sees_leaver(worker, &observed, now, &of);
        if self.machine.departs_since(worker).is_none() {
            self.drains.remove(&worker);
        }
        self.do_all(effects)
    }

    /// Its channel is closed, or its process is gone: what it had not accepted goes to others.
    pub(crate) fn detach(&mut self, worker: WorkerId) -> Verdict {
        if !self.stand(worker).cut_off() {
            return Ok(());
        }
        self.machine.clear(worker);
        self.step(worker, Input::Leaves)?;
        if !self.has_fault(Fault::ForgetsOffersOfTheDead) {
            self.ledger.worker_gone(worker);
        }
        for connection in self.connections.of(Owner::Offered(worker)) {
            let listener = self.connections.owners[&connection].0;
            let is_open = self.listeners.contains_key(&listener);
            let to = if is_open {
                Owner::Waiting
            } else {
                Owner::Refused
            };
            self.connections.goes(connection, to);
        }
        self.drains.remove(&worker);
        self.send_lossy(Event::Disconnected { worker });
        self.pump()
    }

    /// The process is gone, and what it had written was read.
    pub(crate) fn exited(&mut self, worker: WorkerId, status: ExitStatus) -> Verdict {
        self.read_answers(worker)?;
        self.process(worker).is_alive = false;
        for connection in self.connections.of(Owner::Worker(worker)) {
            self.connections.goes(connection, Owner::DiedWith(worker));
            if self.has_fault(Fault::OffersTwice) {
                let listener = self.connections.owners[&connection].0;
                self.ledger.hold(listener, ClientHash::UNKNOWN, connection);
            }
        }
        self.detach(worker)?;
        self.machine.gone(worker, self.now);
        self.stand(worker).exit(status);
        self.send(Event::Exited { worker, status });
        Ok(())
    }
}
