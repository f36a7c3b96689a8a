//! Metrics against those of scikit-learn (tests/golden/generate_metrics.py).

use parallax::evaluate::metrics::Metrics;
use parallax::philox::Philox;
use serde_json::Value;

#[test]
fn metrics_equal_scikit_learns() {
    let golden: Value =
        serde_json::from_str(include_str!("golden/metrics.json")).expect("it is JSON");
    let cases = golden["cases"].as_array().expect("a list");
    assert_eq!(cases.len(), 4);
    for case in cases {
        let name = &case["name"];
        let numbers = |key: &str| case[key].as_array().expect("a list").iter();
        let logits: Vec<f32> = numbers("logits")
            .map(|x| x.as_f64().expect("a number") as f32)
            .collect();
        let labels: Vec<u32> = numbers("labels")
            .map(|x| x.as_u64().expect("a number") as u32)
            .collect();
        let classes = case["classes"].as_u64().expect("a number") as usize;
        let found = Metrics::from_logits(&logits, &labels, classes).expect("all classes are there");
        for (key, value) in [
            ("top1", found.top1),
            ("top2", found.top2),
            ("top3", found.top3),
            ("auc_ovo", found.auc_ovo),
            ("auc_ovr", found.auc_ovr),
            ("loss", found.loss),
        ] {
            let expected = case[key].as_f64().expect("a number");
            assert!(
                (value - expected).abs() < 1e-6,
                "{name}: {key} is {value}, scikit-learn's {expected}"
            );
        }
        let confusion = serde_json::to_value(&found.confusion).expect("numbers");
        assert_eq!(confusion, case["confusion"], "{name}");
    }
}

/// The probability that a positive has a higher score than a negative, over all pairs. Equal scores
/// count half.
fn area(positives: &[f32], negatives: &[f32]) -> f64 {
    let pairs = positives
        .iter()
        .flat_map(|p| negatives.iter().map(move |n| (p, n)));
    let won = pairs.map(|(p, n)| f64::from(p > n) + 0.5 * f64::from(p == n));
    won.sum::<f64>() / (positives.len() * negatives.len()) as f64
}

#[test]
fn areas_count_pairs_if_many_scores_are_equal() {
    let classes = 4;
    let labels: Vec<u32> = (0..120).map(|i| i % 4).collect();
    for levels in [1, 2, 5] {
        let mut rng = Philox::new(5, [levels, 0, 0]);
        // The same numbers in each row, so that their softmax has the same order and the same ties.
        let logits: Vec<f32> = labels
            .iter()
            .flat_map(|_| {
                let mut row = [0, 1, 2, 3].map(|c| (c % levels) as f32);
                rng.shuffle(&mut row);
                row
            })
            .collect();
        let of = |class: u32, column: u32| -> Vec<f32> {
            let rows = labels.iter().zip(logits.chunks(classes));
            let own = rows.filter(|(label, _)| **label == class);
            own.map(|(_, row)| row[column as usize]).collect()
        };
        let (mut one_vs_one, mut one_vs_rest) = (0.0, 0.0);
        for a in 0..4 {
            let others: Vec<u32> = (0..4).filter(|b| *b != a).collect();
            let rest: Vec<f32> = others.iter().flat_map(|b| of(*b, a)).collect();
            one_vs_rest += area(&of(a, a), &rest) / 4.0;
            for b in others {
                one_vs_one += area(&of(a, a), &of(b, a)) / 12.0;
            }
        }
        let found = Metrics::from_logits(&logits, &labels, classes).expect("all classes are there");
        assert!(
            (found.auc_ovo - one_vs_one).abs() < 1e-12
                && (found.auc_ovr - one_vs_rest).abs() < 1e-12,
            "{levels} levels: {} and {}, expected {one_vs_one} and {one_vs_rest}",
            found.auc_ovo,
            found.auc_ovr
        );
    }
}

#[test]
fn areas_of_three_classes_worked_out_by_hand() {
    // The softmax of the logarithms of rows whose sum is 10.
    let rows = [
        [5.0, 3.0, 2.0],
        [2.0, 2.0, 6.0],
        [4.0, 4.0, 2.0],
        [1.0, 3.0, 6.0f32],
    ];
    let logits: Vec<f32> = rows.concat().into_iter().map(f32::ln).collect();
    let found = Metrics::from_logits(&logits, &[0, 0, 1, 2], 3).expect("all classes are there");
    // Classes 0 and 1: score 0 orders 1 of 2 pairs, score 1 both.
    // Classes 0 and 2: score 0 orders both pairs, score 2 one, and the other is a tie.
    // Classes 1 and 2: both scores order all pairs.
    assert!((found.auc_ovo - (0.75 + 0.875 + 1.0) / 3.0).abs() < 1e-12);
    // Class 0: 5 is above two scores, 2 is above one of two.
    // Class 1: 4 is above all three.
    // Class 2: 6 is above two of three and equal to one.
    assert!((found.auc_ovr - (0.75 + 1.0 + 2.5 / 3.0) / 3.0).abs() < 1e-12);
}
