//! A message of a worker, as the worker wrote it: nothing of it is built before somebody wants to see it. A handle may have come with it.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::error::{MessageError, Result};
use crate::handle::{Handle, Parcel};

/// So much of a message is shown by [`fmt::Debug`].
const SHOWN_BYTES: usize = 256;

/// What a worker sent: JSON, up to 12 MiB of it. Cheap to clone.
///
/// It was checked to be JSON, and is kept as text: what its parts take in memory is decided by who
/// parses it. Two are equal when their texts are.
#[derive(Clone)]
pub struct Message {
    json: Arc<str>,
    parcel: Option<Arc<Parcel>>,
}

impl Message {
    pub(crate) fn new(json: Arc<str>) -> Self {
        Self { json, parcel: None }
    }

    pub(crate) fn with(json: Arc<str>, parcel: Parcel) -> Self {
        let parcel = Some(Arc::new(parcel));
        Self { json, parcel }
    }

    /// The socket that came with it (`process.on('message', (message, handle) => …)`). All copies of a message share it:
    /// who asks first has it. One that nobody takes is closed with the last copy.
    ///
    /// Of one worker, 65 wait to be taken at most. The worker's next one is received when one of those was taken or closed.
    #[must_use]
    pub fn take_handle(&self) -> Option<Handle> {
        self.parcel.as_ref()?.take()
    }

    /// Is a socket with it that nobody has taken yet?
    #[must_use]
    pub fn has_handle(&self) -> bool {
        self.parcel.as_ref().is_some_and(|parcel| parcel.is_full())
    }

    /// The text that the worker wrote.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.json
    }

    /// Reads it as a value of this type; [`serde_json::Value`] takes any message.
    ///
    /// # Errors
    /// [`MessageError::Decode`] when it is of another shape.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, MessageError> {
        serde_json::from_str(&self.json).map_err(MessageError::Decode)
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.json == other.json
    }
}

impl Eq for Message {}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.json.len() <= SHOWN_BYTES {
            return f.write_str(&self.json);
        }
        let shown: String = self.json.chars().take(SHOWN_BYTES).collect();
        write!(f, "{shown}… ({} bytes)", self.json.len())
    }
}

impl Serialize for Message {
    /// As the value that the text means.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: Value = serde_json::from_str(&self.json).map_err(S::Error::custom)?;
        value.serialize(serializer)
    }
}
