//! Says why a worker does not take the listeners that it was given: `LISTEN_PID` names the process that was
//! started (`sd_listen_fds(3)`), and where a shell or a launcher (`uv run`, `npm`) stands between, the server is
//! another one, which passes the listeners by.

use std::sync::Arc;
use std::time::Duration;

use phalanx_sys::process::heirs_of;

use crate::primary::cell::Cell;
use crate::primary::clock;
use crate::primary::mailbox::Mailbox;
use crate::settings::Adoption;

/// So long after its start a worker that is not ready is looked at. Most are ready by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// Looks once, unless the worker is ready.
pub(in crate::primary) fn watch(mailbox: Mailbox, cell: &Arc<Cell>) {
    if cell.adoption != Adoption::Activation {
        return;
    }
    let cell = Arc::clone(cell);
    let until = clock::real_now() + PATIENCE;
    tokio::spawn(async move {
        clock::wait_until(until).await;
        if cell.is_ready() || !cell.is_connected() {
            return;
        }
        let pid = cell.pid;
        let look = move || heirs_of(pid, "LISTEN_PID", &pid.to_string());
        let Ok(heirs) = tokio::task::spawn_blocking(look).await else {
            return;
        };
        if let (Some(heir), Some(primary)) = (heirs.last(), mailbox.open()) {
            let message = format!(
                "LISTEN_PID names the process that was started ({pid}), and not {heir}, which runs below it: a server \
                 there passes its listeners by. Start the server itself, by `exec` in a shell and without a launcher \
                 like `uv run`, or leave --bind out"
            );
            primary.error(cell.id, message);
        }
    });
}
