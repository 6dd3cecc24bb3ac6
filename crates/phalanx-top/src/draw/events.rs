//! The last events, the newest at the bottom.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::look::{Look, Tone};
use super::{put, text};
use crate::model::Model;

/// Draws the log under a rule.
pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, model: &Model, look: Look) {
    let width = usize::from(area.width);
    let title = " events (UTC) ";
    let rule: String =
        std::iter::repeat_n(look.rule(), width.saturating_sub(title.len() + 2)).collect();
    let begin: String = std::iter::repeat_n(look.rule(), 2).collect();
    let head = Line::styled(format!("{begin}{title}{rule}"), look.style(Tone::Quiet));
    let room = usize::from(area.height.saturating_sub(1));
    let mut lines: Vec<_> = model
        .log
        .newest()
        .take(room)
        .map(|line| event(line, look))
        .collect();
    lines.push(head);
    lines.reverse();
    put(frame, area, lines);
}

fn event(line: &crate::model::Line, look: Look) -> Line<'static> {
    let (tone, sign) = match line.rank {
        0 => (Tone::Bad, '!'),
        1 => (Tone::Warn, '*'),
        2 => (Tone::Plain, ' '),
        _ => (Tone::Quiet, ' '),
    };
    Line::from_iter([
        Span::styled(
            format!(" {} ", text::clock(line.time)),
            look.style(Tone::Quiet),
        ),
        Span::styled(format!("{sign} {}", line.text), look.style(tone)),
    ])
}
