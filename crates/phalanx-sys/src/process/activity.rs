//! What a process does, seen from outside: whether somebody holds it, how much it runs, and how long it waits for a
//! processor. For a look at one that has fallen silent; those that are well need none.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::family::family_of;
use super::pid::Pid;
use crate::signal::Signal;

/// Clock ticks a second in `/proc/PID/stat`: 100 for every program, whatever the kernel's own (`proc_pid_stat(5)`, `time(7)`).
const TICKS: u32 = 100;
/// Of so many threads a portrait tells, and of so many processes.
const PORTRAYED: usize = 16;

/// What a process and its descendants have done in their lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what /proc tells")]
pub struct Activity {
    /// The process itself is stopped by a signal (state `T`).
    pub is_stopped: bool,
    /// The process itself has a tracer.
    pub is_traced: bool,
    /// How long all threads were on a processor.
    pub ran: Duration,
    /// The longest that one thread waited for a processor.
    pub delayed: Duration,
    /// How often the first threads slept and were woken.
    pub wakes: u64,
}

/// What the process and its descendants have done so far (`proc_pid_stat(5)`, `proc_pid_status(5)`,
/// `/proc/PID/task/TID/schedstat`). What cannot be read counts as nothing.
///
/// # Errors
/// `NotFound` when there is no such process.
pub fn activity(pid: Pid) -> io::Result<Activity> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name| status_field(&status, name);
    let mut activity = Activity {
        is_stopped: field("State").starts_with('T'),
        is_traced: field("State").starts_with('t') || field("TracerPid") != "0",
        ..Activity::default()
    };
    for member in family_of(pid) {
        let status = fs::read_to_string(format!("/proc/{member}/status")).unwrap_or_default();
        let wakes = status_field(&status, "voluntary_ctxt_switches");
        activity.wakes += wakes.parse::<u64>().unwrap_or(0);
        let mut ran = Duration::ZERO;
        for task in tasks_of(member) {
            let (on, waited) = schedule(&task).unwrap_or_default();
            ran += on;
            activity.delayed = activity.delayed.max(waited);
        }
        if ran.is_zero() {
            ran = used(member).unwrap_or_default();
        }
        activity.ran += ran;
    }
    Ok(activity)
}

/// What the first thread of a process has had of the processors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "what /proc tells")]
pub struct Turns {
    /// It runs, or waits for a processor (state `R`).
    pub is_runnable: bool,
    /// How long it was on a processor.
    pub ran: Duration,
}

/// What the first thread of that process has had of the processors so far (`/proc/PID/schedstat`, `proc_pid_stat(5)`). `None`
/// when there is no such process, or `/proc` does not tell.
#[must_use]
pub fn turns(pid: Pid) -> Option<Turns> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let schedule = schedule(&format!("/proc/{pid}")).map(|(ran, _)| ran);
    Some(Turns {
        is_runnable: status_field(&status, "State").starts_with('R'),
        ran: schedule.or_else(|| used(pid))?,
    })
}

/// Whether the process was started so that it waits for a client of its inspector (`--inspect-brk`, `--inspect-wait` of Node,
/// among its arguments or in `NODE_OPTIONS`).
#[must_use]
pub fn waits_for_inspector(pid: Pid) -> bool {
    let is_one =
        |word: &[u8]| word.starts_with(b"--inspect-brk") || word.starts_with(b"--inspect-wait");
    let read = |file| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let (arguments, environment) = (read("cmdline"), read("environ"));
    let by_argument = arguments.split(|&byte| byte == 0).any(is_one);
    let mut variables = environment.split(|&byte| byte == 0);
    let options = variables.find_map(|one| one.strip_prefix(b"NODE_OPTIONS="));
    by_argument || options.is_some_and(|text| text.split(u8::is_ascii_whitespace).any(is_one))
}

/// Whether the control group of the process is frozen (cgroups(7), version 2).
#[must_use]
pub fn is_in_frozen_group(pid: Pid) -> bool {
    let memberships = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let group = memberships
        .lines()
        .find_map(|line| line.strip_prefix("0::/"));
    let events = group.map(|group| {
        Path::new("/sys/fs/cgroup")
            .join(group)
            .join("cgroup.events")
    });
    let text = events.and_then(|path| fs::read_to_string(path).ok());
    text.is_some_and(|text| text.lines().any(|line| line == "frozen 1"))
}

/// Whether the process has a handler for that signal (`SigCgt` in `proc_pid_status(5)`).
#[must_use]
pub fn catches(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = u64::from_str_radix(status_field(&status, "SigCgt"), 16).unwrap_or(0);
    let bit = u32::try_from(signal.number()).unwrap_or(0).checked_sub(1);
    bit.is_some_and(|bit| caught.checked_shr(bit).unwrap_or(0) & 1 == 1)
}

/// What `/proc` tells of a process and its descendants, as text: what it is, what each thread waits for, in which system call,
/// and where in the kernel, as far as this process may look. Of the first processes and threads only.
#[must_use]
pub fn portrait(pid: Pid) -> String {
    let mut text = String::new();
    for member in family_of(pid).into_iter().take(PORTRAYED) {
        let read = |file: &str| fs::read(format!("/proc/{member}/{file}")).unwrap_or_default();
        let arguments = read("cmdline")
            .split(|&byte| byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect::<Vec<_>>()
            .join(" ");
        text.extend([format!("== process {member}: {}\n", arguments.trim_end())]);
        text.push_str(&String::from_utf8_lossy(&read("status")));
        for task in tasks_of(member).into_iter().take(PORTRAYED) {
            let of_task = |file: &str| {
                let path = Path::new(&task).join(file);
                let text = fs::read_to_string(path).unwrap_or_else(|error| format!("({error})"));
                text.trim_end().to_owned()
            };
            let number = task.rsplit('/').next().unwrap_or("");
            text.extend([format!("-- thread {number} {}\n", of_task("comm"))]);
            for file in ["stat", "wchan", "syscall", "schedstat", "stack"] {
                text.extend([format!("{file}: {}\n", of_task(file))]);
            }
        }
    }
    text
}

fn tasks_of(pid: Pid) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"));
    let entries = entries.into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.path().into_os_string().into_string().ok())
        .collect()
}

/// How long a thread was on a processor, and how long it waited for one.
fn schedule(task: &str) -> Option<(Duration, Duration)> {
    let text = fs::read_to_string(format!("{task}/schedstat")).ok()?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    let mut next = || Some(Duration::from_nanos(numbers.next()?.ok()?));
    Some((next()?, next()?))
}

/// The processor time of a process, where the kernel does not tell that of its threads.
fn used(pid: Pid) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut times = fields
        .split_ascii_whitespace()
        .skip(11)
        .map(str::parse::<u32>);
    let ticks = times.next()?.ok()?.saturating_add(times.next()?.ok()?);
    Some(Duration::from_secs(1) * ticks / TICKS)
}

fn status_field<'a>(status: &'a str, name: &str) -> &'a str {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
    status.lines().find_map(value).map_or("", str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_does_is_seen() {
        let before = activity(Pid::current()).unwrap();
        assert!(!before.is_stopped && !before.is_traced);
        let mut sum = 0_u64;
        while activity(Pid::current()).unwrap().ran < before.ran + Duration::from_millis(20) {
            sum = (0..100_000_u64).fold(sum, u64::wrapping_add);
        }
        assert!(!waits_for_inspector(Pid::current()) && !is_in_frozen_group(Pid::current()));
        assert!(portrait(Pid::current()).contains("-- thread"), "{sum}");
    }

    #[test]
    fn the_turns_of_a_process_that_is_stopped_do_not_grow() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "kill -STOP $$"])
            .spawn()
            .unwrap();
        let pid = Pid::from_number(child.id()).unwrap();
        let deadline = crate::clock::now() + Duration::from_secs(30);
        while !activity(pid).unwrap().is_stopped {
            assert!(crate::clock::now() < deadline, "it does not stop");
            std::thread::yield_now();
        }
        let before = turns(pid).unwrap();
        assert!(!before.is_runnable);
        assert_eq!(turns(pid).unwrap(), before);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(turns(pid), None);
    }

    #[test]
    fn fields_of_a_status_are_found_by_their_whole_name() {
        let status = "Name:\tnode\nState:\tT (stopped)\nTracerPid:\t0\nnonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t7\n";
        assert_eq!(status_field(status, "State"), "T (stopped)");
        assert_eq!(status_field(status, "voluntary_ctxt_switches"), "7");
        assert_eq!(status_field(status, "None"), "");
    }
}
