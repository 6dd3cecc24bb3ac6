//! The keys that mean something.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// A key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Key {
    Letter(char),
    Up,
    Down,
    Enter,
    Escape,
    Interrupt,
}

impl Key {
    /// The key of an event of the terminal; nothing of others.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        let Event::Key(KeyEvent {
            code,
            modifiers,
            kind: KeyEventKind::Press | KeyEventKind::Repeat,
            ..
        }) = event
        else {
            return None;
        };
        let is_control = modifiers.contains(KeyModifiers::CONTROL);
        if let KeyCode::Char(letter) = code {
            return match (letter, is_control) {
                ('c', true) => Some(Self::Interrupt),
                (_, true) => None,
                (letter, false) => Some(Self::Letter(*letter)),
            };
        }
        let known = [
            (KeyCode::Up, Self::Up),
            (KeyCode::Down, Self::Down),
            (KeyCode::Enter, Self::Enter),
            (KeyCode::Esc, Self::Escape),
            (KeyCode::F(1), Self::Letter('?')),
        ];
        let key = known.into_iter().find(|(known, _)| known == code);
        key.map(|(_, key)| key)
    }
}
