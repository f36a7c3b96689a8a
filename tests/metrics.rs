//! Metrics against scikit-learn's (tests/golden/generate_metrics.py).

use parallax::evaluate::metrics::Metrics;
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
