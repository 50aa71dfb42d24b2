//! Fencing tokens: the server's own counter `UUID_SHORT()`, from which nothing is written, less what the first session since the server
//! started has written down.
//!
//! The counter begins at each start of the server with the seconds since 1970, times 2^24, so it may repeat values where it is started twice in a
//! second, and another server has another one. So the first session that finds no other one alive moves the tokens above all that were
//! reserved before. As long as any session lives that is not done, since a session takes its tokens by what it read when it opened.

use std::sync::atomic::{AtomicI64, Ordering};

use tooz_core::{Error, ErrorKind, FencingToken, Result};

/// The part of the counter that counts; above it is the number of the server.
pub(crate) const MASK: u64 = (1 << 56) - 1;
/// How many tokens are reserved at a time. What is reserved is written before it is used. It is as many as there are microseconds in a second, so
/// that each restart moves the tokens ahead of the time by a second at most: where what was written is lost, the time alone is above them.
pub(crate) const RESERVED: i64 = 1 << 20;
/// With so many left, more are reserved.
const FEW: i64 = 1 << 19;
/// The greatest number that every program reads as it is.
const GREATEST: i64 = 1 << 53;

/// How a session makes tokens of the server's counter.
pub(crate) struct Fence {
    sub: i64,
    reserved: AtomicI64,
}

impl Fence {
    pub(crate) fn new(sub: i64, reserved: i64) -> Self {
        Fence { sub, reserved: AtomicI64::new(reserved) }
    }

    /// The token that a value of the counter stands for.
    pub(crate) fn token(&self, counter: u64) -> Result<FencingToken> {
        let token = (counter & MASK).cast_signed() - self.sub;
        if token <= 0 || token >= GREATEST {
            let word = format!("the server's counter makes the fencing token {token}: was its clock set back?");
            return Err(Error::new(ErrorKind::Backend, word));
        }
        Ok(FencingToken(token.cast_unsigned()))
    }

    /// Up to where tokens have to be reserved before this one may be used; `None`: they are.
    pub(crate) fn wants(&self, token: FencingToken) -> Option<i64> {
        let token = token.0.cast_signed();
        (token > self.reserved.load(Ordering::Acquire) - FEW).then_some(token + RESERVED)
    }

    pub(crate) fn note_reserved(&self, until: i64) {
        self.reserved.fetch_max(until, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_the_counter_without_the_server_and_what_was_before() {
        let fence = Fence::new(30_000_000_000_000_000, 0);
        let counter = (7 << 56) + 30_000_000_000_000_123;
        assert_eq!(fence.token(counter).unwrap(), FencingToken(123));
        assert!(fence.token(29_000_000_000_000_000).is_err() && fence.token(MASK).is_err());
    }

    #[test]
    fn more_is_reserved_before_it_is_used() {
        let fence = Fence::new(0, RESERVED);
        assert_eq!(fence.wants(FencingToken(1)), None);
        let late = FencingToken((RESERVED - FEW + 1).cast_unsigned());
        let until = fence.wants(late).unwrap();
        fence.note_reserved(until);
        assert_eq!(fence.wants(late), None);
        fence.note_reserved(5);
        assert_eq!(fence.wants(late), None);
    }
}
