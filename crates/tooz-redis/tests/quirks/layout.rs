//! The number of the layout that a namespace is kept in.

use tooz_core::ErrorKind;

use crate::bed::{cli, connect, soon, start, trials};

trials! {
    the_first_owner_writes_the_layout_down
    another_layout_is_refused_before_anything_is_owned
    a_namespace_from_before_layouts_counts_as_the_first
}

const LAYOUT: &str = "tooz:{tooz}:layout";

async fn the_first_owner_writes_the_layout_down() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    assert!(soon(a.groups()).await.unwrap().is_empty());
    assert_eq!(cli(&server, &["EXISTS", LAYOUT]), "0", "who only looks owns nothing");
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    assert_eq!(cli(&server, &["GET", LAYOUT]), "1");
    let b = connect(&server.url(), "b").await;
    assert!(soon(b.lock("x").unwrap().try_acquire()).await.unwrap().is_none());
    soon(guard.release()).await.unwrap();
}

async fn another_layout_is_refused_before_anything_is_owned() {
    let server = start();
    cli(&server, &["SET", LAYOUT, "9"]);
    let a = connect(&server.url(), "a").await;
    let error = soon(a.lock("x").unwrap().try_acquire()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(error.to_string().contains("layout 9") && error.to_string().contains("\"tooz\""), "{error}");
    let group = a.group("g").unwrap();
    for error in [
        soon(group.create()).await.unwrap_err(),
        soon(group.delete()).await.unwrap_err(),
        soon(group.members()).await.unwrap_err(),
        soon(a.groups()).await.unwrap_err(),
        soon(a.lock("x").unwrap().holders()).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("layout 9"), "{error}");
    }
    assert_eq!(cli(&server, &["KEYS", "*"]), LAYOUT);
    let elsewhere = connect(&format!("{}?namespace=other", server.url()), "a").await;
    assert!(soon(elsewhere.lock("x").unwrap().try_acquire()).await.unwrap().is_some());
}

async fn a_namespace_from_before_layouts_counts_as_the_first() {
    let server = start();
    let a = connect(&server.url(), "a").await;
    let guard = soon(a.lock("x").unwrap().acquire()).await.unwrap();
    cli(&server, &["DEL", LAYOUT]);
    let b = connect(&server.url(), "b").await;
    assert!(soon(b.lock("x").unwrap().try_acquire()).await.unwrap().is_none(), "both see the same lock");
    assert_eq!(cli(&server, &["GET", LAYOUT]), "1");
    soon(guard.release()).await.unwrap();
}
