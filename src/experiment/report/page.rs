//! The page: everything in one HTML file that needs nothing else.

use std::collections::BTreeSet;

use super::Section;
use super::chart::{escape, svg};
use super::claims::Claim;
use super::runs::{Found, Run, Runs};
use super::tables::{Cell, Table};

const STYLE: &str = "\
:root { color-scheme: light dark; --ink: #1a1a1a; --faint: #5c5c5c; --ground: #ffffff; --rule: #d8d8d8; --yes: #00654a; \
--no: #a03e00; }\n\
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --faint: #a8a8a8; --ground: #16181c; --rule: #3a3d44; \
--yes: #4fd1a5; --no: #ff9d57; } }\n\
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground); max-width: 76rem; margin: 2rem auto; \
padding: 0 1rem; }\n\
table { border-collapse: collapse; margin: 1rem 0; } .wide { overflow-x: auto; }\n\
th, td { border-bottom: 1px solid var(--rule); padding: .25rem .6rem; text-align: left; vertical-align: top; }\n\
td.number { text-align: right; white-space: nowrap; } .paper, .faint { color: var(--faint); } .runs { font-size: .75rem; }\n\
.yes { color: var(--yes); font-weight: bold; } .no { color: var(--no); font-weight: bold; } .undecided { font-weight: bold; }\n\
svg { max-width: 100%; height: auto; } a { color: inherit; } small { color: var(--faint); }\n";

/// The whole page.
pub fn html(runs: &Runs, sections: &[Section]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>SimCLR and RotNet, reproduced</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <h1>SimCLR and RotNet, reproduced</h1>\n\
         <p>The tables, figures and claims of 'An evaluation of self-supervised learning frameworks - SimCLR and RotNet', from \
         {} runs. <span class=\"paper\">The paper's values stand in brackets, or dashed.</span> Small numbers lead to the \
         runs behind a value.</p>\n",
        runs.all.len()
    );
    for section in sections {
        page += &section_html(section);
    }
    page += &list_of_runs(runs);
    page += "</body>\n</html>\n";
    page
}

fn section_html(section: &Section) -> String {
    let mut text = format!("<h2>{}</h2>\n", escape(&section.title));
    if !section.shrunk.is_empty() {
        text += "<p>Smaller than in the paper:</p>\n<ul>\n";
        for line in &section.shrunk {
            text += &format!("<li>{}</li>\n", escape(line));
        }
        text += "</ul>\n";
    }
    text += "<h3>Claims</h3>\n";
    text += &claims_html(&section.claims);
    for table in &section.tables {
        text += &format!("<h3>{}</h3>\n", escape(&table.title));
        text += &match table.is_empty() {
            true => "<p>Not drawn: none of its runs is there.</p>\n".to_string(),
            false => table_html(table, !section.shrunk.is_empty()),
        };
    }
    for figure in &section.figures {
        if figure.is_empty() {
            text += &format!(
                "<h3>{}</h3>\n<p>Not drawn: none of its runs is there.</p>\n",
                escape(&figure.title)
            );
            continue;
        }
        text += &format!(
            "<h3>{}</h3>\n<figure>\n{}</figure>\n<details><summary>Numbers</summary>\n{}</details>\n",
            escape(&figure.title),
            svg(figure),
            table_html(&figure.table(), !section.shrunk.is_empty())
        );
    }
    text
}

fn claims_html(claims: &[Claim]) -> String {
    let mut text =
        "<p>A claim holds where every comparison does by more than two standard errors (binomial over the test images, \
         combined with the spread over seeds), fails where one is contradicted by as much, and is undecided otherwise.</p>\n"
            .to_string();
    for claim in claims {
        let word = claim.verdict.word();
        text += &format!(
            "<details><summary>{}. {}: <span class=\"{word}\">{word}</span></summary>\n<ul>\n",
            claim.number,
            escape(&claim.statement)
        );
        for comparison in &claim.comparisons {
            let word = comparison.verdict.word();
            text += &format!(
                "<li>{}: <span class=\"{word}\">{word}</span> <span class=\"faint\">{}</span></li>\n",
                escape(&comparison.what),
                escape(comparison.numbers.as_deref().unwrap_or("a run is missing"))
            );
        }
        text += "</ul>\n</details>\n";
    }
    text
}

fn table_html(table: &Table, shrunk: bool) -> String {
    let mut text = "<div class=\"wide\"><table>\n<tr>".to_string();
    for name in &table.header {
        text += &format!("<th>{}</th>", escape(name));
    }
    text += "</tr>\n";
    for (name, cells) in &table.rows {
        text += &format!("<tr><th>{}</th>", escape(name));
        for cell in cells {
            text += &format!("<td class=\"number\">{}</td>", cell_html(cell));
        }
        text += "</tr>\n";
    }
    text += "</table></div>\n";
    let percent = table
        .rows
        .iter()
        .flat_map(|(_, cells)| cells)
        .any(|c| c.percent);
    let mut notes = Vec::new();
    if percent {
        notes.push("Accuracies in %.");
    }
    if shrunk {
        notes.push("Trained for less than in the paper, as said above.");
    }
    if !notes.is_empty() {
        text += &format!("<p><small>{}</small></p>\n", notes.join(" "));
    }
    text
}

fn cell_html(cell: &Cell) -> String {
    let mut text = escape(&cell.ours());
    if let Some(paper) = cell.paper() {
        text += &format!(" <span class=\"paper\">({paper})</span>");
    }
    if let Some(ours) = &cell.ours {
        let links = ours
            .runs
            .iter()
            .map(|i| format!("<a href=\"#run{}\">{}</a>", i + 1, i + 1));
        let links: Vec<String> = links.collect();
        text += &format!(" <sup class=\"runs\">{}</sup>", links.join(","));
    }
    text
}

/// What a run was, in words.
fn settings(run: &Run) -> String {
    let mut words = match &run.found {
        Found::Pretraining(s) => format!(
            "{}, {}, width {}, stem {}, batch {}, {} steps, {:.1} s",
            s.command, s.arch, s.width, s.stem, s.batch_size, s.steps, s.seconds
        ),
        Found::Classification(s) => format!(
            "{}, {}, width {}, {} of the labels ({} images), batch {}, {} steps, loss {:.3}",
            s.command,
            s.arch,
            s.width,
            s.label_fraction,
            s.labelled_images,
            s.batch_size,
            s.steps,
            s.final_loss_mean
        ),
        Found::Linear(s) => format!(
            "{}, {}, width {}, {} images at {} pixels, {} epochs",
            s.command, s.arch, s.width, s.labelled_images, s.resolution, s.epochs
        ),
        Found::Attack(s) => format!(
            "attack, {}, {} images, eps in {}{}",
            s.method,
            s.images,
            s.units,
            s.iterations
                .map_or(String::new(), |n| format!(", {n} iterations"))
        ),
    };
    if run.init != "random" {
        words += &format!("; weights from {}", run.init);
    }
    words
}

fn list_of_runs(runs: &Runs) -> String {
    let digests: BTreeSet<(&str, &str)> = runs
        .all
        .iter()
        .map(|run| (run.data.as_str(), run.digest.as_str()))
        .collect();
    let mut text =
        "<h2>Runs</h2>\n<p>Data sets, by the SHA-256 of their pixels and labels:</p>\n<ul>\n"
            .to_string();
    for (name, digest) in digests {
        text += &format!(
            "<li>{}: <code>{}</code></li>\n",
            escape(name),
            escape(digest)
        );
    }
    text += "</ul>\n<div class=\"wide\"><table>\n<tr><th></th><th>folder</th><th>what</th><th>protocol</th><th>data</th>\
             <th>seed</th><th>device</th></tr>\n";
    for (number, run) in runs.all.iter().enumerate() {
        text += &format!(
            "<tr id=\"run{n}\"><td>{n}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            escape(&run.folder),
            escape(&settings(run)),
            escape(&run.protocol),
            escape(&run.data),
            run.seed,
            escape(&run.device),
            n = number + 1,
        );
    }
    text += "</table></div>\n";
    text
}
