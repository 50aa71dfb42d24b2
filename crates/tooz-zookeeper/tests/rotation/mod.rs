//! Passwords and certificates that change while a session lives: it goes on with what stands in the files now.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tokio::time::sleep;
use tooz_core::{ErrorKind, Result};
use tooz_testbed::Proxy;

use crate::raw::Raw;
use crate::{SERVER, SOON, connect, connect_for, namespace, quirk, soon};

/// As the server keeps `ann:new`: the SHA-1 of it.
const ANN_NEW: &str = "ann:a8DN1yGMXtvuDSZt0Bb4FCFkrbM=";

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        quirk("a_password_that_is_new_in_the_file_loses_nothing", || {
            Box::pin(a_password_that_is_new_in_the_file_loses_nothing())
        }),
        quirk("a_password_that_is_new_at_the_server_too_loses_nothing", || {
            Box::pin(a_password_that_is_new_at_the_server_too_loses_nothing())
        }),
        quirk("a_password_file_that_is_missing_for_a_while_loses_nothing", || {
            Box::pin(a_password_file_that_is_missing_for_a_while_loses_nothing())
        }),
        #[cfg(feature = "tls")]
        quirk("certificates_that_are_new_on_disk_lose_nothing", || {
            Box::pin(secure::certificates_that_are_new_on_disk_lose_nothing())
        }),
    ]
}

/// A file that goes with this.
struct PasswordFile(PathBuf);

impl PasswordFile {
    fn new(space: &str) -> Self {
        let file = PasswordFile(std::env::temp_dir().join(format!("tooz-{}-{space}", std::process::id())));
        file.say("old");
        file
    }

    fn say(&self, password: &str) {
        fs::write(&self.0, format!("{password}\n")).expect("a file can be written");
    }

    fn url(&self, url: &str) -> String {
        url.replace("://", "://ann@") + &format!("?password_file={}", self.0.display())
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

async fn a_password_that_is_new_in_the_file_loses_nothing() -> Result<()> {
    let (space, proxy) = (namespace(), Proxy::start(SERVER.address()).expect("a proxy"));
    let file = PasswordFile::new(&space);
    let coordinator = connect(&file.url(&proxy.url("zookeeper")), "m", &space).await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    let membership = coordinator.group("g")?.join_or_create(&()).await?;
    for password in ["second", "new", "old", "new"] {
        file.say(password);
        proxy.reset();
        // What was made before and what is made now can be used, whichever password it was made with.
        soon(coordinator.lock("other")?.acquire()).await?.release().await?;
        soon(coordinator.lock(password)?.acquire()).await?.release().await?;
        membership.update(&password).await?;
    }
    sleep(Duration::from_secs(7)).await;
    assert!(guard.is_held() && membership.is_member(), "{:?}", guard.loss().reason());
    // A user with the earlier password alone may do what it could, where the node is of that time.
    let old = connect(&SERVER.url().replace("://", "://ann:old@"), "old", &space).await?;
    assert!(old.lock("l")?.try_acquire().await?.is_none());
    guard.release().await?;
    soon(old.lock("l")?.acquire()).await?.release().await?;
    old.close().await?;
    membership.leave().await?;
    coordinator.close().await
}

/// The operator gives all nodes to the new password, while a connection stands that has logged in with the old one.
async fn a_password_that_is_new_at_the_server_too_loses_nothing() -> Result<()> {
    let space = namespace();
    let file = PasswordFile::new(&space);
    let coordinator = connect(&file.url(&SERVER.url()), "m", &space).await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    let membership = coordinator.group("g")?.join_or_create(&()).await?;
    let mut raw = Raw::connect(SERVER.address()).expect("a session");
    raw.log_in("ann:old").expect("it can log in");
    raw.log_in("ann:new").expect("it can log in");
    file.say("new");
    let root = format!("/{space}");
    for node in raw
        .tree(&root)
        .expect("a listing")
        .into_iter()
        .chain([root.clone()])
        .filter(|node| !node.ends_with("/sessions"))
    {
        assert!(raw.give_to(&node, ANN_NEW).expect("an answer"), "{node}");
    }
    // Not even a first request right then is refused.
    soon(coordinator.lock("first")?.acquire()).await?.release().await?;
    membership.update(&1).await?;
    assert!(soon(coordinator.lock("l")?.holders()).await?.len() == 1);
    sleep(Duration::from_secs(7)).await;
    assert!(guard.is_held() && membership.is_member(), "{:?}", guard.loss().reason());
    let new = connect(&SERVER.url().replace("://", "://ann:new@"), "new", &space).await?;
    assert!(new.lock("l")?.try_acquire().await?.is_none());
    guard.release().await?;
    soon(new.lock("l")?.acquire()).await?.release().await?;
    membership.leave().await?;
    let old = connect(&SERVER.url().replace("://", "://ann:old@"), "old", &space).await?;
    let error = old.lock("l")?.acquire().await.expect_err("it is not in use any more");
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    old.close().await?;
    new.close().await?;
    coordinator.close().await
}

async fn a_password_file_that_is_missing_for_a_while_loses_nothing() -> Result<()> {
    let (space, proxy) = (namespace(), Proxy::start(SERVER.address()).expect("a proxy"));
    let file = PasswordFile::new(&space);
    let url = file.url(&proxy.url("zookeeper"));
    let coordinator = connect_for(&url, "m", &space, Duration::from_secs(20)).await?;
    let guard = coordinator.lock("l")?.acquire().await?;
    fs::remove_file(&file.0).expect("it can be removed");
    proxy.reset();
    // A busy machine may find the first answers late, and then that alone is told.
    let until = Instant::now() + SOON / 4;
    loop {
        let error = coordinator.lock("other")?.try_acquire().await.expect_err("no user can log in");
        assert!(error.is_retryable(), "{error}");
        if error.to_string().contains("password_file") {
            break;
        }
        assert!(Instant::now() < until, "{error}");
        sleep(Duration::from_millis(200)).await;
    }
    file.say("new");
    soon(coordinator.lock("other")?.acquire()).await?.release().await?;
    assert!(guard.is_held());
    coordinator.close().await?;
    fs::remove_file(&file.0).expect("it can be removed");
    let error = connect(&url, "m", &space).await.expect_err("a first connection is told at once");
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    Ok(())
}

#[cfg(feature = "tls")]
mod secure {
    use tooz_testbed::{Kind, Server, Setup};

    use crate::secure::PATIENT;

    use super::{Duration, Result, connect, connect_for, fs, namespace, sleep, soon};

    fn start() -> Server {
        Setup::new(Kind::ZooKeeper).tls().argument("ssl.clientAuth=need").start().expect("a server with TLS")
    }

    /// The server's certificate, its authority and the client's own are all renewed, by an authority that was not known before.
    pub(super) async fn certificates_that_are_new_on_disk_lose_nothing() -> Result<()> {
        let (server, other) = (start(), start());
        let own = |name: &str| server.folder().join(name);
        let at = |name: &str| own(name).display().to_string();
        let url =
            format!("{}?ca={}&cert={}&key={}{PATIENT}", server.url(), at("ca.pem"), at("server.pem"), at("server.key"));
        let space = namespace();
        let coordinator = connect_for(&url, "m", &space, Duration::from_secs(20)).await?;
        let guard = coordinator.lock("l")?.acquire().await?;
        let membership = coordinator.group("g")?.join_or_create(&()).await?;
        for name in ["ca.pem", "server.pem", "server.key", "server-and-key.pem"] {
            fs::copy(other.folder().join(name), own(name)).expect("it can be renewed");
        }
        server.restart().expect("it starts again");
        soon(coordinator.lock("other")?.acquire()).await?.release().await?;
        // A file that is written just now is half of one.
        let whole = fs::read(own("server.pem")).expect("it can be read");
        fs::write(own("server.pem"), &whole[..whole.len() / 2]).expect("it can be written");
        server.restart().expect("it starts again");
        sleep(Duration::from_secs(1)).await;
        fs::write(own("server.pem"), &whole).expect("it can be written");
        soon(coordinator.lock("other")?.acquire()).await?.release().await?;
        assert!(guard.is_held() && membership.is_member(), "{:?}", guard.loss().reason());
        let again = connect(&url, "again", &space).await?;
        assert!(again.lock("l")?.try_acquire().await?.is_none());
        again.close().await?;
        coordinator.close().await
    }
}
