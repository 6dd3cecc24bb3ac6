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

/// So much of a line is kept; no command is as long.
const LINE_BYTES: usize = 1024;

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
            let mut stdin = io::stdin().lock();
            while let Ok(Some(line)) = next_line(&mut stdin) {
                if sender.blocking_send(line).is_err() {
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

/// The next line, or its beginning where it is longer than any command; `None` at the end. Memory is bounded.
fn next_line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut is_any = false;
    loop {
        let part = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if part.is_empty() {
            let text = String::from_utf8_lossy(&line).into_owned();
            return Ok(is_any.then_some(text));
        }
        is_any = true;
        let newline = part.iter().position(|&byte| byte == b'\n');
        let end = newline.unwrap_or(part.len());
        let room = LINE_BYTES.saturating_sub(line.len());
        line.extend_from_slice(&part[..end.min(room)]);
        input.consume(newline.map_or(end, |newline| newline + 1));
        if newline.is_some() {
            return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
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
            log.tell_lines(
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

pub(super) fn tell_answer(command: &str, log: &Log, answer: Result<Done, CommandError>) {
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
    use std::io::Read;

    use super::*;

    #[test]
    fn an_endless_line_takes_no_memory_and_is_no_command() {
        let mut input =
            io::BufReader::new("reload\n".as_bytes().chain(io::repeat(b'x').take(1 << 20)));
        assert_eq!(next_line(&mut input).unwrap().unwrap(), "reload");
        assert_eq!(next_line(&mut input).unwrap().unwrap().len(), LINE_BYTES);
        assert_eq!(next_line(&mut input).unwrap(), None);
        let mut input = "\n\nstop".as_bytes();
        let all: Vec<_> = std::iter::from_fn(|| next_line(&mut input).unwrap()).collect();
        assert_eq!(all, ["", "", "stop"]);
    }

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
