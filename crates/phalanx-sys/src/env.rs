//! Removal of variables from this process's environment.
//!
//! A worker takes the variables that made it one out of its environment, so that its own
//! children do not take themselves for workers. The environment is shared and unlocked
//! (getenv(3) in any thread, in any C library, reads it), so that is possible only before the
//! first thread is started.
#![allow(unsafe_code, reason = "std::env::remove_var asks for a single thread")]

use std::fs;

/// The environment can no longer be changed: the process has threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the environment can only be changed before the first thread is started")]
#[non_exhaustive]
pub struct TooLate {
    /// How many threads the process has; `None` when they could not be counted (no `/proc`).
    pub threads: Option<usize>,
}

/// Removes `names` from the environment of this process. Names that are not set, and names
/// that no variable can have (empty, with `=` or NUL), are passed over.
///
/// Call it first thing in `main`, before any runtime is started.
///
/// # Errors
///
/// [`TooLate`] when there is more than one thread, or when that cannot be known; nothing is
/// removed then.
pub fn remove(names: &[&str]) -> Result<(), TooLate> {
    let threads = thread_count();
    if threads != Some(1) {
        return Err(TooLate { threads });
    }
    for name in names {
        if name.is_empty() || name.contains(['=', '\0']) {
            continue;
        }
        // SAFETY: the calling thread is the only one of this process, as just counted, and
        // only it could start another; so nobody reads the environment meanwhile.
        unsafe { std::env::remove_var(name) };
    }
    Ok(())
}

fn thread_count() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_keeps_its_environment() {
        // The test harness runs each test in a thread beside its own.
        let error = remove(&["PATH"]).unwrap_err();
        assert!(error.threads.unwrap() >= 2);
        assert!(std::env::var_os("PATH").is_some());
    }
}
