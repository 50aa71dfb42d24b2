//! `tooz drivers`: what is linked, how its URLs look, what it takes and what it can.

use serde_json::{Value, json};
use tooz::driver::{COMMON_OPTIONS, OptionSpec};
use tooz::{Characteristic, Driver};

use crate::args::Global;
use crate::exit;
use crate::failure::CommandFailure;
use crate::output;

pub(super) fn run(global: &Global) -> Result<u8, CommandFailure> {
    let drivers = tooz::drivers();
    if global.json {
        let list: Vec<_> = drivers.iter().map(|driver| as_json(driver)).collect();
        output::json(&json!({ "drivers": list, "common_options": options_json(COMMON_OPTIONS) }))?;
        return Ok(exit::SUCCESS);
    }
    for driver in &drivers {
        output::line(format_args!("{}: {}", driver.name(), driver.about_text()))?;
        output::line(format_args!("  url         {}", driver.url_form()))?;
        output::line(format_args!("  schemes     {}", driver.schemes().join(", ")))?;
        print_options("options    ", driver.option_specs())?;
        let can: Vec<_> = driver.most_characteristics().iter().map(Characteristic::name).collect();
        output::line(format_args!("  at its best {}\n", if can.is_empty() { "-".to_owned() } else { can.join(", ") }))?;
    }
    output::line("every driver")?;
    print_options("options    ", COMMON_OPTIONS)?;
    Ok(exit::SUCCESS)
}

fn print_options(title: &str, options: &[OptionSpec]) -> std::io::Result<()> {
    if options.is_empty() {
        return output::line(format_args!("  {title} none of its own"));
    }
    for (index, option) in options.iter().enumerate() {
        let title = if index == 0 { title.to_owned() } else { " ".repeat(title.len()) };
        let (name, value, default, about) = (option.name, option.value.name(), option.default, option.about);
        output::line(format_args!("  {title} {name}={value}: {about} [default: {default}]"))?;
    }
    Ok(())
}

fn as_json(driver: &Driver) -> Value {
    json!({
        "name": driver.name(),
        "about": driver.about_text(),
        "url": driver.url_form(),
        "schemes": driver.schemes(),
        "options": options_json(driver.option_specs()),
        "characteristics": driver.most_characteristics().iter().map(Characteristic::name).collect::<Vec<_>>(),
    })
}

fn options_json(options: &[OptionSpec]) -> Value {
    let one = |option: &OptionSpec| {
        json!({
            "name": option.name,
            "value": option.value.name(),
            "default": option.default,
            "about": option.about,
        })
    };
    options.iter().map(one).collect()
}
