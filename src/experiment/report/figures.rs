//! The figures: which lines they have, ours and the paper's.

use super::paper;
use super::runs::{Attacked, Evaluation, Metric, Scope};
use super::statistics::Measured;
use super::tables::{Cell, Table};

/// A line of a figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub label: String,
    /// Of x, in the order of the figure's.
    pub ours: Vec<Option<Measured>>,
    /// The same of the paper, where it has them.
    pub paper: Option<Vec<f64>>,
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
    /// What stands at each x.
    pub x_names: Vec<String>,
    pub series: Vec<Series>,
}

impl Figure {
    /// Whether none of its runs is there.
    pub fn is_empty(&self) -> bool {
        let mut values = self.series.iter().flat_map(|s| &s.ours);
        values.all(Option::is_none)
    }

    /// The numbers of the figure: a row a line, a column an x.
    pub fn table(&self) -> Table {
        let rows = self.series.iter().map(|series| {
            let cells = series.ours.iter().enumerate().map(|(i, ours)| {
                let paper = series.paper.as_ref().and_then(|values| values.get(i));
                Cell::new(ours.clone(), paper.copied(), Metric::Top1)
            });
            (series.label.clone(), cells.collect())
        });
        Table {
            id: self.id,
            title: self.title.clone(),
            header: std::iter::once(self.x_label.clone())
                .chain(self.x_names.iter().cloned())
                .collect(),
            rows: rows.collect(),
        }
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

/// What stands at a part of the full training: our steps, and the paper's.
fn step_names(scope: &Scope<'_>, parts: &[f64]) -> Vec<String> {
    let name = |&part: &f64| format!("{} ({})", scope.steps(part), (5000.0 * part).round());
    parts.iter().map(name).collect()
}

fn fig2(
    scope: &Scope<'_>,
    id: &'static str,
    (method, name): (&str, &str),
    batches: &[usize],
    paper: &[[f64; 4]],
) -> Figure {
    let series = batches.iter().zip(paper).map(|(&batch, paper)| {
        let at = |&part: &f64| {
            let asked = Evaluation {
                method,
                arch: "resnet50",
                batch_size: Some(batch),
                from: &scope.first,
                on: &scope.first,
                steps: scope.steps(part),
            };
            scope.linear(asked, Metric::Top1)
        };
        Series {
            label: format!("batch {batch}"),
            ours: paper::FIG2_PARTS.iter().map(at).collect(),
            paper: Some(paper.to_vec()),
        }
    });
    Figure {
        id,
        title: format!("Figure 2: {name} by steps and batch size, {}", scope.first),
        x_label: "pretraining steps (the paper's)".to_string(),
        y_label: "linear top-1, %".to_string(),
        x: paper::FIG2_PARTS.to_vec(),
        x_names: step_names(scope, &paper::FIG2_PARTS),
        series: series.collect(),
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

/// The last strength of the fine grid.
pub const FINE: f64 = 8.0 / 255.0;
/// That of the paper's.
const COARSE: f64 = 0.275;

fn fig3(
    scope: &Scope<'_>,
    id: &'static str,
    method: &str,
    paper: Option<&[[f64; 10]; 4]>,
) -> Figure {
    let last = if paper.is_some() { COARSE } else { FINE };
    let models = attacked_models();
    let curves: Vec<_> = models
        .iter()
        .map(|(model, _)| scope.attack(method, *model, last))
        .collect();
    let x: Vec<f64> = match curves.iter().flatten().next() {
        Some(curve) => curve.iter().map(|(eps, _)| *eps).collect(),
        None => paper::fig3_eps().map(|eps| eps * last / COARSE).to_vec(),
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
        series: series.collect(),
        x_names: x.iter().map(|eps| format!("{eps:.3}")).collect(),
        x,
    }
}

fn fig4(scope: &Scope<'_>) -> Figure {
    let second = scope.second.as_deref().unwrap_or("a second set");
    let directions = [
        (scope.first.as_str(), second),
        (second, scope.first.as_str()),
    ];
    let series = directions
        .iter()
        .zip(paper::FIG4)
        .map(|(&(from, on), paper)| {
            let at = |&part: &f64| {
                let asked = Evaluation {
                    method: "simclr",
                    arch: "resnet50",
                    batch_size: Some(128),
                    from,
                    on,
                    steps: scope.steps(part),
                };
                scope.linear(asked, Metric::Top1)
            };
            Series {
                label: format!("{from} to {on}"),
                ours: paper::FIG4_PARTS.iter().map(at).collect(),
                paper: Some(paper.to_vec()),
            }
        });
    Figure {
        id: "fig4",
        title: "Figure 4: SimCLR, transfer by steps".to_string(),
        x_label: "pretraining steps (the paper's)".to_string(),
        y_label: "linear top-1, %".to_string(),
        x: paper::FIG4_PARTS.to_vec(),
        x_names: step_names(scope, &paper::FIG4_PARTS),
        series: series.collect(),
    }
}
