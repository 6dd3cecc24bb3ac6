//! Steering without privilege: a classic BPF program (`SO_ATTACH_REUSEPORT_CBPF`, socket(7), Linux 4.6)
//! draws a slot at random in proportion to weights, or goes by the client's address.
//!
//! Such a program knows no state, so it cannot take turns or compare loads, and it cannot move what
//! waits in a slot. What it can do is to leave positions out: a worker that drains gets nothing new.
//!
//! # Invariants
//!
//! * The kernel counts the sockets of a group in the order in which they began to listen; when one
//!   stops, the last takes its number (`net/core/sock_reuseport.c`). [`ClassicGroup`] counts alike,
//!   so sockets must be added and removed through it, and nobody else may join the group.
//! * A program takes the place of the one before in one step; no connection sees two.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{Shutdown, shutdown};

use crate::socket::{Classic, attach_classic};

/// A program has at most so many instructions (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;
/// Instructions before the list of shares, at most.
const PREAMBLE: usize = 24;
/// So many positions can have a share.
pub const SHARES_MAX: usize = (INSTRUCTIONS_MAX - PREAMBLE) / 2;

/// How a classic program draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Draw {
    /// At random.
    Chance,
    /// By the client's address: one client stays with one position while the shares stay.
    Source,
}

/// The sockets of one group in the kernel's order, and who of them has a share.
#[derive(Debug)]
pub struct ClassicGroup {
    /// Which token has which number.
    order: Vec<u64>,
    next_token: u64,
    /// A descriptor of each, for attaching and for stopping it.
    sockets: BTreeMap<u64, OwnedFd>,
    /// What is in force, but for the probe.
    draw: Draw,
    shares: Vec<(Member, u32)>,
    /// A connection from this source port is for this socket.
    probe: Option<(u16, Member)>,
}

/// A socket of a [`ClassicGroup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member(u64);

impl ClassicGroup {
    /// The group whose one socket is `first`.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn new(first: BorrowedFd<'_>) -> io::Result<(Self, Member)> {
        let mut group = Self {
            order: Vec::new(),
            next_token: 0,
            sockets: BTreeMap::new(),
            draw: Draw::Chance,
            shares: Vec::new(),
            probe: None,
        };
        let member = group.add(first)?;
        Ok((group, member))
    }

    /// The next socket of the group: it has begun to listen just now, after all others.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn add(&mut self, socket: BorrowedFd<'_>) -> io::Result<Member> {
        let copy = socket.try_clone_to_owned()?;
        let token = self.next_token;
        self.next_token += 1;
        self.order.push(token);
        self.sockets.insert(token, copy);
        Ok(Member(token))
    }

    /// The socket stops to listen, whoever has it open. What waits in it is lost, unless the sysctl
    /// `net.ipv4.tcp_migrate_req` is set.
    pub fn remove(&mut self, member: Member) {
        let Some(socket) = self.sockets.remove(&member.0) else {
            return;
        };
        // It fails when the socket has stopped already, which is what is wanted.
        shutdown(socket.as_fd(), Shutdown::Read).ok();
        if let Some(number) = self.order.iter().position(|&token| token == member.0) {
            self.order.swap_remove(number);
        }
    }

    /// Gives the members their shares, as weights; others get nothing from now on. Without any share
    /// the one before stays in force: a connection has to wait somewhere.
    ///
    /// # Errors
    /// `InvalidInput` for more than [`SHARES_MAX`] shares or weights beyond 32 bits in all; those of
    /// setsockopt(2).
    pub fn share(&mut self, draw: Draw, shares: &[(Member, u32)]) -> io::Result<()> {
        if self.numbered(shares).is_empty() {
            return Ok(());
        }
        self.draw = draw;
        self.shares = shares.to_vec();
        self.install()
    }

    /// Connections from this source port go to this member, whatever the shares, until
    /// [`ClassicGroup::end_probe`]. For a worker that is to be asked whether it serves.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn probe(&mut self, port: u16, member: Member) -> io::Result<()> {
        self.probe = Some((port, member));
        self.install()
    }

    /// Connections from every port go by the shares again.
    ///
    /// # Errors
    /// Those of setsockopt(2).
    pub fn end_probe(&mut self) -> io::Result<()> {
        self.probe = None;
        self.install()
    }

    fn install(&self) -> io::Result<()> {
        let numbered = self.numbered(&self.shares);
        let Some(any) = self.sockets.values().next() else {
            return Ok(());
        };
        let probe = self.probe;
        let probe = probe.and_then(|(port, member)| Some((port, self.number(member)?)));
        let program = program(self.draw, &numbered, probe).ok_or(io::ErrorKind::InvalidInput)?;
        attach_classic(any.as_fd(), &program)
    }

    /// By the kernel's numbers; those without a weight have no share.
    fn numbered(&self, shares: &[(Member, u32)]) -> Vec<(u32, u32)> {
        let numbered = shares
            .iter()
            .filter_map(|&(member, weight)| Some((self.number(member)?, weight)));
        numbered.filter(|&(_, weight)| weight > 0).collect()
    }

    fn number(&self, member: Member) -> Option<u32> {
        let number = self.order.iter().position(|&token| token == member.0)?;
        u32::try_from(number).ok()
    }
}

/// Offsets below these read the packet from its network header, and what the kernel knows of it
/// (`linux/filter.h`).
const NETWORK: u32 = 0xfff0_0000; // SKF_NET_OFF
const ANCILLARY: u32 = 0xffff_f000; // SKF_AD_OFF
const PROTOCOL: u32 = ANCILLARY;
const RANDOM: u32 = ANCILLARY + 56;
const ETH_P_IPV6: u32 = 0x86dd;
/// Knuth's multiplicative hash: neighbouring addresses come to lie far apart.
const GOLDEN: u32 = 2_654_435_761;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const TO_X: u32 = libc::BPF_MISC | libc::BPF_TAX;
const XOR_X: u32 = libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_BELOW_NOT: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const GO: u32 = libc::BPF_JMP | libc::BPF_JA;
const TIMES: u32 = libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K;
const RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
const REST: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
const ANSWER: u32 = libc::BPF_RET | libc::BPF_K;

/// The program that draws a number among `shares` (number, weight), whose weights are above 0, for all but
/// the connections of `probe` (source port, number). Without shares, the kernel's hash chooses.
fn program(draw: Draw, shares: &[(u32, u32)], probe: Option<(u16, u32)>) -> Option<Vec<Classic>> {
    let total = shares
        .iter()
        .try_fold(0_u32, |sum, &(_, weight)| sum.checked_add(weight))?;
    if shares.len() > SHARES_MAX {
        return None;
    }
    let mut code = probe.map_or_else(Vec::new, |(port, number)| {
        vec![
            (LOAD, 0, 0, PROTOCOL),
            (IF_EQUAL, 2, 0, ETH_P_IPV6),
            (LOAD_HALF, 0, 0, NETWORK + 20),
            (GO, 0, 0, 1),
            (LOAD_HALF, 0, 0, NETWORK + 40),
            (IF_EQUAL, 0, 1, u32::from(port)),
            (ANSWER, 0, 0, number),
        ]
    });
    if total == 0 {
        // No socket has this number.
        code.push((ANSWER, 0, 0, u32::MAX));
        return Some(code);
    }
    code.extend(match draw {
        Draw::Chance => vec![(LOAD, 0, 0, RANDOM)],
        Draw::Source => vec![
            (LOAD, 0, 0, PROTOCOL),
            (IF_EQUAL, 2, 0, ETH_P_IPV6),
            (LOAD, 0, 0, NETWORK + 12),
            (GO, 0, 0, 7),
            (LOAD, 0, 0, NETWORK + 8),
            (TO_X, 0, 0, 0),
            (LOAD, 0, 0, NETWORK + 12),
            (XOR_X, 0, 0, 0),
            (TO_X, 0, 0, 0),
            (LOAD, 0, 0, NETWORK + 20),
            (XOR_X, 0, 0, 0),
            (TIMES, 0, 0, GOLDEN),
            (RIGHT, 0, 0, 8),
        ],
    });
    code.push((REST, 0, 0, total));
    let mut end = 0;
    for &(number, weight) in shares {
        end += weight;
        code.push((IF_BELOW_NOT, 1, 0, end));
        code.push((ANSWER, 0, 0, number));
    }
    // Never reached: the rest is below the total. The kernel wants every way to end.
    code.push((ANSWER, 0, 0, 0));
    Some(code)
}
