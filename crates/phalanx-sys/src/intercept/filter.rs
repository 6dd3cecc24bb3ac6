//! The filter: which system calls stop until they are answered.
//!
//! A program in the kernel's classic BPF (seccomp(2)). It sees the number and the arguments of each
//! system call, but no memory. A bind whose address is shorter than a `sockaddr_in` or longer than any
//! address cannot be about TCP: the many binds of netlink sockets that resolving names takes (12 bytes)
//! pass without notice. Of setsockopt(2), only options are noticed that a server sets once, before it
//! listens; those that are set for each connection pass.
#![allow(unsafe_code, reason = "seccomp(2) has no wrapper")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

/// `AUDIT_ARCH_…` of this program's own system call table (`linux/audit.h`); none where the order of
/// bytes or the table is not known here.
const ARCH: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

/// Where things are in `struct seccomp_data`; of the second and third argument the lower half.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_SECOND: u32 = 24;
const OFFSET_THIRD: u32 = 32;

/// `sizeof(struct sockaddr_in)` and `sizeof(struct sockaddr_storage)`.
const SHORTEST: u32 = 16;
const LONGEST: u32 = 128;
/// A Unix address with a name of one character, and `sizeof(struct sockaddr_nl)`.
const SHORTEST_PATH: u32 = 3;
const NETLINK: u32 = 12;

#[cfg(target_arch = "x86_64")]
const UNLINK: libc::c_long = libc::SYS_unlink;
#[cfg(not(target_arch = "x86_64"))]
const UNLINK: libc::c_long = libc::SYS_unlinkat;

const LENGTH: usize = 24;
const OPTION: u8 = 8;
const ONLY_V6: u8 = 15;
const ADDRESS: u8 = 18;
const ALLOW: u8 = 22;
const NOTIFY: u8 = 23;

const PROGRAM: [libc::sock_filter; LENGTH] = program(false);
const PROGRAM_WITH_PATHS: [libc::sock_filter; LENGTH] = program(true);

/// The program, which also notices what is done to Unix paths if it shall. A jump counts from the instruction
/// behind it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "constants: instruction codes fit 16 bits, and numbers of calls and options are positive"
)]
const fn program(with_paths: bool) -> [libc::sock_filter; LENGTH] {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const ABOVE: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const fn one(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
        libc::sock_filter { code, jt, jf, k }
    }
    let arch = match ARCH {
        Some(arch) => arch,
        None => 0,
    };
    let (path, shortest) = if with_paths {
        (NOTIFY, SHORTEST_PATH)
    } else {
        (ALLOW, SHORTEST)
    };
    [
        one(LOAD, 0, 0, OFFSET_ARCH),
        one(EQUAL, 0, ALLOW - 2, arch),
        one(LOAD, 0, 0, OFFSET_NUMBER),
        one(EQUAL, NOTIFY - 4, 0, libc::SYS_listen as u32),
        one(EQUAL, ADDRESS - 5, 0, libc::SYS_bind as u32),
        one(EQUAL, OPTION - 6, 0, libc::SYS_setsockopt as u32),
        one(EQUAL, path - 7, 0, libc::SYS_unlinkat as u32),
        one(EQUAL, path - 8, ALLOW - 8, UNLINK as u32),
        // An option: at which level, and which.
        one(LOAD, 0, 0, OFFSET_SECOND),
        one(EQUAL, 0, ONLY_V6 - 10, libc::SOL_SOCKET as u32),
        one(LOAD, 0, 0, OFFSET_THIRD),
        one(EQUAL, NOTIFY - 12, 0, libc::SO_REUSEPORT as u32),
        one(
            AT_LEAST,
            0,
            ALLOW - 13,
            libc::SO_ATTACH_REUSEPORT_CBPF as u32,
        ),
        one(ABOVE, 0, NOTIFY - 14, libc::SO_ATTACH_REUSEPORT_EBPF as u32),
        one(
            EQUAL,
            NOTIFY - 15,
            ALLOW - 15,
            libc::SO_DETACH_REUSEPORT_BPF as u32,
        ),
        one(EQUAL, 0, ALLOW - 16, libc::IPPROTO_IPV6 as u32),
        one(LOAD, 0, 0, OFFSET_THIRD),
        one(EQUAL, NOTIFY - 18, ALLOW - 18, libc::IPV6_V6ONLY as u32),
        // An address: how long.
        one(LOAD, 0, 0, OFFSET_THIRD),
        one(EQUAL, ALLOW - 20, 0, NETLINK),
        one(AT_LEAST, 0, ALLOW - 21, shortest),
        one(ABOVE, 0, NOTIFY - 22, LONGEST),
        one(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        one(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
    ]
}

/// Whether the filter understands this processor's system calls.
pub(super) fn knows_processor() -> bool {
    ARCH.is_some()
}

/// Puts this thread and all that it starts under the filter, for ever, and returns the descriptor on
/// which its calls are reported (close-on-exec). For a new process before exec: async-signal-safe.
///
/// # Errors
///
/// `EBUSY` when somebody else listens to this process's calls already (a sandbox, another phalanx
/// around this one); `EINVAL` or `ENOSYS` on a kernel that cannot; `EPERM` in a sandbox that forbids it.
pub(crate) fn install(with_paths: bool) -> Result<OwnedFd, Errno> {
    if !knows_processor() {
        return Err(Errno::NOSYS);
    }
    match set_filter(with_paths) {
        // Without privilege the kernel wants to be sure that no setuid program is fooled.
        Err(Errno::ACCESS) => {
            rustix::thread::set_no_new_privs(true)?;
            set_filter(with_paths)
        }
        done => done,
    }
}

/// From the moment that a call is being answered, only a deadly signal takes the caller out of it
/// (`WAIT_KILLABLE_RECV`, Linux 5.19); without that, programs would see `EINTR` from bind(2).
fn set_filter(with_paths: bool) -> Result<OwnedFd, Errno> {
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    match set_filter_with(
        with_paths,
        listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
    ) {
        Err(Errno::INVAL) => set_filter_with(with_paths, listener),
        done => done,
    }
}

fn set_filter_with(with_paths: bool, flags: libc::c_ulong) -> Result<OwnedFd, Errno> {
    let mut program = if with_paths {
        PROGRAM_WITH_PATHS
    } else {
        PROGRAM
    };
    let program = libc::sock_fprog {
        len: libc::c_ushort::try_from(program.len()).map_err(|_| Errno::INVAL)?,
        filter: ptr::from_mut(&mut program).cast(),
    };
    // SAFETY: the kernel copies the program, which is valid during the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const program,
        )
    };
    match i32::try_from(result) {
        // SAFETY: the call has just made the descriptor, and nobody else knows its number.
        Ok(number) if number >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(number) }),
        Ok(_) | Err(_) => {
            Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would make of a system call. Knows the instructions that the program uses.
    fn verdict(arch: u32, number: i64, length: u64) -> u32 {
        verdict_of(&PROGRAM, arch, number, 0, length)
    }

    fn verdict_of(
        program: &[libc::sock_filter; LENGTH],
        arch: u32,
        number: i64,
        second: u64,
        length: u64,
    ) -> u32 {
        let mut data = [0_u8; 64];
        data[24..32].copy_from_slice(&second.to_ne_bytes());
        data[..4].copy_from_slice(&i32::try_from(number).unwrap().to_ne_bytes());
        data[4..8].copy_from_slice(&arch.to_ne_bytes());
        data[32..40].copy_from_slice(&length.to_ne_bytes());
        let (mut at, mut value) = (0, 0);
        loop {
            let libc::sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let holds = match code {
                0x20 => {
                    let from = usize::try_from(k).unwrap();
                    value = u32::from_ne_bytes(data[from..from + 4].try_into().unwrap());
                    continue;
                }
                0x06 => return k,
                0x15 => value == k,
                0x35 => value >= k,
                0x25 => value > k,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    #[test]
    fn only_what_can_be_about_tcp_is_noticed() {
        let (arch, notify) = (ARCH.unwrap(), libc::SECCOMP_RET_USER_NOTIF);
        assert_eq!(verdict(arch, libc::SYS_listen, 0), notify);
        for length in [16, 28, 110, 128] {
            assert_eq!(verdict(arch, libc::SYS_bind, length), notify, "{length}");
        }
        for length in [0, 12, 15, 129, 0xffff_ffff] {
            let allow = verdict(arch, libc::SYS_bind, length);
            assert_eq!(allow, libc::SECCOMP_RET_ALLOW, "{length}");
        }
        for number in [libc::SYS_connect, libc::SYS_accept4, libc::SYS_shutdown] {
            assert_eq!(verdict(arch, number, 16), libc::SECCOMP_RET_ALLOW);
        }
    }

    #[test]
    fn paths_are_noticed_where_they_shall_be() {
        let (arch, notify) = (ARCH.unwrap(), libc::SECCOMP_RET_USER_NOTIF);
        let noticed =
            |program, number, length| verdict_of(program, arch, number, 0, length) == notify;
        for number in [libc::SYS_unlinkat, UNLINK] {
            assert!(noticed(&PROGRAM_WITH_PATHS, number, 0));
            assert!(!noticed(&PROGRAM, number, 0));
        }
        for length in [3, 11, 13, 16, 110] {
            assert!(noticed(&PROGRAM_WITH_PATHS, libc::SYS_bind, length));
        }
        for length in [0, 2, 12, 129] {
            assert!(!noticed(&PROGRAM_WITH_PATHS, libc::SYS_bind, length));
        }
        assert!(!noticed(&PROGRAM_WITH_PATHS, libc::SYS_openat, 0));
    }

    #[test]
    fn only_options_of_servers_are_noticed() {
        let (arch, number) = (ARCH.unwrap(), libc::SYS_setsockopt);
        let noticed = |level: i32, option: i32| {
            let [level, option] = [level, option].map(|one| u64::try_from(one).unwrap());
            verdict_of(&PROGRAM, arch, number, level, option) == libc::SECCOMP_RET_USER_NOTIF
        };
        for option in 0..80 {
            let expected = [15, 51, 52, 68].contains(&option);
            assert_eq!(noticed(libc::SOL_SOCKET, option), expected, "{option}");
            assert_eq!(noticed(libc::IPPROTO_IPV6, option), option == 26);
            assert!(!noticed(libc::IPPROTO_TCP, option));
        }
    }

    #[test]
    fn another_table_of_system_calls_is_left_alone() {
        const I386: u32 = 0x4000_0003;
        let allow = libc::SECCOMP_RET_ALLOW;
        assert_eq!(verdict(I386, libc::SYS_listen, 16), allow);
        // The numbers of the x32 table have this bit.
        let x32 = libc::SYS_listen | 0x4000_0000;
        assert_eq!(verdict(ARCH.unwrap(), x32, 16), allow);
    }
}
