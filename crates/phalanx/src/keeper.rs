//! The keeper: a process beside the primary that outlives it, and kills what the app has left then.
//!
//! The kernel kills workers when their primary ends, in whatever way, but not what they have started, nor a
//! worker that has changed its user (`PR_SET_PDEATHSIG`, prctl(2)). So the primary starts this program once more
//! and tells it over a socket who belongs to the app. The keeper waits. When the socket ends without a farewell and
//! the primary is gone, it kills everybody it knows of, everybody who carries the app's mark and all their
//! descendants, until it finds nobody any more.
//!
//! It is given its primary as a pidfd: by the time that it looks for its parent, that may be another.
//!
//! It has all signals blocked, no descriptor but the socket, the pidfd and the directory of the app's control group, no threads, and works only at the very end.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use phalanx_sys::cgroup::Cgroup;
use phalanx_sys::process::{
    self, Among, FdMapping, Member, Pid, Process, SpawnError, SpawnPlan, Tree,
};
use phalanx_sys::signal::{self, Signal};

/// Makes a process the keeper of the tree that carries this mark.
const VARIABLE: &str = "PHALANX_KEEPER";
/// The name of the tree's control group, which lies in the directory that is open as [`GROUPS`].
const GROUP_VARIABLE: &str = "PHALANX_KEEPER_CGROUP";
const GROUPS: i32 = 3;
/// The descriptor that means its primary.
const PRIMARY: i32 = 4;
const NAME: &std::ffi::CStr = c"phalanx-keeper";
const FAREWELL: &str = "bye";

/// How long the primary waits for its keeper to read; it reads at once.
const WRITE_LIMIT: Duration = Duration::from_millis(500);
/// Between two looks for those that were killed and those that they started.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// So many looks without anybody are the end.
const EMPTY_LOOKS: u32 = 3;

/// This program knows what to do when it is started as a keeper.
static KNOWN: AtomicBool = AtomicBool::new(false);

/// Becomes the keeper, if this process was started as one, and then never returns. Otherwise returns at once.
///
/// For programs that start supervisors and do not call [`init`](crate::init), which does the same: first thing in
/// `main`. Without either, nobody ends the descendants of workers when the primary is killed.
pub fn keep_if_asked() {
    KNOWN.store(true, Ordering::Release);
    if let Ok(mark) = std::env::var(VARIABLE) {
        keep(mark)
    }
}

/// What a keeper is to end, besides what it is told of.
#[derive(Clone, Debug)]
pub(crate) struct Ward {
    /// Whoever carries this.
    pub(crate) mark: String,
    /// Whoever is in this control group: the directory above it, and its name.
    pub(crate) cgroup: Option<(Arc<OwnedFd>, String)>,
}

/// What a keeper is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The groups of workers.
    pub(crate) groups: BTreeSet<Pid>,
    /// Processes that were seen to descend from them.
    pub(crate) members: BTreeSet<Member>,
}

impl Known {
    /// `PID … | PID:BEGAN …`
    fn to_line(&self) -> String {
        let mut line = String::new();
        // Writing to a text does not fail.
        for group in &self.groups {
            let _written = write!(line, "{group} ");
        }
        line.push('|');
        for Member { pid, began } in &self.members {
            let _written = write!(line, " {pid}:{began}");
        }
        line.push('\n');
        line
    }

    fn parse(line: &str) -> Option<Self> {
        let (groups, members) = line.split_once('|')?;
        let pid = |text: &str| Pid::from_number(text.parse().ok()?);
        let member = |text: &str| {
            let (number, began) = text.split_once(':')?;
            Some(Member {
                pid: pid(number)?,
                began: began.parse().ok()?,
            })
        };
        Some(Self {
            groups: groups.split_ascii_whitespace().filter_map(pid).collect(),
            members: members
                .split_ascii_whitespace()
                .filter_map(member)
                .collect(),
        })
    }
}

/// The primary's side of its keeper. Dropping it says farewell: the keeper ends and kills nobody.
#[derive(Debug)]
pub(crate) struct Keeper {
    process: Process,
    link: UnixStream,
    told: Known,
}

impl Keeper {
    /// Starts the keeper of `ward`; nothing where this program would not know what it is
    /// started for.
    ///
    /// # Errors
    /// As [`process::spawn`].
    pub(crate) fn start(ward: &Ward) -> Result<Option<Self>, SpawnError> {
        if !KNOWN.load(Ordering::Acquire) {
            return Ok(None);
        }
        let link = |source| SpawnError::Pipe { source };
        let (ours, theirs) = UnixStream::pair().map_err(link)?;
        ours.set_write_timeout(Some(WRITE_LIMIT)).map_err(link)?;
        let program = PathBuf::from("/proc/self/exe");
        let executable = File::open(&program).map_err(link)?;
        let mut plan = SpawnPlan::new(program);
        plan.executable = Some(Arc::new(OwnedFd::from(executable)));
        plan.args = vec![OsString::from("phalanx-keeper")];
        plan.env = vec![(VARIABLE.into(), (&ward.mark).into())];
        plan.cwd = Some(PathBuf::from("/"));
        plan.new_process_group = true;
        plan.fds = vec![
            FdMapping::owned(theirs.into(), 0),
            FdMapping::null(1),
            FdMapping::null(2),
            FdMapping::owned(process::own_pidfd().map_err(link)?, PRIMARY),
        ];
        if let Some((parent, name)) = &ward.cgroup {
            plan.env.push((GROUP_VARIABLE.into(), name.into()));
            plan.fds.push(FdMapping::shared(Arc::clone(parent), GROUPS));
        }
        Ok(Some(Self {
            process: process::spawn(plan)?,
            link: ours,
            told: Known::default(),
        }))
    }

    /// Tells it who belongs to the app. False when there is no keeper any more. May wait for it for a moment.
    pub(crate) fn tell(&mut self, known: Known) -> bool {
        if matches!(self.process.try_reap(), Ok(Some(_)) | Err(_)) {
            return false;
        }
        if self.told == known {
            return true;
        }
        let is_told = self.link.write_all(known.to_line().as_bytes()).is_ok();
        self.told = known;
        is_told
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // One that cannot be told is killed: it would take the end of the link for the end of the primary.
        let farewell = format!("{FAREWELL}\n");
        if self.link.write_all(farewell.as_bytes()).is_err() {
            drop(self.process.signal(Signal::KILL));
        }
        // Reaped if it ends soon enough; else by whoever adopts it.
        let _ended = process::wait_ended(&self.process, WRITE_LIMIT);
        drop(self.process.try_reap());
    }
}

#[expect(
    clippy::exit,
    reason = "it was started for this, and nothing of the program's own has begun"
)]
fn keep(mark: String) -> ! {
    signal::block_all();
    process::set_name(NAME);
    let primary = process::inherited_pidfd(PRIMARY);
    let mut known = Known::default();
    for line in BufReader::new(io::stdin()).lines() {
        match line {
            Ok(line) if line == FAREWELL => exit(0),
            Ok(line) => known = Known::parse(&line).unwrap_or(known),
            Err(_) => break,
        }
    }
    // Its descriptors are closed a moment before it is gone.
    while let Ok(primary) = &primary {
        if process::wait_ended(primary, Duration::MAX) {
            break;
        }
    }
    let cgroup = told_cgroup();
    kill_all(&Tree {
        marks: vec![mark],
        groups: known.groups,
        known: known.members,
        cgroup: cgroup.clone(),
    });
    if let Some(cgroup) = cgroup {
        // What lives in it may not be ended, and is left for whoever sweeps.
        drop(cgroup.remove());
    }
    exit(0)
}

fn told_cgroup() -> Option<Cgroup> {
    let name = std::env::var(GROUP_VARIABLE).ok()?;
    Cgroup::inherited(GROUPS, name).ok()
}

/// Kills the tree until nobody of it is found.
fn kill_all(tree: &Tree) {
    let mut tree = tree.clone();
    let mut empty_looks = 0;
    while empty_looks < EMPTY_LOOKS {
        let members = tree.members(Among::All);
        empty_looks = if members.is_empty() {
            empty_looks + 1
        } else {
            0
        };
        if let Some(cgroup) = tree.cgroup.as_ref().filter(|_| !members.is_empty()) {
            // It fails where the kernel is too old, and then there are signals.
            drop(cgroup.kill());
        }
        for member in &members {
            // One that may not be signalled is tried again, with what it has started.
            drop(member.signal(Signal::KILL));
        }
        for member in members {
            if let Ok(Some(pidfd)) = member.open() {
                let _ended = process::wait_ended(&pidfd, LOOK_INTERVAL);
            }
            // What it starts meanwhile has a parent that is known.
            tree.known.insert(member);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_keeper_is_told_survives_the_way() {
        let pid = |number| Pid::from_number(number).unwrap();
        let known = Known {
            groups: BTreeSet::from([pid(7), pid(4_194_304)]),
            members: BTreeSet::from([Member {
                pid: pid(8),
                began: 4711,
            }]),
        };
        let line = known.to_line();
        assert_eq!(Known::parse(line.trim_end()), Some(known));
        let nobody = Known::default();
        assert_eq!(Known::parse(nobody.to_line().trim_end()), Some(nobody));
        assert_eq!(Known::parse("garbage"), None);
    }
}
