//! The events of an app in words, and as the JSON that logs and the event stream carry.

use std::time::Duration;

use phalanx_core::fleet::{HealthSummary, Reason, Report, WorkerState};
use phalanx_core::ids::{Position, WorkerId};
use phalanx_core::level::{Level, counted, now_millis};
use serde_json::{Value, json};

use crate::event::Event;

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
        Event::Stuck { worker } => (
            Level::Warn,
            format!(
                "worker {worker} is stuck: it takes no connections although some wait; while others do better, it gets nothing new"
            ),
        ),
        Event::Recovered { worker, after } => (
            Level::Info,
            format!(
                "worker {worker} was stuck for {:.1} s and takes connections again",
                after.as_secs_f64()
            ),
        ),
        Event::Suspect { worker, by } => (Level::Info, format!("worker {worker} is suspect: {by}")),
        Event::Frozen { worker, by } => (
            Level::Warn,
            format!(
                "worker {worker} is frozen ({by}): it is not replaced, and gets nothing new while others do better"
            ),
        ),
        Event::Hung {
            worker,
            by,
            silent,
            early,
            function,
            evidence,
        } => {
            let then = if *early {
                "nobody serves, so its successor is started now, and it may finish"
            } else {
                "its successor is started, then it is killed"
            };
            let place = function.as_ref().map(|function| format!(", in {function}"));
            let kept = evidence
                .as_ref()
                .map(|path| format!("; what is known of it: {}", path.display()));
            (
                Level::Error,
                format!(
                    "worker {worker} hangs: {by}, for {:.1} s{}; {then}{}",
                    silent.as_secs_f64(),
                    place.unwrap_or_default(),
                    kept.unwrap_or_default()
                ),
            )
        }
        Event::Spared { silent, of } => (
            Level::Error,
            format!(
                "{silent} of {of} workers do not answer and do not run: the machine is at fault, or something that all of them wait for; none is killed"
            ),
        ),
        Event::Error { worker, message } => (Level::Warn, format!("worker {worker}: {message}")),
        Event::Fleet(report) => (level_of(report), text_of(report)),
    }
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

fn text_of(report: &Report) -> String {
    match report {
        Report::Changed {
            worker,
            position,
            to,
            reason,
            ..
        } => change_text(*worker, *position, *to, reason),
        Report::RespawnScheduled {
            position,
            delay,
            failures,
        } => respawn_text(*position, *delay, *failures),
        Report::CrashLoopEntered { position, failures } => format!(
            "position {position} is in a crash loop: {failures} failures in a row; it keeps trying"
        ),
        Report::CrashLoopLeft { position } => format!("position {position} left its crash loop"),
        Report::BootOver => "the start is over".to_owned(),
        Report::RolloutStarted {
            generation,
            workers,
            canaries,
            ..
        } => {
            let first = canaries.map(|canaries| format!(", {canaries} of them first"));
            format!(
                "reload: {} to replace by generation {generation}{}",
                counted(*workers),
                first.unwrap_or_default()
            )
        }
        Report::CanaryStarted {
            canaries, watch, ..
        } => format!("reload: watching {} for {watch:?}", counted(*canaries)),
        Report::CanaryProgress {
            elapsed,
            watch,
            canary,
            others,
            ..
        } => format!(
            "reload: watched for {:.0?} of {watch:?}: {}",
            Duration::from_secs(elapsed.as_secs()),
            figures(canary, others)
        ),
        Report::CanaryPassed { canary, others, .. } => {
            let verdict = if canary.reporting > 0 && !canary.is_enough() {
                "too few answers to judge"
            } else {
                "all well"
            };
            format!("reload: {verdict}, going on: {}", figures(canary, others))
        }
        Report::RolloutCancelled { generation, base } => {
            format!("reload: generation {generation} is undone; going back to {base}")
        }
        Report::RolloutProgress { done, workers, .. } => {
            format!("reload: {done} of {workers} replaced")
        }
        Report::RolloutFinished { generation } => format!("reload: generation {generation} serves"),
        Report::RolloutFailed {
            generation,
            base,
            failure,
        } => {
            format!("reload: generation {generation} failed: {failure}; going back to {base}")
        }
        Report::RolledBack { generation, .. } => format!("reload: back on generation {generation}"),
        Report::RollbackAbandoned {
            generation,
            failure,
            ..
        } => {
            format!("reload: {generation} failed too: {failure}; the workers that are ready stay")
        }
        Report::FewerListeners { worker, missing } => {
            let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
            format!(
                "worker {worker} is accepted without {}",
                missing.join(" and ")
            )
        }
        Report::Resizes { from, to, why } if from == to => {
            format!("the size stays {}: {why}", counted(*to))
        }
        Report::Resizes { from, to, why } => {
            format!("the size changes from {from} to {}: {why}", counted(*to))
        }
        Report::ScaleStarted { from, to } => format!("scaling from {from} to {}", counted(*to)),
        Report::ScaleProgress { done, of } => format!("scaling: {done} of {of} done"),
        Report::StopStarted { fast, workers } => {
            format!(
                "stopping {}{}",
                counted(*workers),
                if *fast { " at once" } else { "" }
            )
        }
        Report::StopProgress { remaining } => format!("stopping: {} left", counted(*remaining)),
    }
}

/// How canaries and the others do; nothing where no worker reports figures.
fn figures(canary: &HealthSummary, others: &HealthSummary) -> String {
    if canary.reporting == 0 && others.reporting == 0 {
        return "no crash, no hang; the workers report no figures".to_owned();
    }
    let of = |summary: &HealthSummary| {
        let p99 = summary.p99_us.map_or("none".to_owned(), |p99| {
            format!("{:.1?}", Duration::from_micros(p99))
        });
        let (errors, requests) = (summary.server_errors, summary.requests);
        format!("{errors} errors in {requests} requests, p99 {p99}")
    };
    format!("new: {}; old: {}", of(canary), of(others))
}

fn change_text(worker: WorkerId, position: Position, to: WorkerState, reason: &Reason) -> String {
    let who = format!("worker {worker} at position {position}");
    // The channel ends before the exit is known: said first, it explains the successor that starts meanwhile.
    if is_trouble(reason) || *reason == Reason::ChannelLost {
        format!("{who} {reason}")
    } else {
        format!("{who} is {to}: {reason}")
    }
}

fn respawn_text(position: Position, delay: Duration, failures: u32) -> String {
    let plural = if failures == 1 { "" } else { "s" };
    let when = if delay.is_zero() {
        "at once".to_owned()
    } else {
        format!("in {delay:.1?}")
    };
    format!("position {position}: next try {when}, after {failures} failure{plural}")
}

fn level_of(report: &Report) -> Level {
    match report {
        Report::Changed { reason, .. } if is_trouble(reason) => Level::Warn,
        Report::RespawnScheduled { delay, .. } if delay.is_zero() => Level::Debug,
        Report::RolloutProgress { done, workers, .. } if !is_milestone(*done, *workers) => {
            Level::Debug
        }
        Report::ScaleProgress { done, of } if !is_milestone(*done, *of) => Level::Debug,
        Report::Changed {
            reason:
                Reason::ChannelLost
                | Reason::Respawn
                | Reason::SpareTakesOver
                | Reason::Recycle { .. }
                | Reason::Recycled { .. },
            ..
        }
        | Report::RespawnScheduled { .. }
        | Report::CrashLoopLeft { .. }
        | Report::RolloutStarted { .. }
        | Report::CanaryStarted { .. }
        | Report::CanaryPassed { .. }
        | Report::RolloutProgress { .. }
        | Report::RolloutFinished { .. }
        | Report::Resizes { .. }
        | Report::ScaleStarted { .. }
        | Report::ScaleProgress { .. }
        | Report::StopStarted { .. } => Level::Info,
        Report::Changed { .. }
        | Report::BootOver
        | Report::CanaryProgress { .. }
        | Report::StopProgress { .. } => Level::Debug,
        Report::RolledBack { .. }
        | Report::RolloutCancelled { .. }
        | Report::FewerListeners { .. } => Level::Warn,
        Report::CrashLoopEntered { .. }
        | Report::RolloutFailed { .. }
        | Report::RollbackAbandoned { .. } => Level::Error,
    }
}

/// Of many steps every tenth part is worth a line; of few, each.
fn is_milestone(done: u32, of: u32) -> bool {
    let tenths = |count: u32| u64::from(count) * 10 / u64::from(of.max(1));
    of <= 10 || tenths(done) != tenths(done.saturating_sub(1))
}

fn is_trouble(reason: &Reason) -> bool {
    matches!(
        reason,
        Reason::Crashed { .. }
            | Reason::FailedToStart { .. }
            | Reason::NotReadyInTime
            | Reason::DrainTimedOut
            | Reason::ExitTimedOut
    )
}

#[cfg(test)]
mod tests {
    use phalanx_core::ids::{ExitStatus, Generation};

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
