//! `phalanx up`: several apps of a file in one foreground tree, with one log.
//!
//! Each app is a `phalanx run` of its own, with its own primary, name and control socket: what befalls one does not befall the
//! others. Here their output comes together, signals are passed on, and an app whose primary fails is started again. An app
//! that fails before all have been ready ends all: what was to come up together did not.
//!
//! INVARIANT: the primaries end with this process, whatever ends it (`die_with_parent`).

mod child;
mod notify_sockets;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::Duration;

use phalanx_sys::process::ExitStatus;
use phalanx_sys::signal::Signal;
use sd_notify::NotifyState;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::{LogArgs, LogFormat, LogTime, UpArgs};
use crate::config;
use crate::log::{Level, Log, Style};
use crate::output::{Forming, Writer, journal_takes};
use crate::report::{Failure, Outcome};
use crate::run::streams;
use child::{Child, Start};
use notify_sockets::NotifySockets;
use phalanx_control::exit::Exit;
use phalanx_control::names::Name;

/// How long the end waits for the readers of standard output and standard error, each.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
/// After its first failure an app waits so long, and twice as long after each further one, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Signals that are passed on, and whether they ask for the end.
const PASSED_ON: [(Signal, bool); 6] = [
    (Signal::TERM, true),
    (Signal::INT, true),
    (Signal::QUIT, true),
    (Signal::HUP, false),
    (Signal::USR1, false),
    (Signal::USR2, false),
];

pub(crate) fn up(args: &UpArgs) -> Exit {
    let style = Style::of_args(&args.log);
    match try_up(args, style) {
        Ok(()) => Exit::Done,
        Err(failure) => {
            if !failure.reason.is_empty() {
                let line = style.lines(Level::Error, "failed", &failure.reason, json!({}));
                crate::report::show_log_line(&line);
            }
            failure.exit
        }
    }
}

fn try_up(args: &UpArgs, style: Style) -> Outcome {
    let path = config::locate(&args.config)?;
    let names = args.apps.clone();
    let wants = |name: &str| names.is_empty() || names.iter().any(|one| one.as_str() == name);
    let file = config::load(&path, args.config.profile.as_deref(), &wants)?;
    let names = config::chosen(&file, &args.apps)?;
    let (stdout, stderr) = streams(style, Forming::default()).map_err(|error| {
        Failure::caused(Exit::Failed, "cannot use the standard streams", &error)
    })?;
    let log = Log::new(style, stderr.clone());
    log.take_tracing();
    let start = Start {
        file: path,
        profile: args.config.profile.clone(),
        options: log_options(&args.log, style, io::stdout().is_terminal()),
        is_json: args.log.log_format == LogFormat::Json,
        width: names
            .iter()
            .map(|name| name.as_str().len())
            .max()
            .unwrap_or(0),
        stdout: stdout.clone(),
        stderr: stderr.clone(),
    };
    let ended = crate::to_the_end(run(start, names, log, [stdout.clone(), stderr.clone()]));
    stdout.finish(FLUSH_LIMIT);
    stderr.finish(FLUSH_LIMIT);
    ended
}

/// The options of the log, for each app.
fn log_options(args: &LogArgs, style: Style, is_terminal: bool) -> Vec<String> {
    // Theirs is a pipe, and what comes out of it goes where this process's log goes.
    let time = if style.has_time() { "always" } else { "never" };
    let mut words = vec![format!("--log-time={time}")];
    if is_terminal {
        words.push("--log-terminal".to_owned());
    }
    // Lines of workers have it where that was asked for, and on a terminal.
    let line_time = match args.log_time {
        LogTime::Auto => is_terminal,
        LogTime::Always => true,
        LogTime::Never => false,
    };
    words.push(format!("--log-line-time={line_time}"));
    if args.log_format == LogFormat::Json {
        words.push("--log-format=json".to_owned());
    } else if journal_takes(2) {
        // Lines of workers go there from each app, with its fields; a stream has no room for them.
        words.push(format!("--log-journal={}", journal_takes(1)));
    }
    words.extend((0..args.verbose).map(|_| "-v".to_owned()));
    words.extend((0..args.quiet).map(|_| "-q".to_owned()));
    words
}

/// What happens.
#[derive(Debug)]
pub(crate) enum Happening {
    /// The process of the app has ended.
    Ended(usize),
    /// The app is up.
    Ready(usize),
    /// It is time to start it again.
    Due(usize),
    /// This signal has arrived.
    Signal(Signal, bool),
}

async fn run(start: Start, names: Vec<Name>, log: Log, outputs: [Writer; 2]) -> Outcome {
    let (told, mut happenings) = mpsc::unbounded_channel();
    take_signals(&told)?;
    let notify_sockets = NotifySockets::open(names.len(), &told)?;
    let mut tree = Tree {
        apps: names.into_iter().map(App::new).collect(),
        start,
        told,
        notify_sockets,
        log,
        outputs,
        are_up: false,
        is_ending: false,
        failure: None,
    };
    for index in 0..tree.apps.len() {
        tree.start(index);
    }
    while tree.is_running() {
        match happenings.recv().await {
            Some(happening) => tree.take(&happening),
            None => break,
        }
    }
    tree.failure.map_or(Ok(()), Err)
}

fn take_signals(told: &mpsc::UnboundedSender<Happening>) -> Outcome {
    for (one, ends) in PASSED_ON {
        let stream = signal(SignalKind::from_raw(one.number()));
        let mut stream = stream
            .map_err(|error| Failure::caused(Exit::Failed, "cannot handle signals", &error))?;
        let told = told.clone();
        tokio::spawn(async move {
            while stream.recv().await.is_some() {
                if told.send(Happening::Signal(one, ends)).is_err() {
                    return;
                }
            }
        });
    }
    Ok(())
}

/// An app of the tree.
#[derive(Debug)]
struct App {
    name: Name,
    child: Option<Child>,
    is_ready: bool,
    /// It waits to be started again.
    is_due: bool,
    pause: Duration,
}

impl App {
    fn new(name: Name) -> Self {
        Self {
            name,
            child: None,
            is_ready: false,
            is_due: false,
            pause: FIRST_PAUSE,
        }
    }
}

struct Tree {
    apps: Vec<App>,
    start: Start,
    told: mpsc::UnboundedSender<Happening>,
    notify_sockets: NotifySockets,
    log: Log,
    outputs: [Writer; 2],
    /// All apps were ready once.
    are_up: bool,
    is_ending: bool,
    failure: Option<Failure>,
}

impl Tree {
    fn is_running(&self) -> bool {
        let waits = |app: &App| app.is_due && !self.is_ending;
        self.apps
            .iter()
            .any(|app| app.child.is_some() || waits(app))
    }

    fn start(&mut self, index: usize) {
        let socket = self.notify_sockets.path(index);
        let app = &mut self.apps[index];
        match self.start.start(&app.name, &socket, index, &self.told) {
            Ok(child) => app.child = Some(child),
            Err(failure) => self.failed(index, &failure),
        }
    }

    fn take(&mut self, happening: &Happening) {
        match *happening {
            Happening::Ready(index) => self.ready(index),
            Happening::Due(index) => {
                self.apps[index].is_due = false;
                if !self.is_ending {
                    self.start(index);
                }
            }
            Happening::Signal(signal, ends) => self.pass_on(signal, ends),
            Happening::Ended(index) => {
                let reaped = self.apps[index].child.as_mut().and_then(Child::reap);
                if let Some(status) = reaped {
                    self.apps[index].child = None;
                    self.ended(index, status);
                }
            }
        }
    }

    fn ready(&mut self, index: usize) {
        let app = &mut self.apps[index];
        (app.is_ready, app.pause) = (true, FIRST_PAUSE);
        if self.are_up || !self.apps.iter().all(|app| app.is_ready) {
            return;
        }
        self.are_up = true;
        let names: Vec<_> = self.apps.iter().map(|app| app.name.as_str()).collect();
        let text = format!("up: {}", names.join(", "));
        self.log
            .tell(Level::Info, "up", &text, json!({"apps": names}));
        tell_manager(&[NotifyState::Ready]);
    }

    fn ended(&mut self, index: usize, status: ExitStatus) {
        let name = self.apps[index].name.clone();
        if self.is_ending || status == ExitStatus::Code(0) {
            if !self.is_ending {
                let text = format!("{name} was stopped");
                self.log.tell(
                    Level::Info,
                    "app_stopped",
                    &text,
                    json!({"app": name.as_str()}),
                );
            }
            return;
        }
        let how = match status {
            ExitStatus::Code(code) => format!("{name} ended with status {code}"),
            ExitStatus::Signal(signal) => format!("{name} was ended by signal {signal}"),
        };
        self.failed(index, &Failure::new(exit_of(status), how));
    }

    /// An app failed. Before all were ready, all end; afterwards it is started again.
    fn failed(&mut self, index: usize, failure: &Failure) {
        let app = &mut self.apps[index];
        app.is_ready = false;
        let name = app.name.as_str();
        if !self.are_up {
            let text = format!("{}: all apps end", failure.reason);
            self.log
                .tell(Level::Error, "app_failed", &text, json!({"app": name}));
            // It has been told.
            self.failure = Some(Failure::new(failure.exit, ""));
            return self.pass_on(Signal::TERM, true);
        }
        let pause = app.pause;
        app.pause = (pause * 2).min(LONGEST_PAUSE);
        app.is_due = true;
        let text = format!("{}: started again in {} s", failure.reason, pause.as_secs());
        self.log
            .tell(Level::Error, "app_failed", &text, json!({"app": name}));
        let told = self.told.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(tokio::time::Instant::now() + pause).await;
            // Nobody waits for it when all has ended.
            drop(told.send(Happening::Due(index)));
        });
    }

    fn pass_on(&mut self, signal: Signal, ends: bool) {
        if ends && !self.is_ending {
            self.is_ending = true;
            tell_manager(&[NotifyState::Stopping]);
        }
        if signal == Signal::USR1 {
            for output in &self.outputs {
                if let Err(error) = output.reopen() {
                    tracing::error!(%error, "cannot open the file of an output anew");
                }
            }
        }
        for app in &self.apps {
            if let Some(child) = &app.child {
                child.signal(signal);
            }
        }
    }
}

/// Where there is a service manager. It is told three words in the life of a tree.
fn tell_manager(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}

/// The exit status of `phalanx run` as one of ours.
fn exit_of(status: ExitStatus) -> Exit {
    let known = [
        Exit::Usage,
        Exit::CannotCreate,
        Exit::Taken,
        Exit::Config,
        Exit::NotExecutable,
        Exit::NotFound,
    ];
    let is_it = |exit: &Exit| status == ExitStatus::Code(*exit as u8);
    known.into_iter().find(is_it).unwrap_or(Exit::Failed)
}

/// The path of this program.
fn own_program() -> Outcome<PathBuf> {
    std::env::current_exe()
        .map_err(|error| Failure::caused(Exit::Failed, "cannot find this program", &error))
}
