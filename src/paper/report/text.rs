//! Tables and claims as Markdown and CSV.

use super::inference::{Claim, RULE};
use super::runs::Runs;
use super::tables::Table;

/// Maximum number of columns of a Markdown table.
const COLUMNS: usize = 6;

/// Returns `text` as a field of CSV, quoted if necessary.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_string()
    }
}

/// Returns `text` as a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn head(names: &[String]) -> String {
    row(names) + &row(&vec!["---".to_string(); names.len()])
}

/// Returns a table with columns for our values and for the paper's. A table that would be too wide
/// has one row per value instead.
pub fn markdown(table: &Table) -> String {
    let sides: &[&str] = if table.has_paper() {
        &["ours", "paper"]
    } else {
        &["ours"]
    };
    let wide = table.keys.len() + sides.len() * table.columns.len() <= COLUMNS;
    let mut names = table.keys.clone();
    if wide {
        let columns = table.columns.iter();
        names.extend(columns.flat_map(|c| sides.iter().map(move |side| format!("{c} {side}"))));
    } else {
        names.push(table.kind.to_string());
        names.extend(sides.iter().map(|side| side.to_string()));
    }
    let mut text = head(&names);
    for (labels, cells) in &table.rows {
        let values = cells.iter().map(|cell| {
            let values = [cell.ours(), cell.paper()];
            values.into_iter().take(sides.len())
        });
        if wide {
            let cells: Vec<String> = labels.iter().cloned().chain(values.flatten()).collect();
            text += &row(&cells);
            continue;
        }
        for (column, values) in table.columns.iter().zip(values) {
            let labels = labels.iter().chain([column]).cloned();
            text += &row(&labels.chain(values).collect::<Vec<String>>());
        }
    }
    if table.has_percent() {
        text += "\nAccuracies in %.\n";
    }
    text
}

/// Returns one line per value: its labels, our mean and standard deviation, the number of seeds and
/// of test images, the paper's value, and the run folders.
pub fn csv(table: &Table, runs: &Runs) -> String {
    let names = table.keys.iter().map(String::as_str).chain([table.kind]);
    let names: Vec<String> = names.map(|name| field(&name.replace(' ', "_"))).collect();
    let mut text = format!(
        "{},ours,standard_deviation,seeds,test_images,paper,runs\n",
        names.join(",")
    );
    for (labels, cells) in &table.rows {
        for (column, cell) in table.columns.iter().zip(cells) {
            let ours = cell.ours.as_ref();
            let number = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
            let count = |value: Option<usize>| value.map_or(String::new(), |n| n.to_string());
            let folders = ours.map_or(&[][..], |m| &m.runs);
            let folders = folders.iter().map(|&i| runs.all[i].folder.as_str());
            let values = [
                number(ours.map(|m| m.mean())),
                number(ours.and_then(|m| m.spread())),
                count(ours.map(|m| m.values.len())),
                count(ours.and_then(|m| m.images)),
                number(cell.paper),
                folders.collect::<Vec<&str>>().join(" "),
            ];
            let fields = labels.iter().chain([column]).chain(&values);
            let fields: Vec<String> = fields.map(|f| field(f)).collect();
            text += &fields.join(",");
            text.push('\n');
        }
    }
    text
}

/// Returns the answers, the effects behind them, and the rule.
pub fn claims(claims: &[Claim]) -> String {
    let strings = |words: &[&str]| words.iter().map(|w| w.to_string()).collect::<Vec<String>>();
    let mut text = head(&strings(&["claim", "answer", "why"]));
    for claim in claims {
        text += &row(&[
            format!("{}. {}", claim.number, claim.statement),
            claim.answer.words().to_string(),
            claim.reason.clone(),
        ]);
    }
    text += "\n## Effects\n\nA positive difference, or a ratio below 1, agrees with the claim. \
        Confidence intervals are in parentheses.\n\n";
    text += &head(&strings(&["claim", "effect", "paper", "ours", "values"]));
    for claim in claims {
        for finding in &claim.findings {
            let aside = if finding.decides {
                ""
            } else {
                " (decides nothing)"
            };
            text += &row(&[
                claim.number.to_string(),
                format!("{}{aside}", finding.what),
                finding.paper(),
                finding.ours(),
                format!("{} of {}", finding.values.0, finding.values.1),
            ]);
        }
    }
    text + "\n## How claims are answered\n\n" + RULE
}

#[cfg(test)]
mod tests {
    use super::super::runs::Metric;
    use super::super::tables::Cell;
    use super::*;

    #[test]
    fn fields_and_cells_keep_their_place() {
        assert_eq!(field("a,b \"c\""), "\"a,b \"\"c\"\"\"");
        assert_eq!(field("plain"), "plain");
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }

    #[test]
    fn wide_tables_have_a_row_for_each_value() {
        let table = |columns: &[&str]| Table {
            id: "t",
            title: String::new(),
            keys: vec!["labels".to_string()],
            kind: "metric",
            columns: columns.iter().map(|c| c.to_string()).collect(),
            rows: vec![(
                vec!["1 %".to_string()],
                vec![Cell::new(None, Some(0.5), Metric::Top1); columns.len()],
            )],
        };
        let wide = markdown(&table(&["a", "b"]));
        assert!(wide.starts_with("| labels | a ours | a paper | b ours | b paper |\n"));
        assert!(wide.contains("| 1 % | not run | 50.0 | not run | 50.0 |\n"));
        let long = markdown(&table(&["a", "b", "c"]));
        assert!(long.starts_with("| labels | metric | ours | paper |\n"));
        assert!(long.contains("| 1 % | c | not run | 50.0 |\n"));
    }
}
