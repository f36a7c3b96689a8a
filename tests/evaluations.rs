//! The commands that evaluate and attack an encoder, as processes: good runs and bad input.

mod class_folders;
mod process;

use std::fs;

use class_folders::place;
use process::{good, json, refused};

/// Every evaluation of a pretrained encoder, from one pretraining.
#[test]
fn an_encoder_goes_through_every_evaluation() {
    let base = place(32, 32);
    let folder = base.path();
    let data = [
        "--data",
        "folder",
        "--data-dir",
        "images",
        "--device",
        "cpu",
    ];
    let with = |words: &[&'static str]| [words, &data].concat();
    let said = good(
        folder,
        &with(&[
            "rotnet",
            "--width",
            "0.0625",
            "--batch-size",
            "4",
            "--steps",
            "4",
            "--save-every",
            "2",
            "--no-knn",
            "--out",
            "rotnet",
        ]),
    );
    assert!(said.contains("rotation accuracy"), "{said}");
    let summary = json(&folder.join("rotnet/summary.json"));
    assert_eq!(summary["command"], "rotnet");
    assert!((summary["chance_loss"].as_f64().unwrap() - 4f64.ln()).abs() < 1e-12);
    let accuracy = summary["rotation_accuracy"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&accuracy));
    assert!(summary.get("knn_top1").is_none() && !said.contains("neighbour"));
    assert!(folder.join("rotnet/encoder-step2.safetensors").exists());
    assert_eq!(
        fs::read(folder.join("rotnet/encoder-step4.safetensors")).unwrap(),
        fs::read(folder.join("rotnet/encoder.safetensors")).unwrap()
    );

    let encoder = ["--encoder", "rotnet/encoder.safetensors"];
    let evaluated = |words: &[&'static str]| with(&[words, &encoder].concat());
    for (arguments, run) in [
        (
            evaluated(&["linear", "--epochs", "2", "--out", "linear"]),
            "linear",
        ),
        (
            evaluated(&[
                "linear",
                "--optimizer",
                "sgd",
                "--epochs",
                "2",
                "--augment",
                "--out",
                "sgd",
            ]),
            "sgd",
        ),
        (
            evaluated(&[
                "finetune", "--labels", "0.5", "--epochs", "2", "--out", "finetune",
            ]),
            "finetune",
        ),
        (
            with(&[
                "supervised",
                "--width",
                "0.0625",
                "--steps",
                "3",
                "--out",
                "supervised",
            ]),
            "supervised",
        ),
    ] {
        let said = good(folder, &arguments);
        assert!(said.contains("top-1") && said.contains("AUC"), "{said}");
        let summary = json(&folder.join(run).join("summary.json"));
        let confusion = summary["metrics"]["confusion"].as_array().unwrap();
        let images: u64 = confusion
            .iter()
            .flat_map(|row| row.as_array().unwrap())
            .map(|count| count.as_u64().unwrap())
            .sum();
        assert_eq!(images, 16, "{run}: every test image is measured");
        assert!(folder.join(run).join("config.toml").exists());
    }
    let finetune = json(&folder.join("finetune/summary.json"));
    assert_eq!(finetune["labelled_images"], 8);
    assert_eq!(finetune["start"]["command"], "rotnet");
    assert_eq!(finetune["start"]["steps"], 4);
    good(
        folder,
        &with(&[
            "attack",
            "--model",
            "finetune/model.safetensors",
            "--eps",
            "0",
            "--out",
            "attack",
        ]),
    );
    let attacked = &json(&folder.join("attack/summary.json"))["start"];
    assert_eq!(attacked["pretrained_by"], "rotnet");
    assert_eq!(attacked["label_fraction"], 0.5);
    let linear = json(&folder.join("linear/summary.json"));
    assert_eq!(linear["encoder_digest"].as_str().unwrap().len(), 64);
    assert_eq!(
        linear["encoder_digest"],
        json(&folder.join("sgd/summary.json"))["encoder_digest"]
    );

    // A fine-tuned network is an encoder too; another data set is a transfer, the same one is not.
    let said = good(
        folder,
        &[
            "knn",
            "--encoder",
            "finetune/model.safetensors",
            "--device",
            "cpu",
        ],
    );
    assert!(said.contains("accuracy on shapes"), "{said}");
    let transfer = [
        "transfer",
        "--encoder",
        "rotnet/encoder.safetensors",
        "--device",
        "cpu",
    ];
    let said = good(
        folder,
        &[
            &transfer[..],
            &[
                "--labels",
                "0.1",
                "--epochs",
                "1",
                "--resolution",
                "24",
                "--out",
                "transfer",
            ],
        ]
        .concat(),
    );
    assert!(said.contains("test images of shapes"), "{said}");
    let summary = json(&folder.join("transfer/summary.json"));
    assert_eq!(
        (&summary["command"], &summary["resolution"]),
        (&"transfer".into(), &24.into())
    );
    refused(
        folder,
        &evaluated(&["transfer"]),
        2,
        &["pretrained on", "linear"],
    );

    good(
        folder,
        &evaluated(&["embed", "--split", "train", "--out", "features.safetensors"]),
    );
    let bytes = fs::read(folder.join("features.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("features").unwrap().shape(), [16, 32]);
    assert_eq!(file.tensor("labels").unwrap().shape(), [16]);
    refused(
        folder,
        &evaluated(&["embed", "--split", "unlabelled", "--out", "x"]),
        2,
        &["no unlabelled images"],
    );
}

/// What a trained encoder has to beat: random weights, with the running statistics of the images.
#[test]
fn an_untrained_encoder_is_evaluated_like_a_trained_one() {
    let base = place(32, 32);
    let folder = base.path();
    let linear = |words: &[&'static str]| {
        let common = [
            "linear",
            "--data",
            "folder",
            "--data-dir",
            "images",
            "--device",
            "cpu",
        ];
        [&common[..], words].concat()
    };
    let untrained = ["--untrained", "--arch", "resnet50", "--width", "0.0625"];
    for out in ["first", "second"] {
        good(folder, &linear(&[&untrained[..], &["--out", out]].concat()));
    }
    let summary = json(&folder.join("first/summary.json"));
    let start = &summary["start"];
    assert_eq!(start["command"], "untrained");
    assert_eq!(
        (&start["steps"], &start["batch_size"]),
        (&0.into(), &0.into())
    );
    assert_eq!(start["data"], summary["data"]);
    assert_eq!(summary["arch"], "resnet50");
    assert_eq!(
        summary["metrics"],
        json(&folder.join("second/summary.json"))["metrics"]
    );
    let other_seed = [&untrained[..], &["--seed", "1", "--out", "third"]].concat();
    good(folder, &linear(&other_seed));
    assert_ne!(
        summary["encoder_digest"],
        json(&folder.join("third/summary.json"))["encoder_digest"]
    );
    let both = [&untrained[..], &["--encoder", "x.safetensors"]].concat();
    for (words, expected) in [
        (&both[..], "--encoder"),
        (&[][..], "--encoder"),
        (
            &["--encoder", "x.safetensors", "--arch", "resnet50"][..],
            "--arch",
        ),
        (&["--untrained", "--width", "0"][..], "width"),
    ] {
        refused(folder, &linear(words), 2, &[expected]);
    }
}

#[test]
fn a_classifier_is_attacked_and_pictured() {
    let base = place(32, 32);
    let folder = base.path();
    let data = [
        "--data",
        "folder",
        "--data-dir",
        "images",
        "--device",
        "cpu",
    ];
    let with = |words: &[&'static str]| [words, &data].concat();
    good(
        folder,
        &with(&[
            "supervised",
            "--width",
            "0.0625",
            "--steps",
            "20",
            "--batch-size",
            "8",
            "--out",
            "model",
        ]),
    );
    let model = ["attack", "--model", "model/model.safetensors"];
    let attack = |words: &[&'static str]| with(&[&model[..], words].concat());
    let said = good(
        folder,
        &attack(&["--eps", "0,0.02,0.5", "--save", "--out", "pgd"]),
    );
    assert!(said.contains("eps 0.5"), "{said}");
    let summary = json(&folder.join("pgd/summary.json"));
    let curve = summary["curve"].as_array().unwrap();
    assert_eq!(curve.len(), 3);
    assert_eq!(curve[0]["top1"], summary["clean_top1"]);
    assert_eq!(curve[1]["eps"], 0.02);
    assert_eq!(summary["pictured"].as_array().unwrap().len(), 8);
    let picture = fs::read_to_string(folder.join("pgd/attack.svg")).unwrap();
    assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
    assert!(picture.contains("PGD, eps 0.5") && picture.contains("data:image/png;base64,iVBOR"));
    assert_eq!(picture.matches(">taken for ").count(), 8);
    assert_eq!(picture.matches(">attacked: ").count(), 8);
    let bytes = fs::read(folder.join("pgd/adversarial.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("images").unwrap().shape(), [16, 3, 32, 32]);
    for protocol in ["sound", "paper"] {
        let out: &'static str = if protocol == "sound" {
            "fgsm"
        } else {
            "fgsm-paper"
        };
        good(
            folder,
            &[
                &attack(&["--method", "fgsm", "--images", "0.5"])[..],
                &["--protocol", protocol, "--out", out],
            ]
            .concat(),
        );
        let summary = json(&folder.join(out).join("summary.json"));
        assert_eq!(summary["curve"].as_array().unwrap().len(), 10);
        assert_eq!(summary["images"], 8);
        assert_eq!(summary["protocol"], protocol);
    }
    refused(
        folder,
        &attack(&["--eps", "0,-1"]),
        2,
        &["--eps is -1", "from 0 to 1"],
    );
    refused(folder, &attack(&["--eps", "much"]), 2, &["--eps", "much"]);
    // shapes has ten classes, the model two.
    refused(
        folder,
        &[&model[..], &["--device", "cpu", "--out", "x"]].concat(),
        2,
        &["squares, stripes"],
    );
}

#[test]
fn encoders_that_cannot_be_evaluated_are_named() {
    let base = place(32, 32);
    let folder = base.path();
    fs::write(folder.join("junk.safetensors"), b"no weights").unwrap();
    let data = [
        "--data",
        "folder",
        "--data-dir",
        "images",
        "--device",
        "cpu",
    ];
    for command in ["linear", "finetune", "transfer", "knn"] {
        for (file, code, words) in [
            ("absent.safetensors", 1, "absent.safetensors"),
            ("junk.safetensors", 1, "not a safetensors file"),
        ] {
            let arguments = [&[command, "--encoder", file][..], &data].concat();
            refused(folder, &arguments, code, &[words]);
            assert!(!folder.join("runs").exists(), "a mistake leaves no folder");
        }
    }
    for (arguments, words) in [
        (&["finetune"][..], &["--encoder"][..]),
        (&["supervised", "--labels", "0"], &["--labels", "at most 1"]),
        (
            &["supervised", "--labels", "1.5"],
            &["--labels", "at most 1"],
        ),
        (
            &["supervised", "--epochs", "0"],
            &["'0'", "--epochs", "1 or more"],
        ),
        (
            &["supervised", "--steps", "0"],
            &["'0'", "--steps", "1 or more"],
        ),
        (
            &["supervised", "--epochs", "2", "--steps", "2"],
            &["--epochs", "--steps"],
        ),
        (
            &["supervised", "--batch-size", "0"],
            &["'0'", "--batch-size", "1 or more"],
        ),
        (
            &["supervised", "--labels", "0.01"],
            &["0.01", "leaves no image of squares"],
        ),
        (
            &["rotnet", "--batch-size", "100"],
            &["--batch-size 100", "16 images"],
        ),
        (&["rotnet", "--save-every", "0"], &["--save-every"]),
        (
            &["rotnet", "--resume", "--batch-size", "4"],
            &["--resume", "--out"],
        ),
        (&["rotnet", "--protocol", "paper"], &["--init"]),
    ] {
        refused(folder, &[arguments, &data].concat(), 2, words);
    }
}
