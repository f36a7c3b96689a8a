//! The report: reads run folders and writes tables, figures and the answers to the paper's claims,
//! as one page, Markdown, CSV, SVG and JSON.

mod chart;
mod claims;
mod figures;
mod inference;
mod page;

mod results;
mod runs;
mod statistics;
#[cfg(test)]
mod synthetic;
mod tables;
mod text;

use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::runs::folder::write_whole;
use figures::Figure;
pub use inference::Answer;
use inference::Claim;
use runs::{Runs, Scope};
use tables::Table;

/// Tables, figures and claims of the runs that are comparable: those of one protocol and width.
pub(crate) struct Section {
    title: String,
    /// Prefix of this section's file names if there is more than one section, otherwise empty.
    prefix: String,
    /// Differences from the paper, one line each.
    shrunk: Vec<String>,
    tables: Vec<Table>,
    figures: Vec<Figure>,
    claims: Vec<Claim>,
}

/// Summary of a written report.
pub struct Written {
    pub runs: usize,
    /// The answers to the claims of each section, with its title.
    pub answers: Vec<(String, Vec<Answer>)>,
}

/// Writes the report on the runs in `dir` and its subfolders into the folder `out`.
///
/// # Errors
/// `Error::Usage` if there is no run, `Error::Data` if a file of a run is damaged, `Error::Io` if a
/// file cannot be read or written.
pub fn write(dir: &Path, out: &Path) -> Result<Written> {
    let runs = Runs::read(dir)?;
    let scopes = runs.scopes();
    let several = scopes.len() > 1;
    let sections: Vec<Section> = scopes.iter().map(|scope| section(scope, several)).collect();
    fs::create_dir_all(out).map_err(|e| Error::write(out, e))?;
    for section in &sections {
        write_section(section, &runs, out)?;
    }
    write_whole(out, "results.json", results::json(&runs)?.as_bytes())?;
    write_whole(out, "report.html", page::html(&runs, &sections).as_bytes())?;
    Ok(Written {
        runs: runs.all.len(),
        answers: sections
            .into_iter()
            .map(|s| (s.title, s.claims.iter().map(|c| c.answer).collect()))
            .collect(),
    })
}

fn section(scope: &Scope<'_>, several: bool) -> Section {
    let second = scope
        .second
        .as_ref()
        .map_or(String::new(), |name| format!(" and {name}"));
    Section {
        title: format!(
            "{} protocol, width {}, {}{second}",
            scope.protocol, scope.width, scope.first
        ),
        prefix: if several {
            format!("{}-width{}-", scope.protocol, scope.width)
        } else {
            String::new()
        },
        shrunk: scope
            .runs
            .grid
            .as_ref()
            .map(|grid| grid.shrunk.clone())
            .unwrap_or_default(),
        tables: tables::tables(scope),
        figures: figures::figures(scope),
        claims: claims::claims(scope),
    }
}

fn write_section(section: &Section, runs: &Runs, out: &Path) -> Result<()> {
    let named = |name: &str, end: &str| format!("{}{name}.{end}", section.prefix);
    let note = if section.shrunk.is_empty() {
        String::new()
    } else {
        format!(
            "\nDifferences from the paper:\n\n- {}\n",
            section.shrunk.join("\n- ")
        )
    };
    let drawn = section.figures.iter().filter(|figure| !figure.is_empty());
    let of_figures: Vec<Table> = drawn.clone().map(Figure::table).collect();
    let tables = section.tables.iter().filter(|table| !table.is_empty());
    for table in tables.chain(&of_figures) {
        let markdown = format!(
            "# {}\n\n{}.\n\n{}{note}",
            table.title,
            section.title,
            text::markdown(table)
        );
        write_whole(out, &named(table.id, "md"), markdown.as_bytes())?;
        write_whole(
            out,
            &named(table.id, "csv"),
            text::csv(table, runs).as_bytes(),
        )?;
    }
    for figure in drawn {
        write_whole(out, &named(figure.id, "svg"), chart::svg(figure).as_bytes())?;
    }
    let claims = format!(
        "# Claims\n\n{}.\n\n{}{note}",
        section.title,
        text::claims(&section.claims)
    );
    write_whole(out, &named("claims", "md"), claims.as_bytes())
}
