//! The vocabulary of the machine: what it is told, what it answers, and what a worker holds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dispatch::readiness::{Lack, ListenerName, Proof};
use crate::ids::{Generation, Position, WorkerId};
use crate::ledger::ListenerId;
use crate::wire::ListenRequest;

/// What a worker has of a listener that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "each includes those before")]
pub enum Share {
    /// Nothing: it has asked for it, or was given it.
    None,
    /// It listens, and gets no connections yet.
    Listens,
    /// It gets its share of the connections.
    Serves,
}

/// A server of a worker, under the key that its request was answered with.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Held {
    /// Of which listener.
    pub listener: ListenerId,
    /// What it has asked for.
    pub request: ListenRequest,
    /// What it has of it.
    pub share: Share,
}

impl Held {
    /// A listener that a worker has asked for, or was given.
    #[must_use]
    pub fn new(listener: ListenerId, request: ListenRequest) -> Self {
        Self {
            listener,
            request,
            share: Share::None,
        }
    }
}

/// How a worker comes to its listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::exhaustive_enums, reason = "each is judged in its own way")]
pub enum Comes {
    /// It asks for them: by its channel, or by calls that are intercepted.
    Asking,
    /// It is given them at its start: that it is ready means that it listens on all of them.
    Given,
}

/// A worker that starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "all of it has to be said")]
pub struct Newcomer {
    /// Its position.
    pub position: Position,
    /// Its release.
    pub generation: Generation,
    /// What proves that it serves.
    pub proof: Proof,
    /// How it comes to its listeners.
    pub comes: Comes,
}

/// Something that was seen of a worker, or that is wanted of it.
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_enums, reason = "the vocabulary of the machine")]
pub enum Input {
    /// It listens on what it holds under this key. `counts`: that is one of the app's listeners, and no debugger's.
    Listens {
        /// Which.
        key: String,
        /// Whether successors owe it.
        counts: bool,
    },
    /// It was seen to wait for connections on what it was given under this key.
    Waits {
        /// Which.
        key: String,
    },
    /// It was seen to accept connections on what it holds under this key.
    Accepts {
        /// Which.
        key: String,
    },
    /// It cannot be seen to accept connections, whether it does or not.
    Hides,
    /// It listens on sockets of its own.
    ListensByItself {
        /// Where.
        names: Vec<ListenerName>,
    },
    /// It has given its word, or a good answer.
    Proves,
    /// It has closed a listener of its own accord.
    Closes {
        /// Which.
        name: ListenerName,
    },
    /// It has asked for a listener, and it is not its own doing that it is not answered yet. False: it is, by now.
    Kept {
        /// Whether it waits for any answer.
        waits: bool,
    },
    /// It leaves, or serves nothing any more.
    Leaves,
    /// It is held back no longer.
    Admitted,
    /// A spare: it holds this position from now on, and is held back no longer.
    Moves {
        /// Which.
        position: Position,
    },
    /// It is waited for no longer: it is ready with what it has.
    Accepted,
    /// A time has come at which it may be ready.
    Look,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "the runtime must do every one")]
pub enum Effect {
    /// It gets its share of this listener's connections from now on.
    Serve {
        /// Who.
        worker: WorkerId,
        /// Of what.
        listener: ListenerId,
    },
    /// It has begun to serve: what comes before was all of it.
    HasBegun {
        /// Who.
        worker: WorkerId,
    },
    /// It has proven that it serves: it counts as ready before it gets anything by that.
    HasProven {
        /// Who.
        worker: WorkerId,
    },
    /// It is ready, and serves what it may: that can be told.
    Ready {
        /// Who.
        worker: WorkerId,
        /// The listeners that it was given, of which it is known only now that it listens there.
        given: Vec<ListenerId>,
        /// It has no listener.
        is_without: bool,
    },
    /// It is not ready, for this reason, which is another than before.
    Lacks {
        /// Who.
        worker: WorkerId,
        /// What it lacks.
        lack: Lack,
    },
    /// Put [`Input::Look`] at this time.
    LookAt {
        /// At whom.
        worker: WorkerId,
        /// When.
        at: Duration,
    },
    /// Look at a worker that leaves, at this time or when something rings, and say what there is to see of it
    /// ([`Machine::sees_leaver`](super::Machine::sees_leaver)).
    LookAtLeaver {
        /// At whom.
        worker: WorkerId,
        /// When.
        at: Duration,
    },
    /// Give it nothing new from now on.
    Exclude {
        /// Whom.
        worker: WorkerId,
    },
    /// Tell it to leave. That is all that is done about it.
    Tell {
        /// Whom.
        worker: WorkerId,
    },
}
