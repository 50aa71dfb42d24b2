//! The live screen: when is looked, what is drawn, and what a key or a signal asks for.

use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use tokio::time::{Instant, sleep_until};
use tooz::Coordinator;

use super::changes::History;
use super::health::{Pulse, RoundTrip, round_trip};
use super::keys::{self, HELP};
use super::rounds::Rounds;
use super::snapshot::Snapshot;
use super::tables::{self, CHANGES, LineKind, TextLine};
use super::terminal::{Screen, ScreenTerminal, is_taken, keyboard};
use super::view::{View, Wish};
use crate::args::StatusArguments;
use crate::exit;
use crate::failure::CommandFailure;
use crate::run::{Signals, has_job_control, stop_job};
use crate::speech::{self, local};

/// It is drawn not more often than that without a reason.
const SHORTEST: Duration = Duration::from_millis(20);

/// How often the backend is asked for no more than an answer.
const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A lower screen has no room for changes beside the rest.
const SMALLEST: usize = 9;

/// How often ages are drawn anew, whatever else happens.
const REDRAW: Duration = Duration::from_millis(500);

/// Shows it until the user or a signal ends it.
pub(super) async fn run(
    coordinator: &Coordinator,
    arguments: &StatusArguments,
    pulse: &mut Pulse,
    signals: &mut Signals,
) -> Result<u8, CommandFailure> {
    let failed = |error: std::io::Error| CommandFailure::error(format!("the terminal: {error}"));
    let mut status = Status {
        coordinator,
        pulse,
        history: History::default(),
        snapshot: None,
        view: View { filter: arguments.filter.clone(), ..View::default() },
    };
    let mut screen = ScreenTerminal::take().map_err(failed)?;
    let mut keys = keyboard().map_err(failed)?;
    let mut next_draw = Instant::now();
    // Two questions beside each other: a look at everything may take long, and an outage is not to be told behind it.
    let (mut looks, mut probes) = (Rounds::every(arguments.every), Rounds::every(PROBE_EVERY));
    loop {
        if !status.view.is_paused {
            let coordinator = coordinator.clone();
            looks.begin_if_due(async move { Snapshot::take(&coordinator).await });
        }
        let asked = coordinator.clone();
        if probes.begin_if_due(async move { round_trip(&asked).await }) {
            status.pulse.ask();
        }
        if !is_taken() {
            // A panic that the library has contained gave the terminal back.
            drop(screen);
            screen = ScreenTerminal::take().map_err(failed)?;
        }
        status.draw(&mut screen.0).map_err(failed)?;
        let next_look = looks.due().filter(|_| !status.view.is_paused);
        let wake = [next_look, probes.due()].into_iter().flatten().fold(next_draw, Instant::min);
        let wish = tokio::select! {
            signal = signals.next() => match signal {
                Signal::SIGTSTP => Wish::Stop,
                Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT => return Ok(exit::by_signal(signal as i32)),
                _ => Wish::Nothing,
            },
            key = keys.recv() => match key {
                Some(key) => keys::press(&mut status.view, key),
                // The terminal was hung up.
                None => Wish::Quit,
            },
            snapshot = looks.end() => {
                status.note(snapshot);
                Wish::Nothing
            }
            round_trip = probes.end() => {
                status.note_round_trip(round_trip);
                Wish::Nothing
            }
            () = sleep_until(wake.max(Instant::now() + SHORTEST)) => {
                next_draw = Instant::now() + REDRAW;
                Wish::Nothing
            }
        };
        match wish {
            Wish::Nothing => {}
            Wish::Quit => return Ok(exit::SUCCESS),
            Wish::Session => status.pulse.toggle_session(coordinator).await,
            // Without a shell that goes on with it a stop would be for ever.
            Wish::Stop if !has_job_control() => {}
            Wish::Stop => {
                drop(screen);
                stop_job();
                screen = ScreenTerminal::take().map_err(failed)?;
            }
        }
    }
}

struct Status<'a> {
    coordinator: &'a Coordinator,
    pulse: &'a mut Pulse,
    history: History,
    snapshot: Option<Snapshot>,
    view: View,
}

impl Status<'_> {
    fn note(&mut self, snapshot: Snapshot) {
        self.history.note(&snapshot);
        self.snapshot = Some(snapshot);
    }

    /// That the backend answers no more, and that it does again, are changes too.
    fn note_round_trip(&mut self, round_trip: RoundTrip) {
        let before = self.pulse.is_in_trouble();
        self.pulse.note(round_trip);
        match (before, self.pulse.trouble()) {
            (false, Some((_, why))) if self.pulse.is_in_trouble() => {
                self.history.add(SystemTime::now(), format!("the backend does not answer: {why}"));
            }
            (true, None) => self.history.add(SystemTime::now(), "the backend answers again".to_owned()),
            _ => {}
        }
    }

    fn draw(&mut self, screen: &mut Screen) -> std::io::Result<()> {
        for said in speech::said_aside() {
            self.history.add(SystemTime::now(), said);
        }
        let lines = self.lines();
        screen.draw(|frame| self.paint(frame, &lines))?;
        Ok(())
    }

    fn lines(&self) -> Vec<TextLine> {
        if self.view.is_helping {
            let help = HELP.iter().map(|text| TextLine { text: (*text).to_owned(), kind: LineKind::Row });
            return help.collect();
        }
        match &self.snapshot {
            Some(snapshot) => tables::lines(&snapshot.seen_through(&self.view.filter), Some(&self.history)),
            None => vec![TextLine { text: " looking …".to_owned(), kind: LineKind::Note }],
        }
    }

    fn paint(&mut self, frame: &mut Frame<'_>, lines: &[TextLine]) {
        let area = frame.area();
        let changes_at = lines.iter().position(|line| line.kind == LineKind::Title && line.text == CHANGES);
        let pinned = pinned(&self.view, changes_at, lines.len(), usize::from(area.height.saturating_sub(3)));
        let pinned_height = u16::try_from(pinned).unwrap_or(0);
        let areas =
            [Constraint::Length(2), Constraint::Min(0), Constraint::Length(pinned_height), Constraint::Length(1)];
        let [head, body, changes, foot] = Layout::vertical(areas).areas(area);
        let health = self.pulse.health(self.coordinator).lines();
        frame.render_widget(Paragraph::new(health.map(Line::from).to_vec()), head);
        self.view.fit(lines.len(), usize::from(body.height));
        let show = |from: usize, height: u16| {
            let seen = lines.iter().skip(from).take(usize::from(height)).map(styled);
            Paragraph::new(seen.collect::<Vec<_>>()).scroll((0, self.view.left))
        };
        frame.render_widget(show(self.view.top, body.height), body);
        frame.render_widget(show(changes_at.unwrap_or_default(), changes.height), changes);
        let style = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(self.foot()).style(style), foot);
    }

    fn foot(&self) -> String {
        if self.view.is_typing {
            return format!(" filter: {}_", self.view.filter);
        }
        let paused = if self.view.is_paused { "PAUSED " } else { "" };
        let filter =
            if self.view.filter.is_empty() { String::new() } else { format!("filter {:?} ", self.view.filter) };
        let seen = self.snapshot.as_ref().map(|snapshot| local(snapshot.taken)).unwrap_or_default();
        let place = format!(
            "{}-{}/{}",
            self.view.top + 1,
            (self.view.top + self.view.height).min(self.view.lines),
            self.view.lines
        );
        format!(" {paused}{filter}{seen}  {place}  q quit  / filter  p pause  s session  h help")
    }
}

/// Colours are left away where the user wants none; what is bold says the same.
fn styled(line: &TextLine) -> Line<'static> {
    let has_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let colour = |colour| if has_colour { Style::new().fg(colour) } else { Style::new() };
    let style = match line.kind {
        LineKind::Title => colour(Color::Cyan).add_modifier(Modifier::BOLD),
        LineKind::Header => Style::new().add_modifier(Modifier::BOLD),
        LineKind::Row => Style::new(),
        LineKind::Note => colour(Color::Yellow),
    };
    Line::styled(line.text.clone(), style)
}

/// How many lines at the lower edge are kept for the latest changes: none where enough of them is seen anyway, or where there is no room.
fn pinned(view: &View, changes_at: Option<usize>, lines: usize, height: usize) -> usize {
    let Some(changes_at) = changes_at else { return 0 };
    let wanted = (lines - changes_at).min((height / 4).clamp(2, 10));
    let is_seen = changes_at + wanted <= view.top + height;
    if is_seen || height < SMALLEST { 0 } else { wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_changes_are_seen_whatever_is_above() {
        let view = |top| View { top, ..View::default() };
        // Thirty lines, then a title and nine changes, on a screen with room for 21.
        assert_eq!(pinned(&view(0), Some(30), 40, 21), 5);
        assert_eq!(pinned(&view(14), Some(30), 40, 21), 0);
        // At the end the view stays where it is when they are pinned no more.
        let mut end = view(40);
        end.fit(40, 21);
        assert_eq!((end.top, pinned(&end, Some(30), 40, 21)), (19, 0));
        assert_eq!(pinned(&view(0), Some(10), 20, 21), 0);
        assert_eq!(pinned(&view(0), Some(30), 31, 21), 1);
        assert_eq!((pinned(&view(0), Some(30), 40, 7), pinned(&view(0), None, 10, 21)), (0, 0));
    }
}
