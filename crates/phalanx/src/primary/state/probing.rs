//! The user's probe (`--probe`): every worker that serves is asked over and over, by connections that reach it alone.
//!
//! All are asked at the same time, each of them again when it has answered or its time is over: so one that is silent delays
//! nobody's question. Only to connect they take turns, because one listener can be steered to one worker at a time.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Weak};

use phalanx_core::ids::WorkerId;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::primary::Shared;
use crate::primary::state::hang::{QUESTION, serves};
use crate::primary::state::probe;

/// Asks every worker over and over.
pub(super) async fn ask_all(shared: Weak<Shared>, path: String) {
    let path: Arc<str> = path.into();
    let door = Arc::new(Mutex::new(()));
    let mut questions = JoinSet::new();
    let mut asked = BTreeSet::new();
    for turn in 1.. {
        let next = phalanx_sys::clock::now() + QUESTION;
        tokio::time::sleep_until(next.into()).await;
        while let Some(answered) = questions.try_join_next() {
            // INVARIANT: a question neither panics nor is aborted.
            if let Ok(worker) = answered {
                asked.remove(&worker);
            }
        }
        let Some(serving) = serving(&shared) else {
            return;
        };
        for worker in serving {
            if asked.insert(worker) {
                let (shared, path, door) = (shared.clone(), Arc::clone(&path), Arc::clone(&door));
                questions.spawn(async move {
                    let answer = ask(&shared, worker, &path, turn, &door).await;
                    note(&shared, worker, answer);
                    worker
                });
            }
        }
    }
}

/// Whom to ask; none when there is no primary any more.
fn serving(shared: &Weak<Shared>) -> Option<Vec<WorkerId>> {
    let shared = shared.upgrade()?;
    let hub = shared.hub();
    let serving = hub.workers.values().filter(|state| serves(&state.cell));
    Some(serving.map(|state| state.cell.id).collect())
}

async fn ask(
    shared: &Weak<Shared>,
    worker: WorkerId,
    path: &str,
    turn: usize,
    door: &Mutex<()>,
) -> io::Result<bool> {
    let stream = {
        let _turn = door.lock().await;
        probe::connect(shared, worker, turn).await?
    };
    probe::exchange(stream, path).await
}

fn note(shared: &Weak<Shared>, worker: WorkerId, answer: io::Result<bool>) {
    let Some(shared) = shared.upgrade() else {
        return;
    };
    let mut hub = shared.hub();
    match answer {
        Ok(_) => {
            hub.hang.unanswered.remove(&worker);
        }
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            hub.hang.unanswered.insert(worker);
        }
        // It could not be asked: that says nothing.
        Err(error) => tracing::debug!(worker = worker.0, %error, "cannot probe a worker"),
    }
}
