//! Faults that can be planted, one for each rule at least.

/// What the primary does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A worker that leaves stays in the choice.
    ChoosesWhoLeaves,
    /// A worker that is held back gets connections at once.
    ChoosesWhoIsHeldBack,
    /// A successor gets connections as soon as it listens, while its predecessor serves.
    ChoosesTooEarly,
    /// What a worker had not accepted when it died is forgotten.
    ForgetsOffersOfTheDead,
    /// What a worker had accepted when it died is offered again, though the worker may have answered it.
    OffersTwice,
    /// A listener closes with the last worker that holds it.
    ClosesWithItsWorker,
    /// A drain goes by a clock that stands still.
    DrainsByAStoppedClock,
    /// Nobody looks at a drain again.
    ForgetsDrains,
}

pub(crate) const FAULTS: [Fault; 8] = [
    Fault::ChoosesWhoLeaves,
    Fault::ChoosesWhoIsHeldBack,
    Fault::ChoosesTooEarly,
    Fault::ForgetsOffersOfTheDead,
    Fault::OffersTwice,
    Fault::ClosesWithItsWorker,
    Fault::DrainsByAStoppedClock,
    Fault::ForgetsDrains,
];
