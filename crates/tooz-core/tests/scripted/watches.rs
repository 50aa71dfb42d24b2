//! When a watch reads again.

use tooz_core::GroupEvent;
use tooz_core::driver::Pushed;

use crate::group;
use crate::session::{Scripted, eventually, soon};

#[tokio::test]
async fn a_watch_reads_again_after_a_reconnect() {
    let scripted = Scripted::new("read again");
    let group = group(&scripted).await;
    let _watch = soon(group.watch()).await.unwrap();
    eventually(|| scripted.readings() == 1).await;
    scripted.reporter().connected();
    eventually(|| scripted.readings() == 2).await;
}

#[tokio::test]
async fn a_leader_is_read_again_after_a_reconnect() {
    let scripted = Scripted::new("leader again");
    let group = group(&scripted).await;
    let _watch = soon(group.watch_leader()).await.unwrap();
    eventually(|| scripted.looks() == 1).await;
    scripted.reporter().connected();
    eventually(|| scripted.looks() == 2).await;
}

#[tokio::test]
async fn a_gap_is_told_as_a_reset_and_a_hint_as_what_has_changed() {
    let scripted = Scripted::new("gap");
    let group = group(&scripted).await;
    let mut watch = soon(group.watch()).await.unwrap();
    assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Snapshot(_))));
    scripted.push(&Pushed::Dirty);
    eventually(|| scripted.readings() == 2).await;
    scripted.push(&Pushed::Gap);
    assert!(matches!(soon(watch.next()).await, Some(GroupEvent::Reset(_))), "nothing had changed at the hint");
}
