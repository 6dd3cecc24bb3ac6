//! How workers are started: the counterpart of `cluster.setupPrimary(settings)`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use phalanx_core::dispatch::allow::ListenPattern;
use phalanx_core::wire::splice::Serialization;
use phalanx_sys::signal::Signal;

use crate::bind::Bind;
use crate::hang::Hang;
use crate::publish::Publish;
use crate::share::Share;

/// What becomes of a standard stream of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdio {
    /// The worker shares the primary's stream.
    #[default]
    Inherit,
    /// `/dev/null`.
    Null,
    /// The primary reads it line by line (output only).
    Piped,
}

/// How the inspector port of Node workers is chosen, where `--inspect` is among their arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum InspectPort {
    /// The port after the one given, then the next, and so on.
    #[default]
    Counting,
    /// Always this one; 0 lets each worker take a free one.
    Fixed(u16),
}

/// How a program becomes a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Adoption {
    /// It has a channel to the primary, as Node's workers and programs that are linked with this
    /// library have it, and asks for its listeners there.
    #[default]
    Channel,
    /// It is given the listeners of [`Settings::bind`] as open descriptors, as systemd and einhorn do it
    /// (`LISTEN_FDS`, `EINHORN_FD_COUNT`).
    Activation,
    /// It knows nothing of this and binds its listeners itself: each bind and listen of it and of all its
    /// descendants waits until the primary has put the worker's socket in the place of the program's own
    /// (`seccomp_unotify(2)`). Needs Linux 5.9. Without privilege it cannot gain any, as by setuid programs.
    Intercept,
    /// It is started, stopped and replaced, and nothing else: it is given no listener. For programs
    /// that accept no connections.
    None,
}

impl Adoption {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Activation => "activation",
            Self::Intercept => "intercept",
            Self::None => "none",
        }
    }
}

/// What proves that a worker serves, beside that it has the listeners that its predecessor had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// That it listens and, where its predecessor was seen to accept connections, is seen to accept them, too. Of
    /// [`Adoption::Activation`]: that it is seen to wait for connections; one that says anything at all to `NOTIFY_SOCKET`
    /// has to say `READY=1` besides, which is enough of one that cannot be seen (`io_uring(7)`, another user's).
    #[default]
    Auto,
    /// That it listens, or, of [`Adoption::Activation`], that it is seen to wait for connections on a listener that
    /// it was given: in accept(2), poll(2), select(2) or by epoll(7).
    Listen,
    /// What the program says: `process.send('ready')`, `READY=1` (`sd_notify(3)`), or einhorn's acknowledgement.
    Notify,
    /// That it answers `GET` of this path with a status from 200 to 399, on one of its TCP listeners. It is
    /// asked over and over, by connections that reach it alone.
    Http(String),
    /// That its program runs. It proves nothing about serving: for programs that accept at once.
    Exec,
}

/// What the files of Unix listeners are like, whoever asks for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnixFile {
    /// The permissions: `0o660`. Default: those that the umask leaves, and what a Node worker adds by `readableAll` and
    /// `writableAll`.
    pub mode: Option<u32>,
    /// The user id that they belong to. Needs privilege. Default: the primary's.
    pub owner: Option<u32>,
    /// The group id that they belong to. Default: the primary's.
    pub group: Option<u32>,
}

/// Which dispatch to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DispatchChoice {
    /// The best that works for each listener: the kernel for TCP where the eBPF program can be loaded,
    /// shared for UDP and for policy `none`, else handoff.
    #[default]
    Auto,
    /// An eBPF program picks the worker when the connection arrives; TCP only. Needs Linux 5.14,
    /// `CAP_BPF` and `CAP_PERFMON`. Where it is not to be had, handoff is used and the log says why.
    Kernel,
    /// The primary accepts and passes connections on.
    Handoff,
    /// All workers accept from one socket.
    Shared,
}

/// How workers are started. `Default` starts this very program again, with its own arguments.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Settings {
    /// The program: a path, or a name looked up in `PATH`. Default: the path under which this process was started.
    pub exec: Option<OsString>,
    /// Its arguments, without the program's own name. Default: those of this process.
    pub args: Option<Vec<OsString>>,
    /// The working directory. Default: the primary's.
    pub cwd: Option<PathBuf>,
    /// Variables set besides the primary's own environment.
    pub env: Vec<(OsString, OsString)>,
    /// The worker's standard input. Default here: `/dev/null`, because workers are process groups of their own.
    pub stdin: Option<Stdio>,
    /// Its standard output.
    pub stdout: Stdio,
    /// Its standard error.
    pub stderr: Stdio,
    /// The user id to run as. Needs privilege.
    pub uid: Option<u32>,
    /// The group id to run as. Needs privilege.
    pub gid: Option<u32>,
    /// Leave out the script that lets a Node worker on a channel drain politely. Default: it is loaded.
    pub no_preload: bool,
    /// How many words of the command, counted from [`Settings::exec`], are a launcher's that executes the rest of the
    /// words and passes on descriptors and variables (`uv run`, `nice`, `sh -c '… exec "$@"'`). More than 0 says that
    /// the word behind them is Node. Default: 0, the program itself is Node if it is called so.
    pub launcher_words: usize,
    /// How messages are written on a Node worker's channel. Default: JSON. A worker of this library speaks nothing else.
    pub serialization: Serialization,
    /// For Node workers that are started with `--inspect`.
    pub inspect_port: InspectPort,
    /// How the program becomes a worker.
    pub adoption: Adoption,
    /// Listeners that the primary opens by itself, for [`Adoption::Activation`].
    pub bind: Vec<Bind>,
    /// Listeners that are opened elsewhere than the program asks for, for [`Adoption::Channel`] and
    /// [`Adoption::Intercept`].
    pub publish: Vec<Publish>,
    /// What the files of Unix listeners are like.
    pub unix: UnixFile,
    /// Where workers may listen, and nowhere else. Without any, those of [`Settings::uid`] and [`Settings::gid`] may have
    /// what the first generation asks for while it starts, but no privileged port and no path outside of the working
    /// directory; others may have what the primary may have.
    pub allow_listen: Vec<ListenPattern>,
    /// Listeners that all workers of [`Adoption::Intercept`] share, although they would be their worker's own.
    pub share: Vec<Share>,
    /// What proves that a worker serves.
    pub readiness: Readiness,
    /// For how long a worker of which nothing is known yet, so in the first generation of an app, is to open no
    /// further listener before it counts as ready. Default: [`Settings::READY_QUIET`].
    pub ready_quiet: Option<Duration>,
    /// A worker that is ready and says for so long nothing to its watchdog (`WATCHDOG=1`, `sd_notify(3)`)
    /// is ended and replaced. Default: no watchdog.
    pub watchdog: Option<Duration>,
    /// What is done about workers that hang.
    pub hang: Hang,
    /// Where einhorn's acknowledgements are taken: a path for a Unix socket. Default: nowhere.
    pub ack_socket: Option<PathBuf>,
    /// How long a worker without a channel may take to finish the connections that it has, before it gets its
    /// stop signal: many programs drop them at that. Default: [`Settings::SETTLE_TIMEOUT`].
    pub settle_timeout: Option<Duration>,
    /// The signal that asks a worker to end. Default: TERM. A worker without a channel gets it at the
    /// end of a drain, when it has nothing new to expect; any worker that does not finish in time gets it too.
    pub stop_signal: Option<Signal>,
}

impl Settings {
    /// How long workers without a channel may take to finish their connections, unless told otherwise.
    pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

    /// How long a worker of which nothing is known is to open no further listener, unless told otherwise.
    pub const READY_QUIET: Duration = Duration::from_millis(100);

    /// The default settings.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the program.
    #[must_use]
    pub fn exec(mut self, program: impl Into<OsString>) -> Self {
        self.exec = Some(program.into());
        self
    }

    /// Sets the arguments.
    #[must_use]
    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args = Some(args.into_iter().map(Into::into).collect());
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn cwd(mut self, directory: impl Into<PathBuf>) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    /// Adds a variable.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Node's `silent`: output is read by the primary instead of shared.
    #[must_use]
    pub fn silent(mut self, silent: bool) -> Self {
        let stdio = if silent { Stdio::Piped } else { Stdio::Inherit };
        self.stdout = stdio;
        self.stderr = stdio;
        self
    }

    /// Sets the three standard streams.
    #[must_use]
    pub fn stdio(mut self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Self {
        self.stdin = Some(stdin);
        self.stdout = stdout;
        self.stderr = stderr;
        self
    }

    /// Sets the user to run as.
    #[must_use]
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Sets the group to run as.
    #[must_use]
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// Sets how the program becomes a worker.
    #[must_use]
    pub fn adoption(mut self, adoption: Adoption) -> Self {
        self.adoption = adoption;
        self
    }

    /// Adds a listener that the primary opens by itself.
    #[must_use]
    pub fn bind(mut self, bind: Bind) -> Self {
        self.bind.push(bind);
        self
    }

    /// Has a listener shared by all workers that would be its worker's own.
    #[must_use]
    pub fn share(mut self, share: Share) -> Self {
        self.share.push(share);
        self
    }

    /// Has a listener opened elsewhere than the program asks for.
    #[must_use]
    pub fn publish(mut self, publish: Publish) -> Self {
        self.publish.push(publish);
        self
    }

    /// Adds where workers may listen, and nowhere else.
    #[must_use]
    pub fn allow_listen(mut self, pattern: ListenPattern) -> Self {
        self.allow_listen.push(pattern);
        self
    }

    /// Sets the permissions of the files of Unix listeners.
    #[must_use]
    pub fn unix_mode(mut self, mode: u32) -> Self {
        self.unix.mode = Some(mode);
        self
    }

    /// Sets who the files of Unix listeners belong to: a user id, a group id. `None` leaves it as it is.
    #[must_use]
    pub fn unix_owner(mut self, owner: Option<u32>, group: Option<u32>) -> Self {
        self.unix.owner = owner;
        self.unix.group = group;
        self
    }

    /// Sets what proves that a worker serves.
    #[must_use]
    pub fn readiness(mut self, readiness: Readiness) -> Self {
        self.readiness = readiness;
        self
    }

    /// Sets for how long a worker of which nothing is known is to open no further listener.
    #[must_use]
    pub fn ready_quiet(mut self, quiet: Duration) -> Self {
        self.ready_quiet = Some(quiet);
        self
    }

    /// Sets the watchdog's time.
    #[must_use]
    pub fn watchdog(mut self, limit: Duration) -> Self {
        self.watchdog = Some(limit);
        self
    }

    /// Sets what is done about workers that hang.
    #[must_use]
    pub fn hang(mut self, hang: Hang) -> Self {
        self.hang = hang;
        self
    }

    /// Sets how long a worker without a channel may take to finish its connections.
    #[must_use]
    pub fn settle_timeout(mut self, limit: Duration) -> Self {
        self.settle_timeout = Some(limit);
        self
    }

    /// Sets the signal that asks a worker to end.
    #[must_use]
    pub fn stop_signal(mut self, signal: Signal) -> Self {
        self.stop_signal = Some(signal);
        self
    }

    /// Whether a Node worker on a channel loads the script that lets it drain politely.
    #[must_use]
    pub fn preload(mut self, preload: bool) -> Self {
        self.no_preload = !preload;
        self
    }

    /// Sets how many words of the command are those of a launcher that executes Node.
    #[must_use]
    pub fn launcher_words(mut self, words: usize) -> Self {
        self.launcher_words = words;
        self
    }

    /// Sets how messages are written on a Node worker's channel.
    #[must_use]
    pub fn serialization(mut self, serialization: Serialization) -> Self {
        self.serialization = serialization;
        self
    }

    /// Sets how inspector ports are chosen.
    #[must_use]
    pub fn inspect_port(mut self, port: InspectPort) -> Self {
        self.inspect_port = port;
        self
    }
}
