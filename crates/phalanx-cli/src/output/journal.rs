//! The journal of systemd, by its native protocol: a datagram a line, with fields (`systemd.journal-fields(7)`).
//!
//! What systemd's own stream to the journal cannot carry, the fields can: which app, position, worker and generation a line is
//! of. The protocol is a few lines of text, less than a dependency.

use std::io;
use std::mem;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use phalanx_control::logs::Chunk;

use super::queue::{Entry, RETRY_AFTER, Shared, Written};
use super::stream::identity;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Names the stream that leads to the journal (systemd.exec(5)).
const VARIABLE: &str = "JOURNAL_STREAM";
/// A longer line is several messages, as for the journal's own streams (`LineMax=`, journald.conf(5)): what is much longer fits into no datagram.
const MESSAGE_BYTES: usize = 48 << 10;
/// The priority of a line that says none: info (syslog(3)).
const PRIORITY: u8 = b'6';

/// The journal, connected.
pub(crate) struct Journal {
    app: String,
    path: PathBuf,
    socket: UnixDatagram,
    message: Vec<u8>,
}

/// Whether what is written to this descriptor goes to the journal.
pub(crate) fn takes(descriptor: u8) -> bool {
    let named = std::env::var(VARIABLE).ok();
    let named = named.as_deref().and_then(numbers);
    named.is_some() && named == identity(descriptor)
}

/// Device and inode, as systemd writes them.
fn numbers(text: &str) -> Option<(u64, u64)> {
    let (device, inode) = text.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

impl Journal {
    /// The journal of this machine, for lines of this app.
    ///
    /// # Errors
    /// When nobody listens there.
    pub(crate) fn connect(app: &str) -> io::Result<Self> {
        Self::at(Path::new(SOCKET), app)
    }

    fn at(path: &Path, app: &str) -> io::Result<Self> {
        Ok(Self {
            app: app.to_owned(),
            path: path.to_owned(),
            socket: dial(path)?,
            message: Vec::new(),
        })
    }

    /// Sends the lines of all entries. One that cannot be sent is dropped, with all that wait: what comes when there is
    /// a journal again is new.
    pub(super) fn write(&mut self, shared: &Shared, entries: &[Entry]) -> Written {
        let mut left: u64 = entries.iter().map(Entry::lines).sum();
        for entry in entries {
            // INVARIANT: nobody hands text to the journal.
            let Entry::Lines(chunk) = entry else { continue };
            for line in chunk.lines() {
                if let Err(error) = self.send(chunk, line) {
                    let because = error.to_string();
                    shared.drop_lines(left, &because);
                    if shared.drop_waiting(&because) {
                        return Written::Gone(because);
                    }
                    shared.pause(RETRY_AFTER);
                    return Written::Part(because);
                }
                left -= 1;
            }
        }
        Written::All
    }

    fn send(&mut self, chunk: &Chunk, line: &[u8]) -> io::Result<()> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (priority, line) = priority(line);
        let mut parts = line.chunks(MESSAGE_BYTES);
        let mut message = mem::take(&mut self.message);
        // An empty line is a message too.
        let mut part = parts.next().unwrap_or_default();
        let sent = loop {
            self.form(&mut message, chunk, priority, part);
            match self.deliver(&message) {
                Ok(()) => {}
                other => break other,
            }
            match parts.next() {
                Some(next) => part = next,
                None => break Ok(()),
            }
        };
        self.message = message;
        sent
    }

    /// Waits for journald when it is behind. One that was started anew is dialled anew.
    fn deliver(&mut self, message: &[u8]) -> io::Result<()> {
        let mut dialled = false;
        loop {
            match self.socket.send(message) {
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if dialled => return Err(error),
                Err(_) => {
                    self.socket = dial(&self.path)?;
                    dialled = true;
                }
            }
        }
    }

    fn form(&self, message: &mut Vec<u8>, chunk: &Chunk, priority: u8, line: &[u8]) {
        message.clear();
        message.extend_from_slice(b"PRIORITY=");
        message.push(priority);
        let fields = format!(
            "\nSYSLOG_IDENTIFIER={app}\nPHALANX_APP={app}\nPHALANX_POSITION={}\nPHALANX_WORKER={}\n\
             PHALANX_GENERATION={}\nPHALANX_STREAM={}\nMESSAGE=",
            chunk.position,
            chunk.worker,
            chunk.generation,
            chunk.stream,
            app = self.app,
        );
        message.extend_from_slice(fields.as_bytes());
        message.extend_from_slice(line);
        message.push(b'\n');
    }
}

fn dial(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

/// The priority that stands in front of a line, as systemd reads it from streams (sd-daemon(3)), and the rest.
fn priority(line: &[u8]) -> (u8, &[u8]) {
    match line {
        [b'<', priority @ b'0'..=b'7', b'>', rest @ ..] => (*priority, rest),
        _ => (PRIORITY, line),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use phalanx_core::ids::{Generation, Position, WorkerId};

    use super::super::{Dropped, Writer};
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    fn chunk(text: &str) -> Arc<Chunk> {
        Arc::new(Chunk {
            at: 0,
            worker: WorkerId(12),
            position: Position(1),
            generation: Generation(3),
            stream: "stderr",
            bytes: text.as_bytes().into(),
        })
    }

    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = vec![0; 64 << 10];
        let count = socket.recv(&mut buffer).unwrap();
        let text = std::str::from_utf8(&buffer[..count]).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn listen(path: &Path) -> UnixDatagram {
        drop(fs::remove_file(path));
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    }

    #[test]
    fn a_line_becomes_a_message_with_the_fields_of_its_worker() {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let path = directory.path().join("socket");
        let socket = listen(&path);
        let writer = Writer::journal(Journal::at(&path, "web").unwrap(), |_| {}).unwrap();
        writer.push_lines(&chunk("hello\r\n<3>no = 1\n\n"));
        let first = received(&socket);
        for field in [
            "PRIORITY=6",
            "SYSLOG_IDENTIFIER=web",
            "PHALANX_APP=web",
            "PHALANX_POSITION=1",
            "PHALANX_WORKER=12",
            "PHALANX_GENERATION=3",
            "PHALANX_STREAM=stderr",
            "MESSAGE=hello",
        ] {
            assert!(first.iter().any(|one| one == field), "{field}: {first:?}");
        }
        let second = received(&socket);
        assert_eq!(second[0], "PRIORITY=3");
        assert_eq!(second.last().unwrap(), "MESSAGE=no = 1");
        assert_eq!(received(&socket).last().unwrap(), "MESSAGE=");
        writer.push_lines(&chunk(&"x".repeat(MESSAGE_BYTES + 5)));
        received(&socket);
        assert_eq!(received(&socket).last().unwrap(), "MESSAGE=xxxxx");
        writer.finish(LIMIT);
    }

    #[test]
    fn a_journal_that_is_away_costs_lines_that_are_counted_and_comes_back() {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let path = directory.path().join("socket");
        let socket = listen(&path);
        let (sender, dropped) = mpsc::channel();
        let told = move |dropped: Dropped| sender.send(dropped).unwrap();
        let writer = Writer::journal(Journal::at(&path, "web").unwrap(), told).unwrap();
        drop(socket);
        writer.push_lines(&chunk("lost\nlost too\n"));
        let lost = || (writer.state().1 == 2).then_some(());
        phalanx_testkit::wait::eventually(LIMIT, "the loss is counted", lost);
        let socket = listen(&path);
        writer.push_lines(&chunk("back\n"));
        assert_eq!(received(&socket).last().unwrap(), "MESSAGE=back");
        let dropped = dropped.recv_timeout(LIMIT).unwrap();
        assert_eq!((dropped.lines, dropped.for_good), (2, false));
        assert!(dropped.because.is_some());
        writer.finish(LIMIT);
    }

    #[test]
    fn the_stream_is_named_by_device_and_inode() {
        assert_eq!(numbers("8:123"), Some((8, 123)));
        assert_eq!(numbers("8"), None);
        assert_eq!(numbers(""), None);
    }
}
