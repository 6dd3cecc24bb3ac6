//! Limits of this process and what it uses of them.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::process::Pid;
use crate::procfs::told;

/// The soft limit of open files that this process was started with, once it was raised.
static INHERITED: OnceLock<Option<u64>> = OnceLock::new();

/// So many entries the table of descriptors gets at once.
const TABLE_SIZE: u64 = 16_384;

/// Raises the soft limit of open files to the hard one, and returns it (`u64::MAX`: unlimited). Also gives the table of
/// descriptors room for `TABLE_SIZE` of them (8 bytes each): in a process with threads each growth waits for
/// all processors (`synchronize_rcu`), which takes milliseconds. So call it before threads are started.
///
/// What [`spawn`](crate::process::spawn) starts has the soft limit of before: programs that use select(2) cannot
/// watch a descriptor above 1023, and rely on never being given one.
///
/// # Errors
///
/// Those of setrlimit(2).
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    INHERITED.get_or_init(|| limit.current);
    if limit.current != limit.maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )?;
    }
    let maximum = limit.maximum.unwrap_or(u64::MAX);
    grow_table(maximum.min(TABLE_SIZE))?;
    Ok(maximum)
}

/// Opens the highest descriptor of so many for a moment.
fn grow_table(size: u64) -> io::Result<()> {
    let highest = i32::try_from(size.saturating_sub(1)).unwrap_or(i32::MAX);
    let null = fs::File::open("/dev/null")?;
    drop(fcntl_dupfd_cloexec(null, highest)?);
    Ok(())
}

/// The limits of open files for a program that is started: those that this process was started with.
pub(crate) fn inherited_open_files() -> Option<Rlimit> {
    let current = *INHERITED.get()?;
    let maximum = getrlimit(Resource::Nofile).maximum;
    Some(Rlimit { current, maximum })
}

/// How many descriptors this process has open, the one used for counting left out
/// (`/proc/self/fd`, `proc_pid_fd(5)`).
///
/// # Errors
///
/// When `/proc` cannot be read.
pub fn open_files() -> io::Result<u64> {
    let mut count: u64 = 0;
    for entry in fs::read_dir("/proc/self/fd")? {
        entry?;
        count += 1;
    }
    Ok(count.saturating_sub(1))
}

/// How many descriptors a process has open (`proc_pid_fd(5)`; from Linux 6.2 on without walking through them).
///
/// # Errors
///
/// `NotFound` when there is no such process, `PermissionDenied` when it is another user's.
pub fn open_files_of(pid: Pid) -> io::Result<u64> {
    let directory = format!("/proc/{pid}/fd");
    let told = fs::metadata(&directory)?.len();
    if told > 0 {
        return Ok(told);
    }
    let mut count: u64 = 0;
    for entry in fs::read_dir(&directory)? {
        entry?;
        count += 1;
    }
    Ok(count)
}

/// How many more descriptors this process may open, at most: there may be fewer, while numbers that were
/// closed lately lie between. `any` is duplicated for a moment to learn the lowest free number (`dup(2)`).
///
/// # Errors
///
/// `EMFILE` when there are none.
pub fn descriptors_left(any: BorrowedFd<'_>) -> io::Result<u64> {
    let lowest_free = any.try_clone_to_owned()?;
    let number = u64::try_from(lowest_free.as_raw_fd()).unwrap_or(0);
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    Ok(limit.saturating_sub(number))
}

/// Descriptors that are to be left for what must not fail: starting workers, accepting, the log.
#[must_use]
pub fn descriptor_reserve() -> u64 {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    (limit / 8).min(1024)
}

/// The memory that a process occupies, in bytes (resident set size, shared pages included;
/// `proc_pid_statm(5)`). A zombie occupies none.
///
/// # Errors
///
/// `NotFound` when there is no such process, `InvalidData` when the file cannot be understood.
pub fn resident_bytes(pid: Pid) -> io::Result<u64> {
    let mut room = [0; 256];
    let statm = told(&format!("/proc/{pid}/statm"), &mut room)?;
    let pages = resident_pages(statm).ok_or(io::ErrorKind::InvalidData)?;
    let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or(u64::MAX);
    Ok(pages.saturating_mul(page_bytes))
}

/// What a process and those that share memory with it occupy, shared out among them, in bytes: `Pss` in
/// `/proc/PID/smaps_rollup` (`proc_pid_smaps(5)`). It walks the whole process: it may take milliseconds, and waits while the
/// process's memory is locked.
///
/// # Errors
///
/// `NotFound` when there is no such process, `PermissionDenied` where it may not be looked at, `InvalidData` when the file cannot be
/// understood.
pub fn proportional_bytes(pid: Pid) -> io::Result<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = proportional_kib(&rollup).ok_or(io::ErrorKind::InvalidData)?;
    Ok(kib.saturating_mul(1024))
}

fn proportional_kib(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The processor time that a process has used so far, all its threads together: by its clock (`clock_getcpuclockid(3)`), which costs a
/// tenth of reading `/proc/PID/stat`, and has no ticks.
///
/// # Errors
///
/// `NotFound` when there is no such process.
#[expect(
    unsafe_code,
    reason = "rustix does not know the clocks of other processes"
)]
pub fn cpu_time(pid: Pid) -> io::Result<Duration> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the pointer is valid for writing a clock's number.
    let result = unsafe { libc::clock_getcpuclockid(pid.as_raw(), &raw mut clock) };
    if result != 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut used = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is valid for writing a time.
    let result = unsafe { libc::clock_gettime(clock, &raw mut used) };
    if result != 0 {
        // It was there a moment ago.
        return Err(io::ErrorKind::NotFound.into());
    }
    let seconds = u64::try_from(used.tv_sec).unwrap_or(0);
    let nanoseconds = u32::try_from(used.tv_nsec).unwrap_or(0);
    Ok(Duration::new(seconds, nanoseconds))
}

fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_soft_limit_meets_the_hard_one() {
        let raised = raise_open_files().unwrap();
        assert!(raised >= 3);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn the_table_of_descriptors_has_its_size_from_the_start() {
        let raised = raise_open_files().unwrap();
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        let size: u64 = size.unwrap().trim().parse().unwrap();
        assert!(size >= raised.min(TABLE_SIZE), "{size}");
    }

    #[test]
    fn open_files_are_counted() {
        // Other tests open and close files meanwhile, so only a lower bound is certain.
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/").unwrap()).collect();
        assert!(open_files().unwrap() >= 50);
        drop(files);
    }

    #[test]
    fn descriptors_left_become_fewer() {
        let file = fs::File::open("/").unwrap();
        let before = descriptors_left(file.as_fd()).unwrap();
        assert!(before > descriptor_reserve());
        let files: Vec<_> = (0..500).map(|_| fs::File::open("/").unwrap()).collect();
        // Other tests open and close files meanwhile.
        let after = descriptors_left(file.as_fd()).unwrap();
        assert!(after + 300 < before, "{before}, {after}");
        drop(files);
    }

    #[test]
    fn processor_time_of_a_process_is_that_of_its_clock() {
        let before = crate::clock::busy();
        let told = cpu_time(Pid::current()).unwrap();
        assert!(before <= told && told <= crate::clock::busy());
        let nobody = Pid::from_number(5_000_000).unwrap();
        let error = cpu_time(nobody).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn memory_of_this_process_is_known() {
        assert!(resident_bytes(Pid::current()).unwrap() > 100_000);
        assert_eq!(resident_pages("2000 300 200 1 0 90 0\n"), Some(300));
        assert_eq!(resident_pages("garbage"), None);
        let rollup = "00400000-7fff0000 ---p 00000000 00:00 0    [rollup]\nRss:    884 kB\nPss:    385 kB\nPss_Anon: 68 kB\n";
        assert_eq!(proportional_kib(rollup), Some(385));
        assert!(proportional_bytes(Pid::current()).unwrap() > 100_000);
    }
}
