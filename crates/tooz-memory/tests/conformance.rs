//! What every driver must show, on a store for each case, whose clock the suite may move.

use tooz_conformance::Rig;
use tooz_memory::Store;

fn store(url: &str) -> Store {
    Store::named(url.trim_start_matches("memory://").split(['?', '/']).next().unwrap_or_default())
}

fn rig() -> Rig {
    Rig::new("memory", |tag| format!("memory://{tag}"))
        .end_session(|url, member| store(url).expire(&member.parse().expect("a member id")))
        .cut(|url, member| store(url).partition(&member.parse().expect("a member id")))
        .heal(|url, member| store(url).heal(&member.parse().expect("a member id")))
        .advance_clock(|url, by| store(url).advance(by))
}

tooz_conformance::suite!(rig());
