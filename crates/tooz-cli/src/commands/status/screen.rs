//! The live screen: when is looked, what is drawn, and what a key or a signal asks for.

use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, sleep_until};
use tooz::Coordinator;

use super::changes::History;
use super::health::{Pulse, RoundTrip, round_trip};
use super::keys::{self, HELP};
use super::snapshot::Snapshot;
use super::tables::{self, LineKind, TextLine};
use super::terminal::{Screen, ScreenTerminal, keyboard};
use super::view::{View, Wish};
use crate::args::StatusArguments;
use crate::exit;
use crate::failure::CommandFailure;
use crate::run::{Signals, has_job_control, stop_job};
use crate::speech::{self, local};

/// It is drawn not more often than that without a reason.
const SHORTEST: Duration = Duration::from_millis(20);

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
        notice: String::new(),
    };
    let mut screen = ScreenTerminal::take().map_err(failed)?;
    let mut keys = keyboard().map_err(failed)?;
    let (mut next_look, mut next_draw) = (Instant::now(), Instant::now());
    let mut looking = None;
    loop {
        if looking.is_none() && !status.view.is_paused && Instant::now() >= next_look {
            let coordinator = coordinator.clone();
            looking = Some(tokio::spawn(async move {
                let snapshot = Snapshot::take(&coordinator).await;
                (snapshot, round_trip(&coordinator).await)
            }));
        }
        status.draw(&mut screen.0).map_err(failed)?;
        let is_due = looking.is_none() && !status.view.is_paused;
        let wake = if is_due { next_look.min(next_draw) } else { next_draw };
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
            taken = finished(&mut looking), if looking.is_some() => {
                looking = None;
                next_look = Instant::now() + arguments.every;
                if let Ok((snapshot, round_trip)) = taken {
                    status.note(snapshot, round_trip);
                }
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
            Wish::Session => status.toggle_session().await,
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

/// What a task answers; never, where there is none.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

struct Status<'a> {
    coordinator: &'a Coordinator,
    pulse: &'a mut Pulse,
    history: History,
    snapshot: Option<Snapshot>,
    view: View,
    /// Something for the last line, until the next key.
    notice: String,
}

impl Status<'_> {
    fn note(&mut self, snapshot: Snapshot, round_trip: RoundTrip) {
        self.pulse.note(round_trip);
        self.history.note(&snapshot);
        self.snapshot = Some(snapshot);
    }

    async fn toggle_session(&mut self) {
        self.notice.clear();
        if self.pulse.has_session() {
            self.pulse.close_session().await;
        } else if let Err(failure) = self.pulse.open_session(self.coordinator).await {
            self.notice = failure.into_message();
        }
    }

    fn draw(&mut self, screen: &mut Screen) -> std::io::Result<()> {
        for said in speech::said_aside() {
            self.history.add(SystemTime::now(), said);
        }
        let lines = self.lines();
        screen.draw(|frame| self.paint(frame, lines))?;
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

    fn paint(&mut self, frame: &mut Frame<'_>, lines: Vec<TextLine>) {
        let areas = Layout::vertical([Constraint::Length(2), Constraint::Min(0), Constraint::Length(1)]);
        let [head, body, foot] = areas.areas(frame.area());
        let health = self.pulse.health(self.coordinator).lines();
        frame.render_widget(Paragraph::new(health.map(Line::from).to_vec()), head);
        self.view.fit(lines.len(), usize::from(body.height));
        let seen = lines.into_iter().skip(self.view.top).take(usize::from(body.height));
        let seen = Paragraph::new(seen.map(styled).collect::<Vec<_>>()).scroll((0, self.view.left));
        frame.render_widget(seen, body);
        let style = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(self.foot()).style(style), foot);
    }

    fn foot(&self) -> String {
        if self.view.is_typing {
            return format!(" filter: {}_", self.view.filter);
        }
        if !self.notice.is_empty() {
            return format!(" {}", self.notice);
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
fn styled(line: TextLine) -> Line<'static> {
    let has_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let colour = |colour| if has_colour { Style::new().fg(colour) } else { Style::new() };
    let style = match line.kind {
        LineKind::Title => colour(Color::Cyan).add_modifier(Modifier::BOLD),
        LineKind::Header => Style::new().add_modifier(Modifier::BOLD),
        LineKind::Row => Style::new(),
        LineKind::Note => colour(Color::Yellow),
    };
    Line::styled(line.text, style)
}
