//! A message of a worker, as the worker wrote it: nothing of it is built before somebody wants to see it.

use std::fmt;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::error::{MessageError, Result};

/// So much of a message is shown by [`fmt::Debug`].
const SHOWN_BYTES: usize = 256;

/// What a worker sent: JSON, up to 12 MiB of it. Cheap to clone.
///
/// It was checked to be JSON, and is kept as text: what its parts take in memory is decided by who
/// parses it.
#[derive(Clone, PartialEq, Eq)]
pub struct Message(Arc<str>);

impl Message {
    pub(crate) fn new(json: Arc<str>) -> Self {
        Self(json)
    }

    /// The text that the worker wrote.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }

    /// Reads it as a value of this type; [`serde_json::Value`] takes any message.
    ///
    /// # Errors
    /// [`MessageError::Decode`] when it is of another shape.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, MessageError> {
        serde_json::from_str(&self.0).map_err(MessageError::Decode)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= SHOWN_BYTES {
            return f.write_str(&self.0);
        }
        let shown: String = self.0.chars().take(SHOWN_BYTES).collect();
        write!(f, "{shown}… ({} bytes)", self.0.len())
    }
}

impl Serialize for Message {
    /// As the value that the text means.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: Value = serde_json::from_str(&self.0).map_err(S::Error::custom)?;
        value.serialize(serializer)
    }
}
