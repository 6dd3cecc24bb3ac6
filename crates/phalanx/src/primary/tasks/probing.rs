//! The user's probe (`--probe`): every worker that serves is asked over and over, by connections that reach it alone.
//!
//! All are asked at the same time, each of them again when it has answered or its time is over: so one that is silent delays
//! nobody's question. Only to connect they take turns, because one listener can be steered to one worker at a time.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use phalanx_core::ids::WorkerId;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::primary::clock;
use crate::primary::mailbox::Mailbox;
use crate::primary::tasks::hang::QUESTION;
use crate::primary::tasks::probe;

/// Asks every worker over and over.
pub(in crate::primary) async fn ask_all(mailbox: Mailbox, path: String) {
    let path: Arc<str> = path.into();
    let door = Arc::new(Mutex::new(()));
    let mut questions = JoinSet::new();
    let mut asked = BTreeSet::new();
    for turn in 1.. {
        clock::pause(QUESTION).await;
        while let Some(answered) = questions.try_join_next() {
            // INVARIANT: a question neither panics nor is aborted.
            if let Ok(worker) = answered {
                asked.remove(&worker);
            }
        }
        let Some(serving) = serving(&mailbox) else {
            return;
        };
        for worker in serving {
            if asked.insert(worker) {
                let (mailbox, path, door) = (mailbox.clone(), Arc::clone(&path), Arc::clone(&door));
                questions.spawn(async move {
                    let answer = ask(&mailbox, worker, &path, turn, &door).await;
                    note(&mailbox, worker, answer);
                    worker
                });
            }
        }
    }
}

/// Whom to ask; none when there is no primary any more.
fn serving(mailbox: &Mailbox) -> Option<Vec<WorkerId>> {
    let cells = mailbox.open()?.cells().into_iter();
    let serving = cells.filter(|cell| cell.serves());
    Some(serving.map(|cell| cell.id).collect())
}

async fn ask(
    mailbox: &Mailbox,
    worker: WorkerId,
    path: &str,
    turn: usize,
    door: &Mutex<()>,
) -> io::Result<bool> {
    let line = {
        let _turn = door.lock().await;
        probe::connect(mailbox, worker, turn).await?
    };
    probe::exchange(mailbox, worker, line, path).await
}

fn note(mailbox: &Mailbox, worker: WorkerId, answer: io::Result<bool>) {
    let Some(primary) = mailbox.open() else {
        return;
    };
    match answer {
        Ok(_) => primary.answers_probe(worker, true),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            primary.answers_probe(worker, false);
        }
        // It could not be asked: that says nothing.
        Err(error) => tracing::debug!(worker = worker.0, %error, "cannot probe a worker"),
    }
}
