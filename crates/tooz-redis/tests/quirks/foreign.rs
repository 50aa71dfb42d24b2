//! What another program has written at our places: it ends what lay there, and nothing else.

use std::time::Duration;

use tokio::time::sleep;
use tooz_core::{ErrorKind, SessionEvent};

use crate::bed::{cli, connect, keys, let_die, soon, start, trials, wait_in_background};

trials! {
    a_key_of_another_type_takes_one_lock_and_not_the_session
    a_key_of_another_type_stops_no_burying
    fields_that_are_not_ours_are_left_out
    a_server_that_cannot_save_is_told_of
    a_group_deleted_by_hand_ends_its_memberships
    many_readings_of_a_large_group_cut_no_link
}

async fn a_key_of_another_type_takes_one_lock_and_not_the_session() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let mut guards = Vec::new();
    for name in ["one", "two", "three"] {
        guards.push(soon(a.lock(name).unwrap().acquire()).await.unwrap());
    }
    let standing = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    cli(&server, &["SET", "tooz:{tooz}:l:two", "x"]);
    cli(&server, &["SET", "tooz:{tooz}:more", "x"]);
    sleep(Duration::from_secs(5)).await;
    assert!(guards[0].is_held() && guards[2].is_held() && standing.is_member());
    assert!(!guards[1].is_held(), "nothing at the server says any more that it is held");
    for (guard, is_released) in guards.into_iter().zip([true, false, true]) {
        assert_eq!(soon(guard.release()).await.is_ok(), is_released);
    }
    let error = soon(a.lock("two").unwrap().try_acquire()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Backend, "{error}");
    assert!(soon(a.locks()).await.is_ok());
    cli(&server, &["DEL", "tooz:{tooz}:l:two"]);
    assert!(soon(a.lock("two").unwrap().try_acquire()).await.unwrap().is_some());
    soon(a.close()).await.unwrap();
}

async fn a_key_of_another_type_stops_no_burying() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let c = connect(&server.url(), "c").await;
    let mut guards = Vec::new();
    for name in ["one", "two", "three"] {
        guards.push(soon(a.lock(name).unwrap().acquire()).await.unwrap());
    }
    let other = soon(b.lock("four").unwrap().acquire()).await.unwrap();
    let waits = [wait_in_background(&c, "one"), wait_in_background(&c, "three"), wait_in_background(&c, "four")];
    sleep(Duration::from_millis(300)).await;
    cli(&server, &["SET", "tooz:{tooz}:l:two", "x"]);
    let_die(&server, "a");
    let_die(&server, "b");
    for wait in waits {
        assert!(soon(wait).await.unwrap().unwrap().is_held());
    }
    drop((guards, other));
    soon(a.close()).await.ok();
    soon(b.close()).await.ok();
    soon(c.close()).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    let left: Vec<_> = keys(&server).into_iter().filter(|key| key.contains(":o:") || key.contains(":s:")).collect();
    assert!(left.is_empty(), "{left:?}");
}

async fn fields_that_are_not_ours_are_left_out() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let _standing = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let session = cli(&server, &["ZRANGE", "tooz:{tooz}:sessions", "0", "0"]);
    cli(&server, &["HSET", "tooz:{tooz}:groups", "Bad Name%zz", "1"]);
    let record = format!("00000000000000000000000000000001 {session} notjson{{");
    cli(&server, &["HSET", "tooz:{tooz}:g:g", "bad", &record]);
    let record = format!("00000000000000000000000000000002 {session} 1");
    cli(&server, &["HSET", "tooz:{tooz}:g:g", "with\nfeed", &record]);
    let record = format!("X 99999999999999999999 12 {session}");
    cli(&server, &["HSET", "tooz:{tooz}:l:x", "junk", &record]);
    assert_eq!(soon(a.groups()).await.unwrap().len(), 1);
    assert_eq!(soon(a.group("g").unwrap().members()).await.unwrap().len(), 1);
    assert_eq!(soon(a.lock("x").unwrap().holders()).await.unwrap().len(), 1);
    drop(guard);
}

async fn a_server_that_cannot_save_is_told_of() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let _guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let mut events = a.events();
    cli(&server, &["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let error = soon(async {
        loop {
            if let Some(SessionEvent::Troubled(error)) = events.next().await {
                break error;
            }
        }
    })
    .await;
    assert!(error.to_string().contains("NOREPLICAS"), "{error}");
}

async fn many_readings_of_a_large_group_cut_no_link() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    let _standing = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let script = "local p = 'tooz:{tooz}:' local id = redis.call('ZRANGE', p .. 'sessions', 0, 0)[1] \
        local large = string.rep('x', 60000) for i = 1, 99 do \
        redis.call('HSET', p .. 'g:g', 'm' .. i, string.format('%032x', i) .. ' ' .. id .. ' \"' .. large .. '\"') end";
    cli(&server, &["EVAL", script, "0"]);
    let connections = cli(&server, &["INFO", "stats"]);
    let group = a.group("g").unwrap();
    let readings: Vec<_> = (0..16)
        .map(|_| {
            tokio::spawn({
                let group = group.clone();
                async move { group.members().await }
            })
        })
        .collect();
    let mut read = 0;
    for reading in readings {
        read += usize::from(soon(reading).await.unwrap().is_ok_and(|members| members.len() == 100));
    }
    let cut = cli(&server, &["INFO", "stats"]);
    let limit = |text: &str| {
        text.lines()
            .find(|line| line.contains("client_output_buffer_limit_disconnections"))
            .map(|line| line.trim().to_owned())
    };
    assert_eq!(limit(&connections), limit(&cut));
    assert!(guard.is_held());
    assert!(read >= 8, "{read} of 16 readings came to their end");
}

/// A reader finds no group: so no member may go on as if there were one.
async fn a_group_deleted_by_hand_ends_its_memberships() {
    let server = start();
    let (a, b) = (connect(&server.url(), "a").await, connect(&server.url(), "b").await);
    let leading = soon(a.group("g").unwrap().join_or_create(&1)).await.unwrap();
    let leadership = soon(leading.campaign()).await.unwrap();
    let standing = soon(b.group("g").unwrap().join(&1)).await.unwrap();
    cli(&server, &["HDEL", "tooz:{tooz}:groups", "g"]);
    soon(leading.loss().wait()).await;
    soon(standing.loss().wait()).await;
    soon(leadership.loss().wait()).await;
    // That it is lost is told first, and then it is given back; there is no order between that and what `b` asks.
    let gone = async {
        loop {
            match b.group("g").unwrap().leader().await {
                Ok(_) => sleep(Duration::from_millis(20)).await,
                Err(error) => break error,
            }
        }
    };
    assert_eq!(soon(gone).await.kind(), ErrorKind::NotFound);
    assert!(soon(b.groups()).await.unwrap().is_empty(), "what its members leave makes it again");
    soon(a.close()).await.unwrap();
    soon(b.close()).await.unwrap();
}
