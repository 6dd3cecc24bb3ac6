//! Tells the log what happens in the app, and the two things that everybody waits for at the start: where
//! it listens, and that it is ready.

use std::collections::HashSet;

use phalanx::fleet::{Report, WorkerState};
use phalanx::supervisor::Control;
use phalanx::{Address, Event, Events, WorkerId};
use serde_json::{Value, json};

use crate::log::{Level, Log};
use phalanx::describe;
use phalanx_control::level::counted;

/// Addresses that are told, and remembered as told, in the life of an app.
const ADDRESSES_MAX: usize = 1024;

/// Tells what happens, and remembers what it has told already.
pub(super) struct Teller {
    control: Control,
    events: Events,
    log: Log,
    /// Those that were told.
    addresses: HashSet<String>,
    ready: HashSet<WorkerId>,
    /// How many workers are wanted.
    target: u32,
    was_ready: bool,
}

impl Teller {
    /// Tells everything from now on.
    pub(super) fn new(control: Control, log: Log, target: u32) -> Self {
        Self {
            events: control.life_events(),
            control,
            log,
            addresses: HashSet::new(),
            ready: HashSet::new(),
            target,
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
