//! Users, passwords and certificates.

use anyhow::{Result, ensure};
use tooz_core::{ConnectOptions, ErrorKind};
use tooz_testbed::{Kind, Server, Setup};

use crate::Quirk;
use crate::stage::{connect, etcdctl, eventually, play, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("access::a_user_with_a_role_of_one_namespace_is_enough", || play(user())),
    ("access::a_wrong_password_is_refused_and_not_shown", || play(wrong_password())),
    ("access::a_token_that_ran_out_is_renewed", || play(token())),
    ("access::tls_takes_whom_the_authority_vouches_for", || play(tls())),
];

/// A server with users: `root`, and `bob` who may do everything in the namespace `tooz` and nothing elsewhere.
pub(crate) fn with_users(server: &Server) -> Result<()> {
    for command in [
        "user add root:secret",
        "user grant-role root root",
        "role add fleet",
        "role grant-permission fleet --prefix=true readwrite /tooz/tooz/",
        "user add bob:hunter2",
        "user grant-role bob fleet",
        "auth enable",
    ] {
        let arguments: Vec<_> = command.split(' ').collect();
        // The role `root` is there from the beginning, or is made by the first command that names it.
        if command == "user grant-role root root" {
            let _ = etcdctl(server, &["role", "add", "root"]);
        }
        etcdctl(server, &arguments)?;
    }
    Ok(())
}

pub(crate) fn as_bob(server: &Server) -> String {
    server.url().replace("://", "://bob:hunter2@")
}

async fn user() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    with_users(&server)?;
    let (one, two) = (connect(&as_bob(&server), "one").await?, connect(&as_bob(&server), "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let lock = two.lock("x")?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    let membership = one.group("g")?.join_or_create(&1).await?;
    let mut watch = two.group("g")?.watch().await?;
    within("the snapshot", watch.next()).await?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    ensure!(guard.is_held(), "the session was lost");
    guard.release().await?;
    ensure!(within("the waiter", waiting).await???.is_held(), "the waiter has it");
    membership.leave().await?;
    within("the news", watch.next()).await?;
    let elsewhere = connect(&format!("{}?namespace=other", as_bob(&server)), "one").await?;
    let error = within("a namespace of others", elsewhere.lock("x")?.acquire()).await?.err();
    ensure!(error.is_some_and(|error| error.kind() == ErrorKind::Unauthorized), "bob may write everywhere");
    let refused = connect_error(&server.url()).await?;
    ensure!(refused.0 == ErrorKind::Unauthorized, "without a user: {refused:?}");
    Ok(())
}

async fn connect_error(url: &str) -> Result<(ErrorKind, String)> {
    let result = within("connecting", ConnectOptions::new(url)?.member("one")?.connect()).await?;
    let error = match result {
        Err(error) => error,
        // A user who may look at nothing is told at the first look.
        Ok(coordinator) => match coordinator.lock("x")?.holders().await {
            Err(error) => error,
            Ok(_) => anyhow::bail!("it was let in"),
        },
    };
    Ok((error.kind(), format!("{error} {error:?}")))
}

async fn wrong_password() -> Result<()> {
    let server = Server::start(Kind::Etcd)?;
    with_users(&server)?;
    let (kind, words) = connect_error(&server.url().replace("://", "://bob:swordfish@")).await?;
    ensure!(kind == ErrorKind::Unauthorized, "{words}");
    ensure!(!words.contains("swordfish"), "the password is shown: {words}");
    Ok(())
}

async fn token() -> Result<()> {
    let server = Setup::new(Kind::Etcd).argument("--auth-token-ttl 2").start()?;
    with_users(&server)?;
    let url = format!("{}?session_timeout=20s", as_bob(&server));
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let lock = two.lock("x")?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    // Nothing is asked for longer than a token lives: a beat comes only every 6.7 s.
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let mut watch = two.group("g")?;
    watch.create().await?;
    guard.release().await?;
    ensure!(within("the waiter", waiting).await???.is_held(), "the waiter has it");
    // A server that comes back knows no token of before.
    let guard = within("acquiring", one.lock("y")?.acquire()).await??;
    server.restart()?;
    eventually("it asks again", async || Ok(two.lock("y")?.holders().await.is_ok_and(|holders| holders.len() == 1)))
        .await?;
    ensure!(guard.is_held(), "the session was lost");
    within("releasing", guard.release()).await??;
    watch = one.group("g")?;
    watch.delete().await?;
    Ok(())
}

async fn tls() -> Result<()> {
    let server = Setup::new(Kind::Etcd).tls().start()?;
    let Some(ca) = server.ca_file() else { anyhow::bail!("a server with TLS has an authority") };
    let url = format!("{}?ca={}", server.url(), ca.display());
    if cfg!(not(feature = "tls")) {
        let (kind, words) = connect_error(&url).await?;
        ensure!(kind == ErrorKind::Config && words.contains("feature `tls`"), "{words}");
        return Ok(());
    }
    let one = connect(&url, "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    ensure!(guard.is_held(), "the session was lost");
    guard.release().await?;
    let (kind, words) = connect_error(&server.url()).await?;
    ensure!(kind == ErrorKind::Config && words.contains("ca"), "a stranger's certificate: {words}");
    let (_, words) = connect_error(&server.url().replace("etcd+https", "etcd")).await?;
    ensure!(words.contains("TLS"), "the message does not say what may be wrong: {words}");
    let (kind, words) = connect_error(&format!("{}?ca=/nowhere.pem", server.url())).await?;
    ensure!(kind == ErrorKind::Config && words.contains("/nowhere.pem"), "{words}");
    let (kind, words) = connect_error(&format!("{url}&cert={}", ca.display())).await?;
    ensure!(kind == ErrorKind::Config && words.contains("key"), "{words}");
    Ok(())
}
