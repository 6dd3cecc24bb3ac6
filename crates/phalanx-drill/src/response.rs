//! Reads HTTP/1 responses out of bytes, without any I/O: RFC 9112, sections 6 to 8. Interim responses (1xx)
//! are skipped; bodies are counted, not kept.

/// A response that has come in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    /// The connection may carry another request.
    pub(super) keeps_alive: bool,
}

/// Bytes that are no response, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// The longest head, and the longest line of a chunked body.
const MAX_HEAD_BYTES: usize = 64 << 10;
const MAX_HEADERS: usize = 128;

/// Reads one response.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    is_to_head: bool,
    head: Response,
    /// Any byte of the response has come.
    has_begun: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Head,
    Sized(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailer,
    UntilClose,
    Whole,
}

impl Reader {
    /// A reader for the answer to a request; one to HEAD has no body.
    pub(super) fn new(is_to_head: bool) -> Self {
        Self {
            state: State::Head,
            is_to_head,
            head: Response {
                status: 0,
                keeps_alive: false,
            },
            has_begun: false,
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Takes what belongs to the response out of `input`; the response, once it is whole.
    pub(super) fn advance(&mut self, input: &mut Vec<u8>) -> Result<Option<Response>, Malformed> {
        self.has_begun |= !input.is_empty();
        let mut taken = 0;
        let whole = self.consume(input, &mut taken);
        input.drain(..taken);
        whole
    }

    /// The response, if the end of the stream ends it.
    pub(super) fn end(&self) -> Option<Response> {
        (self.state == State::UntilClose).then_some(self.head)
    }

    fn consume(&mut self, input: &[u8], taken: &mut usize) -> Result<Option<Response>, Malformed> {
        loop {
            let rest = &input[*taken..];
            let (used, next) = match self.state {
                State::Whole => return Ok(Some(self.head)),
                State::Head => match self.read_head(rest)? {
                    Some(read) => read,
                    None => return Ok(None),
                },
                State::Sized(0) => (0, State::Whole),
                State::Sized(left) => match part(rest, left) {
                    (0, _) => return Ok(None),
                    (used, left) => (used, State::Sized(left)),
                },
                State::ChunkSize => match line(rest)? {
                    Some(size) => (size.len() + 2, after_size(size)?),
                    None => return Ok(None),
                },
                State::Chunk(0) => (0, State::ChunkEnd),
                State::Chunk(left) => match part(rest, left) {
                    (0, _) => return Ok(None),
                    (used, left) => (used, State::Chunk(left)),
                },
                State::ChunkEnd => match line(rest)? {
                    Some(b"") => (2, State::ChunkSize),
                    Some(_) => return Err(Malformed("a chunk is longer than its size")),
                    None if rest.len() > 2 => {
                        return Err(Malformed("a chunk is longer than its size"));
                    }
                    None => return Ok(None),
                },
                State::Trailer => match line(rest)? {
                    Some(b"") => (2, State::Whole),
                    Some(field) => (field.len() + 2, State::Trailer),
                    None => return Ok(None),
                },
                State::UntilClose => {
                    *taken = input.len();
                    return Ok(None);
                }
            };
            *taken += used;
            self.state = next;
        }
    }

    /// Reads a head if it is whole; an interim one leads to the next.
    fn read_head(&mut self, input: &[u8]) -> Result<Option<(usize, State)>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let length = match parsed.parse(input) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if input.len() > MAX_HEAD_BYTES => {
                return Err(Malformed("the head is too long"));
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Malformed("no HTTP/1 response")),
        };
        let (status, minor) = (parsed.code.unwrap_or(0), parsed.version.unwrap_or(0));
        match status {
            100 | 102..=199 => return Ok(Some((length, State::Head))),
            101 | 200..=599 => {}
            _ => return Err(Malformed("no such status")),
        }
        let body = Framing::of(parsed.headers, minor)?;
        let has_body = !(self.is_to_head || matches!(status, 101 | 204 | 304));
        let state = match body.length {
            Length::Chunked | Length::Sized(_) | Length::UntilClose if !has_body => State::Whole,
            Length::Chunked => State::ChunkSize,
            Length::Sized(length) => State::Sized(length),
            Length::UntilClose => State::UntilClose,
        };
        self.head = Response {
            status,
            keeps_alive: body.keeps_alive && state != State::UntilClose,
        };
        Ok(Some((length, state)))
    }
}

/// What the headers say about the end of the message and of the connection.
struct Framing {
    length: Length,
    keeps_alive: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Length {
    Sized(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    fn of(headers: &[httparse::Header<'_>], minor: u8) -> Result<Self, Malformed> {
        let mut length = Length::UntilClose;
        let mut keeps_alive = minor >= 1;
        for header in headers {
            let value = header.value.trim_ascii();
            if header.name.eq_ignore_ascii_case("content-length") {
                let sized =
                    Length::Sized(number(value, 10).ok_or(Malformed("bad Content-Length"))?);
                if length != Length::UntilClose && length != sized {
                    return Err(Malformed("two lengths"));
                }
                length = sized;
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                if length != Length::UntilClose || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Malformed("an unexpected Transfer-Encoding"));
                }
                length = Length::Chunked;
            } else if header.name.eq_ignore_ascii_case("connection") {
                for option in value.split(|byte| *byte == b',') {
                    let option = option.trim_ascii();
                    if option.eq_ignore_ascii_case(b"close") {
                        keeps_alive = false;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") && minor == 0 {
                        keeps_alive = true;
                    }
                }
            }
        }
        Ok(Self {
            length,
            keeps_alive,
        })
    }
}

/// How many bytes of `input` belong to the `left` ones, and how many are left then.
fn part(input: &[u8], left: u64) -> (usize, u64) {
    let used = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    (used, left - used as u64)
}

/// The first line of `input`, without its end, if it is whole.
fn line(input: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    match input.windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => Ok(Some(&input[..end])),
        None if input.len() > MAX_HEAD_BYTES => Err(Malformed("a line is too long")),
        None => Ok(None),
    }
}

fn after_size(size: &[u8]) -> Result<State, Malformed> {
    let digits = size.split(|byte| *byte == b';').next().unwrap_or_default();
    match number(digits.trim_ascii(), 16) {
        Some(0) => Ok(State::Trailer),
        Some(size) => Ok(State::Chunk(size)),
        None => Err(Malformed("bad chunk size")),
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    // No sign, which `from_str_radix` would take.
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).ok().filter(|_| all)?;
    u64::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the bytes, handed in piece by piece, to the end of the stream.
    fn read(bytes: &str, piece: usize) -> Result<Option<(u16, bool)>, Malformed> {
        let mut reader = Reader::new(false);
        let mut input = Vec::new();
        for piece in bytes.as_bytes().chunks(piece) {
            input.extend_from_slice(piece);
            if let Some(response) = reader.advance(&mut input)? {
                return Ok(Some((response.status, response.keeps_alive)));
            }
        }
        Ok(reader.end().map(|end| (end.status, end.keeps_alive)))
    }

    const WHOLE: [(&str, u16, bool); 9] = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n",
            200,
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n",
            200,
            true,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204, true),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
            304,
            true,
        ),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", 200, false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\na",
            200,
            true,
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
            503,
            true,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
            101,
            true,
        ),
    ];

    #[test]
    fn responses_are_read_however_they_are_cut_into_pieces() {
        for (bytes, status, keeps_alive) in WHOLE {
            for piece in [1, 2, 7, bytes.len()] {
                assert_eq!(
                    read(bytes, piece),
                    Ok(Some((status, keeps_alive))),
                    "{bytes:?}"
                );
            }
        }
    }

    #[test]
    fn no_proper_prefix_of_a_response_is_one() {
        for (bytes, _, _) in WHOLE {
            for end in 1..bytes.len() {
                assert_eq!(read(&bytes[..end], end), Ok(None), "{bytes:?} {end}");
            }
        }
    }

    #[test]
    fn a_response_without_a_length_ends_with_the_connection() {
        let bytes = "HTTP/1.1 200 OK\r\n\r\nsome text";
        assert_eq!(read(bytes, 4), Ok(Some((200, false))));
    }

    #[test]
    fn pipelined_responses_are_taken_one_by_one() {
        let one = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        let mut input = [one, one].concat().into_bytes();
        for left in [one.len(), 0] {
            let response = Reader::new(false).advance(&mut input).unwrap();
            assert_eq!(response.unwrap().status, 200);
            assert_eq!(input.len(), left);
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let mut input = b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n".to_vec();
        let response = Reader::new(true).advance(&mut input).unwrap();
        assert!(response.unwrap().keeps_alive);
    }

    #[test]
    fn what_no_server_should_send_is_malformed() {
        for bytes in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/2 200\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabcd",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 777 Odd\r\n\r\n",
        ] {
            assert!(read(bytes, bytes.len()).is_err(), "{bytes:?}");
        }
    }
}
