//! Kills a worker, and notes what it had in service.
//!
//! The worker is stopped before it is killed, so it accepts nothing between the look at its connections and its
//! death: what it had is known exactly. All of it happens in a thread of its own, while the clients go on.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use phalanx_sys::clock;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpgid, kill_process_group, pidfd_open, pidfd_send_signal,
};

use super::session::Session;
use super::sockets::Group;

/// How long a worker may stand still before it is killed: its clients wait meanwhile, and that is no fault of its.
const STILL_LIMIT: Duration = Duration::from_secs(2);

/// Kills the worker with this pid; the how manieth victim it is. Where the machine is too busy to see in time what the worker has,
/// it goes on, and lives.
///
/// # Errors
/// Why it was not killed, as a line for people; or that what it had could not be seen.
pub(super) fn kill(pid: u32, number: u32, session: &Session) -> Result<(), String> {
    let cannot = |error: io::Error| format!("cannot kill a worker: {error}");
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let raw = raw.ok_or("a worker without a pid")?;
    let worker = pidfd_open(raw, PidfdFlags::empty()).map_err(|errno| cannot(errno.into()))?;
    let leads = getpgid(Some(raw)).is_ok_and(|group| group == raw);
    let signal = |signal| {
        let sent = if leads {
            kill_process_group(raw, signal)
        } else {
            pidfd_send_signal(&worker, signal)
        };
        sent.map_err(|errno| cannot(errno.into()))
    };
    let group = Group::of(pid).map_err(cannot)?;
    let limit = clock::now() + STILL_LIMIT;
    signal(Signal::STOP)?;
    let seen = until_still(&group, limit).and_then(|()| group.clients());
    // Whatever was seen, nobody is left stopped.
    if clock::now() > limit {
        signal(Signal::CONT)?;
        return Err(
            "the machine is too busy to see what a worker has: it was not killed".to_owned(),
        );
    }
    let clients = seen.as_ref().map(Clone::clone).unwrap_or_default();
    session.account().will_kill(number, session.now(), clients);
    signal(Signal::KILL)?;
    seen.map(drop)
        .map_err(|error| format!("cannot see the connections of a worker: {error}"))
}

/// Waits until a group that was told to stop has done so.
fn until_still(group: &Group, limit: Instant) -> io::Result<()> {
    while !group.stands_still() {
        if clock::now() > limit {
            return Err(io::ErrorKind::TimedOut.into());
        }
        thread::yield_now();
    }
    Ok(())
}
