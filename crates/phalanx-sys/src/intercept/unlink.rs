//! A stopped removal of a file (unlink(2)), and its answers.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Arc;

use super::notice::{self, Answer, Notice};
use super::{Channel, Next, caller};
use crate::directory::FileId;
use crate::process::Pid;

/// A removal of a Unix socket's file that waits for its answer. Dropping it lets it pass.
#[derive(Debug)]
pub struct Unlink {
    channel: Arc<Channel>,
    id: u64,
    file: FileId,
    answer: Answer,
}

impl Unlink {
    /// Whether the call is one; it is answered if it is about no socket.
    pub(super) fn examine(channel: &Arc<Channel>, notice: &Notice) -> Option<Next> {
        let (directory, path) = match notice.number {
            libc::SYS_unlinkat => (lower_half(notice.args[0]), notice.args[1]),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_unlink => (libc::AT_FDCWD, notice.args[0]),
            _ => return None,
        };
        let file = Pid::from_number(notice.thread).and_then(|thread| {
            let path = caller::path(thread, path)?;
            let seen = caller::seen_from_here(thread, directory, &path);
            let file = fs::symlink_metadata(seen).ok()?;
            file.file_type()
                .is_socket()
                .then(|| FileId::numbered(file.dev(), file.ino()))
        });
        let Some(file) = file else {
            // Fails only when nobody waits for it any more.
            let _heard = notice::answer(channel.as_fd(), notice.id, Answer::Pass);
            return Some(Next::Passed);
        };
        Some(Next::Unlink(Self {
            channel: Arc::clone(channel),
            id: notice.id,
            file,
            answer: Answer::Pass,
        }))
    }

    /// Which file is to be removed.
    #[must_use]
    pub fn file(&self) -> FileId {
        self.file
    }

    /// The call returns 0, and the file stays.
    pub fn succeed(mut self) {
        self.answer = Answer::Done;
    }
}

impl Drop for Unlink {
    fn drop(&mut self) {
        // Fails only when nobody waits for it any more.
        let _heard = notice::answer(self.channel.as_fd(), self.id, self.answer);
    }
}

fn lower_half(argument: u64) -> i32 {
    let [a, b, c, d, ..] = argument.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}
