//! When something is looked at next: again and again, or never.

use std::time::Duration;

use phalanx_core::clock::Moment;

use crate::primary::clock;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pulse {
    interval: Duration,
    next: Option<Moment>,
}

impl Pulse {
    /// The first look is due after one interval; where it is not on, none ever is.
    pub(super) fn new(interval: Duration, is_on: bool) -> Self {
        let next = is_on.then(|| clock::now() + interval);
        Self { interval, next }
    }

    /// Waits for the next look.
    pub(super) async fn is_due(&self) {
        match self.next {
            Some(next) => clock::sleep_until(next).await,
            None => std::future::pending().await,
        }
    }

    /// A look begins: the next one is due an interval from now.
    pub(super) fn begin(&mut self) {
        self.next = self.next.map(|_| clock::now() + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primary::clock::by_hand::ByHand;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn a_look_is_due_an_interval_after_the_one_before_began() {
        let hand = ByHand::new();
        let mut pulse = Pulse::new(SECOND, true);
        hand.pass(SECOND * 3).await;
        pulse.is_due().await;
        pulse.begin();
        let next = tokio::spawn(async move { pulse.is_due().await });
        hand.pass(SECOND / 2).await;
        assert!(!next.is_finished());
        hand.pass(SECOND / 2).await;
        assert!(next.is_finished());
        let never = Pulse::new(SECOND, false);
        let never = tokio::spawn(async move { never.is_due().await });
        hand.pass(SECOND * 3).await;
        assert!(!never.is_finished());
    }
}
