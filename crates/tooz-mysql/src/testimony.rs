//! What a connection can say of another one: whether the server is at work for it.

use crate::holdings::Holdings;
use crate::packet::Packets;
use crate::server::is_on;
use crate::summons::Testimony;

/// Testifies by that connection, if a heartbeat wants it.
pub(crate) async fn obey(packets: &mut Packets, holdings: &Holdings) -> Result<(), sqlx::Error> {
    let Some(reply) = holdings.summons.take() else { return Ok(()) };
    let _ = reply.send(ask(packets, holdings).await?);
    Ok(())
}

pub(crate) async fn ask(packets: &mut Packets, holdings: &Holdings) -> Result<Testimony, sqlx::Error> {
    let (session, number) = (&holdings.session, holdings.number);
    let question = format!(
        "SELECT CONCAT(@@GLOBAL.read_only); \
         SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {number} AND COMMAND = 'Query' AND NOT ({to_client}); \
         SELECT IS_USED_LOCK('{session}') = {number}",
        // A client that does not take its answer is silent, and the server counts.
        to_client = "COALESCE(STATE, '') LIKE '%net%' OR COALESCE(STATE, '') LIKE '%client%'",
    );
    let answer = packets.ask(&question).await?;
    if is_on(&answer.text(0, 0)?.unwrap_or_default()) {
        return Ok(Testimony::ReadOnly);
    }
    Ok(if !answer.rows(1).is_empty() && answer.is(2, 0)? { Testimony::AtWork } else { Testimony::NotAtWork })
}
