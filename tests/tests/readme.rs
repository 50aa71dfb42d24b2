//! The driver tables of the README are printed from the code. `TOOZ_UPDATE_README=1 cargo test -p tooz-tests` writes them.

use std::fmt::Write;
use std::path::Path;

use tooz::driver::CharacteristicKind;
use tooz::{Characteristic, Driver};

const BEGIN: &str = "<!-- drivers: printed from the code, checked by a test -->\n";
const END: &str = "<!-- /drivers -->";

#[test]
fn the_readme_says_what_the_drivers_say() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the README has the marks");
    let (found, after) = rest.split_once(END).expect("the README has the marks");
    let wanted = tables(&tooz::drivers());
    if std::env::var_os("TOOZ_UPDATE_README").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{wanted}{END}{after}")).unwrap();
    } else {
        assert_eq!(found, wanted, "run TOOZ_UPDATE_README=1 cargo test -p tooz-tests --test readme");
    }
}

fn tables(drivers: &[&Driver]) -> String {
    let mut text = String::from("\n| driver | URL | schemes | what it is |\n|---|---|---|---|\n");
    for driver in drivers {
        let (name, url, about) = (driver.name(), driver.url_form(), driver.about_text());
        let _ = writeln!(text, "| `{name}` | `{url}` | {} | {about} |", driver.schemes().join(", "));
    }
    let names: Vec<_> = drivers.iter().map(|driver| driver.name()).collect();
    let _ = writeln!(text, "\n| at best | {} |", names.join(" | "));
    let _ = writeln!(text, "|---|{}", ":-:|".repeat(drivers.len()));
    for kind in [CharacteristicKind::Capability, CharacteristicKind::Quality] {
        for one in Characteristic::ALL.iter().filter(|one| one.kind() == kind) {
            let marks: Vec<_> = drivers.iter().map(|driver| if driver.can(*one) { "✓" } else { "·" }).collect();
            let _ = writeln!(text, "| `{one}` | {} |", marks.join(" | "));
        }
    }
    text.push('\n');
    text
}
