//! Colours and signs: what the terminal and its user want.

use std::env;

use ratatui::style::{Color, Modifier, Style};

/// What a piece of text is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Tone {
    Plain,
    Quiet,
    Title,
    Good,
    Busy,
    Warn,
    Bad,
    Chosen,
    Trend,
}

/// How the terminal shows things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(super) has_colours: bool,
    /// It shows signs beyond ASCII.
    pub(super) is_rich: bool,
}

impl Look {
    /// As the environment says: `NO_COLOR` (<https://no-color.org>), and the locale's character set (locale(7)).
    pub(crate) fn of_environment() -> Self {
        let value = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(value);
        let is_rich = locale.is_some_and(|locale| {
            let set = locale.to_ascii_lowercase();
            set.contains("utf-8") || set.contains("utf8")
        });
        Self {
            has_colours: value("NO_COLOR").is_none(),
            is_rich,
        }
    }

    /// How a piece of text is set off. Without colours nothing depends on more than bold, dim, underlined and reversed; and never on
    /// these alone.
    pub(super) fn style(self, tone: Tone) -> Style {
        let plain = Style::new();
        let (colour, modifier) = match tone {
            Tone::Plain => return plain,
            Tone::Quiet => return plain.add_modifier(Modifier::DIM),
            Tone::Title => return plain.add_modifier(Modifier::BOLD),
            Tone::Chosen => return plain.add_modifier(Modifier::REVERSED),
            Tone::Good => (Color::Green, Modifier::empty()),
            Tone::Trend => (Color::Cyan, Modifier::empty()),
            Tone::Busy => (Color::Blue, Modifier::BOLD),
            Tone::Warn => (Color::Yellow, Modifier::BOLD),
            Tone::Bad => (Color::Red, Modifier::BOLD),
        };
        let styled = plain.add_modifier(modifier);
        if self.has_colours {
            styled.fg(colour)
        } else {
            styled
        }
    }

    /// The steps of a trend, nothing first.
    pub(super) fn steps(self) -> &'static [char] {
        if self.is_rich {
            &[' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
        } else {
            &[' ', '.', ':', '-', '=', '+', '*', '#', '@']
        }
    }

    /// The done and the open part of a bar.
    pub(super) fn bar(self) -> (char, char) {
        if self.is_rich {
            ('█', '░')
        } else {
            ('#', '.')
        }
    }

    pub(super) fn rule(self) -> char {
        if self.is_rich { '─' } else { '-' }
    }

    pub(super) fn mark(self) -> char {
        if self.is_rich { '▸' } else { '>' }
    }

    pub(super) fn dots(self) -> &'static str {
        if self.is_rich { "…" } else { "..." }
    }

    pub(super) fn micro(self) -> &'static str {
        if self.is_rich { "µs" } else { "us" }
    }
}
