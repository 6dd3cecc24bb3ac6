//! What the kernel does with the sockets of a group: it keeps their queues, and chooses a socket for each connection.

use std::collections::{BTreeMap, BTreeSet};

use phalanx_core::dispatch::slots::{Slot, SlotGroup};
use phalanx_core::ids::Position;
use phalanx_core::policy::PositionSet;

use crate::fault::Fault;

/// A connection, by its number.
pub(crate) type Connection = u32;
/// A listening socket, by its number.
pub(crate) type Socket = u32;

/// A handshake that goes on.
#[derive(Clone, Copy, Debug)]
struct Handshake {
    connection: Connection,
    /// The socket that was chosen.
    chosen: Socket,
    /// The client is far away: it takes longer than a moment.
    is_slow: bool,
}

/// The sockets of a listener.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) migrates: bool,
    pub(crate) fault: Option<Fault>,
    /// Those whose handshake was slow.
    late: BTreeSet<Connection>,
    /// What waits in each socket that listens.
    queues: BTreeMap<Socket, Vec<Connection>>,
    handshakes: Vec<Handshake>,
    opened: Socket,
    /// The program's slots and plan.
    slots: BTreeMap<Position, Socket>,
    plan: PositionSet,
    turn: u32,
    /// What was lost with a socket.
    pub(crate) lost: Vec<Connection>,
}

impl Kernel {
    pub(crate) fn new(migrates: bool, fault: Option<Fault>) -> (Self, Socket) {
        let mut kernel = Self {
            migrates,
            fault,
            late: BTreeSet::new(),
            queues: BTreeMap::new(),
            handshakes: Vec::new(),
            opened: 0,
            slots: BTreeMap::new(),
            plan: PositionSet::new(),
            turn: 0,
            lost: Vec::new(),
        };
        let first = kernel.socket();
        (kernel, first)
    }

    pub(crate) fn socket(&mut self) -> Socket {
        self.opened += 1;
        self.queues.insert(self.opened, Vec::new());
        self.opened
    }

    /// A connection comes, and its handshake begins. Nothing if it is refused.
    pub(crate) fn arrive(&mut self, connection: Connection, is_slow: bool) -> Option<Socket> {
        let chosen = self.choose(None)?;
        if is_slow {
            self.late.insert(connection);
        }
        self.handshakes.push(Handshake {
            connection,
            chosen,
            is_slow,
        });
        Some(chosen)
    }

    /// The oldest handshake ends: the connection waits. False if there is none.
    pub(crate) fn establish(&mut self) -> bool {
        if self.handshakes.is_empty() {
            return false;
        }
        let ended = self.handshakes.remove(0);
        self.wait_in_queue(ended);
        true
    }

    /// All handshakes that are not slow end, of those that had begun with this connection.
    pub(crate) fn establish_until(&mut self, last: Connection) {
        let is_due = |next: &mut Handshake| next.connection <= last && !next.is_slow;
        let due: Vec<_> = self.handshakes.extract_if(.., is_due).collect();
        for ended in due {
            self.wait_in_queue(ended);
        }
    }

    fn wait_in_queue(&mut self, ended: Handshake) {
        match self.queues.get_mut(&ended.chosen) {
            Some(queue) => queue.push(ended.connection),
            None => self.migrate(vec![ended.connection], ended.chosen),
        }
    }

    /// The socket stops listening: a handshake is lost that ends in it in this very instant, as each may that is not slow.
    fn stop(&mut self, socket: Socket) {
        let is_lost = |next: &mut Handshake| next.chosen == socket && !next.is_slow;
        let lost = self.handshakes.extract_if(.., is_lost);
        self.lost.extend(lost.map(|handshake| handshake.connection));
    }

    /// What waits longest in the socket.
    pub(crate) fn accept(&mut self, socket: Socket) -> Option<Connection> {
        let queue = self.queues.get_mut(&socket)?;
        (!queue.is_empty()).then(|| queue.remove(0))
    }

    /// All that waits, and where.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (Socket, usize)> {
        let queues = self.queues.iter();
        let sizes = queues.map(|(&socket, queue)| (socket, queue.len()));
        sizes.filter(|&(_, waiting)| waiting > 0)
    }

    /// Sockets in which something waits whose handshake was not slow.
    pub(crate) fn waiting_in_time(&self) -> impl Iterator<Item = Socket> {
        let is_in_time = |connection: &Connection| !self.late.contains(connection);
        let queues = self.queues.iter();
        let such = queues.filter(move |(_, queue)| queue.iter().any(is_in_time));
        such.map(|(&socket, _)| socket)
    }

    /// The program's choice, or, where it knows nobody, any socket but this one.
    fn choose(&mut self, but: Option<Socket>) -> Option<Socket> {
        self.turn += 1;
        let turn = usize::try_from(self.turn).expect("a small number");
        let listens = |socket: &Socket| self.queues.contains_key(socket) && Some(*socket) != but;
        let planned = self.plan.iter();
        let planned = planned.filter_map(|position| self.slots.get(&position).copied());
        let planned: Vec<Socket> = planned.filter(listens).collect();
        let among = if planned.is_empty() {
            self.queues.keys().copied().filter(listens).collect()
        } else {
            planned
        };
        among.get(turn % among.len().max(1)).copied()
    }

    /// What has waited in a socket goes to others; what finds none is lost.
    fn migrate(&mut self, queue: Vec<Connection>, from: Socket) {
        for connection in queue {
            let loses = self.fault == Some(Fault::LosesWhatMoves);
            let to = self.choose(Some(from)).filter(|_| self.migrates && !loses);
            match to.and_then(|to| self.queues.get_mut(&to)) {
                Some(queue) => queue.push(connection),
                None => self.lost.push(connection),
            }
        }
    }
}

impl SlotGroup for Kernel {
    type Socket = Socket;

    fn migrates(&self) -> bool {
        self.migrates
    }

    fn waiting(&self, socket: &Socket) -> u32 {
        let waiting = self.queues.get(socket).map_or(0, Vec::len);
        u32::try_from(waiting).expect("a short queue")
    }

    fn is_listening(&self, socket: &Socket) -> bool {
        self.queues.contains_key(socket)
    }

    fn open(&mut self) -> Option<Socket> {
        Some(self.socket())
    }

    fn take(&mut self, position: Position, socket: &mut Socket) {
        self.slots.insert(position, *socket);
    }

    fn clear(&mut self, position: Position) {
        self.slots.remove(&position);
    }

    fn empty(&mut self, _: Option<Position>, socket: &mut Socket) {
        if self.fault == Some(Fault::NeverMoves) {
            return;
        }
        self.stop(*socket);
        let queue = self.queues.get_mut(socket).map(std::mem::take);
        self.migrate(queue.unwrap_or_default(), *socket);
    }

    fn close(&mut self, socket: Socket) {
        self.stop(socket);
        let queue = self.queues.remove(&socket);
        self.slots.retain(|_, slot| *slot != socket);
        self.migrate(queue.unwrap_or_default(), socket);
    }

    fn switch(&mut self, chosen: &PositionSet, _: &BTreeMap<Position, Slot<Socket>>) {
        if self.fault == Some(Fault::ChoosesWhoLeaves) {
            let more = chosen.iter().chain(self.plan.iter()).collect();
            self.plan = more;
        } else {
            self.plan = chosen.clone();
        }
    }
}
