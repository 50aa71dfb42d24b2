//! What a connection is used for besides its owner's requests: looking for the dead, going on with what scripts have left over, and looking
//! after more than fits into the heartbeats.

use std::sync::Arc;
use std::time::Duration;

use fred::types::Value;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tooz_core::driver::Pushed;
use tooz_core::{ErrorKind, Result};

use crate::connection::Shared;
use crate::error::strange;
use crate::holdings::LookedAfter;
use crate::link::{Link, number};
use crate::reply::{Reply, request_id};
use crate::script::Script;

/// A session that is due is looked for so much later, and up to as much again: the server's clock ticks in milliseconds, and not
/// all who are curious should look at once.
const TACT: Duration = Duration::from_millis(20);

impl Shared {
    /// Goes on for as long as it is let.
    pub(crate) async fn tend(&self, link: &Arc<Link>) {
        let mut look = self.look.subscribe();
        let mut turn = interval(self.timeout / 3);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = *look.borrow_and_update() + TACT.mul_f64(1.0 + fastrand::f64());
            tokio::select! {
                biased;
                Ok(()) = look.changed() => {}
                () = self.left_over.notified() => self.sweep_up(link).await,
                () = self.behind.notified(), if self.is_open() => {
                    let _ = self.look_after(link, Vec::new()).await;
                }
                () = sleep_until(due), if self.feed.is_curious() => self.sweep_up(link).await,
                _ = turn.tick() => {
                    self.unsubscribe_the_gone(link).await;
                    if self.is_open() {
                        let _ = self.look_after_the_rest(link).await;
                    }
                }
            }
        }
    }

    async fn sweep_up(&self, link: &Link) {
        let next = match self.run_on(link, Script::SweepUp, Vec::new()).await {
            Ok(reply) => {
                match reply.texts(1).unwrap_or_default().first().map(String::as_str) {
                    Some("more") => self.left_over.notify_one(),
                    // Whoever may only look reads anew who is left.
                    Some("stirred") => self.feed.push_to_all(&Pushed::Dirty),
                    _ => {}
                }
                reply.number(0).unwrap_or(-1)
            }
            // Who is not let is not let the next time either.
            Err(error) if matches!(error.kind(), ErrorKind::Unauthorized | ErrorKind::Config) => -1,
            Err(_) => 100,
        };
        self.look_in(next);
    }

    /// Each wait has its turn within a session timeout: the beats take a few, and here the rest is asked for, a part at a time.
    async fn look_after_the_rest(&self, link: &Link) -> Result<()> {
        for few in self.feed.the_rest() {
            self.look_after(link, few).await?;
        }
        Ok(())
    }

    async fn look_after(&self, link: &Link, few: Vec<LookedAfter>) -> Result<()> {
        let arguments = self.named(&few);
        let reply = self.run_on(link, Script::LookAfter, arguments).await?;
        self.attend(&reply, &few)
    }

    /// The last message heard, and what is asked about, as `look.lua` reads it.
    pub(crate) fn named(&self, few: &[LookedAfter]) -> Vec<Value> {
        let mut arguments = vec![number(self.feed.heard())];
        for one in few {
            arguments.push(Value::from_static_str(one.how.word()));
            arguments.push(one.place.as_str().into());
            arguments.push(one.request.to_string().into());
        }
        arguments
    }

    /// Reads what a beat, or what looks after the rest, has brought.
    pub(crate) fn attend(&self, reply: &Reply, looked_after: &[LookedAfter]) -> Result<()> {
        let epoch = u64::try_from(reply.number(1)?).unwrap_or(0);
        let mistaken = usize::try_from(reply.number(2)?).unwrap_or(0);
        let texts = reply.texts(3)?;
        let (left_over, texts) = texts.split_first().ok_or_else(|| strange(reply))?;
        let (mistaken, messages) = texts.split_at_checked(mistaken).ok_or_else(|| strange(reply))?;
        for request in mistaken {
            let request = request_id(request)?;
            looked_after.iter().filter(|one| one.request == request).for_each(|one| self.feed.miss(one, epoch));
        }
        // Broken locks are among the messages; core hears of all of it from the feed, as of what was pushed.
        self.feed.catch_up(epoch, messages);
        if left_over == "more" {
            self.left_over.notify_one();
            self.behind.notify_one();
        }
        Ok(())
    }

    async fn unsubscribe_the_gone(&self, link: &Link) {
        for channel in self.feed.forget_the_gone() {
            let _ = link.unsubscribe(channel.clone()).await;
            // Somebody may have begun to watch it in between.
            if self.feed.is_watched(&channel) && link.subscribe(vec![channel.clone()]).await.is_ok() {
                self.feed.push(&channel, &Pushed::Gap);
            }
        }
    }

    /// Somebody may be found dead from then on.
    pub(crate) fn look_at(&self, moment: Instant) {
        if moment < *self.look.borrow() {
            self.look.send_replace(moment);
        }
    }
}
