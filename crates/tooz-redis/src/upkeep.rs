//! What a connection is used for besides requests: looking for the dead, going on with what scripts have left over, and looking after more of
//! the holdings than fits into the heartbeats.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tooz_core::Result;
use tooz_core::driver::{Pushed, spread};

use crate::client::Client;
use crate::connection::Connection;
use crate::error::strange;
use crate::holdings::Holding;
use crate::record::request_id;
use crate::reply::Reply;
use crate::request::{Argument, number};
use crate::script::Script;

/// A session that is due is looked for so much later, and up to as much again: the server's clock ticks in milliseconds, and not
/// all that watch should look at once.
const TACT: Duration = Duration::from_millis(20);

impl Client {
    /// Goes on for as long as it is let.
    pub(crate) async fn keep_up(&self, connection: &Arc<Connection>) {
        let mut next_sweep = self.next_sweep.subscribe();
        let mut turn = interval(self.timeout / 3);
        turn.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let due = *next_sweep.borrow_and_update() + spread(TACT, 1.0..2.0);
            tokio::select! {
                biased;
                Ok(()) = next_sweep.changed() => {}
                () = self.left_over.notified() => self.sweep_up(connection).await,
                () = self.behind.notified(), if self.is_open() => {
                    let _ = self.look_after(connection, Vec::new()).await;
                }
                () = sleep_until(due), if self.deaths_matter() => self.sweep_up(connection).await,
                _ = turn.tick() => {
                    self.unsubscribe_unwatched(connection).await;
                    if self.is_open() {
                        let _ = self.look_after_the_rest(connection).await;
                    }
                }
            }
        }
    }

    /// Whether a silent death would change anything for a wait or a watch of this session.
    fn deaths_matter(&self) -> bool {
        self.holdings.any_waits() || self.dispatch.any_watches()
    }

    async fn sweep_up(&self, connection: &Connection) {
        let next = match self.run_on(connection, Script::SweepUp, &[]).await {
            Ok(reply) => {
                match reply.texts(1).unwrap_or_default().first().map(String::as_str) {
                    Some("more") => self.left_over.notify_one(),
                    // A user that may only look reads anew who is left.
                    Some("stirred") => self.dispatch.push_to_all(&Pushed::Dirty),
                    _ => {}
                }
                reply.number(0).unwrap_or(-1)
            }
            Err(error) if error.is_retryable() => 100,
            // A user that has no right to, or a script that meets what another program has broken, would meet the same the next moment.
            Err(_) => -1,
        };
        self.sweep_in(next);
    }

    /// Each wait has its turn within a session timeout: the beats take a few, and here the rest is asked for, a part at a time.
    async fn look_after_the_rest(&self, connection: &Connection) -> Result<()> {
        for few in self.holdings.the_rest() {
            self.look_after(connection, few).await?;
        }
        Ok(())
    }

    async fn look_after(&self, connection: &Connection, few: Vec<Holding>) -> Result<()> {
        let arguments = self.asked_about(&few);
        let reply = self.run_on(connection, Script::LookAfter, &arguments).await?;
        self.attend(&reply, &few)
    }

    /// The last message heard, and what is asked about, as `upkeep.lua` reads it.
    pub(crate) fn asked_about(&self, few: &[Holding]) -> Vec<Argument> {
        let mut arguments = vec![number(self.dispatch.heard())];
        for one in few {
            arguments.push(Argument::Word(one.kind.word()));
            arguments.push(one.place.as_str().into());
            arguments.push(one.request.to_string().into());
        }
        arguments
    }

    /// Reads what a beat, or what looks after the rest, has brought.
    pub(crate) fn attend(&self, reply: &Reply, looked_after: &[Holding]) -> Result<()> {
        let epoch = u64::try_from(reply.number(1)?).unwrap_or(0);
        let mistaken = usize::try_from(reply.number(2)?).unwrap_or(0);
        let texts = reply.texts(3)?;
        let (left_over, texts) = texts.split_first().ok_or_else(|| strange(reply))?;
        let (mistaken, messages) = texts.split_at_checked(mistaken).ok_or_else(|| strange(reply))?;
        for request in mistaken {
            let request = request_id(request)?;
            looked_after.iter().filter(|one| one.request == request).for_each(|one| self.holdings.miss(one, epoch));
        }
        // Broken locks are among the messages; core hears of all of it from the dispatch, as of what was pushed.
        self.dispatch.catch_up(epoch, messages);
        if left_over == "more" {
            self.left_over.notify_one();
            self.behind.notify_one();
        }
        Ok(())
    }

    async fn unsubscribe_unwatched(&self, connection: &Connection) {
        for channel in self.dispatch.take_unwatched() {
            let _ = connection.unsubscribe(&channel).await;
            // A watch may have begun in between.
            if self.dispatch.is_watched(&channel) && connection.subscribe(std::slice::from_ref(&channel)).await.is_ok()
            {
                self.dispatch.push(&channel, &Pushed::Gap);
            }
        }
    }
}
