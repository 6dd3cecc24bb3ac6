//! What can fail, by the act that failed. [`Error::reach`] says how far a failure reaches, and [`Error::is_transient`] whether
//! the same may work later.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use phalanx_core::ids::WorkerId;
use phalanx_sys::process::SpawnError;

use crate::address::{Address, BadAddress};

/// An error of the library, by what was wanted. Calls that fail for one kind of reason return that kind; `?` makes it one of these.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What this process is could not be decided.
    #[error(transparent)]
    Role(#[from] RoleError),
    /// A worker could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A message could not be sent or read.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A system call for a worker's process or channel failed. Reaches: that worker.
    #[error("cannot {act} of worker {worker}")]
    Worker {
        /// What was tried, with its object.
        act: &'static str,
        /// The worker.
        worker: WorkerId,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Signals or timers could not be set up. Reaches: the primary.
    #[error("cannot set up {what}")]
    Setup {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The limits contradict each other. Reaches: the cluster.
    #[error(transparent)]
    Config(#[from] phalanx_core::fleet::ConfigError),
    /// There can be no spares. Reaches: the cluster.
    #[error("{0}")]
    Spares(&'static str),
    /// A listener cannot change to this policy while it is open. Reaches: nothing; all stays as it was.
    #[error(
        "{address} cannot change to the policy {policy}: {why}; run the app anew with --policy {policy}"
    )]
    PolicyNotHere {
        /// The policy.
        policy: phalanx_core::policy::PolicyName,
        /// The listener's address.
        address: Address,
        /// Why not.
        why: &'static str,
    },
    /// No worker became ready at the start. Reaches: the cluster.
    #[error("no worker became ready: {0}")]
    BootFailed(String),
    /// The worker's own code failed. Reaches: that worker.
    #[error("the worker failed")]
    App(#[source] Box<dyn StdError + Send + Sync>),
}

/// What this process is could not be decided. Reaches: the process.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RoleError {
    /// The role was asked for after threads were started. Call [`init`](crate::init) first thing in `main`, before any async
    /// runtime.
    #[error(
        "the role must be decided before threads are started: call phalanx::init() first in main"
    )]
    TooLate(#[source] Box<dyn StdError + Send + Sync>),
    /// The channel that the environment names cannot be used.
    #[error("cannot use the worker channel {variable}={value:?} that the environment names")]
    Channel {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The primary asks for something this worker does not speak.
    #[error("the channel's serialization mode {0:?} is not supported: use json")]
    Serialization(String),
    /// The primary has gone meanwhile.
    #[error("the primary cannot be told that this worker is online")]
    Gone(#[source] MessageError),
}

/// A worker could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The system did not start this one. Reaches: that worker.
    #[error("cannot start worker {worker}")]
    Worker {
        /// The worker.
        worker: WorkerId,
        /// Why.
        #[source]
        source: StartFailure,
    },
    /// A worker of [`Adoption::Intercept`](crate::Adoption::Intercept) could not be started, because its
    /// calls cannot be intercepted. Reaches: every worker.
    #[error(
        "the kernel or a sandbox does not let worker {worker} be intercepted: \
         give the program its listeners with --bind ADDR instead"
    )]
    Intercept {
        /// The worker.
        worker: WorkerId,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The program to start was not found or is no program. Reaches: every worker.
    #[error("cannot start {}", program.display())]
    Program {
        /// The program as it was named.
        program: PathBuf,
        /// Why.
        #[source]
        source: StartFailure,
    },
}

/// An address cannot be listened on. Reaches: that listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// A text is no address.
    #[error(transparent)]
    Address(#[from] BadAddress),
    /// The system refused, or the primary did.
    #[error("cannot listen on {address}")]
    Refused {
        /// The address.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The primary could not be asked.
    #[error(transparent)]
    Channel(#[from] MessageError),
}

/// A message could not be sent or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The channel to the other side is closed. Reaches: that worker. Not worth a retry.
    #[error("the channel is closed")]
    Disconnected,
    /// Too much waits for the other side already. Reaches: that message. Worth a retry later.
    #[error("the channel holds {queued_bytes} bytes that its reader has not taken")]
    ChannelFull {
        /// What waits, in bytes.
        queued_bytes: usize,
    },
    /// Too many handles wait for the other side already. Reaches: that message. Worth a retry later.
    #[error("{queued} handles wait for a reader that has not taken them")]
    HandlesFull {
        /// How many wait.
        queued: usize,
    },
    /// No live worker has this id. Reaches: that message.
    #[error("no worker has the id {0}")]
    NoSuchWorker(WorkerId),
    /// It cannot be written as JSON. Reaches: that message.
    #[error("cannot write the message as JSON")]
    Encode(#[source] serde_json::Error),
    /// It is not of the expected shape. Reaches: that message.
    #[error("cannot read the message")]
    Decode(#[source] serde_json::Error),
}

impl Error {
    /// How much of the cluster the failure concerns.
    ///
    /// ```
    /// use phalanx::{Error, MessageError, Reach};
    ///
    /// fn next(error: &Error) -> &'static str {
    ///     match error.reach() {
    ///         Reach::Call | Reach::Listener | Reach::Worker if error.is_transient() => "try again later",
    ///         Reach::Call | Reach::Listener | Reach::Worker => "log it and go on",
    ///         _ => "give up",
    ///     }
    /// }
    /// # assert_eq!(next(&MessageError::Disconnected.into()), "log it and go on");
    /// ```
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self {
            Self::Role(_) => Reach::Process,
            Self::Start(error) => error.reach(),
            Self::Listen(error) => error.reach(),
            Self::Message(error) => error.reach(),
            Self::PolicyNotHere { .. } => Reach::Call,
            Self::Worker { .. } | Self::App(_) => Reach::Worker,
            Self::Setup { .. } | Self::Config(_) | Self::Spares(_) | Self::BootFailed(_) => {
                Reach::Cluster
            }
        }
    }

    /// Whether the same call may succeed later without anything being changed: a channel is full, or the system is
    /// short of something.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Start(error) => error.is_transient(),
            Self::Listen(error) => error.is_transient(),
            Self::Message(error) => error.is_transient(),
            Self::Worker { source, .. } => is_shortage(source),
            Self::Role(_)
            | Self::Setup { .. }
            | Self::Config(_)
            | Self::Spares(_)
            | Self::PolicyNotHere { .. }
            | Self::BootFailed(_)
            | Self::App(_) => false,
        }
    }
}

impl StartError {
    /// A worker was not started.
    pub(crate) fn of(worker: WorkerId, source: SpawnError) -> Self {
        if let SpawnError::Intercept { source } = source {
            Self::Intercept { worker, source }
        } else {
            let source = StartFailure::of(source);
            Self::Worker { worker, source }
        }
    }

    /// As [`Error::reach`].
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self {
            Self::Worker { .. } => Reach::Worker,
            Self::Intercept { .. } | Self::Program { .. } => Reach::Cluster,
        }
    }

    /// As [`Error::is_transient`].
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Worker { source, .. } if source.kind() == StartFailureKind::Other)
    }
}

impl ListenError {
    /// As [`Error::reach`].
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self {
            Self::Address(_) => Reach::Call,
            Self::Refused { .. } => Reach::Listener,
            Self::Channel(error) => error.reach(),
        }
    }

    /// As [`Error::is_transient`].
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Address(_) => false,
            Self::Refused { source, .. } => is_shortage(source),
            Self::Channel(error) => error.is_transient(),
        }
    }
}

impl MessageError {
    /// As [`Error::reach`].
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self {
            Self::Disconnected => Reach::Worker,
            Self::ChannelFull { .. }
            | Self::HandlesFull { .. }
            | Self::NoSuchWorker(_)
            | Self::Encode(_)
            | Self::Decode(_) => Reach::Call,
        }
    }

    /// As [`Error::is_transient`].
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::ChannelFull { .. } | Self::HandlesFull { .. })
    }
}

fn is_shortage(source: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, OutOfMemory, ResourceBusy, WouldBlock};
    matches!(
        source.kind(),
        Interrupted | OutOfMemory | ResourceBusy | WouldBlock
    )
}

/// How much of a cluster a failure concerns, least first. What is not concerned goes on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Reach {
    /// The call that failed, and nothing else.
    Call,
    /// One listener.
    Listener,
    /// One worker.
    Worker,
    /// Every worker: the cluster cannot start, or cannot go on.
    Cluster,
    /// This process, whatever its role would have been.
    Process,
}

/// Why a program did not become a process.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct StartFailure(SpawnError);

/// What kind of [`StartFailure`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum StartFailureKind {
    /// There is no such program.
    NotFound,
    /// There is such a file, and it cannot be executed.
    NotExecutable,
    /// The system refused, or the process could not be set up as it was described.
    Other,
}

impl StartFailure {
    pub(crate) fn of(error: SpawnError) -> Self {
        Self(error)
    }

    /// What kind of failure.
    #[must_use]
    pub fn kind(&self) -> StartFailureKind {
        if matches!(self.0, SpawnError::NotFound { .. }) {
            StartFailureKind::NotFound
        } else if matches!(self.0, SpawnError::NotExecutable { .. }) {
            StartFailureKind::NotExecutable
        } else {
            StartFailureKind::Other
        }
    }
}

/// The library's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
