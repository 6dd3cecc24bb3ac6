//! The events of an app in words, and as the JSON that logs and the event stream carry.

mod reports;

use std::time::Duration;

use phalanx_core::dispatch::hang::Frozen;
use phalanx_core::ids::WorkerId;
use phalanx_core::level::{Level, now_millis};
use serde_json::{Value, json};

use crate::event::Event;
use reports::{level_of, text_of};

/// An event as JSON: its own fields, and `time` (milliseconds since the Unix epoch), `level` and `text`.
#[must_use]
pub fn to_json(event: &Event) -> Value {
    let (level, text) = describe(event);
    // INVARIANT: every event is an object with text keys; those always become JSON.
    let mut value = serde_json::to_value(event).unwrap_or_default();
    value["time"] = json!(now_millis());
    value["level"] = json!(level.as_str());
    value["text"] = json!(text);
    value
}

/// The same as text in one line. A message stays as its worker wrote it: what building it would take in memory,
/// the worker decides.
#[must_use]
pub fn to_json_text(event: &Event) -> String {
    let Event::Message { worker, message } = event else {
        return to_json(event).to_string();
    };
    let (level, text) = describe(event);
    let mut line = json!({
        "event": "message", "worker": worker, "time": now_millis(), "level": level.as_str(), "text": text,
    })
    .to_string();
    // INVARIANT: that is an object with fields; one more goes before its brace.
    line.pop();
    line.push_str(",\"message\":");
    // Between the parts of a message, a carriage return is a space; within texts it is escaped.
    line.extend(
        message
            .as_json()
            .split('\r')
            .flat_map(|part| [" ", part])
            .skip(1),
    );
    line.push('}');
    line
}

/// What an event means, in words, and how much it matters.
#[must_use]
pub fn describe(event: &Event) -> (Level, String) {
    match event {
        Event::Setup => (Level::Trace, "the settings were changed".to_owned()),
        Event::Fork { worker, pid, .. } => debug(*worker, &format!("has pid {pid}")),
        Event::Online { worker } => (Level::Trace, format!("worker {worker} is online")),
        Event::Listening { worker, address } => debug(*worker, &format!("listens on {address}")),
        Event::ListeningUnseen { worker } => debug(*worker, "listens on a socket of its own"),
        Event::Extends { worker, .. } => debug(*worker, "asks for patience"),
        Event::Serves { worker } => debug(*worker, "is ready without a listener"),
        Event::Ready { worker } => (Level::Trace, format!("worker {worker} is ready")),
        Event::Lacks { worker, lack } => debug(*worker, &format!("is not ready yet: {lack}")),
        Event::Leaving { worker } => debug(*worker, "leaves by its own wish"),
        Event::Message { worker, .. } => (Level::Trace, format!("worker {worker} sent a message")),
        Event::Disconnect { worker } => (Level::Trace, format!("worker {worker} has disconnected")),
        Event::Exit {
            worker,
            code,
            signal,
            ..
        } => debug(*worker, &exit_text(*code, *signal)),
        Event::Stuck { worker } => (Level::Warn, stuck_text(*worker)),
        Event::Recovered { worker, after } => (Level::Info, recovered_text(*worker, *after)),
        Event::Suspect { worker, by } => (Level::Info, format!("worker {worker} is suspect: {by}")),
        Event::Frozen { worker, by } => (Level::Warn, frozen_text(*worker, *by)),
        Event::Hung { .. } => (Level::Error, hung_text(event)),
        Event::Spared { silent, of } => (Level::Error, spared_text(*silent, *of)),
        Event::Error { worker, message } => (Level::Warn, format!("worker {worker}: {message}")),
        Event::Fleet(report) => (level_of(report), text_of(report)),
    }
}

fn stuck_text(worker: WorkerId) -> String {
    format!(
        "worker {worker} is stuck: it takes no connections although some wait; while others do better, it gets nothing new"
    )
}

fn recovered_text(worker: WorkerId, after: Duration) -> String {
    let seconds = after.as_secs_f64();
    format!("worker {worker} was stuck for {seconds:.1} s and takes connections again")
}

fn frozen_text(worker: WorkerId, by: Frozen) -> String {
    format!(
        "worker {worker} is frozen ({by}): it is not killed for it, and gets nothing new while others do better"
    )
}

fn spared_text(silent: u32, of: u32) -> String {
    format!(
        "{silent} of {of} workers do not answer and do not run: the machine is at fault, or something that all of them wait for; none is killed"
    )
}

fn hung_text(event: &Event) -> String {
    let Event::Hung {
        worker,
        by,
        silent,
        early,
        function,
        evidence,
    } = event
    else {
        return String::new();
    };
    let then = if *early {
        "nobody serves, so its successor is started now, and it may finish"
    } else {
        "its successor is started, then it is killed"
    };
    let place = function.as_ref().map(|function| format!(", in {function}"));
    let kept = evidence
        .as_ref()
        .map(|path| format!("; what is known of it: {}", path.display()));
    format!(
        "worker {worker} hangs: {by}, for {:.1} s{}; {then}{}",
        silent.as_secs_f64(),
        place.unwrap_or_default(),
        kept.unwrap_or_default()
    )
}

fn debug(worker: WorkerId, text: &str) -> (Level, String) {
    (Level::Debug, format!("worker {worker} {text}"))
}

fn exit_text(code: Option<u8>, signal: Option<u8>) -> String {
    match (code, signal) {
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        (Some(code), None) => format!("exited with code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use phalanx_core::fleet::{Reason, Report, WorkerState};
    use phalanx_core::ids::{ExitStatus, Generation, Position};

    use super::*;

    fn change(reason: Reason) -> Event {
        Event::Fleet(Report::Changed {
            worker: WorkerId(3),
            position: Position(1),
            generation: Generation(2),
            from: Some(WorkerState::Ready),
            to: WorkerState::Gone,
            reason,
        })
    }

    #[test]
    fn a_crash_is_told_at_the_default_level() {
        let crash = change(Reason::Crashed {
            status: ExitStatus::Code(1),
        });
        let (level, text) = describe(&crash);
        assert_eq!(level, Level::Warn);
        assert_eq!(text, "worker 3 at position 1 crashed: exit code 1");
        let (level, text) = describe(&change(Reason::ChannelLost));
        assert_eq!(level, Level::Info);
        assert_eq!(text, "worker 3 at position 1 lost its channel");
        let (level, _) = describe(&change(Reason::FleetStops));
        assert_eq!(level, Level::Debug);
    }

    #[test]
    fn of_many_steps_every_tenth_part_is_told() {
        let told = |of: u32| {
            let level = |done| describe(&Event::Fleet(Report::ScaleProgress { done, of })).0;
            (1..=of).filter(|&done| level(done) == Level::Info).count()
        };
        assert_eq!((told(4), told(10), told(511)), (4, 10, 10));
    }

    #[test]
    fn an_event_in_json_has_its_fields_the_time_and_the_words() {
        let json = to_json(&change(Reason::Crashed {
            status: ExitStatus::Signal(9),
        }));
        assert_eq!(
            (&json["event"], &json["report"]),
            (&json!("fleet"), &json!("changed"))
        );
        assert_eq!((&json["worker"], &json["to"]), (&json!(3), &json!("gone")));
        assert_eq!(json["level"], "warn");
        assert!(json["time"].is_u64() && json["text"].is_string());
        assert_eq!(to_json(&Event::Setup)["event"], "setup");
    }
}
