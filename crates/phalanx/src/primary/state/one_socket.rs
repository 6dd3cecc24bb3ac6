//! Listeners of one socket. A Unix one is made anew whose path does not lead to it any more: a worker, or somebody else, has removed
//! or replaced its file, as programs do that clear their path before they listen.
//!
//! What waits at the old socket is served. Nothing new can reach it: a socket that has lost its name never
//! gets one again. Workers that accept by themselves (dispatch `shared`) and have the old one do
//! not get the new one.

use std::io;
use std::path::Path;

use phalanx_core::dispatch::allow::Wanted;
use phalanx_core::dispatch::listener::Carrier;
use phalanx_core::ledger::ListenerId;
use phalanx_core::wire::{ListenRequest, Target};
use phalanx_sys::socket::{PathOptions, SocketPlace};

use crate::primary::sockets::listening::{BACKLOG, Opened, OwnFile, more_mode, open, open_path};
use crate::primary::state::Hub;
use crate::primary::state::open::Asker;
use crate::settings::UnixFile;

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
        let mailbox = self.mailbox();
        let Some(listener) = self.listeners.get_mut(&id) else {
            return Ok(());
        };
        match &mut listener.carrier {
            Carrier::Handoff(handed) => {
                handed.start_anew(mailbox, id, opened.by)?;
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

    /// Opens what needs no slots, if who asks for it may have it.
    ///
    /// # Errors
    /// `PermissionDenied`; as bind(2) and listen(2).
    pub(in crate::primary) fn open_one(
        &mut self,
        request: &ListenRequest,
        by: Asker,
    ) -> io::Result<Opened> {
        let Target::UnixPath {
            path,
            readable_all,
            writable_all,
        } = &request.target
        else {
            return open(request);
        };
        // What is judged is what is opened, wherever the path leads by then.
        let place = SocketPlace::find(path)?;
        if by == Asker::Worker {
            self.judge_path(&place)?;
        }
        let UnixFile { mode, owner, group } = self.settings.unix;
        let options = PathOptions {
            mode,
            more_mode: more_mode(*readable_all, *writable_all),
            owner,
            group,
            backlog: request.backlog.unwrap_or(BACKLOG),
        };
        open_path(path, place, &options)
    }

    fn judge_path(&mut self, place: &SocketPlace) -> io::Result<()> {
        let real = place.real_path()?;
        let directory = self.settings.cwd.as_deref().unwrap_or(Path::new("."));
        let directory = std::fs::canonicalize(directory)?;
        let wanted = Wanted::Path {
            is_inside: real.starts_with(directory),
            real: &real,
        };
        self.judge(&wanted)
    }
}
