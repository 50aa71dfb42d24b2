//! Questions to which no answer comes any more, though the server lives and the connection stands.
//!
//! A server that is told to interrupt a connection (`KILL QUERY`) just between two statements of one packet does none of the rest and says nothing: it has
//! announced more results, and waits for the next question. The client waits for those results, for ever, and the session would end only with its timeout.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::options::Settings;
use crate::setup::{self, Role};

/// After how long without an answer the server is asked what it is doing.
const SUSPICION: Duration = Duration::from_millis(1500);
/// How long an answer that the server has given may be on its way.
const ON_ITS_WAY: Duration = Duration::from_millis(200);

/// Ends when the server waits for the next question of that connection, while this side waits for an answer; else never.
pub(crate) async fn no_answer_comes(settings: &Settings, number: i64) {
    let mut pause = SUSPICION.min(settings.statement_timeout);
    loop {
        sleep(pause).await;
        if is_idle(settings, number).await {
            sleep(ON_ITS_WAY).await;
            if is_idle(settings, number).await {
                return;
            }
        }
        pause = (pause * 2).min(settings.session_timeout);
    }
}

/// Whether the server says so, by a connection of its own.
async fn is_idle(settings: &Settings, number: i64) -> bool {
    let Ok((mut packets, _)) = setup::connect(settings, Role::Client).await else { return false };
    let question = format!("SELECT COMMAND FROM information_schema.PROCESSLIST WHERE ID = {number}");
    let answer = timeout(settings.statement_timeout, packets.ask(&question)).await;
    let is_idle =
        matches!(answer, Ok(Ok(answer)) if answer.text(0, 0).is_ok_and(|word| word.as_deref() == Some("Sleep")));
    packets.farewell().await;
    is_idle
}
