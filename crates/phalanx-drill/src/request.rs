//! The requests that clients send, as bytes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use super::cause;
use super::mix::Way;

/// The body of a large upload.
const LARGE_BYTES: u64 = 1 << 20;
/// A slow upload: this many pieces of this size, with this pause between two.
const SLOW_PIECES: u32 = 20;
const SLOW_PIECE_BYTES: u64 = 512;
const SLOW_PAUSE: Duration = Duration::from_millis(25);
/// How many requests a pipelining client sends at once.
const PIPELINED: usize = 4;

/// What is asked, and of whom.
#[derive(Clone, Debug)]
pub(super) struct Questions {
    pub(super) address: SocketAddr,
    pub(super) host: String,
    pub(super) method: String,
    /// Asked for in turn.
    pub(super) paths: Vec<String>,
    pub(super) upload_path: Option<String>,
    pub(super) websocket_path: Option<String>,
    /// Whole lines, without their ends.
    pub(super) headers: Vec<String>,
    /// The longest time that a request may take, the client's own slowness aside.
    pub(super) limit: Duration,
}

/// What is sent at once on one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// One head, or several that are pipelined.
    pub(super) heads: Vec<u8>,
    pub(super) body: Body,
    /// How many responses it asks for.
    pub(super) requests: usize,
    pub(super) is_head: bool,
    pub(super) is_idempotent: bool,
}

/// What follows the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    /// So many bytes at once.
    AtOnce(u64),
    /// So many pieces, with pauses.
    Slow {
        pieces: u32,
        piece_bytes: u64,
        pause: Duration,
    },
}

impl Body {
    fn length(self) -> Option<u64> {
        match self {
            Self::None => None,
            Self::AtOnce(bytes) => Some(bytes),
            Self::Slow {
                pieces,
                piece_bytes,
                ..
            } => Some(u64::from(pieces) * piece_bytes),
        }
    }
}

/// How many requests a client of this way sends at once.
pub(super) fn requests_at_once(way: Way) -> usize {
    if way == Way::Pipelined { PIPELINED } else { 1 }
}

impl Questions {
    /// So many requests of a client of this way, of which this is the how manieth turn.
    pub(super) fn message(&self, way: Way, turn: usize, requests: usize) -> Message {
        let body = match way {
            Way::SlowUpload => Body::Slow {
                pieces: SLOW_PIECES,
                piece_bytes: SLOW_PIECE_BYTES,
                pause: SLOW_PAUSE,
            },
            Way::LargeUpload => Body::AtOnce(LARGE_BYTES),
            Way::New
            | Way::KeepAlive
            | Way::Idle
            | Way::Pipelined
            | Way::SlowReader
            | Way::WebSocket => Body::None,
        };
        let method = self.method_of(way);
        let mut heads = String::new();
        for request in 0..requests {
            let path = self.path_of(way, turn.wrapping_add(request));
            heads += &self.head(method, path, way, body);
        }
        Message {
            heads: heads.into_bytes(),
            body,
            requests,
            is_head: method == "HEAD",
            is_idempotent: cause::is_idempotent(method),
        }
    }

    /// The opening handshake of a WebSocket (RFC 6455, 4.1).
    pub(super) fn handshake(&self, key: &str) -> Vec<u8> {
        let path = self.websocket_path.as_deref().unwrap_or("/");
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        self.add_headers(&mut head);
        head += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
        write!(head, "Sec-WebSocket-Key: {key}\r\n\r\n").unwrap_or_default();
        head.into_bytes()
    }

    /// Uploads need a method that has a body.
    fn method_of(&self, way: Way) -> &str {
        let has_no_body =
            ["GET", "HEAD", "OPTIONS", "TRACE", "DELETE"].contains(&self.method.as_str());
        if way.is_upload() && has_no_body {
            "POST"
        } else {
            &self.method
        }
    }

    fn path_of(&self, way: Way, turn: usize) -> &str {
        match &self.upload_path {
            Some(path) if way.is_upload() => path,
            Some(_) | None => self
                .paths
                .get(turn % self.paths.len().max(1))
                .map_or("/", |path| path),
        }
    }

    fn head(&self, method: &str, path: &str, way: Way, body: Body) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        self.add_headers(&mut head);
        if way == Way::New {
            head += "Connection: close\r\n";
        }
        let length = body
            .length()
            .or_else(|| ["POST", "PUT", "PATCH"].contains(&method).then_some(0));
        if let Some(length) = length {
            write!(head, "Content-Length: {length}\r\n").unwrap_or_default();
        }
        head + "\r\n"
    }

    fn add_headers(&self, head: &mut String) {
        for header in &self.headers {
            head.push_str(header);
            head.push_str("\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn questions() -> Questions {
        Questions {
            address: "127.0.0.1:80".parse().unwrap(),
            host: "127.0.0.1:80".to_owned(),
            method: "GET".to_owned(),
            paths: vec!["/a".to_owned(), "/b".to_owned()],
            upload_path: Some("/up".to_owned()),
            websocket_path: None,
            headers: vec!["Cookie: a=b".to_owned()],
            limit: Duration::from_secs(10),
        }
    }

    fn heads(way: Way, turn: usize, requests: usize) -> String {
        String::from_utf8(questions().message(way, turn, requests).heads).unwrap()
    }

    #[test]
    fn paths_take_turns_and_headers_are_added() {
        assert_eq!(
            heads(Way::KeepAlive, 1, 1),
            "GET /b HTTP/1.1\r\nHost: 127.0.0.1:80\r\nCookie: a=b\r\n\r\n"
        );
        assert_eq!(heads(Way::Pipelined, 0, 4).matches("GET /a ").count(), 2);
        assert!(heads(Way::New, 0, 1).contains("\r\nConnection: close\r\n"));
    }

    #[test]
    fn uploads_have_a_method_and_a_path_of_their_own_and_are_not_repeated() {
        let message = questions().message(Way::SlowUpload, 0, 1);
        let head = String::from_utf8(message.heads).unwrap();
        assert!(head.starts_with("POST /up "), "{head}");
        assert!(head.contains("\r\nContent-Length: 10240\r\n"), "{head}");
        assert!(!message.is_idempotent);
        assert!(questions().message(Way::New, 0, 1).is_idempotent);
    }
}
