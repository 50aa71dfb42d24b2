//! Keys under the driver's own that no driver wrote: they fail no reading, and can be told and taken away.

use anyhow::{Result, ensure};
use tooz_core::{ErrorKind, GroupEvent, JoinOptions};
use tooz_testbed::{Kind, Server};

use crate::Quirk;
use crate::stage::{connect, etcdctl, play, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("foreign::a_key_among_members_is_no_member", || play(among_members())),
    ("foreign::a_key_among_members_does_not_keep_a_group", || play(keeps_no_group())),
    ("foreign::a_key_in_the_place_of_a_member_can_be_taken_over", || play(in_the_place())),
    ("foreign::a_key_in_a_queue_is_listed_and_can_be_broken", || play(in_a_queue())),
    ("foreign::a_membership_that_was_written_over_can_be_left", || play(written_over())),
];

async fn among_members() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    let group = one.group("g")?;
    let _membership = group.join_or_create(&1).await?;
    let mut watch = group.watch().await?;
    within("the snapshot", watch.next()).await?;
    for (key, value) in [
        ("two", "garbage"),
        ("three", ""),
        ("four", "{\"member\":\"one\",\"request\":\"00\",\"session\":\"0\",\"capabilities\":1}"),
        ("a/b/c", "7"),
    ] {
        etcdctl(&server, &["put", &format!("/tooz/tooz/members/g/{key}"), value])?;
    }
    etcdctl(&server, &["put", "/tooz/tooz/groups/%zz/x", "garbage"])?;
    etcdctl(&server, &["put", "/tooz/tooz/locks/x/x/garbage", "garbage"])?;
    let members = group.members().await?;
    ensure!(members.len() == 1 && members[0].member.as_str() == "one", "listed: {members:?}");
    ensure!(one.groups().await?.len() == 1, "groups: {:?}", one.groups().await?);
    let two = connect(&server.url(), "friend").await?;
    let _friend = two.group("g")?.join(&2).await?;
    let told = within("the news", watch.next()).await?;
    ensure!(matches!(&told, Some(GroupEvent::Joined(entry)) if entry.member.as_str() == "friend"), "told {told:?}");
    Ok(())
}

async fn keeps_no_group() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    let group = one.group("g")?;
    let membership = group.join_or_create(&1).await?;
    etcdctl(&server, &["put", "/tooz/tooz/members/g/a", "garbage"])?;
    etcdctl(&server, &["put", "/tooz/tooz/members/g/z", "garbage"])?;
    let refused = group.delete().await.err().map(|error| error.kind());
    ensure!(refused == Some(ErrorKind::NotEmpty), "with a member: {refused:?}");
    membership.leave().await?;
    group.delete().await?;
    ensure!(one.groups().await?.is_empty(), "it is still listed");
    Ok(())
}

async fn in_the_place() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    let group = one.group("g")?;
    group.create().await?;
    etcdctl(&server, &["put", "/tooz/tooz/members/g/one", "garbage"])?;
    let error = group.join(&1).await.err().ok_or_else(|| anyhow::anyhow!("it joined over another's key"))?;
    ensure!(error.kind() == ErrorKind::AlreadyExists && error.to_string().contains("/members/g/one"), "{error}");
    let membership = group.join_with(JoinOptions::new().take_over()).await?;
    ensure!(group.members().await?.len() == 1 && membership.is_member(), "it was not taken over");
    Ok(())
}

async fn in_a_queue() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    for key in ["x/garbage", "garbage-between", "t/else"] {
        etcdctl(&server, &["put", &format!("/tooz/tooz/locks/x/{key}"), "garbage"])?;
    }
    let lock = one.lock("x")?;
    let waiting = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    ensure!(!waiting.is_finished(), "it has the lock beside the other");
    // Whatever is in the way is listed, one after the other, and can be broken.
    for _ in 0..3 {
        let holders = lock.holders().await?;
        let Some(holder) = holders.first().filter(|holder| holder.member.as_str().contains("unreadable")) else {
            break;
        };
        lock.break_lock(holder).await?;
    }
    ensure!(within("the waiter", waiting).await???.is_held(), "it has the lock");
    Ok(())
}

async fn written_over() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    let one = connect(&server.url(), "one").await?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    etcdctl(&server, &["put", "/tooz/tooz/members/g/one", "garbage"])?;
    within("the loss", membership.loss().wait()).await?;
    ensure!(!membership.is_member(), "it is still a member");
    let updated = membership.update(&2).await.err().map(|error| error.kind());
    ensure!(updated == Some(ErrorKind::NotMember), "updated: {updated:?}");
    let _ = within("leaving", membership.leave()).await?;
    Ok(())
}
