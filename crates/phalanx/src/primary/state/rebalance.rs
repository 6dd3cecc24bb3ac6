//! Rebalancing, carried out: asks workers what they hold, has those that hold more than their share end connections politely, and
//! keeps newcomers away from them meanwhile. What is decided is in `phalanx_core::dispatch::rebalance`.

use std::collections::BTreeSet;
use std::time::Duration;

use phalanx_core::clock::Moment;
use phalanx_core::dispatch::auto_rebalance::is_worth_it;
use phalanx_core::dispatch::listener::Dispatch;
use phalanx_core::dispatch::rebalance::{Answers, Holding, Rebalance};
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::wire::{HoldReport, Shed, outgoing};
use tokio::sync::oneshot;

use crate::primary::mailbox::{Alarm, Until};
use crate::primary::sockets::outgoing::Outgoing;
use crate::primary::state::Hub;
use crate::primary::tasks::timer;
use crate::primary::{Cluster, clock};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);
/// How long the first answers are waited for: whoever gives none cannot tell.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);
/// How long later ones are: then what was told last holds.
const ANSWERS: Duration = Duration::from_secs(1);

/// The rebalance under way, if one is.
#[derive(Debug, Default)]
pub(in crate::primary) struct Rebalancing(Option<UnderWay>);

#[derive(Debug)]
struct UnderWay {
    machine: Rebalance,
    streams: Streams,
    wish: Wish,
    answers: Answers,
    asked_at: Moment,
    awaits_outcome: oneshot::Sender<Outcome>,
}

/// Nothing where it was not worth it.
type Outcome = Result<Option<Rebalanced>, RebalanceError>;

/// Who wants connections rebalanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Somebody has asked for it.
    Asked,
    /// Nobody: it is done if it is worth it.
    IfWorthIt,
}

impl Rebalancing {
    /// A worker tells what it holds.
    pub(in crate::primary) fn told(
        &mut self,
        worker: WorkerId,
        report: HoldReport,
        ack: Option<u64>,
    ) {
        if let Some(under_way) = &mut self.0 {
            under_way.answers.told(holding(worker, report), ack);
        }
    }
}

/// What a rebalance does about streams: upgraded connections, `WebSocket` above all, and server-sent events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "they stay or they do not")]
pub enum Streams {
    /// They stay where they are, and the other connections are spread around them.
    #[default]
    Stay,
    /// Those above the share are ended, too, where the worker can do so.
    End,
}

/// What a rebalance has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rebalanced {
    /// Connections that workers held above their shares when it began.
    pub above_before: u32,
    /// The same when it ended.
    pub above_after: u32,
    /// Open connections of all workers that serve.
    pub open: u32,
}

/// Why connections cannot be rebalanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RebalanceError {
    /// Workers that do not tell how many connections they have.
    #[error(
        "not every worker tells how many connections it has, and ends them politely: Node workers do without --no-preload, and programs \
         that serve with the library"
    )]
    Untold,
    /// A listener whose connections nobody distributes.
    #[error(
        "all workers accept from one socket, so nobody decides who gets the clients that come back: use another dispatch"
    )]
    Shared,
    /// One is under way.
    #[error("connections are being rebalanced already")]
    UnderWay,
}

impl Cluster {
    /// Has workers that hold more than their share of the open connections end some of them politely: `Connection: close` with
    /// the next answer, GOAWAY over HTTP/2. Clients that come back land on those who hold less. Returns when the shares are even, and
    /// after 10 s in any case. What is done about streams is said by `streams`.
    ///
    /// # Errors
    /// [`RebalanceError`].
    pub async fn rebalance(&self, streams: Streams) -> Result<Rebalanced, RebalanceError> {
        let wish = Wish::Asked;
        // Whoever asked may go away: what has begun is brought to its end all the same.
        let outcome = self.shared.hub().begin_rebalance(streams, wish)?;
        let done = outcome.await.unwrap_or(Err(RebalanceError::Untold))?;
        // INVARIANT: what was asked for is done.
        done.ok_or(RebalanceError::Untold)
    }

    /// The same without streams, if it is so uneven that it is worth it; nothing where it is not.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn rebalance_if_worth_it(&self) -> Result<Option<Rebalanced>, RebalanceError> {
        let wish = Wish::IfWorthIt;
        let outcome = self.shared.hub().begin_rebalance(Streams::Stay, wish)?;
        outcome.await.unwrap_or(Err(RebalanceError::Untold))
    }
}

impl Hub {
    /// The outcome comes when it is over.
    fn begin_rebalance(
        &mut self,
        streams: Streams,
        wish: Wish,
    ) -> Result<oneshot::Receiver<Outcome>, RebalanceError> {
        if self.rebalancing.0.is_some() {
            return Err(RebalanceError::UnderWay);
        }
        let mut listeners = self.listeners.values().filter(|listener| !listener.udp);
        if listeners.any(|listener| listener.carrier.dispatch() == Dispatch::Shared) {
            return Err(RebalanceError::Shared);
        }
        let (awaits_outcome, outcome) = oneshot::channel();
        self.rebalancing.0 = Some(UnderWay {
            machine: Rebalance::new(clock::now() - self.epoch),
            streams,
            wish,
            answers: Answers::default(),
            asked_at: clock::now(),
            awaits_outcome,
        });
        self.ask_to_keep(None);
        timer::ring(self.mailbox(), next_look(), Alarm::Balance);
        Ok(outcome)
    }

    /// Has a look. When to look again; never, when it is over.
    pub(super) fn rebalances(&mut self) -> Option<Until> {
        let Some(outcome) = self.look_at_balance() else {
            return Some(next_look());
        };
        self.set_at_share(&BTreeSet::new());
        if let Some(under_way) = self.rebalancing.0.take() {
            // Who asked may be gone.
            let _is_heard = under_way.awaits_outcome.send(outcome).is_ok();
        }
        for worker in self.serving() {
            self.shed(worker, Shed::default());
        }
        None
    }

    /// The workers that have their share of newcomers.
    fn serving(&self) -> Vec<WorkerId> {
        let all = self.workers.values();
        let serving = all.filter(|state| state.cell.is_ready() && state.cell.takes_part());
        serving.map(|state| state.cell.id).collect()
    }

    /// Looks, and has done what follows. The outcome when it is over.
    fn look_at_balance(&mut self) -> Option<Outcome> {
        let now = clock::now();
        let serving = self.serving();
        let under_way = self.rebalancing.0.as_mut()?;
        let UnderWay {
            answers,
            asked_at,
            machine,
            wish,
            ..
        } = under_way;
        answers.retain(&serving);
        if answers.are_awaited() {
            let is_first = answers.lack_a_first();
            let patience = if is_first { FIRST_ANSWERS } else { ANSWERS };
            if now < *asked_at + patience {
                return None;
            }
            if is_first {
                return Some(Err(RebalanceError::Untold));
            }
        }
        let held = answers.held();
        if std::mem::replace(wish, Wish::Asked) == Wish::IfWorthIt && !is_worth_it(&held) {
            return Some(Ok(None));
        }
        let step = machine.look(&held, now - self.epoch);
        if step.is_over {
            return Some(Ok(Some(Rebalanced {
                above_before: machine.excess(),
                above_after: Rebalance::above(&held),
                open: held
                    .iter()
                    .map(|one| one.open - one.ending.min(one.open))
                    .sum(),
            })));
        }
        self.set_at_share(&step.aside);
        self.ask_to_keep(Some(step.keep));
        None
    }

    /// Tells all who serve how many connections to keep, and asks what they hold.
    fn ask_to_keep(&mut self, keep: Option<u32>) {
        let serving = self.serving();
        let Some(under_way) = &mut self.rebalancing.0 else {
            return;
        };
        under_way.asked_at = clock::now();
        let streams = under_way.streams == Streams::End;
        for worker in serving {
            let asked = self.shed(worker, Shed { keep, streams });
            if let Some(under_way) = &mut self.rebalancing.0 {
                under_way.answers.asked(worker, asked);
            }
        }
    }

    /// Newcomers are for others than these.
    fn set_at_share(&mut self, full: &BTreeSet<WorkerId>) {
        self.ledger.set_at_share(full);
        let states = full.iter().filter_map(|worker| self.workers.get(worker));
        let positions: BTreeSet<Position> = states.map(|state| state.cell.position()).collect();
        for listener in self.listeners.values_mut() {
            if let Some(slots) = listener.carrier.slots_mut() {
                slots.set_at_share(&positions);
            }
        }
        self.pump();
    }

    /// The number of the message; none where it could not be sent.
    fn shed(&mut self, worker: WorkerId, shed: Shed) -> Option<u64> {
        let channel = self.channel_mut(worker)?;
        if !channel.has_room_for_answers() {
            return None;
        }
        let number = channel.next_seq();
        channel.queue(Outgoing {
            bytes: outgoing::shed(shed, number),
            handle: None,
        });
        Some(number)
    }
}

fn next_look() -> Until {
    Until::At(clock::now() + LOOK)
}

fn holding(worker: WorkerId, report: HoldReport) -> Holding {
    Holding {
        worker,
        open: report.open,
        ending: report.ending,
        fixed: report.fixed,
    }
}
