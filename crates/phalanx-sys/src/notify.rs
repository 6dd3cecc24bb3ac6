//! The receiving end of `sd_notify(3)`: a Unix datagram socket that tells who sent what.
#![allow(
    unsafe_code,
    reason = "rustix's credentials cannot hold a pid of a foreign namespace"
)]

use std::ffi::OsString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::directory::{Directory, Pinned};
use crate::identity;
use crate::process::Pid;
use crate::random;
use crate::socket::Credentials;

/// Variables that tell a process what *it* was given by its service manager (`sd_listen_fds(3)`) and what that
/// wants to hear from it (`sd_notify(3)`). They are none of the business of the processes that it starts.
pub const VARIABLES: [&str; 6] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
];

/// A datagram that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Datagram {
    /// How many bytes of the buffer it fills; what did not fit is lost.
    pub bytes: usize,
    /// Who sent it, vouched for by the kernel (`SCM_CREDENTIALS`, unix(7)).
    pub sender: Option<Credentials>,
}

/// A socket on which a program speaks of itself.
#[derive(Debug)]
pub struct NotifySocket {
    /// What the program is told (`NOTIFY_SOCKET`).
    pub name: String,
    /// The socket. Non-blocking.
    pub socket: OwnedFd,
    /// Its file, if it has one.
    pub file: Option<NotifyFile>,
}

/// The file of a [`NotifySocket`]. Dropping it removes the file.
#[derive(Debug)]
pub struct NotifyFile {
    directory: Directory,
    name: OsString,
    file: Pinned,
}

impl Drop for NotifyFile {
    fn drop(&mut self) {
        // What is gone already need not be removed.
        drop(self.directory.remove(&self.name, self.file.id()));
    }
}

/// A socket with a name that cannot be guessed, in a directory that is called `path`, for programs that run as
/// `owner`. Without an owner root's program may become anybody, and anybody can send: see who did.
///
/// # Errors
/// Those of socket(2), bind(2) and chown(2); `ENAMETOOLONG`.
pub fn bind_in(directory: &Directory, path: &Path, owner: Option<u32>) -> io::Result<NotifySocket> {
    let name = OsString::from(format!("notify-{}", random::name()?));
    let told = path.join(&name).into_os_string().into_string();
    let told = told.map_err(|_| io::ErrorKind::InvalidInput)?;
    let address = SocketAddrUnix::new(told.as_str())?;
    let socket = unbound()?;
    rustix::net::bind(&socket, &address)?;
    let file = NotifyFile {
        file: directory.pin(&name)?,
        directory: directory.try_clone()?,
        name,
    };
    if let Some(owner) = owner.map(rustix::fs::Uid::from_raw) {
        let flags = AtFlags::EMPTY_PATH;
        rustix::fs::chownat(&file.file, c"", Some(owner), None, flags)?;
    }
    let is_for_all = owner.is_none() && identity::is_root();
    let mode = if is_for_all { 0o666 } else { 0o600 };
    rustix::fs::chmod(file.file.path(), Mode::from_raw_mode(mode))?;
    Ok(NotifySocket {
        name: told,
        socket,
        file: Some(file),
    })
}

/// The same in the abstract namespace, for want of a directory: everybody can find it and send.
///
/// # Errors
/// Those of socket(2) and bind(2), and of reading `/dev/urandom`.
pub fn bind() -> io::Result<NotifySocket> {
    let name = format!("phalanx/{}", random::name()?);
    let socket = unbound()?;
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
    rustix::net::bind(&socket, &address)?;
    Ok(NotifySocket {
        name: format!("@{name}"),
        socket,
        file: None,
    })
}

/// Tells who sends.
fn unbound() -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_passcred(&socket, true)?;
    Ok(socket)
}

/// Takes one datagram. Descriptors that come with it are closed (`FDSTORE=1`, `BARRIER=1`).
///
/// # Errors
/// `EAGAIN` when there is none: wait until readable.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // Room for credentials and for nothing else: the kernel closes what does not fit.
    let mut control = Control {
        // SAFETY: integers without any invalid value.
        header: unsafe { mem::zeroed() },
        credentials: libc::ucred {
            pid: 0,
            uid: libc::uid_t::MAX,
            gid: libc::gid_t::MAX,
        },
    };
    // SAFETY: integers and pointers, for which zero is valid.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut control).cast();
    message.msg_controllen = length(mem::size_of::<Control>())?;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let bytes = loop {
        // SAFETY: the descriptor is open, and the message points to memory that is valid for writing
        // as much as it says and that outlives the call.
        let received = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
        if let Ok(bytes) = usize::try_from(received) {
            break bytes;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    let is_complete = message.msg_controllen >= length(mem::size_of::<Control>())?;
    Ok(Datagram {
        bytes,
        sender: control.sender().filter(|_| is_complete),
    })
}

/// A length as the C library at hand has it: glibc and musl differ.
fn length<T: TryFrom<usize>>(bytes: usize) -> io::Result<T> {
    T::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// A control message with credentials (cmsg(3)); there is no padding between its parts.
#[repr(C)]
struct Control {
    header: libc::cmsghdr,
    credentials: libc::ucred,
}

impl Control {
    fn sender(&self) -> Option<Credentials> {
        let is_credentials = self.header.cmsg_level == libc::SOL_SOCKET
            && self.header.cmsg_type == libc::SCM_CREDENTIALS;
        is_credentials.then(|| Credentials {
            pid: Pid::from_raw(self.credentials.pid),
            uid: self.credentials.uid,
            gid: self.credentials.gid,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    #[test]
    fn a_datagram_comes_with_its_sender() {
        let NotifySocket { socket, name, .. } = bind().unwrap();
        let mut buffer = [0; 64];
        let nothing = receive(socket.as_fd(), &mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        let address = SocketAddr::from_abstract_name(name.trim_start_matches('@')).unwrap();
        let program = UnixDatagram::unbound().unwrap();
        program.send_to_addr(b"READY=1", &address).unwrap();
        let datagram = receive(socket.as_fd(), &mut buffer).unwrap();
        assert_eq!(&buffer[..datagram.bytes], b"READY=1");
        let sender = datagram.sender.unwrap();
        assert_eq!(sender.pid, Some(Pid::current()));
        assert_eq!(sender.uid, rustix::process::getuid().as_raw());
    }
    #[test]
    fn a_socket_in_a_directory_is_the_programs_alone() {
        let place = tempfile::tempdir().unwrap();
        let directory = Directory::open(place.path()).unwrap();
        let own = identity::effective_uid();
        let NotifySocket { socket, name, file } =
            bind_in(&directory, place.path(), Some(own)).unwrap();
        assert_eq!(
            file.as_ref()
                .map(|file| file.directory.pin(&file.name).unwrap().mode()),
            Some(0o600)
        );
        UnixDatagram::unbound()
            .unwrap()
            .send_to(b"READY=1", &name)
            .unwrap();
        let mut buffer = [0; 64];
        assert_eq!(receive(socket.as_fd(), &mut buffer).unwrap().bytes, 7);
        drop(file);
        assert!(!Path::new(&name).exists());
    }
}
