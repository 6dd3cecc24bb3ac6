//! The supervisor's commands, over standard input. Its workers serve as the builder's do.

use std::io::BufRead;

use phalanx::fleet::ScaleTo;
use phalanx::supervisor::{Control, Supervisor, SupervisorOptions};
use serde_json::{Value, json};

use crate::print;

#[tokio::main(flavor = "current_thread")]
pub(crate) async fn run() {
    let supervisor = Supervisor::start(SupervisorOptions::new("probe")).expect("it starts");
    let control = supervisor.control();
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let command: Value = serde_json::from_str(&line).expect("a command is JSON");
            runtime.spawn(obey(control.clone(), command));
        }
    });
    print(&json!({"outcome": format!("{:?}", supervisor.finished().await)}));
}

async fn obey(control: Control, command: Value) {
    let done = match command["do"].as_str() {
        Some("scale") => {
            let count = command["to"].as_u64().and_then(|to| u32::try_from(to).ok());
            let to = ScaleTo::Exactly(count.expect("a number of workers"));
            control.scale(to).await.map(|_| json!({}))
        }
        Some("reload") => control.reload().await.map(|_| json!({})),
        Some("stop") => control.stop().await.map(|()| json!({})),
        _ => Ok(json!({"status": control.status()})),
    };
    let mut answer = done.unwrap_or_else(|error| json!({"error": error.to_string()}));
    answer["answer"] = command["n"].clone();
    print(&answer);
}
