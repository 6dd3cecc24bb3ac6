//! Looks who descends from the workers, over and over, and keeps the keeper told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use phalanx_core::ids::WorkerId;
use phalanx_sys::process;

use super::search::Search;
use super::{Trees, blocking};
use crate::keeper::{Keeper, Known, Ward};
use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::mailbox::Mailbox;

/// Between two looks at who descends from the workers, and in terms of what a look takes: with hundreds of
/// workers of a dozen threads each it may take a while.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const LOOK_SHARE: u32 = 100;
/// Between two looks at those that were started just now.
const NEWS_INTERVAL: Duration = Duration::from_millis(50);
/// How long a keeper that could not be started is not tried again.
const KEEPER_PAUSE: Duration = Duration::from_secs(10);

/// Looks at the trees until the cluster is gone.
pub(super) async fn watch(trees: Arc<Trees>, mailbox: Mailbox) {
    let mut keeping = Keeping::default();
    let mut look_at = clock::real_now() + LOOK_INTERVAL;
    loop {
        // The first worker comes before the keeper, which has nothing to keep until then.
        let changed = trees.changed.notified();
        tokio::select! {
            () = changed => {}
            () = clock::wait_until(look_at) => {}
        }
        let Some(cells) = mailbox.open().map(|primary| primary.cells()) else {
            return;
        };
        let news = std::mem::take(&mut *trees.news());
        let began = clock::real_now();
        let looked_for = (began < look_at).then_some(news);
        let is_full = looked_for.is_none();
        let all = Arc::clone(&trees);
        let work = move || keeping.look(&cells, looked_for.as_ref(), &all.ward());
        let Some(told) = blocking(work).await else {
            return;
        };
        keeping = told;
        let now = clock::real_now();
        if is_full {
            look_at = now + LOOK_INTERVAL.max(LOOK_SHARE * (now - began));
        }
        clock::wait_until(now + NEWS_INTERVAL).await;
    }
}

/// The keeper, and when it may be started again.
#[derive(Default)]
struct Keeping {
    keeper: Option<Keeper>,
    paused_until: Option<Instant>,
    search: Search,
}

impl Keeping {
    /// Learns who descends from these workers, or from all, and tells the keeper.
    fn look(mut self, cells: &[Arc<Cell>], news: Option<&BTreeSet<WorkerId>>, ward: &Ward) -> Self {
        let mut known = Known::default();
        let started = if let Some(news) = news {
            news.clone()
        } else {
            let all: Vec<_> = cells.iter().map(|cell| (cell.id, cell.pid)).collect();
            self.search.look(&all)
        };
        for cell in cells {
            let mut relatives = cell.relatives();
            if news.is_none() || started.contains(&cell.id) {
                relatives.retain(|member| member.is_alive());
            }
            if started.contains(&cell.id) {
                relatives.extend(process::descendants_of(cell.pid));
            }
            known.groups.insert(cell.pid);
            known.members.extend(relatives.iter());
        }
        self.tell(known, ward);
        self
    }

    fn tell(&mut self, known: Known, ward: &Ward) {
        let now = phalanx_sys::clock::now();
        if self.keeper.is_none() && self.paused_until.is_none_or(|until| until <= now) {
            self.paused_until = Some(now + KEEPER_PAUSE);
            self.keeper = Keeper::start(ward).unwrap_or_else(|error| {
                tracing::warn!(%error, "no keeper: descendants of workers would outlive a primary that is killed");
                None
            });
        }
        if let Some(keeper) = &mut self.keeper
            && !keeper.tell(known)
        {
            tracing::warn!("the keeper is gone; there will be another");
            self.keeper = None;
        }
    }
}
