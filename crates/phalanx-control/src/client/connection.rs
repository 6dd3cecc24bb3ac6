//! A connection to a primary: requests and their answers.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request as HttpRequest, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::api::{ErrorKind, Failed, Method, Request};
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::names::Name;

/// A connection to a primary.
#[derive(Debug)]
pub struct Connection {
    app: Name,
    sender: SendRequest<Full<Bytes>>,
    /// The primary's pid, where it is known.
    pub pid: Option<i32>,
}

impl Connection {
    pub(super) async fn over(stream: UnixStream, app: &Name) -> Outcome<Self> {
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(app, &error))?;
        // Ends with the connection; what goes wrong there, the sender is told too.
        tokio::spawn(connection);
        Ok(Self {
            app: app.clone(),
            sender,
            pid,
        })
    }

    /// Sends a request and reads the answer. An answer that tells of an error becomes a failure.
    ///
    /// # Errors
    ///
    /// Fails if the connection ends first, or the answer tells of an error.
    pub async fn ask<R: Request>(&mut self, request: &R) -> Outcome<R::Answer> {
        let answer = self.ask_for_json(request).await?;
        read(&self.app, answer)
    }

    /// As [`ask`](Self::ask), for the answer as it came, with the fields of later versions too.
    pub(crate) async fn ask_for_json<R: Request>(&mut self, request: &R) -> Outcome<Value> {
        let body = match R::METHOD {
            Method::Get => Ok(String::new()),
            Method::Post => serde_json::to_string(request),
        };
        let body =
            body.map_err(|error| Failure::caused(Exit::Failed, "cannot make a request", &error))?;
        let response = self.send(R::METHOD, R::PATH, body).await?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|error| broken(&self.app, &error))?;
        let answer: Value =
            serde_json::from_slice(&body.to_bytes()).map_err(|error| garbled(&self.app, &error))?;
        if status.is_success() {
            Ok(answer)
        } else {
            Err(failure_in(&answer))
        }
    }

    /// The failure of which an answer tells.
    pub(super) async fn refusal(&self, response: Response<Incoming>) -> Failure {
        match response.into_body().collect().await {
            Ok(body) => failure_in(&serde_json::from_slice(&body.to_bytes()).unwrap_or_default()),
            Err(error) => broken(&self.app, &error),
        }
    }

    pub(super) async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: String,
    ) -> Outcome<Response<Incoming>> {
        self.send_for(method, path, body, "*/*").await
    }

    /// The body of an answer.
    pub(super) async fn text_of(&self, response: Response<Incoming>) -> Outcome<String> {
        let body = response.into_body().collect().await;
        let body = body.map_err(|error| broken(&self.app, &error))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    }

    /// As [`send`](Self::send), for an answer in a form that is accepted.
    pub(super) async fn send_for(
        &mut self,
        method: Method,
        path: &str,
        body: String,
        accept: &'static str,
    ) -> Outcome<Response<Incoming>> {
        let method = match method {
            Method::Get => hyper::Method::GET,
            Method::Post => hyper::Method::POST,
        };
        let request = HttpRequest::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost")
            .header("accept", accept)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::caused(Exit::Failed, "cannot make a request", &error))?;
        self.sender
            .send_request(request)
            .await
            .map_err(|error| broken(&self.app, &error))
    }
}

/// Reads an answer as what answers such a request.
pub(super) fn read<T: DeserializeOwned>(app: &Name, answer: Value) -> Outcome<T> {
    serde_json::from_value(answer).map_err(|error| garbled(app, &error))
}

fn garbled(app: &Name, error: &serde_json::Error) -> Failure {
    let what = format!("cannot read the answer of {app}");
    Failure::caused(Exit::Failed, &what, error)
}

fn broken(name: &Name, error: &hyper::Error) -> Failure {
    let what = format!("the primary of {name} has closed the connection without an answer");
    Failure::caused(Exit::Failed, &what, error)
}

fn failure_in(answer: &Value) -> Failure {
    let Ok(Failed { error }) = Failed::deserialize(answer) else {
        return Failure::new(Exit::Failed, "the primary gave no reason");
    };
    let exit = if matches!(error.kind, ErrorKind::Invalid | ErrorKind::NoSuchWorker) {
        Exit::Usage
    } else if error.kind == ErrorKind::DescriptionWrong {
        Exit::Config
    } else {
        Exit::Failed
    };
    Failure {
        exit,
        reason: error.reason,
        last_lines: error.last_lines,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_answer_becomes_a_failure_with_the_last_lines() {
        let answer =
            json!({"error": {"kind": "rollout_failed", "reason": "no", "last_lines": ["x"]}});
        let failure = failure_in(&answer);
        assert_eq!(
            (failure.exit, failure.reason.as_str()),
            (Exit::Failed, "no")
        );
        assert_eq!(failure.last_lines, ["x"]);
        for kind in ["invalid", "no_such_worker"] {
            let failure = failure_in(&json!({"error": {"kind": kind}}));
            assert_eq!(failure.exit, Exit::Usage, "{kind}");
        }
    }
}
