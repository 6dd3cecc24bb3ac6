//! Limits of this process and what it uses of them.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::process::Pid;

/// Raises the soft limit of open files to the hard one, and returns it (`u64::MAX`: unlimited).
///
/// Processes started afterwards inherit the raised limit. That harms only programs that use
/// select(2), which cannot watch a descriptor above 1023.
///
/// # Errors
///
/// Those of setrlimit(2).
pub fn raise_open_files() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: limit.maximum,
                maximum: limit.maximum,
            },
        )?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
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

/// The memory that a process occupies, in bytes (resident set size, shared pages included;
/// `proc_pid_statm(5)`). A zombie occupies none.
///
/// # Errors
///
/// `NotFound` when there is no such process, `InvalidData` when the file cannot be understood.
pub fn resident_bytes(pid: Pid) -> io::Result<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = resident_pages(&statm).ok_or(io::ErrorKind::InvalidData)?;
    let page_bytes = u64::try_from(rustix::param::page_size()).unwrap_or(u64::MAX);
    Ok(pages.saturating_mul(page_bytes))
}

fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_meets_the_hard_one() {
        let raised = raise_open_files().unwrap();
        assert!(raised >= 3);
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }

    #[test]
    fn open_files_are_counted() {
        // Other tests open and close files meanwhile, so only a lower bound is certain.
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/").unwrap()).collect();
        assert!(open_files().unwrap() >= 50);
        drop(files);
    }

    #[test]
    fn memory_of_this_process_is_known() {
        assert!(resident_bytes(Pid::current()).unwrap() > 100_000);
        assert_eq!(resident_pages("2000 300 200 1 0 90 0\n"), Some(300));
        assert_eq!(resident_pages("garbage"), None);
    }
}
