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
    Belief, LATE, LONG, PATIENCE, SHORT, Stage, blocking, cases, hold, names, soon, wait_in_background, within,
};

cases! { "forgetful", Server, alone: false;
    a_restart_is_told_before_another_is_granted_and_mended,
    a_flush_is_told_with_the_next_heartbeat_and_mended,
    a_restart_beyond_the_timeout_is_told_in_time,
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
    // The groups are gone as well, and a member of one that is not there is told that.
    assert!(soon("listing", group.members()).await.is_err());
    soon("releasing", next.release()).await.expect("releasing");
    drop(membership);
    let again = soon("joining", a.group("h").unwrap().join_or_create(&"again")).await.unwrap();
    is_mended(&a, &again, &mut events).await;
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

async fn a_restart_beyond_the_timeout_is_told_in_time(stage: &Stage) {
    let (a, b) = (stage.connect("a", SHORT).await, stage.connect("b", SHORT).await);
    let membership = soon("joining", a.group("g").unwrap().join_or_create(&"first")).await.unwrap();
    let guard = hold(&a.lock("x").unwrap()).await;
    let token = guard.fencing_token();
    let waiter = wait_in_background(&b.lock("x").unwrap());
    sleep(Duration::from_millis(200)).await;
    let loss = guard.loss();
    stage.break_it(Server::kill);
    let expiry = Instant::now() + guard.expires_in().expect("a server is the judge");
    let belief = Belief::of(guard);
    assert_eq!(within(SHORT + LATE, "the loss", loss.wait()).await, LossReason::Expired);
    let (last, guard) = belief.end().await;
    assert!(last <= expiry, "it was held for {:?} after its expiry", last - expiry);
    assert!(!membership.is_member() && !waiter.is_finished());
    stage.break_it(Server::restart);
    let (next, _) = within(PATIENCE, "the waiter's turn", waiter).await.unwrap();
    assert!(next.fencing_token() > token, "the token did not grow");
    assert!(soon("listing", b.group("g").unwrap().members()).await.is_err(), "the group has gone");
    let again = soon("joining", b.group("g").unwrap().join_or_create(&"again")).await.unwrap();
    assert_eq!(soon("releasing", guard.release()).await.unwrap_err().kind(), ErrorKind::Lost);
    assert!(next.is_held(), "a lost lock's release freed the next one's");
    drop(again);
}
