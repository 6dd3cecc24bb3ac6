//! Tells the log what happens in the app, and the two things that everybody waits for at the start: where
//! it listens, and that it is ready.

use std::collections::HashSet;

use phalanx::fleet::{Report, WorkerState};
use phalanx::supervisor::Control;
use phalanx::{Address, Bind, Event, Events, Publish, WorkerId};
use serde_json::{Value, json};

use crate::log::{Level, Log};
use phalanx::describe;
use phalanx_control::level::counted;

/// Addresses that are told, and remembered as told, in the life of an app.
const ADDRESSES_MAX: usize = 1024;

/// Tells what happens, and remembers what it has told already.
pub(super) struct EventLogger {
    control: Control,
    events: Events,
    log: Log,
    /// Those that were told.
    addresses: HashSet<String>,
    ready: HashSet<WorkerId>,
    /// How many workers are wanted.
    target: u32,
    /// What the command line opens or publishes.
    asked: Asked,
    was_ready: bool,
}

/// Listeners that the command line names, each of which some worker is to use.
#[derive(Clone, Default)]
pub(super) struct Asked {
    pub(super) binds: Vec<Bind>,
    pub(super) publishes: Vec<Publish>,
}

impl Asked {
    /// The options that no listener of these, as address and number of workers, is used for.
    fn unused(&self, listeners: &[(&str, u32)]) -> Vec<String> {
        let is_used = |fits: &dyn Fn(&str) -> bool| {
            let mut listeners = listeners.iter();
            listeners.any(|&(address, workers)| workers > 0 && fits(address))
        };
        let unused_bind = |bind: &&Bind| {
            let address = bind.address.to_string();
            // The kernel chooses the port, or the address stands for several.
            let is_fixed = bind.address.inet().is_some_and(|inet| inet.port() != 0);
            is_fixed && !is_used(&|used| used.ends_with(&address))
        };
        let unused_publish = |publish: &&Publish| {
            let port = format!(":{}", publish.port);
            publish.port != 0 && !is_used(&|used| used.ends_with(&port))
        };
        let binds = self.binds.iter().filter(unused_bind);
        let publishes = self.publishes.iter().filter(unused_publish);
        binds
            .map(|bind| format!("--bind {}", bind.address))
            .chain(publishes.map(|publish| format!("--publish {publish}")))
            .collect()
    }
}

impl EventLogger {
    /// Tells everything from now on.
    pub(super) fn new(control: Control, log: Log, target: u32, asked: Asked) -> Self {
        Self {
            events: control.life_events(),
            control,
            log,
            addresses: HashSet::new(),
            ready: HashSet::new(),
            target,
            asked,
            was_ready: false,
        }
    }

    /// Tells what happens until the app is gone. May be dropped at any time.
    pub(super) async fn follow(&mut self) {
        while let Some(event) = self.events.next().await {
            self.take(&event);
        }
    }

    /// Tells what has happened and is not told yet.
    pub(super) fn finish(&mut self) {
        while let Some(event) = self.events.try_next() {
            self.take(&event);
        }
    }

    fn take(&mut self, event: &Event) {
        let (level, text) = describe::describe(event);
        if self.log.tells(level) {
            self.log
                .tell(level, event_name(event), &text, json_fields(event));
        }
        if let Event::Listening { address, .. } = event {
            self.tell_address(address);
        } else if let Event::Fleet(report) = event {
            self.count(report);
        }
    }

    fn count(&mut self, report: &Report) {
        if let Report::Changed {
            worker, from, to, ..
        } = report
        {
            if *to == WorkerState::Ready {
                self.ready.insert(*worker);
                self.tell_ready();
            } else if *from == Some(WorkerState::Ready) {
                self.ready.remove(worker);
            }
        } else if let Report::ScaleStarted { to, .. } = report {
            self.target = *to;
        }
    }

    fn tell_address(&mut self, address: &Address) {
        let address = address.to_string();
        // A worker may say any number of them.
        let is_new = self.addresses.len() < ADDRESSES_MAX && self.addresses.insert(address.clone());
        if !is_new {
            return;
        }
        let status = self.control.status();
        // A datagram listener is shown as `udp:` and its address.
        let listener = status
            .listeners
            .iter()
            .find(|one| one.address.ends_with(&address));
        let (shown, dispatch) = listener.map_or((address.as_str(), "auto"), |one| {
            (one.address.as_str(), one.dispatch.as_str())
        });
        let text = format!("listening on {shown} ({dispatch})");
        self.log.tell(
            Level::Info,
            "listener",
            &text,
            json!({"address": shown, "dispatch": dispatch}),
        );
    }

    fn tell_ready(&mut self) {
        let count = self.ready.len();
        if self.was_ready || u32::try_from(count) != Ok(self.target) {
            return;
        }
        self.was_ready = true;
        let text = format!("ready: {count} of {}", counted(self.target));
        self.log
            .tell(Level::Info, "ready", &text, json!({"workers": count}));
        self.tell_unused();
    }

    fn tell_unused(&self) {
        let status = self.control.status();
        let listeners = status.listeners.iter();
        let listeners = listeners.map(|one| (one.address.as_str(), one.workers));
        for option in self.asked.unused(&listeners.collect::<Vec<_>>()) {
            let text =
                format!("{option}: no worker uses it yet; does the program listen elsewhere?");
            self.log
                .tell(Level::Warn, "unused", &text, json!({"option": option}));
        }
    }
}

/// The value of the JSON field `event`.
fn event_name(event: &Event) -> &'static str {
    match event {
        Event::Setup => "setup",
        Event::Fork { .. } => "fork",
        Event::Online { .. } => "online",
        Event::Listening { .. } => "listening",
        Event::ListeningUnseen { .. } => "listening_unseen",
        Event::Serves { .. } => "serves",
        Event::Ready { .. } => "ready",
        Event::Lacks { .. } => "lacks",
        Event::Leaving { .. } => "leaving",
        Event::Message { .. } => "message",
        Event::Extends { .. } => "extends",
        Event::Disconnect { .. } => "disconnect",
        Event::Exit { .. } => "exit",
        Event::Error { .. } => "error",
        Event::Stuck { .. } => "stuck",
        Event::Recovered { .. } => "recovered",
        Event::Suspect { .. } => "suspect",
        Event::Frozen { .. } => "frozen",
        Event::Hung { .. } => "hung",
        Event::Spared { .. } => "spared",
        Event::Fleet(_) => "fleet",
        _ => "other",
    }
}

/// The event's own fields. What workers say to each other is not for the log.
fn json_fields(event: &Event) -> Value {
    if matches!(event, Event::Message { .. }) {
        return Value::Null;
    }
    serde_json::to_value(event).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_no_worker_uses_is_named() {
        let bind = |text: &str| text.parse::<Bind>();
        let asked = Asked {
            binds: ["127.0.0.1:8080", "[::1]:80", "127.0.0.1:0", "unix:/a"]
                .into_iter()
                .filter_map(|text| bind(text).ok())
                .collect(),
            publishes: ["80:8080", "0:*", "81:9090"]
                .into_iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
        };
        assert_eq!((asked.binds.len(), asked.publishes.len()), (4, 3));
        let all = [("127.0.0.1:8080", 0), ("[::1]:80", 1)];
        let unused = asked.unused(&all);
        assert_eq!(unused, ["--bind 127.0.0.1:8080", "--publish 81:9090"]);
    }
}
