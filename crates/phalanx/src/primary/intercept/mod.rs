//! Workers that are adopted by interception: their bind(2) and listen(2) wait for an answer.
//!
//! One task a worker receives its calls and answers them, in turn. Whatever could take time — looking
//! into the worker, planting a socket — happens on a thread that may block; what the answer is to be is
//! decided by the hub (`decide`), which blocks nowhere. So a worker can hold up itself and no one else.
//!
//! A call that is not answered, for whatever reason, passes: the worker is never left waiting.

mod decide;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

use phalanx_core::ids::WorkerId;
use phalanx_sys::intercept::{Act, Call, Interception, Next};
use phalanx_sys::socket::{self, SocketId};
use tokio::task::spawn_blocking;

use super::Shared;
use super::worker::Cell;
use crate::watched::watch;
pub(super) use decide::Calls;

/// A call, as far as the hub has to know it.
#[derive(Clone, Debug)]
struct Question {
    act: Act,
    socket: SocketId,
    /// Where the socket is bound; port 0 if it is not.
    local: SocketAddr,
    only_v6: bool,
    is_listening: bool,
}

/// What is to be done about it.
#[derive(Debug)]
struct Decision {
    verdict: Verdict,
    /// The listener that the worker serves when this is done, by its key.
    serves: Option<String>,
}

#[derive(Debug)]
enum Verdict {
    /// It is none of ours.
    Pass,
    /// It may bind where others of its kind bind too.
    PassBeside,
    /// It is done already.
    Done,
    Fail(io::Error),
    /// Its socket becomes this one.
    Plant {
        slot: Arc<OwnedFd>,
        /// The worker has been given it before: it may have it open still.
        again: bool,
    },
}

/// Receives and answers the calls of a worker until nobody is left who could call.
pub(super) fn follow(
    shared: Weak<Shared>,
    worker: Arc<Cell>,
    interception: Interception,
) -> io::Result<()> {
    let watched = watch(interception.descriptor())?;
    let interception = Arc::new(interception);
    tokio::spawn(async move {
        loop {
            let Ok(mut ready) = watched.readable().await else {
                return;
            };
            let calls = Arc::clone(&interception);
            let Ok(next) = spawn_blocking(move || receive(&calls)).await else {
                return;
            };
            match next {
                Ok(Received::Call(call, question)) => {
                    if !answer(&shared, worker.id, *call, question).await {
                        return;
                    }
                }
                Ok(Received::Passed) => {}
                Ok(Received::Hidden) => warn_hidden(&shared, worker.id),
                Ok(Received::Nothing) => ready.clear_ready(),
                Ok(Received::Ended) => return,
                Err(error) => {
                    tracing::error!(worker = worker.id.0, %error, "cannot receive the calls of a worker");
                    return;
                }
            }
        }
    });
    Ok(())
}

enum Received {
    Call(Box<Call>, Question),
    Passed,
    Hidden,
    Nothing,
    Ended,
}

fn receive(interception: &Interception) -> io::Result<Received> {
    Ok(match interception.next()? {
        Next::Call(call) => match examine(&call) {
            Ok(question) => Received::Call(Box::new(call), question),
            // A socket that cannot be asked is none that could be answered for.
            Err(error) => {
                tracing::debug!(%error, "a call passes");
                Received::Passed
            }
        },
        Next::Passed => Received::Passed,
        Next::Hidden => Received::Hidden,
        Next::Nothing => Received::Nothing,
        Next::Ended => Received::Ended,
    })
}

fn examine(call: &Call) -> io::Result<Question> {
    let socket::Address::Inet(local) = socket::local_address(call.socket())? else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let is_listening = socket::is_listening(call.socket())?;
    if matches!(call.act(), Act::Listen { .. }) && !is_listening {
        // The listener is going to be opened beside it.
        call.tolerate_others()?;
    }
    Ok(Question {
        act: call.act(),
        socket: socket::socket_id(call.socket())?,
        local,
        only_v6: local.is_ipv6() && socket::is_only_v6(call.socket())?,
        is_listening,
    })
}

/// Answers a call, and tells the hub what came of it. False when the cluster is gone.
async fn answer(shared: &Weak<Shared>, worker: WorkerId, call: Call, question: Question) -> bool {
    let Some(hub) = shared.upgrade() else {
        return false;
    };
    let Decision { verdict, serves } = hub.hub().decide(worker, &question);
    drop(hub);
    tracing::trace!(worker = worker.0, ?question, ?verdict, "a call");
    let answered = spawn_blocking(move || carry_out(call, &verdict)).await;
    let Some(shared) = shared.upgrade() else {
        return false;
    };
    match answered {
        Ok(Ok(true)) => {
            if let Some(key) = serves {
                shared.hub().serves_on(worker, &key);
            }
        }
        Ok(Ok(false)) => {}
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
        Ok(Err(error)) => {
            let message = format!("cannot be given its listener: {error}");
            shared.hub().error(worker, message);
        }
        Err(_) => return false,
    }
    true
}

/// True when the worker has the listener's socket now.
///
/// # Errors
/// `NotFound` when the caller is gone.
fn carry_out(call: Call, verdict: &Verdict) -> io::Result<bool> {
    const IN_USE: i32 = 98;
    let heard = match verdict {
        Verdict::Pass => call.pass(),
        Verdict::PassBeside => {
            call.tolerate_others()?;
            call.pass()
        }
        Verdict::Fail(error) => call.fail(error),
        Verdict::Done => {
            if !call.succeed() {
                return Err(io::ErrorKind::NotFound.into());
            }
            return Ok(true);
        }
        Verdict::Plant { slot, again } => {
            // Processes that share a port among themselves (`SO_REUSEPORT`) share the slot instead.
            let is_twice =
                *again && !socket::shares_port(call.socket())? && call.caller_holds(slot.as_fd());
            if is_twice {
                call.fail(&io::Error::from_raw_os_error(IN_USE))
            } else {
                return call.plant(slot.as_fd()).map(|()| true);
            }
        }
    };
    if heard {
        Ok(false)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn warn_hidden(shared: &Weak<Shared>, worker: WorkerId) {
    if let Some(shared) = shared.upgrade() {
        let message = "has become another user, and this primary may not look into it: its listeners \
                       stay its own; give it one with --bind";
        shared.hub().error(worker, message.to_owned());
    }
}
