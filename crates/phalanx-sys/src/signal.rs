//! Signals by number and by name (signal(7)).
#![allow(
    unsafe_code,
    reason = "the signal mask; rustix has real-time signals only unchecked"
)]

use std::fmt;
use std::str::FromStr;

/// A signal that can be sent: 1 to 31, or one of the real-time signals that are free for use.
/// The two or three that the C library keeps for itself (32 to `SIGRTMIN` - 1) are none.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug)]
pub struct Signal(i32);

/// Sets what this process relies on, whatever its parent has left: ended children are kept until they are waited
/// for. With SIGCHLD ignored, or with `SA_NOCLDWAIT`, their status would be lost, and their number given away (sigaction(2)).
/// A handler is left as it is.
pub fn heed_children() {
    // SAFETY: a `struct sigaction` of zeros is valid memory, and means the default disposition.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: `action` is valid for writing, and nothing is changed.
    unsafe { libc::sigaction(libc::SIGCHLD, std::ptr::null(), &raw mut action) };
    let forgets = action.sa_flags & libc::SA_NOCLDWAIT != 0;
    if action.sa_sigaction != libc::SIG_IGN && !forgets {
        return;
    }
    if action.sa_sigaction == libc::SIG_IGN {
        action.sa_sigaction = libc::SIG_DFL;
    }
    action.sa_flags &= !libc::SA_NOCLDWAIT;
    // SAFETY: `action` is what was in force but for the default disposition and a flag less.
    unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) };
}

/// Unblocks every signal in the calling thread, and in those that it starts: a parent may have left some blocked, and
/// then nobody could stop this process by them. First thing in `main`.
pub fn unblock_all() {
    // SAFETY: a `sigset_t` of zeros is valid memory for sigemptyset to fill.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` is valid for writing.
    unsafe { libc::sigemptyset(&raw mut none) };
    // SAFETY: `none` is valid and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Blocks every signal that can be blocked in the calling thread, and in those that it starts.
pub fn block_all() {
    // SAFETY: a `sigset_t` of zeros is valid memory for sigfillset to fill.
    let mut all: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `all` is valid for writing.
    unsafe { libc::sigfillset(&raw mut all) };
    // SAFETY: `all` is valid and the old mask is not asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut()) };
}

/// A text that names no signal.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not a signal: use a name (TERM, SIGTERM) or a number")]
#[non_exhaustive]
pub struct UnknownSignal {
    /// What was given.
    pub text: String,
}

/// Defines the constants and the table of names from one list.
macro_rules! signals {
    ($($constant:ident = $number:ident, $meaning:literal;)*) => {
        impl Signal {
            $(
                #[doc = concat!("`", stringify!($number), "`: ", $meaning, ".")]
                pub const $constant: Signal = Signal(libc::$number);
            )*
        }

        const NAMED: &[(i32, &str)] = &[$((libc::$number, stringify!($number)),)*];
    };
}

signals! {
    HUP = SIGHUP, "the terminal is gone; by custom, read the configuration again";
    INT = SIGINT, "interrupted from the terminal";
    QUIT = SIGQUIT, "quit from the terminal, with a core dump by default";
    ILL = SIGILL, "illegal instruction";
    TRAP = SIGTRAP, "breakpoint";
    ABRT = SIGABRT, "abort(3)";
    BUS = SIGBUS, "access to memory that is not there";
    FPE = SIGFPE, "arithmetic error";
    KILL = SIGKILL, "ends the process; cannot be caught";
    USR1 = SIGUSR1, "free for use";
    SEGV = SIGSEGV, "access to memory that is not allowed";
    USR2 = SIGUSR2, "free for use; by custom of Node's users, reload";
    PIPE = SIGPIPE, "write to a pipe or socket that nobody reads";
    ALRM = SIGALRM, "alarm(2)";
    TERM = SIGTERM, "asks the process to end";
    STKFLT = SIGSTKFLT, "unused";
    CHLD = SIGCHLD, "a child has stopped or exited";
    CONT = SIGCONT, "continues a stopped process";
    STOP = SIGSTOP, "stops the process; cannot be caught";
    TSTP = SIGTSTP, "stopped from the terminal";
    TTIN = SIGTTIN, "read from the terminal in the background; by custom, one worker more";
    TTOU = SIGTTOU, "write to the terminal in the background; by custom, one worker fewer";
    URG = SIGURG, "urgent data on a socket";
    XCPU = SIGXCPU, "limit of processor time reached";
    XFSZ = SIGXFSZ, "limit of file size reached";
    VTALRM = SIGVTALRM, "virtual alarm clock";
    PROF = SIGPROF, "profiling timer";
    WINCH = SIGWINCH, "the terminal changed its size";
    IO = SIGIO, "input or output is possible";
    PWR = SIGPWR, "power failure";
    SYS = SIGSYS, "bad system call";
}

/// The names of the real-time signals, counted from the C library's `SIGRTMIN`.
const REAL_TIME: [&str; 31] = [
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+16",
    "SIGRTMIN+17",
    "SIGRTMIN+18",
    "SIGRTMIN+19",
    "SIGRTMIN+20",
    "SIGRTMIN+21",
    "SIGRTMIN+22",
    "SIGRTMIN+23",
    "SIGRTMIN+24",
    "SIGRTMIN+25",
    "SIGRTMIN+26",
    "SIGRTMIN+27",
    "SIGRTMIN+28",
    "SIGRTMIN+29",
    "SIGRTMIN+30",
];

impl Signal {
    /// The signal with this number, if it can be used.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Signal> {
        name_of(number).map(|_| Signal(number))
    }

    /// Every signal that can be used.
    pub fn all() -> impl Iterator<Item = Signal> {
        (1..=libc::SIGRTMAX()).filter_map(Signal::from_number)
    }

    /// Whether this process ignores the signal now, as proc(5) tells; a program is started so by nohup(1). False where
    /// `/proc` is not there.
    #[must_use]
    pub fn is_ignored(self) -> bool {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.is_some_and(|mask| mask >> (self.0 - 1) & 1 == 1)
    }

    /// The number, as kill(2) takes it.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// The name with its prefix: `"SIGTERM"`.
    #[must_use]
    pub fn name(self) -> &'static str {
        name_of(self.0).unwrap_or("SIG?")
    }

    pub(crate) fn as_rustix(self) -> rustix::process::Signal {
        // SAFETY: the number is that of a usable signal, never one of the C library's own:
        // `from_number` lets no other in.
        unsafe { rustix::process::Signal::from_raw_unchecked(self.0) }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    /// Reads `TERM`, `SIGTERM` (in any case) or `15`.
    fn from_str(text: &str) -> Result<Signal, UnknownSignal> {
        let unknown = || UnknownSignal {
            text: text.to_owned(),
        };
        if let Ok(number) = text.parse() {
            return Signal::from_number(number).ok_or_else(unknown);
        }
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        let is_meant = |name: &str| name.strip_prefix("SIG") == Some(bare);
        let named = NAMED.iter().find(|(_, name)| is_meant(name));
        let real_time = || {
            let offset = REAL_TIME.iter().position(|name| is_meant(name))?;
            Signal::from_number(libc::SIGRTMIN() + i32::try_from(offset).ok()?)
        };
        named
            .map(|(number, _)| Signal(*number))
            .or_else(real_time)
            .ok_or_else(unknown)
    }
}

fn name_of(number: i32) -> Option<&'static str> {
    if let Some((_, name)) = NAMED.iter().find(|(named, _)| *named == number) {
        return Some(name);
    }
    if number > libc::SIGRTMAX() {
        return None;
    }
    let offset = usize::try_from(number - libc::SIGRTMIN()).ok()?;
    REAL_TIME.get(offset).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        for text in ["TERM", "SIGTERM", "15", "term", "SigTerm"] {
            assert_eq!(text.parse(), Ok(Signal::TERM), "{text}");
        }
        assert_eq!(Signal::TERM.to_string(), "SIGTERM");
        assert_eq!("RTMIN+3".parse::<Signal>().unwrap().name(), "SIGRTMIN+3");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "0", "-1", "65", "32", "SIG", "TERMINATE", "SIGSIGTERM"] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }

    #[test]
    fn every_signal_survives_the_way_through_its_name() {
        let all: Vec<_> = (1..=64).filter_map(Signal::from_number).collect();
        assert!(all.len() >= 31 + 28);
        for signal in all {
            assert_eq!(signal.name().parse(), Ok(signal));
            assert_eq!(Signal::from_number(signal.number()), Some(signal));
        }
    }
}
