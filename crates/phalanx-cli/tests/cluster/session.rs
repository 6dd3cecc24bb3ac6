//! An HTTP/2 client that sees each frame: when it reads, and so when it learns of a GOAWAY, is the test's choice.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};

use phalanx_testkit::Target;

use super::{Connection, connect, tls};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// `SETTINGS_MAX_CONCURRENT_STREAMS` of zero.
const NO_STREAMS: [u8; 6] = [0, 3, 0, 0, 0, 0];

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// One connection, and what was read from it so far.
pub(crate) struct Session {
    stream: Box<dyn Connection>,
    is_secure: bool,
    next: u32,
    /// The last stream and the error code of each GOAWAY.
    goaways: Vec<(u32, u32)>,
    /// The server has asked for no new streams, by a GOAWAY or its settings.
    pub(crate) is_leaving: bool,
    answers: BTreeMap<u32, Answer>,
    unserved: u32,
}

/// What has come on a stream.
#[derive(Debug, Default)]
struct Answer {
    is_ok: bool,
    body: Vec<u8>,
    is_ended: bool,
    /// Its error code.
    reset: Option<u32>,
}

impl Session {
    /// Opens a session with prior knowledge, or over TLS by ALPN.
    #[track_caller]
    pub(crate) fn open(target: &Target, is_secure: bool) -> Self {
        let stream = if is_secure {
            tls::connect(target, "h2")
        } else {
            connect(target).unwrap()
        };
        let mut session = Self {
            stream,
            is_secure,
            next: 1,
            goaways: Vec::new(),
            is_leaving: false,
            answers: BTreeMap::new(),
            unserved: 0,
        };
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        session.stream.write_all(preface).unwrap();
        session.frame(SETTINGS, 0, 0, &[]).unwrap();
        session.allow(0, 1 << 30);
        session
    }

    /// Lets the server send this many bytes more on a stream, or on all (0).
    pub(crate) fn allow(&mut self, stream: u32, bytes: u32) {
        self.frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
            .unwrap();
    }

    /// Sends a request on a new stream.
    #[track_caller]
    pub(crate) fn ask(&mut self, path: &str) -> u32 {
        let stream = self.next;
        self.next += 2;
        // RFC 7541: GET, the scheme, `:path` and `:authority` as literals.
        let scheme = if self.is_secure { 0x87 } else { 0x86 };
        let length = u8::try_from(path.len()).unwrap();
        let block = [
            &[0x82, scheme, 0x04, length],
            path.as_bytes(),
            &[0x01, 9],
            b"localhost",
        ];
        let flags = END_STREAM | END_HEADERS;
        self.frame(HEADERS, flags, stream, &block.concat()).unwrap();
        stream
    }

    /// Reads until the whole answer is there; the body of one that is 200.
    #[track_caller]
    pub(crate) fn answer(&mut self, stream: u32) -> String {
        let answer = self.answer_unless_unserved(stream);
        answer.unwrap_or_else(|| panic!("unserved: {stream}, {:?}", self.goaways))
    }

    /// As [`Session::answer`]; nothing once a GOAWAY says that the stream was not served, and is to be
    /// sent again elsewhere.
    #[track_caller]
    pub(crate) fn answer_unless_unserved(&mut self, stream: u32) -> Option<String> {
        let is_ended =
            |session: &Self| session.answers.get(&stream).is_some_and(|one| one.is_ended);
        self.until(|session| is_ended(session) || session.is_unserved(stream));
        if !is_ended(self) && self.is_unserved(stream) {
            self.unserved += 1;
            return None;
        }
        let answer = self.answers.remove(&stream).unwrap();
        assert!(answer.is_ok && answer.reset.is_none(), "{answer:?}");
        Some(String::from_utf8(answer.body).unwrap())
    }

    fn is_unserved(&self, stream: u32) -> bool {
        self.goaways.iter().any(|(last, _)| *last < stream)
    }

    /// How many bytes of a body have come, or its whole was read already.
    pub(crate) fn received(&self, stream: u32) -> usize {
        self.answers
            .get(&stream)
            .map_or(0, |answer| answer.body.len())
    }

    /// Reads until the server asks for no new streams.
    #[track_caller]
    pub(crate) fn until_leaving(&mut self) {
        self.until(|session| session.is_leaving);
    }

    #[track_caller]
    pub(crate) fn until(&mut self, wanted: impl Fn(&Self) -> bool) {
        while !wanted(self) {
            let went_on = self.step().unwrap();
            assert!(
                went_on,
                "the connection was closed; {:?} {:?}",
                self.goaways, self.answers
            );
        }
    }

    /// Expects an orderly end: nothing was reset, every GOAWAY says that there is no error, and the last
    /// one which streams were served.
    #[track_caller]
    pub(crate) fn expect_gentle_end(mut self) {
        while self.went_on() {}
        let codes = self.goaways.iter().map(|(_, code)| *code);
        assert!(!self.goaways.is_empty(), "closed without a GOAWAY");
        assert!(
            codes.into_iter().all(|code| code == 0),
            "{:?}",
            self.goaways
        );
        let last = self.goaways.last().unwrap().0;
        let served = self.next - 2 * self.unserved;
        assert!(last + 2 >= served, "{:?} of {served}", self.goaways);
        let left: Vec<_> = self.answers.values().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    /// Expects the end, whatever comes before it.
    #[track_caller]
    pub(crate) fn expect_end(mut self) {
        while self.went_on() {}
    }

    /// Reads one frame. False at the end: a server that has said all it has to may close before it reads
    /// what this side still said, which looks like a reset.
    #[track_caller]
    fn went_on(&mut self) -> bool {
        match self.step() {
            Ok(went_on) => went_on,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Reads one frame and does what it asks for. False at the end of the connection.
    fn step(&mut self) -> io::Result<bool> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| sum << 8 | u32::from(*byte))
        };
        let mut payload = vec![0; usize::try_from(number(&head[..3])).unwrap()];
        self.stream.read_exact(&mut payload)?;
        let (kind, flags, stream) = (head[3], head[4], number(&head[5..]));
        match kind {
            SETTINGS if flags & ACK == 0 => {
                let mut settings = payload.chunks(6);
                self.is_leaving |= settings.any(|one| one == NO_STREAMS);
                self.frame(SETTINGS, ACK, 0, &[])?;
            }
            PING if flags & ACK == 0 => self.frame(PING, ACK, 0, &payload)?,
            GOAWAY => {
                let codes = (number(&payload[..4]), number(&payload[4..8]));
                self.goaways.push(codes);
                self.is_leaving = true;
            }
            DATA | HEADERS | RESET => {
                let answer = self.answers.entry(stream).or_default();
                match kind {
                    DATA => answer.body.extend(&payload),
                    // `:status: 200` of the static table.
                    HEADERS => answer.is_ok |= payload.first() == Some(&0x88),
                    _ => answer.reset = Some(number(&payload)),
                }
                answer.is_ended |= kind == RESET || flags & END_STREAM != 0;
            }
            _ => {}
        }
        Ok(true)
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        // The server may have closed: what it sent before is there to be read.
        match self.stream.write_all(&[&head, payload].concat()) {
            Err(error) if kind == SETTINGS || kind == PING => {
                assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
                Ok(())
            }
            written => written.and_then(|()| self.stream.flush()),
        }
    }
}
