//! What of it is looked at: how far down, through which filter, and whether it stands still.

/// How the screen is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// The first line that is seen.
    pub(super) top: usize,
    /// The first column.
    pub(super) left: u16,
    pub(super) filter: String,
    /// Whether what is typed goes into the filter.
    pub(super) is_typing: bool,
    pub(super) is_paused: bool,
    pub(super) is_helping: bool,
    /// How many lines there are, and how many are seen.
    pub(super) lines: usize,
    pub(super) height: usize,
}

/// What a key asks for beyond the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    Quit,
    /// Ctrl-Z.
    Stop,
    /// A session, or none any more.
    Session,
}

/// How far a key scrolls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scroll {
    Up,
    Down,
    PageUp,
    PageDown,
    Begin,
    End,
    Left,
    Right,
}

/// So many columns are scrolled by at once.
const COLUMNS: u16 = 8;

/// No line is longer.
const LONGEST: u16 = 2_000;

impl View {
    pub(super) fn scroll(&mut self, how: Scroll) {
        let page = self.height.max(1);
        match how {
            Scroll::Up => self.top = self.top.saturating_sub(1),
            Scroll::Down => self.top += 1,
            Scroll::PageUp => self.top = self.top.saturating_sub(page),
            Scroll::PageDown => self.top += page,
            Scroll::Begin => self.top = 0,
            Scroll::End => self.top = usize::MAX,
            Scroll::Left => self.left = self.left.saturating_sub(COLUMNS),
            Scroll::Right => self.left = (self.left + COLUMNS).min(LONGEST),
        }
        self.stay_within();
    }

    /// After the number of lines has changed.
    pub(super) fn fit(&mut self, lines: usize, height: usize) {
        (self.lines, self.height) = (lines, height);
        self.stay_within();
    }

    fn stay_within(&mut self) {
        self.top = self.top.min(self.lines.saturating_sub(self.height));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scrolling_ends_at_both_ends() {
        let mut view = View::default();
        view.fit(100, 20);
        view.scroll(Scroll::Up);
        assert_eq!(view.top, 0);
        view.scroll(Scroll::PageDown);
        assert_eq!(view.top, 20);
        view.scroll(Scroll::End);
        assert_eq!(view.top, 80);
        view.scroll(Scroll::Down);
        assert_eq!(view.top, 80);
        view.fit(30, 20);
        assert_eq!(view.top, 10);
        view.fit(5, 20);
        assert_eq!(view.top, 0);
        view.scroll(Scroll::Right);
        assert_eq!(view.left, COLUMNS);
        view.scroll(Scroll::Left);
        view.scroll(Scroll::Left);
        assert_eq!(view.left, 0);
    }
}
