//! The verbs of which the npm package `phalanx-cluster` consists: the engine beside Node's own primary, the holder that
//! replaces it when it is killed, and the shim by which workers start.

use std::env;
use std::io;
use std::time::Duration;

use phalanx::DispatchChoice;
use phalanx::splice::{Engine, EngineOptions, HELD_VARIABLE, SOCKET_VARIABLE, TOKEN_VARIABLE};
use phalanx_control::exit::Exit;
use phalanx_control::names::Name;
use phalanx_control::place::Place;
use phalanx_control::runtime_dirs::RuntimeDirs;
use phalanx_control::server::{self, Extras};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::args::{Dispatch, EngineArgs, Listen};
use crate::log::{Log, Style};
use crate::output::{Dropped, Forming, Writer};
use crate::report::{self, Failure, Outcome};

/// The verb in front of a worker's own arguments. It is looked for before the command line is read, because every
/// start of a worker pays for it.
pub(crate) const SHIM: &str = "shim";

/// Becomes the worker that the rest of the command line is about.
pub(crate) fn become_worker() -> Exit {
    let error = phalanx::splice::shim(env::args_os().skip(2));
    report::show_failure(&Failure::caused(
        Exit::Failed,
        "cannot become the worker",
        &error,
    ));
    Exit::Failed
}

/// Has an engine with the same arguments take the connections of a program, and another when it is killed.
pub(crate) fn hold() -> Outcome {
    let socket = named(SOCKET_VARIABLE)?;
    let words: Vec<_> = env::args_os().skip(2).collect();
    phalanx::splice::hold(&socket, &words)
        .map_err(|error| Failure::caused(Exit::Failed, "the engine cannot run", &error))
}

fn named(name: &str) -> Outcome<String> {
    let missing = format!("{name} is not set: this verb is for the npm package phalanx-cluster");
    env::var(name).map_err(|_| Failure::new(Exit::Usage, missing))
}

/// Takes the connections of a program, until it ends.
pub(crate) fn run(args: EngineArgs) -> Exit {
    match try_run(args) {
        Ok(()) => Exit::Done,
        Err(failure) => {
            report::show_failure(&failure);
            failure.exit
        }
    }
}

fn try_run(args: EngineArgs) -> Outcome {
    let mut options = EngineOptions::new(named(SOCKET_VARIABLE)?, named(TOKEN_VARIABLE)?);
    options.policy = args.policy;
    options.weights = args.weights.unwrap_or_default();
    options.dispatch = match args.dispatch {
        Dispatch::Auto => DispatchChoice::Auto,
        Dispatch::Handoff => DispatchChoice::Handoff,
        Dispatch::Shared => DispatchChoice::Shared,
        Dispatch::Kernel => DispatchChoice::Kernel,
    };
    options.leaves_listeners = args.listen == Listen::Primary;
    options.no_preload = args.no_preload;
    let held = env::var(HELD_VARIABLE).ok();
    options.held = held.and_then(|ordinal| ordinal.parse().ok());
    options.drain_timeout = args.drain_timeout;
    let style = Style::of_args(&args.log);
    // What the engine itself writes is short of a line a second.
    let stderr = Writer::stderr(Forming::default(), |_: Dropped| String::new())
        .map_err(|error| Failure::caused(Exit::Failed, "cannot use standard error", &error))?;
    let log = Log::new(style, stderr.clone());
    log.take_tracing();
    let named = args.name;
    options.name = named.as_ref().map(|name| name.as_str().to_owned());
    let ended = crate::to_the_end(async {
        let cannot = |error| Failure::caused(Exit::Failed, "the engine cannot run", &error);
        let engine = Engine::start(options).map_err(cannot)?;
        let (end_server, server_ends) = oneshot::channel();
        let served = named.and_then(|name| open(&name, &engine, server_ends));
        let ended = engine.finished().await.map_err(cannot);
        drop(end_server);
        if let Some((place, server)) = served {
            // Whoever asked for the end is answered, if he takes the answer.
            drop(timeout(ANSWER_LIMIT, server).await);
            drop(place);
        }
        ended
    });
    stderr.finish(FLUSH_LIMIT);
    ended
}

/// Opens the control socket of an app that has a name. Without it the app runs as well.
fn open(
    name: &Name,
    engine: &Engine,
    ends: oneshot::Receiver<()>,
) -> Option<(Place, JoinHandle<io::Result<()>>)> {
    let control = engine.control()?;
    match Place::take(&RuntimeDirs::here(), name) {
        Ok((place, listener)) => {
            let server = server::serve(listener, control, Extras::default(), async {
                // Its sender sends nothing: being dropped is the message.
                drop(ends.await);
            });
            Some((place, tokio::spawn(server)))
        }
        Err(failure) => {
            tracing::warn!("no control socket for {name}: {failure}");
            None
        }
    }
}

/// How long the end waits for clients of the control socket to take their answers.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long the end waits for standard error to take the last lines.
const FLUSH_LIMIT: Duration = Duration::from_millis(200);
