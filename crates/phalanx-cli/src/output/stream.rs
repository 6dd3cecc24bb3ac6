//! What the standard streams are, and how they are written to.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};

/// Whether two descriptors are of one file.
pub(super) fn is_same_file(one: u8, other: u8) -> bool {
    let one = identity(one);
    one.is_some() && one == identity(other)
}

/// The device and the inode of what is open under this number.
pub(super) fn identity(descriptor: u8) -> Option<(u64, u64)> {
    let opened = fs::metadata(format!("/proc/self/fd/{descriptor}")).ok()?;
    Some((opened.dev(), opened.ino()))
}

/// The path of an open file that has one; nothing of a pipe, a terminal or a removed file.
pub(super) fn path_of(descriptor: u8) -> Option<PathBuf> {
    let link = format!("/proc/self/fd/{descriptor}");
    let opened = fs::metadata(&link).ok().filter(Metadata::is_file)?;
    let path = fs::read_link(&link).ok()?;
    let there = fs::symlink_metadata(&path).ok()?;
    ((opened.dev(), opened.ino()) == (there.dev(), there.ino())).then_some(path)
}

/// Writes everything, also to a stream that somebody has made non-blocking: the flag belongs to the
/// open file, which we share with whoever started us. What is left after a failure stays in `bytes`.
pub(super) fn write_all(stream: &mut File, bytes: &mut &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => *bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(stream, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
