//! The report of an account, in JSON and in words.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::account::Trouble;
use crate::words;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn around(interrupted: bool) -> Circumstances {
    Circumstances {
        target: "127.0.0.1:80".to_owned(),
        clients: 2,
        took: ms(1_500),
        interrupted,
        shares: BTreeMap::from([(1, (0, 10)), (2, (1, 11)), (3, (0, 5))]),
    }
}

fn loss(cause: Cause, fate: Fate, port: u16, at: u64) -> Incident {
    Incident {
        at: ms(at),
        way: Way::Idle,
        fate,
        trouble: Trouble {
            cause,
            port: Some(port),
            connected_at: ms(0),
            sent_at: ms(at - 5),
            detail: String::new(),
        },
        killed_by: None,
    }
}

/// Ten answers in calm, a reload of 100 ms with one answer, and a kill.
fn account() -> Account {
    let mut account = Account::default();
    for at in 1..=10 {
        assert!(account.answered(Way::New, 200, ms(at - 1), ms(at)));
    }
    account.began(Kind::Reload, 1, ms(100));
    assert!(account.answered(Way::New, 200, ms(110), ms(113)));
    account.ended(ms(200), None);
    account.began(Kind::Kill, 1, ms(300));
    account.will_kill(1, ms(300), BTreeSet::from([4000]));
    account.ended(ms(320), None);
    account
}

#[test]
fn a_drill_passes_with_what_a_kill_had_in_service_and_with_nothing_else() {
    let mut account = account();
    account.trouble(loss(Cause::ClosedInResponse, Fate::Lost, 4000, 301), 1);
    let report = Report::of(&account, &around(false));
    assert!(report.passed);
    assert_eq!(
        (report.requests, report.all.lost, report.all.lost_to_kills),
        (12, 0, 1)
    );
    assert!(!Report::of(&account, &around(true)).passed, "interrupted");
    let with = |fate| {
        let mut account = account.clone();
        account.trouble(loss(Cause::ClosedWithoutAnswer, fate, 4001, 301), 1);
        Report::of(&account, &around(false)).passed
    };
    assert!(!with(Fate::Lost));
    assert!(!with(Fate::Retried));
    account.began(Kind::Reload, 2, ms(400));
    account.ended(ms(410), Some("no".to_owned()));
    assert!(
        !Report::of(&account, &around(false)).passed,
        "a failed reload"
    );
    assert!(
        !Report::of(&Account::default(), &around(false)).passed,
        "nothing was answered"
    );
}

#[test]
fn the_json_has_what_it_promises() {
    let mut account = account();
    account.trouble(loss(Cause::ResetBeforeResponse, Fate::Lost, 4001, 134), 2);
    let json: Value = serde_json::to_value(Report::of(&account, &around(false))).unwrap();
    for (field, value) in [
        ("passed", json!(false)),
        ("requests", json!(13)),
        ("lost", json!(2)),
        ("causes", json!({"reset_before_response": 2})),
        ("reloads", json!(1)),
        ("kills", json!(1)),
        ("statuses", json!({"200": 11})),
        (
            "shares",
            json!([
                {"position": 0, "workers": 2, "connections": 15},
                {"position": 1, "workers": 1, "connections": 11},
            ]),
        ),
    ] {
        assert_eq!(json[field], value, "{field}");
    }
    let calm = json!({"count": 10, "p50": 1.0, "p90": 1.0, "p99": 1.0, "p999": 1.0, "max": 1.0});
    assert_eq!(json["latency_ms"]["calm"], calm);
    assert_eq!(json["latency_ms"]["reload"]["count"], 1);
    assert_eq!(json["latency_ms"]["scale"], Value::Null);
    assert_eq!(json["replace_ms"]["reload"]["max"], 100.0);
    let incident = &json["incidents"][0];
    assert_eq!(
        incident["moment"],
        json!({"kind": "reload", "number": 1, "during": true, "since_ms": 34.0})
    );
    assert_eq!(
        (&incident["waited_ms"], &incident["way"]),
        (&json!(5.0), &json!("idle"))
    );
}

#[test]
fn people_are_told_the_verdict_first_and_every_loss_with_its_moment() {
    let mut account = account();
    assert!(
        words::of(&Report::of(&account, &around(false)))
            .starts_with("drill passed: nothing lost\n")
    );
    account.trouble(loss(Cause::ResetBeforeResponse, Fate::Lost, 4001, 134), 1);
    account.trouble(
        loss(Cause::ClosedWithoutAnswer, Fate::Retried, 4001, 250),
        1,
    );
    let text = words::of(&Report::of(&account, &around(false)));
    for part in [
        "drill failed: 1 lost, 1 cut off on the wire\n",
        "lost         1: 1 reset before the response",
        "0.134 s  lost     idle          reset before the response, 5 ms after it was sent; in reload 1, 34 ms after its begin",
        "0.250 s  retried  idle          closed without an answer, 5 ms after it was sent; after reload 1, 150 ms after its begin",
    ] {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}
