//! Tokens, what they may, and certificates.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tooz_core::{ConnectOptions, ErrorKind, GroupEvent};
use tooz_testbed::{Kind, Server, Setup};

use crate::Quirk;
use crate::ask;
use crate::stage::{connect, eventually, play, with, within};

pub(crate) const QUIRKS: &[Quirk] = &[
    ("access::a_token_for_keys_and_sessions_is_enough_once_the_node_is_there", || play(narrow())),
    ("access::a_token_that_may_not_make_sessions_is_told_so", || play(no_sessions())),
    ("access::a_token_that_may_not_read_one_key_is_told_so", || play(hidden_key())),
    ("access::what_a_token_may_not_read_for_a_while_is_not_gone", || play(hidden_for_a_while())),
    ("access::a_wrong_token_is_refused_and_not_shown", || play(wrong())),
    ("access::a_token_in_a_file_is_read_again_at_each_connection", || play(file())),
    ("access::tls_takes_whom_the_authority_vouches_for", || play(tls())),
];

const ROOT: &str = "6f2f9fd5-0000-4000-8000-000000000001";

/// A server that denies what no rule allows.
fn guarded() -> Result<Server> {
    let acl = format!("acl{{enabled=true default_policy=\"deny\" tokens{{master=\"{ROOT}\"}}}}");
    Setup::new(Kind::Consul).exact_argument("-hcl").exact_argument(acl).start()
}

fn as_root(server: &Server, method: &str, path: &str, body: &str) -> Result<String> {
    let head = format!("X-Consul-Token: {ROOT}\r\n");
    let began = std::time::Instant::now();
    loop {
        let (status, answer) = ask::asked(server.address(), method, path, &head, body);
        if status == 200 {
            return Ok(answer);
        }
        // A new leader makes the first token a moment later.
        ensure!(began.elapsed().as_secs() < 10, "{path}: {status} {answer}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A token with these rules.
fn token(server: &Server, name: &str, rules: &str) -> Result<String> {
    let policy = serde_json::json!({"Name": name, "Rules": rules}).to_string();
    as_root(server, "PUT", "/v1/acl/policy", &policy)?;
    let token = serde_json::json!({"Policies": [{"Name": name}]}).to_string();
    let made: serde_json::Value = serde_json::from_str(&as_root(server, "PUT", "/v1/acl/token", &token)?)?;
    Ok(made["SecretID"].as_str().context("a token")?.to_owned())
}

const KEYS: &str = "key_prefix \"tooz/\" { policy = \"write\" }";
const SESSIONS: &str = "session \"tooz-sessions\" { policy = \"write\" }";

fn register(server: &Server) -> Result<()> {
    as_root(server, "PUT", "/v1/catalog/register", r#"{"Node":"tooz-sessions","Address":"127.0.0.1"}"#).map(drop)
}

/// Gives the token's policy other rules.
fn change(server: &Server, name: &str, rules: &str) -> Result<()> {
    let all: Vec<serde_json::Value> = serde_json::from_str(&as_root(server, "GET", "/v1/acl/policies", "")?)?;
    let policy = all.iter().find(|policy| policy["Name"] == name).context("a policy")?;
    let id = policy["ID"].as_str().context("its id")?;
    let body = serde_json::json!({"ID": id, "Name": name, "Rules": rules}).to_string();
    as_root(server, "PUT", &format!("/v1/acl/policy/{id}"), &body).map(drop)
}

async fn hidden_for_a_while() -> Result<()> {
    let server = guarded()?;
    register(&server)?;
    let (all, few) =
        (token(&server, "all", &format!("{KEYS} {SESSIONS}"))?, token(&server, "few", &format!("{KEYS} {SESSIONS}"))?);
    let member = connect(&with(&server.url(), &format!("token={all}")), "member").await?;
    let membership = member.group("g")?.join_or_create(&1).await?;
    let watcher = connect(&with(&server.url(), &format!("token={few}")), "watcher").await?;
    let mut watch = within("watching", watcher.group("g")?.watch()).await??;
    ensure!(matches!(watch.next().await, Some(GroupEvent::Snapshot(members)) if members.len() == 1), "the snapshot");
    change(&server, "few", SESSIONS)?;
    eventually("the refusal", || async {
        let answer = watcher.group("g")?.members().await;
        Ok(answer.is_err_and(|error| error.kind() == ErrorKind::Unauthorized))
    })
    .await?;
    // For longer than a question waits: nothing is told of what can't be seen.
    ensure!(tokio::time::timeout(Duration::from_secs(12), watch.next()).await.is_err(), "something is told");
    change(&server, "few", &format!("{KEYS} {SESSIONS}"))?;
    within("updating", membership.update(&2)).await??;
    let told = within("the change", watch.next()).await?;
    ensure!(matches!(&told, Some(GroupEvent::Updated(_) | GroupEvent::Reset(_))), "{told:?}");
    membership.leave().await?;
    Ok(())
}

async fn narrow() -> Result<()> {
    let server = guarded()?;
    let token = token(&server, "fleet", &format!("{KEYS} {SESSIONS}"))?;
    let url = with(&server.url(), &format!("token={token}"));
    let early = connect(&url, "early").await?;
    let error = within("acquiring", early.lock("x")?.acquire()).await?.err().context("there is no node yet")?;
    ensure!(error.kind() == ErrorKind::Unauthorized && error.to_string().contains("tooz-sessions"), "{error}");
    register(&server)?;
    let (one, two) = (connect(&url, "one").await?, connect(&url, "two").await?);
    let guard = one.lock("x")?.acquire().await?;
    let membership = one.group("g")?.join_or_create(&1).await?;
    let lock = two.lock("x")?;
    let waiting = tokio::spawn(async move { lock.acquire().await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(guard.is_held() && membership.is_member() && !waiting.is_finished(), "something was lost");
    let holders = two.lock("x")?.holders().await?;
    two.lock("x")?.break_lock(&holders[0]).await?;
    ensure!(within("the waiter's turn", waiting).await???.is_held(), "the waiter waited for nothing");
    within("the loss", guard.loss().wait()).await?;
    Ok(())
}

async fn no_sessions() -> Result<()> {
    let server = guarded()?;
    register(&server)?;
    let token = token(&server, "keys", KEYS)?;
    let one = connect(&with(&server.url(), &format!("token={token}")), "one").await?;
    let error = within("acquiring", one.lock("x")?.acquire()).await?.err().context("it may not")?;
    let words = error.to_string();
    let names_it = words.contains("needs session \"tooz-sessions\"") && !words.contains("key_prefix");
    ensure!(error.kind() == ErrorKind::Unauthorized && names_it, "{error}");
    ensure!(!error.to_string().contains(&token), "{error}");
    Ok(())
}

/// What a token may not read is left out of answers without a word: a second holder would think that it is the first.
async fn hidden_key() -> Result<()> {
    let server = guarded()?;
    register(&server)?;
    let whole = token(&server, "whole", &format!("{KEYS} {SESSIONS}"))?;
    let hole = "key_prefix \"tooz/tooz/locks/secret/\" { policy = \"deny\" }";
    let with_hole = token(&server, "hole", &format!("{KEYS} {SESSIONS} {hole}"))?;
    let one = connect(&with(&server.url(), &format!("token={whole}")), "one").await?;
    let two = connect(&with(&server.url(), &format!("token={with_hole}")), "two").await?;
    let guard = one.lock("secret")?.acquire().await?;
    let error = within("acquiring", two.lock("secret")?.acquire()).await?.err().context("it may not")?;
    ensure!(error.kind() == ErrorKind::Unauthorized && guard.is_held(), "{error}");
    drop(within("another lock", two.lock("open")?.acquire()).await??);
    Ok(())
}

async fn wrong() -> Result<()> {
    let server = guarded()?;
    let url = with(&server.url(), "token=hunter2-hunter2");
    let error = match within("connecting", ConnectOptions::new(&url)?.member("one")?.connect()).await? {
        Err(error) => error,
        Ok(one) => within("acquiring", one.lock("x")?.acquire()).await?.err().context("it is no token")?,
    };
    ensure!(error.kind() == ErrorKind::Unauthorized, "{error}");
    ensure!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    Ok(())
}

async fn file() -> Result<()> {
    let server = guarded()?;
    register(&server)?;
    let rules = format!("{KEYS} {SESSIONS}");
    let (first, second) = (token(&server, "first", &rules)?, token(&server, "second", &rules)?);
    let place = server.folder().join("token");
    std::fs::write(&place, format!("{first}\n"))?;
    let one =
        connect(&with(&server.url(), &format!("token_file={}&session_timeout=6s", place.display())), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    std::fs::write(&place, &second)?;
    let accessor: serde_json::Value = {
        let head = format!("X-Consul-Token: {first}\r\n");
        serde_json::from_str(&ask::asked(server.address(), "GET", "/v1/acl/token/self", &head, "").1)?
    };
    let id = accessor["AccessorID"].as_str().context("an id")?;
    as_root(&server, "DELETE", &format!("/v1/acl/token/{id}"), "")?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    ensure!(guard.is_held(), "the session was lost with the token");
    eventually("other locks are to be had", async || Ok(one.lock("y")?.try_acquire().await.is_ok())).await
}

async fn tls() -> Result<()> {
    let server = Setup::new(Kind::Consul).tls().start()?;
    let ca = server.ca_file().context("an authority")?.display().to_string();
    let one = connect(&with(&server.url(), &format!("ca={ca}")), "one").await?;
    let guard = one.lock("x")?.acquire().await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    ensure!(guard.is_held(), "the session was lost");
    guard.release().await?;
    let stranger = Setup::new(Kind::Consul).tls().start()?;
    let options = ConnectOptions::new(&with(&stranger.url(), &format!("ca={ca}")))?.member("one")?;
    let error = within("connecting", options.connect()).await?.err().context("a strange server")?;
    ensure!(error.kind() == ErrorKind::Config && error.to_string().contains("option ca"), "{error}");
    Ok(())
}
