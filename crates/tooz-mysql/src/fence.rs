//! Fencing tokens: the server's own counter `UUID_SHORT()`, from which nothing is written, less what the first session since the server
//! started has written down.
//!
//! The counter begins at each start of the server with the seconds since 1970, times 2^24, so it may repeat values where it is started twice in a
//! second, and another server has another one. So the first session that finds no other one alive moves the tokens above all that were
//! reserved before. What is subtracted stands in one row, and is read with each token: so all sessions count alike, also when a row of the living was lost and
//! a newcomer took itself for the first. A row that was lost is written once more by those that live.

use std::sync::atomic::{AtomicI64, Ordering};

use sqlx::mysql::MySqlRow;
use tooz_core::{Error, ErrorKind, FencingToken, Result};

use crate::answer::{number, unsigned};
use crate::error;
use crate::layout::Layout;
use crate::packet::Packets;

/// The part of the counter that counts; above it is the number of the server.
pub(crate) const MASK: u64 = (1 << 56) - 1;
/// How many tokens are reserved at a time. What is reserved is written before it is used. It is as many as there are microseconds in a second, so
/// that each restart moves the tokens ahead of the time by a second at most: where what was written is lost, the time alone is above them.
pub(crate) const RESERVED: i64 = 1 << 20;
/// With so many left, more are reserved.
const FEW: i64 = 1 << 19;
/// The greatest number that every program reads as it is.
const GREATEST: i64 = 1 << 53;

const DOING: &str = "take a fencing token";

/// How tokens are made of the server's counter.
pub(crate) struct Fence {
    /// What is subtracted, as it was last read.
    sub: AtomicI64,
}

/// The statement that asks for a token.
pub(crate) fn counted(layout: &Layout) -> String {
    format!("SELECT UUID_SHORT(), sub, reserved FROM {} WHERE one = 1", layout.table("fence"))
}

/// Which column of [`counted_behind`] has what was looked for.
pub(crate) const FOUND: usize = 3;

/// The same behind a look: first the rows with what was found, `found` of each, and then the row with the token, which is counted once all of them were read.
pub(crate) fn counted_behind(layout: &Layout, found: &str) -> String {
    format!(
        "SELECT NULL, NULL, NULL, {found} UNION ALL SELECT UUID_SHORT(), sub, reserved, NULL FROM {} WHERE one = 1",
        layout.table("fence")
    )
}

impl Fence {
    pub(crate) fn new(sub: i64) -> Self {
        Fence { sub: AtomicI64::new(sub) }
    }

    /// The token in a row of the answer to [`counted`]; `None`: the row has to be mended before.
    pub(crate) fn token(&self, row: Option<&MySqlRow>) -> Result<Option<FencingToken>> {
        let failed = |error| error::on_session(error, DOING);
        let Some(row) = row else { return Ok(None) };
        let counter = unsigned(row, 0).map_err(failed)?.unwrap_or_default();
        let sub = number(row, 1).map_err(failed)?.unwrap_or_default();
        let reserved = number(row, 2).map_err(failed)?.unwrap_or_default();
        if reserved <= 0 {
            // A row in which nothing was written yet.
            return Ok(None);
        }
        self.sub.store(sub, Ordering::Release);
        let token = token(counter, sub)?;
        Ok(is_reserved(token, reserved).then_some(token))
    }
}

fn token(counter: u64, sub: i64) -> Result<FencingToken> {
    let token = (counter & MASK).cast_signed().saturating_sub(sub);
    if token <= 0 || token >= GREATEST {
        let word = format!("the server's counter makes the fencing token {token}: was its clock set back?");
        return Err(Error::new(ErrorKind::Backend, word));
    }
    Ok(FencingToken(token.cast_unsigned()))
}

/// Whether that token may be used before more are reserved.
fn is_reserved(token: FencingToken, reserved: i64) -> bool {
    token.0.cast_signed() <= reserved.saturating_sub(FEW)
}

/// Reserves more tokens, or writes the row once more where it was lost: all that live have subtracted the same, and none has had a greater token than the
/// counter makes now. Answers the next token.
pub(crate) async fn mend(packets: &mut Packets, layout: &Layout, fence: &Fence) -> Result<FencingToken> {
    let (table, sub) = (layout.table("fence"), fence.sub.load(Ordering::Acquire));
    let statements = format!(
        "SET @tooz_counter = CAST(UUID_SHORT() & {MASK} AS SIGNED); \
         INSERT INTO {table} (one, sub, reserved) VALUES (1, {sub}, @tooz_counter - {sub} + {RESERVED}) \
             ON DUPLICATE KEY UPDATE sub = IF(reserved > 0, sub, {sub}), reserved = GREATEST(reserved, @tooz_counter - sub + {RESERVED}); {counted}",
        counted = counted(layout)
    );
    let answer = packets.ask(&statements).await.map_err(|error| error::on_session(error, DOING))?;
    let gone =
        || Error::new(ErrorKind::Backend, format!("{DOING}: the row of tooz_fence was written, and is not there"));
    fence.token(answer.rows(2).first())?.ok_or_else(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_counter_without_the_server_and_what_was_before() {
        let sub = 30_000_000_000_000_000;
        let counter = (7 << 56) + 30_000_000_000_000_123;
        assert_eq!(token(counter, sub).unwrap(), FencingToken(123));
        assert!(token(29_000_000_000_000_000, sub).is_err() && token(MASK, sub).is_err());
    }

    #[test]
    fn more_is_reserved_before_it_is_used() {
        assert!(is_reserved(FencingToken(1), RESERVED));
        let late = FencingToken((RESERVED - FEW + 1).cast_unsigned());
        assert!(!is_reserved(late, RESERVED) && is_reserved(late, late.0.cast_signed() + RESERVED));
        assert!(!is_reserved(FencingToken(1), i64::MIN));
    }
}
