//! What the picture of a drill shows.

use std::collections::BTreeMap;

use super::*;
use crate::account::{Fate, Incident, Trouble};
use crate::cause::Cause;
use crate::mix::Way;
use crate::plan::Kind;
use crate::report::Circumstances;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn picture(account: &Account, took: u64) -> String {
    let around = Circumstances {
        target: "127.0.0.1:80".to_owned(),
        clients: 1,
        took: ms(took),
        interrupted: false,
        shares: BTreeMap::new(),
    };
    of(&Report::of(account, &around), account)
}

#[test]
fn actions_and_losses_are_marked_where_they_happened() {
    let mut account = Account::default();
    for at in 1..1_000 {
        assert!(account.answered(Way::New, 200, ms(at * 10 - 3), ms(at * 10)));
    }
    account.began(Kind::Reload, 1, ms(5_000));
    account.ended(ms(6_000), None);
    account.began(Kind::Kill, 1, ms(8_000));
    account.ended(ms(8_100), None);
    let trouble = Trouble {
        cause: Cause::ClosedInResponse,
        port: None,
        connected_at: ms(0),
        sent_at: ms(4_990),
        detail: String::new(),
    };
    account.trouble(
        Incident {
            at: ms(5_500),
            way: Way::New,
            fate: Fate::Lost,
            trouble,
            killed_by: None,
        },
        1,
    );
    let svg = picture(&account, 10_000);
    // From x = 70 to 980 in 10 s: the reload begins in the middle.
    assert!(
        svg.contains("<rect x=\"525.0\" y=\"120.0\" width=\"91.0\""),
        "{svg}"
    );
    assert!(
        svg.contains("<circle cx=\"570.5\" cy=\"300\" r=\"4\" fill=\"#c81e1e\""),
        "{svg}"
    );
    assert!(svg.contains("closed in the middle of the response") && svg.contains("kill 1"));
    assert!(svg.contains("drill failed: 1 lost"), "{svg}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    assert_eq!(svg.matches("<svg").count(), svg.matches("</svg>").count());
}

#[test]
fn a_drill_without_any_answer_has_a_picture_too() {
    let svg = picture(&Account::default(), 0);
    assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"), "{svg}");
}

#[test]
fn axes_have_round_ends() {
    for (value, end) in [
        (0.0, 1.0),
        (7.0, 8.0),
        (1_234.0, 2_000.0),
        (4_001.0, 5_000.0),
        (9_000.0, 10_000.0),
    ] {
        assert!((round_up(value) - end).abs() < 1e-6, "{value}");
    }
    assert_eq!(
        [0.01, 0.5, 3.0, 1_500.0, 20_000.0].map(short),
        ["0.01", "0.5", "3", "1.5k", "20k"]
    );
}
