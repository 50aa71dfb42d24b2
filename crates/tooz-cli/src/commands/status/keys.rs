//! The keys, and what each does.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::view::{Scroll, View, Wish};

/// For the screen that helps.
pub(super) const HELP: [&str; 10] = [
    " up, down, k, j           scroll by a line",
    " page up, page down       scroll by a page",
    " left, right              to what is beyond the edge",
    " home, end, g, G          to the beginning, to the end",
    " /                        filter names; enter ends the typing, esc clears it",
    " p, space                 pause, and go on",
    " s                        open a session, to see its heartbeats, and close it",
    " h, ?                     this page, and back",
    " q, ctrl-c                quit",
    " ctrl-z                   stop; fg goes on",
];

/// Lets a key change the view; answers what else it asks for.
pub(super) fn press(view: &mut View, key: KeyEvent) -> Wish {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Wish::Quit,
            KeyCode::Char('z') => Wish::Stop,
            _ => Wish::Nothing,
        };
    }
    if view.is_typing {
        type_into_filter(view, key.code);
        return Wish::Nothing;
    }
    match key.code {
        KeyCode::Char('q') => return Wish::Quit,
        KeyCode::Char('s') => return Wish::Session,
        KeyCode::Char('p' | ' ') => view.is_paused = !view.is_paused,
        KeyCode::Char('h' | '?') => view.is_helping = !view.is_helping,
        KeyCode::Char('/') => view.is_typing = true,
        KeyCode::Esc => {
            view.filter.clear();
            view.is_helping = false;
        }
        KeyCode::Up | KeyCode::Char('k') => view.scroll(Scroll::Up),
        KeyCode::Down | KeyCode::Char('j') => view.scroll(Scroll::Down),
        KeyCode::Left => view.scroll(Scroll::Left),
        KeyCode::Right => view.scroll(Scroll::Right),
        KeyCode::PageUp => view.scroll(Scroll::PageUp),
        KeyCode::PageDown => view.scroll(Scroll::PageDown),
        KeyCode::Home | KeyCode::Char('g') => view.scroll(Scroll::Begin),
        KeyCode::End | KeyCode::Char('G') => view.scroll(Scroll::End),
        _ => {}
    }
    Wish::Nothing
}

fn type_into_filter(view: &mut View, key: KeyCode) {
    match key {
        KeyCode::Enter => view.is_typing = false,
        KeyCode::Esc => {
            view.filter.clear();
            view.is_typing = false;
        }
        KeyCode::Backspace => drop(view.filter.pop()),
        KeyCode::Char(character) => view.filter.push(character),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(view: &mut View, keys: &str) -> Vec<Wish> {
        let key = |character| KeyEvent::new(KeyCode::Char(character), KeyModifiers::NONE);
        keys.chars().map(|character| press(view, key(character))).collect()
    }

    #[test]
    fn a_filter_is_typed_and_cleared() {
        let mut view = View::default();
        assert!(typed(&mut view, "/qps").iter().all(|wish| *wish == Wish::Nothing));
        press(&mut view, KeyEvent::from(KeyCode::Backspace));
        press(&mut view, KeyEvent::from(KeyCode::Enter));
        assert_eq!((view.filter.as_str(), view.is_typing), ("qp", false));
        press(&mut view, KeyEvent::from(KeyCode::Esc));
        assert_eq!(view, View::default());
    }

    #[test]
    fn keys_pause_help_and_quit() {
        let mut view = View::default();
        assert_eq!(typed(&mut view, "phsq"), [Wish::Nothing, Wish::Nothing, Wish::Session, Wish::Quit]);
        assert!(view.is_paused && view.is_helping);
        let ctrl = |character| KeyEvent::new(KeyCode::Char(character), KeyModifiers::CONTROL);
        assert_eq!(press(&mut view, ctrl('c')), Wish::Quit);
        assert_eq!(press(&mut view, ctrl('z')), Wish::Stop);
    }
}
