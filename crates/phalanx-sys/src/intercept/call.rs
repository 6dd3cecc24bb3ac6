//! A stopped call about a TCP socket, and its answers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::net::sockopt;

use super::notice::{self, Answer, Notice};
use super::socket_view::SocketView;
use super::{Channel, Next, caller, socket_options};
use crate::listening::sockets_of;
use crate::process::{Pid, family_of};
use crate::socket::{self, SocketId, TcpOptions};
use crate::waiting::holding;

/// What the caller wants.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_enums, reason = "the filter stops nothing else")]
pub enum Act {
    /// bind(2) to this address; port 0 lets the kernel choose.
    Bind(SocketAddr),
    /// bind(2) of a Unix stream socket to this path.
    BindPath {
        /// As the program writes it.
        written: PathBuf,
        /// The same, absolute.
        path: PathBuf,
        /// The program's file mode creation mask.
        umask: u32,
    },
    /// listen(2) with this backlog.
    Listen {
        /// How many connections may wait; 0 for a negative number.
        backlog: u32,
    },
    /// setsockopt(2): a program is to choose among the sockets of its group, or no program any more
    /// (`SO_ATTACH_REUSEPORT_CBPF` and its like, socket(7)).
    Steer,
}

/// A call that waits for its answer. Dropping it lets it pass.
///
/// All answers tell whether the caller was still there: it may have died, or been taken out of the call
/// by a signal, after which it calls again.
#[derive(Debug)]
pub struct Call {
    channel: Arc<Channel>,
    id: u64,
    act: Act,
    process: Pid,
    thread: Pid,
    number: i32,
    view: SocketView,
    is_answered: bool,
}

#[expect(
    clippy::must_use_candidate,
    reason = "an answer that nobody hears is no fault: the caller is gone"
)]
impl Call {
    /// Looks at a call, and answers it if it is none of ours.
    pub(super) fn examine(channel: &Arc<Channel>, notice: &Notice) -> Next {
        match Self::look(channel, notice) {
            Ok(Some(call)) if notice::still_waits(channel.as_fd(), notice.id) => Next::Call(call),
            // Dropping it answers it, in vain.
            Ok(Some(_)) => Next::Passed,
            outcome => {
                // Fails only when nobody waits for it any more.
                let _heard = notice::answer(channel.as_fd(), notice.id, Answer::Pass);
                match outcome {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Next::Hidden,
                    Ok(_) | Err(_) => Next::Passed,
                }
            }
        }
    }

    fn look(channel: &Arc<Channel>, notice: &Notice) -> io::Result<Option<Call>> {
        let Some(thread) = Pid::from_number(notice.thread) else {
            return Ok(None);
        };
        let Some(process) = caller::process_of(thread) else {
            return Ok(None);
        };
        let number = lower_half(notice.args[0]);
        let Some(view) = SocketView::of(thread, process, number, &channel.memory)? else {
            return Ok(None);
        };
        if (view.is_unix && !channel.with_paths) || !caller::shares_network(thread) {
            return Ok(None);
        }
        let act = match notice.number {
            libc::SYS_listen => {
                let backlog = lower_half(notice.args[1]);
                Some(Act::Listen {
                    backlog: u32::try_from(backlog).unwrap_or(0),
                })
            }
            libc::SYS_setsockopt if view.is_unix => None,
            libc::SYS_bind if view.is_unix => bind_path(thread, notice),
            libc::SYS_setsockopt => option(channel, thread, &view, notice),
            _ if view.is_unix => None,
            _ => {
                let address = caller::internet_address(thread, notice.args[1], notice.args[2]);
                // The kernel refuses an address of the other family in words of its own.
                let fits = |address: &SocketAddr| view.local.is_ipv6() == address.is_ipv6();
                address.filter(fits).map(Act::Bind)
            }
        };
        if let Some(Act::Bind(address)) = &act
            && view.duplicate.is_none()
        {
            channel
                .memory
                .note(view.id, |known| known.bound = Some(*address));
        }
        Ok(act.map(|act| Call {
            channel: Arc::clone(channel),
            id: notice.id,
            act,
            process,
            thread,
            number,
            view,
            is_answered: false,
        }))
    }

    /// What the caller wants.
    #[must_use]
    pub fn act(&self) -> Act {
        self.act.clone()
    }

    /// Whether it is about a Unix socket.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.view.is_unix
    }

    /// The process that calls: the one that was started, or a descendant.
    #[must_use]
    pub fn process(&self) -> Pid {
        self.process
    }

    /// A duplicate of the socket that it calls with; nothing where a sandbox forbids to make any.
    #[must_use]
    pub fn socket(&self) -> Option<Arc<OwnedFd>> {
        self.view.duplicate.clone()
    }

    /// Which socket that is.
    #[must_use]
    pub fn socket_id(&self) -> SocketId {
        self.view.id
    }

    /// Where the socket is bound; port 0 if it is not.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.view.local
    }

    /// Whether it is an IPv6 socket that leaves IPv4 alone.
    #[must_use]
    pub fn is_only_v6(&self) -> bool {
        self.view.only_v6
    }

    /// Whether the program shares the port among sockets of its own (`SO_REUSEPORT`).
    #[must_use]
    pub fn shares_port(&self) -> bool {
        self.view.shares_port
    }

    /// Whether the socket listens already. Where there is no duplicate of it, that is not known, and false.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.view.is_listening
    }

    /// Whether the calling process has `socket` open under another number than that of this call
    /// (`/proc/PID/fd`). False when that cannot be known.
    #[must_use]
    pub fn caller_holds(&self, socket: BorrowedFd<'_>) -> bool {
        let own = caller::inode_of(self.thread, self.number);
        match (fstat(socket).map(|stat| stat.st_ino), own) {
            (Ok(wanted), Some(own)) if wanted != own => {
                sockets_of(self.process).is_ok_and(|held| held.contains(&wanted))
            }
            (_, _) => false,
        }
    }

    /// Whether something besides the calling descriptor stands for this very socket: a duplicate, here or in
    /// another process of `family`'s, or a registration with epoll(7). It would be lost if another socket were
    /// planted.
    ///
    /// Costs a directory listing for each process, and a read for each of its epoll instances.
    #[must_use]
    pub fn is_attached(&self, family: Pid) -> bool {
        let Some(inode) = caller::inode_of(self.thread, self.number) else {
            return false;
        };
        let mut members = family_of(family);
        if !members.contains(&self.process) {
            members.push(self.process);
        }
        let holds = |&member: &Pid| holding(member, inode);
        let held: Vec<_> = members.iter().map(holds).collect();
        held.iter().map(|one| one.numbers).sum::<usize>() > 1
            || held.iter().any(|one| one.is_registered)
    }

    /// Binds the socket to `address`, as one of a group of this process's user. Does not answer the call.
    ///
    /// # Errors
    ///
    /// Those of bind(2); `Unsupported` when there is no duplicate of the socket.
    pub fn bind_in_group(&self, address: SocketAddr) -> io::Result<()> {
        let Some(socket) = &self.view.duplicate else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        socket::join_group(socket.as_fd())?;
        sockopt::set_socket_reuseaddr(socket, true)?;
        Ok(rustix::net::bind(socket, &address)?)
    }

    /// Binds the socket so that others can bind the same address as long as nobody listens there
    /// (`SO_REUSEADDR`, socket(7)): the workers of one program all bind before the first of them listens. When that
    /// has succeeded, the call returns 0; it is not answered when it fails.
    ///
    /// A socket of which there is no duplicate is replaced by one that this process has bound.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2), bind(2) and [`Call::plant`].
    pub fn bind_beside(&mut self, address: SocketAddr) -> io::Result<()> {
        if let Some(socket) = &self.view.duplicate {
            sockopt::set_socket_reuseaddr(socket, true)?;
            rustix::net::bind(socket, &address)?;
            self.answer(Answer::Done);
            return Ok(());
        }
        let options = TcpOptions {
            only_v6: self.view.only_v6,
            ..TcpOptions::default()
        };
        let own = socket::bind_tcp(address, &options)?;
        let (only_v6, shares_port) = (self.view.only_v6, self.view.shares_port);
        let id = super::id_of(own.as_fd())?;
        self.channel.memory.note(id, |known| {
            known.only_v6 = Some(only_v6);
            known.shares_port = shares_port;
            known.bound = Some(address);
        });
        self.replace(own.as_fd())
    }

    /// Whether this process may bind to the port on behalf of the caller: it is one that everybody may bind to, or
    /// the caller is of the same user.
    #[must_use]
    pub fn may_bind_for_it(&self, port: u16) -> bool {
        const PRIVILEGED: u16 = 1024;
        let own = rustix::process::geteuid().as_raw();
        port >= PRIVILEGED || caller::user_of(self.thread) == Some(own)
    }

    /// Lets others bind the same address as long as nobody listens there.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2).
    pub fn tolerate_others(&self) -> io::Result<()> {
        match &self.view.duplicate {
            Some(socket) if !self.view.is_unix => Ok(sockopt::set_socket_reuseaddr(socket, true)?),
            Some(_) | None => Ok(()),
        }
    }

    /// The kernel carries the call out, as if nobody had watched.
    pub fn pass(mut self) -> bool {
        self.answer(Answer::Pass)
    }

    /// The call returns 0 and nothing else happens.
    pub fn succeed(mut self) -> bool {
        self.answer(Answer::Done)
    }

    /// The call fails with the number of an error; `EINVAL` where the error has none.
    pub fn fail(mut self, error: &io::Error) -> bool {
        self.answer(Answer::Fail(errno_of(error)))
    }

    /// Makes the caller's descriptor a duplicate of `slot`, as much like the socket that it was as can
    /// be, and the call returns 0. The caller's socket is closed, unless it has duplicates of it. What
    /// the caller had registered of it with epoll(7) is gone.
    ///
    /// The flags and options belong to `slot` itself, whoever has it open.
    ///
    /// # Errors
    ///
    /// `NotFound` when the caller is gone. Any other error is the caller's as well: its call fails.
    pub fn plant(mut self, slot: BorrowedFd<'_>) -> io::Result<()> {
        self.replace(slot)
    }

    fn replace(&mut self, slot: BorrowedFd<'_>) -> io::Result<()> {
        let flags = caller::flags(self.thread, self.number);
        let close_on_exec = flags.is_none_or(|flags| flags & libc::O_CLOEXEC != 0);
        match &self.view.duplicate {
            Some(socket) if !self.view.is_unix => socket_options::copy(socket.as_fd(), slot),
            Some(_) | None => {
                socket_options::set_mode(slot, flags.unwrap_or(0) & libc::O_NONBLOCK != 0);
            }
        }
        let number = self.number.unsigned_abs();
        let planted = notice::plant(self.channel.as_fd(), self.id, slot, number, close_on_exec);
        match planted {
            Ok(()) if self.answer(Answer::Done) => Ok(()),
            Ok(()) => Err(io::ErrorKind::NotFound.into()),
            Err(errno) => {
                let error = match errno {
                    Errno::NOENT | Errno::SRCH | Errno::INPROGRESS => {
                        io::ErrorKind::NotFound.into()
                    }
                    other => other.into(),
                };
                self.answer(Answer::Fail(errno));
                Err(error)
            }
        }
    }

    fn answer(&mut self, answer: Answer) -> bool {
        self.is_answered = true;
        notice::answer(self.channel.as_fd(), self.id, answer).is_ok()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_answered {
            // Fails only when nobody waits for it any more.
            let _heard = notice::answer(self.channel.as_fd(), self.id, Answer::Pass);
        }
    }
}

fn bind_path(thread: Pid, notice: &Notice) -> Option<Act> {
    let written = caller::unix_path(thread, notice.args[1], notice.args[2])?;
    let path = caller::working_directory(thread)?.join(&written);
    let umask = caller::umask(thread).unwrap_or(0o022);
    Some(Act::BindPath {
        written,
        path,
        umask,
    })
}

/// An `int` argument: the kernel looks at the lower half of the register.
fn lower_half(argument: u64) -> i32 {
    let [a, b, c, d, ..] = argument.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// What an option of a TCP socket asks for that is not the caller's alone. Others are remembered, where nothing else
/// tells of them, and pass.
fn option(channel: &Channel, thread: Pid, view: &SocketView, notice: &Notice) -> Option<Act> {
    let (level, option) = (lower_half(notice.args[1]), lower_half(notice.args[2]));
    if level == libc::SOL_SOCKET && option != libc::SO_REUSEPORT {
        return Some(Act::Steer);
    }
    let value = caller::number(thread, notice.args[3]);
    if let (None, Some(value)) = (&view.duplicate, value) {
        channel.memory.note(view.id, |known| {
            if level == libc::SOL_SOCKET {
                known.shares_port = value != 0;
            } else {
                known.only_v6 = Some(value != 0);
            }
        });
    }
    None
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}
