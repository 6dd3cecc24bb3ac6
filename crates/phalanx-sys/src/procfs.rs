//! Small files of `/proc`, read with as few calls as there can be: a primary reads some of each worker, over and over.

use std::fs::File;
use std::io::{self, Read};

/// What the file says, as far as there is room. The kernel writes such a file when it is read first, and whole (`seq_read` with
/// `single_open`): one read(2) has it all, and neither its size nor its end needs to be asked for.
///
/// # Errors
/// When it cannot be opened or read, or is no text.
pub(crate) fn told<'a>(path: &str, room: &'a mut [u8]) -> io::Result<&'a str> {
    let count = loop {
        match File::open(path)?.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    std::str::from_utf8(&room[..count]).map_err(|_| io::ErrorKind::InvalidData.into())
}
