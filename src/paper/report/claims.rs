//! The paper's eight claims as contrasts of the values that the runs measured.

use super::figures::attacked_models;
use super::inference::{
    ACCURACY_SPREAD, Cell, Claim, Measure, Part, Question, Shape, TIME_SPREAD, Unit,
};
use super::runs::{Attacked, Evaluation, Metric, Scope};
use super::statistics::{Measured, Pooling};
use crate::paper::numbers::{
    self as paper, FINE_EPS, FINETUNED_BATCH, TENTHS, TRANSFERRED_BATCH, TRANSFERRED_TENTHS,
};
use crate::runs::result::PretrainingMetrics;

/// Answers all claims of a scope.
pub fn claims(scope: &Scope<'_>) -> Vec<Claim> {
    let questions = [
        batch_and_steps(scope),
        simclr_beats_rotnet(scope),
        fine_tuned_beat_supervised(scope),
        fine_tuned_are_frailer(scope),
        transfer(scope),
        resnet18_is_poorer(scope),
        rotnet_is_cheaper(scope),
        flattens(scope),
    ];
    questions.iter().map(Question::answer).collect()
}

/// A pretraining method, with the paper's linear accuracies by batch size and by fraction of the
/// training.
struct Method {
    id: &'static str,
    name: &'static str,
    batches: &'static [usize],
    paper: &'static [[f64; 4]],
}

const METHODS: [Method; 2] = [
    Method {
        id: "simclr",
        name: "SimCLR",
        batches: &paper::SIMCLR_BATCHES,
        paper: &paper::FIG2_SIMCLR,
    },
    Method {
        id: "rotnet",
        name: "RotNet",
        batches: &paper::ROTNET_BATCHES,
        paper: &paper::FIG2_ROTNET,
    },
];
const ARCHS: [(&str, &str); 2] = [("resnet50", "ResNet-50"), ("resnet18", "ResNet-18")];

impl Method {
    /// Returns the linear accuracies on the set that the encoders were trained on: one list per
    /// batch size, over the fractions of the training.
    fn figure2(&self, scope: &Scope<'_>) -> Vec<Vec<Cell>> {
        let of_batch = |(&batch, paper): (&usize, &[f64; 4])| {
            let parts = paper::FIG2_TENTHS.iter().zip(paper);
            let at = |(&tenths, &paper): (&u64, &f64)| {
                let own = scope.own(self.id, "resnet50", batch, tenths);
                cell(scope, own, Some(paper))
            };
            parts.map(at).collect()
        };
        self.batches.iter().zip(self.paper).map(of_batch).collect()
    }

    fn needs(&self, scope: &Scope<'_>) -> String {
        format!(
            "linear evaluations of {} on {}, ResNet-50",
            self.name, scope.first
        )
    }
}

fn cell(scope: &Scope<'_>, asked: Evaluation<'_>, paper: Option<f64>) -> Cell {
    let Evaluation {
        method,
        arch,
        batch_size,
        from,
        ..
    } = asked;
    Cell {
        ours: scope.linear(asked, Metric::Top1),
        paper,
        training: format!("{method} {arch} {batch_size:?} {from}"),
    }
}

/// Creates a part that is measured in percentage points of accuracy.
fn points(what: String, groups: Vec<(String, Vec<Unit>)>, pooling: Pooling) -> Part {
    Part {
        what,
        measure: Measure::Points,
        groups,
        pooling,
        prior: ACCURACY_SPREAD,
        decides: true,
    }
}

/// Returns the condition that the evaluated encoders `of` are above the untrained one.
fn above_untrained(scope: &Scope<'_>, name: &str, arch: &str, of: Vec<Evaluation<'_>>) -> Part {
    let on = of.first().map_or(scope.first.as_str(), |asked| asked.on);
    let shown = ARCHS.iter().find(|(id, _)| *id == arch);
    let shown = shown.map_or(arch, |(_, shown)| shown);
    let untrained = cell(scope, Evaluation::untrained(arch, on), None);
    let needs = match untrained.ours {
        None => format!("the linear evaluation of the untrained {shown} on {on}"),
        Some(_) => format!("linear evaluations of {name} on {on}, {shown}"),
    };
    let trained = of.into_iter().map(|asked| cell(scope, asked, None));
    let units = trained.map(|trained| Unit::difference(trained, untrained.clone()));
    points(
        format!("{name} ({shown}) is not significantly above the untrained encoder on {on}"),
        vec![(needs, units.collect())],
        Pooling::Sides,
    )
}

/// Returns the condition of [`above_untrained`] for a method's encoders on the set that they were
/// trained on.
fn learned(scope: &Scope<'_>, method: &Method, arch: &str, steps: u64) -> Part {
    let mut batches = method.batches.to_vec();
    if !batches.contains(&FINETUNED_BATCH) {
        batches.push(FINETUNED_BATCH);
    }
    let asked = batches.iter().map(|&batch| Evaluation {
        steps,
        ..scope.own(method.id, arch, batch, TENTHS)
    });
    above_untrained(scope, method.name, arch, asked.collect())
}

fn batch_and_steps(scope: &Scope<'_>) -> Question {
    let slopes = |x: Vec<f64>, series: Vec<Vec<Cell>>| -> Vec<Unit> {
        let unit = |cells| Unit {
            shape: Shape::Slope(x.clone()),
            cells,
        };
        series.into_iter().map(unit).collect()
    };
    let by_batch = METHODS.iter().map(|method| {
        let x: Vec<f64> = method.batches.iter().map(|&b| (b as f64).log2()).collect();
        let rows = method.figure2(scope);
        let columns = (0..paper::FIG2_TENTHS.len()).map(|i| rows.iter().map(move |r| r[i].clone()));
        let columns = columns.map(Iterator::collect).collect();
        (method.needs(scope), slopes(x, columns))
    });
    let by_steps = METHODS.iter().map(|method| {
        let x = paper::FIG2_TENTHS
            .iter()
            .map(|&tenths| (tenths as f64).log2());
        let x: Vec<f64> = x.collect();
        (method.needs(scope), slopes(x, method.figure2(scope)))
    });
    let part = |what: &str, groups, pooling| Part {
        measure: Measure::Slope,
        ..points(what.to_string(), groups, pooling)
    };
    Question {
        number: 1,
        statement: "Accuracy rises with batch size and with steps",
        conditions: METHODS
            .iter()
            .map(|method| learned(scope, method, "resnet50", scope.full_steps()))
            .collect(),
        parts: vec![
            part(
                "accuracy per doubling of the batch size",
                by_batch.collect(),
                Pooling::Trainings,
            ),
            part(
                "accuracy per doubling of the steps",
                by_steps.collect(),
                Pooling::Terms,
            ),
        ],
    }
}

fn simclr_beats_rotnet(scope: &Scope<'_>) -> Question {
    let [simclr, rotnet] = METHODS.each_ref().map(|method| method.figure2(scope));
    let pairs = simclr
        .into_iter()
        .flatten()
        .zip(rotnet.into_iter().flatten());
    let units = pairs.map(|(simclr, rotnet)| Unit::difference(simclr, rotnet));
    let needs = format!(
        "linear evaluations of SimCLR and RotNet at equal batch sizes and steps on {}, ResNet-50",
        scope.first
    );
    Question {
        number: 2,
        statement: "SimCLR beats RotNet",
        conditions: METHODS
            .iter()
            .map(|method| learned(scope, method, "resnet50", scope.full_steps()))
            .collect(),
        parts: vec![points(
            "SimCLR minus RotNet".to_string(),
            vec![(needs, units.collect())],
            Pooling::Sides,
        )],
    }
}

fn fine_tuned_beat_supervised(scope: &Scope<'_>) -> Question {
    let classifier = |method: &str, name: String, row: usize, fraction: usize| Cell {
        ours: scope.classifier(method, paper::FRACTIONS[fraction], Metric::Top1),
        paper: Some(paper::TABLE1[row][fraction][0]),
        training: name,
    };
    let part = |method: &Method, row: usize| {
        let units = (0..paper::FRACTIONS.len()).map(|i| {
            Unit::difference(
                classifier(method.id, format!("finetune {}", method.id), row, i),
                classifier("supervised", format!("supervised {i}"), 0, i),
            )
        });
        let needs = format!(
            "{} fine-tuned and the baseline at equal fractions of the labels",
            method.name
        );
        points(
            format!("{} fine-tuned minus supervised", method.name),
            vec![(needs, units.collect())],
            Pooling::Sides,
        )
    };
    let [simclr, rotnet] = &METHODS;
    Question {
        number: 3,
        statement: "Both fine-tuned encoders beat the supervised baseline on few labels",
        conditions: METHODS
            .iter()
            .map(|method| learned(scope, method, "resnet50", scope.finetuned_steps(method.id)))
            .collect(),
        parts: vec![part(simclr, 2), part(rotnet, 1)],
    }
}

fn fine_tuned_are_frailer(scope: &Scope<'_>) -> Question {
    let models = attacked_models();
    let curve = |method: &str, row: usize, paper: &[[f64; 10]; 4]| -> Vec<Cell> {
        let ours = scope.attack(method, models[row].0, FINE_EPS);
        // A ratio to the accuracy without attack needs that accuracy and another one.
        let ours = ours.filter(|curve| curve.len() > 1 && curve[0].0 == 0.0);
        let ours: Vec<Option<Measured>> = match ours {
            Some(ours) => ours.into_iter().map(|(_, value)| Some(value)).collect(),
            None => vec![None; paper[row].len()],
        };
        let training = match models[row].0 {
            Attacked::Supervised => "supervised",
            Attacked::FineTuned(_) => "finetune",
        };
        let cells = ours.into_iter().enumerate().map(|(i, ours)| Cell {
            ours,
            paper: paper[row].get(i).copied(),
            training: training.to_string(),
        });
        cells.collect()
    };
    let attacks = [("pgd", &paper::FIG3_PGD), ("fgsm", &paper::FIG3_FGSM)];
    let groups = attacks.map(|(method, paper)| {
        let units = (1..models.len()).map(|row| {
            let supervised = curve(method, 0, paper);
            Unit {
                shape: Shape::Retention(supervised.len()),
                cells: [supervised, curve(method, row, paper)].concat(),
            }
        });
        let needs = format!(
            "{} (eps up to 8/255) on the baseline and a fine-tuned SimCLR",
            method.to_uppercase()
        );
        (needs, units.collect())
    });
    let chance = scope.classes(&scope.first).map(|n| 1.0 / n as f64);
    let above_chance = (0..models.len()).filter_map(|row| {
        let clean = attacks
            .iter()
            .map(|(method, paper)| curve(method, row, paper));
        let clean = clean
            .filter_map(|curve| curve.into_iter().next())
            .find(|cell| cell.ours.is_some())?;
        let unit = Unit {
            shape: Shape::Weighted(vec![1.0], chance?),
            cells: vec![clean],
        };
        let name = &models[row].1;
        Some(points(
            format!("The attacked classifier ({name}) is not significantly above chance"),
            vec![(name.clone(), vec![unit])],
            Pooling::Sides,
        ))
    });
    Question {
        number: 4,
        statement: "Fine-tuned encoders lose accuracy faster under attack than the supervised one",
        conditions: std::iter::once(learned(
            scope,
            &METHODS[0],
            "resnet50",
            scope.finetuned_steps(METHODS[0].id),
        ))
        .chain(above_chance)
        .collect(),
        parts: vec![points(
            "mean of acc(eps)/acc(0), supervised minus fine-tuned".to_string(),
            groups.into(),
            Pooling::Sides,
        )],
    }
}

fn transfer(scope: &Scope<'_>) -> Question {
    let (first, second) = (scope.first.as_str(), scope.second());
    let at = |method, from, on, tenths| Evaluation {
        method,
        arch: "resnet50",
        batch_size: (method == "simclr").then_some(TRANSFERRED_BATCH),
        from,
        on,
        steps: scope.steps(tenths),
    };
    let [paper_supervised, paper_simclr, _] = paper::TABLE2A.map(|row| row[0]);
    let forth = at("simclr", first, second, TRANSFERRED_TENTHS);
    let supervised = at("supervised", first, second, TRANSFERRED_TENTHS);
    let back = at("simclr", second, first, TRANSFERRED_TENTHS);
    let beats = Unit::difference(
        cell(scope, forth, Some(paper_simclr)),
        cell(scope, supervised, Some(paper_supervised)),
    );
    // `None` if nothing was pretrained on the set.
    let sizes = (
        scope.pretraining_images(first),
        scope.pretraining_images(second),
    );
    let with_size = |(set, images): (&str, Option<usize>)| match images {
        Some(images) => format!("{set} ({images} images)"),
        None => set.to_string(),
    };
    let (larger, smaller) = if sizes.0 > sizes.1 {
        ((first, sizes.0), (second, sizes.1))
    } else {
        ((second, sizes.1), (first, sizes.0))
    };
    // In the paper, the second set is the larger one.
    let [paper_smaller, paper_larger] = paper::FIG4;
    let units = (0..paper::FIG4_TENTHS.len()).map(|i| {
        let tenths = paper::FIG4_TENTHS[i];
        let ours = |(from, _), (on, _), paper| {
            let mut cell = cell(scope, at("simclr", from, on, tenths), Some(paper));
            // If both sets have the same size, neither is the larger one.
            cell.ours = cell.ours.filter(|_| sizes.0 != sizes.1);
            cell
        };
        Unit::difference(
            ours(larger, smaller, paper_larger[i]),
            ours(smaller, larger, paper_smaller[i]),
        )
    });
    let needs = match sizes {
        (Some(a), Some(b)) if a == b => format!("sets of different sizes (both {a})"),
        _ => "transfer of SimCLR in both directions".to_string(),
    };
    Question {
        number: 5,
        statement: "SimCLR transfers better than the supervised encoder, and the larger pretraining set transfers better",
        conditions: vec![
            above_untrained(scope, "SimCLR, transferred", "resnet50", vec![forth]),
            above_untrained(
                scope,
                "Supervised, transferred",
                "resnet50",
                vec![supervised],
            ),
            above_untrained(scope, "SimCLR, transferred", "resnet50", vec![back]),
        ],
        parts: vec![
            points(
                format!("{first} to {second}, SimCLR minus supervised"),
                vec![(
                    "transfer of SimCLR and of the supervised encoder".to_string(),
                    vec![beats],
                )],
                Pooling::Sides,
            ),
            points(
                format!(
                    "pretrained on {} minus on {}, each on the other's test images",
                    with_size(larger),
                    with_size(smaller)
                ),
                vec![(needs, units.collect())],
                Pooling::Sides,
            ),
        ],
    }
}

fn resnet18_is_poorer(scope: &Scope<'_>) -> Question {
    let groups = METHODS.iter().map(|method| {
        let units = method.batches.iter().map(|&batch| {
            let at = |arch| cell(scope, scope.own(method.id, arch, batch, TENTHS), None);
            Unit::difference(at("resnet50"), at("resnet18"))
        });
        let needs = format!(
            "linear evaluations of {} with ResNet-18 and ResNet-50 at equal batch sizes on {}",
            method.name, scope.first
        );
        (needs, units.collect())
    });
    let encoders = METHODS
        .iter()
        .flat_map(|m| ARCHS.map(|(arch, _)| (m, arch)));
    Question {
        number: 6,
        statement: "ResNet-18 learns a poorer representation than ResNet-50",
        conditions: encoders
            .map(|(method, arch)| learned(scope, method, arch, scope.full_steps()))
            .collect(),
        parts: vec![points(
            "ResNet-50 minus ResNet-18".to_string(),
            groups.collect(),
            Pooling::Sides,
        )],
    }
}

fn rotnet_is_cheaper(scope: &Scope<'_>) -> Question {
    let per_image =
        |total: f64, s: &PretrainingMetrics| (total / s.training.batch_size as f64).ln();
    let seconds =
        |s: &PretrainingMetrics| per_image(s.training.seconds / s.training.steps as f64, s);
    let flops = |s: &PretrainingMetrics| per_image(s.flops_per_step as f64, s);
    let part = |authors: bool, measured: bool| {
        let of = |method: &str, authors: bool, batch: usize, place: &str| Cell {
            ours: scope.cost(method, authors, batch, place, |s| {
                if measured { seconds(s) } else { flops(s) }
            }),
            paper: None,
            training: format!("{method} {batch}"),
        };
        let units = paper::SIMCLR_BATCHES.iter().map(|&batch| {
            let places = scope.places();
            let units = places.iter().map(|place| {
                Unit::difference(
                    of("simclr", false, batch, place),
                    of("rotnet", authors, batch, place),
                )
            });
            let whole = |unit: &Unit| unit.cells.iter().all(|cell| cell.ours.is_some());
            let mut units: Vec<Unit> = units.collect();
            let chosen = units.iter().position(whole).unwrap_or(0);
            units.swap_remove(chosen)
        });
        let (stems, unit) = (
            if authors {
                "the authors' stems"
            } else {
                "equal stems"
            },
            if measured { "seconds" } else { "operations" },
        );
        Part {
            what: format!("{unit} per image, RotNet relative to SimCLR, {stems}"),
            measure: Measure::Cost,
            groups: vec![(
                format!("pretraining of SimCLR and RotNet with {stems} on one device, ResNet-50"),
                units.collect(),
            )],
            pooling: Pooling::Terms,
            prior: if measured { TIME_SPREAD } else { 0.0 },
            decides: !authors,
        }
    };
    Question {
        number: 7,
        statement: "RotNet is cheaper",
        conditions: vec![],
        parts: vec![
            part(false, false),
            part(false, true),
            part(true, false),
            part(true, true),
        ],
    }
}

fn flattens(scope: &Scope<'_>) -> Question {
    let part = |what: String, weights: [f64; 4]| {
        let used = |weight: &&f64| **weight != 0.0;
        let groups = METHODS.iter().map(|method| {
            let units = method.figure2(scope).into_iter().map(|cells| {
                let cells = cells.into_iter().zip(weights);
                let cells = cells.filter(|(_, weight)| *weight != 0.0);
                Unit {
                    shape: Shape::Weighted(weights.iter().filter(used).copied().collect(), 0.0),
                    cells: cells.map(|(cell, _)| cell).collect(),
                }
            });
            (method.needs(scope), units.collect())
        });
        points(what, groups.collect(), Pooling::Terms)
    };
    let steps = paper::FIG2_TENTHS.map(|tenths| scope.steps(tenths));
    Question {
        number: 8,
        statement: "Accuracy flattens near 2,000 steps",
        conditions: METHODS
            .iter()
            .map(|method| learned(scope, method, "resnet50", scope.full_steps()))
            .collect(),
        parts: vec![
            part(
                format!("gain from {} to {} steps", steps[1], steps[2]),
                [0.0, -1.0, 1.0, 0.0],
            ),
            part(
                format!(
                    "this gain minus that from {} to {} steps",
                    steps[2], steps[3]
                ),
                [0.0, -1.0, 2.0, -1.0],
            ),
        ],
    }
}
