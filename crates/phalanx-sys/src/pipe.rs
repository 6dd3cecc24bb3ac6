//! Pipes: what they hold (pipe(7)).

use std::io;
use std::os::fd::AsFd;

use rustix::pipe::{fcntl_getpipe_size, fcntl_setpipe_size};

/// Lets a pipe hold this many bytes, if it holds less (`F_SETPIPE_SZ`, fcntl(2)).
///
/// # Errors
/// `EPERM` beyond what this user's pipes may hold.
pub fn enlarge(pipe: impl AsFd, bytes: usize) -> io::Result<()> {
    if fcntl_getpipe_size(&pipe)? < bytes {
        fcntl_setpipe_size(&pipe, bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_gains_room_and_loses_none() {
        let (reader, _writer) = io::pipe().unwrap();
        enlarge(&reader, 256 << 10).unwrap();
        enlarge(&reader, 4 << 10).unwrap();
        assert!(fcntl_getpipe_size(&reader).unwrap() >= 256 << 10);
    }
}
