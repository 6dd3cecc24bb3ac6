use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Color;
use serde_json::json;

use super::*;
use crate::keys::Key;
use crate::model::tests::{status, status_of, type_in, web};
use crate::model::{Figures, Input};

const RICH: Look = Look {
    has_colours: true,
    is_rich: true,
};
const POOR: Look = Look {
    has_colours: false,
    is_rich: false,
};

fn terminal(model: &Model, look: Look, width: u16, height: u16) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, look)).unwrap();
    terminal
}

fn picture(model: &Model, look: Look, width: u16, height: u16) -> Vec<String> {
    let terminal = terminal(model, look, width, height);
    let buffer = terminal.backend().buffer();
    let cells = buffer.content().chunks(usize::from(width));
    let line = |cells: &[ratatui::buffer::Cell]| {
        let text: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.trim_end().to_owned()
    };
    cells.map(line).collect()
}

/// Two workers with everything that can be known of them.
fn busy() -> Model {
    let mut model = web();
    for (second, rate) in [(1, 10.0), (2, 400.0), (3, 800.0)] {
        let Input::Status(status, _) = status([second * 10, second * 20]) else {
            panic!("it is a status");
        };
        let position = |position: u32| {
            json!({"position": position, "worker": 7 + position, "connections_per_second": 10.0, "requests_per_second": rate,
                   "p50_us": 640, "p99_us": 1791, "cpu": 0.31, "loop_lag_us": 120})
        };
        let figures = json!({"up_seconds": 12.5, "positions": [position(0), position(1)]});
        let figures = Figures::read(figures).map(Box::new);
        model.take(Input::Status(status, figures), 60_000 + second * 1_000);
    }
    let crash = json!({"event": "fleet", "report": "changed", "position": 0, "level": "warn", "time": 1_795_378_212_084_u64,
                       "reason": {"why": "crashed"}, "text": "worker 3 at position 0 crashed: signal 9"});
    model.take(Input::Event(crash), 63_000);
    model
}

#[test]
fn everything_fits_into_80_by_24() {
    let picture = picture(&busy(), RICH, 80, 24);
    let expected = [
        " web  2 of 2 workers ready  generation 3  round-robin  kernel",
        " listening on 127.0.0.1:3000  up 12s  primary 12M, lag 0.4ms",
        "   1600 requests/s  480 in all                                              ▁▄█",
        "",
        "  POS STATE     SHARE  OPEN  REQ/S    P50    P99    LAG  CPU   MEM RST",
        "▸   0 ready     50.0%     3    800  640µs  1.7ms  120µs  31%   70M   0      ▁▄█",
        "    1 ready     50.0%     3    800  640µs  1.7ms  120µs  31%   70M   1      ▁▄█",
        "",
        "▸ worker 7, generation 3, pid 4301, ready for 1m 2s, 30 connections",
        "  last: worker 3 at position 0 crashed: signal 9",
        "── events (UTC) ────────────────────────────────────────────────────────────────",
        " 20:10:12 * worker 3 at position 0 crashed: signal 9",
    ];
    assert_eq!(picture[..expected.len()], expected, "{picture:#?}");
    assert_eq!(
        picture[23],
        " r reload  b roll back  +- scale  x replace  p policy  a apps  ? keys  q quit"
    );
}

#[test]
fn a_wide_terminal_has_every_column() {
    let picture = picture(&busy(), RICH, 160, 40);
    let heads = "  POS STATE    GEN     PID  SHARE  OPEN CONN/S  REQ/S    P50    P99   RESP    LAG  CPU   MEM RST      UP";
    assert_eq!(picture[4], heads, "{picture:#?}");
}

#[test]
fn a_small_terminal_keeps_what_matters_most() {
    for (width, height) in [(40, 12), (20, 5), (1, 1), (200, 3)] {
        let picture = picture(&busy(), RICH, width, height);
        assert_eq!(picture.len(), usize::from(height));
    }
    let picture = picture(&busy(), RICH, 40, 12);
    assert!(
        picture[4].starts_with("  POS STATE") && picture[4].contains("REQ/S"),
        "{picture:#?}"
    );
}

#[test]
fn without_colours_and_signs_nothing_is_lost() {
    let model = busy();
    let drawn = terminal(&model, POOR, 80, 24);
    for cell in drawn.backend().buffer().content() {
        assert!(cell.symbol().is_ascii(), "{cell:?}");
        assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
    }
    let picture = picture(&model, POOR, 80, 24);
    assert!(
        picture[5].contains("0 ready") && picture[5].ends_with(".=@"),
        "{picture:#?}"
    );
    assert!(
        picture[5].starts_with('>'),
        "the chosen one is marked, not only bold"
    );
}

#[test]
fn many_workers_scroll_with_the_chosen_one_in_sight() {
    let worker = |id: u32| {
        json!({"id": id, "position": id, "generation": 1, "pid": id, "state": "ready", "ready_at": 1, "restarts": 0,
               "connections": null})
    };
    let mut model = web();
    model.take(status_of(&(0..64).map(worker).collect()), 1_000);
    let first = picture(&model, RICH, 80, 24);
    assert!(first[4].contains("of 64"), "{first:#?}");
    type_in(&mut model, &[Key::Down; 63]);
    let last = picture(&model, RICH, 80, 24);
    assert!(
        last.iter().any(|line| line.starts_with("▸  63 ready")),
        "{last:#?}"
    );
}

#[test]
fn a_reload_and_its_canary_are_followed() {
    let mut model = busy();
    for event in [
        json!({"report": "rollout_started", "generation": 4, "workers": 2}),
        json!({"report": "canary_progress", "generation": 4, "elapsed_ms": 30_000, "watch_ms": 60_000,
               "canary": {"requests": 10, "server_errors": 2, "p99_us": 700}, "others": {"requests": 30}}),
    ] {
        model.take(Input::Event(event), 64_000);
    }
    let picture = picture(&model, RICH, 80, 24);
    assert_eq!(
        picture[3],
        " reload: generation 4  ██████████░░░░░░░░░░  watching the first for 30s of 1m 0s"
    );
    assert_eq!(
        picture[4],
        "   new: 10 requests, 2 errors, p99 700µs   old: 30 requests, 0 errors"
    );
}

#[test]
fn an_app_that_does_not_answer_is_told() {
    let mut model = busy();
    model.take(Input::Nothing, 70_000);
    let late = picture(&model, RICH, 80, 24);
    assert_eq!(late[1], " no answer for 7s; asking…");
    model.take(
        Input::Lost("no app named web is running".to_owned()),
        71_000,
    );
    model.take(Input::Nothing, 76_000);
    let lost = picture(&model, RICH, 80, 24);
    assert_eq!(
        lost[1],
        " no app named web is running (5s ago; asking again)"
    );
}

#[test]
fn a_position_without_a_worker_is_a_row() {
    let mut model = web();
    let Input::Status(mut vacant, _) = status([0, 0]) else {
        panic!("it is a status");
    };
    vacant.workers.truncate(1);
    vacant.vacancies = serde_json::from_value(json!([
        {"position": 1, "restarts": 7, "retry_in_ms": 12_300, "crash_loop": true},
    ]))
    .unwrap();
    model.take(Input::Status(vacant, None), 1_000);
    let picture = picture(&model, RICH, 80, 24);
    assert!(
        picture
            .iter()
            .any(|line| line.starts_with("    1 crashing")),
        "{picture:#?}"
    );
}

#[test]
fn what_workers_chose_steers_no_terminal() {
    let mut model = web();
    let worker = json!({"id": 1, "position": 0, "generation": 1, "pid": 1, "state": "ready\u{1b}[2J", "ready_at": 1,
                        "restarts": 0, "connections": 1, "says": "hello\u{1b}]0;owned\u{7}\u{202e}", "health_why": null});
    model.take(status_of(&json!([worker])), 1_000);
    let event =
        json!({"event": "x", "level": "info", "time": 1, "text": "a\u{1b}[31mb\nc\u{9b}0m"});
    model.take(Input::Event(event), 1_000);
    let drawn = terminal(&model, RICH, 120, 24);
    for cell in drawn.backend().buffer().content() {
        assert!(!cell.symbol().chars().any(char::is_control), "{cell:?}");
    }
    let text = picture(&model, RICH, 120, 24).join("\n");
    assert!(text.contains(r"a\u{1b}[31mb\nc\u{9b}0m"), "{text}");
    assert!(
        text.contains(r"says: hello\u{1b}]0;owned\u{7}\u{202e}"),
        "{text}"
    );
}

#[test]
fn dialogs_lie_over_the_picture() {
    for (key, expected) in [
        ('?', "replace all workers, losing no request"),
        ('r', "web: reload?"),
        ('p', "least-connections"),
    ] {
        let mut model = busy();
        type_in(&mut model, &[Key::Letter(key)]);
        for look in [RICH, POOR] {
            let text = picture(&model, look, 80, 24).join("\n");
            assert!(text.contains(expected), "{text}");
        }
    }
}

#[test]
fn a_question_is_whole_in_a_narrow_terminal() {
    let mut model = busy();
    type_in(&mut model, &[Key::Letter('c')]);
    let text = picture(&model, RICH, 40, 24).join("\n");
    assert!(text.contains("any other key: no"), "{text}");
    assert!(text.contains('?'), "{text}");
}
