//! `phalanx run`: one app, in the foreground, from its first worker to its last.
//!
//! Everything that can be refused is refused before the first worker starts. What the app occupies (its
//! name, socket and pid file) is given back however it ends, short of SIGKILL; then the next app of this
//! name finds it stale and replaces it.

mod adoption;
mod app;
mod controls;
mod event_logger;
mod limits;
mod metrics;
mod outputs;
mod own_primary;
mod primary_service;
mod revisions;
mod service;
mod watch;
mod web_view;

use std::env;
use std::time::Duration;

use phalanx::supervisor::SupervisorOptions;
use phalanx::{Adoption, Bind, DispatchChoice, PolicyName, Serialization, Settings};
use phalanx_sys::limits as limits_of_process;
use serde_json::json;

use crate::args::{Cgroups, ControlWay, Dispatch, RebalanceWhen, RunArgs};
use crate::config::{self, Live};
use crate::log::{Level, Log, Style};
use crate::program::{Program, Words};
use crate::report::{Failure, Outcome};
use crate::values::WorkerCount;
use app::App;
use outputs::Outputs;
pub(crate) use outputs::streams;
use phalanx_control::exit::Exit;
use phalanx_control::names::Name;

/// How long the end waits for clients of the control socket to take their answers.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

const SCHEDULING_VARIABLE: &str = "NODE_CLUSTER_SCHED_POLICY";
const SERIALIZATION_VARIABLE: &str = "NODE_CHANNEL_SERIALIZATION_MODE";

/// Runs an app to its end, and tells its failure in the log's own form.
pub(crate) fn run(args: RunArgs) -> Exit {
    let style = Style::of_args(&args.log);
    match try_run(args, style) {
        Ok(()) => Exit::Done,
        Err(failure) => {
            let fields = json!({"last_lines": failure.last_lines});
            // Written directly: the queue has been flushed by now, or was never made.
            crate::report::show_log_line(&style.lines(
                Level::Error,
                "failed",
                &failure.reason,
                fields,
            ));
            failure.exit
        }
    }
}

fn try_run(args: RunArgs, style: Style) -> Outcome {
    // While there are no threads; the engine tells when it fails.
    drop(limits_of_process::raise_open_files());
    let (args, described) = config::of_run(args)?;
    check_together(&args)?;
    let program = resolve_program(&args).map_err(|failure| match described {
        Some(_) => failure,
        None => config::no_app_either(&args, failure),
    })?;
    let name = args.name.clone().unwrap_or_else(|| program.name.clone());
    if args.primary {
        return own_primary::run(&args, program, &name, style);
    }
    let inherited = service::listeners()?;
    let mut options = options(&args, program, &name, &inherited)?;
    let outputs = Outputs::open(&args.output, args.log.log_time, style, &name)?;
    let log = Log::new(style, outputs.log.clone());
    log.take_tracing();
    options.reopen_log = Some(outputs.reopen());
    options.output = Some(outputs.sink());
    options.outputs = Some(outputs.states());
    let app = App {
        args,
        name,
        logs: outputs.kept.clone(),
        log,
        live: described.map(|(source, app)| Live::new(source, app)),
        inherited,
    };
    let ended = crate::to_the_end(app.run(options));
    outputs.finish();
    ended
}

/// Refuses options that contradict each other, as far as they are not about connections.
fn check_together(args: &RunArgs) -> Outcome {
    if args.weights.is_some() && args.policy != Some(PolicyName::Weighted) {
        let reason = "--weights are for --policy weighted";
        return Err(Failure::new(Exit::Usage, reason));
    }
    web_view::check(&args.admin)?;
    if args.pid_file.is_none() && args.control.contains(&ControlWay::PidFile) {
        let reason = "--control pid-file needs the option --pid-file FILE too";
        return Err(Failure::new(Exit::Usage, reason));
    }
    Ok(())
}

/// What an app cannot be run for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// Its program.
    Program,
    /// Its options.
    Options,
}

/// Whether `run` would start this, as far as can be told without starting anything.
pub(crate) fn judge(args: &RunArgs) -> Result<(), (Judged, Failure)> {
    let options_wrong = |failure| (Judged::Options, failure);
    check_together(args).map_err(options_wrong)?;
    let program = resolve_program(args).map_err(|failure| (Judged::Program, failure))?;
    let name = program.name.clone();
    options(args, program, &name, &[])
        .map(|_| ())
        .map_err(options_wrong)
}

/// The option, or what Node's own variable says; as with all variables, those of the app go first.
fn serialization(args: &RunArgs) -> Serialization {
    let set = args.env.iter().rev();
    let set = set
        .filter(|variable| variable.key == SERIALIZATION_VARIABLE)
        .map(|variable| variable.value.clone());
    let named = || set.chain(env::var_os(SERIALIZATION_VARIABLE)).next();
    args.serialization
        .or_else(|| Serialization::from_name(named()?.to_str()?))
        .unwrap_or_default()
}

pub(crate) fn resolve_program(args: &RunArgs) -> Outcome<Program> {
    Words {
        command: &args.command,
        node: args.node.as_deref(),
        cwd: args.cwd.as_deref(),
        env: &args.env,
    }
    .resolve()
}

/// What the command line asks for, in the words of the engine.
fn options(
    args: &RunArgs,
    program: Program,
    name: &Name,
    inherited: &[Bind],
) -> Outcome<SupervisorOptions> {
    let fleet = limits::fleet(args)?;
    let kind = adoption::Kind::of(&program);
    let mut settings = Settings::new()
        .exec(program.exec)
        .args(program.args)
        .preload(!args.polite.no_preload)
        .launcher_words(program.launcher_words)
        .serialization(serialization(args))
        .silent(true);
    let privileges = args.privileges.apply(settings);
    settings = privileges.map_err(|reason| Failure::new(Exit::Usage, reason))?;
    for variable in program.env.iter().chain(&args.env) {
        settings = settings.env(variable.key.clone(), variable.value.clone());
    }
    if let Some(cwd) = program.cwd.as_ref().or(args.cwd.as_ref()) {
        settings = settings.cwd(cwd);
    }
    let settings = adoption::apply(args, kind, settings, inherited)?;
    let mut options = SupervisorOptions::new(name.as_str());
    let tells = settings.adoption == Adoption::Channel && !(kind.is_node && args.polite.no_preload);
    options.wear = limits::wear(args, tells)?;
    options.elastic = limits::elastic(args);
    options.follows_cores = args.workers == WorkerCount::Auto;
    options.auto_rebalance = args.recycling.rebalance == RebalanceWhen::Auto;
    options.settings = settings;
    options.fleet = fleet;
    options.stream_timeout = args.polite.stream_timeout;
    options.metrics = args.metrics.are_read();
    options.pre_stop_delay = args.metrics.pre_stop_delay;
    options.weights = args.weights.clone().unwrap_or_default();
    options.policy = args.policy.unwrap_or_else(policy_of_environment);
    options.cgroups = args.cgroup == Cgroups::Auto;
    options.dispatch = match args.dispatch {
        Dispatch::Auto => DispatchChoice::Auto,
        Dispatch::Handoff => DispatchChoice::Handoff,
        Dispatch::Shared => DispatchChoice::Shared,
        Dispatch::Kernel => DispatchChoice::Kernel,
    };
    match options.spares_refused() {
        Some(reason) => Err(Failure::new(Exit::Usage, reason)),
        None => Ok(options),
    }
}

/// Node's cluster takes `none` and `rr`, and ignores everything else; so does phalanx.
fn policy_of_environment() -> PolicyName {
    match env::var(SCHEDULING_VARIABLE).as_deref() {
        Ok("none") => PolicyName::None,
        Ok(_) | Err(_) => PolicyName::RoundRobin,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Cli, Verb};

    fn parse(words: &[&str]) -> RunArgs {
        let words = ["phalanx", "run"].iter().chain(words);
        let Verb::Run(args) = Cli::try_parse_from(words).unwrap().verb else {
            panic!("run was asked for");
        };
        *args
    }

    #[test]
    fn the_command_line_becomes_options_of_the_engine() {
        let args = parse(&[
            "-n",
            "3",
            "--max-surge",
            "50%",
            "--cwd",
            "/",
            "--env",
            "A=b",
            "cat",
            "-n",
        ]);
        let program = resolve_program(&args).unwrap();
        let name = program.name.clone();
        let options = options(&args, program, &name, &[]).unwrap();
        assert_eq!((options.name.as_str(), options.fleet.workers), ("cat", 3));
        assert_eq!(
            options.settings.cwd.as_deref(),
            Some(std::path::Path::new("/"))
        );
        assert_eq!(options.settings.env, [("A".into(), "b".into())]);
        assert_eq!(options.settings.args, Some(vec!["-n".into()]));
    }

    #[test]
    fn limits_that_let_nothing_move_are_a_usage_error() {
        let args = parse(&["--max-surge", "0", "--max-unavailable", "0", "cat"]);
        let program = resolve_program(&args).unwrap();
        let name = program.name.clone();
        assert_eq!(
            options(&args, program, &name, &[]).unwrap_err().exit,
            Exit::Usage
        );
    }

    #[test]
    fn the_serialization_is_what_the_option_says_or_the_variable() {
        let variable = ["--env", "NODE_CHANNEL_SERIALIZATION_MODE=advanced", "cat"];
        assert_eq!(serialization(&parse(&variable)), Serialization::Advanced);
        let both = [&["--serialization", "json"][..], &variable[..]].concat();
        assert_eq!(serialization(&parse(&both)), Serialization::Json);
    }
}
