//! The report on runs whose numbers are known: its tables, its answers to the claims, and what it
//! does without runs.

mod process;

use std::fs;
use std::path::Path;

use process::{good, refused};
use serde_json::{Value, json};
use tempfile::TempDir;

const FIRST: &str = "A & <b>";
const SECOND: &str = "B";
const BATCHES: [usize; 5] = [32, 64, 128, 256, 512];
const PARTS: [u64; 4] = [500, 1000, 2000, 5000];

/// A run folder with this summary.
fn write(base: &Path, id: &str, mut summary: Value) {
    let folder = base.join("jobs").join(id);
    fs::create_dir_all(&folder).unwrap();
    for (key, value) in [
        ("protocol", json!("sound")),
        ("device", json!("cpu")),
        ("width", json!(1.0)),
        ("total_seconds", json!(1.0)),
        ("parallax_version", json!("0.1.0")),
    ] {
        if summary.get(key).is_none() {
            summary[key] = value;
        }
    }
    if summary.get("seed").is_none() {
        summary["seed"] = json!(0);
    }
    let images = if summary["data"] == SECOND {
        100_000
    } else {
        50_000
    };
    fs::write(folder.join("summary.json"), summary.to_string()).unwrap();
    let config = format!(
        "init = \"random\"\n[data]\ndigest = \"abc{images}\"\npretraining_images = {images}\n"
    );
    fs::write(folder.join("config.toml"), config).unwrap();
}

fn metrics(top1: f64, images: u64) -> Value {
    let mut confusion = vec![vec![0; 10]; 10];
    confusion[0][0] = images;
    json!({"top1": top1, "top2": top1, "top3": top1, "auc_ovo": top1, "auc_ovr": top1, "loss": 1.0,
           "confusion": confusion})
}

fn start(command: &str, data: &str, batch_size: usize, steps: u64) -> Value {
    json!({"file": "f", "command": command, "protocol": "sound", "data": data, "seed": 0, "steps": steps,
           "batch_size": batch_size})
}

/// A linear evaluation, or a transfer where the sets differ.
struct Linear<'a> {
    method: &'a str,
    arch: &'a str,
    batch: usize,
    steps: u64,
    from: &'a str,
    on: &'a str,
    seed: u64,
}

const LINEAR: Linear<'static> = Linear {
    method: "simclr",
    arch: "resnet50",
    batch: 128,
    steps: 5000,
    from: FIRST,
    on: FIRST,
    seed: 0,
};

/// The linear evaluation of an encoder with its initial weights.
fn untrained<'a>(arch: &'a str, on: &'a str) -> Linear<'a> {
    Linear {
        method: "untrained",
        arch,
        batch: 0,
        steps: 0,
        from: on,
        on,
        ..LINEAR
    }
}

fn write_linear(base: &Path, run: &Linear<'_>, top1: f64) {
    let command = if run.from == run.on {
        "linear"
    } else {
        "transfer"
    };
    let name = |data: &str| if data == FIRST { "first" } else { "second" };
    let id = format!(
        "{command}-{}-{}-{}-{}-{}-{}",
        run.method,
        run.arch,
        run.batch,
        run.steps,
        name(run.from),
        run.seed
    );
    let images = if run.on == FIRST { 10_000 } else { 8_000 };
    let summary = json!({"command": command, "data": run.on, "arch": run.arch, "seed": run.seed,
        "start": start(run.method, run.from, run.batch, run.steps), "encoder_digest": "d", "label_fraction": 1.0,
        "labelled_images": 100, "resolution": 32, "epochs": 10, "final_loss": 1.0,
        "metrics": metrics(top1, images)});
    write(base, &id, summary);
}

fn write_classifier(base: &Path, method: &str, fraction: f64, top1: f64) {
    let mut summary = json!({"command": "supervised", "data": FIRST, "arch": "resnet50", "label_fraction": fraction,
        "labelled_images": 100, "batch_size": 64, "epochs": 1.0, "steps": 10, "chance_loss": 2.3, "first_loss": 2.3,
        "final_loss": 1.0, "final_loss_mean": 1.0, "metrics": metrics(top1, 10_000), "seconds": 1.0,
        "images_per_second": 1.0, "peak_bytes": 1});
    if method != "supervised" {
        summary["command"] = json!("finetune");
        summary["start"] = start(method, FIRST, 512, 1000);
    }
    write(base, &format!("{method}-{fraction}"), summary);
}

/// An attack whose accuracy falls from `clean` in a line, to the part `left` of it at the last eps.
fn write_attack(
    base: &Path,
    method: &str,
    fraction: Option<f64>,
    last: f64,
    clean: f64,
    left: f64,
) {
    let curve: Vec<Value> = (0..10)
        .map(|i| {
            let part = f64::from(i) / 9.0;
            json!({"eps": last * part, "top1": clean * (1.0 - part * (1.0 - left))})
        })
        .collect();
    let mut from = start("supervised", FIRST, 64, 100);
    from["label_fraction"] = json!(fraction.unwrap_or(1.0));
    if fraction.is_some() {
        from["command"] = json!("finetune");
        from["pretrained_by"] = json!("simclr");
    }
    let id = format!("attack-{method}-{fraction:?}-{last}");
    let summary = json!({"command": "attack", "data": FIRST, "arch": "resnet50", "start": from, "method": method,
        "units": "pixels from 0 to 1", "images": 1000, "clean_top1": clean, "curve": curve, "pictured": []});
    write(base, &id, summary);
}

fn write_pretraining(base: &Path, method: &str, stem: &str, seconds: f64, flops: u64) {
    let summary = json!({"command": method, "data": FIRST, "arch": "resnet50", "stem": stem, "batch_size": 128,
        "steps": 10, "flops_per_step": flops, "chance_loss": 1.0, "first_loss": 1.0, "final_loss": 1.0,
        "final_loss_mean": 1.0, "seconds": seconds, "images_per_second": 1.0, "peak_bytes": 1,
        "peak_bytes_total": 1});
    write(base, &format!("{method}-{stem}"), summary);
}

/// Figure 2 as a formula: SimCLR gains from batch size and steps, RotNet stays below it, and both
/// flatten.
fn figure2(method: &str, batch: usize, steps: u64) -> f64 {
    let size = (batch as f64 / 32.0).log2();
    let progress = match steps {
        500 => 0.0,
        1000 => 0.06,
        2000 => 0.10,
        _ => 0.115,
    };
    match method {
        "simclr" => 0.50 + 0.05 * size + progress,
        _ => 0.40 + 0.02 * size + progress,
    }
}

/// Runs that make every claim but the seventh true.
fn write_all(base: &Path) {
    for arch in ["resnet50", "resnet18"] {
        write_linear(base, &untrained(arch, FIRST), 0.301);
        write_linear(base, &untrained(arch, SECOND), 0.251);
    }
    for method in ["simclr", "rotnet"] {
        for batch in BATCHES {
            for steps in PARTS {
                for (arch, less) in [("resnet50", 0.0), ("resnet18", 0.05)] {
                    let run = Linear {
                        method,
                        arch,
                        batch,
                        steps,
                        ..LINEAR
                    };
                    write_linear(base, &run, figure2(method, batch, steps) - less);
                }
            }
        }
    }
    for (fraction, [supervised, rotnet, simclr]) in [
        (0.01, [0.141, 0.515, 0.653]),
        (0.1, [0.373, 0.560, 0.822]),
        (0.5, [0.475, 0.577, 0.870]),
    ] {
        write_classifier(base, "supervised", fraction, supervised);
        write_classifier(base, "rotnet", fraction, rotnet);
        write_classifier(base, "simclr", fraction, simclr);
    }
    for method in ["pgd", "fgsm"] {
        for last in [0.275, 8.0 / 255.0] {
            write_attack(base, method, None, last, 0.8, 0.6);
            for fraction in [0.01, 0.1, 0.5] {
                write_attack(base, method, Some(fraction), last, 0.8, 0.1);
            }
        }
    }
    for steps in [500, 1000, 1500, 2000] {
        let forth = Linear {
            steps,
            on: SECOND,
            ..LINEAR
        };
        write_linear(base, &forth, 0.58 + steps as f64 / 30_000.0);
        let back = Linear {
            steps,
            from: SECOND,
            ..LINEAR
        };
        write_linear(base, &back, 0.63 + steps as f64 / 30_000.0);
    }
    let supervised = Linear {
        method: "supervised",
        batch: 64,
        steps: 2000,
        on: SECOND,
        ..LINEAR
    };
    write_linear(base, &supervised, 0.4713);
    write_linear(
        base,
        &Linear {
            batch: 256,
            on: SECOND,
            ..LINEAR
        },
        0.7105,
    );
    write_pretraining(base, "simclr", "cifar, padding 1", 10.0, 2_000_000_000);
    write_pretraining(base, "rotnet", "cifar, padding 1", 20.0, 4_000_000_000);
    write_pretraining(base, "rotnet", "imagenet", 1.0, 100_000_000);
}

fn read(base: &Path, name: &str) -> String {
    fs::read_to_string(base.join("report").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn tables_figures_and_claims_are_those_of_the_runs() {
    let base = TempDir::new().unwrap();
    let base = base.path();
    write_all(base);
    let said = good(base, &["report", "."]);
    assert!(
        said.contains(
            "1 supported, 2 supported, 3 supported, 4 supported, 5 supported, 6 supported, 7 contradicted, 8 supported"
        ),
        "{said}\n{}",
        read(base, "claims.md")
    );
    let table1 = read(base, "table1.md");
    for line in [
        "| labels | method | metric | ours | paper |",
        "| 1 % | RotNet, fine-tuned | top-1 | 51.5 | 51.5 |",
        "| 1 % | RotNet, fine-tuned | AUC | 0.515 | 0.881 |",
    ] {
        assert!(table1.contains(line), "{table1}");
    }
    let csv = read(base, "table1.csv");
    assert!(
        csv.contains(
            "labels,method,metric,ours,standard_deviation,seeds,test_images,paper,runs\n\
         1 %,\"supervised, from scratch\",top-1,0.141,,1,10000,0.141,jobs/supervised-0.01\n"
        ),
        "{csv}"
    );
    assert!(
        csv.contains("1 %,\"supervised, from scratch\",AUC,0.141,,1,,0.634,"),
        "an AUC is no fraction of the images: {csv}"
    );
    let transfer = read(base, "table2a.md");
    for line in [
        "| method | pretrained on | evaluated on | metric | ours | paper |",
        "| SimCLR | B | A & <b> | top-1 | 69.7 | 69.7 |",
        "| untrained | - | B | top-1 | 25.1 | - |",
        "| untrained | - | A & <b> | top-1 | 30.1 | - |",
    ] {
        assert!(transfer.contains(line), "{transfer}");
    }
    let by_batch = read(base, "table2b.md");
    for line in [
        "| batch size | top-1 ours | top-1 paper |",
        "| 256 | 71.0 | 71.0 |",
        "| 32 | not run | 57.2 |",
        "| untrained | 25.1 | - |",
    ] {
        assert!(by_batch.contains(line), "{by_batch}");
    }
    let figure = read(base, "fig2-simclr.md");
    for line in [
        "| pretraining steps | batch size | ours | paper |",
        "| 500 | batch 32 | 50.0 | 53.6 |",
        "| 5000 | untrained | 30.1 | - |",
    ] {
        assert!(figure.contains(line), "{figure}");
    }
    let networks = read(base, "resnet18.md");
    assert!(
        networks.contains("| untrained | - | 30.1 | 30.1 |"),
        "{networks}"
    );
    let claims = read(base, "claims.md");
    for line in [
        "pretrained on B (100000 images) minus on A & <b> (50000 images), each on the other's test images | \
         +2.2 points | +5.0 points (",
        "| 7 | operations per image, RotNet relative to SimCLR, equal stems | no number | 2.00 times, exact |",
        "| 7 | operations per image, RotNet relative to SimCLR, the authors' stems (decides nothing) | no number | \
         0.05 times, exact |",
        // 1 - 0.9 i / 9 over i = 1 to 9, and 1 - 0.4 i / 9.
        "| 4 | mean of acc(eps)/acc(0), supervised minus fine-tuned | ",
        "| +27.8 points (",
        "| 120 of 120 |",
    ] {
        assert!(claims.contains(line), "{line}: {claims}");
    }

    let page = read(base, "report.html");
    assert!(page.contains("A &amp; &lt;b&gt;") && !page.contains("<b>"));
    assert!(page.contains("href=\"#run1\"") && page.contains("id=\"run1\""));
    assert!(
        page.contains("abc50000") && page.contains("abc100000"),
        "the data's digests"
    );
    assert!(!page.contains("<script") && !page.contains("NaN"));
    for figure in [
        "fig2-simclr",
        "fig2-rotnet",
        "fig3-pgd",
        "fig3-fgsm-fine",
        "fig4",
    ] {
        let svg = read(base, &format!("{figure}.svg"));
        assert!(svg.starts_with("<svg ") && svg.contains("prefers-color-scheme: dark"));
        assert!(!svg.contains("NaN") && !svg.contains("<b>"));
        assert!(svg.matches("<polyline").count() >= 4);
        let baselines = svg.matches("untrained").count() > 3;
        assert_eq!(baselines, !figure.starts_with("fig3"), "{figure}");
    }
    assert!(read(base, "fig4.svg").contains(">untrained on B</text>"));

    let names = ["report.html", "results.json", "claims.md", "fig4.svg"];
    let before = names.map(|name| read(base, name));
    good(base, &["report", "."]);
    assert_eq!(before, names.map(|name| read(base, name)));
}

#[test]
fn seconds_are_in_marked_places_alone() {
    let base = TempDir::new().unwrap();
    let base = base.path();
    write_all(base);
    let masked = || {
        good(base, &["report", "."]);
        let page = read(base, "report.html");
        let mut parts = page.split("<span class=\"seconds\">");
        let mut rest = parts.next().unwrap().to_string();
        for part in parts {
            rest += part.split_once("</span>").unwrap().1;
        }
        let claims = read(base, "claims.md");
        let claims: Vec<&str> = claims
            .lines()
            .filter(|l| !l.starts_with("| 7 | seconds"))
            .collect();
        let mut values: Value = serde_json::from_str(&read(base, "results.json")).unwrap();
        for value in values.as_array_mut().unwrap() {
            if value["metric"] == "seconds_per_step" {
                value["value"] = Value::Null;
            }
        }
        (rest, claims.join("\n"), values)
    };
    let before = masked();
    write_pretraining(base, "simclr", "cifar, padding 1", 11.0, 2_000_000_000);
    write_pretraining(base, "rotnet", "cifar, padding 1", 23.0, 4_000_000_000);
    assert_eq!(before, masked());
}

#[test]
fn results_have_every_value_with_its_place() {
    let base = TempDir::new().unwrap();
    let base = base.path();
    write_all(base);
    good(base, &["report", "."]);
    let values: Value = serde_json::from_str(&read(base, "results.json")).unwrap();
    let values = values.as_array().unwrap();
    let find = |wanted: Value| -> Vec<&Value> {
        let wanted = wanted.as_object().unwrap();
        let fits = |value: &&Value| wanted.iter().all(|(key, w)| &value[key] == w);
        values.iter().filter(fits).collect()
    };
    let found = find(
        json!({"task": "transfer", "method": "simclr", "metric": "linear_top1", "batch_size": 256}),
    );
    assert_eq!(
        found,
        [
            &json!({"task": "transfer", "method": "simclr", "arch": "resnet50", "width": 1.0, "batch_size": 256,
            "step": 5000, "data": SECOND, "pretrained_on": FIRST, "label_fraction": 1.0, "metric": "linear_top1",
            "eps": null, "value": 0.7105, "images": 8000, "seed": 0, "protocol": "sound", "device": "cpu",
            "run": "jobs/transfer-simclr-resnet50-256-5000-first-0"})
        ]
    );
    let found = find(
        json!({"method": "untrained", "metric": "linear_top1", "data": SECOND, "arch": "resnet18"}),
    );
    assert_eq!(found.len(), 1);
    assert_eq!(
        (
            &found[0]["value"],
            &found[0]["batch_size"],
            &found[0]["step"]
        ),
        (&json!(0.251), &Value::Null, &json!(0))
    );
    assert_eq!(found[0]["pretrained_on"], Value::Null);
    let strengths = find(
        json!({"task": "attack", "metric": "pgd_top1", "label_fraction": 0.1, "method": "simclr"}),
    );
    assert_eq!(strengths.len(), 20, "two grids of ten");
    let found = find(json!({"metric": "finetune_auc", "method": "rotnet", "label_fraction": 0.01}));
    assert_eq!((found.len(), &found[0]["images"]), (1, &Value::Null));
    let found = find(json!({"metric": "flops_per_step", "method": "rotnet"}));
    assert_eq!(found.len(), 2);
    // Linear evaluations and 9 classifiers have four metrics, 16 attacks ten strengths, 3
    // pretrainings three metrics.
    let linear = find(json!({"metric": "linear_top1"})).len();
    let all = 4 * (linear + 9) + 16 * 10 + 3 * 3;
    assert_eq!(values.len(), all);
}

#[test]
fn untrained_encoders_change_no_scope_and_missing_ones_are_shown() {
    let base = TempDir::new().unwrap();
    let base = base.path();
    // Sorted before everything else, on the second set, and of another width.
    write_linear(base, &LINEAR, 0.6);
    let without = good(base, &["report", "."]);
    assert!(read(base, "fig2-simclr.md").contains("| 5000 | untrained | not run | - |"));
    assert!(read(base, "fig2-simclr.svg").contains(">untrained (not run)</text>"));
    write_linear(base, &untrained("resnet50", SECOND), 0.2);
    write_linear(base, &untrained("resnet50", FIRST), 0.3);
    let folder = base.join("jobs/linear-untrained-resnet50-0-0-second-0");
    fs::rename(&folder, base.join("jobs/a")).unwrap();
    let mut narrow = process::json(&base.join("jobs/a/summary.json"));
    narrow["width"] = json!(0.25);
    write(base, "b", narrow);
    let said = good(base, &["report", "."]);
    assert!(
        said.starts_with("sound protocol, width 1, A & <b> and B\n"),
        "{said}"
    );
    assert_eq!(without.lines().count(), said.lines().count(), "{said}");
    assert!(read(base, "fig2-simclr.md").contains("| 5000 | untrained | 30.0 | - |"));
}

#[test]
fn several_seeds_give_mean_and_spread_and_missing_runs_say_so() {
    let base = TempDir::new().unwrap();
    let base = base.path();
    for (seed, top1) in [(0, 0.60), (1, 0.62), (2, 0.64)] {
        write_linear(base, &Linear { seed, ..LINEAR }, top1);
    }
    let said = good(base, &["report", ".", "--out", "elsewhere"]);
    assert!(
        said.contains("3 runs") && said.contains("1 not tested at this scale"),
        "{said}"
    );
    let figure = fs::read_to_string(base.join("elsewhere/fig2-simclr.md")).unwrap();
    assert!(
        figure.contains("| 5000 | batch 128 | 62.0 ± 2.0 (3 seeds) | 69.9 |"),
        "{figure}"
    );
    assert!(
        figure.contains("| 500 | batch 64 | not run | 58.5 |"),
        "{figure}"
    );
    assert!(
        !base.join("elsewhere/fig4.svg").exists(),
        "nothing is drawn of what did not run"
    );
    assert!(!base.join("elsewhere/table1.md").exists());
    let page = fs::read_to_string(base.join("elsewhere/report.html")).unwrap();
    assert!(page.contains(">Not run.</p>"));
    let claims = fs::read_to_string(base.join("elsewhere/claims.md")).unwrap();
    assert!(
        claims.contains("| not tested at this scale | Not run: linear evaluations of RotNet on A & <b>, ResNet-50"),
        "{claims}"
    );
}

#[test]
fn folders_without_runs_and_damaged_runs_are_errors() {
    let base = TempDir::new().unwrap();
    let base = base.path();
    refused(
        base,
        &["report", "nowhere"],
        1,
        &["nowhere", "check that it exists"],
    );
    fs::create_dir(base.join("empty")).unwrap();
    refused(
        base,
        &["report", "empty"],
        2,
        &["empty", "no run", "reproduce"],
    );
    write_linear(base, &LINEAR, 0.5);
    let folder = base.join("jobs/broken");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.toml"), "").unwrap();
    for content in ["{", "{\"command\": \"linear\"}"] {
        fs::write(folder.join("summary.json"), content).unwrap();
        refused(
            base,
            &["report", "."],
            1,
            &["broken/summary.json", "move the folder away"],
        );
    }
    let good_run = base.join("jobs/linear-simclr-resnet50-128-5000-first-0");
    let mut summary = process::json(&good_run.join("summary.json"));
    summary["metrics"]["top1"] = Value::Null;
    fs::write(folder.join("summary.json"), summary.to_string()).unwrap();
    refused(base, &["report", "."], 1, &["broken/summary.json"]);
    fs::write(folder.join("summary.json"), "{\"command\": \"another\"}").unwrap();
    good(base, &["report", "."]);
}
