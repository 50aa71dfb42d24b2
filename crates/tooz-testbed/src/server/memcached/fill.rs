//! Filling memcached to the last byte, and making room again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;

use anyhow::{Result, bail};

use crate::server::backend::Plan;

/// How much memory it has meanwhile, in megabytes: the least that it lets be said. With more it would take long to fill it.
const LITTLE: usize = 8;

/// How much it has otherwise.
pub(super) const MUCH: usize = 64;

/// The lengths of what is put there, the longest first: each finds the room that was left between the longer ones.
const LENGTHS: [usize; 12] = [200_000, 60_000, 20_000, 8_000, 3_000, 1_500, 800, 450, 250, 120, 50, 1];

/// How many are sent at once.
const BATCH: usize = 100;

/// One connection, by lines of text.
struct Line(BufReader<TcpStream>);

impl Line {
    fn to(plan: &Plan) -> Result<Self> {
        Ok(Line(BufReader::new(TcpStream::connect(plan.listen)?)))
    }

    /// Says all that, and reads a line for each.
    fn say(&mut self, words: &[String]) -> Result<Vec<String>> {
        self.0.get_mut().write_all(words.concat().as_bytes())?;
        let mut answer = || {
            let mut line = String::new();
            self.0.read_line(&mut line)?;
            Ok(line.trim_end().to_owned())
        };
        words.iter().map(|_| answer()).collect()
    }

    fn limit(&mut self, megabytes: usize) -> Result<()> {
        let answer = self.say(&[format!("cache_memlimit {megabytes}\r\n")])?;
        if answer != ["OK"] {
            bail!("memcached answers to `cache_memlimit {megabytes}`: {}", answer.concat());
        }
        Ok(())
    }

    /// Says that of one number after another until an answer begins like this.
    fn until(&mut self, refusal: &str, words: impl Fn(usize) -> String) -> Result<()> {
        for first in (0..).step_by(BATCH) {
            let words: Vec<String> = (first..first + BATCH).map(&words).collect();
            if self.say(&words)?.iter().any(|answer| answer.starts_with(refusal)) {
                break;
            }
        }
        Ok(())
    }
}

/// Puts values there until none of any length finds room.
pub(super) fn fill(plan: &Plan) -> Result<()> {
    let mut line = Line::to(plan)?;
    line.limit(LITTLE)?;
    LENGTHS.iter().try_for_each(|length| {
        let value = "x".repeat(*length);
        line.until("SERVER_ERROR", |number| format!("set filler:{length}:{number} 0 0 {length}\r\n{value}\r\n"))
    })
}

/// Takes them away.
pub(super) fn make_room(plan: &Plan) -> Result<()> {
    let mut line = Line::to(plan)?;
    line.limit(MUCH)?;
    LENGTHS
        .iter()
        .try_for_each(|length| line.until("NOT_FOUND", |number| format!("delete filler:{length}:{number}\r\n")))
}
