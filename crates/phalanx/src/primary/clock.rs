//! The primary's run-time ([`phalanx_core::clock`]), and all waiting of the primary and the supervisor.
//!
//! INVARIANT: whatever judges a worker by time takes the time from here ([`now`]), and waits here ([`sleep_until`],
//! [`timeout_at`]); a limit that is reached while the primary is stopped is none. What only paces the primary's own work
//! (a pause between two looks) goes by real time, and waits here too ([`pause`], [`wait_until`], [`within`]).
//!
//! It is one clock for the process, because the process is what is stopped. A cluster keeps it going. A test puts one in its
//! place that it moves by hand (`by_hand`), and waits for nothing.
//!
//! Not from here: stamps for people and files (`SystemTime`), how long the lock is held for one turn (`dispatch/turn.rs`),
//! the ticks by which busy pipes are read, and what is measured of this process or of an answer's way: that is real time by its
//! nature. Threads that may block have the process's clock, too.

use std::future::Future;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use phalanx_core::clock::{Moment, RunClock, TICK};

/// Gaps of this length are worth a line in the log.
const NOTABLE: Duration = Duration::from_secs(1);

static CLOCK: LazyLock<Clock> = LazyLock::new(|| Clock::new(phalanx_sys::clock::now()));

struct Clock {
    start: Instant,
    state: Mutex<RunClock>,
}

impl Clock {
    fn new(start: Instant) -> Self {
        Self {
            start,
            state: Mutex::new(RunClock::new(Duration::ZERO)),
        }
    }

    /// `real` is asked under the lock, so that no reading is older than the one before.
    fn read(&self, real: impl Fn() -> Instant) -> (MutexGuard<'_, RunClock>, Moment) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = state.read(real() - self.start);
        if let Some(gap) = reading.gap.filter(|&gap| gap >= NOTABLE) {
            tracing::warn!(
                "the primary did not run for {:.1} s: this time counts for no limit",
                gap.as_secs_f64()
            );
        }
        (state, reading.now)
    }

    fn left(&self, moment: Moment, real: impl Fn() -> Instant) -> Duration {
        self.read(real).0.left(moment)
    }
}

/// The present moment of the primary's run-time.
pub(crate) fn now() -> Moment {
    #[cfg(test)]
    if let Some(hand) = by_hand::current() {
        return hand.now();
    }
    CLOCK.read(phalanx_sys::clock::now).1
}

/// The present in real time.
pub(crate) fn real_now() -> Instant {
    #[cfg(test)]
    if let Some(hand) = by_hand::current() {
        return hand.real();
    }
    phalanx_sys::clock::now()
}

/// How long it takes at least until the primary has run until then.
fn left(moment: Moment) -> Duration {
    #[cfg(test)]
    if let Some(hand) = by_hand::current() {
        return hand.left(moment);
    }
    CLOCK.left(moment, phalanx_sys::clock::now)
}

/// Waits until the primary has run until then.
pub(crate) async fn sleep_until(moment: Moment) {
    loop {
        let left = left(moment);
        if left.is_zero() {
            return;
        }
        match real_now().checked_add(left) {
            Some(until) => wait_until(until).await,
            None => std::future::pending().await,
        }
    }
}

/// Waits for `future` until then. What has happened counts, however late it is looked at.
pub(crate) async fn timeout_at<F: Future>(moment: Moment, future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = sleep_until(moment) => None,
    }
}

/// Waits until then, in real time.
pub(crate) async fn wait_until(until: Instant) {
    #[cfg(test)]
    if let Some(hand) = by_hand::current() {
        return hand.wait_until(until).await;
    }
    tokio::time::sleep_until(until.into()).await;
}

/// Waits for so long, in real time.
pub(crate) async fn pause(time: Duration) {
    wait_until(real_now() + time).await;
}

/// Waits for `future` for so long, in real time. What has happened counts, however late it is looked at.
pub(crate) async fn within<F: Future>(time: Duration, future: F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = pause(time) => None,
    }
}

/// Keeps the clock going as long as it is needed.
pub(crate) async fn keep_while(is_needed: impl Fn() -> bool) {
    now();
    while is_needed() {
        pause(TICK).await;
        now();
    }
}

/// A clock for tests that stands still until it is moved. It is the clock of the thread that has made it, and so of all tasks of
/// a runtime of that one thread.
#[cfg(test)]
pub(crate) mod by_hand {
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use phalanx_core::clock::{Moment, TICK};
    use tokio::sync::watch;

    use super::Clock;

    thread_local! {
        static CURRENT: RefCell<Option<Arc<Hand>>> = const { RefCell::new(None) };
    }

    pub(super) fn current() -> Option<Arc<Hand>> {
        CURRENT.with_borrow(Option::clone)
    }

    pub(super) struct Hand {
        clock: Clock,
        passed: watch::Sender<Duration>,
    }

    impl Hand {
        pub(super) fn real(&self) -> Instant {
            self.clock.start + *self.passed.borrow()
        }

        pub(super) fn now(&self) -> Moment {
            self.clock.read(|| self.real()).1
        }

        pub(super) fn left(&self, moment: Moment) -> Duration {
            self.clock.left(moment, || self.real())
        }

        pub(super) fn wait_until(&self, until: Instant) -> impl Future<Output = ()> + Send + use<> {
            let (mut passed, start) = (self.passed.subscribe(), self.clock.start);
            async move {
                // It fails when the clock is gone, and then nobody waits for the test any more.
                let _is_over = passed.wait_for(|&passed| start + passed >= until).await;
            }
        }
    }

    /// The thread's clock is moved by hand as long as this lives.
    pub(crate) struct ByHand(Arc<Hand>);

    impl ByHand {
        pub(crate) fn new() -> Self {
            let hand = Arc::new(Hand {
                clock: Clock::new(phalanx_sys::clock::now()),
                passed: watch::Sender::new(Duration::ZERO),
            });
            CURRENT.set(Some(Arc::clone(&hand)));
            Self(hand)
        }

        /// Lets so much time pass while the primary runs. Whatever waits for a moment of it has run when this returns.
        pub(crate) async fn pass(&self, time: Duration) {
            let mut left = time;
            loop {
                settle().await;
                if left.is_zero() {
                    return;
                }
                let step = left.min(TICK);
                left -= step;
                self.0.passed.send_modify(|passed| *passed += step);
                self.0.now();
            }
        }
    }

    impl Drop for ByHand {
        fn drop(&mut self) {
            CURRENT.set(None);
        }
    }

    /// The tasks of this thread have their turns, one after the other, and those that they wake.
    async fn settle() {
        const TURNS: usize = 32;
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::by_hand::ByHand;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn time_that_is_waited_for_passes_by_hand() {
        let hand = ByHand::new();
        let (at, real) = (now() + SECOND, real_now() + SECOND);
        let waiting = [
            tokio::spawn(sleep_until(at)),
            tokio::spawn(wait_until(real)),
            tokio::spawn(pause(SECOND)),
        ];
        hand.pass(SECOND.saturating_sub(TICK)).await;
        assert!(waiting.iter().all(|one| !one.is_finished()));
        hand.pass(TICK).await;
        assert!(waiting.iter().all(tokio::task::JoinHandle::is_finished));
    }

    #[tokio::test]
    async fn who_waits_in_vain_waits_no_longer_than_he_may() {
        let hand = ByHand::new();
        let never = std::future::pending::<()>();
        let waiting = tokio::spawn(within(SECOND, never));
        hand.pass(SECOND).await;
        assert!(waiting.is_finished());
        let at = now() + SECOND;
        let done = timeout_at(at, async { 1 });
        assert_eq!(done.await, Some(1));
    }
}
