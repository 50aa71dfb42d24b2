//! `tooz manual`: the manual pages and completion scripts, as a package has them.

use std::fs::{File, create_dir_all};
use std::io;
use std::path::Path;

use clap::{CommandFactory, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Arguments;
use crate::exit;
use crate::failure::CommandFailure;
use crate::output;
use crate::speech::words::plain;

pub(super) fn write(folder: &Path) -> Result<u8, CommandFailure> {
    let failed = |error: io::Error| {
        CommandFailure::output(format!("writing to {}: {}", folder.display(), plain(&error.to_string())))
    };
    let (pages, completions) = (folder.join("man1"), folder.join("completions"));
    create_dir_all(&pages).and_then(|()| create_dir_all(&completions)).map_err(failed)?;
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    write_pages(&command, "tooz", &pages).map_err(failed)?;
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut Arguments::command(), "tooz", &completions).map_err(failed)?;
    }
    output::line(format_args!("{}\n{}", pages.display(), completions.display()))?;
    Ok(exit::SUCCESS)
}

/// A page for a command, and for each of its subcommands: `tooz-group-create.1`.
fn write_pages(command: &clap::Command, name: &str, folder: &Path) -> io::Result<()> {
    let page = Man::new(command.clone()).title(name);
    page.render(&mut File::create(folder.join(format!("{name}.1")))?)?;
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        write_pages(below, &format!("{name}-{}", below.get_name()), folder)?;
    }
    Ok(())
}
