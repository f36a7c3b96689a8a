use super::super::{Grid, Overrides, Scale, Sizes};
use super::*;
use crate::data::DataKind;
use crate::runs::settings::DataSettings;

pub fn settings(scale: Scale) -> GridSettings {
    let source = |name: &str, train, test, side| Source {
        data: DataSettings {
            kind: DataKind::Folder,
            dir: Some(name.into()),
            ..defaults()
        },
        name: name.to_string(),
        classes: 10,
        train,
        test,
        side,
    };
    GridSettings {
        scale,
        sizes: Sizes::of(scale),
        protocol: Protocol::Sound,
        init: None,
        seeds: vec![0],
        first: source("A", 50_000, 10_000, 32),
        second: source("B", 9_469, 3_925, 96),
        out: "out".into(),
    }
}

#[test]
fn every_job_follows_those_that_it_needs_and_has_a_name_of_its_own() {
    for scale in [Scale::Smoke, Scale::Small, Scale::Paper] {
        let jobs = jobs(&settings(scale));
        for (i, job) in jobs.iter().enumerate() {
            let before: Vec<&str> = jobs[..i].iter().map(|j| j.id.as_str()).collect();
            assert!(!before.contains(&job.id.as_str()), "{} twice", job.id);
            for need in &job.needs {
                assert!(before.contains(&need.as_str()), "{} needs {need}", job.id);
            }
            assert!(!job.figures.is_empty(), "{} is for nothing", job.id);
        }
    }
}

/// The paper's grid, counted: encoders, their evaluations, Table 1, Figure 3, Figure 4 and
/// Tables 2.
#[test]
fn the_grid_has_every_cell() {
    let jobs = jobs(&settings(Scale::Paper));
    let count = |command: &str| jobs.iter().filter(|j| j.spec.command() == command).count();
    assert_eq!(count("simclr"), 2 * 4 + 1 + 1);
    assert_eq!(count("rotnet"), 2 * 5 + 1);
    assert_eq!(count("linear"), 2 * (4 + 5) * 4 + 3);
    assert_eq!(count("finetune"), 2 * 3);
    assert_eq!(count("supervised"), 3 + 1);
    assert_eq!(count("attack"), 4 * 2 * 2);
    assert_eq!(count("transfer"), 4 + 4 + 1 + 4);
}

#[test]
fn the_paper_s_scale_has_the_paper_s_numbers() {
    let jobs = jobs(&settings(Scale::Paper));
    let command = |id: &str| {
        let job = jobs.iter().find(|j| j.id == id);
        let words = job.expect("it is there").spec.command_line();
        words.unwrap().join(" ")
    };
    assert_eq!(
        command("simclr-resnet50-b256-s0"),
        "simclr --no-knn --arch resnet50 --batch-size 256 --save-every 500 --seed 0 --data folder --data-dir A"
    );
    assert!(command("simclr-resnet50-b512-s0").contains("--steps 1000"));
    assert!(command("finetune-rotnet-10-s0").contains(
        "out/jobs/rotnet-resnet50-b512-s0/encoder-step1000.safetensors --labels 0.1 --epochs 30"
    ));
    assert!(command("supervised-1-s0").contains("--labels 0.01 --epochs 500"));
    assert!(
        command("transfer-supervised-100-2000-s0")
            .contains("supervised-100-s0/encoder-step2000.safetensors")
    );
    let GridSettings {
        sizes,
        first,
        second,
        ..
    } = settings(Scale::Paper);
    assert!(sizes.differences(&first, &second).is_empty());
}

/// SimCLR and RotNet at batch 128 with their evaluations, Table 1, Figure 2, attacks, transfer
/// and ResNet-18.
#[test]
fn the_most_telling_jobs_come_first() {
    let jobs = jobs(&settings(Scale::Small));
    let place = |id: &str| jobs.iter().position(|job| job.id == id).expect(id);
    let places = [
        "linear-untrained-resnet50-s0",
        "linear-simclr-resnet50-b128-500-s0",
        "linear-rotnet-resnet50-b128-500-s0",
        "finetune-simclr-50-s0",
        "finetune-rotnet-50-s0",
        "linear-simclr-resnet50-b256-500-s0",
        "attack-pgd-fine-supervised-100-s0",
        "transfer-simclr-resnet50-b256-500-s0",
        "linear-simclr-resnet18-b32-50-s0",
    ]
    .map(place);
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn numbers_of_a_scale_can_be_replaced() {
    let mut settings = settings(Scale::Small);
    let overrides = Overrides {
        full_steps: Some(200),
        width: Some(0.125),
        attack_images: Some(1_000),
        linear_images: Some(60_000),
    };
    settings.sizes = settings.sizes.with(overrides).unwrap();
    let jobs = jobs(&settings);
    let command = |id: &str| {
        let job = jobs.iter().find(|j| j.id == id);
        let words = job.expect("it is there").spec.command_line();
        words.unwrap().join(" ")
    };
    let simclr = command("simclr-resnet50-b128-s0");
    assert!(simclr.contains("--width 0.125 --steps 200 --save-every 20"));
    assert!(command("attack-pgd-fine-supervised-100-s0").contains("--images 0.1 "));
    assert!(!command("linear-simclr-resnet50-b128-200-s0").contains("--labels"));
    for full_steps in [0, 15] {
        let error = Sizes::of(Scale::Small).with(Overrides {
            full_steps: Some(full_steps),
            ..Overrides::default()
        });
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(&full_steps.to_string()) && error.contains("multiple"),
            "{error}"
        );
    }
}

#[test]
fn a_figure_is_selected_with_what_it_needs() {
    let grid = Grid::new(&settings(Scale::Small));
    for figure in FIGURES {
        let chosen = grid.select(Some(figure));
        let ids: Vec<&str> = chosen.iter().map(|j| j.id.as_str()).collect();
        assert!(!ids.is_empty() && ids.len() < grid.jobs.len(), "{figure}");
        for job in &chosen {
            assert!(job.needs.iter().all(|n| ids.contains(&n.as_str())));
        }
    }
    let attacked = grid.select(Some("fig3"));
    assert!(attacked.iter().any(|j| j.id == "simclr-resnet50-b512-s0"));
    assert_eq!(grid.select(None).len(), grid.jobs.len());
}
