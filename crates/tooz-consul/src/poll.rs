//! Questions that the server answers when something has changed.
//!
//! Each names the index after which it waits. Servers that were set back to an earlier state may be far from that index, and would be deaf
//! until the question ends by itself. So what fails is repeated without an index, and all such questions end when a set-back is found.

use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use tooz_core::Result;

use crate::client::{Client, Lane, Scope};
use crate::error;
use crate::request::Page;

impl Client {
    /// How long the server is asked to wait, of so long: of several agents the first has half of the time, so that one that hangs is left in that of
    /// one question.
    pub(crate) fn wait_of(&self, wait: Duration) -> Duration {
        if self.settings.agents.len() > 1 { wait / 2 } else { wait }
    }

    /// Waits until something has changed there after that index, but no longer than that; 0: does not wait. `None`: as many questions of this
    /// session as may be are waiting already.
    pub(crate) async fn poll(
        &self,
        lane: Lane,
        key: &str,
        scope: Scope,
        index: u64,
        wait: Duration,
    ) -> Option<Result<Page>> {
        let _turn = match lane {
            // The session's one.
            Lane::Mailbox => self.pool(lane).turn().await,
            _ => Some(self.pool(lane).turn_now()?),
        };
        // The server adds up to a sixteenth, so that not all that wait come back at once.
        let limit = wait + wait / 16 + self.limit;
        let (index, wait) = (format!("index={index}"), format!("wait={}ms", self.wait_of(wait).as_millis().max(1)));
        let path = format!("kv/{key}");
        let at_once: Vec<&str> = scope.query().into_iter().collect();
        let query: Vec<&str> = at_once.iter().copied().chain([index.as_str(), wait.as_str()]).collect();
        let mut question = self.question(Method::GET, &path, &query, Bytes::new());
        question.again = Some(self.question(Method::GET, &path, &at_once, Bytes::new()).path);
        let agent = self.pool(lane).agent();
        let mut set_backs = self.set_backs.subscribe();
        let asking = self.ask_within(lane, limit, question, |answer, _| Ok(answer));
        let answer = tokio::select! {
            answer = asking => answer,
            () = self.hangs(agent) => {
                self.pool(lane).leave(agent, self.settings.agents.len());
                Err(error::no_answer(&self.settings.agents[agent].address, self.limit).error)
            }
            Ok(()) = set_backs.changed() => Err(error::was_set_back()),
        };
        Some(answer.and_then(|answer| Page::read(&answer.message)))
    }

    /// Ends all questions that wait: the servers were found to be set back.
    pub(crate) fn set_back(&self) {
        self.set_backs.send_replace(());
    }

    /// Ends when that agent was found to hang by another request. Where there is none but that one, a new connection to it may do better.
    async fn hangs(&self, agent: usize) {
        let mut hung = self.hung.subscribe();
        while hung.changed().await.is_ok() {
            if *hung.borrow() == agent {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}
