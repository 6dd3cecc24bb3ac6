//! Whether a process listens: readiness seen from outside.
//!
//! The kernel tells which sockets a process holds (`/proc/PID/fd`) and which sockets of its
//! network namespace listen (`/proc/PID/net`); the inode number is what they have in common.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};

use crate::process::Pid;

/// A socket on which a process listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_enums, reason = "the tables that are read")]
pub enum Listening {
    /// TCP, with its address.
    Tcp(SocketAddr),
    /// A Unix stream socket.
    Unix,
}

/// Whether the process holds a listening TCP or Unix stream socket, whoever else holds it too
/// (`proc_pid_fd(5)`, `proc_pid_net(5)`).
///
/// # Errors
///
/// As [`listeners`].
pub fn listens(pid: Pid) -> io::Result<bool> {
    Ok(!listeners(pid)?.is_empty())
}

/// The listening TCP and Unix stream sockets that the process holds, whoever else holds them too
/// (`proc_pid_fd(5)`, `proc_pid_net(5)`).
///
/// Costs a directory listing and, if there are sockets, a read of the network tables up to
/// where the listening ones end; connections do not make it slower, other than the process's
/// own. Good for a look now and then, not for every request.
///
/// # Errors
///
/// `NotFound` when there is no such process, `PermissionDenied` when it belongs to another
/// user and this process is not root.
pub fn listeners(pid: Pid) -> io::Result<Vec<Listening>> {
    let held = sockets_of(pid)?;
    let mut found = Vec::new();
    if held.is_empty() {
        return Ok(found);
    }
    for table in [Table::Tcp, Table::Tcp6, Table::Unix] {
        let path = format!("/proc/{pid}/net/{}", table.file());
        match File::open(path) {
            Ok(file) => found.extend(listed(table, BufReader::new(file), &held)?),
            // A kernel without IPv6 has no table for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The inode numbers of the sockets that the process has open.
pub(crate) fn sockets_of(pid: Pid) -> io::Result<HashSet<u64>> {
    let mut inodes = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // A descriptor that was closed meanwhile is no loss.
        let Ok(target) = fs::read_link(entry?.path()) else {
            continue;
        };
        inodes.extend(target.to_str().and_then(socket_inode));
    }
    Ok(inodes)
}

/// The number in `socket:[12345]`.
fn socket_inode(link: &str) -> Option<u64> {
    let number = link.strip_prefix("socket:[")?.strip_suffix(']')?;
    number.parse().ok()
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Table {
    Tcp,
    Tcp6,
    Unix,
}

/// A line of a table.
#[derive(PartialEq, Eq, Debug)]
enum Line {
    Listening { inode: u64, socket: Listening },
    Other,
}

/// Those of the table's listening sockets that are among `held`.
fn listed(table: Table, lines: impl BufRead, held: &HashSet<u64>) -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    // The first line is the heading.
    for line in lines.lines().skip(1) {
        match table.read(&line?) {
            Some(Line::Listening { inode, socket }) if held.contains(&inode) => found.push(socket),
            Some(Line::Other) if table.begins_with_listeners() => break,
            Some(Line::Listening { .. } | Line::Other) | None => {}
        }
    }
    Ok(found)
}

/// `0100007F:1F90`: each group of eight digits is a word in the machine's byte order; the port is a number.
fn parse_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::new();
    for word in 0..ip.len() / 8 {
        let word = ip.get(word * 8..word * 8 + 8)?;
        bytes.extend(u32::from_str_radix(word, 16).ok()?.to_ne_bytes());
    }
    let ip: IpAddr = match <[u8; 16]>::try_from(bytes.as_slice()) {
        Ok(bytes) => bytes.into(),
        Err(_) => <[u8; 4]>::try_from(bytes.as_slice()).ok()?.into(),
    };
    Some(SocketAddr::new(ip, port))
}

impl Table {
    fn file(self) -> &'static str {
        match self {
            Table::Tcp => "tcp",
            Table::Tcp6 => "tcp6",
            Table::Unix => "unix",
        }
    }

    /// Linux walks the hash of listening sockets before that of connections (`tcp_seek_last_pos`
    /// in `net/ipv4/tcp_ipv4.c`), so whatever follows the first connection can be left unread:
    /// on a busy machine that is nearly everything.
    fn begins_with_listeners(self) -> bool {
        match self {
            Table::Tcp | Table::Tcp6 => true,
            Table::Unix => false,
        }
    }

    /// `None` for a line that cannot be understood.
    fn read(self, line: &str) -> Option<Line> {
        let mut fields = line.split_ascii_whitespace();
        let (socket, listens, inode) = match self {
            // sl local rem st queues timer retransmits uid timeout inode
            Table::Tcp | Table::Tcp6 => {
                let address = parse_address(fields.nth(1)?)?;
                let listens = fields.nth(1)? == "0A";
                (Listening::Tcp(address), listens, fields.nth(5)?)
            }
            // address references protocol flags (SO_ACCEPTCONN) type (stream) state inode
            Table::Unix => {
                let is_acceptor = fields.nth(3)? == "00010000";
                let is_stream = fields.next()? == "0001";
                (Listening::Unix, is_acceptor && is_stream, fields.nth(1)?)
            }
        };
        Some(if listens {
            Line::Listening {
                inode: inode.parse().ok()?,
                socket,
            }
        } else {
            Line::Other
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100
   1: 0100007F:1F91 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 20
";
    const UNIX: &str = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000003 00000000 00000000 0001 03 21
0000000000000000: 00000002 00000000 00010000 0005 01 22 /seqpacket
0000000000000000: 00000002 00000000 00010000 0001 01 23 /stream with a blank
";

    fn lists(table: Table, text: &str, inode: u64) -> bool {
        let found = listed(table, text.as_bytes(), &HashSet::from([inode])).unwrap();
        !found.is_empty()
    }

    #[test]
    fn listening_sockets_are_told_from_others() {
        assert!(lists(Table::Tcp, TCP, 11));
        assert!(!lists(Table::Tcp, TCP, 12));
        assert!(!lists(Table::Unix, UNIX, 21));
        assert!(!lists(Table::Unix, UNIX, 22));
        assert!(lists(Table::Unix, UNIX, 23));
    }

    #[test]
    fn addresses_are_read() {
        let found = listed(Table::Tcp, TCP.as_bytes(), &HashSet::from([11])).unwrap();
        assert_eq!(found, [Listening::Tcp("127.0.0.1:8080".parse().unwrap())]);
        let v6 = "00000000000000000000000001000000:0050";
        assert_eq!(parse_address(v6), "[::1]:80".parse().ok());
        assert_eq!(parse_address("zz:0050"), None);
    }

    #[test]
    fn links_of_descriptors_are_read() {
        assert_eq!(socket_inode("socket:[4711]"), Some(4711));
        assert_eq!(socket_inode("pipe:[4711]"), None);
        assert_eq!(socket_inode("/tmp/socket:[4711]"), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_an_error() {
        // Above the highest pid_max that Linux allows.
        let nobody = Pid::from_number(5_000_000).unwrap();
        let error = listens(nobody).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
