//! The mark of programs that link the library: a note in the executable, found without running it.
//!
//! Such a program speaks the worker channel, and nothing else tells that from outside. The note lies in a
//! section of its own (elf(5), `SHT_NOTE`), which linkers keep and strip(1) leaves alone.
#![allow(unsafe_code, reason = "the name of a section")]

use std::fs::File;
use std::hint;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

const OWNER: [u8; 8] = *b"phalanx\0";

/// As `struct nhdr` of elf(5), followed by the owner and the description.
#[repr(C)]
struct Note {
    owner_bytes: u32,
    description_bytes: u32,
    kind: u32,
    owner: [u8; 8],
    /// The version of the channel.
    description: u32,
}

// SAFETY: a section of this name holds notes, and this is one.
#[unsafe(link_section = ".note.phalanx")]
#[used]
static NOTE: Note = Note {
    owner_bytes: 8,
    description_bytes: 4,
    kind: 1,
    owner: OWNER,
    description: 1,
};

/// To be called where the channel is taken over: what calls it carries the mark.
pub fn mark() {
    hint::black_box(&NOTE);
}

/// Whether the executable carries the mark. Of files that are no 64-bit little-endian ELF files it is
/// false: scripts above all.
///
/// # Errors
///
/// When the file cannot be read.
pub fn is_marked(path: &Path) -> io::Result<bool> {
    let mut file = File::open(path)?;
    match find(&mut file) {
        // Shorter than it says.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        found => found,
    }
}

const HEADER_BYTES: usize = 64;
const SEGMENT_BYTES: u16 = 56;
/// `PT_NOTE`.
const NOTES: u32 = 4;
/// Notes are short; whoever has more is not like any program.
const LONGEST_NOTES: u64 = 1 << 16;

fn find(file: &mut (impl Read + Seek)) -> io::Result<bool> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact(&mut header)?;
    // Magic number, 64 bits, little-endian.
    if !header.starts_with(b"\x7fELF\x02\x01") || number(&header, 54, 2) != u64::from(SEGMENT_BYTES)
    {
        return Ok(false);
    }
    let table = number(&header, 32, 8);
    for index in 0..number(&header, 56, 2) {
        let Some(at) = table.checked_add(index * u64::from(SEGMENT_BYTES)) else {
            return Ok(false);
        };
        let mut segment = [0; SEGMENT_BYTES as usize];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut segment)?;
        if number(&segment, 0, 4) != u64::from(NOTES) {
            continue;
        }
        let mut notes = Vec::new();
        file.seek(SeekFrom::Start(number(&segment, 8, 8)))?;
        let bytes = number(&segment, 32, 8).min(LONGEST_NOTES);
        file.take(bytes).read_to_end(&mut notes)?;
        if has_owner(&notes) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn has_owner(mut notes: &[u8]) -> bool {
    const FIXED: usize = 12;
    while notes.len() > FIXED {
        let padded = |bytes: u64| usize::try_from(bytes.next_multiple_of(4)).ok();
        let (Some(owner), Some(description)) =
            (padded(number(notes, 0, 4)), padded(number(notes, 4, 4)))
        else {
            return false;
        };
        if notes[FIXED..].starts_with(&OWNER) && owner == OWNER.len() {
            return true;
        }
        let next = FIXED.saturating_add(owner).saturating_add(description);
        notes = notes.get(next..).unwrap_or_default();
    }
    false
}

/// The little-endian number of so many bytes; what is not there counts as 0.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let digits = bytes.get(at..at + length).unwrap_or_default();
    let digits = digits.iter().rev();
    digits.fold(0, |sum, digit| (sum << 8) | u64::from(*digit))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_program_that_calls_for_the_mark_carries_it() {
        mark();
        assert!(is_marked(&std::env::current_exe().unwrap()).unwrap());
    }

    #[test]
    fn other_files_do_not() {
        assert!(!is_marked(Path::new("/bin/sh")).unwrap());
        assert!(!is_marked(Path::new("/dev/null")).unwrap());
        assert!(is_marked(Path::new("/nowhere")).is_err());
        let directory = is_marked(Path::new("/"));
        assert!(directory.is_err());
    }

    #[test]
    fn broken_files_end_the_search() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut broken = program[..4096].to_vec();
        for byte in 4..64 {
            for value in [0, 1, 0x7f, 0xff] {
                let before = std::mem::replace(&mut broken[byte], value);
                drop(find(&mut Cursor::new(&broken)));
                broken[byte] = before;
            }
        }
        for length in 0..256 {
            drop(find(&mut Cursor::new(&program[..length])));
        }
        assert!(!has_owner(&[0xff; 64]));
        assert!(!has_owner(&[0; 64]));
    }
}
