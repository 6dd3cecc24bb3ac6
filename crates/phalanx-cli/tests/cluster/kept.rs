//! A client that keeps its connection, and sees each answer by itself.

use std::io::{ErrorKind, Read, Write};

use phalanx_testkit::{Target, procs};

use super::{Connection, connect, tls};

/// A connection that is kept, read answer by answer.
pub(crate) struct Kept {
    stream: Box<dyn Connection>,
    bytes: Vec<u8>,
}

/// What a server said: its head, in lower case.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: String,
}

impl Answer {
    pub(crate) fn closes(&self) -> bool {
        self.head.contains("\r\nconnection: close")
    }
}

impl Kept {
    #[track_caller]
    pub(crate) fn open(target: &Target) -> Self {
        Self::on(connect(target).unwrap())
    }

    /// Over TLS, if `secure`.
    #[track_caller]
    pub(crate) fn open_to(target: &Target, secure: bool) -> Self {
        if secure {
            Self::on(tls::connect(target, "http/1.1"))
        } else {
            Self::open(target)
        }
    }

    fn on(stream: Box<dyn Connection>) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
        }
    }

    #[track_caller]
    pub(crate) fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    #[track_caller]
    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
        self.stream.flush().unwrap();
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, path: &str) {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
    }

    /// Reads until this can be cut off the bytes received.
    #[track_caller]
    pub(crate) fn until<T>(&mut self, mut cut: impl FnMut(&mut Vec<u8>) -> Option<T>) -> T {
        loop {
            if let Some(found) = cut(&mut self.bytes) {
                return found;
            }
            let mut part = [0; 4096];
            let count = self.stream.read(&mut part).unwrap();
            let so_far = String::from_utf8_lossy(&self.bytes);
            assert!(count > 0, "the connection was closed after {so_far:?}");
            self.bytes.extend_from_slice(&part[..count]);
        }
    }

    #[track_caller]
    pub(crate) fn head(&mut self) -> String {
        self.until(|bytes| {
            let end = find(bytes, b"\r\n\r\n")? + 4;
            let head: Vec<u8> = bytes.drain(..end).collect();
            Some(String::from_utf8(head).unwrap().to_lowercase())
        })
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> Answer {
        let head = self.head();
        let length = head.split("content-length: ").nth(1).map(|rest| {
            let digits = rest.split("\r\n").next().unwrap();
            digits.parse::<usize>().unwrap()
        });
        let body = self.until(|bytes| {
            let end = match length {
                Some(length) => (bytes.len() >= length).then_some(length)?,
                None => find(bytes, b"0\r\n\r\n")? + 5,
            };
            Some(bytes.drain(..end).collect::<Vec<u8>>())
        });
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains("pid = "), "{head}{body}");
        Answer { head }
    }

    /// Expects the end, and nothing before it.
    #[track_caller]
    pub(crate) fn expect_closed(mut self) {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    /// Expects the end, whatever comes before it, and however it comes.
    #[track_caller]
    pub(crate) fn expect_end(mut self) {
        let mut part = [0; 4096];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    let ends = [ErrorKind::ConnectionReset, ErrorKind::UnexpectedEof];
                    assert!(ends.contains(&error.kind()), "{error}");
                    return;
                }
            }
        }
    }
}

pub(crate) fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// Stops the process of the worker, and fills its slot with requests: with so many in all slots.
#[track_caller]
pub(crate) fn fill(target: &Target, worker: u32, requests: usize) -> Vec<Kept> {
    procs::suspend(worker);
    let mut queued: Vec<_> = (0..requests).map(|_| Kept::open(target)).collect();
    for connection in &mut queued {
        connection.ask("/");
    }
    queued
}
