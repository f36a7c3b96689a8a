//! Tables and claims as Markdown and CSV.

use super::claims::Claim;
use super::runs::Runs;
use super::tables::Table;

/// A field of CSV.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_string()
    }
}

/// A cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

fn row(cells: impl IntoIterator<Item = String>) -> String {
    let cells: Vec<String> = cells.into_iter().map(|text| cell(&text)).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// A table with the paper's values in brackets.
pub fn markdown(table: &Table) -> String {
    let mut text = row(table.header.iter().cloned());
    text += &row(table.header.iter().map(|_| "---".to_string()));
    for (name, cells) in &table.rows {
        let shown = cells.iter().map(|cell| match cell.paper() {
            Some(paper) => format!("{} ({paper})", cell.ours()),
            None => cell.ours(),
        });
        text += &row(std::iter::once(name.clone()).chain(shown));
    }
    text
}

/// One line a value: where it stands, ours with its spread, what it was measured on, the paper's, and the run folders.
pub fn csv(table: &Table, runs: &Runs) -> String {
    let mut text = "row,column,ours,standard_deviation,seeds,test_images,paper,runs\n".to_string();
    for (name, cells) in &table.rows {
        for (column, cell) in table.header.iter().skip(1).zip(cells) {
            let ours = cell.ours.as_ref();
            let number = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
            let folders: Vec<&str> = ours
                .map(|m| {
                    m.runs
                        .iter()
                        .map(|&i| runs.all[i].folder.as_str())
                        .collect()
                })
                .unwrap_or_default();
            let fields = [
                name.clone(),
                column.clone(),
                number(ours.map(|m| m.mean())),
                number(ours.and_then(|m| m.spread())),
                ours.map_or(String::new(), |m| m.values.len().to_string()),
                ours.and_then(|m| m.images)
                    .map_or(String::new(), |n| n.to_string()),
                number(cell.paper),
                folders.join(" "),
            ];
            let fields: Vec<String> = fields.iter().map(|f| field(f)).collect();
            text += &fields.join(",");
            text.push('\n');
        }
    }
    text
}

/// The claims with all that decides them.
pub fn claims(claims: &[Claim]) -> String {
    let mut text = row(["claim", "answer"].map(str::to_string));
    text += &row(["---", "---"].map(str::to_string));
    for claim in claims {
        text += &row([
            format!("{}. {}", claim.number, claim.statement),
            claim.verdict.word().to_string(),
        ]);
    }
    for claim in claims {
        text += &format!(
            "\n**{}. {}: {}.**\n\n",
            claim.number,
            claim.statement,
            claim.verdict.word()
        );
        for comparison in &claim.comparisons {
            let numbers = comparison.numbers.as_deref().unwrap_or("a run is missing");
            text += &format!(
                "- {}: {} ({numbers})\n",
                comparison.what,
                comparison.verdict.word()
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_cells_keep_their_place() {
        assert_eq!(field("a,b \"c\""), "\"a,b \"\"c\"\"\"");
        assert_eq!(field("plain"), "plain");
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
