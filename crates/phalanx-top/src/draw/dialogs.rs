//! What lies over the picture: the keys, a question, a choice.

use phalanx_control::names::Name;
use phalanx_core::policy::PolicyName;
use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::symbols::border;
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Padding};

use super::look::{Look, Tone};
use super::{count, put};
use crate::model::{Dialog, Model, POLICIES};

const KEYS: [&str; 12] = [
    "up, down    choose a worker (also k and j)",
    "r           reload: replace all workers, losing no request",
    "c           reload, and watch one new worker for a minute first",
    "b           roll back to the release before",
    "+  -        one worker more, one fewer",
    "x           replace the chosen worker: it finishes its work",
    "p           change the policy",
    "l           show each step in the log, or less",
    "a           choose another app",
    "?           these keys",
    "q, Esc      leave; the app goes on",
    "",
];

const ASCII: border::Set<'_> = border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

/// Draws the dialog, if there is one.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, look: Look) {
    let (title, lines, foot) = match &model.dialog {
        None => return,
        Some(Dialog::Help) => {
            let lines = KEYS.iter().map(|line| Line::raw(*line)).collect();
            (" keys ", lines, "any key: back")
        }
        Some(Dialog::Confirm(command)) => {
            let app = model.app.as_ref().map_or("", Name::as_str);
            let text = format!("{app}: {}?", command.text());
            let lines = vec![Line::styled(text, look.style(Tone::Title)), Line::default()];
            (" sure? ", lines, "y or Enter: yes    any other key: no")
        }
        Some(Dialog::Policy(at)) => {
            let names = POLICIES.iter().map(PolicyName::to_string);
            let foot = "Enter: from the next connection on    Esc: back";
            (" policy ", choices(names, *at, look), foot)
        }
        Some(Dialog::Apps(apps, at)) => {
            let names = apps.iter().map(ToString::to_string);
            (
                " apps ",
                choices(names, *at, look),
                "Enter: watch    Esc: back",
            )
        }
    };
    over(frame, title, lines, foot, look);
}

fn choices(names: impl Iterator<Item = String>, at: usize, look: Look) -> Vec<Line<'static>> {
    let line = |(index, name): (usize, String)| {
        if index == at {
            Line::styled(format!("{} {name} ", look.mark()), look.style(Tone::Chosen))
        } else {
            Line::raw(format!("  {name}"))
        }
    };
    let mut lines: Vec<_> = names.enumerate().map(line).collect();
    if lines.is_empty() {
        lines.push(Line::raw("no app is running"));
    }
    // The chosen one stays in sight.
    let lines_max = 12;
    lines.drain(..(at + 1).saturating_sub(lines_max));
    lines.truncate(lines_max);
    lines.push(Line::default());
    lines
}

fn over(
    frame: &mut Frame<'_>,
    title: &'static str,
    mut lines: Vec<Line<'static>>,
    foot: &'static str,
    look: Look,
) {
    lines.push(Line::styled(foot, look.style(Tone::Quiet)));
    let room = usize::from(frame.area().width.saturating_sub(6));
    let lines: Vec<_> = lines.iter().flat_map(|line| wrapped(line, room)).collect();
    let width = lines.iter().map(Line::width).max().unwrap_or(0);
    let (width, height) = (count(width + 6), count(lines.len() + 2));
    let area: Rect = frame
        .area()
        .centered(Constraint::Length(width), Constraint::Length(height));
    let block = Block::bordered()
        .border_set(if look.is_rich { border::ROUNDED } else { ASCII })
        .title(title)
        .padding(Padding::horizontal(2));
    let inner = block.inner(area);
    frame.render_widget(Clear, area);
    frame.render_widget(block, area);
    put(frame, inner, lines);
}

/// The line in as many as it needs, cut between words.
fn wrapped(line: &Line<'static>, room: usize) -> Vec<Line<'static>> {
    if line.width() <= room {
        return vec![line.clone()];
    }
    let mut texts = vec![String::new()];
    for word in line.to_string().split_whitespace() {
        match texts.last_mut() {
            Some(last) if last.is_empty() => last.push_str(word),
            Some(last) if last.chars().count() + 1 + word.chars().count() <= room => {
                last.push(' ');
                last.push_str(word);
            }
            Some(_) | None => texts.push(word.to_owned()),
        }
    }
    let style = line
        .spans
        .first()
        .map_or(line.style, |span| line.style.patch(span.style));
    texts
        .into_iter()
        .map(|text| Line::styled(text, style))
        .collect()
}
