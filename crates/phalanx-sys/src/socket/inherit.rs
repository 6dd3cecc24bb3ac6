//! Sockets that this process was started with, as from systemd or from another primary.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, fstat};

use super::set_nonblocking;
use crate::fd;

/// A duplicate of the socket that this process inherited as descriptor `number`; non-blocking
/// (and with it the original, and every process that shares it) and close-on-exec. The
/// original stays open.
///
/// # Errors
///
/// `EBADF` when the descriptor is not open or was not inherited: descriptors that this process
/// opened itself are close-on-exec, and those are not to be had by number. `ENOTSOCK` when it
/// is no socket.
pub fn inherited_socket(number: i32) -> io::Result<OwnedFd> {
    fd::check_inherited(number)?;
    let socket = fd::duplicate(number, 3)?;
    if FileType::from_raw_mode(fstat(&socket)?.st_mode) != FileType::Socket {
        return Err(io::Error::from_raw_os_error(libc::ENOTSOCK));
    }
    set_nonblocking(socket.as_fd())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};

    use super::*;
    use crate::socket::{SocketKind, TcpOptions, bind_tcp, listen, socket_kind};

    #[test]
    fn an_inherited_listener_is_duplicated() {
        let loopback = ([127, 0, 0, 1], 0).into();
        let listener = bind_tcp(loopback, &TcpOptions::default()).unwrap();
        listen(listener.as_fd(), 5).unwrap();
        let number = listener.as_raw_fd();

        let error = inherited_socket(number).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EBADF), "our own");

        fcntl_setfd(&listener, FdFlags::empty()).unwrap();
        let copy = inherited_socket(number).unwrap();
        assert_eq!(socket_kind(copy.as_fd()).unwrap(), SocketKind::TcpListener);
        assert_eq!(fcntl_getfd(&copy).unwrap(), FdFlags::CLOEXEC);
    }

    #[test]
    fn what_is_no_open_socket_is_refused() {
        let file = std::fs::File::open("/dev/null").unwrap();
        fcntl_setfd(&file, FdFlags::empty()).unwrap();
        let error = inherited_socket(file.as_raw_fd()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTSOCK));
        for number in [-1, 987_654] {
            let error = inherited_socket(number).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        }
    }
}
