//! The `phalanx` command: `run` supervises an app, the other verbs talk to a running one.
//!
//! From the top down: `args` says what can be typed; `run` starts an app, `up` several, and `program` says what it runs;
//! `config` reads the file that describes them; `unit` has systemd run them;
//! the crate `phalanx-control` is the socket between the verbs and the app; `verbs` are its clients. Failures carry their
//! exit status up to here.

mod args;
mod config;
mod engine;
mod generate;
mod log;
mod logs;
#[cfg(feature = "otlp")]
mod otlp;
mod output;
mod pid_file;
mod program;
mod progress;
mod report;
mod run;
mod table;
mod unit;
mod up;
mod values;
mod verbs;

use std::env;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use args::{Cli, Verb};
use clap::Parser;
use phalanx_control::exit::Exit;
use phalanx_drill::DrillArgs;
use phalanx_sys::{allocator, signal};
use report::{Failure, Outcome};

/// How long a thread waits for more work that may block. All workers start at once on one each, and a stack is memory.
const IDLE_THREAD: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    phalanx::keep_if_asked();
    allocator::use_one_arena();
    signal::unblock_all();
    if env::args_os()
        .nth(1)
        .is_some_and(|verb| verb == engine::SHIM)
    {
        return engine::become_worker().into();
    }
    let exit = match Cli::try_parse_from(args::translate(env::args_os())) {
        Ok(cli) => carry_out(cli.verb),
        Err(error) => {
            match args::explain(&error) {
                Some(reason) => report::show_failure(&Failure::new(Exit::Usage, reason)),
                None => report::show_clap(&error),
            }
            if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            }
        }
    };
    exit.into()
}

fn carry_out(verb: Verb) -> Exit {
    let outcome = match verb {
        Verb::Run(args) => return run::run(*args),
        Verb::Up(args) => return up::up(&args),
        Verb::Down(args) => to_the_end(verbs::down(args)),
        Verb::Init(args) => config::init(&args),
        Verb::Check(args) => config::check(&args),
        Verb::Diff(args) => to_the_end(config::diff(args)),
        Verb::Import(args) => config::import(&args),
        Verb::Unit(args) => unit::unit(&args),
        Verb::Generate(args) => generate::generate(args.what),
        Verb::Status(args) => to_the_end(verbs::status(args)),
        Verb::List(args) => to_the_end(verbs::list(args)),
        Verb::Reload(args) => to_the_end(verbs::reload(args)),
        Verb::Rollback(args) => to_the_end(verbs::rollback(args)),
        Verb::Scale(args) => to_the_end(verbs::scale(args)),
        Verb::Recycle(args) => to_the_end(verbs::recycle(args)),
        Verb::Rebalance(args) => to_the_end(verbs::rebalance(args)),
        Verb::Policy(args) => to_the_end(verbs::policy(args)),
        Verb::Stop(args) => to_the_end(verbs::stop(args)),
        Verb::Send(args) => to_the_end(verbs::send(args)),
        Verb::Logs(args) => to_the_end(logs::logs(args)),
        Verb::Metrics(args) => to_the_end(verbs::metrics(args)),
        Verb::Events(args) => to_the_end(verbs::events(args)),
        #[cfg(feature = "top")]
        Verb::Top(args) => to_the_end(phalanx_top::top(args)),
        Verb::Drill(args) => to_the_end(drill(*args)),
        Verb::Engine(args) => return engine::run(args),
        Verb::Hold(_) => engine::hold(),
    };
    match outcome {
        Ok(()) => Exit::Done,
        Err(failure) => {
            report::show_failure(&failure);
            failure.exit
        }
    }
}

async fn drill(args: DrillArgs) -> Outcome {
    let drilled = phalanx_drill::drill(args, args::opens_unpublished_ports).await?;
    report::print(&drilled.report)?;
    drilled.verdict
}

/// Runs on one thread: a primary waits, it does not compute.
fn to_the_end(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(IDLE_THREAD)
        .build();
    let runtime = runtime
        .map_err(|error| Failure::caused(Exit::Failed, "cannot start the runtime", &error))?;
    let outcome = runtime.block_on(work);
    // Nothing that still runs is worth waiting for.
    runtime.shutdown_background();
    outcome
}
