//! The figures: which lines they have, ours and the paper's.

use super::runs::{Attacked, Evaluation, Metric, Scope};
use super::statistics::Measured;
use super::tables::{Cell, Table};
use crate::paper::numbers as paper;
use crate::runs::weights_file::UNTRAINED;

/// A line of a figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub label: String,
    /// Our value at each x of the figure.
    pub ours: Vec<Option<Measured>>,
    /// The paper's value at each x, if it has them.
    pub paper: Option<Vec<f64>>,
    /// Whether it is the line of an untrained encoder, which is the same at each x.
    pub untrained: bool,
}

/// A figure of one or more lines over the same x.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The name of its files.
    pub id: &'static str,
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub x: Vec<f64>,
    /// Whether x is drawn on a logarithmic scale.
    pub logarithmic: bool,
    /// The label of each x.
    pub x_names: Vec<String>,
    /// The label of each x in the paper, if the labels differ.
    pub paper_names: Option<Vec<String>>,
    /// What the lines stand for, such as `batch size`.
    pub kind: &'static str,
    pub series: Vec<Series>,
}

impl Figure {
    /// Whether the figure has no value of a trained network.
    pub fn is_empty(&self) -> bool {
        let trained = self.series.iter().filter(|series| !series.untrained);
        trained.flat_map(|s| &s.ours).all(Option::is_none)
    }

    /// Returns the numbers of the figure: one row per x, one column per line.
    pub fn table(&self) -> Table {
        let mut keys = vec![self.x_label.clone()];
        keys.extend(self.paper_names.iter().map(|_| "paper's".to_string()));
        let rows = self.x_names.iter().enumerate().map(|(i, name)| {
            let cells = self.series.iter().map(|series| {
                let paper = series.paper.as_ref().and_then(|values| values.get(i));
                let ours = series.ours.get(i).cloned().flatten();
                Cell {
                    untrained: series.untrained,
                    ..Cell::new(ours, paper.copied(), Metric::Top1)
                }
            });
            let mut names = vec![name.clone()];
            names.extend(self.paper_names.iter().flat_map(|all| all.get(i).cloned()));
            (names, cells.collect())
        });
        Table {
            id: self.id,
            title: self.title.clone(),
            keys,
            kind: self.kind,
            columns: self.series.iter().map(|s| s.label.clone()).collect(),
            rows: rows.collect(),
        }
    }
}

/// Returns the line of the untrained encoder, evaluated on the set `on`.
fn untrained(scope: &Scope<'_>, on: &str, label: String, points: usize) -> Series {
    let asked = Evaluation::untrained("resnet50", on);
    Series {
        label,
        ours: vec![scope.linear(asked, Metric::Top1); points],
        paper: None,
        untrained: true,
    }
}

/// All figures of a scope.
pub fn figures(scope: &Scope<'_>) -> Vec<Figure> {
    let batches = &paper::SIMCLR_BATCHES[..];
    vec![
        fig2(
            scope,
            "fig2-simclr",
            ("simclr", "SimCLR"),
            batches,
            &paper::FIG2_SIMCLR,
        ),
        fig2(
            scope,
            "fig2-rotnet",
            ("rotnet", "RotNet"),
            &paper::ROTNET_BATCHES,
            &paper::FIG2_ROTNET,
        ),
        fig3(scope, "fig3-pgd", "pgd", Some(&paper::FIG3_PGD)),
        fig3(scope, "fig3-fgsm", "fgsm", Some(&paper::FIG3_FGSM)),
        fig3(scope, "fig3-pgd-fine", "pgd", None),
        fig3(scope, "fig3-fgsm-fine", "fgsm", None),
        fig4(scope),
    ]
}

/// Returns the steps at tenths of the full training, and the paper's steps if they differ.
fn step_names(scope: &Scope<'_>, tenths: &[u64]) -> (Vec<String>, Option<Vec<String>>) {
    let ours: Vec<String> = tenths.iter().map(|&n| scope.steps(n).to_string()).collect();
    let paper = tenths
        .iter()
        .map(|n| (paper::FULL_STEPS * n / paper::TENTHS).to_string());
    let paper: Vec<String> = paper.collect();
    let differs = ours != paper;
    (ours, differs.then_some(paper))
}

/// A number of tenths as a fraction.
fn part(tenths: u64) -> f64 {
    tenths as f64 / paper::TENTHS as f64
}

fn fig2(
    scope: &Scope<'_>,
    id: &'static str,
    (method, name): (&str, &str),
    batches: &[usize],
    paper: &[[f64; 4]],
) -> Figure {
    let series = batches.iter().zip(paper).map(|(&batch, paper)| {
        let at = |&tenths: &u64| {
            let asked = scope.own(method, "resnet50", batch, tenths);
            scope.linear(asked, Metric::Top1)
        };
        Series {
            label: format!("batch {batch}"),
            ours: paper::FIG2_TENTHS.iter().map(at).collect(),
            paper: Some(paper.to_vec()),
            untrained: false,
        }
    });
    let points = paper::FIG2_TENTHS.len();
    let baseline = untrained(scope, &scope.first, UNTRAINED.to_string(), points);
    let (x_names, paper_names) = step_names(scope, &paper::FIG2_TENTHS);
    Figure {
        id,
        title: format!("Figure 2: {name} by steps and batch size, {}", scope.first),
        x_label: "pretraining steps".to_string(),
        y_label: "linear top-1, %".to_string(),
        x: paper::FIG2_TENTHS.map(part).to_vec(),
        logarithmic: true,
        x_names,
        paper_names,
        kind: "batch size",
        series: series.chain([baseline]).collect(),
    }
}

/// The models of Figure 3, with their names.
pub fn attacked_models() -> Vec<(Attacked, String)> {
    let tuned =
        paper::FRACTIONS.map(|f| (Attacked::FineTuned(f), format!("SimCLR, {} %", f * 100.0)));
    std::iter::once((Attacked::Supervised, "supervised".to_string()))
        .chain(tuned)
        .collect()
}

fn fig3(
    scope: &Scope<'_>,
    id: &'static str,
    method: &str,
    paper: Option<&[[f64; 10]; 4]>,
) -> Figure {
    let last = if paper.is_some() {
        paper::PAPER_EPS
    } else {
        paper::FINE_EPS
    };
    let models = attacked_models();
    let curves: Vec<_> = models
        .iter()
        .map(|(model, _)| scope.attack(method, *model, last))
        .collect();
    let x: Vec<f64> = match curves.iter().flatten().next() {
        Some(curve) => curve.iter().map(|(eps, _)| *eps).collect(),
        None => paper::strengths(last).to_vec(),
    };
    let series = models
        .iter()
        .zip(curves)
        .enumerate()
        .map(|(i, ((_, label), curve))| Series {
            label: label.clone(),
            ours: match curve {
                Some(curve) => curve.into_iter().map(|(_, value)| Some(value)).collect(),
                None => vec![None; x.len()],
            },
            paper: paper.map(|values| values[i].to_vec()),
            untrained: false,
        });
    let kind = if paper.is_some() {
        "the paper's eps"
    } else {
        "fine eps, to 8/255"
    };
    let units = match scope.protocol.as_str() {
        "paper" => "normalised pixels",
        _ => "pixels from 0 to 1",
    };
    Figure {
        id,
        title: format!(
            "Figure 3: {}, {kind}, {}",
            method.to_uppercase(),
            scope.first
        ),
        x_label: format!("eps, {units}"),
        y_label: "top-1, %".to_string(),
        logarithmic: false,
        x_names: x.iter().map(|eps| format!("{eps:.3}")).collect(),
        paper_names: None,
        kind: "model",
        series: series.collect(),
        x,
    }
}

fn fig4(scope: &Scope<'_>) -> Figure {
    let directions = [
        (scope.first.as_str(), scope.second()),
        (scope.second(), scope.first.as_str()),
    ];
    let trained = directions
        .iter()
        .zip(paper::FIG4)
        .map(|(&(from, on), paper)| {
            let at = |&tenths: &u64| {
                let asked = Evaluation {
                    method: "simclr",
                    arch: "resnet50",
                    batch_size: Some(128),
                    from,
                    on,
                    steps: scope.steps(tenths),
                };
                scope.linear(asked, Metric::Top1)
            };
            Series {
                label: format!("{from} to {on}"),
                ours: paper::FIG4_TENTHS.iter().map(at).collect(),
                paper: Some(paper.to_vec()),
                untrained: false,
            }
        });
    let points = paper::FIG4_TENTHS.len();
    let baselines = directions
        .iter()
        .map(|(_, on)| untrained(scope, on, format!("{UNTRAINED} on {on}"), points));
    let (x_names, paper_names) = step_names(scope, &paper::FIG4_TENTHS);
    Figure {
        id: "fig4",
        title: "Figure 4: SimCLR, transfer by steps".to_string(),
        x_label: "pretraining steps".to_string(),
        y_label: "linear top-1, %".to_string(),
        x: paper::FIG4_TENTHS.map(part).to_vec(),
        logarithmic: true,
        x_names,
        paper_names,
        kind: "direction",
        series: trained.chain(baselines).collect(),
    }
}
