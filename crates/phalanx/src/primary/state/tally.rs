//! What has been counted: connections by listener and position, answers by position. A sum outlives workers and listeners, and
//! never falls.
//!
//! Taking stock holds the hub for about a microsecond a slot; nothing of it reads files or asks workers.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use phalanx_core::dispatch::listener::Dispatch;
use phalanx_core::health::Health;
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::ledger::ListenerId;
use phalanx_sys::socket;

use super::Hub;
use super::load::Source;
use crate::primary::sockets::slots::Slots;

/// Of so many closed listeners the sums are kept by address.
const CLOSED_MAX: usize = 256;
/// What the others are summed up under: an app may listen on a new port each minute.
const OTHERS: &str = "others";

/// Sums of what is closed.
#[derive(Debug, Default)]
pub(in crate::primary) struct Tally {
    /// Positions that there ever were.
    positions: u32,
    closed: BTreeMap<String, BTreeMap<Position, u64>>,
}

impl Tally {
    pub(in crate::primary) fn has_position(&mut self, position: Position) {
        if !position.is_spare() {
            self.positions = self.positions.max(position.0.saturating_add(1));
        }
    }
}

/// All that has been counted, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) listeners: Vec<ListenerFigures>,
    pub(crate) workers: Vec<WorkerFigures>,
    /// What was answered at each position; nothing where no worker ever told.
    pub(crate) answered: BTreeMap<Position, Health>,
}

/// What has been counted of a listener; of a closed one the sums are left.
#[derive(Clone, Debug)]
pub(crate) struct ListenerFigures {
    pub(crate) address: String,
    /// Nothing of a closed one.
    pub(crate) dispatch: Option<String>,
    pub(crate) policy: Option<String>,
    /// Connections that wait for nobody in particular.
    pub(crate) queue: Option<u32>,
    pub(crate) positions: BTreeMap<Position, At>,
}

/// What a listener has at a position.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct At {
    pub(crate) connections: Option<u64>,
    pub(crate) queue: Option<u32>,
}

/// What is known of a worker without asking it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WorkerFigures {
    pub(crate) id: WorkerId,
    pub(crate) position: Position,
    /// Connections open at its position, where it tells its load.
    pub(crate) open: Option<u32>,
    pub(crate) lag: Option<std::time::Duration>,
}

impl Hub {
    pub(in crate::primary) fn figures(&self) -> Figures {
        let open = self.listeners.keys().map(|&id| self.listener_figures(id));
        let mut listeners: Vec<ListenerFigures> = open.flatten().collect();
        for (address, sums) in &self.tally.closed {
            add_closed(&mut listeners, address, sums);
        }
        let workers = self.workers.iter().map(|(&id, state)| {
            let position = state.cell.position();
            let tells = state.load_source.source != Source::Unknown;
            let board = self.board.as_ref().filter(|_| tells);
            WorkerFigures {
                id,
                position,
                open: board.map(|board| board.load(position.0).open),
                lag: state.channel.as_ref().and_then(|channel| channel.lag),
            }
        });
        let position_of = |worker| Some(self.workers.get(&worker)?.cell.position());
        Figures {
            listeners,
            workers: workers.collect(),
            answered: self.answered.by_position(position_of),
        }
    }

    fn listener_figures(&self, id: ListenerId) -> Option<ListenerFigures> {
        let listener = self.listeners.get(&id)?;
        let mut positions = BTreeMap::new();
        if let Some(slots) = listener.carrier.slots() {
            for position in self.positions() {
                let (connections, queue) = slots.figures(position);
                if connections.is_some_and(|count| count > 0) || queue.is_some() {
                    positions.insert(position, At { connections, queue });
                }
            }
        }
        if listener.carrier.dispatch() == Dispatch::Handoff {
            for (position, count) in self.ledger.accepted_at(id) {
                positions
                    .entry(position)
                    .or_insert_with(At::default)
                    .connections = Some(count);
            }
        }
        let handle = listener.one_socket().filter(|_| !listener.udp);
        let drawn = listener.carrier.slots().and_then(Slots::drawn_by);
        Some(ListenerFigures {
            address: listener.display(),
            dispatch: Some(listener.carrier.dispatch().to_string()),
            policy: drawn.map(str::to_owned),
            queue: handle.and_then(|handle| socket::queue_length(handle.as_fd()).ok()),
            positions,
        })
    }

    /// Every position that there ever was.
    fn positions(&self) -> impl Iterator<Item = Position> + use<> {
        let live = self.workers.values().map(|state| state.cell.position());
        let live = live.filter(|position| !position.is_spare());
        let beyond = live.map(|position| position.0.saturating_add(1)).max();
        (0..self.tally.positions.max(beyond.unwrap_or(0))).map(Position)
    }

    /// The listener closes: its sums are kept.
    pub(in crate::primary) fn fold_listener(&mut self, id: ListenerId) {
        let Some(figures) = self.listener_figures(id) else {
            return;
        };
        let closed = &mut self.tally.closed;
        let is_known = closed.contains_key(&figures.address);
        let address = if is_known || closed.len() < CLOSED_MAX {
            figures.address
        } else {
            OTHERS.to_owned()
        };
        let sums = figures.positions.into_iter();
        let sums = sums.filter_map(|(position, at)| Some((position, at.connections?)));
        let mut sums = sums.filter(|(_, count)| *count > 0).peekable();
        if sums.peek().is_none() {
            return;
        }
        let kept = closed.entry(address).or_default();
        for (position, count) in sums {
            let sum = kept.entry(position).or_default();
            *sum = sum.saturating_add(count);
        }
    }
}

/// Adds the sums of a closed listener to those of the one that has its address now, if there is one.
fn add_closed(listeners: &mut Vec<ListenerFigures>, address: &str, sums: &BTreeMap<Position, u64>) {
    let known = listeners.iter().position(|one| one.address == address);
    let index = known.unwrap_or_else(|| {
        listeners.push(ListenerFigures {
            address: address.to_owned(),
            dispatch: None,
            policy: None,
            queue: None,
            positions: BTreeMap::new(),
        });
        listeners.len() - 1
    });
    for (&position, &count) in sums {
        let at = listeners[index].positions.entry(position).or_default();
        at.connections = Some(at.connections.unwrap_or(0).saturating_add(count));
    }
}
