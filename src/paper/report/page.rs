//! The page: the whole report as one self-contained HTML file.

use std::collections::BTreeSet;

use super::Section;
use super::chart::inline;
use super::figures::Figure;
use super::inference::{Answer, Claim, Finding, Measure, RULE};
use super::runs::{Found, Run, Runs};
use super::tables::{Cell, Table};
use crate::drawing::{escape, page};
use crate::runs::result::RunResult;

const NOT_RUN: &str = "<p class=\"faint\">Not run.</p>\n";

/// Returns the whole page.
pub fn html(runs: &Runs, sections: &[Section]) -> String {
    let mut body = opening(runs);
    for section in sections {
        body += &section_html(section, sections.len() > 1);
    }
    body += &appendix(runs, sections);
    page("SimCLR and RotNet, reproduced", &body)
}

/// Wraps `text` in a span for measured times, the only values that differ between runs with the
/// same results.
fn seconds(text: &str) -> String {
    format!("<span class=\"seconds\">{text}</span>")
}

fn duration(total: f64) -> String {
    match total {
        t if t < 120.0 => format!("{t:.0} seconds"),
        t if t < 7200.0 => format!("{:.0} minutes", t / 60.0),
        t => format!("{:.1} hours", t / 3600.0),
    }
}

/// Returns the different values of `of`, sorted.
fn distinct<'a, T: Ord>(runs: &'a Runs, of: impl Fn(&'a Run) -> T) -> Vec<T> {
    let all: BTreeSet<T> = runs.all.iter().map(of).collect();
    all.into_iter().collect()
}

fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

/// Returns the opening paragraph, which states what was run.
fn opening(runs: &Runs) -> String {
    let count = runs.all.len();
    let what = match &runs.grid {
        None => format!("{count} runs"),
        Some(grid) => {
            let there = |id: &str| {
                let mut folders = runs.all.iter().map(|run| run.folder.as_str());
                folders.any(|folder| folder.rsplit(['/', '\\']).next() == Some(id))
            };
            let done = grid.jobs.iter().filter(|job| there(&job.id)).count();
            format!(
                "{done} of the {} jobs of <code>parallax reproduce --scale {}</code>",
                grid.jobs.len(),
                escape(&grid.scale)
            )
        }
    };
    let data = distinct(runs, |run| escape(&run.result.data));
    let devices = distinct(runs, |run| escape(&run.result.device));
    let protocols = distinct(runs, |run| escape(&run.result.protocol));
    let seeds: Vec<String> = distinct(runs, |run| run.result.seed)
        .iter()
        .map(u64::to_string)
        .collect();
    let total = runs.all.iter().map(|run| run.result.total_seconds).sum();
    let shrunk = runs.grid.as_ref().is_some_and(|g| !g.shrunk.is_empty());
    let scale = if shrunk {
        " The settings <a href=\"#differences\">differ from the paper's</a>."
    } else {
        ""
    };
    format!(
        "<p>This page compares 'An evaluation of self-supervised learning frameworks - SimCLR and RotNet' (Chen, Hsu, \
         Jang) with {what}: {} under the {} protocol, on {} (seed{} {}; {} in all).{scale} The paper's values have \
         separate columns in the tables and dashed lines in the figures. Superscript numbers link to the \
         runs behind a value.</p>\n",
        listed(&data),
        listed(&protocols),
        listed(&devices),
        if seeds.len() == 1 { "" } else { "s" },
        listed(&seeds),
        seconds(&duration(total)),
    )
}

fn section_html(section: &Section, several: bool) -> String {
    let mut text = String::new();
    if several {
        text += &format!("<h2>{}</h2>\n", escape(&section.title));
    }
    text += "<h2>Findings</h2>\n";
    text += &claims_html(&section.claims);
    text += "<h2>Figures</h2>\n<div class=\"figures\">\n";
    for figure in &section.figures {
        text += &figure_html(figure);
    }
    text += "</div>\n<h2>Tables</h2>\n";
    for table in &section.tables {
        text += &format!("<h3>{}</h3>\n", escape(&table.title));
        text += &if table.is_empty() {
            NOT_RUN.to_string()
        } else {
            table_html(table)
        };
    }
    text
}

fn figure_html(figure: &Figure) -> String {
    if figure.is_empty() {
        return format!("<div><h4>{}</h4>\n{NOT_RUN}</div>\n", escape(&figure.title));
    }
    format!(
        "<div><figure>\n{}</figure>\n<details><summary>Numbers</summary>\n{}</details></div>\n",
        inline(figure),
        table_html(&figure.table())
    )
}

fn class(answer: Answer) -> &'static str {
    match answer {
        Answer::Supported => "supported",
        Answer::Contradicted => "contradicted",
        Answer::NotDecided | Answer::NotTested => "open",
    }
}

fn ours(finding: &Finding) -> String {
    let text = escape(&finding.ours()).replacen(" (", "<br>(", 1);
    match finding.measure {
        Measure::Cost if finding.ours.is_some_and(|i| i.low != i.high) => seconds(&text),
        _ => text,
    }
}

fn claims_html(claims: &[Claim]) -> String {
    let mut text = "<div class=\"wide\"><table class=\"claims\">\n<thead><tr><th>Claim</th><th>Effect, positive if \
                    it agrees</th><th>Paper</th><th>Ours (confidence interval)</th><th>Answer</th></tr></thead>\n\
                    <tbody>\n"
        .to_string();
    for claim in claims {
        for (i, finding) in claim.findings.iter().enumerate() {
            let rows = claim.findings.len();
            let aside = if finding.decides {
                ""
            } else {
                " <span class=\"faint\">(decides nothing)</span>"
            };
            let (first, last) = match i {
                0 => (
                    format!(
                        "<td class=\"claim\" rowspan=\"{rows}\">{}. {}</td>",
                        claim.number,
                        escape(claim.statement)
                    ),
                    format!(
                        "<td class=\"why\" rowspan=\"{rows}\"><span class=\"answer {}\">{}</span><br>\
                         <span class=\"faint\">{}</span></td>",
                        class(claim.answer),
                        claim.answer.words(),
                        escape(&claim.reason)
                    ),
                ),
                _ => (String::new(), String::new()),
            };
            text += &format!(
                "<tr class=\"{}\">{first}<td class=\"effect\">{}{aside}</td>\
                 <td class=\"theirs paper\">{}</td><td class=\"ours\">{}</td>{last}</tr>\n",
                if i == 0 { "first" } else { "more" },
                escape(&finding.what),
                escape(&finding.paper()),
                ours(finding),
            );
        }
    }
    text + "</tbody></table></div>\n<p class=\"faint\">The eight answers share a family-wise error rate of 5 %. \
            A ratio of costs agrees with its claim if it is below 1. The \
            <a href=\"#rule\">appendix</a> explains the test.</p>\n"
}

fn table_html(table: &Table) -> String {
    let paper = table.has_paper();
    let span = if paper { 2 } else { 1 };
    let mut text = "<div class=\"wide\"><table>\n<thead><tr>".to_string();
    for name in &table.keys {
        text += &format!("<th rowspan=\"{span}\">{}</th>", escape(name));
    }
    for name in &table.columns {
        text += &format!(
            "<th class=\"over start\" colspan=\"{span}\">{}</th>",
            escape(name)
        );
    }
    if paper {
        let pair = "<th class=\"number start\">ours</th><th class=\"number paper\">paper</th>";
        text += &format!("</tr>\n<tr>{}", pair.repeat(table.columns.len()));
    }
    text += "</tr></thead>\n<tbody>\n";
    for (labels, cells) in &table.rows {
        text += "<tr>";
        for label in labels {
            text += &format!("<th>{}</th>", escape(label));
        }
        for cell in cells {
            text += &format!("<td class=\"number start\">{}</td>", cell_html(cell));
            if paper {
                text += &format!("<td class=\"number paper\">{}</td>", cell.paper());
            }
        }
        text += "</tr>\n";
    }
    text += "</tbody></table></div>\n";
    if table.has_percent() {
        text += "<p class=\"faint\">Accuracies in %.</p>\n";
    }
    text
}

fn cell_html(cell: &Cell) -> String {
    let Some(ours) = &cell.ours else {
        return format!("<span class=\"faint\">{}</span>", cell.ours());
    };
    let links = ours.runs.iter().map(|i| i + 1);
    let links = links.map(|n| format!("<a href=\"#run{n}\">{n}</a>"));
    let links: Vec<String> = links.collect();
    format!(
        "{}<sup class=\"links\">{}</sup>",
        escape(&cell.ours()),
        links.join(",")
    )
}

fn appendix(runs: &Runs, sections: &[Section]) -> String {
    let mut text = "<div class=\"appendix\">\n<h2>Appendix</h2>\n".to_string();
    text += "<h3 id=\"differences\">Differences from the paper</h3>\n<ul>\n";
    let shrunk = runs.grid.as_ref().map_or(&[][..], |grid| &grid.shrunk);
    let own = shrunk.iter().map(|line| escape(line));
    let scale =
        "the settings are those of the runs below; there is no grid.json that lists the differences".to_string();
    let none = runs.grid.is_none().then_some(scale);
    for line in own.chain(none) {
        text += &format!("<li>{line}</li>\n");
    }
    text += &format!(
        "<li>Data sets: {}; the paper uses CIFAR-10 and STL-10</li>\n</ul>\n",
        listed(&distinct(runs, |run| escape(&run.result.data)))
    );
    text += "<h3 id=\"rule\">How claims are answered</h3>\n";
    for paragraph in RULE.split("\n\n") {
        text += &format!("<p>{}</p>\n", escape(paragraph.trim()));
    }
    text += "<h3>Settings and data</h3>\n<ul>\n";
    for section in sections {
        text += &format!("<li>{}</li>\n", escape(&section.title));
    }
    let devices = listed(&distinct(runs, |run| escape(&run.result.device)));
    text += &format!("<li>Devices: {devices}</li>\n");
    let seeds: Vec<String> = distinct(runs, |run| run.result.seed)
        .iter()
        .map(u64::to_string)
        .collect();
    text += &format!("<li>Seeds: {}</li>\n", listed(&seeds));
    let starts = listed(&distinct(runs, |run| escape(&run.init)));
    text += &format!("<li>Initial weights: {starts}</li>\n");
    for (name, digest) in distinct(runs, |run| (run.result.data.as_str(), run.digest.as_str())) {
        text += &format!(
            "<li>{}: SHA-256 of pixels and labels <code>{}</code></li>\n",
            escape(name),
            escape(digest)
        );
    }
    text += "</ul>\n";
    text += &list_of_runs(runs);
    text + "</div>\n"
}

/// Describes a run in words.
fn settings(run: &Run) -> String {
    let RunResult {
        command,
        arch,
        width,
        metrics,
        ..
    } = &run.result;
    let mut words = match metrics {
        Found::Pretraining(s) => {
            let (stem, training) = (&s.stem, &s.training);
            format!(
                "{command}, {arch}, width {width}, stem {stem}, batch {}, {} steps, {}",
                training.batch_size, training.steps, training.precision
            )
        }
        Found::Classification(s) => {
            let (fraction, images, training) = (s.label_fraction, s.labelled_images, &s.training);
            format!(
                "{command}, {arch}, width {width}, {fraction} of the labels ({images} images), batch {}, {} steps, loss {:.3}",
                training.batch_size, training.steps, training.final_loss_mean
            )
        }
        Found::Linear(s) => format!(
            "{command} of {}, {arch}, width {width}, {} images at {} pixels, {} epochs",
            s.start.command, s.labelled_images, s.resolution, s.epochs
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
    // A column is left out if all runs have the same value in it.
    let devices = distinct(runs, |run| run.result.device.as_str()).len() > 1;
    let protocols = distinct(runs, |run| run.result.protocol.as_str()).len() > 1;
    let optional = |shown: bool, tag: &str, text: &str| {
        if shown {
            format!("<{tag}>{text}</{tag}>")
        } else {
            String::new()
        }
    };
    let mut text = format!(
        "<h3>Runs</h3>\n<div class=\"wide\"><table>\n<thead><tr><th></th><th>folder</th><th>what</th><th>data</th>{}{}\
         <th>seed</th><th class=\"number\">seconds</th></tr></thead>\n<tbody>\n",
        optional(protocols, "th", "protocol"),
        optional(devices, "th", "device"),
    );
    for (number, run) in runs.all.iter().enumerate() {
        text += &format!(
            "<tr id=\"run{n}\"><td>{n}</td><td>{}</td><td>{}</td><td>{}</td>{}{}<td>{}</td>\
             <td class=\"number\">{}</td></tr>\n",
            escape(&run.folder),
            escape(&settings(run)),
            escape(&run.result.data),
            optional(protocols, "td", &escape(&run.result.protocol)),
            optional(devices, "td", &escape(&run.result.device)),
            run.result.seed,
            seconds(&format!("{:.1}", run.result.total_seconds)),
            n = number + 1,
        );
    }
    text + "</tbody></table></div>\n"
}
