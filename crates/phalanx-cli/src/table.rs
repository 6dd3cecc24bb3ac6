//! Tables of text: columns as wide as they must be, for people.

use std::time::Duration;

use phalanx_control::api::{
    ListenerStatus, OutputStatus, Status, Totals, VacancyStatus, WorkerState, WorkerStatus,
};
use phalanx_control::names::Name;
use phalanx_control::show;

use phalanx_control::level::counted;

/// The state of an app, for people. `now` is in milliseconds since the Unix epoch.
pub(crate) fn status(status: &Status, now: u64) -> String {
    let ready = status
        .workers
        .iter()
        .filter(|worker| worker.state == WorkerState::Ready)
        .count();
    let adoption = status.adoption.as_ref();
    let adoption = adoption.map_or_else(String::new, |one| format!(", adoption {one}"));
    let mut text = format!(
        "{}: primary {}, {}, {}{adoption}, generation {}\n{ready} of {} ready{}{}\n",
        status.name,
        status.pid,
        policy(status),
        status.dispatch,
        status.generation,
        counted(status.target),
        spares(status),
        match (status.stopping, status.reloading) {
            (true, _) => ", stopping",
            (false, true) if status.watching => ", reloading: watching the first",
            (false, true) => ", reloading",
            (false, false) => "",
        }
    );
    let line = |one: &ListenerStatus| {
        let because = if one.because.is_empty() {
            String::new()
        } else {
            format!(": {}", one.because)
        };
        let address = show::plain(&one.address);
        format!("listening on {address} ({}{because})\n", one.dispatch)
    };
    text.extend(status.listeners.iter().map(line));
    if status.unseen > 0 {
        text += &unseen_line(status.unseen);
    }
    text.extend(status.vacancies.iter().map(vacancy_line));
    text.extend(status.outputs.iter().filter_map(output_line));
    text.extend(status.workers.iter().filter_map(recycled_line));
    if !status.workers.is_empty() {
        let rows = status.workers.iter().map(|worker| worker_row(worker, now));
        let heads = [
            "POSITION",
            "ID",
            "GEN",
            "PID",
            "STATE",
            "UPTIME",
            "MEMORY",
            "RESTARTS",
            "CONNECTIONS",
            "REQUESTS",
            "SHARE",
            "OPEN",
            "RESPONSE",
        ];
        text.push('\n');
        text += &columns(&heads.map(str::to_owned), rows);
    }
    text + &totals(status)
}

/// What has been counted since the start, those included that are gone; nothing before anything was.
fn totals(status: &Status) -> String {
    let all = status.totals;
    if all.connections.unwrap_or(0) == 0 && all.requests.unwrap_or(0) == 0 {
        return String::new();
    }
    let row = |name: String, totals: Totals| {
        [
            name,
            or_dash(totals.connections.map(|count| count.to_string())),
            or_dash(totals.requests.map(|count| count.to_string())),
        ]
    };
    let rows = status.positions.iter();
    let rows = rows.map(|one| row(format!("position {}", one.position), one.totals));
    let rows = rows.chain([row("in all".to_owned(), all)]);
    let heads = ["SINCE THE START", "CONNECTIONS", "REQUESTS"].map(str::to_owned);
    format!("\n{}", columns(&heads, rows))
}

fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

/// How many spares there are, where some are wanted.
fn spares(status: &Status) -> String {
    if status.spares == 0 {
        return String::new();
    }
    let workers = status.workers.iter();
    let waiting = workers.filter(|worker| worker.state == WorkerState::Spare);
    let plural = if status.spares == 1 { "" } else { "s" };
    format!(
        ", {} of {} spare{plural} ready",
        waiting.count(),
        status.spares
    )
}

/// A place that lines could not be written to.
fn output_line(output: &OutputStatus) -> Option<String> {
    let OutputStatus {
        name,
        dropped_lines,
        because,
    } = output;
    let because = because.as_deref().unwrap_or("its reader is too slow");
    let (name, because) = (show::plain(name), show::plain(because));
    let text =
        format!("dropped {dropped_lines} lines of output to {name}, the last because: {because}\n");
    (*dropped_lines > 0).then_some(text)
}

/// A position that waits for its next try, or stays empty.
fn vacancy_line(vacancy: &VacancyStatus) -> String {
    let when = vacancy.retry_in_ms.map_or_else(
        || "no try is due".to_owned(),
        |left| {
            format!(
                "next try in {:.1} s",
                Duration::from_millis(left).as_secs_f64()
            )
        },
    );
    let crash_loop = if vacancy.crash_loop {
        ", crash loop"
    } else {
        ""
    };
    format!(
        "position {}: no worker, {when}, restarts: {}{crash_loop}\n",
        vacancy.position, vacancy.restarts
    )
}

/// A position whose worker was recycled.
fn recycled_line(worker: &WorkerStatus) -> Option<String> {
    let recycled = worker
        .recycled
        .as_ref()
        .filter(|_| worker.state == WorkerState::Ready)?;
    Some(format!(
        "position {}: recycled {} ago, {}\n",
        worker.position,
        span(recycled.ago_ms),
        show::plain(&recycled.why)
    ))
}

fn worker_row(worker: &WorkerStatus, now: u64) -> [String; 13] {
    [
        worker.position.to_string(),
        worker.id.to_string(),
        worker.generation.to_string(),
        or_dash(worker.pid.map(|pid| pid.to_string())),
        match (&worker.health, worker.stuck_ms) {
            (Some(health), _) => health.to_string(),
            (None, Some(_)) => "stuck".to_owned(),
            (None, None) => worker.state.to_string(),
        },
        or_dash(worker.ready_at.map(|at| span(now.saturating_sub(at)))),
        or_dash(worker.memory_bytes.map(|bytes| format!("{}M", bytes >> 20))),
        worker.restarts.to_string(),
        or_dash(worker.connections.map(|count| count.to_string())),
        or_dash(worker.requests.map(|count| count.to_string())),
        or_dash(worker.share.map(|share| format!("{:.1}%", share * 100.0))),
        or_dash(worker.open.map(|count| count.to_string())),
        or_dash(worker.response_us.map(response)),
    ]
}

/// A response time, in ms.
fn response(micros: u32) -> String {
    format!("{:.1}ms", f64::from(micros) / 1000.0)
}

/// The policy, with its weights where it has some.
pub(crate) fn policy(status: &Status) -> String {
    let policy = match &status.weights {
        Some(weights) if !weights.is_empty() => format!("{} {weights}", status.policy),
        Some(_) | None => status.policy.to_string(),
    };
    // Nothing is in turn that is drawn.
    let mut drawn = status.listeners.iter();
    match drawn.find_map(|one| one.policy.as_ref()) {
        Some(drawn) => format!("{policy} (drawn: {drawn})"),
        None => policy,
    }
}

/// An app of the list.
pub(crate) enum Row {
    Answers(Box<Status>),
    Silent { name: Name, pid: Option<i32> },
}

fn silent_row(name: &Name, pid: Option<i32>) -> [String; 5] {
    let dash = || "-".to_owned();
    [
        name.to_string(),
        pid.map_or_else(dash, |pid| pid.to_string()),
        dash(),
        dash(),
        "not answering".to_owned(),
    ]
}

/// The running apps, one a line.
pub(crate) fn list(all: &[Row]) -> String {
    let rows = all.iter().map(|row| {
        let status = match row {
            Row::Answers(status) => status,
            Row::Silent { name, pid } => return silent_row(name, *pid),
        };
        let ready = status
            .workers
            .iter()
            .filter(|worker| worker.state == WorkerState::Ready)
            .count();
        let addresses: Vec<_> = status
            .listeners
            .iter()
            .map(|one| show::plain(&one.address))
            .collect();
        [
            status.name.clone(),
            status.pid.to_string(),
            format!("{ready}/{}", status.target),
            status.generation.to_string(),
            if addresses.is_empty() {
                "-".to_owned()
            } else {
                addresses.join(" ")
            },
        ]
    });
    columns(
        &["NAME", "PID", "READY", "GEN", "ADDRESS"].map(str::to_owned),
        rows,
    )
}

/// A span of time in its two greatest units.
fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Sets texts in columns, two spaces apart, the last one unpadded.
fn columns<const N: usize>(heads: &[String; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut lines = vec![heads.clone()];
    lines.extend(rows);
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn unseen_line(count: usize) -> String {
    format!(
        "not dispatched: {count} of the workers listen only where phalanx has no part in it; the log says how to change that\n"
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn example() -> Status {
        serde_json::from_value(json!({
            "name": "web", "pid": 4242, "policy": "round-robin", "dispatch": "handoff",
            "adoption": "channel", "target": 2, "generation": 3, "reloading": true, "stopping": false,
            "listeners": [{"address": "127.0.0.1:3000", "dispatch": "handoff", "workers": 1}],
            "workers": [
                {"id": 5, "position": 0, "generation": 3, "pid": 4250, "state": "ready",
                 "ready_at": 1_000, "memory_bytes": 73_400_320, "restarts": 0,
                 "recycled": {"ago_ms": 61_000, "why": "as asked"}, "connections": 12, "requests": 40, "share": 1.0, "open": 3,
                 "response_us": 2_345},
                {"id": 6, "position": 1, "generation": 3, "pid": null, "state": "starting",
                 "ready_at": null, "restarts": 1, "connections": null},
            ],
            "totals": {"connections": 37, "requests": 90},
            "positions": [
                {"position": 0, "connections": 30, "requests": 90},
                {"position": 1, "connections": 7, "requests": null},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn the_status_shows_the_app_and_one_line_a_worker() {
        assert_eq!(
            status(&example(), 62_000),
            "web: primary 4242, round-robin, handoff, adoption channel, generation 3\n\
             1 of 2 workers ready, reloading\n\
             listening on 127.0.0.1:3000 (handoff)\n\
             position 0: recycled 1m 1s ago, as asked\n\
             \n\
             POSITION  ID  GEN  PID   STATE     UPTIME  MEMORY  RESTARTS  CONNECTIONS  REQUESTS  SHARE   OPEN  RESPONSE\n\
             0         5   3    4250  ready     1m 1s   70M     0         12           40        100.0%  3     2.3ms\n\
             1         6   3    -     starting  -       -       1         -            -         -       -     -\n\
             \n\
             SINCE THE START  CONNECTIONS  REQUESTS\n\
             position 0       30           90\n\
             position 1       7            -\n\
             in all           37           90\n"
        );
    }

    #[test]
    fn a_position_without_a_worker_is_told() {
        let mut vacant = example();
        vacant.vacancies = serde_json::from_value(json!([
            {"position": 1, "restarts": 7, "retry_in_ms": 12_300, "crash_loop": true},
            {"position": 2, "restarts": 0, "retry_in_ms": null, "crash_loop": false},
        ]))
        .unwrap();
        let text = status(&vacant, 62_000);
        assert!(
            text.contains(
                "position 1: no worker, next try in 12.3 s, restarts: 7, crash loop\n\
                 position 2: no worker, no try is due, restarts: 0\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn what_is_drawn_is_not_called_in_turn() {
        let mut drawn = example();
        drawn.listeners[0].policy = Some("random".to_owned());
        let text = status(&drawn, 62_000);
        assert!(text.contains(", round-robin (drawn: random), "), "{text}");
    }

    #[test]
    fn a_reload_that_watches_its_canaries_is_told() {
        let mut watching = example();
        watching.watching = true;
        let text = status(&watching, 62_000);
        assert!(
            text.contains("ready, reloading: watching the first\n"),
            "{text}"
        );
    }

    #[test]
    fn the_list_shows_one_line_an_app() {
        assert_eq!(
            list(&[
                Row::Answers(Box::new(example())),
                Row::Silent {
                    name: "stuck".parse().unwrap(),
                    pid: Some(77)
                }
            ]),
            "NAME   PID   READY  GEN  ADDRESS\n\
             web    4242  1/2    3    127.0.0.1:3000\n\
             stuck  77    -      -    not answering\n"
        );
    }

    #[test]
    fn spans_are_told_in_two_units() {
        for (millis, text) in [
            (999, "0s"),
            (61_000, "1m 1s"),
            (3_600_000, "1h 0m"),
            (90_000_000, "1d 1h"),
        ] {
            assert_eq!(span(millis), text);
        }
    }
}
