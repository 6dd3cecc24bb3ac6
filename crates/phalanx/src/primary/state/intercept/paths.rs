//! Unix stream sockets of intercepted programs: those whose path the command names, or `--share`. The primary makes
//! the socket and its file, and plants the socket; what the program does to the file afterwards is answered so that
//! the file stays: many remove it before they bind and when they end.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use phalanx_core::dispatch::intercept::Refusal;
use phalanx_core::ids::WorkerId;
use phalanx_core::wire::{ListenRequest, Target};
use phalanx_sys::directory::FileId;
use phalanx_sys::intercept::{self, Act};

use super::LEAST_BACKLOG;
use crate::primary::mailbox::{Decision, Question, Verdict};
use crate::primary::state::Hub;
use crate::primary::state::open::Asker;
use crate::settings::Settings;

impl Settings {
    /// Whether a program with these arguments is likely to listen on a Unix path that is to be shared.
    pub(in crate::primary) fn shares_paths(&self) -> bool {
        let hints = [&b"unix:"[..], b"uds", b".sock"];
        let hinted = |text: &OsStr| hints.iter().any(|hint| contains(text, hint));
        let mut args = self.args.iter().flatten();
        self.share.iter().any(|share| share.path().is_some()) || args.any(|text| hinted(text))
    }

    /// Whether the user means this path, as the program writes it and absolute.
    fn names_path(&self, written: &Path, path: &Path) -> bool {
        let mut args = self.args.iter().flatten();
        let mut shares = self.share.iter().filter_map(|share| share.path());
        shares.any(|named| named == path || named == written)
            || args.any(|text| contains(text, written.as_os_str().as_encoded_bytes()))
    }
}

fn contains(text: &OsStr, part: &[u8]) -> bool {
    let text = text.as_encoded_bytes();
    !part.is_empty() && text.windows(part.len()).any(|window| window == part)
}

impl Hub {
    /// The primary binds, and the program's socket stays as it is until it listens.
    pub(super) fn decide_path(&mut self, worker: WorkerId, question: &Question) -> Verdict {
        let Act::BindPath {
            written,
            path,
            umask,
        } = &question.act
        else {
            return Verdict::Pass;
        };
        if !self.settings.shares_paths() || !self.settings.names_path(written, path) {
            return Verdict::Pass;
        }
        self.opens_another();
        let key = format!("intercept:unix:{}", path.display());
        let request = ListenRequest {
            target: Target::UnixPath {
                path: path.clone(),
                readable_all: false,
                writable_all: false,
            },
            scope: None,
            index: 0,
            backlog: Some(LEAST_BACKLOG),
            data: serde_json::Value::Null,
            key: key.clone(),
        };
        let usual = self.settings.unix;
        // As it would be if the program made it, unless the user wants it otherwise.
        self.settings.unix.mode = usual.mode.or(Some(0o777 & !umask));
        self.settings.unix.owner = usual.owner.or(self.settings.uid);
        let opened = self.listener_for(&key, &request, Asker::Worker);
        self.settings.unix = usual;
        match (opened, self.workers.get_mut(&worker)) {
            (Ok(_), Some(state)) => {
                state.calls.bound_to_path(question.socket, request);
                Verdict::Done
            }
            (Ok(_), None) => Verdict::Pass,
            (Err(error), _) => {
                tracing::warn!(worker = worker.0, %error, "cannot listen on {}", path.display());
                Verdict::Fail(error)
            }
        }
    }

    /// A Unix socket is to listen: if it was bound to a path of the primary's, it becomes the primary's socket.
    pub(super) fn listen_on_path(&mut self, worker: WorkerId, question: &Question) -> Decision {
        let state = self.workers.get(&worker);
        let Some(request) = state.and_then(|state| state.calls.path_of(question.socket)) else {
            return Verdict::Pass.into();
        };
        match question.is_attached {
            None => return Verdict::Look.into(),
            Some(true) => return self.refuse(worker, Refusal::Shared).into(),
            Some(false) => {}
        }
        let key = request.key.clone();
        let planted = self
            .listener_for(&key, &request, Asker::Worker)
            .and_then(|id| {
                let (slot, again) = self.slot_of(worker, id)?;
                let planted = intercept::id_of(slot.as_fd());
                self.hold(worker, &key, request, planted.ok());
                Ok(Verdict::Plant { slot, again })
            });
        Decision {
            verdict: planted.unwrap_or_else(Verdict::Fail),
            serves: Some(key),
        }
    }

    /// Whether this file belongs to a listener, and shall stay.
    pub(in crate::primary::state) fn keeps_file(&self, file: FileId) -> bool {
        let mut files = self.listeners.values().filter_map(|one| one.file.as_ref());
        files.any(|one| one.id() == file)
    }
}
