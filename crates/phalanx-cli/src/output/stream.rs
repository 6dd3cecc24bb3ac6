//! What the standard streams are.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

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
