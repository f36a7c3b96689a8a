//! The claims on runs in memory whose true accuracies are known.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::claims::claims;
use super::inference::{Answer, Claim};
use super::runs::{Found, Run, Runs, result};
use crate::paper::numbers as paper;
use crate::philox::Philox;
use crate::runs::weights_file::UNTRAINED;

const FIRST: &str = "A";
const SECOND: &str = "B";
const PARTS: [u64; 4] = [500, 1000, 2000, 5000];
const BATCHES: [usize; 5] = [32, 64, 128, 256, 512];

/// What a value is of.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Key {
    /// The kind of run: linear, classifier or attack.
    kind: &'static str,
    method: &'static str,
    arch: &'static str,
    batch: usize,
    steps: u64,
    from: &'static str,
    on: &'static str,
    fraction: f64,
}

const LINEAR: Key = Key {
    kind: "linear",
    method: "simclr",
    arch: "resnet50",
    batch: 128,
    steps: 5000,
    from: FIRST,
    on: FIRST,
    fraction: 1.0,
};

/// Runs in memory with the keys of those that have an accuracy.
struct Synthetic {
    runs: Runs,
    keys: Vec<Option<Key>>,
}

fn start(key: &Key) -> Value {
    json!({"file": "f", "command": key.method, "protocol": "sound", "data": key.from, "seed": 0, "steps": key.steps,
           "batch_size": key.batch})
}

impl Synthetic {
    fn new(seeds: u64) -> Self {
        let runs = Runs {
            all: Vec::new(),
            grid: None,
        };
        let mut grid = Synthetic {
            runs,
            keys: Vec::new(),
        };
        for seed in 0..seeds {
            grid.add_seed(seed);
        }
        grid
    }

    fn push(&mut self, key: Option<Key>, summary: Value) {
        self.keys.push(key);
        let result = result(summary).unwrap().unwrap();
        self.runs.all.push(Run {
            folder: format!("run{}", self.keys.len()),
            pretraining_images: if result.data == FIRST {
                50_000
            } else {
                100_000
            },
            result,
            digest: String::new(),
            init: "random".to_string(),
        });
    }

    fn common(key: &Key, seed: u64) -> Value {
        let images = if key.on == FIRST { 10_000 } else { 8_000 };
        let mut confusion = vec![vec![0; 10]; 10];
        confusion[0][0] = images;
        json!({"command": key.kind, "protocol": "sound", "data": key.on, "device": "cpu", "arch": key.arch,
            "width": 1.0, "seed": seed, "start": start(key), "label_fraction": key.fraction, "labelled_images": 1,
            "total_seconds": 1.0, "parallax_version": "0", "epochs": 1, "final_loss": 1.0,
            "encoder_digest": "d", "resolution": 32,
            "metrics": {"top1": 0.0, "top2": 0.0, "top3": 0.0, "auc_ovo": 0.0, "auc_ovr": 0.0, "loss": 0.0,
                        "confusion": confusion},
            "batch_size": 64, "steps": 1, "chance_loss": 1.0, "first_loss": 1.0, "final_loss_mean": 1.0,
            "seconds": 1.0, "images_per_second": 1.0, "peak_bytes": 1})
    }

    fn linear(&mut self, key: Key, seed: u64) {
        let mut summary = Self::common(&key, seed);
        summary["command"] = json!(if key.from == key.on {
            "linear"
        } else {
            "transfer"
        });
        self.push(Some(key), summary);
    }

    fn add_seed(&mut self, seed: u64) {
        for (method, batches) in [("simclr", &BATCHES[..4]), ("rotnet", &BATCHES[..])] {
            for &batch in batches {
                for steps in PARTS {
                    for arch in ["resnet50", "resnet18"] {
                        let key = Key {
                            method,
                            arch,
                            batch,
                            steps,
                            ..LINEAR
                        };
                        self.linear(key, seed);
                    }
                }
            }
        }
        for arch in ["resnet50", "resnet18"] {
            for on in [FIRST, SECOND] {
                let (batch, steps, method) = (0, 0, UNTRAINED);
                let key = Key {
                    method,
                    arch,
                    batch,
                    steps,
                    from: on,
                    on,
                    ..LINEAR
                };
                self.linear(key, seed);
            }
        }
        for steps in [500, 1000, 1500, 2000] {
            self.linear(
                Key {
                    steps,
                    on: SECOND,
                    ..LINEAR
                },
                seed,
            );
            self.linear(
                Key {
                    steps,
                    from: SECOND,
                    ..LINEAR
                },
                seed,
            );
        }
        let supervised = Key {
            method: "supervised",
            batch: 64,
            steps: 2000,
            on: SECOND,
            ..LINEAR
        };
        self.linear(supervised, seed);
        for fraction in [0.01, 0.1, 0.5] {
            for method in ["supervised", "rotnet", "simclr"] {
                let key = Key {
                    kind: "classifier",
                    method,
                    fraction,
                    ..LINEAR
                };
                let mut summary = Self::common(&key, seed);
                summary["command"] = json!("finetune");
                if method == "supervised" {
                    summary["command"] = json!("supervised");
                    summary.as_object_mut().unwrap().remove("start");
                }
                self.push(Some(key), summary);
            }
        }
        for attack in ["pgd", "fgsm"] {
            for fraction in [1.0, 0.01, 0.1, 0.5] {
                let method = if fraction == 1.0 {
                    "supervised"
                } else {
                    "simclr"
                };
                let key = Key {
                    kind: "attack",
                    method,
                    fraction,
                    ..LINEAR
                };
                let mut summary = Self::common(&key, seed);
                summary["method"] = json!(attack);
                summary["start"]["label_fraction"] = json!(fraction);
                if method == "simclr" {
                    summary["start"]["pretrained_by"] = json!(method);
                }
                let point = |i: u32| json!({"eps": 8.0 / 255.0 * f64::from(i) / 9.0, "top1": 0.0});
                summary["curve"] = (0..10).map(point).collect();
                for (name, value) in [
                    ("units", json!("pixels")),
                    ("images", json!(1000)),
                    ("clean_top1", json!(0.0)),
                    ("pictured", json!([])),
                ] {
                    summary[name] = value;
                }
                self.push(Some(key), summary);
            }
        }
        for (method, flops) in [("simclr", 2_000_000), ("rotnet", 2_000_000)] {
            for batch in &BATCHES[..4] {
                let mut summary = Self::common(&LINEAR, seed);
                for (name, value) in [
                    ("command", json!(method)),
                    ("stem", json!("cifar, padding 1")),
                    ("batch_size", json!(batch)),
                    ("steps", json!(100)),
                    ("flops_per_step", json!(flops)),
                    ("peak_bytes_total", json!(1)),
                ] {
                    summary[name] = value;
                }
                self.push(None, summary);
            }
        }
    }

    /// Gives every run the accuracy `truth`, of which an attack leaves the part `left` at the last
    /// strength, and every pretraining its seconds; then binomial noise, a spread of `spread` over
    /// trainings and evaluations, and one of 10 % of the seconds.
    fn fill(
        &mut self,
        truth: &dyn Fn(&Key) -> f64,
        left: &dyn Fn(&Key) -> f64,
        noise: Option<(&mut Philox, f64)>,
    ) {
        let mut normal = Normal(noise);
        let mut trainings: BTreeMap<String, f64> = BTreeMap::new();
        for (run, key) in self.runs.all.iter_mut().zip(&self.keys) {
            let seed = run.result.seed;
            let Some(key) = key else {
                if let Found::Pretraining(s) = &mut run.result.metrics {
                    s.training.seconds = 100.0 * (0.1 * normal.draw()).exp();
                }
                continue;
            };
            let training = format!(
                "{} {} {} {} {} {seed}",
                key.kind, key.method, key.arch, key.batch, key.from
            );
            // Of the variance over seeds, two thirds are the training's and one third the
            // checkpoint's.
            let of_training = *trainings.entry(training).or_insert_with(|| normal.draw());
            let spread = normal.spread();
            let of_seed =
                spread * ((2f64 / 3.0).sqrt() * of_training + (1f64 / 3.0).sqrt() * normal.draw());
            let mut accuracy = |p: f64, images: f64| {
                let p = (p + of_seed).clamp(0.0, 1.0);
                let error = (p * (1.0 - p) / images).sqrt() * normal.draw();
                ((p + error).clamp(0.0, 1.0) * images).round() / images
            };
            match &mut run.result.metrics {
                Found::Linear(s) => {
                    let images = if key.on == FIRST { 10_000.0 } else { 8_000.0 };
                    s.test.top1 = accuracy(truth(key), images);
                }
                Found::Classification(s) => s.test.top1 = accuracy(truth(key), 10_000.0),
                Found::Attack(s) => {
                    let points = s.curve.len() - 1;
                    for (i, point) in s.curve.iter_mut().enumerate() {
                        let part = i as f64 / points as f64;
                        let kept = 1.0 - part * (1.0 - left(key));
                        point.top1 = accuracy(truth(key) * kept, 1000.0);
                    }
                }
                Found::Pretraining(_) => {}
            }
        }
    }

    fn claims(&self) -> Vec<Claim> {
        let scopes = self.runs.scopes();
        assert_eq!(scopes.len(), 1);
        claims(&scopes[0])
    }
}

/// Standard normal numbers, or zeros without noise.
struct Normal<'a>(Option<(&'a mut Philox, f64)>);

impl Normal<'_> {
    fn spread(&self) -> f64 {
        self.0.as_ref().map_or(0.0, |(_, spread)| *spread)
    }

    fn draw(&mut self) -> f64 {
        let generator = self.0.as_mut().map(|(generator, _)| generator);
        generator.map_or(0.0, |generator| f64::from(generator.normal()))
    }
}

/// The paper's picture as a formula.
fn as_claimed(key: &Key) -> f64 {
    let size = (key.batch.max(1) as f64 / 32.0).log2();
    let progress = match key.steps {
        500 => 0.0,
        1000 => 0.06,
        1500 => 0.09,
        2000 => 0.10,
        _ => 0.115,
    };
    match (key.kind, key.method) {
        ("classifier" | "attack", "supervised") => 0.5,
        ("classifier" | "attack", "rotnet") => 0.6,
        ("classifier" | "attack", _) => 0.7,
        (_, UNTRAINED) => 0.25,
        (_, "supervised") => 0.45,
        (_, "simclr") if key.from == SECOND => 0.70 + progress,
        (_, "simclr") => 0.50 + 0.05 * size + progress - 0.05 * f64::from(key.arch == "resnet18"),
        _ => 0.40 + 0.02 * size + progress - 0.05 * f64::from(key.arch == "resnet18"),
    }
}

fn left(key: &Key) -> f64 {
    if key.method == "supervised" { 0.6 } else { 0.1 }
}

fn answers(claims: &[Claim]) -> Vec<Answer> {
    claims.iter().map(|claim| claim.answer).collect()
}

#[test]
fn clear_effects_are_supported_and_their_opposites_contradicted() {
    use Answer::{Contradicted, NotDecided, Supported};
    let mut grid = Synthetic::new(1);
    let mut generator = Philox::new(1, [0, 0, 0]);
    grid.fill(&as_claimed, &left, Some((&mut generator, 0.005)));
    let mut expected = vec![Supported; 8];
    // Equal costs.
    expected[6] = NotDecided;
    let found = grid.claims();
    assert_eq!(answers(&found), expected, "{found:#?}");

    // Everything the other way round, far above the untrained encoder.
    let opposite = |key: &Key| match key.method {
        UNTRAINED => 0.1,
        _ => 1.0 - as_claimed(key),
    };
    let other_left = |key: &Key| 0.7 - left(key);
    grid.fill(&opposite, &other_left, Some((&mut generator, 0.005)));
    let mut expected = vec![Contradicted; 8];
    expected[6] = NotDecided;
    let found = grid.claims();
    assert_eq!(answers(&found), expected, "{found:#?}");
}

#[test]
fn costs_decide_by_operations_and_seconds_with_equal_stems() {
    let mut grid = Synthetic::new(1);
    grid.fill(&as_claimed, &left, None);
    let mut answer = |flops: u64, seconds: f64| {
        for run in &mut grid.runs.all {
            if let Found::Pretraining(s) = &mut run.result.metrics
                && run.result.command == "rotnet"
            {
                (s.flops_per_step, s.training.seconds) = (flops, seconds);
            }
        }
        grid.claims().swap_remove(6)
    };
    assert_eq!(answer(1_000_000, 50.0).answer, Answer::Supported);
    assert_eq!(answer(4_000_000, 200.0).answer, Answer::Contradicted);
    // Seconds within their spread.
    assert_eq!(answer(1_000_000, 97.0).answer, Answer::NotDecided);
    let claim = answer(4_000_000, 200.0);
    assert_eq!(claim.findings[0].ours(), "2.00 times, exact");
    assert!(claim.findings[1].ours().starts_with("2.00 times ("));
    assert_eq!(claim.findings[2].ours(), "not run");
}

#[test]
fn the_effects_are_those_of_the_truth_and_the_paper_has_its_own() {
    let mut grid = Synthetic::new(1);
    grid.fill(&as_claimed, &left, None);
    let found = grid.claims();
    let effect = |claim: usize, part: usize| found[claim - 1].findings[part].ours.unwrap().estimate;
    let paper = |claim: usize, part: usize| found[claim - 1].findings[part].paper;
    assert!(
        (effect(1, 0) - 0.035).abs() < 1e-4,
        "the mean of 5 and 2 points"
    );
    assert!(
        (effect(2, 0) - 0.145).abs() < 1e-4,
        "10 points and 3 per doubling"
    );
    assert!((effect(3, 0) - 0.2).abs() < 1e-9 && (effect(3, 1) - 0.1).abs() < 1e-9);
    // 1 - 0.4 i / 9 and 1 - 0.9 i / 9 over i = 1 to 9.
    assert!((effect(4, 0) - (0.7778 - 0.5)).abs() < 2e-3);
    assert!((effect(5, 0) - 0.25).abs() < 1e-4 && (effect(6, 0) - 0.05).abs() < 1e-4);
    assert!((effect(8, 0) - 0.04).abs() < 1e-4 && (effect(8, 1) - 0.025).abs() < 1e-4);
    let close = |value: Option<f64>, expected: f64| (value.unwrap() - expected).abs() < 1e-9;
    assert!(close(paper(5, 0), 0.6698 - 0.4713));
    let fine_tuned = (0.653 - 0.141 + 0.822 - 0.373 + 0.870 - 0.475) / 3.0;
    assert!(close(paper(3, 0), fine_tuned));
    assert!(close(paper(5, 1), (2.691 - 2.601) / 4.0));
    assert_eq!((paper(6, 0), paper(7, 0)), (None, None));
}

/// The paper's accuracies, of the keys that its linear evaluations and its Table 1 have.
fn of_paper(key: &Key) -> f64 {
    let place = |of: &[usize]| of.iter().position(|b| *b == key.batch).unwrap();
    let step = |of: &[u64]| of.iter().position(|s| *s == key.steps).unwrap();
    let transferred = [500, 1000, 1500, 2000];
    match (key.kind, key.method) {
        ("classifier", method) => {
            let row = ["supervised", "rotnet", "simclr"]
                .iter()
                .position(|m| *m == method);
            let fraction = paper::FRACTIONS.iter().position(|f| *f == key.fraction);
            paper::TABLE1[row.unwrap()][fraction.unwrap()][0]
        }
        (_, UNTRAINED) => 0.35,
        ("linear", "supervised") => 0.4713,
        ("linear", _) if key.from != key.on => {
            paper::FIG4[usize::from(key.from == SECOND)][step(&transferred)]
        }
        ("linear", "simclr") => paper::FIG2_SIMCLR[place(&paper::SIMCLR_BATCHES)][step(&PARTS)],
        ("linear", _) => paper::FIG2_ROTNET[place(&paper::ROTNET_BATCHES)][step(&PARTS)],
        _ => 0.8,
    }
}

#[test]
fn the_papers_own_numbers_support_what_they_can() {
    let mut generator = Philox::new(3, [0, 0, 0]);
    let mut answered = |seeds: u64| {
        let mut grid = Synthetic::new(seeds);
        grid.fill(&of_paper, &left, Some((&mut generator, 0.003)));
        answers(&grid.claims())
    };
    let one = answered(1);
    for claim in [1, 2, 3] {
        assert_eq!(one[claim - 1], Answer::Supported, "{claim}, one seed");
    }
    let five = answered(5);
    for claim in [1, 2, 3, 8] {
        assert_eq!(five[claim - 1], Answer::Supported, "{claim}, five seeds");
    }
    // 2.2 points between two sets are within the errors of 10,000 and 8,000 images.
    assert_eq!(five[4], Answer::NotDecided);
}

#[test]
fn encoders_that_learned_nothing_and_missing_runs_are_not_tested() {
    let mut grid = Synthetic::new(1);
    grid.fill(&as_claimed, &left, None);
    let learned_nothing = |key: &Key| match (key.kind, key.method) {
        ("linear", "rotnet") => 0.25,
        _ => as_claimed(key),
    };
    grid.fill(&learned_nothing, &left, None);
    let found = grid.claims();
    for number in [1, 2, 3, 6, 8] {
        assert_eq!(found[number - 1].answer, Answer::NotTested, "{number}");
    }
    let reason = &found[1].reason;
    assert!(
        reason.starts_with(
            "RotNet (ResNet-50) is not significantly above the untrained encoder on A: "
        ),
        "{reason}"
    );
    assert_eq!(found[4].answer, Answer::Supported);

    // Half of RotNet's runs are enough, and counted; none are not.
    grid.fill(&as_claimed, &left, None);
    let whole = grid.claims();
    let mut drop = |gone: &dyn Fn(&Key) -> bool| {
        let keep: Vec<bool> = grid
            .keys
            .iter()
            .map(|k| !k.is_some_and(|k| gone(&k)))
            .collect();
        let mut kept = keep.iter();
        grid.runs.all.retain(|_| *kept.next().unwrap());
        let mut kept = keep.iter();
        grid.keys.retain(|_| *kept.next().unwrap());
        grid.claims()
    };
    let rotnet = |key: &Key| key.kind == "linear" && key.method == "rotnet";
    let found = drop(&|key| rotnet(key) && key.batch > 64);
    assert_eq!(found[1].answer, Answer::Supported);
    assert!(
        found[1].reason.ends_with("over 16 of 32 values."),
        "{}",
        found[1].reason
    );
    assert!(
        found[1].findings[0].paper != whole[1].findings[0].paper,
        "over the same values"
    );
    let found = drop(&rotnet);
    assert_eq!(found[1].answer, Answer::NotTested);
    assert!(
        found[1]
            .reason
            .contains("Not run: linear evaluations of RotNet on A, ResNet-50"),
        "{}",
        found[1].reason
    );
    assert_eq!(found[1].findings[0].paper, whole[1].findings[0].paper);
    let found = drop(&|key| key.method == UNTRAINED);
    let reason = &found[4].reason;
    assert!(
        reason.contains("the linear evaluation of the untrained ResNet-50 on B"),
        "{reason}"
    );
}

#[test]
fn a_classifier_at_chance_has_nothing_to_lose() {
    let mut grid = Synthetic::new(1);
    let at_chance = |key: &Key| match key.kind {
        "attack" if key.fraction == 0.01 => 0.1,
        _ => as_claimed(key),
    };
    grid.fill(&at_chance, &left, None);
    let claim = grid.claims().swap_remove(3);
    assert_eq!(claim.answer, Answer::NotTested);
    assert!(
        claim
            .reason
            .contains("(SimCLR, 1 %) is not significantly above chance"),
        "{}",
        claim.reason
    );
}

/// Draws of which any claim has an answer, in 1,000.
fn answered(seeds: u64, spread: f64, truth: &dyn Fn(&Key) -> f64) -> usize {
    let mut grid = Synthetic::new(seeds);
    let mut generator = Philox::new(7, [seeds as u32, 0, 0]);
    let wrong = |claim: &Claim| matches!(claim.answer, Answer::Supported | Answer::Contradicted);
    let mut count = 0;
    for _ in 0..1000 {
        grid.fill(truth, &|_| 0.4, Some((&mut generator, spread)));
        count += usize::from(grid.claims().iter().any(wrong));
    }
    count
}

/// Equal encoders, clearly above the untrained ones.
fn equal(key: &Key) -> f64 {
    if key.method == UNTRAINED { 0.3 } else { 0.6 }
}

#[test]
fn noise_is_rarely_answered() {
    let count = answered(1, 0.005, &equal);
    assert!(count <= 50, "{count} of 1,000");
    // Every claim was tested.
    let mut grid = Synthetic::new(1);
    grid.fill(&equal, &|_| 0.4, None);
    assert_eq!(answers(&grid.claims()), [Answer::NotDecided; 8]);
}

#[test]
fn noise_at_the_level_of_untrained_encoders_is_rarely_answered() {
    let count = answered(1, 0.005, &|_| 0.3);
    assert!(count <= 50, "{count} of 1,000");
}

#[test]
fn noise_over_several_seeds_is_rarely_answered_at_any_spread() {
    for seeds in [2, 3] {
        let count = answered(seeds, 0.02, &equal);
        assert!(count <= 50, "{count} of 1,000 with {seeds} seeds");
    }
}
