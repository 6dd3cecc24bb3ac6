//! A stopped bind or listen of a TCP socket, and its answers.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::net::sockopt;

use super::notice::{self, Answer, Notice};
use super::{Next, caller, likeness};
use crate::listening::sockets_of;
use crate::process::Pid;
use crate::socket::{Address, SocketKind, local_address, socket_kind};

/// What the caller wants.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[expect(clippy::exhaustive_enums, reason = "the filter stops nothing else")]
pub enum Act {
    /// bind(2) to this address; port 0 lets the kernel choose.
    Bind(SocketAddr),
    /// listen(2) with this backlog.
    Listen {
        /// How many connections may wait; 0 for a negative number.
        backlog: u32,
    },
}

/// A call that waits for its answer. Dropping it lets it pass.
///
/// All answers tell whether the caller was still there: it may have died, or been taken out of the call
/// by a signal, after which it calls again.
#[derive(Debug)]
pub struct Call {
    listener: Arc<OwnedFd>,
    id: u64,
    act: Act,
    process: Pid,
    thread: Pid,
    number: i32,
    socket: OwnedFd,
    is_answered: bool,
}

#[expect(
    clippy::must_use_candidate,
    reason = "an answer that nobody hears is no fault: the caller is gone"
)]
impl Call {
    /// Looks at a call, and answers it if it is none of ours.
    pub(super) fn examine(listener: &Arc<OwnedFd>, notice: &Notice) -> Next {
        match Self::look(listener, notice) {
            Ok(Some(call)) if notice::still_waits(listener.as_fd(), notice.id) => Next::Call(call),
            // Dropping it answers it, in vain.
            Ok(Some(_)) => Next::Passed,
            outcome => {
                // Fails only when nobody waits for it any more.
                let _heard = notice::answer(listener.as_fd(), notice.id, Answer::Pass);
                match outcome {
                    Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Next::Hidden,
                    Ok(_) | Err(_) => Next::Passed,
                }
            }
        }
    }

    fn look(listener: &Arc<OwnedFd>, notice: &Notice) -> io::Result<Option<Call>> {
        let Some(thread) = Pid::from_number(notice.thread) else {
            return Ok(None);
        };
        let Some(process) = caller::process_of(thread) else {
            return Ok(None);
        };
        let number = lower_half(notice.args[0]);
        let socket = caller::descriptor(thread, process, number)?;
        if !is_plain_tcp(socket.as_fd())? || !caller::shares_network(thread) {
            return Ok(None);
        }
        let act = if notice.number == libc::SYS_listen {
            let backlog = lower_half(notice.args[1]);
            Some(Act::Listen {
                backlog: u32::try_from(backlog).unwrap_or(0),
            })
        } else {
            let length = notice.args[2];
            let address = caller::internet_address(thread, notice.args[1], length);
            // The kernel refuses an address of the other family in words of its own.
            let own = local_address(socket.as_fd())?;
            let fits = |address: &SocketAddr| matches!(own, Address::Inet(own) if own.is_ipv6() == address.is_ipv6());
            address.filter(fits).map(Act::Bind)
        };
        Ok(act.map(|act| Call {
            listener: Arc::clone(listener),
            id: notice.id,
            act,
            process,
            thread,
            number,
            socket,
            is_answered: false,
        }))
    }

    /// What the caller wants.
    #[must_use]
    pub fn act(&self) -> Act {
        self.act
    }

    /// The process that calls: the one that was started, or a descendant.
    #[must_use]
    pub fn process(&self) -> Pid {
        self.process
    }

    /// The socket that it calls with.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether the calling process has `socket` open under another number than that of this call
    /// (`/proc/PID/fd`). False when that cannot be known.
    #[must_use]
    pub fn caller_holds(&self, socket: BorrowedFd<'_>) -> bool {
        let inode = |fd| fstat(fd).map(|stat| stat.st_ino);
        match (inode(socket), inode(self.socket())) {
            (Ok(wanted), Ok(own)) if wanted != own => {
                sockets_of(self.process).is_ok_and(|held| held.contains(&wanted))
            }
            (_, _) => false,
        }
    }

    /// Lets others bind the same address as long as nobody listens there (`SO_REUSEADDR`, socket(7)):
    /// the workers of one program all bind before the first of them listens.
    ///
    /// # Errors
    ///
    /// Those of setsockopt(2).
    pub fn tolerate_others(&self) -> io::Result<()> {
        Ok(sockopt::set_socket_reuseaddr(&self.socket, true)?)
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
        likeness::copy(self.socket(), slot);
        let close_on_exec = caller::is_close_on_exec(self.thread, self.number).unwrap_or(true);
        let number = self.number.unsigned_abs();
        let planted = notice::plant(self.listener.as_fd(), self.id, slot, number, close_on_exec);
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
        notice::answer(self.listener.as_fd(), self.id, answer).is_ok()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.is_answered {
            // Fails only when nobody waits for it any more.
            let _heard = notice::answer(self.listener.as_fd(), self.id, Answer::Pass);
        }
    }
}

/// An `int` argument: the kernel looks at the lower half of the register.
fn lower_half(argument: u64) -> i32 {
    let [a, b, c, d, ..] = argument.to_le_bytes();
    i32::from_le_bytes([a, b, c, d])
}

/// A TCP socket (multipath TCP included) that is not tied to an interface.
fn is_plain_tcp(socket: BorrowedFd<'_>) -> io::Result<bool> {
    let is_tcp = match socket_kind(socket)? {
        SocketKind::TcpListener | SocketKind::TcpStream => true,
        SocketKind::UnixListener | SocketKind::UnixStream | SocketKind::Udp | SocketKind::Other => {
            false
        }
    };
    Ok(is_tcp && !likeness::is_tied(socket))
}

fn errno_of(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}
