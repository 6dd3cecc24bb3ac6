//! How a program becomes a worker, as far as the command line decides it: from the options to the
//! settings of the engine. Options that contradict each other are refused.

use std::collections::HashSet;

use phalanx::{Adoption, Bind, Readiness, Settings};

use super::service;
use crate::args::{Adopt, Dispatch, RunArgs};
use crate::exit_code::Exit;
use crate::report::{Failure, Outcome};

/// Adds to `settings` what the options say of adoption, listeners and readiness.
pub(super) fn apply(args: &RunArgs, is_node: bool, settings: Settings) -> Outcome<Settings> {
    let inherited = service::listeners()?;
    let has_listeners = !args.bound.bind.is_empty() || !inherited.is_empty();
    let adoption = choose(args, is_node, has_listeners);
    check(args, adoption, has_listeners)?;
    let mut settings = settings
        .settle_timeout(args.limits.settle_timeout)
        .stop_signal(args.limits.stop_signal)
        .adoption(adoption);
    // A listener that is there need not be opened, and could not be.
    let is_new = |bind: &&Bind| inherited.iter().all(|one| one.address != bind.address);
    for bind in inherited
        .iter()
        .chain(args.bound.bind.iter().filter(is_new))
    {
        settings = settings.bind(bind.clone());
    }
    if let Some(readiness) = &args.bound.ready {
        settings = settings.readiness(readiness.clone());
    }
    if let Some(limit) = args.bound.watchdog {
        settings = settings.watchdog(limit);
    }
    Ok(settings)
}

fn choose(args: &RunArgs, is_node: bool, has_listeners: bool) -> Adoption {
    match args.adopt {
        Adopt::Auto if is_node || !has_listeners => Adoption::Channel,
        Adopt::Auto | Adopt::Activation => Adoption::Activation,
        Adopt::Channel => Adoption::Channel,
        Adopt::None => Adoption::None,
    }
}

fn check(args: &RunArgs, adoption: Adoption, has_listeners: bool) -> Outcome {
    let bound = &args.bound;
    let is_given = adoption == Adoption::Activation;
    let is_http = matches!(bound.ready, Some(Readiness::Http(_)));
    let has_tcp = bound.bind.iter().any(|bind| bind.address.inet().is_some());
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
    } else if is_given && args.dispatch == Dispatch::Handoff {
        "--dispatch handoff needs a worker with a channel: use auto, kernel or shared".to_owned()
    } else if !is_given && bound.ready.is_some() {
        "--ready is for workers that are given their listeners: add --bind ADDR".to_owned()
    } else if is_http && !has_tcp {
        "--ready http: asks on a TCP listener: add one by --bind".to_owned()
    } else if !is_given && bound.watchdog.is_some() {
        "--watchdog is for workers that are given their listeners: add --bind ADDR".to_owned()
    } else {
        return Ok(());
    };
    Err(Failure::new(Exit::Usage, reason))
}
