//! Waits until it is time for something. What is to be done then is the state's business.

use crate::primary::clock;
use crate::primary::mailbox::{Alarm, Mailbox, Until};

/// Rings then, and again for as long as the state wants it.
pub(in crate::primary) fn ring(mailbox: Mailbox, first: Until, alarm: Alarm) {
    tokio::spawn(async move {
        let mut next = Some((first, alarm));
        while let Some((until, alarm)) = next {
            wait(until).await;
            let Some(primary) = mailbox.open() else {
                return;
            };
            next = primary.rings(alarm);
        }
    });
}

async fn wait(until: Until) {
    match until {
        Until::At(moment) => clock::sleep_until(moment).await,
        Until::Later(pause) => clock::pause(pause).await,
    }
}
