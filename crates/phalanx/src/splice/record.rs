//! What an engine gives into the holder's hands, and finds there if it is not the first: one line each, with a
//! descriptor for some.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Key {
    /// What locks the directory of the script that the engine with this pid has told workers of: nobody removes it
    /// while they start.
    Script(u32),
    /// The listener of this key, and its dispatch; with its socket, unless workers have one each.
    Listener(String),
    /// Something of the worker with this id.
    Worker(u32, Of),
}

/// What of a worker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Of {
    /// The engine's end of its channel, and who it is.
    Down,
    /// Its end of the channel to Node's primary.
    Up,
    /// It has asked for the listener of this key, and was answered; with its slot, if it has one.
    Query(String),
    /// It serves the listener of this key.
    Serves(String),
    /// Node's primary has told it to leave; it does not know yet.
    Leaving,
    /// It knows that it leaves.
    Left,
    /// Node's primary has sent it a descriptor, and waits for the answer.
    Owes,
}

/// A line between engine and holder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "act", rename_all = "kebab-case")]
pub(crate) enum Record {
    /// Keep this, in place of what was kept under the key.
    Put {
        key: Key,
        #[serde(default)]
        what: Value,
        /// Whether a descriptor comes with it.
        handle: bool,
    },
    /// It is not needed any more.
    Drop { key: Key },
    /// Nothing of this worker is.
    Forget { worker: u32 },
    /// The holder has no more.
    End,
}
