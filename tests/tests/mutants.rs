//! Known bugs, put into the memory driver one at a time: each must be caught by the case that is named for it.

use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};
use tooz_conformance::mutant::Bug;
use tooz_conformance::{Rig, run_case};
// The driver, registered by being linked.
use tooz_tests as _;

fn rig(bug: Option<Bug>) -> Rig {
    let store = |url: &str| {
        let name = url.trim_start_matches("mutant://").split(['?', '/']).next().unwrap_or_default();
        tooz::memory::Store::named(name)
    };
    let member = |name: &str| name.parse().expect("a member id");
    let suffix = bug.map_or_else(String::new, |bug| format!("?bug={bug}"));
    let prefix = bug.map_or_else(|| "faithful".to_owned(), |bug| bug.to_string());
    Rig::new("mutant", move |tag| format!("mutant://{prefix}-{tag}{suffix}"))
        .patience(Duration::from_secs(3))
        .end_session(move |url, name| store(url).expire(&member(name)))
        .cut(move |url, name| store(url).partition(&member(name)))
        .heal(move |url, name| store(url).heal(&member(name)))
        .advance_clock(move |url, by| store(url).advance(by))
}

fn is_caught(bug: Bug) -> Result<(), Failed> {
    let case = bug.caught_by();
    // The case must be able to tell: without the bug it passes, through the same wrapper.
    run_case(&rig(None), case).map_err(|why| format!("{case} fails without the bug: {why}"))?;
    match run_case(&rig(Some(bug)), case) {
        Err(why) if why.starts_with("not claimed") => Err(why.into()),
        Err(_) => Ok(()),
        Ok(()) => Err(format!("{case} does not notice it").into()),
    }
}

fn main() {
    tooz_conformance::serve_worker();
    let arguments = Arguments::from_args();
    let trials =
        Bug::ALL.iter().map(|bug| Trial::test(format!("{bug} is caught by {}", bug.caught_by()), || is_caught(*bug)));
    let faithful = Trial::test("a wrapper that delegates every method passes every case", || {
        for case in tooz_conformance::case_names() {
            match run_case(&rig(None), case) {
                Err(why) if !why.starts_with("not claimed") => return Err(format!("{case}: {why}").into()),
                _ => {}
            }
        }
        Ok(())
    });
    libtest_mimic::run(&arguments, trials.chain([faithful]).collect()).exit();
}
