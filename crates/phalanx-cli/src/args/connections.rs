//! The options of `phalanx run` that say how connections reach the program.

use std::time::Duration;

use clap::{Args, ValueEnum};
use phalanx::{Bind, Publish, Readiness, Share};

use crate::values;

#[derive(Args, Debug)]
#[command(next_help_heading = "Connections")]
pub(crate) struct BindArgs {
    /// Open a listener before any worker runs, and pass it to each worker as an open descriptor; can be repeated
    ///
    /// ADDR is host:port, :port, [v6]:port, `unix:/path` or `unix:@name`. Programs find the listeners as
    /// systemd (`LISTEN_FDS`) or einhorn (`EINHORN_FD_COUNT`) would pass them. A Node script that listens
    /// on the same address gets the listener too.
    #[arg(long, value_name = "[NAME=]ADDR", value_parser = values::bind)]
    pub(crate) bind: Vec<Bind>,

    /// Listen on PORT when the program asks for `APP_PORT`; can be repeated. `0:*`: always on a free port
    #[arg(long, value_name = "[HOST:]PORT:APP_PORT")]
    pub(crate) publish: Vec<Publish>,

    /// Share a listener between all workers, where each worker would have its own; can be repeated
    ///
    /// `HOST:0` or `:0` names a listener on port 0: each worker has its own, unless it is the app's only listener. `unix:PATH` names a
    /// Unix path: each worker has its own, unless the command's arguments contain the path. For programs that open
    /// their listeners themselves (interception).
    #[arg(long, value_name = "[HOST]:0")]
    pub(crate) share: Vec<Share>,

    /// What proves that a worker is ready, besides having all listeners of the worker before it [default: auto]
    ///
    /// listen: it listens; if it was given open listeners, it waits for connections on one. message (or
    /// notify): it says so, by process.send('ready'), by READY=1 to `NOTIFY_SOCKET`, or to einhorn. auto: like
    /// listen, but a worker with open listeners that sends notifications must send READY=1. `http:/PATH`: it answers
    /// GET /PATH with a status from 200 to 399. exec: its program runs, which proves little.
    #[arg(long, value_name = "WHAT", value_parser = values::readiness)]
    pub(crate) ready: Option<Readiness>,

    /// Replace a ready worker that sends WATCHDOG=1 to `NOTIFY_SOCKET` less often than this
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration)]
    pub(crate) watchdog: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dispatch {
    /// The best one that works, for each listener
    #[default]
    Auto,
    /// The primary accepts connections and hands them over
    Handoff,
    /// All workers accept from one socket
    Shared,
    /// An eBPF program picks the worker: TCP only, needs root or `CAP_BPF` and `CAP_PERFMON`
    Kernel,
}

/// Who listens for the workers of a program with a primary of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Listen {
    /// The engine
    #[default]
    Engine,
    /// Node's primary, which dispatches too
    Primary,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Adopt {
    /// The one that fits the program and the options
    #[default]
    Auto,
    /// Over Node's channel: Node scripts, and programs that link the library
    Channel,
    /// By open descriptors: the listeners of --bind, as systemd and einhorn pass them
    Activation,
    /// By intercepting the sockets that it or a descendant binds: anything that listens on TCP
    Intercept,
    /// Not at all: it is supervised and gets no connections
    None,
}
