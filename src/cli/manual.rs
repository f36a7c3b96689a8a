//! `parallax manual`: the man pages.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_mangen::Man;

use crate::console::{note, say};
use crate::error::{Error, Result};
use crate::runs::folder::make;
use crate::runs::whole_file::write_file;

/// Write a man page for each command
///
/// Pages that are there are replaced. For every user of the machine:
/// parallax manual /usr/local/share/man/man1
#[derive(Args)]
pub struct Arguments {
    /// The folder to write to, which is made if it does not exist
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub fn run(Arguments { dir }: &Arguments) -> Result<()> {
    make(dir)?;
    let mut program = super::Arguments::command().disable_help_subcommand(true);
    // Subcommands get their full names.
    program.build();
    let count = write_pages(&program, dir)?;
    say!("{count} man pages in {}", dir.display());
    note!("read one with: man {}", dir.join("parallax.1").display());
    Ok(())
}

/// Writes the pages of a command and of its subcommands, and returns their number.
fn write_pages(command: &clap::Command, dir: &Path) -> Result<usize> {
    let page = Man::new(command.clone())
        .source(concat!("parallax ", env!("CARGO_PKG_VERSION")))
        .manual("Parallax");
    let path = dir.join(page.get_filename());
    let mut content = Vec::new();
    page.render(&mut content)
        .map_err(|e| Error::write(&path, e))?;
    write_file(&path, &content)?;
    let mut count = 1;
    for subcommand in command.get_subcommands() {
        count += write_pages(subcommand, dir)?;
    }
    Ok(count)
}
