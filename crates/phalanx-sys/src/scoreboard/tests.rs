use std::fs::File;
use std::time::Duration;

use super::row::RESPONSE_MAX_US;
use super::*;

fn seats() -> (Arc<Scoreboard>, Seat, Seat) {
    let board = Arc::new(Scoreboard::anonymous().unwrap());
    let old = board.seat(3, Lane::Even).unwrap();
    let new = board.seat(3, Lane::Odd).unwrap();
    (board, old, new)
}

#[test]
fn a_connection_counts_from_the_choice_until_it_is_closed() {
    let (board, worker, _) = seats();
    board.chosen(3);
    board.chosen(3);
    assert_eq!((board.load(3).open, board.load(3).outstanding), (2, 2));
    worker.accepted();
    assert_eq!((board.load(3).open, board.load(3).outstanding), (2, 1));
    worker.began();
    assert_eq!(board.load(3).outstanding, 2);
    worker.ended(Duration::from_millis(2));
    worker.closed();
    let load = board.load(3);
    assert_eq!(
        (load.open, load.outstanding, load.response_us),
        (1, 1, 2000)
    );
    assert_eq!(board.load(2), Load::default());
}

#[test]
fn a_dead_worker_leaves_only_what_waits_in_the_queue() {
    let (board, old, new) = seats();
    for _ in 0..6 {
        board.chosen(3);
    }
    old.accepted();
    old.accepted();
    old.began();
    new.accepted();
    board.worker_gone(3, Lane::Even);
    assert_eq!(
        board.load(3).open,
        4,
        "one of the successor, three that wait"
    );
    assert_eq!(board.load(3).outstanding, 3);
    board.worker_gone(3, Lane::Even);
    assert_eq!(board.load(3).open, 4, "nobody is taken off twice");
    board.reset_load(3);
    assert_eq!(board.load(3), Load::default());
}

#[test]
fn others_see_it_through_the_descriptor() {
    let (board, ..) = seats();
    let again = Arc::new(Scoreboard::from_fd(board.duplicate().unwrap()).unwrap());
    board.chosen(7);
    again.seat(7, Lane::Odd).unwrap().accepted();
    assert_eq!(board.load(7).open, 1);
    assert_eq!(board.load(7).outstanding, 0);
}

#[test]
fn what_is_no_scoreboard_is_refused() {
    let short = memfd_create("short", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&short, 4096).unwrap();
    let error = Scoreboard::from_fd(short).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    let null = File::open("/dev/null").unwrap();
    assert!(Scoreboard::from_fd(null.into()).is_err());
    let board = Scoreboard::anonymous().unwrap();
    assert!(ftruncate(&board.fd, 0).is_err(), "nobody can shorten it");
}

#[test]
fn absurd_values_are_cut() {
    let (board, ..) = seats();
    let row = board.place(3).unwrap().row;
    row.closed.store(7, Relaxed);
    row.held[0].store(i32::MIN, Relaxed);
    row.outstanding[0].store(i32::MAX, Relaxed);
    row.outstanding[1].store(i32::MAX, Relaxed);
    row.response_us.store(u32::MAX, Relaxed);
    row.response_tick.store(u32::MAX, Relaxed);
    let load = board.load(3);
    assert_eq!(load.open, 0);
    assert_eq!(load.response_us, RESPONSE_MAX_US);
    board.chosen(POSITIONS_MAX);
    assert_eq!(board.load(u32::MAX), Load::default());
    assert!(board.seat(POSITIONS_MAX, Lane::Even).is_none());
}

#[test]
fn a_peak_shows_at_once_and_is_forgotten_little_by_little() {
    let row = Row::default();
    row.observe(Duration::from_millis(1), 1000);
    row.observe(Duration::from_millis(300), 1001);
    assert_eq!(row.load(0, 1001).response_us, 300_000);
    row.observe(Duration::from_millis(1), 1002);
    assert!(row.load(0, 1002).response_us > 280_000);
    let mut now = 1002;
    for _ in 0..2000 {
        now += 1;
        row.observe(Duration::from_millis(1), now);
    }
    assert!(row.load(0, now).response_us < 2_000);
}

#[test]
fn an_idle_position_becomes_unknown_again() {
    let row = Row::default();
    row.observe(Duration::from_millis(8), 0);
    assert_eq!(row.load(0, 15).response_us, 8000);
    assert_eq!(row.load(0, 16).response_us, 4000);
    assert_eq!(row.load(0, 16 * 20).response_us, 0);
    assert_eq!(
        row.load(0, u32::MAX).response_us,
        8000,
        "a time that is to come"
    );
    row.busy_from(16 * 20);
    let owing = row.load(1, 16 * 20).response_us;
    assert_eq!(owing, 8000, "it owes an answer");
}

#[test]
fn only_what_stays_is_taken_for_lost() {
    let mut drift = Drift::default();
    for surplus in [5, 3, 9, 4, 8, 3, 7] {
        assert_eq!(drift.look(surplus), 0);
    }
    assert_eq!(drift.look(6), 3);
    for surplus in [2, 0, 1, 1, 3, 1, 2, 2] {
        assert_eq!(drift.look(surplus), 0, "it was none at one look");
    }
    for surplus in [-2, -5, -2, -3, -9, -2, -4] {
        assert_eq!(drift.look(surplus), 0);
    }
    assert_eq!(drift.look(-2), -2);
}

#[test]
fn a_handshake_that_came_to_nothing_is_settled() {
    let (board, worker, _) = seats();
    for _ in 0..3 {
        board.chosen(3);
    }
    worker.accepted();
    let mut drift = Drift::default();
    for _ in 0..Drift::LOOKS {
        board.correct(3, drift.look(board.surplus(3, 1)));
    }
    assert_eq!(board.load(3).open, 2, "one held, one in the queue");
}

#[test]
fn a_worker_that_does_not_answer_looks_slower_and_slower() {
    let row = Row::default();
    row.observe(Duration::from_millis(1), 1000);
    row.busy_from(5000);
    assert_eq!(row.load(1, 5000).response_us, 1000, "it has just begun");
    assert_eq!(row.load(1, 5010).response_us, 10 << 10);
    assert_eq!(row.load(1, 5200).response_us, 200 << 10);
    row.observe(Duration::from_millis(2), 5200);
    assert_eq!(row.load(1, 5200).response_us, 2000, "it has answered");
    assert_eq!(row.load(1, 5203).response_us, 3 << 10, "and owes another");
    assert_eq!(row.load(0, 5203).response_us, 2000, "and owes nothing");
    assert_eq!(
        Row::default().load(1, 5203).response_us,
        0,
        "never heard of"
    );
}

#[test]
fn it_is_known_since_when_there_is_something_to_answer() {
    let (board, worker, _) = seats();
    let row = board.place(3).unwrap().row;
    let waits_since = || row.busy_tick.swap(0, Relaxed) != 0;
    board.chosen(3);
    assert!(waits_since(), "a connection that was handed over");
    board.chosen(3);
    assert!(!waits_since(), "another waited already");
    worker.accepted();
    worker.accepted();
    worker.began();
    assert!(waits_since(), "a request");
    worker.began();
    assert!(!waits_since());
    worker.ended_untimed();
    worker.ended_untimed();
    worker.report(2, 0, 1, None);
    assert!(waits_since(), "a request that was told of");
    worker.report(2, 0, 2, None);
    assert!(!waits_since());
}

#[test]
fn a_connection_that_nobody_gave_is_counted_when_it_is_held() {
    let (board, worker, successor) = seats();
    for _ in 0..3 {
        worker.accepted();
    }
    successor.accepted();
    worker.caught_up();
    assert_eq!(board.load(3).open, 4);
    board.chosen(3);
    worker.caught_up();
    assert_eq!(board.load(3).open, 5, "what waits is nobody's yet");
    for _ in 0..3 {
        worker.closed();
    }
    successor.closed();
    assert_eq!(board.load(3).open, 1);
}
