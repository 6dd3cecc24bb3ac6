//! The shim: what a worker is before it is Node. It exchanges the worker's end of its channel for one of the engine's,
//! and executes Node in its place. When there is no engine, Node runs with the channel that it was given, as without
//! phalanx.

use std::collections::VecDeque;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::hello::{
    Hello, LINE_MAX, NODE_VARIABLE, POLICY_VARIABLE, SOCKET_VARIABLE, TOKEN_VARIABLE, VERSION,
    Welcome, line,
};
use crate::primary::release::node_line::{NodeRelease, PreloadBy};
use crate::primary::release::preload::node_options;
use phalanx_core::program::node_options::split_variable;
use phalanx_sys::process::{Member, Pid};

const CHANNEL_VARIABLE: &str = "NODE_CHANNEL_FD";
const MODE_VARIABLE: &str = "NODE_CHANNEL_SERIALIZATION_MODE";
const ID_VARIABLE: &str = "NODE_UNIQUE_ID";
const OPTIONS_VARIABLE: &str = "NODE_OPTIONS";

/// How long an engine that was started just now may take to listen, and any to answer. A worker that is late is better than one
/// that runs on plain Node, and a machine can be busy when all workers start.
const ENGINE_LIMIT: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(2);

/// Becomes Node, with these arguments. Returns only with the reason why it could not.
///
/// # Errors
/// As execve(2); `NotFound` when the environment does not name Node.
pub fn shim(args: impl Iterator<Item = OsString>) -> io::Error {
    let args: Vec<OsString> = args.collect();
    let Some(node) = env::var_os(NODE_VARIABLE) else {
        let reason =
            format!("{NODE_VARIABLE} is not set: this verb is for the npm package phalanx-cluster");
        return io::Error::new(io::ErrorKind::NotFound, reason);
    };
    let preload = match exchange_within() {
        Ok(preload) => preload,
        Err(error) => {
            tell(&error);
            None
        }
    };
    let own = env::var_os(OPTIONS_VARIABLE);
    let here = env::current_dir().unwrap_or_default();
    let by = NodeRelease::of(&args, own.as_deref(), &here).preload;
    let (words, options) = match (preload, by) {
        (None, _) | (_, None) => (Vec::new(), None),
        (Some(preload), Some(PreloadBy::Words)) if own.is_none() => {
            (split_variable(&preload), None)
        }
        (Some(preload), Some(_)) => (
            Vec::new(),
            Some(node_options(OsStr::new(&preload), own.as_deref(), false)),
        ),
    };
    let mut command = Command::new(&node);
    command.arg0(&node).args(words).args(&args);
    for name in [
        NODE_VARIABLE,
        POLICY_VARIABLE,
        SOCKET_VARIABLE,
        TOKEN_VARIABLE,
    ] {
        command.env_remove(name);
    }
    if let Some(options) = options {
        command.env(OPTIONS_VARIABLE, options);
    }
    command.exec()
}

/// The log is Node's standard error, and this is its only line.
fn tell(error: &io::Error) {
    use std::io::Write;
    let text = format!("phalanx-cluster: this worker runs on plain Node: {error}\n");
    // There is nobody else to tell.
    drop(io::stderr().write_all(text.as_bytes()));
}

/// As [`exchange`]; an engine that was killed in the middle of it is replaced.
fn exchange_within() -> io::Result<Option<String>> {
    let until = phalanx_sys::clock::now() + ENGINE_LIMIT;
    loop {
        let exchanged = exchange();
        let may_come = |error: &io::Error| {
            let kinds = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
            kinds.contains(&error.kind()) && phalanx_sys::clock::now() < until
        };
        match exchanged {
            Err(error) if may_come(&error) => phalanx_sys::clock::pause(RETRY),
            exchanged => return exchanged,
        }
    }
}

/// Gives the engine the channel, and puts the one that it gives in its place.
fn exchange() -> io::Result<Option<String>> {
    let text = |name| env::var(name).unwrap_or_default();
    let number = |name| text(name).parse::<u32>().map_err(|_| missing(name));
    let channel =
        i32::try_from(number(CHANNEL_VARIABLE)?).map_err(|_| missing(CHANNEL_VARIABLE))?;
    let hello = Hello {
        v: VERSION,
        token: text(TOKEN_VARIABLE),
        id: number(ID_VARIABLE)?,
        mode: text(MODE_VARIABLE),
        policy: text(POLICY_VARIABLE),
    };
    let engine = connect(&text(SOCKET_VARIABLE))?;
    let own = phalanx_sys::channel::inherited_copy(channel)?;
    phalanx_sys::channel::send(engine.as_fd(), &line(&hello)?, Some(own.as_fd()))?;
    drop(own);
    let (welcome, end) = hear(&engine)?;
    if let Some(error) = welcome.error {
        return Err(io::Error::other(error));
    }
    let end = end.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    phalanx_sys::channel::replace_inherited(channel, end.as_fd())?;
    Ok(welcome.preload)
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is missing"))
}

/// Connects to the engine of this name and process.
fn connect(named: &str) -> io::Result<UnixStream> {
    let (name, pid) = named
        .rsplit_once(':')
        .ok_or_else(|| missing(SOCKET_VARIABLE))?;
    let address = SocketAddr::from_abstract_name(name)?;
    let until = phalanx_sys::clock::now() + ENGINE_LIMIT;
    let engine = loop {
        match UnixStream::connect_addr(&address) {
            Ok(engine) => break engine,
            // It was started at the same time as this worker.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if phalanx_sys::clock::now() >= until || !is_alive(pid) {
                    return Err(io::Error::new(error.kind(), "its engine does not answer"));
                }
                phalanx_sys::clock::pause(RETRY);
            }
            Err(error) => return Err(error),
        }
    };
    // Whoever has taken the name of an engine that is gone must not get the channel.
    let credentials = phalanx_sys::socket::peer_credentials(engine.as_fd())?;
    if credentials.pid.map(|pid| pid.to_string()).as_deref() != Some(pid) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "its engine is another process",
        ));
    }
    Ok(engine)
}

fn is_alive(pid: &str) -> bool {
    let pid = pid.parse().ok().and_then(Pid::from_number);
    pid.and_then(Member::of).is_some_and(Member::is_alive)
}

fn hear(engine: &UnixStream) -> io::Result<(Welcome, Option<OwnedFd>)> {
    let (mut text, mut handles) = (Vec::new(), VecDeque::new());
    let mut room = [0; LINE_MAX];
    while !text.ends_with(b"\n") {
        let received = phalanx_sys::channel::receive_within(
            engine.as_fd(),
            &mut room,
            &mut handles,
            ENGINE_LIMIT,
        )?;
        if received.bytes == 0 || text.len() > LINE_MAX {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "its engine ended",
            ));
        }
        text.extend_from_slice(&room[..received.bytes]);
    }
    Ok((serde_json::from_slice(&text)?, handles.pop_front()))
}
