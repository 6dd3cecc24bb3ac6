//! Workers that are adopted by interception: their bind(2) and listen(2) wait for an answer.
//!
//! One task a worker receives its calls and answers them, in turn. Whatever could take time — looking
//! into the worker, planting a socket — happens on a thread that may block; what the answer is to be is
//! decided by the state (`state/intercept`), which blocks nowhere. So a worker can hold up itself and no one else.
//!
//! A call that is not answered, for whatever reason, passes: the worker is never left waiting.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};

use phalanx_core::ids::WorkerId;
use phalanx_sys::intercept::{Act, Call, Interception, Next, Unlink};
use phalanx_sys::process::Pid;
use tokio::task::spawn_blocking;

use crate::primary::cell::Cell;
use crate::primary::mailbox::{Decision, Mailbox, Question, Verdict};
use crate::primary::release::node_line;
use crate::primary::tasks::{program, trial};
use crate::watched::watch;

/// Receives and answers the calls of a worker until nobody is left who could call.
pub(in crate::primary) fn follow(
    mailbox: Mailbox,
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
                    if !answer(&mailbox, &worker, *call, question).await {
                        return;
                    }
                }
                Ok(Received::Unlink(unlink)) => {
                    let Some(primary) = mailbox.open() else {
                        return;
                    };
                    if primary.keeps_file(unlink.file()) {
                        unlink.succeed();
                    }
                }
                Ok(Received::Passed) => {}
                Ok(Received::Hidden) => warn_hidden(&mailbox, worker.id),
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
    Unlink(Unlink),
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
        Next::Unlink(unlink) => Received::Unlink(unlink),
        Next::Passed => Received::Passed,
        Next::Hidden => Received::Hidden,
        Next::Nothing => Received::Nothing,
        Next::Ended => Received::Ended,
    })
}

fn examine(call: &Call) -> io::Result<Question> {
    if matches!(call.act(), Act::Listen { .. }) && !call.is_listening() {
        // The listener is going to be opened beside it.
        call.tolerate_others()?;
    }
    Ok(Question {
        act: call.act(),
        socket: call.socket_id(),
        duplicate: call.socket(),
        is_attached: None,
        key: None,
        local: call.local_address(),
        only_v6: call.is_only_v6(),
        is_listening: call.is_listening(),
        is_unix: call.is_unix(),
    })
}

/// So often a bind is decided on anew that found the address taken.
const BINDS_MAX: u32 = 3;

/// Answers a call, and tells the state what came of it. False when the cluster is gone.
async fn answer(mailbox: &Mailbox, worker: &Cell, mut call: Call, mut question: Question) -> bool {
    let caller = call.process();
    let mut tries = 0;
    let answered = loop {
        let Some(primary) = mailbox.open() else {
            return false;
        };
        let Decision { verdict, serves } = primary.decide(worker.id, &mut question);
        drop(primary);
        tracing::trace!(worker = worker.id.0, ?question, ?verdict, "a call");
        if matches!(verdict, Verdict::Wait) {
            trial::wait(mailbox).await;
            continue;
        }
        if matches!(verdict, Verdict::Prepare) {
            program::have(mailbox).await;
            if let Some(primary) = mailbox.open() {
                primary.waited_for_program(worker.id);
            }
            continue;
        }
        tries += 1;
        let (family, is_last) = (worker.pid, tries >= BINDS_MAX);
        let work = move || carry_out(call, &verdict, family, is_last);
        match spawn_blocking(work).await {
            Ok(Ok(Carried::Looked(same, is_attached))) => {
                call = *same;
                question.is_attached = Some(is_attached);
            }
            Ok(Ok(Carried::Taken(same))) => call = *same,
            Ok(Ok(Carried::Out)) => break Ok(None),
            Ok(Ok(Carried::Adopted)) => break Ok(serves),
            Ok(Err(error)) => break Err(error),
            Err(_) => return false,
        }
    };
    let Some(primary) = mailbox.open() else {
        return false;
    };
    match answered {
        Ok(None) => {}
        Ok(Some(key)) => {
            primary.serves_on(worker.id, &key);
            advise(worker.id, caller);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            let message = format!("cannot be given its listener: {error}");
            primary.error(worker.id, message);
        }
    }
    true
}

/// What came of an answer.
enum Carried {
    /// It is answered.
    Out,
    /// It is answered, and the worker has the listener's socket now.
    Adopted,
    /// It is not answered, but it is known whether something is attached to the socket.
    Looked(Box<Call>, bool),
    /// It is not answered: somebody listens on the address meanwhile, perhaps the cluster itself.
    Taken(Box<Call>),
}

/// # Errors
/// `NotFound` when the caller is gone.
fn carry_out(mut call: Call, verdict: &Verdict, family: Pid, is_last: bool) -> io::Result<Carried> {
    const IN_USE: i32 = 98;
    let heard = match verdict {
        Verdict::Pass | Verdict::Wait | Verdict::Prepare => call.pass(),
        Verdict::Look => {
            let is_attached = call.is_attached(family);
            return Ok(Carried::Looked(Box::new(call), is_attached));
        }
        // The kernel shall see whether the caller may.
        Verdict::Beside(address) if !call.may_bind_for_it(address.port()) => {
            call.tolerate_others()?;
            call.pass()
        }
        Verdict::Beside(address) => match call.bind_beside(*address) {
            Ok(()) => return Ok(Carried::Out),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_last => {
                return Ok(Carried::Taken(Box::new(call)));
            }
            Err(error) => call.fail(&error),
        },
        Verdict::InGroup(address) => match call.bind_in_group(*address) {
            Ok(()) => call.succeed(),
            Err(error) => call.fail(&error),
        },
        Verdict::Fail(error) => call.fail(error),
        Verdict::Done => {
            if !call.succeed() {
                return Err(io::ErrorKind::NotFound.into());
            }
            return Ok(Carried::Adopted);
        }
        Verdict::Plant { slot, again } => {
            // Processes that share a port among themselves (`SO_REUSEPORT`) share the slot instead.
            let is_twice = *again && !call.shares_port() && call.caller_holds(slot.as_fd());
            if is_twice {
                call.fail(&io::Error::from_raw_os_error(IN_USE))
            } else {
                return call.plant(slot.as_fd()).map(|()| Carried::Adopted);
            }
        }
    };
    if heard {
        Ok(Carried::Out)
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// Says once what is better for Node than interception.
fn advise(worker: WorkerId, caller: Pid) {
    static TOLD: OnceLock<()> = OnceLock::new();
    let Ok(program) = fs::read_link(format!("/proc/{caller}/exe")) else {
        return;
    };
    if node_line::is_node(&program) {
        TOLD.get_or_init(|| {
            tracing::warn!(
                "worker {worker} is Node in the end ({}), which phalanx could not see in the command, so it has no channel: \
                 a reload cuts connections that are kept alive, and messages do not reach it; name the script \
                 (phalanx run server.js), or what only executes Node",
                program.display()
            );
        });
    }
}

fn warn_hidden(mailbox: &Mailbox, worker: WorkerId) {
    if let Some(primary) = mailbox.open() {
        let message = "binds or listens, and this primary may not look into it: it has become another user, \
                       cannot be read (execute-only), or is not dumpable (PR_SET_DUMPABLE). Its listeners \
                       stay its own; give it one with --bind, or the primary CAP_SYS_PTRACE";
        primary.error(worker, message.to_owned());
    }
}
