//! `parallax compare`: compares runs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::output::{self, ForceArguments, Inputs};
use crate::console::{self, say};
use crate::drawing::plot::{Plot, Series};
use crate::drawing::{escape, page};
use crate::error::Result;
use crate::runs::page::{figure, plots};
use crate::runs::reading::{Accuracy, RunRecord};
use crate::runs::record::{KEPT, first_word};
use crate::runs::whole_file::write_file;

/// Compare runs: the settings that differ, steps, losses, and accuracies with their protocols
///
/// Accuracies that were measured in different ways, or on different images, are marked.
#[derive(Args)]
pub struct Arguments {
    /// The run folders, of runs that have ended or have not
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    runs: Vec<PathBuf>,

    /// Write the table and the curves to this HTML file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    #[command(flatten)]
    force: ForceArguments,
}

/// The mark of accuracies that cannot be compared.
const MARK: &str = " *";

/// A name, and a value for each run.
type Values = (String, Vec<String>);

/// A row of the table.
enum Row {
    Values(Values),
    /// How the accuracies of the row above were measured in all runs.
    Protocol(String),
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(out) = &arguments.out {
        let inputs = Inputs {
            file: None,
            data: None,
        };
        output::check(out, arguments.force.force, Some("html"), &inputs)?;
    }
    let records = arguments.runs.iter().map(|path| RunRecord::read(path));
    let comparison = Comparison::new(records.collect::<Result<_>>()?);
    console::json(&comparison.json());
    say!("{}", comparison.text().trim_end());
    if let Some(out) = &arguments.out {
        write_file(out, comparison.html().as_bytes())?;
        say!("{}", out.display());
    }
    Ok(())
}

struct Comparison {
    records: Vec<RunRecord>,
    names: Vec<String>,
    rows: Vec<Row>,
    /// For each accuracy that cannot be compared, how it was measured in each run.
    not_comparable: Vec<(String, Vec<String>)>,
}

impl Comparison {
    fn new(records: Vec<RunRecord>) -> Self {
        let short = |record: &RunRecord| {
            let name = record.path.file_name();
            name.map(|name| name.to_string_lossy().into_owned())
        };
        let shorts: Vec<Option<String>> = records.iter().map(short).collect();
        let names = records.iter().zip(&shorts).map(|(record, name)| {
            let is_only = shorts.iter().filter(|other| *other == name).count() == 1;
            let name = name.clone().filter(|_| is_only);
            name.unwrap_or_else(|| record.path.display().to_string())
        });
        let names: Vec<String> = names.collect();
        let settings = differing_settings(&records);
        let mut rows: Vec<Row> = settings.into_iter().map(Row::Values).collect();
        let row = |name: &str, of: &dyn Fn(&RunRecord) -> String| {
            Row::Values((name.to_string(), records.iter().map(of).collect()))
        };
        rows.push(row("steps", &|record| {
            let taken = record.steps();
            let state = if record.summary.is_some() {
                ""
            } else {
                " (not ended)"
            };
            format!("{taken}{state}")
        }));
        rows.push(row("final loss", &|record| {
            let loss = record.final_loss();
            loss.map_or("-".to_string(), |loss| format!("{loss:.4}"))
        }));
        let all: Vec<Vec<Accuracy>> = records.iter().map(RunRecord::accuracies).collect();
        let mut keys: Vec<(&str, &str)> = Vec::new();
        for accuracy in all.iter().flatten() {
            if !keys.contains(&(accuracy.key, accuracy.name)) {
                keys.push((accuracy.key, accuracy.name));
            }
        }
        let mut not_comparable = Vec::new();
        for (key, name) in keys {
            let found: Vec<Option<&Accuracy>> = all
                .iter()
                .map(|run| run.iter().find(|accuracy| accuracy.key == key))
                .collect();
            let ways = found
                .iter()
                .zip(&records)
                .map(|(accuracy, record)| accuracy.map(|accuracy| way(accuracy, record)));
            let ways: Vec<Option<Way>> = ways.collect();
            let mut known = ways.iter().flatten();
            let first = known.next();
            let is_comparable =
                known.all(|way| way.same.is_some() && Some(&way.same) == first.map(|w| &w.same));
            let mark = if is_comparable { "" } else { MARK };
            let value = |accuracy: &Option<&Accuracy>| match accuracy {
                Some(accuracy) => format!("{:.2} %{mark}", 100.0 * accuracy.value),
                None => "-".to_string(),
            };
            let values = found.iter().map(value).collect();
            rows.push(Row::Values((name.to_string(), values)));
            if !is_comparable {
                let words = ways.iter().map(|way| match way {
                    Some(way) => way.words.clone(),
                    None => "not measured".to_string(),
                });
                not_comparable.push((name.to_string(), words.collect()));
            } else if let Some(way) = first {
                rows.push(Row::Protocol(way.words.clone()));
            }
        }
        Comparison {
            records,
            names,
            rows,
            not_comparable,
        }
    }

    fn text(&self) -> String {
        let head = (String::new(), self.names.clone());
        let values = self.rows.iter().filter_map(|row| match row {
            Row::Values(values) => Some(values),
            Row::Protocol(_) => None,
        });
        let mut widths = vec![0; 1 + self.names.len()];
        for (name, values) in std::iter::once(&head).chain(values) {
            let cells = std::iter::once(name).chain(values);
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let line = |(name, values): &Values| {
            let cells = std::iter::once(name).chain(values).zip(&widths);
            let line: String = cells
                .map(|(cell, width)| format!("{cell:<width$}  "))
                .collect();
            format!("{}\n", line.trim_end())
        };
        let mut text = line(&head);
        for row in &self.rows {
            match row {
                Row::Values(values) => text += &line(values),
                Row::Protocol(words) => {
                    let _ = writeln!(text, "  {words}");
                }
            }
        }
        for (name, ways) in &self.not_comparable {
            let _ = writeln!(text, "* {name} was measured in different ways:");
            for (run, way) in self.names.iter().zip(ways) {
                let _ = writeln!(text, "  {run}: {way}");
            }
        }
        text
    }

    fn json(&self) -> serde_json::Value {
        let runs = self.records.iter().zip(&self.names).map(|(record, name)| {
            let accuracies: BTreeMap<&str, serde_json::Value> = record
                .accuracies()
                .into_iter()
                .map(|accuracy| {
                    let protocol = accuracy.protocol;
                    (
                        accuracy.key,
                        json!({ "value": accuracy.value, "protocol": protocol }),
                    )
                })
                .collect();
            json!({
                "run": name,
                "folder": &record.path,
                "command": record.setting("command"),
                "data": record.setting("data.name"),
                "has_ended": record.summary.is_some(),
                "steps": record.steps(),
                "final_loss": record.final_loss(),
                "accuracies": accuracies,
            })
        });
        let settings: BTreeMap<String, Vec<String>> =
            differing_settings(&self.records).into_iter().collect();
        let not_comparable: Vec<&String> =
            self.not_comparable.iter().map(|(name, _)| name).collect();
        json!({
            "runs": runs.collect::<Vec<_>>(),
            "settings": settings,
            "not_comparable": not_comparable,
        })
    }

    fn html(&self) -> String {
        let mut body = "<div class=\"wide\"><table>\n<thead><tr><th></th>".to_string();
        for name in &self.names {
            body += &format!("<th>{}</th>", escape(name));
        }
        body += "</tr></thead>\n<tbody>\n";
        for row in &self.rows {
            match row {
                Row::Values((name, values)) => {
                    body += &format!("<tr><th>{}</th>", escape(name));
                    for value in values {
                        // Long lists break between their items.
                        let value = escape(value).replace(',', ",<wbr>");
                        body += &format!("<td>{value}</td>");
                    }
                    body += "</tr>\n";
                }
                Row::Protocol(words) => {
                    let columns = 1 + self.names.len();
                    body += &format!(
                        "<tr><td class=\"faint\" colspan=\"{columns}\">{}</td></tr>\n",
                        escape(words)
                    );
                }
            }
        }
        body += "</tbody></table></div>\n";
        for (name, ways) in &self.not_comparable {
            body += &format!(
                "<p>* {} was measured in different ways:</p>\n<ul>\n",
                escape(name)
            );
            for (run, way) in self.names.iter().zip(ways) {
                body += &format!("<li>{}: {}</li>\n", escape(run), escape(way));
            }
            body += "</ul>\n";
        }
        body += "<div class=\"figures fit\">\n";
        for plot in self.plots() {
            body += &figure(&plot);
        }
        body += "</div>\n";
        page("Comparison of runs", &body)
    }

    /// The figures of the runs. Each has a series for every run, so that a run has the same colour in
    /// all of them.
    fn plots(&self) -> Vec<Plot> {
        let runs: Vec<Vec<Plot>> = self.records.iter().map(plots).collect();
        let mut all: Vec<Plot> = Vec::new();
        for plot in runs.iter().flatten() {
            if all.iter().any(|other| other.title == plot.title) {
                continue;
            }
            let series = runs.iter().zip(&self.names).map(|(plots, name)| {
                let own = plots.iter().find(|other| other.title == plot.title);
                match own.and_then(|own| own.series.first()) {
                    Some(series) => Series {
                        label: name.clone(),
                        points: series.points.clone(),
                    },
                    None => Series {
                        label: format!("{name}: no curve"),
                        points: Vec::new(),
                    },
                }
            });
            all.push(Plot {
                title: plot.title.clone(),
                x_label: plot.x_label.clone(),
                y_label: plot.y_label.clone(),
                series: series.collect(),
                is_joined: plot.is_joined,
                level: None,
            });
        }
        all
    }
}

/// The settings that are not the same in all runs.
fn differing_settings(records: &[RunRecord]) -> Vec<Values> {
    let mut keys: Vec<&String> = Vec::new();
    for key in records.iter().flat_map(|record| record.config.keys()) {
        let is_setting = !KEPT.contains(&first_word(key, '.'));
        if is_setting && !keys.contains(&key) {
            keys.push(key);
        }
    }
    let row = |key: &String| -> Values {
        let shown = |record: &RunRecord| match record.setting(key) {
            value if value.is_empty() => "-".to_string(),
            // The start of a digest tells two of them apart.
            value if key == "data.digest" => value.chars().take(12).collect(),
            value => value,
        };
        (key.clone(), records.iter().map(shown).collect())
    };
    let rows = keys.into_iter().map(row);
    rows.filter(|(_, values)| values.iter().any(|value| *value != values[0]))
        .collect()
}

/// How an accuracy was measured.
struct Way {
    words: String,
    /// Equal if accuracies can be compared; `None` if that is not known.
    same: Option<String>,
}

fn way(accuracy: &Accuracy, record: &RunRecord) -> Way {
    let Some(protocol) = &accuracy.protocol else {
        return Way {
            words: "an earlier version did not record it".to_string(),
            same: None,
        };
    };
    let data = record.setting("data.name");
    let mut same = protocol.clone();
    if protocol.k.is_none() {
        // How many labels a classifier learns from is a setting of the experiment.
        same.train_images = None;
    }
    Way {
        words: format!("{protocol}, {data}"),
        same: Some(format!("{same}, {}", record.setting("data.digest"))),
    }
}
