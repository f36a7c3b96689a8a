//! The tables, with the paper's values beside ours.

use super::runs::{Evaluation, Metric, Scope};
use super::statistics::Measured;
use crate::paper::numbers as paper;
use crate::runs::weights_file::UNTRAINED;

/// One cell of a table: our value and the paper's.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub ours: Option<Measured>,
    pub paper: Option<f64>,
    /// Whether it is shown in per cent.
    pub percent: bool,
    /// Whether the value is that of an untrained encoder.
    pub untrained: bool,
}

impl Cell {
    pub fn new(ours: Option<Measured>, paper: Option<f64>, metric: Metric) -> Self {
        Cell {
            ours,
            paper,
            percent: metric.is_part(),
            untrained: false,
        }
    }

    fn of(scope: &Scope<'_>, asked: Evaluation<'_>, paper: Option<f64>, metric: Metric) -> Self {
        Cell {
            untrained: asked.method == UNTRAINED,
            ..Cell::new(scope.linear(asked, metric), paper, metric)
        }
    }

    fn number(&self, value: f64) -> String {
        if self.percent {
            format!("{:.1}", 100.0 * value)
        } else {
            format!("{value:.3}")
        }
    }

    /// Prints our mean, with the standard deviation over seeds if there are several.
    pub fn ours(&self) -> String {
        let Some(measured) = &self.ours else {
            return "not run".to_string();
        };
        let mean = self.number(measured.mean());
        match measured.spread() {
            None => mean,
            Some(spread) => format!(
                "{mean} ± {} ({} seeds)",
                self.number(spread),
                measured.values.len()
            ),
        }
    }

    pub fn paper(&self) -> String {
        self.paper
            .map_or("-".to_string(), |value| self.number(value))
    }
}

/// Rows and columns of values.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    /// The name of its files.
    pub id: &'static str,
    pub title: String,
    /// Headings of the label columns.
    pub keys: Vec<String>,
    /// What the value columns stand for, such as `metric`, and their headings.
    pub kind: &'static str,
    pub columns: Vec<String>,
    /// The labels of each row, and its values.
    pub rows: Vec<(Vec<String>, Vec<Cell>)>,
}

impl Table {
    fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.rows.iter().flat_map(|(_, cells)| cells)
    }

    /// Whether the table has no value of a trained network.
    pub fn is_empty(&self) -> bool {
        self.cells()
            .all(|cell| cell.ours.is_none() || cell.untrained)
    }

    /// Whether the paper has any value for this table.
    pub fn has_paper(&self) -> bool {
        self.cells().any(|cell| cell.paper.is_some())
    }

    pub fn has_percent(&self) -> bool {
        self.cells().any(|cell| cell.percent)
    }
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

fn strings<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_string).to_vec()
}

fn names(metrics: &[Metric]) -> Vec<String> {
    metrics.iter().map(|m| m.name().to_string()).collect()
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
            let labels = vec![format!("{} %", fraction * 100.0), name.to_string()];
            rows.push((labels, cells.collect()));
        }
    }
    Table {
        id: "table1",
        title: format!("Table 1: few labels of {}, ResNet-50", scope.first),
        keys: strings(["labels", "method"]),
        kind: "metric",
        columns: names(&METRICS),
        rows,
    }
}

fn table2a(scope: &Scope<'_>) -> Table {
    const METRICS: [Metric; 4] = [Metric::Top1, Metric::Top2, Metric::Top3, Metric::Auc];
    let (first, second) = (scope.first.as_str(), scope.second());
    let row = |method: &str, from: &str, on: &str, asked, paper: Option<[f64; 4]>| {
        let cells = METRICS.into_iter().enumerate().map(|(i, metric)| {
            let paper = paper.map(|values| values[i]);
            Cell::of(scope, asked, paper, metric)
        });
        (strings([method, from, on]), cells.collect())
    };
    let trained = [
        ("supervised", "supervised", first, second),
        ("simclr", "SimCLR", first, second),
        ("simclr", "SimCLR", second, first),
    ];
    let trained = trained.iter().zip(paper::TABLE2A);
    let trained = trained.map(|(&(method, name, from, on), paper)| {
        let asked = Evaluation {
            method,
            arch: "resnet50",
            batch_size: (method == "simclr").then_some(128),
            from,
            on,
            steps: scope.steps(paper::TRANSFERRED_TENTHS),
        };
        row(name, from, on, asked, Some(paper))
    });
    let untrained = [second, first].map(|on| {
        let asked = Evaluation::untrained("resnet50", on);
        row(UNTRAINED, "-", on, asked, None)
    });
    Table {
        id: "table2a",
        title: "Table 2a: transfer (the paper's sets: CIFAR-10 and STL-10)".to_string(),
        keys: strings(["method", "pretrained on", "evaluated on"]),
        kind: "metric",
        columns: names(&METRICS),
        rows: trained.chain(untrained).collect(),
    }
}

fn table2b(scope: &Scope<'_>) -> Table {
    let second = scope.second();
    let at = |asked, paper| vec![Cell::of(scope, asked, paper, Metric::Top1)];
    let batches = paper::SIMCLR_BATCHES.iter().zip(paper::TABLE2B);
    let rows = batches.map(|(&batch, paper)| {
        let asked = Evaluation {
            on: second,
            ..scope.own("simclr", "resnet50", batch, paper::TENTHS)
        };
        (vec![batch.to_string()], at(asked, Some(paper)))
    });
    let untrained = Evaluation::untrained("resnet50", second);
    let untrained = (strings([UNTRAINED]), at(untrained, None));
    Table {
        id: "table2b",
        title: format!(
            "Table 2b: SimCLR, {} to {second}, by batch size",
            scope.first
        ),
        keys: strings(["batch size"]),
        kind: "metric",
        columns: names(&[Metric::Top1]),
        rows: rows.chain([untrained]).collect(),
    }
}

const ARCHS: [&str; 2] = ["resnet18", "resnet50"];

/// E7: the last checkpoint of either encoder. The paper gives no numbers.
fn resnet18(scope: &Scope<'_>) -> Table {
    let methods = [
        ("simclr", "SimCLR", &paper::SIMCLR_BATCHES[..]),
        ("rotnet", "RotNet", &paper::ROTNET_BATCHES[..]),
    ];
    let cells = |asked: [Evaluation<'_>; 2]| {
        asked
            .map(|asked| Cell::of(scope, asked, None, Metric::Top1))
            .to_vec()
    };
    let mut rows = Vec::new();
    for (method, name, batches) in methods {
        for &batch in batches {
            let asked = ARCHS.map(|arch| scope.own(method, arch, batch, paper::TENTHS));
            rows.push((vec![name.to_string(), batch.to_string()], cells(asked)));
        }
    }
    let asked = ARCHS.map(|arch| Evaluation::untrained(arch, &scope.first));
    rows.push((strings([UNTRAINED, "-"]), cells(asked)));
    Table {
        id: "resnet18",
        title: format!("ResNet-18 and ResNet-50: linear top-1 on {}", scope.first),
        keys: strings(["method", "batch size"]),
        kind: "network",
        columns: strings(["ResNet-18", "ResNet-50"]),
        rows,
    }
}
