//! The stream of events (server-sent events).

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use super::connection::Connection;

/// A stream of events or of lines of logs, as JSON.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    text: Lines,
    _connection: Connection,
}

impl Events {
    pub(super) fn new(body: Incoming, connection: Connection) -> Self {
        Self {
            body,
            text: Lines::default(),
            _connection: connection,
        }
    }

    /// The next event; `None` when the stream has ended. Nothing is lost when this future is dropped.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(event) = self.text.next_event() {
                return Some(event);
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.text.push(&data);
            }
        }
    }
}

impl Events {
    /// The next event if it has arrived already.
    pub fn next_arrived(&mut self) -> Option<Value> {
        self.text.next_event()
    }
}

/// A text of server-sent events that comes in pieces. Each byte is looked at once.
#[derive(Debug, Default)]
struct Lines {
    text: Vec<u8>,
    /// Where the line under way begins.
    start: usize,
    /// So much was found to have no newline.
    scanned: usize,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) {
        self.text.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        self.text.extend_from_slice(piece);
    }

    /// Goes on line by line until one is an event.
    fn next_event(&mut self) -> Option<Value> {
        loop {
            let newline = self.text[self.scanned..]
                .iter()
                .position(|byte| *byte == b'\n');
            let Some(offset) = newline else {
                self.scanned = self.text.len();
                return None;
            };
            let end = self.scanned + offset;
            let line = &self.text[self.start..end];
            // Lines of logs come without the word for them unless they are followed.
            let data = line.strip_prefix(b"data:").unwrap_or(line);
            let event = serde_json::from_slice(data).ok();
            (self.start, self.scanned) = (end + 1, end + 1);
            if event.is_some() {
                return event;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_taken_out_of_the_stream_one_by_one() {
        let mut text = Lines::default();
        text.push(b": keep-alive\n\ndata: {\"a\":1}\n\ndata: {\"a\":2}\n\ndata: {\"a\"");
        assert_eq!(text.next_event(), Some(json!({"a": 1})));
        assert_eq!(text.next_event(), Some(json!({"a": 2})));
        assert_eq!(text.next_event(), None);
        text.push(b":3}\n");
        assert_eq!(text.next_event(), Some(json!({"a": 3})));
    }

    #[test]
    fn each_byte_of_the_stream_is_looked_at_once() {
        let mut text = Lines::default();
        let mut looked = 0;
        for _ in 0..1_000 {
            text.push(&[b'x'; 1_000]);
            looked += text.text.len() - text.scanned;
            assert_eq!(text.next_event(), None);
        }
        assert_eq!(looked, 1_000_000);
        text.push(b"\ndata: 1\n");
        assert_eq!(text.next_event(), Some(json!(1)));
        text.push(b"");
        assert_eq!(text.text.len(), 0);
    }
}
