//! A connection of the client library as this driver talks on it: some statements in one packet, and their answers.
//!
//! All statements go as text, so that several of them are one round trip and nothing has to be prepared on each new connection. What comes
//! from users is written in hexadecimal digits ([`bytes`], [`text`]): no text of theirs ever stands in a statement.

use std::fmt::Write as _;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_core::Stream as _;
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{AssertSqlSafe, Connection as _, Either, Executor as _};

use crate::answer::ResultSets;
use crate::error;

/// What a packet has besides its statements, with room to spare.
const HEAD: usize = 64;
/// How often a statement that others interrupt is asked again, and for how long.
const INSISTENCE: u64 = 100;
const INSISTS_FOR: Duration = Duration::from_secs(1);
/// How long a connection that ends in good order takes for that.
const FAREWELL: Duration = Duration::from_millis(100);

/// A connection to which packets of statements are sent, and whether it is known to have ended.
pub(crate) struct Packets {
    connection: MySqlConnection,
    pub(crate) is_dead: bool,
    /// The longest packet that the server takes: for a longer one it ends the connection.
    pub(crate) longest: usize,
}

/// The answer to what was asked until it was answered.
pub(crate) struct Insisted {
    pub(crate) answer: ResultSets,
    /// It was interrupted before: it may have been done already, in part or as a whole.
    pub(crate) was_interrupted: bool,
}

impl Packets {
    pub(crate) fn new(connection: MySqlConnection) -> Self {
        Packets { connection, is_dead: false, longest: usize::MAX }
    }

    /// Sends these statements in one packet and reads all answers. After an error of one the server does none of those behind it.
    pub(crate) async fn ask(&mut self, statements: &str) -> Result<ResultSets, sqlx::Error> {
        if statements.len().saturating_add(HEAD) > self.longest {
            return Err(error::too_long(statements.len(), self.longest));
        }
        let asked = ask(&mut self.connection, statements).await;
        if let Err(error) = &asked {
            self.is_dead |= error::is_dead(error);
        }
        asked
    }

    /// Asks, and asks again as long as the statement is interrupted (`KILL QUERY`): for what gives back, which must not end half done, and may be done twice.
    pub(crate) async fn insist(&mut self, statements: &str) -> Result<Insisted, sqlx::Error> {
        let (begun, mut count) = (Instant::now(), 0);
        loop {
            match self.ask(statements).await {
                Ok(answer) => return Ok(Insisted { answer, was_interrupted: count > 0 }),
                Err(error) if error::is_cancelled(&error) && count < INSISTENCE && begun.elapsed() < INSISTS_FOR => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(Duration::from_millis(count.min(10))).await;
            count += 1;
        }
    }

    /// How many pieces of that length one packet has room for beside what else it has: `most` at most, and one at least.
    pub(crate) fn fits(&self, each: usize, most: usize) -> usize {
        fits(self.longest, each, most)
    }

    /// Ends the connection with a word, so that the server does not write of it as cut off. One that does not take the word soon is cut off.
    pub(crate) async fn farewell(self) {
        let _ = tokio::time::timeout(FAREWELL, self.connection.close()).await;
    }

    /// Sends a transaction in one packet and reads all answers: what a failure leaves of it is taken back.
    pub(crate) async fn transact(&mut self, statements: &str) -> Result<ResultSets, sqlx::Error> {
        let done = self.ask(statements).await;
        if done.is_err() && !self.is_dead && self.ask("ROLLBACK").await.is_err() {
            // It is not known any more in what state it is.
            self.is_dead = true;
        }
        done
    }
}

fn fits(longest: usize, each: usize, most: usize) -> usize {
    // Half of the packet is for what else it has.
    (longest / 2 / each.max(1)).clamp(1, most)
}

async fn ask(connection: &mut MySqlConnection, statements: &str) -> Result<ResultSets, sqlx::Error> {
    let mut stream = connection.fetch_many(sqlx::raw_sql(AssertSqlSafe(statements.to_owned())));
    let (mut answers, mut rows): (Vec<Vec<MySqlRow>>, Vec<MySqlRow>) = (Vec::new(), Vec::new());
    while let Some(piece) = std::future::poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await {
        match piece? {
            Either::Right(row) => rows.push(row),
            Either::Left(_) => answers.push(std::mem::take(&mut rows)),
        }
    }
    Ok(ResultSets::new(answers))
}

/// Bytes as they stand in a statement.
pub(crate) fn bytes(bytes: &[u8]) -> String {
    let mut literal = String::with_capacity(bytes.len() * 2 + 3);
    literal.push_str("X'");
    for byte in bytes {
        let _ = write!(literal, "{byte:02x}");
    }
    literal.push('\'');
    literal
}

/// A name as it stands in a statement: the bytes of its UTF-8.
pub(crate) fn name(name: &str) -> String {
    bytes(name.as_bytes())
}

/// A text of any characters as it stands in a statement.
pub(crate) fn text(text: &str) -> String {
    format!("CONVERT({} USING utf8mb4)", bytes(text.as_bytes()))
}

/// What a statement is about, as a comment for those who look at what the server is doing: nothing that could end the comment, or begin another.
pub(crate) fn about(what: &str, name: &str) -> String {
    const LONGEST: usize = 40;
    let plain = |one: char| if one.is_ascii_alphanumeric() || "-_.".contains(one) { one } else { '?' };
    format!("/* {what} {} */ ", name.chars().take(LONGEST).map(plain).collect::<String>())
}

/// Whole seconds for the server, rounded up: it rounds fractions as it likes, and takes what is below zero for "for ever".
pub(crate) fn seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_user_stands_in_a_statement() {
        assert_eq!(name("a'; --"), "X'61273b202d2d'");
        assert_eq!(text("ä"), "CONVERT(X'c3a4' USING utf8mb4)");
        assert_eq!(bytes(&[]), "X''");
    }

    #[test]
    fn a_packet_has_as_many_pieces_as_the_server_takes_and_one_at_least() {
        for (longest, each, most, count) in [
            (1 << 24, 2000, 200, 200),
            (1 << 16, 2000, 200, 16),
            (1 << 16, 100, 200, 200),
            (1024, 2000, 200, 1),
            (0, 0, 9, 1),
        ] {
            assert_eq!(fits(longest, each, most), count, "{longest} {each}");
            assert!(count == 1 || count * each <= longest / 2);
        }
    }

    #[test]
    fn no_name_ends_a_comment() {
        assert_eq!(about("lock", "a-1.b_c"), "/* lock a-1.b_c */ ");
        assert_eq!(about("lock", "x*/ DROP/*!ü"), "/* lock x???DROP???? */ ");
        assert_eq!(about("lock", &"x".repeat(255)).len(), "/* lock  */ ".len() + 40);
    }

    #[test]
    fn what_the_server_waits_is_at_least_a_second_and_whole() {
        for (millis, whole) in [(0, 1), (1, 1), (600, 1), (1000, 1), (1001, 2), (60_000, 60)] {
            assert_eq!(seconds(Duration::from_millis(millis)), whole);
        }
    }
}
