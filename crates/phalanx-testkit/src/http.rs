//! The client's side of HTTP/1.1 message syntax (RFC 9112): strict, bounded, streaming.
//!
//! Anything a conforming server must not send is [`ReadError::Malformed`]; where a read fails, the
//! error says whether a byte of the response had arrived, which is what decides about a retry.

use std::io::{self, ErrorKind, Read};

use crate::wait::Deadline;

const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 256;
const MAX_LINE_BYTES: usize = 8 * 1024;
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
const READ_BYTES: usize = 16 * 1024;

/// Why no complete response was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadError {
    /// The connection ended.
    Closed,
    /// The connection was reset.
    Reset,
    /// The deadline passed.
    TimedOut,
    /// The bytes are no HTTP response.
    Malformed(&'static str),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            Self::TimedOut
        } else {
            Self::Reset
        }
    }
}

impl From<ReadError> for io::Error {
    fn from(error: ReadError) -> Self {
        let kind = match error {
            ReadError::Closed => ErrorKind::UnexpectedEof,
            ReadError::Reset => ErrorKind::ConnectionReset,
            ReadError::TimedOut => ErrorKind::TimedOut,
            ReadError::Malformed(_) => ErrorKind::InvalidData,
        };
        Self::new(kind, format!("{error:?}"))
    }
}

/// How the end of a body is known; counts down while the body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

/// The head of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Whether the server will take another request on this connection.
    pub(crate) keep_alive: bool,
    pub(crate) framing: Framing,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) keep_alive: bool,
    pub(crate) body: Vec<u8>,
}

/// What has been received on one connection and not yet been consumed.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    bytes: Vec<u8>,
}

impl Inbox {
    /// Whether nothing waits: true between two responses of a conforming server.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn read_response(
        &mut self,
        source: &mut impl Read,
        deadline: Deadline,
    ) -> Result<Response, ReadError> {
        let head = self.read_head(source, deadline)?;
        let mut framing = head.framing;
        let mut body = Vec::new();
        while let Some(part) = self.read_part(source, deadline, &mut framing)? {
            body.extend_from_slice(&part);
            if body.len() > MAX_BODY_BYTES {
                return Err(ReadError::Malformed("body too long for a test"));
            }
        }
        Ok(Response {
            status: head.status,
            keep_alive: head.keep_alive,
            body,
        })
    }

    /// Reads a response's head; interim responses (1xx) before it are skipped.
    pub(crate) fn read_head(
        &mut self,
        source: &mut impl Read,
        deadline: Deadline,
    ) -> Result<Head, ReadError> {
        loop {
            let end = loop {
                if let Some(end) = find(&self.bytes, b"\r\n\r\n") {
                    break end;
                }
                if self.bytes.len() > MAX_HEAD_BYTES {
                    return Err(ReadError::Malformed("head too long"));
                }
                self.fill(source, deadline)?;
            };
            let head = parse_head(&self.bytes[..end + 4])?;
            self.bytes.drain(..end + 4);
            if head.status >= 200 {
                return Ok(head);
            }
        }
    }

    /// Reads the next part of a body; `None` at its end.
    pub(crate) fn read_part(
        &mut self,
        source: &mut impl Read,
        deadline: Deadline,
        framing: &mut Framing,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        match framing {
            Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                if self.bytes.is_empty() {
                    self.fill(source, deadline)?;
                }
                let taken = self.take((*left).min(self.bytes.len()));
                *left -= taken.len();
                Ok(Some(taken))
            }
            Framing::UntilClose => {
                if self.bytes.is_empty() {
                    match self.fill(source, deadline) {
                        Ok(()) => {}
                        Err(ReadError::Closed) => return Ok(None),
                        Err(error) => return Err(error),
                    }
                }
                Ok(Some(self.take(self.bytes.len())))
            }
            Framing::Chunked => {
                let part = self.read_chunk(source, deadline)?;
                if part.is_none() {
                    *framing = Framing::Length(0);
                }
                Ok(part)
            }
        }
    }

    fn read_chunk(
        &mut self,
        source: &mut impl Read,
        deadline: Deadline,
    ) -> Result<Option<Vec<u8>>, ReadError> {
        let line = self.read_line(source, deadline)?;
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size = parse_hex(digits.trim_ascii()).ok_or(ReadError::Malformed("chunk size"))?;
        if size == 0 {
            while !self.read_line(source, deadline)?.is_empty() {}
            return Ok(None);
        }
        while self.bytes.len() < size + 2 {
            self.fill(source, deadline)?;
        }
        let chunk = self.take(size);
        if self.take(2) != b"\r\n" {
            return Err(ReadError::Malformed("chunk does not end with a line break"));
        }
        Ok(Some(chunk))
    }

    fn read_line(
        &mut self,
        source: &mut impl Read,
        deadline: Deadline,
    ) -> Result<Vec<u8>, ReadError> {
        loop {
            if let Some(end) = find(&self.bytes, b"\r\n") {
                let line = self.take(end);
                self.take(2);
                return Ok(line);
            }
            if self.bytes.len() > MAX_LINE_BYTES {
                return Err(ReadError::Malformed("line too long"));
            }
            self.fill(source, deadline)?;
        }
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.bytes.split_off(count);
        std::mem::replace(&mut self.bytes, rest)
    }

    fn fill(&mut self, source: &mut impl Read, deadline: Deadline) -> Result<(), ReadError> {
        let mut buffer = [0; READ_BYTES];
        loop {
            if deadline.has_passed() {
                return Err(ReadError::TimedOut);
            }
            match source.read(&mut buffer) {
                Ok(0) => return Err(ReadError::Closed),
                Ok(count) => {
                    self.bytes.extend_from_slice(&buffer[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Reads a head that ends with its empty line.
fn parse_head(head: &[u8]) -> Result<Head, ReadError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) | Err(_) => return Err(ReadError::Malformed("head")),
    }
    let status = response.code.unwrap_or_default();
    let mut keep_alive = response.version == Some(1);
    let (mut length, mut chunked) = (None, false);
    for header in response.headers.iter() {
        let value = str::from_utf8(header.value);
        let value = value
            .map_err(|_| ReadError::Malformed("header is no text"))?
            .trim();
        match header.name.to_ascii_lowercase().as_str() {
            "content-length" => {
                let parsed = parse_length(value).ok_or(ReadError::Malformed("content length"))?;
                if length
                    .replace(parsed)
                    .is_some_and(|before| before != parsed)
                {
                    return Err(ReadError::Malformed("two content lengths"));
                }
            }
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => {
                for option in value.split(',').map(str::trim) {
                    keep_alive |= option.eq_ignore_ascii_case("keep-alive");
                    keep_alive &= !option.eq_ignore_ascii_case("close");
                }
            }
            _ => {}
        }
    }
    let framing = match (status, chunked, length) {
        (..200 | 204 | 304, ..) => Framing::Length(0),
        (_, true, Some(_)) => return Err(ReadError::Malformed("length and chunks")),
        (_, true, None) => Framing::Chunked,
        (_, false, Some(length)) => Framing::Length(length),
        (_, false, None) => Framing::UntilClose,
    };
    keep_alive &= framing != Framing::UntilClose;
    Ok(Head {
        status,
        keep_alive,
        framing,
    })
}

fn parse_length(text: &str) -> Option<usize> {
    let all_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    all_digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|length| *length <= MAX_BODY_BYTES)
}

fn parse_hex(digits: &[u8]) -> Option<usize> {
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(digits).ok().filter(|_| all_digits)?;
    usize::from_str_radix(digits, 16)
        .ok()
        .filter(|size| *size <= MAX_BODY_BYTES)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::LIMIT;

    /// Answers one byte a read, so that every boundary is met.
    struct Trickle<'a>(&'a [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some((first, rest)) = self.0.split_first() else {
                return Ok(0);
            };
            buffer[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    fn read(bytes: &str) -> Result<(u16, bool, String), ReadError> {
        let mut inbox = Inbox::default();
        let source = &mut Trickle(bytes.as_bytes());
        let response = inbox.read_response(source, Deadline::after(LIMIT))?;
        let body = String::from_utf8(response.body).unwrap();
        Ok((response.status, response.keep_alive, body))
    }

    #[test]
    fn bodies_are_read_in_all_three_framings() {
        let length = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(read(length), Ok((200, true, "hello".into())));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: 1\r\n\r\n";
        assert_eq!(read(chunked), Ok((200, true, "hello".into())));
        let until_close = "HTTP/1.1 200 OK\r\n\r\nhello";
        assert_eq!(read(until_close), Ok((200, false, "hello".into())));
        let none = "HTTP/1.1 204 No Content\r\nConnection: Close\r\n\r\n";
        assert_eq!(read(none), Ok((204, false, String::new())));
    }

    #[test]
    fn interim_responses_are_skipped() {
        let bytes = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read(bytes), Ok((200, true, String::new())));
    }

    #[test]
    fn every_proper_prefix_of_a_response_is_incomplete() {
        let whole = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), Err(ReadError::Closed), "{end} bytes");
        }
    }

    #[test]
    fn what_no_conforming_server_sends_is_malformed() {
        for bytes in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 20 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabcd",
        ] {
            assert!(
                matches!(read(bytes), Err(ReadError::Malformed(_))),
                "{bytes:?}"
            );
        }
    }
}
