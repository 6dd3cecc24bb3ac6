//! A running app whose file is read anew at each reload.

use std::sync::{Arc, OnceLock};

use phalanx::Bind;
use phalanx::supervisor::{Control, Revise, Revision, SupervisorOptions};

use super::{check_together, resolve_program};
use crate::config::Live;
use crate::report::{Failure, Outcome};
use phalanx_control::exit::Exit;
use phalanx_control::names::Name;

/// How the app's file is read anew, if it has one; and the place for the handle of the app, which is there later.
pub(super) fn of(
    live: Option<&Arc<Live>>,
    (name, inherited): (&Name, &[Bind]),
    options: &SupervisorOptions,
) -> (Arc<OnceLock<Control>>, Option<Revise>) {
    let known = Arc::new(OnceLock::<Control>::new());
    let Some(live) = live.cloned() else {
        return (known, None);
    };
    let (name, inherited) = (name.clone(), inherited.to_vec());
    let (settings, handle) = (options.settings.clone(), Arc::clone(&known));
    let revise = move || -> Outcome<Revision> {
        let generation = handle
            .get()
            .map_or(1, |control| control.status().generation.0);
        let next = live.next(generation)?;
        check_together(&next.args)?;
        let program = resolve_program(&next.args)?;
        let mut wanted = super::options(&next.args, program, &name, &inherited)?;
        if wanted.settings.adoption != settings.adoption {
            let reason = format!(
                "the program would become a worker by {}, and the app was started with {}: stop it and start it again",
                wanted.settings.adoption.as_str(),
                settings.adoption.as_str()
            );
            return Err(Failure::new(Exit::Config, reason));
        }
        wanted.settings.ack_socket.clone_from(&settings.ack_socket);
        if !next.left.is_empty() {
            let keys = next.left.join(", ");
            tracing::warn!("not applied without a stop and a start: {keys}");
        }
        let live = Arc::clone(&live);
        Ok(Revision::new(wanted, move |generation| {
            live.stands(generation.0, next);
        }))
    };
    let revise = move || revise().map_err(|failure| failure.reason);
    (known, Some(Arc::new(revise)))
}
