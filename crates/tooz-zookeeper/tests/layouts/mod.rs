//! Two versions side by side: a namespace says which layout it is kept in, and a member that does not speak it owns nothing there.

use libtest_mimic::Trial;
use tooz_core::{ErrorKind, FencingToken, Holder, LockMode, MemberId, Probe, Result};

use crate::raw::{Kept, Raw};
use crate::{SERVER, connect, namespace, nodes, quirk};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        quirk(
            "a_namespace_says_which_layout_it_is_kept_in",
            || Box::pin(a_namespace_says_which_layout_it_is_kept_in()),
        ),
        quirk("the_first_layout_in_use_is_refused", || Box::pin(the_first_layout_in_use_is_refused())),
        quirk("the_first_layout_with_a_group_in_it_is_refused", || {
            Box::pin(the_first_layout_with_a_group_in_it_is_refused())
        }),
        quirk("the_first_layout_that_is_empty_is_taken_over", || {
            Box::pin(the_first_layout_that_is_empty_is_taken_over())
        }),
        quirk("a_later_layout_is_refused", || Box::pin(a_later_layout_is_refused())),
        quirk("many_that_come_first_at_once_agree", || Box::pin(many_that_come_first_at_once_agree())),
    ]
}

fn raw() -> Raw {
    Raw::connect(SERVER.address()).expect("a session")
}

/// As a version that keeps the first layout leaves them.
fn first_layout(raw: &mut Raw, space: &str) {
    for branch in ["", "/sessions", "/locks", "/locks/l", "/groups"] {
        assert!(raw.create(&format!("/{space}{branch}")).expect("an answer"));
    }
}

async fn is_refused(space: &str, layout: &str) -> Result<()> {
    let coordinator = connect(&SERVER.url(), "m", space).await?;
    let before = nodes(space, "");
    // One that never wants a session, so that none that is refused ends beside its questions.
    let looker = connect(&SERVER.url(), "looker", space).await?;
    let stranger = Holder::new(MemberId::new("stranger")?, LockMode::Exclusive, FencingToken(1));
    for error in [
        coordinator.lock("l")?.acquire().await.expect_err("a lock"),
        coordinator.lock("l")?.try_acquire().await.expect_err("a try"),
        coordinator.group("g")?.create().await.expect_err("a group"),
        coordinator.group("g")?.join_or_create(&()).await.expect_err("a membership"),
        looker.group("g")?.members().await.expect_err("a list of members"),
        looker.group("g")?.delete().await.expect_err("a deletion"),
        looker.group("g")?.watch().await.map(|_| ()).expect_err("a watch"),
        looker.groups().await.expect_err("a list of groups"),
        looker.lock("l")?.holders().await.expect_err("who holds it"),
        looker.lock("l")?.waiters().await.expect_err("who waits for it"),
        looker.lock("l")?.break_lock(&stranger).await.expect_err("a break"),
        looker.locks().await.expect_err("a list of locks"),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(&format!("kept in layout {layout}, ")), "{error}");
    }
    assert_eq!(nodes(space, ""), before, "nothing was made");
    looker.close().await?;
    coordinator.close().await
}

async fn a_namespace_says_which_layout_it_is_kept_in() -> Result<()> {
    let space = namespace();
    let coordinator = connect(&SERVER.url(), "m", &space).await?;
    coordinator.lock("l")?.acquire().await?.release().await?;
    let mut raw = raw();
    assert_eq!(raw.data(&format!("/{space}")).expect("an answer").as_deref(), Some(&br#"{"layout":2}"#[..]));
    // What a version of the first layout does first.
    raw.create_with(&format!("/{space}/sessions/0000000000000001"), b"", Kept::WithSession).expect_err("it may not");
    // A later session finds the same.
    let other = connect(&SERVER.url(), "other", &space).await?;
    other.probe(Probe::Write).await?;
    other.lock("l")?.acquire().await?.release().await?;
    other.close().await?;
    coordinator.close().await
}

async fn the_first_layout_in_use_is_refused() -> Result<()> {
    let (space, mut raw) = (namespace(), raw());
    first_layout(&mut raw, &space);
    let mailbox = format!("/{space}/sessions/0000000000000001");
    assert!(raw.create_with(&mailbox, br#"{"member":"old"}"#, Kept::WithSession).expect("an answer"));
    is_refused(&space, "1").await?;
    // When that one has gone, nothing is in the way any more.
    raw.close().expect("its session ends");
    let coordinator = connect(&SERVER.url(), "m", &space).await?;
    coordinator.lock("l")?.acquire().await?.release().await?;
    coordinator.close().await
}

async fn the_first_layout_with_a_group_in_it_is_refused() -> Result<()> {
    let (space, mut raw) = (namespace(), raw());
    first_layout(&mut raw, &space);
    assert!(raw.create(&format!("/{space}/groups/g")).expect("an answer"));
    is_refused(&space, "1").await
}

async fn the_first_layout_that_is_empty_is_taken_over() -> Result<()> {
    let (space, mut raw) = (namespace(), raw());
    first_layout(&mut raw, &space);
    let coordinator = connect(&SERVER.url(), "m", &space).await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    assert_eq!(raw.data(&format!("/{space}")).expect("an answer").as_deref(), Some(&br#"{"layout":2}"#[..]));
    raw.create_with(&format!("/{space}/sessions/0000000000000001"), b"", Kept::WithSession)
        .expect_err("it is too late");
    let membership = coordinator.group("g")?.join_or_create(&()).await?;
    assert!(guard.is_held() && membership.is_member());
    coordinator.close().await
}

async fn a_later_layout_is_refused() -> Result<()> {
    let (space, mut raw) = (namespace(), raw());
    assert!(raw.create_with(&format!("/{space}"), br#"{"layout":3}"#, Kept::ForEver).expect("an answer"));
    is_refused(&space, "3").await?;
    // Nor is a node used that is another program's.
    let space = namespace();
    assert!(raw.create_with(&format!("/{space}"), b"a stranger's", Kept::ForEver).expect("an answer"));
    let coordinator = connect(&SERVER.url(), "m", &space).await?;
    let error = coordinator.lock("l")?.try_acquire().await.expect_err("it is not tooz's");
    assert!(error.to_string().contains("another namespace"), "{error}");
    coordinator.close().await
}

async fn many_that_come_first_at_once_agree() -> Result<()> {
    let (space, mut raw) = (namespace(), raw());
    for branch in ["", "/sessions"] {
        assert!(raw.create(&format!("/{space}{branch}")).expect("an answer"));
    }
    let mut coming = tokio::task::JoinSet::new();
    for number in 0..20 {
        let (old, new) = (space.clone(), format!("{space}-new"));
        coming.spawn(async move {
            for space in [old, new] {
                let coordinator = connect(&SERVER.url(), &format!("m{number}"), &space).await?;
                coordinator.lock("l")?.acquire().await?.release().await?;
                coordinator.group("g")?.join_or_create(&()).await?.leave().await?;
                coordinator.close().await?;
            }
            Ok::<_, tooz_core::Error>(())
        });
    }
    while let Some(came) = coming.join_next().await {
        came.expect("no panic")?;
    }
    Ok(())
}
