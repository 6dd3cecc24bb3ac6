//! Whether a process waits for connections on a socket: readiness seen from outside, for programs that were
//! given a socket that listens already.
//!
//! The kernel tells what each epoll instance watches (`/proc/PID/fdinfo`, `proc_pid_fdinfo(5)`) and in which system
//! call each thread waits, with its arguments (`/proc/PID/task/TID/syscall`, `proc_pid_syscall(5)`). What poll(2)
//! and select(2) wait for is read from the process's memory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::fstat;

use crate::process::{self, Pid, family_of};

/// What a look at a process tells of a socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_enums, reason = "a look tells nothing else")]
pub enum Sight {
    /// It waits for connections on it.
    Waits,
    /// It does not, at the moment.
    Idle,
    /// It may or may not: it, or one that descends from it, has an `io_uring(7)` or may not be looked into.
    Hidden,
}

/// As [`waits_on`], and tells who cannot be seen waiting from who does not wait.
///
/// # Errors
/// As [`waits_on`].
pub fn look(pid: Pid, socket: BorrowedFd<'_>) -> io::Result<Sight> {
    let link = format!("socket:[{}]", fstat(socket)?.st_ino);
    let mut sight = Sight::Idle;
    for pid in family_of(pid) {
        let member = Member::of(pid, &link);
        if member.waits() {
            return Ok(Sight::Waits);
        }
        if member.hides() {
            sight = Sight::Hidden;
        }
    }
    Ok(sight)
}

/// Whether the process, or one that descends from it, waits for connections on `socket`, of which it has a copy:
/// in accept(2), poll(2) or select(2), or by epoll(7). One that uses `io_uring(7)` is not seen.
///
/// Costs a few directory listings for each process. A process that is busy at the moment is seen the next time.
///
/// # Errors
/// Those of fstat(2). What cannot be looked at, because the process has become another user, is not seen.
pub fn waits_on(pid: Pid, socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(look(pid, socket)? == Sight::Waits)
}

/// How a process holds a socket.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Holding {
    /// Under how many numbers.
    pub(crate) numbers: usize,
    /// One of them is registered with an epoll instance, for whatever event.
    pub(crate) is_registered: bool,
}

/// How the process holds the socket with this inode number. What cannot be looked at is not seen.
pub(crate) fn holding(pid: Pid, inode: u64) -> Holding {
    let member = Member::of(pid, &format!("socket:[{inode}]"));
    Holding {
        numbers: member.sockets.len(),
        is_registered: member.registers(),
    }
}

/// A process, and what of its descriptors matters here.
struct Member {
    pid: Pid,
    /// The numbers under which it has the socket.
    sockets: BTreeSet<i32>,
    epolls: Vec<i32>,
    /// It may be doing what is not seen in its descriptors and system calls.
    has_ring: bool,
}

impl Member {
    fn of(pid: Pid, link: &str) -> Self {
        let mut member = Self {
            pid,
            sockets: BTreeSet::new(),
            epolls: Vec::new(),
            has_ring: false,
        };
        let entries = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten();
        for entry in entries.flatten() {
            let number = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            let (Some(number), Ok(target)) = (number, fs::read_link(entry.path())) else {
                continue;
            };
            if target.as_os_str() == link {
                member.sockets.insert(number);
            } else if target.as_os_str() == "anon_inode:[eventpoll]" {
                member.epolls.push(number);
            } else if target.as_os_str() == "anon_inode:[io_uring]" {
                member.has_ring = true;
            }
        }
        member
    }

    fn waits(&self) -> bool {
        !self.sockets.is_empty() && (self.watches() || self.blocks())
    }

    /// A zombie is not looked into by anybody but root, and does nothing.
    fn hides(&self) -> bool {
        let is_closed = |file: &str| {
            let looked = File::open(format!("/proc/{}/{file}", self.pid));
            let looked = looked.and_then(|file| file.read_at(&mut [0], 0).map(drop));
            let is_no = |kind| {
                matches!(
                    kind,
                    io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound
                )
            };
            looked.is_err_and(|error| is_no(error.kind()))
        };
        let is_hidden = self.has_ring || is_closed("fd") || is_closed("syscall");
        is_hidden && process::Member::of(self.pid).is_some()
    }

    fn watches(&self) -> bool {
        self.lists(|events| events & libc::EPOLLIN.cast_unsigned() != 0)
    }

    fn registers(&self) -> bool {
        !self.sockets.is_empty() && self.lists(|_| true)
    }

    /// Does an epoll instance list one of the sockets, with such events?
    fn lists(&self, is_it: impl Fn(u32) -> bool) -> bool {
        let mut epolls = self.epolls.iter();
        epolls.any(|epoll| {
            let path = format!("/proc/{}/fdinfo/{epoll}", self.pid);
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines()
                .filter_map(watched)
                .any(|(number, events)| is_it(events) && self.sockets.contains(&number))
        })
    }

    fn blocks(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid))
            .into_iter()
            .flatten();
        tasks.flatten().any(|task| {
            let text = fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
            Call::parse(&text).is_some_and(|call| self.is_waiting(&call))
        })
    }

    fn is_waiting(&self, call: &Call) -> bool {
        let [first, second] = call.arguments;
        if ACCEPTS.contains(&call.number) {
            i32::try_from(first).is_ok_and(|number| self.sockets.contains(&number))
        } else if POLLS.contains(&call.number) {
            let bytes = self.memory(first, second.saturating_mul(8));
            let mut entries = bytes.as_chunks::<8>().0.iter();
            entries.any(|entry| self.polls(*entry))
        } else if SELECTS.contains(&call.number) {
            let bytes = self.memory(second, first.div_ceil(64) * 8);
            let mut sockets = self.sockets.iter();
            sockets.any(|&number| is_set(&bytes, number))
        } else {
            false
        }
    }

    /// Is this `struct pollfd` about reading from the socket?
    fn polls(&self, entry: [u8; 8]) -> bool {
        let [a, b, c, d, low, high, ..] = entry;
        let number = i32::from_ne_bytes([a, b, c, d]);
        let events = i16::from_ne_bytes([low, high]);
        events & libc::POLLIN != 0 && self.sockets.contains(&number)
    }

    /// What the process has in its memory there; nothing if that cannot be read.
    fn memory(&self, at: u64, length: u64) -> Vec<u8> {
        let length = usize::try_from(length.min(MEMORY_BYTES_MAX)).unwrap_or(0);
        let mut bytes = vec![0; length];
        let read = File::open(format!("/proc/{}/mem", self.pid))
            .and_then(|memory| memory.read_exact_at(&mut bytes, at));
        match read {
            Ok(()) => bytes,
            Err(_) => Vec::new(),
        }
    }
}

/// Of so much memory a descriptor set or list is read at most: 8192 descriptors of poll(2).
const MEMORY_BYTES_MAX: u64 = 1 << 16;

const ACCEPTS: &[i64] = &[libc::SYS_accept, libc::SYS_accept4];
#[cfg(target_arch = "x86_64")]
const POLLS: &[i64] = &[libc::SYS_poll, libc::SYS_ppoll];
#[cfg(not(target_arch = "x86_64"))]
const POLLS: &[i64] = &[libc::SYS_ppoll];
#[cfg(target_arch = "x86_64")]
const SELECTS: &[i64] = &[libc::SYS_select, libc::SYS_pselect6];
#[cfg(not(target_arch = "x86_64"))]
const SELECTS: &[i64] = &[libc::SYS_pselect6];

/// Bit `number` of an `fd_set`, which is an array of 64-bit words.
fn is_set(bytes: &[u8], number: i32) -> bool {
    let number = usize::try_from(number).unwrap_or(usize::MAX);
    let words = bytes.as_chunks::<8>().0;
    let word = words.get(number / 64).map(|word| u64::from_ne_bytes(*word));
    word.is_some_and(|word| word >> (number % 64) & 1 == 1)
}

/// The descriptor that a line of an epoll instance's information is about, and its events:
/// `tfd:        5 events:       19 data: …`
fn watched(line: &str) -> Option<(i32, u32)> {
    let mut words = line.strip_prefix("tfd:")?.split_ascii_whitespace();
    let number = words.next()?.parse().ok()?;
    let events = words.nth(1)?;
    Some((number, u32::from_str_radix(events, 16).ok()?))
}

/// A system call that a thread waits in, and its first two arguments.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    number: i64,
    arguments: [u64; 2],
}

impl Call {
    /// `running`, or the number and the arguments in hexadecimal; -1 outside of a system call.
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let number = words.next()?.parse().ok()?;
        let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
        Some(Self {
            number,
            arguments: [argument()?, argument()?],
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::process::{Child, Command, Stdio};

    use rustix::event::epoll;

    use super::*;

    #[test]
    fn what_the_kernel_writes_is_understood() {
        let line = "tfd:        5 events:       19 data:      5  pos:0 ino:3f2 sdev:8";
        assert_eq!(watched(line), Some((5, 0x19)));
        assert_eq!(
            watched("tfd:        5 events: 80000018 data: 5"),
            Some((5, 0x8000_0018))
        );
        assert_eq!(watched("flags: 02"), None);
        assert_eq!(Call::parse("running\n"), None);
        assert_eq!(
            Call::parse("-1 0x7ffe 0x7f0\n").map(|call| call.number),
            Some(-1)
        );
        let call = Call::parse("288 0x3 0x0 0x0 0x80800 0x0 0x0 0x7ffd 0x7f2").unwrap();
        assert_eq!((call.number, call.arguments), (288, [3, 0]));
        assert!(is_set(&[0, 1, 0, 0, 0, 0, 0, 0], 8) && !is_set(&[0, 1], 8));
    }

    #[test]
    fn a_socket_in_an_epoll_instance_is_waited_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let seen = || waits_on(Pid::current(), listener.as_fd()).unwrap();
        assert!(!seen());
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let data = epoll::EventData::new_u64(0);
        epoll::add(&epoll, &other, data, epoll::EventFlags::IN).unwrap();
        assert!(!seen());
        epoll::add(&epoll, &listener, data, epoll::EventFlags::IN).unwrap();
        assert!(seen());
    }

    /// Python with the listener as its standard input.
    fn python(listener: &TcpListener, code: &str) -> Option<Child> {
        let code = format!("import select, socket\ns = socket.socket(fileno=0)\n{code}");
        let mut command = Command::new("python3");
        command.args(["-c", &code]);
        command.stdin(Stdio::from(std::os::fd::OwnedFd::from(
            listener.try_clone().unwrap(),
        )));
        command.spawn().ok()
    }

    #[test]
    fn a_thread_that_waits_in_a_system_call_is_seen() {
        for code in [
            "s.accept()",
            "p = select.poll(); p.register(s, select.POLLIN); p.poll()",
            "select.select([s], [], [])",
            "e = select.epoll(); e.register(s, select.EPOLLIN); e.poll()",
            "import os\nif os.fork(): os.wait()\nelse: s.accept()",
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let Some(mut child) = python(&listener, code) else {
                return;
            };
            let pid = Pid::from_number(child.id()).unwrap();
            let seen = phalanx_testkit::wait::try_eventually(phalanx_testkit::LIMIT, || {
                waits_on(pid, listener.as_fd()).unwrap().then_some(())
            });
            assert!(seen.is_some(), "{code}");
            // It ends by being connected to.
            drop(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            child.wait().unwrap();
        }
    }
}
