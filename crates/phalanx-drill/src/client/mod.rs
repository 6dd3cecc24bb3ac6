//! One client: asks in its way, again and again, and takes down what becomes of it.
//!
//! A client does what HTTP wants of it: it honours `Connection: close`, looks whether a kept connection was
//! closed before it uses it again, and sends a request again where it may. Each of these is counted apart.

mod connection;
mod failed;
mod opening;
mod websocket;

use std::sync::Arc;
use std::time::{Duration, Instant};

use phalanx_sys::clock;
use tokio::time::{sleep_until, timeout_at};

use super::account::{Fate, Incident, Trouble};
use super::cause::Cause;
use super::mix::Way;
use super::request::{self, Message, Questions};
use super::session::Session;
use connection::{Answer, Connection, End, Fitness};
use failed::Failed;

/// How long an idle client rests between two requests.
const IDLE_MILLIS: std::ops::Range<u64> = 20..400;
/// How long a client of another way that is not paced rests: no time.
const UPLOAD_REST: Duration = Duration::from_millis(50);
/// A client that cannot connect does not try again at once.
const REFUSED_REST: Duration = Duration::from_millis(20);
/// A client that is further behind its pace starts anew.
const MOST_BEHIND: Duration = Duration::from_secs(1);
/// How often a message is sent again behind announced closes before the server counts as at fault.
const MOST_TRIES: u32 = 16;

/// A client.
pub(super) struct Client {
    pub(super) way: Way,
    pub(super) questions: Arc<Questions>,
    pub(super) session: Arc<Session>,
    /// Chance for rests and masks: different for each client, the same in each drill.
    pub(super) rng: fastrand::Rng,
    /// The time from one message to the next, where the load is bounded.
    pub(super) pace: Option<Duration>,
    kept: Option<Connection>,
    turn: usize,
}

/// Asks for each path once, so that a server that cannot be drilled is told before the drill.
pub(super) async fn probe(questions: &Questions) -> Result<(), String> {
    let session = Session::open();
    let deadline = (clock::now() + questions.limit).into();
    for turn in 0..questions.paths.len() {
        let message = questions.message(Way::New, turn, 1);
        let ask = async {
            let mut connection = Connection::open(questions.address, &session, false).await?;
            connection
                .exchange(&message, false, &session, &mut Vec::new())
                .await
        };
        let answer = timeout_at(deadline, ask).await;
        let answer = answer.unwrap_or_else(|_| Err(Failed::new(Cause::TimedOut, "")));
        answer.map_err(|failed| {
            let path = &questions.paths[turn];
            let address = questions.address;
            format!(
                "{address} does not answer {} {path}: {} {}",
                questions.method,
                failed.cause.text(),
                failed.detail
            )
        })?;
    }
    let Some(path) = &questions.websocket_path else {
        return Ok(());
    };
    let shake = websocket::probe(questions, &session);
    let status = timeout_at(deadline, shake).await;
    match status.unwrap_or_else(|_| Err(Failed::new(Cause::TimedOut, ""))) {
        Ok(101) => Ok(()),
        Ok(status) => Err(format!("{path} is no WebSocket: status {status}")),
        Err(failed) => Err(format!(
            "{path} is no WebSocket: {} {}",
            failed.cause.text(),
            failed.detail
        )),
    }
}

/// A message on its way: what is left of it, and since when.
struct Asking {
    began_at: Duration,
    deadline: Instant,
    left: usize,
    was_retried: bool,
}

impl Client {
    pub(super) fn new(
        way: Way,
        questions: Arc<Questions>,
        session: Arc<Session>,
        rng: fastrand::Rng,
        pace: Option<Duration>,
    ) -> Self {
        Self {
            way,
            questions,
            session,
            rng,
            pace,
            kept: None,
            turn: 0,
        }
    }

    /// Asks until the session ends; a request at hand is finished.
    pub(super) async fn run(mut self) {
        let mut next_at = self.first_at();
        while !self.session.is_stopping() {
            let was_reached = if self.way == Way::WebSocket {
                self.hold_stream().await
            } else {
                self.ask().await
            };
            next_at = self.next_at(next_at, was_reached);
            if next_at > clock::now() {
                tokio::select! {
                    biased;
                    () = self.session.stopping() => {}
                    () = sleep_until(next_at.into()) => {}
                }
            }
        }
    }

    /// Clients of the same pace do not march in step.
    fn first_at(&mut self) -> Instant {
        let pace = self.pace.unwrap_or_default();
        let part = u64::try_from(pace.as_micros()).unwrap_or(u64::MAX);
        clock::now() + Duration::from_micros(self.rng.u64(..part.max(1)))
    }

    fn next_at(&mut self, last: Instant, was_reached: bool) -> Instant {
        let now = clock::now();
        let rest = match (self.way, self.pace) {
            _ if !was_reached => REFUSED_REST,
            (Way::Idle, _) => Duration::from_millis(self.rng.u64(IDLE_MILLIS)),
            (_, Some(pace)) => {
                return (last + pace).max(now.checked_sub(MOST_BEHIND).unwrap_or(now));
            }
            (Way::LargeUpload, None) => UPLOAD_REST,
            (_, None) => Duration::ZERO,
        };
        now + rest
    }

    /// One message, until each of its requests is answered or lost. False if nobody could be asked.
    async fn ask(&mut self) -> bool {
        let requests = request::requests_at_once(self.way);
        self.turn = self.turn.wrapping_add(requests);
        let mut asking = Asking {
            began_at: self.session.now(),
            deadline: clock::now() + self.questions.limit,
            left: requests,
            was_retried: false,
        };
        for _ in 0..MOST_TRIES {
            match self.attempt(&mut asking).await {
                Ok(End::Kept | End::Over) => return true,
                Ok(End::Announced) => {
                    let left = asking.left as u64;
                    self.session.account().repeated_after_close(self.way, left);
                }
                Err(Verdict::Repeat) => {}
                Err(Verdict::Lost(was_reached)) => return was_reached,
            }
        }
        let failed = Failed::new(Cause::Malformed, "each response announces the close");
        self.enter(&asking, None, &failed, Fate::Lost, asking.left);
        true
    }

    /// Sends what is left of a message once, and enters the answers.
    async fn attempt(&mut self, asking: &mut Asking) -> Result<End, Verdict> {
        let deadline = asking.deadline.into();
        let mut connection = match self.take_kept() {
            Ok(Some(connection)) => connection,
            Ok(None) => {
                let slow = self.way == Way::SlowReader;
                let open = Connection::open(self.questions.address, &self.session, slow);
                let opened = timeout_at(deadline, open).await;
                let late = |_| Err(Failed::new(Cause::ConnectTimedOut, ""));
                match opened.unwrap_or_else(late) {
                    Ok(connection) => {
                        self.session.account().connected(self.way);
                        connection
                    }
                    Err(failed) => {
                        self.enter(asking, None, &failed, Fate::Lost, asking.left);
                        return Err(Verdict::Lost(false));
                    }
                }
            }
            Err(failed) => {
                self.enter(asking, None, &failed, Fate::Lost, asking.left);
                return Err(Verdict::Lost(true));
            }
        };
        let message = self.questions.message(self.way, self.turn, asking.left);
        let mut answers = Vec::with_capacity(asking.left);
        let slow = self.way == Way::SlowReader;
        let exchange = connection.exchange(&message, slow, &self.session, &mut answers);
        let end = timeout_at(deadline, exchange).await;
        let end = end.unwrap_or_else(|_| Err(Failed::new(Cause::TimedOut, "")));
        connection.responses += answers.len() as u64;
        self.enter_answers(asking, &connection, &answers);
        match end {
            Ok(End::Kept) => {
                if self.way != Way::New {
                    self.kept = Some(connection);
                }
                Ok(End::Kept)
            }
            Ok(end) => Ok(end),
            Err(failed) => Err(self.judge(asking, &connection, &message, &failed)),
        }
    }

    /// Whether what is left of a message may be sent again; enters what is lost of it.
    fn judge(
        &self,
        asking: &mut Asking,
        connection: &Connection,
        message: &Message,
        failed: &Failed,
    ) -> Verdict {
        let had_carried = connection.responses > 0;
        let mut is_repeatable = failed
            .cause
            .may_be_repeated(message.is_idempotent, had_carried);
        if failed.response_has_begun && failed.cause != Cause::Malformed {
            // The request whose response was cut is lost; those behind it were not begun.
            self.enter(asking, Some(connection), failed, Fate::Lost, 1);
            asking.left -= 1;
            is_repeatable = message.is_idempotent;
        }
        if asking.left == 0 {
            return Verdict::Lost(true);
        }
        if is_repeatable && !asking.was_retried {
            self.enter(asking, Some(connection), failed, Fate::Retried, asking.left);
            asking.was_retried = true;
            return Verdict::Repeat;
        }
        self.enter(asking, Some(connection), failed, Fate::Lost, asking.left);
        Verdict::Lost(true)
    }

    /// The kept connection, unless it was closed meanwhile, as it may be.
    fn take_kept(&mut self) -> Result<Option<Connection>, Failed> {
        let Some(connection) = self.kept.take() else {
            return Ok(None);
        };
        match connection.fitness() {
            Fitness::Open => Ok(Some(connection)),
            Fitness::Closed => {
                self.session.account().closed_while_idle(self.way);
                Ok(None)
            }
            Fitness::Spoken => Err(Failed::new(Cause::Malformed, "bytes without a request")),
        }
    }

    fn enter_answers(&self, asking: &mut Asking, connection: &Connection, answers: &[Answer]) {
        for answer in answers {
            asking.left -= 1;
            let status = answer.response.status;
            let is_answer =
                self.session
                    .account()
                    .answered(self.way, status, asking.began_at, answer.at);
            if !is_answer {
                let failed = Failed::new(Cause::ServerError, format!("status {status}"));
                self.enter(asking, Some(connection), &failed, Fate::Lost, 1);
            }
        }
    }

    fn enter(
        &self,
        asking: &Asking,
        connection: Option<&Connection>,
        failed: &Failed,
        fate: Fate,
        requests: usize,
    ) {
        let at = self.session.now();
        let origin = connection.map(|connection| connection.origin);
        let origin = origin.or(failed.origin);
        let incident = Incident {
            at,
            way: self.way,
            fate,
            trouble: Trouble {
                cause: failed.cause,
                port: origin.map(|origin| origin.port),
                connected_at: origin.map_or(at, |origin| origin.connected_at),
                sent_at: asking.began_at,
                detail: failed.detail.clone(),
            },
            killed_by: None,
        };
        self.session.account().trouble(incident, requests as u64);
    }
}

/// What became of an attempt that failed.
enum Verdict {
    /// What is left is to be sent again.
    Repeat,
    /// It is lost. True if somebody had taken the connection.
    Lost(bool),
}
