//! Readiness: what is owed, by whom, and for how long a first generation is watched.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::wire::{ListenRequest, Target};

const QUIET: Duration = Duration::from_millis(100);

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn lacks(names: &[&str]) -> Verdict {
    let names = names.iter().map(|&name| name.into()).collect();
    Verdict::Lacks(Lack::Listeners(names))
}

struct App(Roll);

impl App {
    fn new() -> Self {
        Self(Roll::new(QUIET))
    }

    fn starts(&mut self, worker: u32, position: u32, generation: u32) {
        let place = (Position(position), Generation(generation));
        self.0
            .enrol(WorkerId(worker), place, Proof::Listeners, at(0));
    }

    fn listens(&mut self, worker: u32, names: &[&str]) {
        for &name in names {
            self.0.listens(WorkerId(worker), name.into(), at(0));
        }
    }

    fn serves(&mut self, worker: u32, position: u32, generation: u32, names: &[&str]) {
        self.starts(worker, position, generation);
        self.listens(worker, names);
        assert!(self.0.settle(WorkerId(worker)));
    }

    fn verdict(&self, worker: u32) -> Verdict {
        self.0.verdict(WorkerId(worker), at(1))
    }
}

#[test]
fn a_first_generation_that_is_about_to_open_another_listener_is_watched_anew() {
    let mut app = App::new();
    app.starts(1, 0, 1);
    app.listens(1, &[":80"]);
    app.0.stirs(WorkerId(1), at(90));
    let verdict = app.0.verdict(WorkerId(1), at(110));
    assert_eq!(verdict, Verdict::ReadyAt(at(190)));
    assert_eq!(app.0.verdict(WorkerId(1), at(190)), Verdict::Ready);
}

#[test]
fn a_free_port_that_is_opened_while_serving_is_owed_by_nobody() {
    let mut app = App::new();
    app.serves(1, 0, 1, &[":80"]);
    app.listens(1, &["a free port (key)", ":9000"]);
    app.starts(2, 0, 2);
    app.listens(2, &[":80"]);
    assert_eq!(app.verdict(2), lacks(&[":9000"]));
    app.listens(2, &[":9000"]);
    assert_eq!(app.verdict(2), Verdict::Ready);
}

#[test]
fn a_helper_that_was_seen_is_owed_by_nobody_who_has_something_to_serve() {
    let mut app = App::new();
    app.serves(1, 0, 1, &["a free port", ":80"]);
    app.starts(2, 0, 2);
    app.listens(2, &[":80"]);
    assert_eq!(app.verdict(2), Verdict::Ready);

    let mut app = App::new();
    app.serves(1, 0, 1, &["a free port"]);
    app.starts(2, 0, 2);
    app.listens(2, &[":80"]);
    assert_eq!(app.verdict(2), lacks(&["a free port"]));
}

#[test]
fn a_first_generation_is_ready_when_it_opens_nothing_more_for_a_while() {
    let mut app = App::new();
    app.starts(1, 0, 1);
    assert_eq!(app.verdict(1), Verdict::Lacks(Lack::AnyListener));
    app.listens(1, &[":9000"]);
    assert_eq!(app.verdict(1), Verdict::ReadyAt(QUIET));
    app.0.listens(WorkerId(1), ":80".into(), at(70));
    let later = app.0.verdict(WorkerId(1), at(100));
    assert_eq!(later, Verdict::ReadyAt(at(170)));
    assert_eq!(app.0.verdict(WorkerId(1), at(170)), Verdict::Ready);
}

#[test]
fn a_later_start_of_the_first_generation_owes_what_is_known_and_waits_no_longer() {
    let mut app = App::new();
    app.serves(1, 0, 1, &[":80", ":9000"]);
    app.starts(2, 1, 1);
    app.listens(2, &[":9000"]);
    assert_eq!(app.verdict(2), lacks(&[":80"]));
    app.listens(2, &[":80"]);
    assert_eq!(app.verdict(2), Verdict::Ready);
}

#[test]
fn a_successor_owes_what_its_predecessor_opened_even_after_it_was_ready() {
    let mut app = App::new();
    app.serves(1, 0, 1, &[":9000"]);
    app.listens(1, &[":80"]);
    app.starts(2, 0, 2);
    app.listens(2, &[":9000"]);
    assert_eq!(app.verdict(2), lacks(&[":80"]));
    assert!(app.0.is_shut(WorkerId(2)));
    app.listens(2, &[":80"]);
    assert_eq!(app.verdict(2), Verdict::Ready);
}

#[test]
fn what_only_one_position_holds_only_that_position_owes() {
    let mut app = App::new();
    app.serves(1, 0, 1, &[":80", ":9000"]);
    app.serves(2, 1, 1, &[":80"]);
    for (worker, position) in [(3, 1), (4, 2)] {
        app.starts(worker, position, 2);
        app.listens(worker, &[":80"]);
        assert_eq!(app.verdict(worker), Verdict::Ready);
    }
    app.starts(5, 0, 2);
    app.listens(5, &[":80"]);
    assert_eq!(app.verdict(5), lacks(&[":9000"]));
}

#[test]
fn a_revert_owes_what_its_own_release_held() {
    let mut app = App::new();
    app.serves(1, 0, 1, &[":80"]);
    app.serves(2, 0, 2, &[":80", ":443"]);
    app.starts(3, 0, 1);
    app.listens(3, &[":80"]);
    assert_eq!(app.verdict(3), Verdict::Ready);
    app.starts(4, 0, 3);
    app.listens(4, &[":80"]);
    assert_eq!(app.verdict(4), lacks(&[":443"]));
}

#[test]
fn who_has_no_predecessor_left_serves_at_once_what_it_has() {
    let mut app = App::new();
    app.serves(1, 0, 1, &[":80", ":9000"]);
    app.starts(2, 0, 2);
    app.listens(2, &[":9000"]);
    assert!(app.0.is_shut(WorkerId(2)));
    app.0.leaves(WorkerId(1), at(1));
    assert!(!app.0.is_shut(WorkerId(2)));
    app.0.gone(WorkerId(1), at(2));
    assert_eq!(app.verdict(2), lacks(&[":80"]));
}

#[test]
fn who_listens_nowhere_is_told_from_who_lacks_some() {
    let mut app = App::new();
    app.serves(1, 0, 1, &[":80", ":9000"]);
    app.starts(2, 0, 2);
    let lack = Lack::EveryListener(vec![":80".into(), ":9000".into()]);
    assert_eq!(app.verdict(2), Verdict::Lacks(lack));
}

#[test]
fn a_listener_that_a_living_worker_gave_up_is_not_owed_and_one_closed_on_the_way_out_is() {
    let mut app = App::new();
    app.serves(1, 0, 1, &[":80", ":9000"]);
    app.0.closes(WorkerId(1), &":9000".into(), at(0));
    app.0.closes(WorkerId(1), &":80".into(), at(5_000));
    app.0.gone(WorkerId(1), at(5_001));
    app.starts(2, 0, 1);
    app.listens(2, &[":1"]);
    assert_eq!(app.verdict(2), lacks(&[":80"]));
}

#[test]
fn an_app_that_tries_its_port_first_is_given_a_while_each_time() {
    let mut app = App::new();
    app.starts(1, 0, 1);
    app.listens(1, &[":80"]);
    app.0.closes(WorkerId(1), &":80".into(), at(0));
    assert_eq!(app.verdict(1), Verdict::Lacks(Lack::AnyListener));
    app.listens(1, &[":80"]);
    app.0.settle(WorkerId(1));
    app.starts(2, 0, 2);
    app.listens(2, &[":80"]);
    assert_eq!(app.verdict(2), Verdict::ReadyAt(QUIET));
}

#[test]
fn a_word_counts_where_it_is_asked_for_and_does_not_make_up_for_a_listener() {
    let mut app = App::new();
    app.serves(1, 0, 1, &[":80"]);
    for (proof, lack) in [(Proof::Word, Lack::Word), (Proof::Answer, Lack::Answer)] {
        let (worker, place) = (WorkerId(2), (Position(0), Generation(2)));
        app.0.enrol(worker, place, proof, at(0));
        assert_eq!(app.verdict(2), Verdict::Lacks(lack));
        app.0.proves(worker);
        let none = Lack::EveryListener(vec![":80".into()]);
        assert_eq!(app.verdict(2), Verdict::Lacks(none));
        app.listens(2, &[":80"]);
        assert_eq!(app.verdict(2), Verdict::Ready);
    }
    let place = (Position(0), Generation(2));
    app.0.enrol(WorkerId(3), place, Proof::Running, at(0));
    assert_eq!(app.verdict(3), Verdict::Ready);
}

#[test]
fn a_listener_that_turns_out_to_be_a_workers_own_is_owed_by_nobody() {
    let mut app = App::new();
    app.serves(1, 0, 1, &["a free port (key)", ":80"]);
    app.starts(2, 1, 1);
    app.listens(2, &[":80"]);
    assert_eq!(app.verdict(2), lacks(&["a free port (key)"]));
    app.0.disown(&"a free port (key)".into());
    assert_eq!(app.verdict(2), Verdict::Ready);
}

#[test]
fn debuggers_are_told_from_servers() {
    let of = |text: &str, inspector| is_debugger(text.parse().unwrap(), inspector);
    assert!(of("127.0.0.1:9229", None));
    assert!(of("127.0.0.1:9301", Some(9301)));
    assert!(of("0.0.0.0:9301", Some(9301)));
    assert!(of("127.0.0.1:41234", Some(0)));
    assert!(!of("127.0.0.1:41234", None));
    assert!(!of("127.0.0.1:8080", Some(9229)));
    assert!(!of("0.0.0.0:41234", Some(0)));
}

#[test]
fn every_way_to_ask_for_all_addresses_is_the_same_listener() {
    let name = |address: Option<&str>, port| {
        let request = ListenRequest {
            target: Target::Tcp {
                address: address.map(|text| text.parse().unwrap()),
                port,
                only_v6: false,
            },
            scope: None,
            index: 0,
            backlog: None,
            data: serde_json::Value::Null,
            key: String::new(),
        };
        ListenerName::of_request(&request, "key").to_string()
    };
    for address in [None, Some("::"), Some("0.0.0.0")] {
        assert_eq!(name(address, 80), ":80");
    }
    assert_eq!(name(Some("127.0.0.1"), 80), "127.0.0.1:80");
    assert_eq!(name(Some("127.0.0.1"), 0), "a free port (key)");
}

proptest! {
    /// Whatever the two releases open, in whatever order: the successor is ready exactly when it holds all
    /// that its predecessor held, and it gets nothing before.
    #[test]
    fn a_successor_is_ready_exactly_when_it_holds_all_of_its_predecessors(
        before in prop::collection::btree_set(0_u16..6, 1..5),
        after in prop::collection::vec(0_u16..6, 0..8),
    ) {
        let mut app = App::new();
        app.starts(1, 0, 1);
        for port in &before {
            app.0.listens(WorkerId(1), format!(":{port}").as_str().into(), at(0));
        }
        app.0.settle(WorkerId(1));
        app.starts(2, 0, 2);
        let mut open = std::collections::BTreeSet::new();
        for port in after {
            open.insert(port);
            app.0.listens(WorkerId(2), format!(":{port}").as_str().into(), at(0));
            let holds_all = before.is_subset(&open);
            prop_assert_eq!(app.verdict(2) == Verdict::Ready, holds_all);
            prop_assert!(app.0.is_shut(WorkerId(2)));
        }
        app.0.settle(WorkerId(2));
        prop_assert!(!app.0.is_shut(WorkerId(2)));
    }
}

#[test]
fn who_listens_and_does_not_accept_where_its_predecessor_did_is_not_ready() {
    let lacks = || Verdict::Lacks(Lack::Accepting(vec![":80".into()]));
    let mut app = App::new();
    app.serves(1, 0, 1, &[":80", ":9000"]);
    app.0.accepts(WorkerId(1), ":80".into());
    app.starts(2, 0, 2);
    app.listens(2, &[":80", ":9000"]);
    assert_eq!(app.verdict(2), lacks());
    app.0.proves(WorkerId(2));
    assert_eq!(app.verdict(2), lacks(), "its word alone is not enough");
    app.0.accepts(WorkerId(2), ":80".into());
    assert_eq!(app.verdict(2), Verdict::Ready);
    app.starts(3, 1, 2);
    app.listens(3, &[":80", ":9000"]);
    assert_eq!(app.verdict(3), Verdict::Ready, "nobody was seen there");
}

#[test]
fn who_cannot_be_seen_accepting_is_ready_by_listening() {
    let mut app = App::new();
    app.starts(1, 0, 1);
    app.listens(1, &[":80"]);
    app.0.accepts(WorkerId(1), ":80".into());
    assert!(app.0.settle(WorkerId(1)));
    app.starts(2, 0, 2);
    app.listens(2, &[":80"]);
    assert!(matches!(app.verdict(2), Verdict::Lacks(Lack::Accepting(_))));
    app.0.hides(WorkerId(2));
    assert_eq!(app.verdict(2), Verdict::Ready);
}
