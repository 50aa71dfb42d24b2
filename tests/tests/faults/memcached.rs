//! memcached: it keeps nothing, so that a restart or a flush ends every session. A client that can reach it again hears of that before
//! anything is granted to another.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::sleep;
use tooz::{ErrorKind, LossReason};
use tooz_testbed::Server;

use crate::servers::is_mended;
use crate::stage::{
    Belief, LATE, LONG, PATIENCE, Stage, blocking, cases, hold, names, soon, wait_in_background, within,
};

cases! { "forgetful", Server, alone: false;
    a_restart_is_told_before_another_is_granted_and_mended,
    a_flush_is_told_with_the_next_heartbeat_and_mended,
}

/// All keys, but those that the server drops by itself within 25 hours: the last token of a lock that is free, and a lock that only the dead stand in.
pub(crate) fn stored(server: &Server) -> Vec<String> {
    let mut stream = TcpStream::connect(server.address()).expect("the server takes one more connection");
    stream.write_all(b"lru_crawler metadump all\r\n").expect("it can be asked");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later").as_secs();
    let lines = BufReader::new(stream).lines().map(|line| line.expect("it answers"));
    let lines = lines.take_while(|line| line != "END");
    let lasting = lines.filter(|line| {
        let ends = line.split(' ').find_map(|field| field.strip_prefix("exp=")?.parse::<i64>().ok()).unwrap_or(-1);
        let is_session = line.split(' ').next().is_some_and(|key| key.contains("%3As%3A"));
        is_session || u64::try_from(ends).map_or(true, |ends| ends > now + 25 * 3600 + 100)
    });
    lasting.collect()
}

async fn a_restart_is_told_before_another_is_granted_and_mended(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let group = b.group("g").unwrap();
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"here")).await.unwrap();
    let guard = hold(&a.lock("x").unwrap()).await;
    let token = guard.fencing_token();
    let mut events = a.events();
    let waiter = wait_in_background(&b.lock("x").unwrap());
    sleep(Duration::from_millis(200)).await;
    let (loss, membership_loss) = (guard.loss(), membership.loss());
    let belief = Belief::of(guard);
    stage.break_it(Server::restart);
    let begun = Instant::now();
    assert_eq!(within(LONG / 3 + LATE, "the loss", loss.wait()).await, LossReason::SessionEnded);
    stage.note("from the restart to the loss", begun.elapsed());
    let (next, granted) = within(PATIENCE, "the waiter's turn", waiter).await.unwrap();
    let (last, guard) = belief.end().await;
    assert!(last < granted, "it was held for {:?} after another had it", last - granted);
    assert!(next.fencing_token() > token, "the token did not grow");
    assert!(membership_loss.is_lost());
    assert_eq!(soon("releasing", guard.release()).await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(next.is_held(), "a lost lock's release freed the next one's");
    // The group is gone as well, and a membership that was to create it makes it again.
    is_mended(&a, &membership, &mut events).await;
    assert!(membership_loss.is_lost(), "the loss of the first standing is for ever");
    assert_eq!(names(&group).await, ["a"]);
    soon("releasing", next.release()).await.expect("releasing");
    soon("leaving", membership.leave()).await.expect("leaving");
    assert!(names(&group).await.is_empty(), "who left is still listed");
}

/// Nothing tells of a flush: connections stay.
async fn a_flush_is_told_with_the_next_heartbeat_and_mended(stage: &Stage) {
    let (a, b) = (stage.connect("a", LONG).await, stage.connect("b", LONG).await);
    let guard = hold(&a.lock("x").unwrap()).await;
    let token = guard.fencing_token();
    let loss = guard.loss();
    blocking(|| {
        let mut stream = TcpStream::connect(stage.server().address())?;
        stream.write_all(b"flush_all\r\n")?;
        let mut said = String::new();
        BufReader::new(stream).read_line(&mut said)?;
        assert_eq!(said.trim(), "OK");
        Ok(())
    });
    let begun = Instant::now();
    assert_eq!(within(LONG / 3 + LATE, "the loss", loss.wait()).await, LossReason::SessionEnded);
    stage.note("from the flush to the loss", begun.elapsed());
    sleep(LATE).await;
    let next = hold(&b.lock("x").unwrap()).await;
    assert!(next.fencing_token() > token, "the token did not grow");
    assert_eq!(soon("releasing", guard.release()).await.unwrap_err().kind(), ErrorKind::Lost);
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&())).await.unwrap();
    assert_eq!(names(&b.group("g").unwrap()).await, ["a"]);
    drop(membership);
}
