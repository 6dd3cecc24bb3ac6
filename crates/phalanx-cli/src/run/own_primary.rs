//! `phalanx run --primary main.js`: a program with a primary of its own, by Node's `cluster`. It is run by Node as it is,
//! with phalanx-cluster registered (docs/node-dropin.md), and started again when it fails. Signals are passed on.
//!
//! INVARIANT: the program ends with this process, whatever ends it (`die_with_parent`), and its workers with it.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use phalanx_control::exit::Exit;
use phalanx_control::names::Name;
use phalanx_sys::process::{self, ExitStatus, FdMapping, Process, SpawnPlan};
use phalanx_sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::primary_service::ServiceManager;
use super::streams;
use crate::args::{Dispatch, RunArgs};
use crate::log::{Level, Log, Style};
use crate::output::Forming;
use crate::pid_file::PidFile;
use crate::program::Program;
use crate::report::{Failure, Outcome};

/// The files of the npm package that a primary needs.
const FILES: [(&str, &str); 7] = [
    (
        "register.cjs",
        include_str!("../../../../npm/phalanx-cluster/register.cjs"),
    ),
    (
        "package.json",
        include_str!("../../../../npm/phalanx-cluster/package.json"),
    ),
    (
        "lib/binary.cjs",
        include_str!("../../../../npm/phalanx-cluster/lib/binary.cjs"),
    ),
    (
        "lib/engine.cjs",
        include_str!("../../../../npm/phalanx-cluster/lib/engine.cjs"),
    ),
    (
        "lib/orders.cjs",
        include_str!("../../../../npm/phalanx-cluster/lib/orders.cjs"),
    ),
    (
        "lib/recipes.cjs",
        include_str!("../../../../npm/phalanx-cluster/lib/recipes.cjs"),
    ),
    (
        "lib/splice.cjs",
        include_str!("../../../../npm/phalanx-cluster/lib/splice.cjs"),
    ),
];

/// Signals that are passed on, and whether they ask for the end.
const PASSED_ON: [(Signal, bool); 5] = [
    (Signal::TERM, true),
    (Signal::INT, true),
    (Signal::QUIT, true),
    (Signal::HUP, false),
    (Signal::USR2, false),
];

/// After a failure it waits so long, and twice as long after each further one, up to the longest; from the beginning
/// when it has run for long enough. One that exits with an error before it ever has cannot start.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const STABLE: Duration = Duration::from_secs(10);
/// How long the end waits for standard error to take the last lines.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// Runs it until it ends by itself or as it was told.
pub(super) fn run(args: &RunArgs, program: Program, name: &Name, style: Style) -> Outcome {
    if !program.is_node || program.launcher_words > 0 {
        let reason = "--primary is for a script of Node that uses its cluster";
        return Err(Failure::new(Exit::Usage, reason));
    }
    let failed =
        |what: &'static str| move |error: io::Error| Failure::caused(Exit::Failed, what, &error);
    let (_, stderr) =
        streams(style, Forming::default()).map_err(failed("cannot use the standard streams"))?;
    let log = Log::new(style, stderr.clone());
    log.take_tracing();
    let package = unpack().map_err(failed("cannot write what its primary is to load"))?;
    let start = Start::new(args, program, name, package.path())?;
    let pid_file = args.pid_file.as_deref().map(PidFile::create).transpose()?;
    let ended = crate::to_the_end(supervise(&start, name, &log));
    drop(pid_file);
    stderr.finish(FLUSH_LIMIT);
    ended
}

/// The npm package in a directory of its own.
fn unpack() -> io::Result<TempDir> {
    let directory = tempfile::Builder::new().prefix("phalanx-").tempdir()?;
    fs::create_dir(directory.path().join("lib"))?;
    for (name, text) in FILES {
        fs::write(directory.path().join(name), text)?;
    }
    Ok(directory)
}

/// How it is started.
struct Start {
    program: std::path::PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    cwd: Option<std::path::PathBuf>,
}

impl Start {
    fn new(args: &RunArgs, program: Program, name: &Name, package: &Path) -> Outcome<Self> {
        let cwd = program.cwd.clone().or_else(|| args.cwd.clone());
        let path = env::var_os("PATH");
        let here = env::current_dir()
            .map_err(|error| Failure::caused(Exit::Failed, "there is no directory", &error))?;
        let found = process::resolve_program(&program.exec, path.as_deref(), &here);
        let found =
            found.map_err(|error| Failure::caused(Exit::NotFound, "there is no Node", &error))?;
        let own = env::current_exe()
            .map_err(|error| Failure::caused(Exit::Failed, "cannot find this program", &error))?;
        let dispatch = match args.dispatch {
            Dispatch::Auto => "auto",
            Dispatch::Handoff => "handoff",
            Dispatch::Shared => "shared",
            Dispatch::Kernel => "kernel",
        };
        let mut own_env: Vec<(&str, OsString)> = vec![
            ("PHALANX_BINARY", own.into()),
            ("PHALANX_DISPATCH", dispatch.into()),
            ("PHALANX_DRAIN_TIMEOUT", drain_timeout(args).into()),
            ("PHALANX_NAME", name.as_str().into()),
            ("PHALANX_SUPERVISED", "1".into()),
        ];
        if let Some(policy) = args.policy {
            own_env.push(("PHALANX_POLICY", policy.to_string().into()));
        }
        if let Some(weights) = &args.weights {
            own_env.push(("PHALANX_WEIGHTS", weights.to_string().into()));
        }
        let own_env = own_env.into_iter().map(|(key, value)| (key.into(), value));
        let set = program.env.iter().chain(&args.env);
        let set = set.map(|one| (one.key.clone(), one.value.clone()));
        let set: Vec<_> = set.chain(own_env).collect();
        let inherited = env::vars_os().filter(|(key, _)| set.iter().all(|(one, _)| one != key));
        let env = inherited.chain(set.clone()).collect();
        let register = package.join("register.cjs");
        let mut words = vec![found.clone().into(), "--require".into(), register.into()];
        words.extend(program.args);
        Ok(Self {
            program: found,
            args: words,
            env,
            cwd,
        })
    }

    fn start(&self) -> Outcome<Process> {
        let mut plan = SpawnPlan::new(self.program.clone());
        plan.args.clone_from(&self.args);
        plan.env.clone_from(&self.env);
        plan.cwd.clone_from(&self.cwd);
        // Who is in a group of his own may not read from the terminal.
        let stdin = if io::stdin().is_terminal() {
            FdMapping::null(0)
        } else {
            FdMapping::inherit(0, 0)
        };
        plan.fds = vec![stdin, FdMapping::inherit(1, 1), FdMapping::inherit(2, 2)];
        // Ctrl-C is for this process, which passes it on.
        plan.new_process_group = true;
        plan.die_with_parent = Some(Signal::TERM);
        process::spawn(plan)
            .map_err(|error| Failure::caused(Exit::Failed, "cannot start the primary", &error))
    }
}

/// As the engine reads it, who knows no time of nothing.
fn drain_timeout(args: &RunArgs) -> String {
    let limit = args.limits.drain_timeout.max(Duration::from_millis(1));
    format!("{}ms", limit.as_millis())
}

async fn supervise(start: &Start, name: &Name, log: &Log) -> Outcome {
    let mut signals = take_signals()?;
    let manager = ServiceManager::follow(name);
    let (mut has_worked, mut pause) = (false, FIRST_PAUSE);
    loop {
        let began = phalanx_sys::clock::now();
        let mut primary = start.start()?;
        let pid = primary.pid().as_u32();
        log.tell(
            Level::Info,
            "start",
            &format!("{name}: primary {pid}"),
            json!({"name": name.as_str(), "pid": pid}),
        );
        let (status, is_asked) = follow(&mut primary, &mut signals, &manager).await?;
        let (how, has_exited) = match status {
            ExitStatus::Code(0) => return Ok(()),
            ExitStatus::Code(code) => (format!("{name} ended with status {code}"), true),
            ExitStatus::Signal(signal) if is_asked.map(Signal::number) == Some(signal.into()) => {
                return Ok(());
            }
            ExitStatus::Signal(signal) => (format!("{name} was ended by signal {signal}"), false),
        };
        let lived = began.elapsed();
        has_worked |= lived >= STABLE;
        if is_asked.is_some() || (has_exited && !has_worked) {
            return Err(Failure::new(Exit::Failed, how));
        }
        if lived >= STABLE {
            pause = FIRST_PAUSE;
        }
        let text = format!("{how}: started again in {} ms", pause.as_millis());
        let fields = json!({"name": name.as_str()});
        log.tell(Level::Error, "primary_failed", &text, fields);
        if waits(pause, &mut signals).await {
            return Ok(());
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Signals as they come, and whether they ask for the end.
type Signals = mpsc::UnboundedReceiver<(Signal, bool)>;

fn take_signals() -> Outcome<Signals> {
    let (told, signals) = mpsc::unbounded_channel();
    for (one, ends) in PASSED_ON {
        let mut stream = signal(SignalKind::from_raw(one.number()))
            .map_err(|error| Failure::caused(Exit::Failed, "cannot handle signals", &error))?;
        let told = told.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() && told.send((one, ends)).is_ok() {}
        });
    }
    Ok(signals)
}

/// Passes signals on until the primary has ended. Tells how, and the last signal that asked for that.
async fn follow(
    primary: &mut Process,
    signals: &mut Signals,
    manager: &ServiceManager,
) -> Outcome<(ExitStatus, Option<Signal>)> {
    let cannot = |error| Failure::caused(Exit::Failed, "cannot wait for the primary", &error);
    let pidfd = primary.as_fd().try_clone_to_owned().map_err(cannot)?;
    // It ends with the process, so it holds up nothing.
    let mut ended = tokio::task::spawn_blocking(move || process::wait_ended(pidfd, Duration::MAX));
    let mut asked = None;
    loop {
        tokio::select! {
            _ = &mut ended => {
                let status = primary.try_reap().map_err(cannot)?;
                return Ok((status.unwrap_or(ExitStatus::Code(1)), asked));
            }
            Some((signal, ends)) = signals.recv() => {
                if let Err(error) = primary.signal(signal) {
                    tracing::warn!(%error, "cannot signal the primary");
                }
                if ends {
                    manager.stops();
                    asked = Some(signal);
                }
            }
        }
    }
}

/// Waits for so long. True when it was asked for the end meanwhile.
async fn waits(pause: Duration, signals: &mut Signals) -> bool {
    let until = tokio::time::Instant::now() + pause;
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(until) => return false,
            Some((_, ends)) = signals.recv() => {
                if ends {
                    return true;
                }
            }
        }
    }
}
