//! What is known of the workers' load: the scoreboard, who sits where, and who has to be asked.
//!
//! A Rust worker asks for the scoreboard and counts for itself. A Node worker cannot reach shared
//! memory; its preloaded script tells its load over the channel, but only while a policy goes by it.
//! Of a worker that does neither, the length of its slot's queue stands in, or the connections that it
//! was offered and has not accepted yet.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::policy::{Load, Loads};
use phalanx_core::wire::{LoadReport, outgoing};
use phalanx_sys::scoreboard::{Lane, Scoreboard, Seat};

use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::state::Hub;
use crate::settings::DispatchChoice;

/// How the load of a worker becomes known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::primary) enum Source {
    /// It says nothing.
    #[default]
    Unknown,
    /// It writes to the scoreboard.
    Own,
    /// It tells over the channel; `closed` is what it told last.
    Told { closed: u32 },
}

/// A worker asks for the scoreboard once, or once for each of its first listeners where they open at once.
const MOST_BOARDS: u32 = 32;

/// A worker's place at the scoreboard.
#[derive(Debug)]
pub(in crate::primary) struct LoadSource {
    lane: Lane,
    seat: Option<Seat>,
    pub(in crate::primary) source: Source,
    /// How often it asked for the scoreboard; each answer is a descriptor until it is read.
    boards: u32,
}

impl LoadSource {
    /// At the other half of the row than a predecessor that still lives.
    pub(in crate::primary) fn new(predecessor: Option<&Self>) -> Self {
        Self {
            lane: predecessor.map_or(Lane::Even, |old| old.lane.other()),
            seat: None,
            source: Source::Unknown,
            boards: 0,
        }
    }
}

impl LoadSource {
    /// Which half of the row a spare has that moves to a position where this predecessor may still live.
    pub(super) fn moved(predecessor: Option<&Self>) -> Lane {
        predecessor.map_or(Lane::Even, |old| old.lane.other())
    }

    /// It sits there from now on; which half that is, as workers are told it.
    pub(super) fn move_to(&mut self, lane: Lane) -> u8 {
        self.lane = lane;
        self.seat = None;
        u8::from(lane == Lane::Odd)
    }
}

/// The scoreboard, as policies of handoff read it.
pub(in crate::primary) struct Board<'a>(pub(in crate::primary) Option<&'a Scoreboard>);

impl Loads for Board<'_> {
    fn load(&self, position: Position) -> Load {
        let Some(board) = self.0 else {
            return Load::default();
        };
        let load = board.load(position.0);
        Load {
            open: load.open,
            outstanding: load.outstanding,
            response_us: load.response_us,
        }
    }
}

impl Hub {
    /// The scoreboard: that of the eBPF program where there is one, else memory of its own.
    pub(in crate::primary) fn board(&mut self) -> io::Result<Arc<Scoreboard>> {
        if let Some(board) = &self.board {
            return Ok(Arc::clone(board));
        }
        let may_steer = matches!(self.dispatch, DispatchChoice::Auto | DispatchChoice::Kernel);
        let steered = match may_steer.then(|| self.steering()) {
            Some(Ok(steering)) => Some(Arc::clone(steering.scoreboard())),
            Some(Err(_)) | None => None,
        };
        let board = match steered {
            Some(board) => board,
            None => Arc::new(Scoreboard::anonymous()?),
        };
        self.board = Some(Arc::clone(&board));
        Ok(board)
    }

    /// A Rust worker asks for the scoreboard.
    pub(in crate::primary) fn board_asked(&mut self, worker: WorkerId, seq: u64) {
        if let Some(state) = self.workers.get_mut(&worker) {
            state.load_source.boards = state.load_source.boards.saturating_add(1);
            if state.load_source.boards > MOST_BOARDS {
                return self.complain(worker, "asked for the scoreboard again and again");
            }
        }
        let copy = self.board().and_then(|board| board.duplicate());
        let (Ok(copy), Some(state)) = (copy, self.workers.get_mut(&worker)) else {
            // It goes without when no answer comes.
            return;
        };
        state.load_source.source = Source::Own;
        let lane = u8::from(state.load_source.lane == Lane::Odd);
        self.answer(worker, |number| Outgoing {
            bytes: outgoing::board(seq, lane, number),
            handle: Some(Arc::new(copy)),
        });
    }

    /// A worker told its load.
    pub(in crate::primary) fn load_told(&mut self, worker: WorkerId, report: LoadReport) {
        if !self.needs_load() {
            // It was under way when the policy changed: it must not count as told again.
            return;
        }
        let Ok(board) = self.board() else { return };
        let waiting = self.waiting_of(worker);
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        let position = state.cell.position().0;
        let load_source = &mut state.load_source;
        let seat = load_source
            .seat
            .take()
            .or_else(|| board.seat(position, load_source.lane));
        let Some(seat) = seat else { return };
        let before = match load_source.source {
            Source::Told { closed } => closed,
            Source::Unknown | Source::Own => {
                // What was counted before anybody took anything off says nothing.
                board.set_open(position, report.open.saturating_add(waiting));
                report.closed
            }
        };
        let slowest = u64::from(report.slowest_us);
        seat.report(
            report.open,
            report.closed.wrapping_sub(before),
            report.outstanding,
            (slowest > 0).then(|| Duration::from_micros(slowest)),
        );
        load_source.source = Source::Told {
            closed: report.closed,
        };
        load_source.seat = Some(seat);
    }

    /// Has a worker that does not count for itself tell its load, or stop telling it.
    pub(in crate::primary) fn watch_load_of(&mut self, worker: WorkerId, wanted: bool) {
        let Some(state) = self.workers.get_mut(&worker) else {
            return;
        };
        if state.load_source.source == Source::Own {
            return;
        }
        if !wanted {
            state.load_source.source = Source::Unknown;
        }
        let channel = state.channel.as_mut();
        if let Some(channel) = channel.filter(|channel| channel.has_room_for_answers()) {
            let number = channel.next_seq();
            channel.queue(Outgoing {
                bytes: outgoing::watch_load(wanted, number),
                handle: None,
            });
        }
    }

    /// Does a policy go by the load?
    pub(in crate::primary) fn needs_load(&self) -> bool {
        self.policy.needs_load() || self.custom_policy.is_some()
    }

    /// The worker is gone: what it had open counts no more.
    pub(in crate::primary) fn forget_load(&self, worker: WorkerId) {
        if let (Some(board), Some(state)) = (&self.board, self.workers.get(&worker)) {
            board.worker_gone(state.cell.position().0, state.load_source.lane);
        }
    }
}
