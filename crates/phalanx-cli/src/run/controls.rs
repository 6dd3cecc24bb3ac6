//! Commands for an app where there are neither signals nor a socket: lines on standard input, and the
//! deletion of the pid file.

use std::future::Future;
use std::io::{self, BufRead};
use std::thread;

use phalanx::fleet::{Done, ScaleTo};
use phalanx::supervisor::{CommandError, Control};
use serde_json::json;
use tokio::sync::mpsc;

use crate::log::{Level, Log, now_millis};
use crate::pid_file::PidFile;
use crate::{table, values};

/// Lines that wait to be obeyed; the writer of more has to wait.
const WAITING_LINES: usize = 64;

/// A line on standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Empty,
    Reload,
    Rollback,
    Scale(ScaleTo),
    Status,
    Stop,
}

impl Line {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_ascii_whitespace().collect::<Vec<_>>()[..] {
            [] => Ok(Self::Empty),
            ["reload"] => Ok(Self::Reload),
            ["rollback"] => Ok(Self::Rollback),
            ["scale", workers] => values::scale_to(workers).map(Self::Scale),
            ["status"] => Ok(Self::Status),
            ["stop"] => Ok(Self::Stop),
            _ => Err("use one of: reload, rollback, scale N, status, stop".to_owned()),
        }
    }
}

/// Obeys the lines on standard input, to its end, which ends nothing else.
pub(super) async fn obey_stdin(control: &Control, log: &Log) {
    let (sender, mut lines) = mpsc::channel(WAITING_LINES);
    // A thread of its own, because nothing can interrupt a read; it ends with the process.
    let reader = thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            for line in io::stdin().lock().lines() {
                if line.is_err() || line.is_ok_and(|line| sender.blocking_send(line).is_err()) {
                    return;
                }
            }
        });
    if let Err(error) = reader {
        log.tell(
            Level::Error,
            "control",
            &format!("cannot read standard input: {error}"),
            json!({}),
        );
        return;
    }
    while let Some(text) = lines.recv().await {
        match Line::parse(&text) {
            Ok(line) => obey(line, control, log),
            Err(reason) => {
                let text = format!("standard input: {text:?} is no command: {reason}");
                log.tell(Level::Warn, "control", &text, json!({}));
            }
        }
    }
}

/// Starts what the line asks for. The next line need not wait for it: a stop may follow a reload.
fn obey(line: Line, control: &Control, log: &Log) {
    let (control, log) = (control.clone(), log.clone());
    match line {
        Line::Empty => {}
        Line::Reload => answer_later("reload", log, async move { control.reload().await }),
        Line::Rollback => answer_later("rollback", log, async move { control.rollback().await }),
        Line::Scale(to) => answer_later("scale", log, async move { control.scale(to).await }),
        Line::Stop => answer_later("stop", log, async move {
            control.stop().await.map(|()| Done::Stopped)
        }),
        Line::Status => {
            let status = control.status();
            let text = table::status(&status, now_millis());
            log.tell(
                Level::Info,
                "status",
                text.trim_end(),
                json!({"status": status}),
            );
        }
    }
}

fn answer_later(
    command: &'static str,
    log: Log,
    work: impl Future<Output = Result<Done, CommandError>> + Send + 'static,
) {
    tokio::spawn(async move { tell_answer(command, &log, work.await) });
}

fn tell_answer(command: &str, log: &Log, answer: Result<Done, CommandError>) {
    match answer {
        Ok(done) => {
            let fields = json!({"command": command, "result": done});
            log.tell(Level::Info, "done", &format!("{command}: done"), fields);
        }
        Err(refused) => {
            let fields = json!({"command": command, "reason": refused.reason, "last_lines": refused.last_lines});
            let text = format!("{command}: not done: {}", refused.reason);
            log.tell(Level::Error, "not_done", &text, fields);
        }
    }
}

/// Reloads whenever the pid file is deleted, and writes it again when that is over.
pub(super) async fn obey_deletions(control: &Control, log: &Log, pid_file: &PidFile) {
    let told = |error: io::Error| {
        let text = format!("cannot watch the pid file any more: {error}");
        log.tell(Level::Error, "control", &text, json!({}));
    };
    let mut deletions = match pid_file.deletions() {
        Ok(deletions) => deletions,
        Err(error) => return told(error),
    };
    loop {
        if let Err(error) = deletions.next().await {
            return told(error);
        }
        log.tell(
            Level::Info,
            "control",
            "the pid file was deleted: reloading",
            json!({}),
        );
        tell_answer("reload", log, control.reload().await);
        if let Err(error) = pid_file.write() {
            log.tell(
                Level::Error,
                "control",
                &format!("cannot write the pid file: {error}"),
                json!({}),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_commands() {
        assert_eq!(Line::parse(" reload "), Ok(Line::Reload));
        assert_eq!(Line::parse("rollback"), Ok(Line::Rollback));
        assert_eq!(Line::parse("scale 4"), Ok(Line::Scale(ScaleTo::Exactly(4))));
        assert_eq!(Line::parse("scale -1\r"), Ok(Line::Scale(ScaleTo::Down(1))));
        assert_eq!(Line::parse(""), Ok(Line::Empty));
        for text in ["restart", "scale", "scale many", "reload now"] {
            assert!(Line::parse(text).is_err(), "{text}");
        }
    }
}
