//! Makes a Unix listener anew whose path does not lead to it any more: a worker, or somebody else, has removed
//! or replaced its file, as programs do that clear their path before they listen.
//!
//! What waits at the old socket is served. Nothing new can reach it: a socket that has lost its name never
//! gets one again. Workers that accept by themselves (dispatch `shared`) and have the old one do
//! not get the new one.

use std::io;

use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::ListenRequest;

use crate::primary::state::Hub;
use crate::primary::state::open::{Asker, OwnFile};

impl Hub {
    /// Has clients find this listener, for which a worker asks again.
    ///
    /// # Errors
    /// As bind(2) and listen(2); the listener is what it was then.
    pub(in crate::primary) fn find_again(
        &mut self,
        id: ListenerId,
        request: &ListenRequest,
        by: Asker,
    ) -> io::Result<()> {
        let listener = self.listeners.get(&id);
        let file = listener.and_then(|listener| listener.file.as_ref());
        if file.is_none_or(OwnFile::is_found) {
            return Ok(());
        }
        let opened = self.open_one(request, by)?;
        let Some(listener) = self.listeners.get_mut(&id) else {
            return Ok(());
        };
        match &mut listener.carrier {
            Carrier::Handoff(handed) => {
                handed.start_anew(self.shared.clone(), id, opened.by)?;
                tracing::warn!(address = %listener.address, "the socket's file was removed: made anew");
            }
            Carrier::Shared(socket) => {
                *socket = opened.by;
                tracing::warn!(
                    address = %listener.address,
                    "the socket's file was removed: made anew. Workers that have the old socket get nothing \
                     until a reload"
                );
            }
            // Slots have no path.
            Carrier::Kernel(_) => return Ok(()),
        }
        listener.file = opened.file;
        Ok(())
    }
}
