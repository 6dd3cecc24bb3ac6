//! The log of a primary, on standard error: lines for people, or one JSON object a line.
//!
//! It goes through the same queue as the workers' output, so writing it never blocks the primary. What the
//! engine tells by `tracing` arrives here too. Variables of the environment are never part of it.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::AsFd;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::span;

pub(crate) use phalanx_control::level::{Level, now_millis};
use phalanx_control::show;
use phalanx_core::time::utc;

use crate::args::{LogArgs, LogFormat, LogTime};
use crate::output::Writer;

/// The least level that is told.
fn threshold(args: &LogArgs) -> Level {
    match (args.quiet, args.verbose) {
        (0, 0) => Level::Info,
        (0, 1) => Level::Debug,
        (0, _) => Level::Trace,
        (1, _) => Level::Warn,
        (_, _) => Level::Error,
    }
}

/// Whether lines are to begin with the time.
fn has_time(choice: LogTime) -> bool {
    match choice {
        LogTime::Always => true,
        LogTime::Never => false,
        LogTime::Auto => {
            let journal = env::var_os("JOURNAL_STREAM");
            !journal.is_some_and(|journal| is_at(&journal, io::stderr()))
        }
    }
}

/// Whether a descriptor is the stream that `JOURNAL_STREAM` names, by device and inode (systemd.exec(5)).
fn is_at(journal: &OsStr, stream: impl AsFd) -> bool {
    let status = rustix::fs::fstat(stream);
    let own = status.map(|status| format!("{}:{}", status.st_dev, status.st_ino));
    own.is_ok_and(|own| journal == own.as_str())
}

/// The form of the log and how much is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    format: LogFormat,
    level: Level,
    has_time: bool,
}

impl Style {
    pub(crate) fn of_args(args: &LogArgs) -> Self {
        Self {
            format: args.log_format,
            level: threshold(args),
            has_time: has_time(args.log_time),
        }
    }

    pub(crate) fn has_time(self) -> bool {
        self.has_time
    }

    pub(crate) fn is_json(self) -> bool {
        match self.format {
            LogFormat::Json => true,
            LogFormat::Text => false,
        }
    }

    /// The line for something that happened. `fields` are for JSON only, which says everything in
    /// fields; `text` says the same in words. What others chose of it is one line, and steers no terminal.
    pub(crate) fn line(self, level: Level, event: &str, text: &str, fields: Value) -> String {
        // JSON escapes by itself.
        match self.format {
            LogFormat::Json => self.lines(level, event, text, fields),
            LogFormat::Text => self.lines(level, event, &show::plain(text), fields),
        }
    }

    /// As [`Style::line`], for a text that has several lines by its nature.
    pub(crate) fn lines(self, level: Level, event: &str, text: &str, fields: Value) -> String {
        match self.format {
            LogFormat::Text => {
                let before = self.before();
                let text = show::lines(text).replace('\n', &format!("\n{before}"));
                format!("{before}{text}\n")
            }
            LogFormat::Json => {
                let mut line = Map::new();
                line.insert("time".to_owned(), json!(now_millis()));
                line.insert("level".to_owned(), json!(level.as_str()));
                line.insert("event".to_owned(), json!(event));
                line.insert("text".to_owned(), json!(text));
                if let Value::Object(fields) = fields {
                    line.extend(fields);
                }
                format!("{}\n", Value::Object(line))
            }
        }
    }
}

impl Style {
    /// What each line of text begins with.
    fn before(self) -> String {
        if self.has_time {
            format!("{} phalanx: ", utc(now_millis()))
        } else {
            "phalanx: ".to_owned()
        }
    }
}

/// The log.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    style: Style,
    writer: Writer,
}

impl Log {
    pub(crate) fn new(style: Style, writer: Writer) -> Self {
        Self { style, writer }
    }

    /// Does so much matter enough?
    pub(crate) fn tells(&self, level: Level) -> bool {
        level <= self.style.level
    }

    /// Tells something, if it matters enough.
    pub(crate) fn tell(&self, level: Level, event: &str, text: &str, fields: Value) {
        if self.tells(level) {
            self.writer
                .push(self.style.line(level, event, text, fields).as_bytes());
        }
    }

    /// Tells something whose text has several lines.
    pub(crate) fn tell_lines(&self, level: Level, event: &str, text: &str, fields: Value) {
        if self.tells(level) {
            let lines = self.style.lines(level, event, text, fields);
            self.writer.push(lines.as_bytes());
        }
    }

    /// Takes in what the engine tells by `tracing`, from now on. Only the first call has an effect.
    pub(crate) fn take_tracing(&self) {
        let subscriber = Tracing { log: self.clone() };
        drop(tracing::dispatcher::set_global_default(
            tracing::Dispatch::new(subscriber),
        ));
    }
}

/// Receives the events of `tracing`; spans are of no interest.
struct Tracing {
    log: Log,
}

// `tracing-subscriber` would take the place of these lines by as many, and bring a registry of spans, of which there are none.
impl tracing::Subscriber for Tracing {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        level_of(*metadata.level()) <= self.log.style.level
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut told = Told::default();
        event.record(&mut told);
        let level = level_of(*event.metadata().level());
        self.log
            .tell(level, "trace", &told.text(), Value::Object(told.fields));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

fn level_of(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

/// The message of a `tracing` event, and its fields.
#[derive(Default)]
struct Told {
    message: String,
    fields: Map<String, Value>,
}

impl Told {
    fn text(&self) -> String {
        let fields = self.fields.iter().filter_map(|(name, value)| {
            let shown = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let is_said = says(&self.message, &format!("{name} {shown}"));
            (!is_said).then(|| format!(", {name}: {shown}"))
        });
        std::iter::once(self.message.clone())
            .chain(fields)
            .collect()
    }

    fn add(&mut self, field: &Field, value: Value) {
        self.fields.insert(field.name().to_owned(), value);
    }
}

/// Whether a text has these words, and not as the beginning of longer ones ("worker 1" in "worker 12").
fn says(text: &str, words: &str) -> bool {
    let is_end = |rest: &str| !rest.starts_with(|next: char| next.is_alphanumeric());
    text.match_indices(words)
        .any(|(at, _)| is_end(&text[at + words.len()..]))
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let shown = format!("{value:?}");
        if field.name() == "message" {
            self.message = shown;
        } else {
            self.add(field, Value::String(shown));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, json!(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, json!(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, json!(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, json!(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::LogTime;

    #[test]
    fn a_line_is_for_people_or_for_programs() {
        let line = |format| {
            let style = Style {
                format,
                level: Level::Info,
                has_time: false,
            };
            style.line(
                Level::Info,
                "ready",
                "ready: 2 of 2 workers",
                json!({"workers": 2}),
            )
        };
        assert_eq!(line(LogFormat::Text), "phalanx: ready: 2 of 2 workers\n");
        let json: Value = serde_json::from_str(&line(LogFormat::Json)).unwrap();
        assert_eq!(json["event"], "ready");
        assert_eq!(json["level"], "info");
        assert_eq!(json["workers"], 2);
        assert!(json["time"].as_u64().unwrap() > 1_600_000_000_000);
    }

    #[test]
    fn what_a_message_says_is_not_said_again() {
        let told = |message: &str| Told {
            message: message.to_owned(),
            fields: Map::from_iter([("worker".to_owned(), json!(1))]),
        };
        assert_eq!(told("worker 1 waits").text(), "worker 1 waits");
        assert_eq!(told("12 wait").text(), "12 wait, worker: 1");
        assert_eq!(told("worker 12 waits").text(), "worker 12 waits, worker: 1");
    }

    #[test]
    fn each_line_of_text_begins_with_the_time() {
        let style = Style {
            format: LogFormat::Text,
            level: Level::Info,
            has_time: true,
        };
        let lines = style.lines(Level::Info, "failed", "one\ntwo", json!({}));
        for (line, text) in lines.lines().zip(["one", "two"]) {
            let (time, rest) = line.split_once(' ').unwrap();
            assert!(time.starts_with("20") && time.ends_with('Z'), "{line}");
            assert_eq!(rest, format!("phalanx: {text}"));
        }
        assert_eq!(lines.lines().count(), 2);
    }

    #[test]
    fn journald_is_known_by_the_stream_that_it_names() {
        let (reader, writer) = io::pipe().unwrap();
        let status = rustix::fs::fstat(&writer).unwrap();
        let named = format!("{}:{}", status.st_dev, status.st_ino);
        assert!(is_at(OsStr::new(&named), &writer));
        assert!(!is_at(OsStr::new("1:2"), &reader));
        assert!(!is_at(OsStr::new(""), &reader));
        assert!(has_time(LogTime::Always) && !has_time(LogTime::Never));
    }

    #[test]
    fn quiet_and_verbose_move_the_threshold() {
        let level = |quiet, verbose| {
            threshold(&LogArgs {
                log_format: LogFormat::Text,
                log_time: LogTime::Auto,
                verbose,
                quiet,
            })
        };
        assert_eq!(level(0, 0), Level::Info);
        assert_eq!(level(1, 0), Level::Warn);
        assert_eq!(level(2, 0), Level::Error);
        assert_eq!(level(0, 1), Level::Debug);
        assert_eq!(level(0, 3), Level::Trace);
    }
}
