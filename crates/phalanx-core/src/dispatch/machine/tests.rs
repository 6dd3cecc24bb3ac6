use super::super::readiness::Proof;
use super::super::worker::{Admission, Departure};
use super::*;
use crate::ids::{ExitStatus, Position};
use crate::ledger::ListenerId;
use crate::wire::{ListenRequest, Target};

const QUIET: Duration = Duration::from_millis(300);
const WEB: ListenerId = ListenerId(1);
const ADMIN: ListenerId = ListenerId(2);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn request(port: u16) -> ListenRequest {
    ListenRequest {
        target: Target::Tcp {
            address: None,
            port,
            only_v6: false,
        },
        scope: None,
        index: 0,
        backlog: None,
        data: serde_json::Value::Null,
        key: port.to_string(),
    }
}

/// A machine, and where its workers stand.
struct App {
    machine: Machine,
    standing: BTreeMap<WorkerId, Worker>,
}

impl App {
    fn new() -> Self {
        Self {
            machine: Machine::new(QUIET),
            standing: BTreeMap::new(),
        }
    }

    fn start(&mut self, worker: u32, generation: u32, admission: Admission) -> WorkerId {
        let id = WorkerId(worker);
        let newcomer = Newcomer {
            position: Position(0),
            generation: Generation(generation),
            proof: Proof::Listeners,
            comes: Comes::Asking,
        };
        self.machine.enrol(id, newcomer, ms(0));
        self.standing.insert(id, Worker::new(admission));
        id
    }

    fn step(&mut self, worker: WorkerId, input: Input, now: Duration) -> Vec<Effect> {
        let standing = self.standing.clone();
        let of = |worker| standing.get(&worker).copied();
        let effects = self.machine.step(worker, input, now, &of);
        for effect in &effects {
            if let Effect::HasProven { worker } = effect {
                self.standing.get_mut(worker).unwrap().become_ready();
            }
        }
        effects
    }

    fn listens(
        &mut self,
        worker: WorkerId,
        listener: ListenerId,
        port: u16,
        now: Duration,
    ) -> Vec<Effect> {
        let key = port.to_string();
        self.machine
            .hold(worker, &key, Held::new(listener, request(port)));
        let counts = true;
        let mut effects = self.step(worker, Input::Listens { key, counts }, now);
        effects.extend(self.step(worker, Input::Look, now));
        effects
    }

    /// Worker 1 serves both listeners.
    fn serving() -> (Self, WorkerId) {
        let mut app = Self::new();
        let first = app.start(1, 1, Admission::Open);
        app.listens(first, WEB, 80, ms(1));
        app.listens(first, ADMIN, 81, ms(1));
        let effects = app.step(first, Input::Look, ms(1) + QUIET);
        assert!(
            effects
                .iter()
                .any(|one| matches!(one, Effect::Ready { .. }))
        );
        (app, first)
    }
}

fn served(effects: &[Effect]) -> Vec<(WorkerId, ListenerId)> {
    let served = effects.iter().filter_map(|effect| match effect {
        Effect::Serve { worker, listener } => Some((*worker, *listener)),
        Effect::HasBegun { .. }
        | Effect::HasProven { .. }
        | Effect::Ready { .. }
        | Effect::Lacks { .. }
        | Effect::LookAt { .. }
        | Effect::LookAtLeaver { .. }
        | Effect::Exclude { .. }
        | Effect::Tell { .. } => None,
    });
    served.collect()
}

fn is_ready(effects: &[Effect]) -> bool {
    effects
        .iter()
        .any(|one| matches!(one, Effect::Ready { .. }))
}

#[test]
fn who_waits_for_the_answer_to_a_listener_is_not_ready_before_it_has_been_quiet_since() {
    let mut app = App::new();
    let worker = app.start(1, 0, Admission::Open);
    app.listens(worker, WEB, 80, ms(0));
    app.step(worker, Input::Kept { waits: true }, ms(100));
    assert!(app.step(worker, Input::Look, ms(1000)).is_empty());
    let effects = app.step(worker, Input::Kept { waits: false }, ms(1000));
    let at = ms(1000) + QUIET;
    assert_eq!(effects, [Effect::LookAt { worker, at }]);
    let effects = app.step(worker, Input::Look, at);
    assert!(is_ready(&effects), "{effects:?}");
}

#[test]
fn the_first_worker_serves_as_soon_as_it_listens_and_is_ready_when_it_opens_nothing_more() {
    let mut app = App::new();
    let first = app.start(1, 1, Admission::Open);
    let effects = app.listens(first, WEB, 80, ms(1));
    assert_eq!(served(&effects), [(first, WEB)]);
    assert!(!is_ready(&effects));
    let at = ms(1) + QUIET;
    assert!(effects.contains(&Effect::LookAt { worker: first, at }));
    assert!(is_ready(&app.step(first, Input::Look, at)));
}

#[test]
fn a_successor_serves_nothing_before_it_holds_what_its_predecessor_held() {
    let (mut app, first) = App::serving();
    let second = app.start(2, 2, Admission::Open);
    let effects = app.listens(second, WEB, 80, ms(1_000));
    assert_eq!(served(&effects), []);
    assert!(matches!(app.machine.lack(second), Some(Lack::Listeners(_))));
    let effects = app.listens(second, ADMIN, 81, ms(1_001));
    assert!(is_ready(&effects));
    assert_eq!(served(&effects), [(second, WEB), (second, ADMIN)]);
    let place = |wanted: fn(&Effect) -> bool| effects.iter().position(wanted);
    let proven = place(|one| matches!(one, Effect::HasProven { .. }));
    let served = place(|one| matches!(one, Effect::Serve { .. }));
    assert!(proven < served && served < place(|one| matches!(one, Effect::Ready { .. })));
    assert!(app.machine.serves(first) && app.machine.lack(second).is_none());
}

#[test]
fn a_successor_serves_what_it_has_when_its_predecessor_leaves() {
    let (mut app, first) = App::serving();
    let second = app.start(2, 2, Admission::Open);
    app.listens(second, WEB, 80, ms(1_000));
    app.standing
        .get_mut(&first)
        .unwrap()
        .leave(Departure::Asked);
    let effects = app.step(first, Input::Leaves, ms(1_100));
    assert_eq!(served(&effects), [(second, WEB)]);
}

#[test]
fn nobody_serves_who_is_held_back_or_leaves() {
    let mut app = App::new();
    let held_back = app.start(1, 1, Admission::HeldBack);
    assert_eq!(served(&app.listens(held_back, WEB, 80, ms(1))), []);
    app.standing.get_mut(&held_back).unwrap().admit();
    let effects = app.step(held_back, Input::Admitted, ms(2));
    assert_eq!(served(&effects), [(held_back, WEB)]);
    let leaves = app.start(2, 1, Admission::Open);
    let standing = app.standing.get_mut(&leaves).unwrap();
    standing.leave(Departure::OwnWish);
    assert_eq!(served(&app.listens(leaves, WEB, 80, ms(3))), []);
}

#[test]
fn a_spare_serves_when_it_moves_to_a_position() {
    let (mut app, first) = App::serving();
    let spare = app.start(2, 1, Admission::HeldBack);
    app.listens(spare, WEB, 80, ms(1));
    assert_eq!(served(&app.listens(spare, ADMIN, 81, ms(1))), []);
    app.standing.get_mut(&first).unwrap().cut_off();
    app.machine.clear(first);
    assert_eq!(served(&app.step(first, Input::Leaves, ms(900))), []);
    app.standing.get_mut(&spare).unwrap().admit();
    let position = Position(0);
    let effects = app.step(spare, Input::Moves { position }, ms(900));
    assert_eq!(served(&effects), [(spare, WEB), (spare, ADMIN)]);
}

#[test]
fn a_share_is_given_once() {
    let (mut app, first) = App::serving();
    let key = "80".to_owned();
    let counts = true;
    let effects = app.step(first, Input::Listens { key, counts }, ms(5_000));
    assert_eq!(served(&effects), []);
    assert_eq!(served(&app.step(first, Input::Admitted, ms(5_000))), []);
}

#[test]
fn who_is_given_its_listeners_listens_on_all_of_them_by_its_word() {
    let mut app = App::new();
    let first = app.start(1, 1, Admission::Open);
    app.machine.gone(first, ms(0));
    let newcomer = Newcomer {
        position: Position(0),
        generation: Generation(1),
        proof: Proof::Word,
        comes: Comes::Given,
    };
    app.machine.enrol(first, newcomer, ms(0));
    app.machine
        .hold(first, "given:0", Held::new(WEB, request(80)));
    app.machine
        .hold(first, "given:1", Held::new(ADMIN, request(81)));
    assert_eq!(served(&app.step(first, Input::Look, ms(1))), []);
    let effects = app.step(first, Input::Proves, ms(2));
    assert_eq!(served(&effects), [(first, WEB), (first, ADMIN)]);
    assert!(is_ready(&effects));
}

#[test]
fn who_is_gone_holds_nothing() {
    let (mut app, first) = App::serving();
    assert_eq!(app.machine.holders(WEB).collect::<Vec<_>>(), [first]);
    app.machine.clear(first);
    app.machine.gone(first, ms(2_000));
    app.standing
        .get_mut(&first)
        .unwrap()
        .exit(ExitStatus::Signal(9));
    assert!(app.machine.all_held().is_empty());
    assert_eq!(served(&app.listens(first, WEB, 80, ms(2_001))), []);
}
