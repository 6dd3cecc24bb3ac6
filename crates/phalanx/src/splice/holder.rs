//! The holder: starts the engine, keeps duplicates of the descriptors without which it could not be replaced, and starts
//! another when it was killed. Workers and Node's primary do not notice: their channels have not ended.
//!
//! It understands nothing of what it keeps, reads nothing else, and has one thread that waits. The engine's socket is its
//! own, so whoever connects while there is no engine waits for the next.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use phalanx_sys::process::{self, ExitStatus, FdMapping, Process, SpawnPlan};
use serde_json::Value;

use super::CONTROL_NUMBER;
use super::hello::line;
use super::record::{Key, Record};
use crate::error::{Error, Result};

/// Tells an engine that it has a holder, and the how-many-eth it is.
pub const HELD_VARIABLE: &str = "PHALANX_HELD";
/// Where it finds its listening socket.
pub(super) const LISTENER_NUMBER: i32 = 4;
/// Where it finds the socket to its holder.
pub(super) const HOLDER_NUMBER: i32 = 5;

/// An engine that has lived for less is not worth another, after so many of them.
const SHORT_LIFE: Duration = Duration::from_millis(200);
const SHORT_LIVES_MAX: u32 = 5;
/// An engine that has closed its socket has ended, or does at once.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks while nothing is said.
const LOOK: Duration = Duration::from_hours(1);

/// Holds the engine whose command line has these words behind its verb, until it ends by itself. The abstract socket of
/// this name is opened here.
///
/// # Errors
/// [`Error::Setup`] when the engine cannot be started, or ends again and again.
pub fn hold(socket: &str, words: &[OsString]) -> Result<()> {
    let setup = |source| Error::Setup {
        what: "the engine",
        source,
    };
    let listener = SocketAddr::from_abstract_name(socket)
        .and_then(|address| UnixListener::bind_addr(&address))
        .map_err(setup)?;
    let listener = Arc::new(OwnedFd::from(listener));
    let mut kept = Kept::default();
    let mut short_lives = 0;
    for ordinal in 0_u32.. {
        let began = phalanx_sys::clock::now();
        let status = kept.serve(&listener, words, ordinal).map_err(setup)?;
        if status == ExitStatus::Code(0) {
            break;
        }
        short_lives = if began.elapsed() < SHORT_LIFE {
            short_lives + 1
        } else {
            0
        };
        let how = match status {
            ExitStatus::Code(code) => format!("has ended (code {code})"),
            ExitStatus::Signal(signal) => format!("was killed (signal {signal})"),
        };
        if short_lives > SHORT_LIVES_MAX {
            tell(&format!(
                "the engine {how}, as those before it: there is no other"
            ));
            return Err(setup(io::Error::other("it ends again and again")));
        }
        tell(&format!("the engine {how}: the next one goes on"));
    }
    Ok(())
}

fn tell(text: &str) {
    // There is nobody else to tell.
    drop(io::stderr().write_all(format!("phalanx-cluster: {text}\n").as_bytes()));
}

/// What engines have given here.
#[derive(Debug, Default)]
struct Kept(BTreeMap<Key, (Value, Option<OwnedFd>)>);

impl Kept {
    /// Starts an engine, and keeps what it gives until it ends.
    fn serve(
        &mut self,
        listener: &Arc<OwnedFd>,
        words: &[OsString],
        ordinal: u32,
    ) -> io::Result<ExitStatus> {
        let (ours, theirs) = UnixStream::pair()?;
        let plan = plan(words, ordinal, listener, theirs.into())?;
        let mut engine = process::spawn(plan).map_err(io::Error::other)?;
        // An engine that has ended already is seen below.
        if self.give(&ours).is_ok() {
            self.take(&ours)?;
        }
        drop(ours);
        ended(&mut engine)
    }

    /// Gives an engine what those before it had.
    fn give(&self, engine: &UnixStream) -> io::Result<()> {
        for (key, (what, handle)) in &self.0 {
            let put = Record::Put {
                key: key.clone(),
                what: what.clone(),
                handle: handle.is_some(),
            };
            send(engine, &line(&put)?, handle.as_ref())?;
        }
        send(engine, &line(&Record::End)?, None)
    }

    /// Takes what an engine gives, until it ends.
    fn take(&mut self, engine: &UnixStream) -> io::Result<()> {
        let (mut text, mut handles) = (Vec::new(), VecDeque::new());
        let mut room = [0; 4096];
        loop {
            let received =
                phalanx_sys::channel::receive_within(engine.as_fd(), &mut room, &mut handles, LOOK);
            match received {
                Ok(received) if received.bytes == 0 => return Ok(()),
                Ok(received) => text.extend_from_slice(&room[..received.bytes]),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error),
            }
            while let Some(end) = text.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                if let Ok(record) = serde_json::from_slice(&line) {
                    self.enter(record, &mut handles);
                }
            }
        }
    }

    fn enter(&mut self, record: Record, handles: &mut VecDeque<OwnedFd>) {
        match record {
            Record::Put { key, what, handle } => {
                let handle = handle.then(|| handles.pop_front()).flatten();
                self.0.insert(key, (what, handle));
            }
            Record::Drop { key } => drop(self.0.remove(&key)),
            Record::Forget { worker } => {
                self.0
                    .retain(|key, _| !matches!(key, Key::Worker(id, _) if *id == worker));
            }
            Record::End => {}
        }
    }
}

fn send(engine: &UnixStream, mut bytes: &[u8], mut handle: Option<&OwnedFd>) -> io::Result<()> {
    while !bytes.is_empty() {
        let with = handle.take().map(AsFd::as_fd);
        let count = phalanx_sys::channel::send(engine.as_fd(), bytes, with)?;
        bytes = &bytes[count..];
    }
    Ok(())
}

fn plan(
    words: &[OsString],
    ordinal: u32,
    listener: &Arc<OwnedFd>,
    holder: OwnedFd,
) -> io::Result<SpawnPlan> {
    let program = env::current_exe()?;
    let executable = std::fs::File::open("/proc/self/exe")?;
    let mut plan = SpawnPlan::new(PathBuf::from(&program));
    plan.executable = Some(Arc::new(OwnedFd::from(executable)));
    plan.args = [program.into(), "engine".into()].to_vec();
    plan.args.extend_from_slice(words);
    plan.env = env::vars_os().collect();
    plan.env
        .push((HELD_VARIABLE.into(), ordinal.to_string().into()));
    plan.fds = vec![
        FdMapping::null(0),
        FdMapping::null(1),
        FdMapping::inherit(2, 2),
        FdMapping::inherit(CONTROL_NUMBER, CONTROL_NUMBER),
        FdMapping::shared(Arc::clone(listener), LISTENER_NUMBER),
        FdMapping::owned(holder, HOLDER_NUMBER),
    ];
    Ok(plan)
}

/// How it ended.
fn ended(engine: &mut Process) -> io::Result<ExitStatus> {
    if !process::wait_ended(engine.as_fd(), END_LIMIT) {
        engine.signal(phalanx_sys::signal::Signal::KILL)?;
        let _ended = process::wait_ended(engine.as_fd(), END_LIMIT);
    }
    engine
        .try_reap()?
        .ok_or_else(|| io::Error::other("it does not end"))
}
