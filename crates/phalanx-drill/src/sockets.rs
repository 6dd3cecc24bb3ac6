//! Which connections a worker has in service: its process group's sockets, by the ports of their clients.
//!
//! Read from `/proc` (proc(5)), which shows them to the worker's own user and to root.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use phalanx_sys::connections::remote_ports;

/// A process and those of the process group that it leads.
#[derive(Clone, Debug)]
pub(super) struct Group {
    leader: u32,
    members: Vec<u32>,
}

impl Group {
    /// The group as it is now.
    pub(super) fn of(leader: u32) -> io::Result<Self> {
        let mut members = vec![leader];
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if pid != leader && process_group(&stat) == Some(leader) {
                members.push(pid);
            }
        }
        Ok(Self { leader, members })
    }

    /// The ports of all clients whose connections the group has accepted and not closed.
    pub(super) fn clients(&self) -> io::Result<BTreeSet<u16>> {
        let mut inodes = BTreeSet::new();
        for pid in &self.members {
            // Another process of the group may have ended; the leader's own sockets must be seen.
            match sockets_of(*pid) {
                Ok(sockets) => inodes.extend(sockets),
                Err(error) if *pid == self.leader => return Err(error),
                Err(_) => {}
            }
        }
        if is_in_this_network(self.leader) {
            return remote_ports(&inodes);
        }
        // The kernel lists another network namespace for those who are in it.
        let mut ports = BTreeSet::new();
        for table in ["tcp", "tcp6"] {
            // A kernel without IPv6 has no such table.
            let path = format!("/proc/{}/net/{table}", self.leader);
            let text = fs::read_to_string(path).unwrap_or_default();
            let all = text.lines().filter_map(established);
            let own = all.filter(|(_, inode)| inodes.contains(inode));
            ports.extend(own.map(|(port, _)| port));
        }
        Ok(ports)
    }

    /// Whether every thread of the group stands still. A signal only asks for that: a thread that waits for
    /// a processor in the middle of accept(2) first finishes it.
    pub(super) fn stands_still(&self) -> bool {
        self.members.iter().all(|pid| {
            // Whoever has ended meanwhile does nothing any more.
            let threads = fs::read_dir(format!("/proc/{pid}/task"));
            threads.into_iter().flatten().flatten().all(|thread| {
                let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                matches!(state(&stat), None | Some('T' | 't' | 'Z' | 'X'))
            })
        })
    }
}

/// The process group in `/proc/PID/stat`. The program's name, in brackets, may hold anything.
fn process_group(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    // State, parent, group.
    rest.split_ascii_whitespace().nth(2)?.parse().ok()
}

fn is_in_this_network(pid: u32) -> bool {
    let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    network(&pid.to_string()) == network("self")
}

fn state(stat: &str) -> Option<char> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.trim_start().chars().next()
}

fn sockets_of(pid: u32) -> io::Result<Vec<u64>> {
    let mut sockets = Vec::new();
    for entry in fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd"))? {
        // A descriptor may be closed while it is looked at.
        let target = fs::read_link(entry?.path()).unwrap_or_default();
        let inode = target
            .to_str()
            .and_then(|target| target.strip_prefix("socket:["));
        let inode = inode.and_then(|inode| inode.strip_suffix(']')?.parse::<u64>().ok());
        sockets.extend(inode);
    }
    Ok(sockets)
}

/// The remote port and the inode of a line of `/proc/net/tcp`, if the connection is not only listening.
fn established(line: &str) -> Option<(u16, u64)> {
    /// `TCP_LISTEN` of the kernel's `tcp_states.h`.
    const LISTENING: &str = "0A";
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, _local, remote, state, _, _, _, _, _, inode, ..] = fields.as_slice() else {
        return None;
    };
    let (_, port) = remote.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    (*state != LISTENING).then_some((port, inode.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_tables_of_proc_are_read() {
        let line = "   1: 0100007F:1F90 0100007F:D2F4 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 000 20 4 30 10 -1";
        assert_eq!(established(line), Some((0xd2f4, 4711)));
        assert_eq!(established(&line.replace(" 01 ", " 0A ")), None);
        assert_eq!(established("  sl  local_address rem_address   st"), None);
        assert_eq!(process_group("12 (a) b) S 1 34 34 0"), Some(34));
        assert_eq!(state("12 (a) b) S 1 34 34 0"), Some('S'));
    }

    #[test]
    fn a_process_that_runs_does_not_stand_still() {
        assert!(!Group::of(std::process::id()).unwrap().stands_still());
    }

    #[test]
    fn the_clients_of_this_process_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        let me = Group::of(std::process::id()).unwrap();
        // Not accepted yet: in nobody's service.
        assert!(!me.clients().unwrap().contains(&port));
        let _accepted = listener.accept().unwrap();
        assert!(me.clients().unwrap().contains(&port));
    }
}
