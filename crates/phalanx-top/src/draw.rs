//! How what is known looks. Pure: the same model gives the same frame.

mod dialogs;
mod events;
mod head;
mod look;
mod text;
mod workers;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::text::{Line, Span};

pub(crate) use look::Look;

use crate::model::Model;
use look::Tone;

/// Lines that the log has at least, while there is room.
const LOG_LINES: u16 = 4;
/// How long what came of a command is shown.
const NOTICE_MS: u64 = 8_000;

/// Draws everything.
pub(crate) fn draw(frame: &mut Frame<'_>, model: &Model, look: Look) {
    let head = head::lines(model, look, frame.area().width);
    let chosen = workers::chosen_lines(model, look);
    let heights = Heights::of(
        frame.area().height,
        count(head.len()),
        workers::row_count(model),
        count(chosen.len()),
    );
    let [head_area, table, chosen_area, log, foot] = Layout::vertical([
        Constraint::Length(heights.head),
        Constraint::Length(heights.table),
        Constraint::Length(heights.chosen),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    put(frame, head_area, head);
    workers::draw(frame, table, model, look);
    put(frame, chosen_area, chosen);
    events::draw(frame, log, model, look);
    put(frame, foot, vec![foot_line(model, look)]);
    dialogs::draw(frame, model, look);
}

/// Puts lines into an area, as many as it holds.
fn put(frame: &mut Frame<'_>, area: Rect, lines: Vec<Line<'_>>) {
    for (line, row) in lines.into_iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

/// How high the parts are.
struct Heights {
    head: u16,
    table: u16,
    chosen: u16,
}

impl Heights {
    fn of(all: u16, head: u16, rows: u16, chosen: u16) -> Self {
        // Its heads, and a line of air before it.
        let wanted = rows.saturating_add(2);
        let left = all.saturating_sub(head + chosen + 1);
        let log = (LOG_LINES + 1).min(left / 2);
        Self {
            head,
            table: wanted.min(left.saturating_sub(log)),
            chosen,
        }
    }
}

/// What a command came to, or the keys.
fn foot_line(model: &Model, look: Look) -> Line<'static> {
    let notice = model.notice.as_ref();
    let fresh = notice.filter(|one| model.now.saturating_sub(one.at) < NOTICE_MS);
    if let Some(command) = model.under_way.last() {
        let text = format!(" {} {}", command.text(), look.dots());
        return Line::styled(text, look.style(Tone::Busy));
    }
    if let Some(notice) = fresh {
        let tone = if notice.is_fault {
            Tone::Bad
        } else {
            Tone::Good
        };
        return Line::styled(format!(" {}", notice.text), look.style(tone));
    }
    let keys = [
        ("r", "reload"),
        ("b", "roll back"),
        ("+-", "scale"),
        ("x", "replace"),
        ("p", "policy"),
        ("a", "apps"),
        ("?", "keys"),
        ("q", "quit"),
    ];
    let spans = keys.into_iter().flat_map(|(key, does)| {
        [
            Span::styled(format!(" {key}"), look.style(Tone::Title)),
            Span::styled(format!(" {does} "), look.style(Tone::Quiet)),
        ]
    });
    spans.collect()
}

fn count(lines: usize) -> u16 {
    u16::try_from(lines).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
