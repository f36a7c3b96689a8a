//! The paper's eight claims, each a list of paired comparisons that a rule decides: yes if all hold by more than two
//! standard errors, no if one is contradicted by as much, else undecided.

use super::figures::{FINE, attacked_models};
use super::paper;
use super::runs::{Attacked, Evaluation, Metric, Scope};
use super::statistics::{Measured, Verdict};
use crate::experiment::summary::PretrainingSummary;

/// One comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What must be above what, or below.
    pub what: String,
    /// The numbers that decide; none where a run is missing.
    pub numbers: Option<String>,
    pub verdict: Verdict,
}

/// A claim with all that decides it.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub number: usize,
    pub statement: String,
    pub verdict: Verdict,
    pub comparisons: Vec<Comparison>,
}

impl Claim {
    fn new(number: usize, statement: impl Into<String>, comparisons: Vec<Comparison>) -> Self {
        Claim {
            number,
            statement: statement.into(),
            verdict: Verdict::of_all(comparisons.iter().map(|c| c.verdict)),
            comparisons,
        }
    }
}

/// Per cent.
fn percent(value: f64) -> String {
    format!("{:.1} %", 100.0 * value)
}

/// Whether `higher` is above `lower`.
fn above(what: String, higher: Option<Measured>, lower: Option<Measured>) -> Comparison {
    let (Some(higher), Some(lower)) = (higher, lower) else {
        return missing(what);
    };
    let error = higher.standard_error().hypot(lower.standard_error());
    let (a, b) = (higher.mean(), lower.mean());
    Comparison {
        what,
        numbers: Some(format!(
            "{} and {}, standard error of the difference {:.2} points",
            percent(a),
            percent(b),
            100.0 * error
        )),
        verdict: Verdict::of_difference(a - b, error),
    }
}

fn missing(what: String) -> Comparison {
    Comparison {
        what,
        numbers: None,
        verdict: Verdict::Undecided,
    }
}

/// All claims of a scope.
pub fn claims(scope: &Scope<'_>) -> Vec<Claim> {
    vec![
        batch_and_steps(scope),
        simclr_beats_rotnet(scope),
        fine_tuned_beat_supervised(scope),
        fine_tuned_are_frailer(scope),
        transfer(scope),
        resnet18_is_poorer(scope),
        rotnet_is_cheaper(scope),
        flattens(scope),
    ]
}

const METHODS: [(&str, &str, &[usize]); 2] = [
    ("simclr", "SimCLR", &paper::SIMCLR_BATCHES),
    ("rotnet", "RotNet", &paper::ROTNET_BATCHES),
];

/// The linear evaluation of an encoder on its own set.
fn linear(
    scope: &Scope<'_>,
    method: &str,
    arch: &str,
    batch: usize,
    part: f64,
) -> Option<Measured> {
    let asked = Evaluation {
        method,
        arch,
        batch_size: Some(batch),
        from: &scope.first,
        on: &scope.first,
        steps: scope.steps(part),
    };
    scope.linear(asked, Metric::Top1)
}

fn batch_and_steps(scope: &Scope<'_>) -> Claim {
    let mut comparisons = Vec::new();
    for (method, name, batches) in METHODS {
        for pair in batches.windows(2) {
            let [small, large] = [pair[0], pair[1]];
            let at = |batch| linear(scope, method, "resnet50", batch, 1.0);
            let what = format!("{name}, all steps: batch {large} above batch {small}");
            comparisons.push(above(what, at(large), at(small)));
        }
        for &batch in batches {
            for pair in paper::FIG2_PARTS.windows(2) {
                let at = |part| linear(scope, method, "resnet50", batch, part);
                let what = format!(
                    "{name}, batch {batch}: {} steps above {}",
                    scope.steps(pair[1]),
                    scope.steps(pair[0])
                );
                comparisons.push(above(what, at(pair[1]), at(pair[0])));
            }
        }
    }
    Claim::new(
        1,
        "Accuracy rises with batch size and with steps",
        comparisons,
    )
}

fn simclr_beats_rotnet(scope: &Scope<'_>) -> Claim {
    let mut comparisons = Vec::new();
    for &batch in &paper::SIMCLR_BATCHES {
        for part in paper::FIG2_PARTS {
            let at = |method| linear(scope, method, "resnet50", batch, part);
            let what = format!(
                "batch {batch}, {} steps: SimCLR above RotNet",
                scope.steps(part)
            );
            comparisons.push(above(what, at("simclr"), at("rotnet")));
        }
    }
    Claim::new(2, "SimCLR beats RotNet", comparisons)
}

fn fine_tuned_beat_supervised(scope: &Scope<'_>) -> Claim {
    let mut comparisons = Vec::new();
    for (method, name, _) in METHODS {
        for fraction in paper::FRACTIONS {
            let at = |method| scope.classifier(method, fraction, Metric::Top1);
            let what = format!(
                "{} % of the labels: {name} fine-tuned above supervised",
                fraction * 100.0
            );
            comparisons.push(above(what, at(method), at("supervised")));
        }
    }
    Claim::new(
        3,
        "Both fine-tuned encoders beat the supervised baseline at each fraction of the labels",
        comparisons,
    )
}

/// The mean of acc(eps) / acc(0) over the eps above 0, and its standard error. The accuracies of one model are of the
/// same images, so that their errors are taken as going together.
fn kept(curve: &[(f64, Measured)]) -> Option<(f64, f64)> {
    let (_, clean) = curve.iter().find(|(eps, _)| *eps == 0.0)?;
    let attacked: Vec<&Measured> = curve
        .iter()
        .filter(|(eps, _)| *eps > 0.0)
        .map(|(_, measured)| measured)
        .collect();
    let base = clean.mean();
    if attacked.is_empty() || base <= 0.0 {
        return None;
    }
    let count = attacked.len() as f64;
    let ratio = attacked.iter().map(|m| m.mean() / base).sum::<f64>() / count;
    let of_attacked = attacked
        .iter()
        .map(|m| m.standard_error() / base)
        .sum::<f64>()
        / count;
    let of_clean = ratio * clean.standard_error() / base;
    Some((ratio, of_attacked.hypot(of_clean)))
}

fn fine_tuned_are_frailer(scope: &Scope<'_>) -> Claim {
    let mut comparisons = Vec::new();
    for method in ["pgd", "fgsm"] {
        let of = |model| kept(&scope.attack(method, model, FINE)?);
        for (model, name) in attacked_models() {
            if model == Attacked::Supervised {
                continue;
            }
            let what = format!(
                "{}: {name} keeps less of its accuracy than supervised",
                method.to_uppercase()
            );
            comparisons.push(match (of(Attacked::Supervised), of(model)) {
                (Some((supervised, a)), Some((tuned, b))) => Comparison {
                    what,
                    numbers: Some(format!(
                        "mean of acc(eps)/acc(0): {tuned:.3} and {supervised:.3}, standard error of the difference {:.3}",
                        a.hypot(b)
                    )),
                    verdict: Verdict::of_difference(supervised - tuned, a.hypot(b)),
                },
                _ => missing(what),
            });
        }
    }
    Claim::new(
        4,
        "Fine-tuned encoders lose accuracy faster under attack than the supervised one (eps up to 8/255)",
        comparisons,
    )
}

fn transfer(scope: &Scope<'_>) -> Claim {
    let statement = "Transfer beats the supervised transfer, and pretraining on the larger set transfers better";
    let first = scope.first.as_str();
    let Some(second) = scope.second.as_deref() else {
        let what = "there is no second data set among the runs".to_string();
        return Claim::new(5, statement, vec![missing(what)]);
    };
    let at = |method, from, on| {
        let asked = Evaluation {
            method,
            arch: "resnet50",
            batch_size: (method == "simclr").then_some(128),
            from,
            on,
            steps: scope.steps(0.4),
        };
        scope.linear(asked, Metric::Top1)
    };
    let forth = at("simclr", first, second);
    let what = format!("{first} to {second}: SimCLR above supervised");
    let mut comparisons = vec![above(what, forth.clone(), at("supervised", first, second))];
    let sizes = (
        scope.pretraining_images(first),
        scope.pretraining_images(second),
    );
    let back = at("simclr", second, first);
    comparisons.push(match sizes {
        (Some(a), Some(b)) => {
            let (name, larger, smaller) = if a >= b {
                (
                    format!(
                        "{first} ({a} images) to {second} above {second} ({b} images) to {first}"
                    ),
                    forth,
                    back,
                )
            } else {
                (
                    format!(
                        "{second} ({b} images) to {first} above {first} ({a} images) to {second}"
                    ),
                    back,
                    forth,
                )
            };
            above(name, larger, smaller)
        }
        _ => missing("pretraining on the larger set above that on the smaller".to_string()),
    });
    Claim::new(5, statement, comparisons)
}

fn resnet18_is_poorer(scope: &Scope<'_>) -> Claim {
    let mut comparisons = Vec::new();
    for (method, name, batches) in METHODS {
        for &batch in batches {
            let at = |arch| linear(scope, method, arch, batch, 1.0);
            let what = format!("{name}, batch {batch}: ResNet-50 above ResNet-18");
            comparisons.push(above(what, at("resnet50"), at("resnet18")));
        }
    }
    Claim::new(
        6,
        "ResNet-18 learns a poorer representation than ResNet-50",
        comparisons,
    )
}

/// The batch size at which costs are compared.
const COST_BATCH: usize = 128;

fn rotnet_is_cheaper(scope: &Scope<'_>) -> Claim {
    let per_image = |total: f64, s: &PretrainingSummary| total / s.batch_size as f64;
    let seconds = |s: &PretrainingSummary| per_image(s.seconds / s.steps as f64, s);
    let flops = |s: &PretrainingSummary| per_image(s.flops_per_step as f64, s);
    let cost = |method, authors, of: &dyn Fn(&PretrainingSummary) -> f64| {
        scope
            .cost(method, authors, COST_BATCH, of)
            .map(|m| m.mean())
    };
    let mut comparisons = Vec::new();
    for (authors, stems) in [(true, "the authors' stems"), (false, "equal stems")] {
        for (unit, factor, of) in [
            ("ms", 1e3, &seconds as &dyn Fn(&PretrainingSummary) -> f64),
            ("GFLOP", 1e-9, &flops),
        ] {
            let what =
                format!("{stems}, an image of a step: RotNet takes fewer {unit} than SimCLR");
            let both = (cost("rotnet", authors, of), cost("simclr", false, of));
            comparisons.push(match both {
                (Some(rotnet), Some(simclr)) => Comparison {
                    what,
                    numbers: Some(format!(
                        "{:.3} {unit} and {:.3} {unit}",
                        rotnet * factor,
                        simclr * factor
                    )),
                    verdict: if rotnet < simclr {
                        Verdict::Yes
                    } else {
                        Verdict::No
                    },
                },
                _ => missing(what),
            });
        }
    }
    Claim::new(7, "RotNet is cheaper", comparisons)
}

fn flattens(scope: &Scope<'_>) -> Claim {
    let mut comparisons = Vec::new();
    for (method, name, batches) in METHODS {
        for &batch in batches {
            let at = |part| linear(scope, method, "resnet50", batch, part);
            let what = format!(
                "{name}, batch {batch}: {} to {} steps gains less than {} to {}",
                scope.steps(0.4),
                scope.steps(1.0),
                scope.steps(0.2),
                scope.steps(0.4)
            );
            comparisons.push(match (at(0.2), at(0.4), at(1.0)) {
                (Some(early), Some(middle), Some(late)) => {
                    let (before, after) = (
                        middle.mean() - early.mean(),
                        late.mean() - middle.mean(),
                    );
                    // The middle value is in both gains.
                    let error = early
                        .standard_error()
                        .hypot(late.standard_error())
                        .hypot(2.0 * middle.standard_error());
                    Comparison {
                        what,
                        numbers: Some(format!(
                            "{:+.1} and {:+.1} points, standard error of the difference {:.2} points",
                            100.0 * after,
                            100.0 * before,
                            100.0 * error
                        )),
                        verdict: Verdict::of_difference(before - after, error),
                    }
                }
                _ => missing(what),
            });
        }
    }
    Claim::new(8, "Accuracy flattens near 2,000 steps", comparisons)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(value: f64) -> Measured {
        Measured {
            values: vec![value],
            images: Some(10_000),
            runs: vec![],
        }
    }

    #[test]
    fn a_difference_decides_by_two_standard_errors() {
        let of = |a, b| above(String::new(), Some(measured(a)), Some(measured(b))).verdict;
        // Of two accuracies near a half over 10,000 images: 0.71 points.
        assert_eq!(of(0.52, 0.50), Verdict::Yes);
        assert_eq!(of(0.51, 0.50), Verdict::Undecided);
        assert_eq!(of(0.48, 0.50), Verdict::No);
        let none = above("x".to_string(), None, Some(measured(0.5)));
        assert_eq!((none.verdict, none.numbers), (Verdict::Undecided, None));
    }

    #[test]
    fn what_is_kept_under_attack_is_a_mean_of_ratios() {
        let curve = [
            (0.0, measured(0.8)),
            (0.1, measured(0.4)),
            (0.2, measured(0.2)),
        ];
        let (ratio, error) = kept(&curve).unwrap();
        assert!((ratio - 0.375).abs() < 1e-12);
        let attacked = ((0.24f64 / 1e4).sqrt() + (0.16f64 / 1e4).sqrt()) / 2.0 / 0.8;
        let clean = 0.375 * (0.16f64 / 1e4).sqrt() / 0.8;
        assert!((error - attacked.hypot(clean)).abs() < 1e-12);
        assert!(kept(&curve[1..]).is_none(), "without a clean accuracy");
    }
}
