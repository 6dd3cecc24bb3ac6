//! The options of `phalanx run` that say how connections reach the program.

use std::time::Duration;

use clap::{Args, ValueEnum};
use phalanx::{Bind, Publish, Readiness, Share};

use crate::values;

#[derive(Args, Debug)]
#[command(next_help_heading = "Connections")]
pub(crate) struct BindArgs {
    /// Open a listener before any worker runs, and give it to each as an open descriptor; can be repeated
    ///
    /// ADDR is host:port, :port, [v6]:port, `unix:/path` or `unix:@name`. Programs find the listeners as
    /// systemd (`LISTEN_FDS`) or einhorn (`EINHORN_FD_COUNT`) would give them. A Node script that listens
    /// on that very address gets the listener too.
    #[arg(long, value_name = "[NAME=]ADDR", value_parser = values::bind)]
    pub(crate) bind: Vec<Bind>,

    /// Listen on PORT where the program asks for `APP_PORT`; can be repeated. `0:*`: on a free port, whatever it asks for
    #[arg(long, value_name = "[HOST:]PORT:APP_PORT")]
    pub(crate) publish: Vec<Publish>,

    /// Share a listener among all workers that would be the worker's own; can be repeated
    ///
    /// `HOST:0` or `:0` is one on port 0, which is the worker's own unless the app has no other. `unix:PATH` is one on a
    /// Unix path, which is the worker's own unless the command's arguments name the path. For programs that open
    /// their listeners themselves, by interception.
    #[arg(long, value_name = "[HOST]:0")]
    pub(crate) share: Vec<Share>,

    /// What proves that a worker serves, beside that it has the listeners of the worker before it [default: auto]
    ///
    /// listen: it listens, or, where it was given its listeners, is seen to wait for connections. message (or
    /// notify): it says so, by process.send('ready'), by READY=1 to `NOTIFY_SOCKET`, or to einhorn. auto: as
    /// listen; of one that was given its listeners and says anything, only what it says. `http:/PATH`: it answers
    /// GET /PATH with a status from 200 to 399. exec: that its program runs, which proves little.
    #[arg(long, value_name = "WHAT", value_parser = values::readiness)]
    pub(crate) ready: Option<Readiness>,

    /// End and replace a ready worker that says WATCHDOG=1 to `NOTIFY_SOCKET` less often than this
    #[arg(long, value_name = "TIME", value_parser = values::positive_duration)]
    pub(crate) watchdog: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dispatch {
    /// The best that works for each listener
    #[default]
    Auto,
    /// The primary accepts and passes connections on
    Handoff,
    /// All workers accept from one socket
    Shared,
    /// An eBPF program picks the worker: TCP only, needs root or `CAP_BPF` and `CAP_PERFMON`
    Kernel,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Adopt {
    /// What fits the program and the options
    #[default]
    Auto,
    /// By Node's channel: Node scripts, and programs that link the library
    Channel,
    /// By open descriptors: the listeners of --bind, as systemd and einhorn give them
    Activation,
    /// By the sockets that it, or a descendant, binds: anything that listens on TCP
    Intercept,
    /// Not at all: it is supervised, and gets no connections
    None,
}
