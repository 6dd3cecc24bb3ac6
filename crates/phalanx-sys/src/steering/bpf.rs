//! The bpf(2) system call, as far as steering needs it: four commands and a socket option.
#![allow(unsafe_code, reason = "neither libc nor rustix wraps bpf(2)")]

use std::ffi::CStr;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::fd;

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const PROG_LOAD: libc::c_long = 5;

/// `BPF_PROG_TYPE_SK_REUSEPORT`.
const TYPE_SK_REUSEPORT: u32 = 21;
/// `BPF_SK_REUSEPORT_SELECT_OR_MIGRATE`: asked as well where to move a connection whose slot is
/// closed.
const ATTACH_SELECT_OR_MIGRATE: u32 = 40;

/// One instruction, as the kernel takes it.
pub(super) type Instruction = [u8; 8];

/// A map to be made: what its definition in the program says.
#[derive(Clone, Copy, Debug)]
pub(super) struct MapSpec {
    pub(super) kind: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: u32,
}

/// The part of `union bpf_attr` that `BPF_MAP_CREATE` reads.
#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    inner_map_fd: u32,
    numa_node: u32,
    map_name: [u8; 16],
}

/// The part that `BPF_MAP_*_ELEM` reads.
#[repr(C)]
struct MapElement {
    map_fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The part that `BPF_PROG_LOAD` reads.
#[repr(C)]
struct ProgramLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

/// Makes a map (bpf(2), `BPF_MAP_CREATE`), close-on-exec.
pub(super) fn create_map(name: &str, spec: &MapSpec) -> io::Result<OwnedFd> {
    let attributes = MapCreate {
        map_type: spec.kind,
        key_size: spec.key_size,
        value_size: spec.value_size,
        max_entries: spec.max_entries,
        map_flags: spec.flags,
        inner_map_fd: 0,
        numa_node: 0,
        map_name: object_name(name),
    };
    // SAFETY: the attributes hold no pointers.
    let created = unsafe { bpf(MAP_CREATE, &attributes) }?;
    // SAFETY: the call above opened it and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(created) })
}

/// Stores a socket in a `REUSEPORT_SOCKARRAY` (`BPF_MAP_UPDATE_ELEM`).
pub(super) fn store_socket(
    map: BorrowedFd<'_>,
    index: u32,
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    let value = u64::from(socket.as_raw_fd().unsigned_abs());
    let attributes = MapElement {
        map_fd: map.as_raw_fd().unsigned_abs(),
        padding: 0,
        key: (&raw const index).addr() as u64,
        value: (&raw const value).addr() as u64,
        flags: 0,
    };
    // SAFETY: key and value live until the call returns, with the sizes of the map's definition.
    unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }.map(drop)
}

/// Takes a socket out of a `REUSEPORT_SOCKARRAY` (`BPF_MAP_DELETE_ELEM`); none there is no error.
pub(super) fn remove_socket(map: BorrowedFd<'_>, index: u32) -> io::Result<()> {
    let attributes = MapElement {
        map_fd: map.as_raw_fd().unsigned_abs(),
        padding: 0,
        key: (&raw const index).addr() as u64,
        value: 0,
        flags: 0,
    };
    // SAFETY: the key lives until the call returns, with the size of the map's definition.
    match unsafe { bpf(MAP_DELETE_ELEM, &attributes) } {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result.map(drop),
    }
}

/// Loads a program that chooses among the sockets of a group (`BPF_PROG_LOAD`). With room in
/// `log`, the verifier writes there what it thinks of the program.
pub(super) fn load_program(
    name: &str,
    instructions: &[Instruction],
    license: &CStr,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let attributes = ProgramLoad {
        prog_type: TYPE_SK_REUSEPORT,
        insn_cnt: u32::try_from(instructions.len()).map_err(|_| invalid())?,
        insns: instructions.as_ptr().addr() as u64,
        license: license.as_ptr().addr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: u32::try_from(log.len()).map_err(|_| invalid())?,
        log_buf: if log.is_empty() {
            0
        } else {
            log.as_mut_ptr().addr() as u64
        },
        kern_version: 0,
        prog_flags: 0,
        prog_name: object_name(name),
        prog_ifindex: 0,
        expected_attach_type: ATTACH_SELECT_OR_MIGRATE,
    };
    // SAFETY: instructions, licence and log live until the call returns, with the sizes given; the
    // log is borrowed for writing.
    let loaded = unsafe { bpf(PROG_LOAD, &attributes) }?;
    // SAFETY: the call above opened it and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(loaded) })
}

/// Has the program choose for the group that `socket` belongs to (socket(7),
/// `SO_ATTACH_REUSEPORT_EBPF`), in place of any before.
pub(super) fn attach(program: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SO_ATTACH_REUSEPORT_EBPF, program.as_raw_fd())
}

/// Lets the kernel's hash choose again for the group (`SO_DETACH_REUSEPORT_BPF`).
pub(super) fn detach(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::SO_DETACH_REUSEPORT_BPF, 0)
}

/// Waits until every program run that is under way has ended: they run within what membarrier(2),
/// `MEMBARRIER_CMD_GLOBAL`, waits for (a grace period of RCU). Takes milliseconds.
pub(super) fn wait_for_runs() -> io::Result<()> {
    const GLOBAL: libc::c_long = 1;
    // SAFETY: takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn set_option(socket: BorrowedFd<'_>, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(mem::size_of_val(&value))
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is open and `value` is valid for reading `length` bytes.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const value).cast(),
            length,
        )
    };
    fd::check(result).map(drop)
}

/// The call itself. It zero-extends shorter attributes than the kernel knows.
///
/// # Safety
///
/// Addresses in the attributes are valid for what `command` does with them.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_int> {
    loop {
        // SAFETY: `attributes` is as long as is said, and by contract its addresses are valid.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                command,
                std::ptr::from_ref(attributes),
                mem::size_of::<T>(),
            )
        };
        let error = match libc::c_int::try_from(result) {
            Ok(result) if result >= 0 => return Ok(result),
            _ => io::Error::last_os_error(),
        };
        // The verifier gives way to signals with EAGAIN.
        let again = [libc::EAGAIN, libc::EINTR].map(Some);
        if command != PROG_LOAD || !again.contains(&error.raw_os_error()) {
            return Err(error);
        }
    }
}

/// A name of at most 15 bytes, for `bpftool` to show.
fn object_name(name: &str) -> [u8; 16] {
    let mut field = [0; 16];
    for (to, from) in field.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    field
}
