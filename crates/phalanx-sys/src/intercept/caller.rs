//! The caller: its socket, its memory, its descriptor's flags.
//!
//! All of it is known by the number of a thread, which somebody else may have by now: whoever looks
//! here asks afterwards whether the caller still waits.
#![allow(unsafe_code, reason = "the memory of another process, and its sockets")]

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{PidfdFlags, pidfd_open};

use crate::fd;
use crate::process::Pid;

/// A `pidfd` for a thread rather than a process (`PIDFD_THREAD`, Linux 6.9).
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.unsigned_abs());

/// `sizeof(struct sockaddr_in)`, `sizeof(struct sockaddr_in6)`, and the latter without its scope, which
/// the kernel takes as well (`SIN6_LEN_RFC2133`).
const V4_BYTES: usize = 16;
const V6_BYTES: usize = 28;
const V6_BYTES_SHORT: usize = 24;

/// The process that a thread belongs to (`Tgid`, `proc_pid_status(5)`).
pub(super) fn process_of(thread: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    Pid::from_number(line.trim().parse().ok()?)
}

/// As which user the caller acts (the second number of `Uid`, `proc_pid_status(5)`).
pub(super) fn user_of(thread: Pid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// A duplicate of a descriptor of the caller, close-on-exec (`pidfd_getfd(2)`, Linux 5.6).
///
/// # Errors
///
/// `EBADF`; `EPERM` when the caller may not be looked into: it has changed its user, and this process
/// has no `CAP_SYS_PTRACE`.
pub(super) fn descriptor(thread: Pid, process: Pid, number: i32) -> io::Result<OwnedFd> {
    let open = |pid: Pid, flags| {
        let pid = pid.as_rustix().ok_or(io::ErrorKind::NotFound)?;
        Ok::<_, io::Error>(pidfd_open(pid, flags)?)
    };
    // The first thread, for which a process's pidfd stands, may have ended before the others.
    let pidfd = open(thread, PIDFD_THREAD).or_else(|_| open(process, PidfdFlags::empty()))?;
    fd::of_process(pidfd.as_fd(), number)
}

/// The flags of the open file, and whether the descriptor is closed by exec (`flags` in `proc_pid_fdinfo(5)`).
pub(super) fn flags(thread: Pid, number: i32) -> Option<i32> {
    let info = fs::read_to_string(format!("/proc/{thread}/fdinfo/{number}")).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    i32::from_str_radix(line.trim(), 8).ok()
}

/// The number of the descriptor's file.
pub(super) fn inode_of(thread: Pid, number: i32) -> Option<u64> {
    let file = fs::metadata(format!("/proc/{thread}/fd/{number}")).ok()?;
    Some(file.ino())
}

/// An `int` in the caller's memory.
pub(super) fn number(thread: Pid, address: u64) -> Option<i32> {
    let mut bytes = [0; 4];
    read_memory(thread, address, &mut bytes)?;
    Some(i32::from_ne_bytes(bytes))
}

/// Whether the caller's network is this process's. One that cannot be seen is taken for another.
pub(super) fn shares_network(thread: Pid) -> bool {
    let network = |path: &str| fs::metadata(path).map(|one| (one.dev(), one.ino()));
    let own = network("/proc/self/ns/net");
    let its = network(&format!("/proc/{thread}/ns/net"));
    matches!((own, its), (Ok(own), Ok(its)) if own == its)
}

/// The internet address at `address` in the caller's memory; nothing for any other address, for one
/// that only makes sense together with an interface, and where there is no memory.
pub(super) fn internet_address(thread: Pid, address: u64, length: u64) -> Option<SocketAddr> {
    let mut bytes = [0_u8; V6_BYTES];
    let length = usize::try_from(length).ok()?.min(V6_BYTES);
    let bytes = bytes.get_mut(..length)?;
    read_memory(thread, address, bytes)?;
    parse(bytes)
}

fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let (family, rest) = bytes.split_first_chunk::<2>()?;
    let (port, rest) = rest.split_first_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        libc::AF_INET if bytes.len() >= V4_BYTES => {
            let ip: [u8; 4] = *rest.first_chunk()?;
            Some(SocketAddrV4::new(Ipv4Addr::from(ip), port).into())
        }
        libc::AF_INET6 if bytes.len() >= V6_BYTES_SHORT => {
            let ip: [u8; 16] = *rest.get(4..)?.first_chunk()?;
            let ip = Ipv6Addr::from(ip);
            if ip.is_unicast_link_local() {
                return None;
            }
            Some(SocketAddrV6::new(ip, port, 0, 0).into())
        }
        _ => None,
    }
}

/// The path in the Unix address at `address` in the caller's memory, as it is written there; nothing for any other
/// address, the abstract ones included.
pub(super) fn unix_path(thread: Pid, address: u64, length: u64) -> Option<PathBuf> {
    let mut bytes = [0_u8; mem::size_of::<libc::sockaddr_un>()];
    let length = usize::try_from(length).ok()?.min(bytes.len());
    let bytes = bytes.get_mut(..length)?;
    read_memory(thread, address, bytes)?;
    let (family, name) = bytes.split_first_chunk::<2>()?;
    if i32::from(u16::from_ne_bytes(*family)) != libc::AF_UNIX {
        return None;
    }
    let name = name.split(|&byte| byte == 0).next()?;
    (!name.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(name)))
}

/// The path at `address` in the caller's memory.
pub(super) fn path(thread: Pid, address: u64) -> Option<PathBuf> {
    const CHUNK: usize = 256;
    const LONGEST: usize = 4096;
    let mut path = Vec::new();
    while path.len() < LONGEST {
        // Not beyond the end of a page, behind which there may be nothing.
        let at = address.checked_add(u64::try_from(path.len()).ok()?)?;
        let room = CHUNK - usize::try_from(at).ok()? % CHUNK;
        let mut bytes = [0_u8; CHUNK];
        let bytes = bytes.get_mut(..room)?;
        read_memory(thread, at, bytes)?;
        if let Some(end) = bytes.iter().position(|&byte| byte == 0) {
            path.extend_from_slice(bytes.get(..end)?);
            return (!path.is_empty()).then(|| PathBuf::from(OsString::from_vec(path)));
        }
        path.extend_from_slice(bytes);
    }
    None
}

/// Where the caller's path leads, seen from here: its root and its directories may be others than this process's.
pub(super) fn seen_from_here(thread: Pid, directory: i32, path: &Path) -> PathBuf {
    let base = if path.is_absolute() {
        format!("/proc/{thread}/root")
    } else if directory == libc::AT_FDCWD {
        format!("/proc/{thread}/cwd")
    } else {
        format!("/proc/{thread}/fd/{directory}")
    };
    let relative = path.strip_prefix("/").unwrap_or(path);
    Path::new(&base).join(relative)
}

/// The directory in which the caller is.
pub(super) fn working_directory(thread: Pid) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{thread}/cwd")).ok()
}

/// The caller's file mode creation mask (`Umask`, `proc_pid_status(5)`).
pub(super) fn umask(thread: Pid) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

/// Fills `buf` from the caller's memory (`process_vm_readv(2)`), or finds nothing there.
fn read_memory(thread: Pid, address: u64, buf: &mut [u8]) -> Option<()> {
    let pid = thread.as_rustix()?.as_raw_nonzero().get();
    let local = libc::iovec {
        iov_base: buf.as_mut_ptr().cast(),
        iov_len: buf.len(),
    };
    let remote = libc::iovec {
        iov_base: std::ptr::with_exposed_provenance_mut(usize::try_from(address).ok()?),
        iov_len: buf.len(),
    };
    // SAFETY: the kernel writes to `buf` and no further; the other address is not this process's, and
    // the kernel checks it.
    let read = unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) };
    (usize::try_from(read) == Ok(buf.len())).then_some(())
}

const _: () = assert!(mem::size_of::<libc::sockaddr_in>() == V4_BYTES);
const _: () = assert!(mem::size_of::<libc::sockaddr_in6>() == V6_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_reads_them() {
        let mut v4 = [0; V6_BYTES];
        v4[..8].copy_from_slice(&[2, 0, 0x1f, 0x90, 127, 0, 0, 1]);
        assert_eq!(parse(&v4), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(parse(&v4[..V4_BYTES - 1]), None);
        let mut v6 = [0; V6_BYTES];
        v6[..4].copy_from_slice(&[10, 0, 0, 80]);
        v6[23] = 1;
        assert_eq!(parse(&v6), Some("[::1]:80".parse().unwrap()));
        assert_eq!(
            parse(&v6[..V6_BYTES_SHORT]),
            Some("[::1]:80".parse().unwrap())
        );
        assert_eq!(parse(&v6[..V4_BYTES]), None);
        v6[8] = 0xfe;
        v6[9] = 0x80;
        assert_eq!(parse(&v6), None, "link-local");
        assert_eq!(parse(&[1; V6_BYTES]), None, "another family");
        assert_eq!(parse(&[]), None);
    }

    #[test]
    fn memory_is_read_or_is_not_there() {
        let own = Pid::current();
        let text = *b"twenty-eight bytes of memory";
        let mut buf = [0; V6_BYTES];
        let address = u64::try_from(text.as_ptr().expose_provenance()).unwrap();
        assert_eq!(read_memory(own, address, &mut buf), Some(()));
        assert_eq!(buf, text);
        for address in [0, 8, u64::MAX, u64::MAX - 7] {
            assert_eq!(read_memory(own, address, &mut buf), None);
        }
    }

    #[test]
    fn this_process_is_in_its_own_network() {
        assert!(shares_network(Pid::current()));
        assert_eq!(process_of(Pid::current()), Some(Pid::current()));
    }
}
