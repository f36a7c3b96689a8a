//! The tables, with the paper's values beside ours.

use super::paper;
use super::runs::{Evaluation, Metric, Scope};
use super::statistics::Measured;

/// One place of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub ours: Option<Measured>,
    pub paper: Option<f64>,
    /// Whether it is shown in per cent.
    pub percent: bool,
}

impl Cell {
    pub fn new(ours: Option<Measured>, paper: Option<f64>, metric: Metric) -> Self {
        Cell {
            ours,
            paper,
            percent: metric.is_part(),
        }
    }

    fn number(&self, value: f64) -> String {
        match self.percent {
            true => format!("{:.1}", 100.0 * value),
            false => format!("{value:.3}"),
        }
    }

    /// Our value, with its spread over seeds where there are several.
    pub fn ours(&self) -> String {
        match &self.ours {
            None => "did not run".to_string(),
            Some(measured) => match measured.spread() {
                None => self.number(measured.mean()),
                Some(spread) => format!(
                    "{} ± {} ({} seeds)",
                    self.number(measured.mean()),
                    self.number(spread),
                    measured.values.len()
                ),
            },
        }
    }

    pub fn paper(&self) -> Option<String> {
        self.paper.map(|value| self.number(value))
    }
}

/// Rows and columns of values.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The name of its files.
    pub id: &'static str,
    pub title: String,
    /// What the rows are, then the columns' names.
    pub header: Vec<String>,
    pub rows: Vec<(String, Vec<Cell>)>,
}

impl Table {
    /// Whether none of its runs is there.
    pub fn is_empty(&self) -> bool {
        let mut cells = self.rows.iter().flat_map(|(_, cells)| cells);
        cells.all(|cell| cell.ours.is_none())
    }
}

fn header(first: &str, columns: impl IntoIterator<Item = String>) -> Vec<String> {
    std::iter::once(first.to_string()).chain(columns).collect()
}

/// All tables of a scope.
pub fn tables(scope: &Scope<'_>) -> Vec<Table> {
    vec![
        table1(scope),
        table2a(scope),
        table2b(scope),
        resnet18(scope),
    ]
}

fn table1(scope: &Scope<'_>) -> Table {
    const METRICS: [Metric; 3] = [Metric::Top1, Metric::Top2, Metric::Auc];
    const METHODS: [(&str, &str); 3] = [
        ("supervised", "supervised, from scratch"),
        ("rotnet", "RotNet, fine-tuned"),
        ("simclr", "SimCLR, fine-tuned"),
    ];
    let mut rows = Vec::new();
    for (i, fraction) in paper::FRACTIONS.into_iter().enumerate() {
        for ((method, name), paper) in METHODS.iter().zip(paper::TABLE1) {
            let cells = METRICS.into_iter().zip(paper[i]).map(|(metric, paper)| {
                let ours = scope.classifier(method, fraction, metric);
                Cell::new(ours, Some(paper), metric)
            });
            rows.push((format!("{} %: {name}", fraction * 100.0), cells.collect()));
        }
    }
    Table {
        id: "table1",
        title: format!("Table 1: few labels of {}, ResNet-50", scope.first),
        header: header(
            "part of the labels",
            METRICS.map(|metric| metric.name().to_string()),
        ),
        rows,
    }
}

fn table2a(scope: &Scope<'_>) -> Table {
    const METRICS: [Metric; 4] = [Metric::Top1, Metric::Top2, Metric::Top3, Metric::Auc];
    let (first, second) = (
        &scope.first,
        scope.second.as_deref().unwrap_or("a second set"),
    );
    let rows = [
        ("supervised", first.as_str(), second),
        ("simclr", first.as_str(), second),
        ("simclr", second, first.as_str()),
    ];
    let rows =
        rows.iter()
            .zip(paper::TABLE2A)
            .map(|(&(method, from, on), paper)| {
                let asked = Evaluation {
                    method,
                    arch: "resnet50",
                    batch_size: (method == "simclr").then_some(128),
                    from,
                    on,
                    steps: scope.steps(0.4),
                };
                let cells = METRICS.into_iter().zip(paper).map(|(metric, paper)| {
                    Cell::new(scope.linear(asked, metric), Some(paper), metric)
                });
                let name = match method {
                    "simclr" => "SimCLR",
                    other => other,
                };
                (format!("{name}, {from} to {on}"), cells.collect())
            });
    Table {
        id: "table2a",
        title: "Table 2a: transfer (the paper's sets: CIFAR-10 and STL-10)".to_string(),
        header: header("", METRICS.map(|metric| metric.name().to_string())),
        rows: rows.collect(),
    }
}

fn table2b(scope: &Scope<'_>) -> Table {
    let second = scope.second.as_deref().unwrap_or("a second set");
    let rows = paper::SIMCLR_BATCHES
        .iter()
        .zip(paper::TABLE2B)
        .map(|(&batch, paper)| {
            let asked = Evaluation {
                method: "simclr",
                arch: "resnet50",
                batch_size: Some(batch),
                from: &scope.first,
                on: second,
                steps: scope.steps(1.0),
            };
            let ours = scope.linear(asked, Metric::Top1);
            (
                batch.to_string(),
                vec![Cell::new(ours, Some(paper), Metric::Top1)],
            )
        });
    Table {
        id: "table2b",
        title: format!(
            "Table 2b: SimCLR, {} to {second}, by batch size",
            scope.first
        ),
        header: header("batch size", ["top-1".to_string()]),
        rows: rows.collect(),
    }
}

/// E7: the last checkpoint of either encoder. The paper gives no numbers.
fn resnet18(scope: &Scope<'_>) -> Table {
    const ARCHS: [&str; 2] = ["resnet18", "resnet50"];
    let methods = [
        ("simclr", "SimCLR", &paper::SIMCLR_BATCHES[..]),
        ("rotnet", "RotNet", &paper::ROTNET_BATCHES[..]),
    ];
    let mut rows = Vec::new();
    for (method, name, batches) in methods {
        for &batch in batches {
            let cells = ARCHS.map(|arch| {
                let asked = Evaluation {
                    method,
                    arch,
                    batch_size: Some(batch),
                    from: &scope.first,
                    on: &scope.first,
                    steps: scope.steps(1.0),
                };
                Cell::new(scope.linear(asked, Metric::Top1), None, Metric::Top1)
            });
            rows.push((format!("{name}, batch {batch}"), cells.to_vec()));
        }
    }
    Table {
        id: "resnet18",
        title: format!("ResNet-18 and ResNet-50: linear top-1 on {}", scope.first),
        header: header("", ["ResNet-18", "ResNet-50"].map(str::to_string)),
        rows,
    }
}
