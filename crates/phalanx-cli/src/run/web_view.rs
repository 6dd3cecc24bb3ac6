//! The web view of an app that is being run: opened before the first worker starts, served beside the control socket.

use std::io;

use phalanx::supervisor::Control;
use phalanx_control::admin::{Admin, Token, TokenFile, demands_token};
use phalanx_control::exit::Exit;
use phalanx_control::level::Level;
use phalanx_control::place::Place;
use phalanx_control::server::Extras;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::args::AdminArgs;
use crate::log::Log;
use crate::report::{Failure, Outcome};

/// A web view that is open.
pub(super) struct WebView {
    admin: Admin,
    /// The file of a token that was made up.
    made: Option<TokenFile>,
}

/// A web view that is served, until it is to end.
pub(super) struct Serving {
    end: oneshot::Sender<()>,
    server: JoinHandle<io::Result<()>>,
    _made: Option<TokenFile>,
}

/// Refuses what cannot be meant.
pub(super) fn check(args: &AdminArgs) -> Outcome {
    if args.admin.is_none() && args.admin_token_file.is_some() {
        let reason = "--admin-token-file is for --admin ADDRESS";
        return Err(Failure::new(Exit::Usage, reason));
    }
    Ok(())
}

impl WebView {
    /// Opens it, if it is wanted.
    pub(super) fn open(args: &AdminArgs, place: &Place) -> Outcome<Option<Self>> {
        let Some(address) = args.admin else {
            return Ok(None);
        };
        let (made, token) = match &args.admin_token_file {
            Some(path) => (None, Some(Token::read(path)?)),
            None if demands_token(address) => {
                let (made, token) = TokenFile::create(&place.token_file())?;
                (Some(made), Some(token))
            }
            None => (None, None),
        };
        let admin = Admin::open(address, token)?;
        Ok(Some(Self { admin, made }))
    }

    /// Serves it from now on, and tells where.
    pub(super) fn serve(self, control: &Control, extras: Extras, log: &Log) -> Serving {
        let address = self.admin.address();
        let token = self
            .made
            .as_ref()
            .map(|made| made.path().display().to_string());
        let kept = token
            .as_ref()
            .map(|path| format!("; its token is in {path}"));
        let text = format!("web view on http://{address}/{}", kept.unwrap_or_default());
        let fields = json!({"address": address.to_string(), "token_file": token});
        log.tell(Level::Info, "web_view", &text, fields);
        let (end, ended) = oneshot::channel();
        let server = self.admin.serve(control.clone(), extras, async {
            // Its sender sends nothing: being dropped is the message.
            drop(ended.await);
        });
        Serving {
            end,
            server: tokio::spawn(server),
            _made: self.made,
        }
    }
}

/// Ends it, after the answers under way.
pub(super) async fn end_of(serving: Option<Serving>) {
    if let Some(Serving { end, server, _made }) = serving {
        drop(end);
        if let Ok(Err(error)) = server.await {
            tracing::warn!(%error, "the web view has failed");
        }
    }
}
