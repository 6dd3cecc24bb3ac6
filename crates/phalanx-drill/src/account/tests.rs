//! The session, entry by entry.

use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn incident(cause: Cause, fate: Fate, port: u16, connected_at: u64, at: u64) -> Incident {
    Incident {
        at: ms(at),
        way: Way::KeepAlive,
        fate,
        trouble: Trouble {
            cause,
            port: Some(port),
            connected_at: ms(connected_at),
            sent_at: ms(at - 1),
            detail: String::new(),
        },
        killed_by: None,
    }
}

#[test]
fn only_what_the_killed_worker_had_in_service_is_excused() {
    let mut account = Account::default();
    account.began(Kind::Kill, 1, ms(100));
    account.will_kill(1, ms(100), BTreeSet::from([4000, 4001]));
    let closed = Cause::ClosedInResponse;
    for (expected, cause, port, connected_at, at) in [
        (true, closed, 4000, 50, 101),
        (true, Cause::ResetBeforeResponse, 4001, 100, 120),
        // Another worker's connection.
        (false, closed, 4002, 50, 101),
        // The port is the same, the connection a later one.
        (false, closed, 4000, 110, 130),
        // The dead answer nobody slowly, and refuse nobody.
        (false, Cause::TimedOut, 4000, 50, 101),
        (false, Cause::Refused, 4000, 50, 101),
    ] {
        let before = account.all();
        account.trouble(incident(cause, Fate::Lost, port, connected_at, at), 1);
        let all = account.all();
        let (lost, excused) = (
            all.lost - before.lost,
            all.lost_to_kills - before.lost_to_kills,
        );
        assert_eq!(
            (lost, excused),
            (u64::from(!expected), u64::from(expected)),
            "{cause:?} {port}"
        );
        let kept = account.incidents.last().unwrap();
        assert_eq!(kept.killed_by, expected.then_some(1));
    }
    account.trouble(
        incident(Cause::ClosedWithoutAnswer, Fate::Retried, 4000, 50, 102),
        3,
    );
    assert_eq!(account.all().retried_to_kills, 3);
    assert_eq!(account.causes[&closed], 2);
    assert_eq!(account.kill_causes[&closed], 1);
    assert_eq!(account.all().requests(), 6);
}

#[test]
fn a_5xx_counts_as_an_answer_only_where_calm_had_shown_it() {
    let mut account = Account::default();
    let ask = |account: &mut Account, way, status| account.answered(way, status, ms(1), ms(2));
    assert!(ask(&mut account, Way::SlowUpload, 501));
    account.began(Kind::Reload, 1, ms(10));
    assert!(ask(&mut account, Way::SlowUpload, 501));
    assert!(!ask(&mut account, Way::SlowUpload, 502));
    assert!(!ask(&mut account, Way::New, 501));
    assert!(ask(&mut account, Way::New, 404));
    assert_eq!(account.all().answered, 3);
    assert_eq!(account.statuses[&501], 3);
}

#[test]
fn latencies_belong_to_the_action_that_went_on_meanwhile() {
    let mut account = Account::default();
    let ask = |account: &mut Account, sent_at, at| {
        assert!(account.answered(Way::New, 200, ms(sent_at), ms(at)));
    };
    ask(&mut account, 1, 3);
    account.began(Kind::Reload, 1, ms(10));
    ask(&mut account, 5, 12);
    ask(&mut account, 12, 13);
    account.ended(ms(20), None);
    ask(&mut account, 19, 25);
    ask(&mut account, 21, 25);
    account.began(Kind::Kill, 1, ms(30));
    ask(&mut account, 15, 31);
    ask(&mut account, 25, 32);
    let of = |kind| account.during.get(&kind).map_or(0, Histogram::count);
    assert_eq!(
        (account.calm.count(), of(Kind::Reload), of(Kind::Kill)),
        (2, 4, 1)
    );
    // What is slow by intention is not measured.
    assert!(account.answered(Way::SlowReader, 200, ms(1), ms(900)));
    assert_eq!(account.calm.count(), 2);
}

#[test]
fn actions_are_counted_by_their_end() {
    let mut account = Account::default();
    account.began(Kind::Reload, 1, ms(1));
    account.ended(ms(2), None);
    account.began(Kind::Reload, 2, ms(3));
    account.ended(ms(4), Some("no".to_owned()));
    account.began(Kind::Reload, 3, ms(5));
    assert_eq!(account.done(Kind::Reload), (1, 1));
    assert_eq!(account.done(Kind::Kill), (0, 0));
    let number = |at| account.action_before(ms(at)).map(|action| action.number);
    assert_eq!((number(0), number(4), number(9)), (None, Some(2), Some(3)));
}
