//! What somebody else has written at our places: it ends what lay there, and nothing else.

use std::time::Duration;

use tokio::time::sleep;
use tooz_core::ErrorKind;

use crate::bed::{cli, connect, keys, let_die, soon, start, trials, wait_in_background};

trials! {
    a_key_of_another_type_takes_one_lock_and_not_the_session
    a_key_of_another_type_stops_no_burying
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
