//! How a program becomes a worker, as far as the command line decides it: from the options to the
//! settings of the engine. Options that contradict each other are refused.

use std::collections::HashSet;

use phalanx::{Adoption, Bind, Readiness, Settings};
use phalanx_sys::intercept;

use crate::args::{Adopt, Dispatch, RunArgs};
use crate::program::Program;
use crate::report::{Failure, Outcome};
use phalanx_control::exit::Exit;

/// What is known of the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) is_node: bool,
    pub(super) is_linked: bool,
}

impl Kind {
    pub(super) fn of(program: &Program) -> Self {
        Self {
            is_node: program.is_node,
            is_linked: program.is_linked,
        }
    }
}

/// Adds to `settings` what the options say of adoption, listeners and readiness.
pub(super) fn apply(
    args: &RunArgs,
    kind: Kind,
    settings: Settings,
    inherited: &[Bind],
) -> Outcome<Settings> {
    let has_listeners = !args.bound.bind.is_empty() || !inherited.is_empty();
    let adoption = choose(args, kind, has_listeners);
    check(args, adoption, has_listeners)?;
    if adoption == Adoption::Intercept {
        intercept::available().map_err(|error| {
            let reason =
                "the program cannot be intercepted; give it its listeners with --bind ADDR";
            Failure::caused(Exit::Failed, reason, &error)
        })?;
    }
    let mut settings = settings
        .settle_timeout(args.limits.settle_timeout)
        .ready_quiet(args.limits.ready_quiet)
        .stop_signal(args.limits.stop_signal)
        .hang(args.health.hang())
        .adoption(adoption);
    // A listener that is there need not be opened, and could not be.
    let is_new = |bind: &&Bind| inherited.iter().all(|one| one.address != bind.address);
    for bind in inherited
        .iter()
        .chain(args.bound.bind.iter().filter(is_new))
    {
        settings = settings.bind(bind.clone());
    }
    for publish in &args.bound.publish {
        settings = settings.publish(publish.clone());
    }
    for share in &args.bound.share {
        settings = settings.share(share.clone());
    }
    if let Some(readiness) = &args.bound.ready {
        settings = settings.readiness(readiness.clone());
    }
    if let Some(limit) = args.bound.watchdog {
        settings = settings.watchdog(limit);
    }
    Ok(settings)
}

fn choose(args: &RunArgs, kind: Kind, has_listeners: bool) -> Adoption {
    match args.adopt {
        Adopt::Auto if kind.is_node => Adoption::Channel,
        Adopt::Auto if has_listeners => Adoption::Activation,
        Adopt::Auto if kind.is_linked => Adoption::Channel,
        Adopt::Activation => Adoption::Activation,
        Adopt::Channel => Adoption::Channel,
        Adopt::Auto | Adopt::Intercept => Adoption::Intercept,
        Adopt::None => Adoption::None,
    }
}

fn check(args: &RunArgs, adoption: Adoption, has_listeners: bool) -> Outcome {
    let bound = &args.bound;
    let is_given = adoption == Adoption::Activation;
    let is_http = matches!(bound.ready, Some(Readiness::Http(_)));
    let has_tcp = bound.bind.iter().any(|bind| bind.address.inet().is_some());
    let opens_itself = matches!(adoption, Adoption::Channel | Adoption::Intercept);
    let mut published = HashSet::new();
    let published_twice = bound
        .publish
        .iter()
        .find(|publish| !published.insert(publish.app_port));
    let mut seen = HashSet::new();
    let twice = bound
        .bind
        .iter()
        .find(|bind| !seen.insert(bind.address.to_string()));
    let reason = if let Some(twice) = twice {
        format!("--bind {}: the address is given twice", twice.address)
    } else if is_given && !has_listeners {
        "--adopt activation needs listeners to give: add --bind ADDR".to_owned()
    } else if adoption == Adoption::None && !bound.bind.is_empty() {
        "--adopt none gives no listeners: leave --bind out, or use --adopt activation".to_owned()
    } else if let Some(twice) = published_twice {
        match twice.app_port {
            Some(port) => format!("--publish {twice}: port {port} is published already"),
            None => format!("--publish {twice}: the other ports are published already"),
        }
    } else if !opens_itself && !bound.publish.is_empty() {
        "--publish is for programs that open their listeners themselves: leave it out".to_owned()
    } else if adoption != Adoption::Intercept && !bound.share.is_empty() {
        "--share is for programs whose bind and listen are intercepted: leave it out".to_owned()
    } else if adoption == Adoption::Intercept && !bound.bind.is_empty() {
        "--adopt intercept gives no listeners: leave --bind out, or use --adopt activation"
            .to_owned()
    } else if (is_given || adoption == Adoption::Intercept) && args.dispatch == Dispatch::Handoff {
        "--dispatch handoff needs a worker with a channel: use auto, kernel or shared".to_owned()
    } else if adoption == Adoption::None && bound.ready.is_some() {
        "--ready asks for a proof that a worker serves; with --adopt none it serves nothing: leave it out".to_owned()
    } else if !is_given && bound.ready == Some(Readiness::Exec) {
        "--ready exec is for workers that are given their listeners: add --bind ADDR".to_owned()
    } else if is_http && is_given && !has_tcp {
        "--ready http: asks on a TCP listener: add one by --bind".to_owned()
    } else if is_http && args.dispatch == Dispatch::Shared {
        "--ready http: cannot ask one worker alone with --dispatch shared: use auto, kernel or handoff"
            .to_owned()
    } else if !is_given && bound.watchdog.is_some() {
        "--watchdog is for workers that are given their listeners: add --bind ADDR".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::new(Exit::Usage, reason))
}
