//! What reads bytes that another process chose. Shared by the property tests (`main.rs`) and the fuzz targets (`fuzz/`).

use phalanx_core::notify::Notice;
use phalanx_core::wire::splice::{Cutter, Piece, Serialization};
use phalanx_core::wire::{Frame, Frames, advanced, parse_from_worker, parse_to_worker};

/// The longest message that the tests let pass: small, so that its bound is met.
const LIMIT: usize = 300;

/// One message, as a primary and as a worker read it, and in V8's serialization.
pub(crate) fn message(bytes: &[u8]) {
    drop(parse_from_worker(bytes));
    drop(parse_to_worker(bytes));
    if let Ok(value) = advanced::read(bytes) {
        let written = advanced::write(&value);
        let again = advanced::read(&written[advanced::LENGTH_BYTES..]);
        assert!(again.is_ok(), "{value}");
    }
}

/// A stream of messages that arrives in pieces of up to `piece` bytes: no message that is given out exceeds the bound.
pub(crate) fn stream(bytes: &[u8], piece: usize) {
    let mut frames = Frames::with_limit(LIMIT);
    for part in bytes.chunks(piece.max(1)) {
        let mut part = part;
        while !part.is_empty() {
            let room = frames.room();
            let count = room.len().min(part.len());
            room[..count].copy_from_slice(&part[..count]);
            frames.fill(count);
            part = &part[count..];
            while let Some(frame) = frames.next_frame() {
                if let Frame::Line(line) = frame {
                    assert!(line.len() <= LIMIT);
                    drop(parse_from_worker(line));
                }
            }
        }
    }
}

/// What passes between Node's primary and its worker: nothing is added, lost or changed.
pub(crate) fn spliced(bytes: &[u8], piece: usize, serialization: Serialization) {
    let mut cutter = Cutter::new(serialization);
    let mut passed = Vec::new();
    for part in bytes.chunks(piece.max(1)) {
        let mut part = part;
        while !part.is_empty() {
            let room = cutter.room();
            let count = room.len().min(part.len());
            room[..count].copy_from_slice(&part[..count]);
            cutter.fill(count);
            part = &part[count..];
            while let Some(piece) = cutter.next_piece() {
                match piece {
                    Piece::Internal(bytes) | Piece::Part { bytes, .. } => {
                        passed.extend_from_slice(bytes);
                    }
                }
            }
        }
    }
    assert_eq!(passed, bytes[..passed.len()]);
}

/// A datagram of `sd_notify(3)`.
pub(crate) fn notification(datagram: &[u8]) {
    drop(Notice::parse(datagram));
}
