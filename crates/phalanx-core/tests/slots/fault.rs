//! Faults that can be planted, one for each rule at least.

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The socket of a worker that dies is closed, whoever might inherit it.
    ClosesWithItsWorker,
    /// A queue that moves is lost.
    LosesWhatMoves,
    /// Nobody tells the table that a worker is gone.
    ForgetsTheDead,
    /// The program does not hear of who leaves.
    ChoosesWhoLeaves,
    /// A slot that nobody inherits is never given up.
    NeverGivesUp,
    /// Sockets stop listening at once.
    SettlesAtOnce,
    /// What waits where nobody accepts does not move.
    NeverMoves,
}

pub(crate) const FAULTS: [Fault; 7] = [
    Fault::ClosesWithItsWorker,
    Fault::LosesWhatMoves,
    Fault::ForgetsTheDead,
    Fault::ChoosesWhoLeaves,
    Fault::NeverGivesUp,
    Fault::SettlesAtOnce,
    Fault::NeverMoves,
];
