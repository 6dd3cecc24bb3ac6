//! The thread that writes what waits in a queue.

use std::fs::File;
use std::io;

use super::OnDropped;
use super::file::LogFile;
use super::form::Form;
use super::journal::Journal;
use super::queue::{Change, Entry, RETRY_AFTER, Shared, Written, lines_in};
use super::stream::write_all;

/// What is formed before it is written, in bytes, about.
const PIECE_BYTES: usize = 256 << 10;

/// Where lines are written to.
pub(super) enum Sink {
    Stream(File),
    LogFile(LogFile),
    Journal(Journal),
}

impl Sink {
    /// Writes whole lines. What is left after a failure stays in `bytes`.
    fn write(&mut self, bytes: &mut &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(stream) => write_all(stream, bytes),
            Self::LogFile(file) => file.write(bytes),
            // INVARIANT: it takes entries.
            Self::Journal(_) => Ok(()),
        }
    }

    fn change(&mut self, change: Change) {
        match (self, change) {
            (Self::Stream(stream), Change::To(file)) => *stream = file,
            (Self::LogFile(file), Change::Reopen) => {
                if let Err(error) = file.reopen() {
                    tracing::error!(%error, "cannot open the log file anew");
                }
            }
            (_, Change::To(_) | Change::Reopen) => {}
        }
    }
}

pub(super) fn until_closed(shared: &Shared, mut sink: Sink, form: Form, on_dropped: &OnDropped) {
    let (mut entries, mut text) = (Vec::new(), Vec::new());
    let mut gone = None;
    while shared.take(&mut entries) {
        if let Some(change) = shared.take_change() {
            sink.change(change);
        }
        let written = match &mut sink {
            Sink::Journal(journal) => journal.write(shared, &entries),
            Sink::Stream(_) | Sink::LogFile(_) => {
                write(shared, &mut sink, form, &entries, &mut text)
            }
        };
        match written {
            Written::All => {
                if let Some(dropped) = shared.untold(!entries.is_empty()) {
                    on_dropped(dropped);
                }
            }
            Written::Part(_) => {}
            Written::Gone(because) => {
                gone = Some(because);
                break;
            }
        }
    }
    drop(entries);
    if let Some(dropped) = shared.end(gone.as_deref()) {
        on_dropped(dropped);
    }
}

/// Forms the entries and writes them, many with one call.
fn write(
    shared: &Shared,
    sink: &mut Sink,
    form: Form,
    entries: &[Entry],
    text: &mut Vec<u8>,
) -> Written {
    let mut rest = entries.iter();
    text.clear();
    text.shrink_to(PIECE_BYTES);
    while let Some(entry) = rest.next() {
        match entry {
            Entry::Text(line) => text.extend_from_slice(line),
            Entry::Lines(chunk) => form.put(chunk, text),
        }
        if text.len() < PIECE_BYTES && !rest.as_slice().is_empty() {
            continue;
        }
        let written = write_piece(shared, sink, text);
        match &written {
            Written::All => text.clear(),
            Written::Part(because) | Written::Gone(because) => {
                shared.drop_lines(rest.map(Entry::lines).sum(), because);
                return written;
            }
        }
    }
    Written::All
}

/// Writes some lines. Where that fails, what waits is dropped, so that what comes when there is room again is new;
/// a line that was begun is finished first.
fn write_piece(shared: &Shared, sink: &mut Sink, piece: &[u8]) -> Written {
    let mut piece = piece;
    let mut rest = piece;
    loop {
        if let Some(change) = shared.take_change() {
            sink.change(change);
        }
        let error = match sink.write(&mut rest) {
            Ok(()) => return Written::All,
            Err(error) => error,
        };
        let is_gone = error.kind() == io::ErrorKind::BrokenPipe;
        let because = error.to_string();
        let begun = if is_gone {
            0
        } else {
            unfinished(piece, rest.len())
        };
        shared.drop_lines(lines_in(&rest[begun..]), &because);
        if is_gone {
            return Written::Gone("its reader is gone".to_owned());
        }
        piece = &piece[..piece.len() - (rest.len() - begun)];
        rest = &rest[..begun];
        if shared.drop_waiting(&because) {
            return Written::Gone(because);
        }
        shared.pause(RETRY_AFTER);
        if rest.is_empty() {
            return Written::Part(because);
        }
    }
}

/// How much of the last `left` bytes belongs to a line of which a part is written already.
pub(super) fn unfinished(piece: &[u8], left: usize) -> usize {
    let (written, rest) = piece.split_at(piece.len() - left);
    if written.last().is_none_or(|&byte| byte == b'\n') {
        return 0;
    }
    let newline = rest.iter().position(|&byte| byte == b'\n');
    newline.map_or(rest.len(), |newline| newline + 1)
}
