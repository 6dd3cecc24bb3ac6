//! The primary of the probe: commands in, events and answers out.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::sync::Arc;

use phalanx::policy::{Field, Policy};
use phalanx::supervisor::{OutputLine, Stream};
use phalanx::{
    Cluster, DispatchChoice, Error, Event, Events, Handle, InspectPort, Message, PolicyName,
    Position, Serialization, Settings, Signal, Stdio, Worker, WorkerId,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{describe, handles, print};

/// Texts of a size that only tests of sizes use are told by their length.
const LONG_TEXT_BYTES: usize = 1 << 20;

/// A policy of the program's own: the highest position that has fewer than three connections open,
/// else the lowest.
#[derive(Debug)]
struct Highest;

impl Policy for Highest {
    fn choose(&mut self, field: &Field<'_>) -> Option<Position> {
        let free = |&position: &Position| field.loads.load(position).open < 3;
        field
            .eligible
            .iter()
            .filter(free)
            .last()
            .or_else(|| field.eligible.first())
    }
}

struct Primary {
    /// Nothing once it was told to drop it.
    cluster: Option<Cluster>,
    /// Every worker it has started, also those that are gone.
    workers: BTreeMap<u32, Worker>,
    /// Messages whose handles nobody has taken yet.
    kept: Vec<Message>,
}

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run(cluster: Cluster) {
    let (commands, mut inbox) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let command: Value = serde_json::from_str(&line).expect("a command is JSON");
            if commands.send(command).is_err() {
                return;
            }
        }
    });
    // What most tests look at is who was passed what; the kernel's choice has tests of its own.
    cluster.set_dispatch(match std::env::var("PROBE_DISPATCH").as_deref() {
        Ok("auto") => DispatchChoice::Auto,
        Ok("kernel") => DispatchChoice::Kernel,
        Ok(_) | Err(_) => DispatchChoice::Handoff,
    });
    let mut events = cluster.events();
    let mut ended = false;
    let mut primary = Primary {
        cluster: Some(cluster),
        workers: BTreeMap::new(),
        kept: Vec::new(),
    };
    loop {
        tokio::select! {
            biased;
            event = events.next(), if !ended => {
                ended = event.is_none();
                if let Some(Event::Message { worker, message }) = &event {
                    primary.see(*worker, message);
                }
                print(&event.map_or(json!({"events": "ended"}), shown));
            }
            command = inbox.recv() => match command {
                None => return,
                Some(command) if command["do"] == "exit" => return,
                Some(command) => {
                    let mut answer = primary.obey(&command);
                    answer["answer"] = command["n"].clone();
                    print(&answer);
                }
            },
        }
    }
}

impl Primary {
    fn obey(&mut self, command: &Value) -> Value {
        let done = match command["do"].as_str().expect("a command has a name") {
            "drop" => {
                self.workers.clear();
                drop(self.cluster.take());
                Ok(json!({}))
            }
            "worker" => Ok(self.worker(command).map_or(json!({"gone": true}), about)),
            "watch" => {
                let worker = self.worker(command).expect("a worker to watch");
                tokio::spawn(watch(worker.id(), worker.events()));
                Ok(json!({}))
            }
            "kill" => {
                let signal = match command["signal"].as_str() {
                    Some("KILL") => Signal::KILL,
                    Some("USR1") => Signal::USR1,
                    _ => Signal::TERM,
                };
                let worker = self.worker(command).expect("a worker to kill");
                worker.kill(signal).map(|()| json!({}))
            }
            "send" => {
                let worker = self.worker(command).expect("a worker to send to");
                let sent = worker.send(&command["message"]);
                sent.map(|()| json!({})).map_err(Error::from)
            }
            "send handle" => {
                let worker = self.worker(command).expect("a worker to send to");
                let (handle, address) = handles::open(command);
                let sent = worker.send_with_handle(&command["message"], handle);
                sent.map(|()| json!({"address": address}))
                    .map_err(Error::from)
            }
            "release" => Ok(json!({"released": self.kept.drain(..).count()})),
            "disconnect" if command["worker"].is_number() => {
                self.worker(command).expect("a worker").disconnect();
                Ok(json!({}))
            }
            _ => self.obey_as_cluster(command),
        };
        done.unwrap_or_else(|error| json!({"error": describe(&error)}))
    }

    fn obey_as_cluster(&mut self, command: &Value) -> Result<Value, Error> {
        let cluster = self.cluster.clone().expect("the cluster is there still");
        Ok(match command["do"].as_str() {
            Some("fork") => {
                let env = pairs(&command["env"]);
                let worker = if env.is_empty() {
                    cluster.fork()?
                } else {
                    cluster.fork_with(env)?
                };
                if command["watch"] == true {
                    tokio::spawn(watch(worker.id(), worker.events()));
                }
                let answer = about(&worker);
                self.workers.insert(worker.id().0, worker);
                answer
            }
            Some("setup") => {
                cluster.setup(settings(command));
                json!({})
            }
            Some("settings") => json!({"settings": format!("{:?}", cluster.settings())}),
            Some("output") => {
                cluster.on_output(Arc::new(print_output));
                json!({})
            }
            Some("own policy") => {
                cluster.set_custom_policy(|| Box::new(Highest));
                json!({})
            }
            Some("policy") => {
                if let Some(name) = command["set"].as_str() {
                    let policy: PolicyName = name.parse().expect("a policy's name");
                    cluster.set_scheduling_policy(policy);
                }
                json!({"policy": cluster.scheduling_policy().to_string()})
            }
            Some("workers") => {
                let ids: Vec<_> = cluster.workers().iter().map(|one| one.id().0).collect();
                json!({"workers": ids})
            }
            Some("broadcast") => json!({"reached": cluster.broadcast(&command["message"])?}),
            Some("role") => {
                json!({"is_primary": phalanx::is_primary(), "is_worker": phalanx::is_worker()})
            }
            Some("disconnect") => {
                tokio::spawn(async move {
                    cluster.disconnect().await;
                    print(&json!({"cluster": "disconnected"}));
                });
                json!({})
            }
            other => panic!("unknown command {other:?}"),
        })
    }

    /// A message asks for what becomes of the handle that comes with it: `take` or `keep`; else it is closed.
    fn see(&mut self, worker: WorkerId, message: &Message) {
        if !message.has_handle() {
            return;
        }
        let wants = message.parse::<Value>().expect("JSON");
        if wants["keep"] == true {
            self.kept.push(message.clone());
        }
        if wants["take"] == true {
            let handle = message.take_handle().expect("a handle is there");
            assert!(message.take_handle().is_none(), "it has one owner");
            let (name, address) = handles::about(&handle);
            if let Handle::TcpStream(mut stream) = handle {
                // It takes so few bytes at once.
                stream
                    .write_all(b"from the primary\n")
                    .expect("it takes them");
            }
            print(&json!({"took": name, "address": address, "of": worker, "message": wants}));
        }
    }

    fn worker(&self, command: &Value) -> Option<&Worker> {
        let id = u32::try_from(command["worker"].as_u64()?).ok()?;
        self.workers.get(&id)
    }
}

fn shown(event: Event) -> Value {
    let mut line = json!(event);
    if let Event::Message { message, .. } = event {
        let length = message.parse::<String>().map_or(0, |text| text.len());
        if length >= LONG_TEXT_BYTES {
            line["message"] = json!({"length": length});
        }
    }
    line
}

async fn watch(id: WorkerId, mut events: Events) {
    while let Some(event) = events.next().await {
        print(&json!({"of": id, "watched": event}));
    }
    print(&json!({"of": id, "watched": null}));
}

fn about(worker: &Worker) -> Value {
    json!({
        "worker": worker.id(),
        "position": worker.position(),
        "pid": worker.pid(),
        "connected": worker.is_connected(),
        "dead": worker.is_dead(),
        "exited_after_disconnect": worker.exited_after_disconnect(),
        "exit_status": worker.exit_status().map(|status| format!("{status:?}")),
    })
}

fn print_output(line: OutputLine<'_>) {
    let stream = match line.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let text = String::from_utf8_lossy(line.line);
    print(&json!({"output": text, "stream": stream, "worker": line.worker}));
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let object = value.as_object().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    object
        .map(|(name, value)| (name.clone(), text(value)))
        .collect()
}

fn settings(command: &Value) -> Settings {
    let mut settings = Settings::new();
    if let Some(exec) = command["exec"].as_str() {
        settings = settings.exec(exec);
    }
    if let Some(args) = command["args"].as_array() {
        settings = settings.args(args.iter().filter_map(Value::as_str));
    }
    if let Some(cwd) = command["cwd"].as_str() {
        settings = settings.cwd(cwd);
    }
    for (name, value) in pairs(&command["env"]) {
        settings = settings.env(name, value);
    }
    if command["serialization"] == "advanced" {
        settings = settings.serialization(Serialization::Advanced);
    }
    if let Some(silent) = command["silent"].as_bool() {
        settings = settings.silent(silent);
    }
    if let Some(streams) = command["stdio"].as_array() {
        let [input, output, error] = [0, 1, 2].map(|number| stdio(&streams[number]));
        settings = settings.stdio(input, output, error);
    }
    let number = |name: &str| command[name].as_u64().and_then(|id| u32::try_from(id).ok());
    if let Some(uid) = number("uid") {
        settings = settings.uid(uid);
    }
    if let Some(gid) = number("gid") {
        settings = settings.gid(gid);
    }
    if let Some(port) = number("inspect_port").and_then(|port| u16::try_from(port).ok()) {
        settings = settings.inspect_port(InspectPort::Fixed(port));
    }
    settings
}

fn stdio(name: &Value) -> Stdio {
    match name.as_str() {
        Some("null") => Stdio::Null,
        Some("piped") => Stdio::Piped,
        _ => Stdio::Inherit,
    }
}
