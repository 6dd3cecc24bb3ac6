use serde_json::json;

use super::*;
use phalanx_core::policy::PolicyName;

/// An app of two workers that were given so many connections.
pub(crate) fn status(connections: [u64; 2]) -> Input {
    let worker = |position: u64| {
        json!({
            "id": 7 + position, "position": position, "generation": 3, "pid": 4301 + position, "state": "ready",
            "ready_at": 1_000, "memory_bytes": 73_400_320, "restarts": position, "share": 0.5, "open": 3,
            "connections": connections[usize::try_from(position).unwrap()], "response_us": 812, "loop_lag_us": 120,
        })
    };
    status_of(&json!([worker(0), worker(1)]))
}

pub(crate) fn status_of(workers: &Value) -> Input {
    let status = json!({
        "name": "web", "pid": 4242, "policy": "round-robin", "dispatch": "kernel", "adoption": "channel", "target": 2,
        "generation": 3, "previous": 2, "reloading": false, "stopping": false,
        "listeners": [{"address": "127.0.0.1:3000", "dispatch": "kernel", "workers": 2}],
        "primary": {"loop_lag_p50_ms": 0.1, "loop_lag_p99_ms": 0.4, "loop_lag_max_ms": 1.0, "memory_bytes": 12_582_912,
                    "memory_idle_bytes": null},
        "totals": {"connections": 60, "requests": 480},
        "workers": workers,
    });
    Input::Status(Box::new(serde_json::from_value(status).unwrap()), None)
}

pub(crate) fn web() -> Model {
    Model::new(vec!["web".parse().unwrap()])
}

pub(crate) fn type_in(model: &mut Model, keys: &[Key]) -> Option<Effect> {
    let mut effect = None;
    for key in keys {
        effect = model.take(Input::Key(*key), model.now);
    }
    effect
}

fn command(model: &mut Model, letters: &str) -> Option<Effect> {
    let keys: Vec<_> = letters.chars().map(Key::Letter).collect();
    type_in(model, &keys)
}

#[test]
fn rates_come_from_what_was_given_between_two_looks() {
    let mut model = web();
    model.take(status([100, 100]), 10_000);
    assert_eq!(
        model.rate.last(),
        None,
        "there is nothing to compare with yet"
    );
    model.take(status([300, 110]), 12_000);
    assert_eq!(model.seen[&0].rate.last(), Some(100.0));
    assert_eq!(model.seen[&1].rate.last(), Some(5.0));
    assert_eq!(model.rate.last(), Some(105.0));
}

#[test]
fn a_successor_counts_from_nothing_and_its_predecessor_goes_on() {
    let worker = |id: u32, state: &str, connections: u32| {
        json!({"id": id, "position": 0, "generation": 1, "pid": 1, "state": state, "ready_at": null, "restarts": 0,
               "connections": connections})
    };
    let mut model = web();
    model.take(status_of(&json!([worker(1, "ready", 1_000)])), 10_000);
    let both = json!([worker(1, "draining", 1_010), worker(2, "ready", 20)]);
    model.take(status_of(&both), 11_000);
    assert_eq!(model.seen[&0].rate.last(), Some(30.0));
    model.take(status_of(&json!([worker(2, "ready", 25)])), 12_000);
    assert_eq!(model.seen[&0].rate.last(), Some(5.0));
}

#[test]
fn figures_of_the_primary_come_before_what_is_calculated() {
    let figures = json!({"up_seconds": 3.5, "positions": [
        {"position": 0, "worker": 7, "requests_per_second": 99.0, "p50_us": 640, "p99_us": 1791, "cpu": 0.2},
        {"position": 1, "worker": null, "connections_per_second": null},
    ]});
    let with_figures = |connections| {
        let Input::Status(status, _) = status(connections) else {
            panic!("it is a status");
        };
        Input::Status(status, Figures::read(figures.clone()).map(Box::new))
    };
    let mut model = web();
    model.take(with_figures([0, 0]), 1_000);
    model.take(with_figures([50, 50]), 2_000);
    assert_eq!(model.seen[&0].rate.last(), Some(99.0));
    assert_eq!(model.seen[&1].rate.last(), Some(50.0));
    let chosen = model.chosen().unwrap();
    assert_eq!(model.figures_of(chosen).unwrap().p99_us, Some(1791));
}

#[test]
fn what_cannot_be_undone_by_the_next_key_is_asked_first() {
    let mut model = web();
    model.take(status([0, 0]), 0);
    assert_eq!(command(&mut model, "r"), None);
    assert_eq!(model.dialog, Some(Dialog::Confirm(Command::Reload)));
    assert_eq!(command(&mut model, "n"), None, "any other key is a no");
    assert_eq!(model.dialog, None);
    for (letters, done) in [
        ("ry", Command::Reload),
        ("cy", Command::Canary),
        ("by", Command::Rollback),
        ("xy", Command::StopWorker(7)),
        ("jxy", Command::StopWorker(8)),
        ("+", Command::ScaleUp),
        ("-", Command::ScaleDown),
    ] {
        assert_eq!(
            command(&mut model, letters),
            Some(Effect::Do(done)),
            "{letters}"
        );
    }
}

#[test]
fn the_last_worker_is_not_taken_away_by_a_slip() {
    let mut model = web();
    let Input::Status(mut one, _) = status([0, 0]) else {
        panic!("it is a status");
    };
    one.target = 1;
    model.take(Input::Status(one, None), 0);
    assert_eq!(command(&mut model, "-"), None);
    assert_eq!(model.dialog, Some(Dialog::Confirm(Command::ScaleDown)));
}

#[test]
fn a_policy_is_chosen_from_those_there_are() {
    let mut model = web();
    model.take(status([0, 0]), 0);
    command(&mut model, "p");
    let chosen = type_in(&mut model, &[Key::Down, Key::Enter]);
    let least = Command::Policy(PolicyName::LeastConnections);
    assert_eq!(chosen, Some(Effect::Do(least)));
    command(&mut model, "p");
    assert_eq!(type_in(&mut model, &[Key::Escape]), None);
    assert_eq!(model.dialog, None);
}

#[test]
fn of_several_apps_one_is_chosen() {
    let names = ["api", "web"].map(|name| name.parse().unwrap());
    let mut model = Model::new(names.to_vec());
    assert_eq!(model.watched(), None);
    let chosen = type_in(&mut model, &[Key::Down, Key::Down, Key::Enter]);
    assert_eq!(chosen, Some(Effect::Watch("web".parse().unwrap())));
    assert_eq!(model.watched().map(Name::as_str), Some("web"));
    let mut model = Model::new(names.to_vec());
    assert_eq!(type_in(&mut model, &[Key::Escape]), Some(Effect::Quit));
}

#[test]
fn an_app_that_is_lost_is_told_and_gets_no_commands_until_it_is_back() {
    let mut model = web();
    model.take(status([0, 0]), 1_000);
    model.take(Input::Lost("gone\u{1b}[2J".to_owned()), 2_000);
    model.take(Input::Lost("gone\u{1b}[2J".to_owned()), 5_000);
    let (reason, since) = model.lost.clone().unwrap();
    assert_eq!((reason.as_str(), since), ("gone\\u{1b}[2J", 2_000));
    assert_eq!(command(&mut model, "r"), None);
    assert_eq!(model.dialog, None);
    model.take(status([0, 0]), 6_000);
    assert_eq!(model.lost, None);
}

#[test]
fn what_came_of_a_command_is_told_unless_another_app_is_watched_meanwhile() {
    let mut model = web();
    model.take(status([0, 0]), 0);
    command(&mut model, "+");
    assert_eq!(model.under_way, [Command::ScaleUp]);
    let done = |name: &str| {
        let refused = Err("no\nroom".to_owned());
        Input::Done(name.parse().unwrap(), Command::ScaleUp, refused)
    };
    model.take(done("api"), 1);
    assert_eq!(model.notice, None);
    model.take(done("web"), 2);
    let notice = model.notice.clone().unwrap();
    assert!(
        notice.is_fault && notice.text == "one worker more: no\\nroom",
        "{notice:?}"
    );
    assert_eq!(model.under_way, []);
}

#[test]
fn why_a_worker_was_replaced_is_kept_by_position() {
    let mut model = web();
    model.take(status([0, 0]), 0);
    let crash = json!({"event": "fleet", "report": "changed", "position": 1, "level": "warn", "time": 1,
                       "reason": {"why": "crashed"}, "text": "worker 8 crashed \u{7}"});
    model.take(Input::Event(crash), 1);
    assert_eq!(
        model.seen[&1].why.as_deref(),
        Some("worker 8 crashed \\u{7}")
    );
    assert_eq!(
        model.log.newest().next().unwrap().text,
        "worker 8 crashed \\u{7}"
    );
}

#[test]
fn the_log_is_bounded_and_deeper_on_demand() {
    let mut model = web();
    for number in 0..2_000 {
        let event = json!({"event": "x", "level": "info", "text": format!("{number}"), "time": 1});
        model.take(Input::Event(event), 1);
    }
    let debug = json!({"event": "x", "level": "debug", "text": "step", "time": 1});
    model.take(Input::Event(debug), 1);
    assert_eq!(model.log.newest().next().unwrap().text, "1999");
    assert_eq!(model.log.newest().count(), 499);
    command(&mut model, "l");
    assert_eq!(model.log.newest().next().unwrap().text, "step");
}
