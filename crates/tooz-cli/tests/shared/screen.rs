//! What is seen on a terminal of 80 by 24 after all that was written to it: enough of a terminal for what `tooz status` writes.

const WIDTH: usize = 80;
const HEIGHT: usize = 24;

pub(crate) struct Screen {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
}

impl Screen {
    /// The other screen, since it was last entered.
    pub(crate) fn of(written: &str) -> Self {
        let mut screen = Screen { cells: vec![vec![' '; WIDTH]; HEIGHT], row: 0, column: 0 };
        let mut rest = written.rsplit_once("\u{1b}[?1049h").map_or("", |(_, rest)| rest);
        while let Some(character) = rest.chars().next() {
            rest = if let Some(sequence) = rest.strip_prefix("\u{1b}[") {
                screen.obey(sequence)
            } else {
                screen.put(character);
                &rest[character.len_utf8()..]
            };
        }
        screen
    }

    /// Answers what follows the sequence; one that is not whole yet has nothing behind it.
    fn obey<'a>(&mut self, sequence: &'a str) -> &'a str {
        let Some(end) = sequence.find(|one: char| ('@'..='~').contains(&one)) else { return "" };
        match &sequence[end..=end] {
            "H" => {
                let (row, column) = sequence[..end].split_once(';').unwrap_or(("1", "1"));
                let number = |text: &str| text.parse::<usize>().unwrap_or(1).max(1) - 1;
                (self.row, self.column) = (number(row), number(column));
            }
            "J" => self.cells = vec![vec![' '; WIDTH]; HEIGHT],
            _ => {}
        }
        &sequence[end + 1..]
    }

    fn put(&mut self, character: char) {
        if let Some(cell) = self.cells.get_mut(self.row).and_then(|row| row.get_mut(self.column)) {
            *cell = character;
        }
        self.column += 1;
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect()
    }
}
