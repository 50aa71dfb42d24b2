//! A namespace says in which layout it is kept, and a session that speaks another owns nothing there.

use anyhow::{Result, ensure};
use tooz_core::{ConnectOptions, ErrorKind};
use tooz_testbed::{Kind, Server};

use crate::Quirk;
use crate::stage::{connect, etcdctl, keys, play, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("layout::the_first_owner_writes_it_and_a_visitor_does_not", || play(written())),
    ("layout::a_namespace_of_a_later_layout_is_refused", || play(later())),
    ("layout::a_layout_that_changes_after_connecting_is_refused", || play(changes())),
    ("layout::a_namespace_from_before_there_were_records_goes_on", || play(before_records())),
];

fn record(server: &Server, namespace: &str) -> Result<String> {
    let found = etcdctl(server, &["get", &format!("/tooz/{namespace}/layout"), "--print-value-only"])?;
    Ok(found.trim().to_owned())
}

async fn written() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    ensure!(one.groups().await?.is_empty() && record(&server, "tooz")?.is_empty(), "looking has written something");
    // Many at once write it once.
    let mut all = Vec::new();
    for index in 0..8 {
        let url = server.url();
        all.push(tokio::spawn(async move {
            let one = connect(&url, &format!("m{index}")).await?;
            let guard = one.lock(format!("x{index}"))?.acquire().await?;
            anyhow::Ok((one, guard))
        }));
    }
    for one in all {
        ensure!(one.await??.1.is_held(), "it has its lock");
    }
    ensure!(record(&server, "tooz")? == "{\"layout\":1}", "it says {}", record(&server, "tooz")?);
    let fields = etcdctl(&server, &["get", "/tooz/tooz/layout", "-w", "fields"])?;
    ensure!(fields.contains("\"Version\" : 1"), "it was written more than once: {fields}");
    // A group outlives its maker, so that making one is owning too.
    let other = connect(&format!("{}?namespace=other", server.url()), "one").await?;
    other.group("g")?.create().await?;
    ensure!(record(&server, "other")? == "{\"layout\":1}", "it says {}", record(&server, "other")?);
    Ok(())
}

async fn later() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    for value in ["{\"layout\":2}", "garbage"] {
        etcdctl(&server, &["put", "/tooz/tooz/layout", value])?;
        let result = within("connecting", ConnectOptions::new(&server.url())?.member("one")?.connect()).await?;
        let error = match result {
            Err(error) => error,
            Ok(one) => one.lock("x")?.acquire().await.err().ok_or_else(|| anyhow::anyhow!("it has the lock"))?,
        };
        let words = error.to_string();
        ensure!(
            error.kind() == ErrorKind::Config && words.contains("layout 1") && words.contains("namespace"),
            "{words}"
        );
        ensure!(keys(&server)?.is_empty(), "it owns {:?}", keys(&server)?);
    }
    Ok(())
}

async fn changes() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    etcdctl(&server, &["put", "/tooz/tooz/layout", "{\"layout\":2}"])?;
    let error = within("acquiring", one.lock("x")?.acquire()).await?.err();
    ensure!(error.is_some_and(|error| error.kind() == ErrorKind::Config), "it owns something there");
    let error = within("making a group", one.group("g")?.create()).await?.err();
    ensure!(error.is_some_and(|error| error.kind() == ErrorKind::Config), "it made a group there");
    ensure!(keys(&server)?.is_empty(), "it owns {:?}", keys(&server)?);
    // The same layout, in other words.
    etcdctl(&server, &["put", "/tooz/tooz/layout", "{ \"layout\": 1 }"])?;
    let two = connect(&server.url(), "two").await?;
    within("acquiring", two.lock("x")?.acquire()).await??.release().await?;
    Ok(())
}

async fn before_records() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    etcdctl(&server, &["del", "/tooz/tooz/layout"])?;
    let two = connect(&server.url(), "two").await?;
    ensure!(two.lock("x")?.try_acquire().await?.is_none(), "it is held by two");
    ensure!(record(&server, "tooz")? == "{\"layout\":1}", "it says {}", record(&server, "tooz")?);
    guard.release().await?;
    Ok(())
}
