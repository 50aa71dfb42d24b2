//! The memory driver with a known bug, by the scheme `mutant`: what shows that the suite and chaos would notice one.

use std::sync::Arc;

use tooz::Driver;
use tooz::driver::{ConnectArgs, ConnectFuture, OptionSpec, OptionValue};
use tooz_conformance::mutant::{self, Bug};

/// The memory driver with the bug that the URL names (`mutant://NAME?bug=…`), or with none.
pub const MUTANT: Driver = Driver::new("mutant", &["mutant"], connect)
    .characteristics(tooz::memory::DRIVER.most_characteristics())
    .options(&[OptionSpec::new("bug", OptionValue::Text, "none", "what is wrong with it")]);

tooz::register!(MUTANT);

fn connect(args: ConnectArgs) -> ConnectFuture {
    Box::pin(async move {
        let bug = args.options.text("bug").and_then(|name| named(name).ok());
        let session = tooz::memory::DRIVER.connect(args).await?;
        Ok(bug.map_or_else(|| mutant::faithful(Arc::clone(&session)), |bug| mutant::wrap(Arc::clone(&session), bug)))
    })
}

/// The bug of that name. The error lists those that there are.
pub fn named(name: &str) -> Result<Bug, String> {
    let found = Bug::ALL.iter().copied().find(|bug| bug.to_string() == name);
    let names = || Bug::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("there is no bug `{name}`; there are: {}", names()))
}
