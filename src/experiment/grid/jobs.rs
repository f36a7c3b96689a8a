//! The jobs of the paper's experiments E1 to E7, in an order in which each follows those that it needs.

use super::scale::images;
use super::{FIGURES, GridSettings, Job, Network, Source, Work};
use crate::nn::{Arch, Stem};
use crate::pretext::Protocol;

/// SimCLR's batch sizes of Figure 2.
const SIMCLR_BATCHES: [usize; 4] = [32, 64, 128, 256];
/// RotNet's.
const ROTNET_BATCHES: [usize; 5] = [32, 64, 128, 256, 512];
/// The batch size of the encoders that are fine-tuned.
const FINETUNED_BATCH: usize = 512;
/// The batch size of the encoders that are transferred.
const TRANSFERRED_BATCH: usize = 128;
/// Tenths of the full steps: the paper's 500, 1,000, 2,000 and 5,000.
const LINEAR_TENTHS: [u64; 4] = [1, 2, 4, 10];
/// The paper's 500, 1,000, 1,500 and 2,000.
const TRANSFER_TENTHS: [u64; 4] = [1, 2, 3, 4];
/// Tenths after which encoders are fine-tuned: the paper's 1,000 steps.
const FINETUNED_TENTHS: u64 = 2;
/// Label fractions, with the paper's epochs of fine-tuning.
const FRACTIONS: [(f64, u64); 3] = [(0.01, 60), (0.1, 30), (0.5, 20)];
/// The paper's epochs from scratch, on a fraction and on all labels.
const BASELINE_EPOCHS: u64 = 500;
const SUPERVISED_EPOCHS: u64 = 60;
/// Updates over whose mean a falling loss is told.
const FLAT_WINDOW: u64 = 25;
/// Images a step of the supervised trainings.
const SUPERVISED_BATCH: usize = 64;
/// Strengths of an attack, the first of them 0, and PGD's iterations.
const STRENGTHS: u64 = 10;
const ITERATIONS: u64 = 10;
/// Linear evaluations, attacks and trainings see images of this side on the first data set's encoder.
const VIEW: usize = 32;

const CIFAR: Stem = Stem::Cifar { padding: 1 };

/// All jobs of `settings`.
pub fn jobs(settings: &GridSettings) -> Vec<Job> {
    let mut list = List {
        settings,
        seed: 0,
        jobs: Vec::new(),
    };
    for &seed in &settings.seeds {
        list.seed = seed;
        list.pretraining();
        list.linear_evaluation();
        list.fine_tuning();
        list.attacks();
        list.transfer();
    }
    list.jobs
}

/// A method of pretraining.
#[derive(Clone, Copy, PartialEq)]
enum Method {
    SimClr,
    RotNet,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Method::SimClr => "simclr",
            Method::RotNet => "rotnet",
        }
    }

    fn batches(self) -> &'static [usize] {
        match self {
            Method::SimClr => &SIMCLR_BATCHES,
            Method::RotNet => &ROTNET_BATCHES,
        }
    }

    /// Views of an image in a step.
    fn views(self) -> usize {
        match self {
            Method::SimClr => 2,
            Method::RotNet => 4,
        }
    }
}

const METHODS: [Method; 2] = [Method::SimClr, Method::RotNet];
const ARCHS: [Arch; 2] = [Arch::ResNet50, Arch::ResNet18];

/// A pretraining of the grid.
#[derive(Clone, Copy)]
struct Pretraining<'a> {
    method: Method,
    arch: Arch,
    batch: usize,
    /// Tenths of the full steps that it lasts.
    tenths: u64,
    source: &'a Source,
    /// What tells it from others in its name.
    name: &'a str,
    figures: &'a [&'a str],
    protocol: Protocol,
    init: Option<&'a str>,
}

struct List<'a> {
    settings: &'a GridSettings,
    seed: u64,
    jobs: Vec<Job>,
}

impl<'a> List<'a> {
    fn id(&self, name: &str) -> String {
        format!("{name}-s{}", self.seed)
    }

    fn steps(&self, tenths: u64) -> u64 {
        self.settings.sizes.full_steps * tenths / 10
    }

    fn add(
        &mut self,
        name: &str,
        mut command: Vec<String>,
        needs: &[String],
        figures: &[&str],
        work: Work,
    ) {
        debug_assert!(figures.iter().all(|figure| FIGURES.contains(figure)));
        command.extend(["--seed".to_string(), self.seed.to_string()]);
        self.jobs.push(Job {
            id: self.id(name),
            command,
            needs: needs.to_vec(),
            figures: figures.iter().map(|f| f.to_string()).collect(),
            work,
        });
    }

    /// A file that the job `id` leaves.
    fn file(&self, id: &str, name: &str) -> String {
        self.settings.folder(id).join(name).display().to_string()
    }

    fn protocol(&self, protocol: Protocol) -> [String; 2] {
        ["--protocol".to_string(), protocol.to_string()]
    }

    fn data(&self, source: &Source) -> Vec<String> {
        let mut words = vec!["--data".to_string(), source.kind.to_string()];
        if let Some(dir) = &source.dir {
            words.extend(["--data-dir".to_string(), dir.display().to_string()]);
        }
        words
    }

    fn pretrain(&mut self, run: Pretraining<'_>) {
        let steps = self.steps(run.tenths).max(1);
        let mut command = words(&[
            run.method.name(),
            "--arch",
            &run.arch.to_string(),
            "--width",
            &self.settings.sizes.width.to_string(),
            "--batch-size",
            &run.batch.to_string(),
            "--steps",
            &steps.to_string(),
            "--save-every",
            &self.steps(1).max(1).to_string(),
            "--no-knn",
        ]);
        command.extend(self.data(run.source));
        command.extend(self.protocol(run.protocol));
        if let Some(init) = run.init {
            command.extend(words(&["--init", init]));
        }
        let stem = match (run.method, run.protocol) {
            (Method::RotNet, Protocol::Paper) => Stem::ImageNet,
            _ => CIFAR,
        };
        // RotNet ends with all rotations of some test images.
        let part = self.settings.sizes.rotation_part;
        let told = match run.method {
            Method::SimClr => 0,
            Method::RotNet => 4 * images(part, run.source.test),
        };
        if run.method == Method::RotNet {
            command.extend(words(&["--rotation-images", &part.to_string()]));
        }
        let work = Work {
            network: Network {
                arch: run.arch,
                stem,
                side: VIEW,
            },
            trained: steps * (run.batch * run.method.views()) as u64,
            trained_at_once: (run.batch * run.method.views()) as u64,
            evaluated: told as u64,
            attacked: 0,
        };
        self.add(run.name, command, &[], run.figures, work);
    }

    /// E1, E2 and E7's encoders, the encoder for E4, that on the second data set for E6, and one for the cost of RotNet
    /// with its authors' stem.
    fn pretraining(&mut self) {
        let settings = self.settings;
        for arch in ARCHS {
            for method in METHODS {
                for &batch in method.batches() {
                    let mut figures = vec![];
                    match arch {
                        Arch::ResNet50 => figures.extend(["fig2", "resnet18"]),
                        _ => figures.push("resnet18"),
                    }
                    if arch == Arch::ResNet50 && batch == TRANSFERRED_BATCH {
                        figures.push("claim7");
                    }
                    self.pretrain(Pretraining {
                        method,
                        arch,
                        batch,
                        tenths: 10,
                        source: &settings.first,
                        name: &pretraining_name(method, arch, batch),
                        figures: &figures,
                        protocol: settings.protocol,
                        init: settings.init.as_deref(),
                    });
                }
            }
        }
        let simclr = Pretraining {
            method: Method::SimClr,
            arch: Arch::ResNet50,
            batch: FINETUNED_BATCH,
            tenths: FINETUNED_TENTHS,
            source: &settings.first,
            name: &pretraining_name(Method::SimClr, Arch::ResNet50, FINETUNED_BATCH),
            figures: &["table1"],
            protocol: settings.protocol,
            init: settings.init.as_deref(),
        };
        self.pretrain(simclr);
        self.pretrain(Pretraining {
            batch: TRANSFERRED_BATCH,
            tenths: 4,
            source: &settings.second,
            name: "simclr-second-resnet50-b128",
            figures: &["fig4", "table2a"],
            ..simclr
        });
        self.pretrain(Pretraining {
            method: Method::RotNet,
            batch: TRANSFERRED_BATCH,
            tenths: 1,
            name: "rotnet-authors-stem-resnet50-b128",
            figures: &["claim7"],
            protocol: Protocol::Paper,
            init: Some("none"),
            ..simclr
        });
    }

    /// A linear evaluation of the file `encoder` of the job `of` on `source`.
    fn linear(
        &mut self,
        command: &str,
        name: &str,
        (of, encoder): (&str, &str),
        arch: Arch,
        source: &Source,
        figures: &[&str],
    ) {
        let of = self.id(of);
        let labels = self.settings.sizes.linear_part;
        let mut arguments = words(&[
            command,
            "--encoder",
            &self.file(&of, encoder),
            "--labels",
            &labels.to_string(),
        ]);
        arguments.extend(self.data(source));
        arguments.extend(self.protocol(self.settings.protocol));
        let work = Work {
            network: Network {
                arch,
                stem: CIFAR,
                side: source.side,
            },
            evaluated: (images(labels, source.train) + source.test) as u64,
            ..Work::default()
        };
        self.add(name, arguments, &[of], figures, work);
    }

    /// E3, and E7's.
    fn linear_evaluation(&mut self) {
        for arch in ARCHS {
            for method in METHODS {
                for &batch in method.batches() {
                    for tenths in LINEAR_TENTHS {
                        let of = pretraining_name(method, arch, batch);
                        let steps = self.steps(tenths);
                        let figures: &[&str] = match arch {
                            Arch::ResNet50 => &["fig2", "resnet18"],
                            _ => &["resnet18"],
                        };
                        self.linear(
                            "linear",
                            &format!("linear-{of}-{steps}"),
                            (&of, &format!("encoder-step{steps}.safetensors")),
                            arch,
                            &self.settings.first,
                            figures,
                        );
                    }
                }
            }
        }
    }

    fn supervised_work(&self, images: usize, steps: u64) -> Work {
        let batch = SUPERVISED_BATCH.min(images) as u64;
        Work {
            trained: steps * batch,
            trained_at_once: batch,
            evaluated: self.settings.first.test as u64,
            ..Work::default()
        }
    }

    /// E4: fine-tuning of both methods and the baseline, each on three fractions, and the baseline on all labels.
    fn fine_tuning(&mut self) {
        let settings = self.settings;
        let tuned_steps = self.steps(FINETUNED_TENTHS);
        for (number, (fraction, epochs)) in FRACTIONS.into_iter().enumerate() {
            let images = (settings.first.train as f64 * fraction).round() as usize;
            let percent = (fraction * 100.0).round();
            let per_epoch = (images / SUPERVISED_BATCH).max(1) as u64;
            for method in METHODS {
                let of = self.id(&pretraining_name(method, Arch::ResNet50, FINETUNED_BATCH));
                let encoder = format!("encoder-step{tuned_steps}.safetensors");
                let steps = (epochs * per_epoch / settings.sizes.finetune_divisor).max(2);
                let length = match settings.sizes.finetune_divisor {
                    1 => ["--epochs".to_string(), epochs.to_string()],
                    _ => ["--steps".to_string(), steps.to_string()],
                };
                let mut command = words(&[
                    "finetune",
                    "--encoder",
                    &self.file(&of, &encoder),
                    "--labels",
                    &fraction.to_string(),
                ]);
                command.extend(length);
                command.extend(self.data(&settings.first));
                command.extend(self.protocol(settings.protocol));
                let figures: &[&str] = match method {
                    Method::SimClr => &["table1", "fig3"],
                    Method::RotNet => &["table1"],
                };
                self.add(
                    &tuned_name(method.name(), percent),
                    command,
                    &[of],
                    figures,
                    self.supervised_work(images, steps),
                );
            }
            let cap = settings.sizes.baseline_steps.map(|caps| caps[number]);
            let length = match cap {
                None => words(&["--epochs", &BASELINE_EPOCHS.to_string()]),
                Some(cap) => words(&[
                    "--steps",
                    &cap.to_string(),
                    "--stop-when-flat",
                    &FLAT_WINDOW.to_string(),
                ]),
            };
            let steps = cap.unwrap_or(BASELINE_EPOCHS * per_epoch);
            let work = self.supervised_work(images, steps);
            let name = format!("supervised-{percent}");
            self.supervised(&name, fraction, length, &["table1"], work);
        }
        let images = settings.first.train;
        let (length, steps) = match settings.sizes.supervised_steps {
            Some(steps) => (words(&["--steps", &steps.to_string()]), steps),
            None => (
                words(&["--epochs", &SUPERVISED_EPOCHS.to_string()]),
                SUPERVISED_EPOCHS * (images / SUPERVISED_BATCH) as u64,
            ),
        };
        let transferred = self.steps(4).max(1).to_string();
        let length = [length, words(&["--save-every", &transferred])].concat();
        let work = self.supervised_work(images, steps);
        self.supervised(
            "supervised-100",
            1.0,
            length,
            &["fig3", "fig4", "table2a"],
            work,
        );
    }

    fn supervised(
        &mut self,
        name: &str,
        fraction: f64,
        length: Vec<String>,
        figures: &[&str],
        work: Work,
    ) {
        let mut command = words(&[
            "supervised",
            "--arch",
            &Arch::ResNet50.to_string(),
            "--width",
            &self.settings.sizes.width.to_string(),
            "--labels",
            &fraction.to_string(),
        ]);
        command.extend(length);
        command.extend(self.data(&self.settings.first));
        command.extend(self.protocol(self.settings.protocol));
        self.add(name, command, &[], figures, work);
    }

    /// E5: both attacks, on both grids of strengths, on the baseline and on SimCLR's fine-tuned encoders.
    fn attacks(&mut self) {
        let settings = self.settings;
        let part = settings.sizes.attack_part;
        let attacked = images(part, settings.first.test) as u64;
        let mut models = vec!["supervised-100".to_string()];
        for (fraction, _) in FRACTIONS {
            models.push(tuned_name("simclr", (fraction * 100.0).round()));
        }
        for model in models {
            for (method, iterations) in [("pgd", ITERATIONS), ("fgsm", 1)] {
                for grid in ["fine", "paper"] {
                    let of = self.id(&model);
                    let mut command = words(&[
                        "attack",
                        "--model",
                        &self.file(&of, "model.safetensors"),
                        "--method",
                        method,
                        "--eps",
                        grid,
                        "--images",
                        &part.to_string(),
                    ]);
                    command.extend(self.data(&settings.first));
                    command.extend(self.protocol(settings.protocol));
                    let work = Work {
                        evaluated: attacked * (STRENGTHS + 1),
                        attacked: attacked * (STRENGTHS - 1) * iterations,
                        ..Work::default()
                    };
                    let name = format!("attack-{method}-{grid}-{model}");
                    self.add(&name, command, &[of], &["fig3"], work);
                }
            }
        }
    }

    /// E6: both directions over four numbers of steps, the supervised baseline, and four batch sizes.
    fn transfer(&mut self) {
        let settings = self.settings;
        let (first, second) = (&settings.first, &settings.second);
        let arch = Arch::ResNet50;
        let forward = pretraining_name(Method::SimClr, arch, TRANSFERRED_BATCH);
        for tenths in TRANSFER_TENTHS {
            let steps = self.steps(tenths);
            let encoder = format!("encoder-step{steps}.safetensors");
            let figures: &[&str] = match tenths {
                4 => &["fig4", "table2a"],
                _ => &["fig4"],
            };
            let name = format!("transfer-{forward}-{steps}");
            self.linear(
                "transfer",
                &name,
                (&forward, &encoder),
                arch,
                second,
                figures,
            );
            let back = "simclr-second-resnet50-b128";
            let name = format!("transfer-{back}-{steps}");
            self.linear("transfer", &name, (back, &encoder), arch, first, figures);
        }
        let steps = self.steps(4).max(1);
        self.linear(
            "transfer",
            &format!("transfer-supervised-100-{steps}"),
            (
                "supervised-100",
                &format!("encoder-step{steps}.safetensors"),
            ),
            arch,
            second,
            &["fig4", "table2a"],
        );
        for batch in SIMCLR_BATCHES {
            let of = pretraining_name(Method::SimClr, arch, batch);
            let steps = self.steps(10);
            self.linear(
                "transfer",
                &format!("transfer-{of}-{steps}"),
                (&of, &format!("encoder-step{steps}.safetensors")),
                arch,
                second,
                &["table2b"],
            );
        }
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}

fn pretraining_name(method: Method, arch: Arch, batch: usize) -> String {
    format!("{}-{arch}-b{batch}", method.name())
}

fn tuned_name(method: &str, percent: f64) -> String {
    format!("finetune-{method}-{percent}")
}

#[cfg(test)]
mod tests {
    use super::super::{Grid, Scale, Sizes};
    use super::*;
    use crate::data::DataKind;

    fn settings(scale: Scale) -> GridSettings {
        let source = |name: &str, train, test, side| Source {
            kind: DataKind::Folder,
            dir: Some(name.into()),
            name: name.to_string(),
            pretraining: train,
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

    /// The paper's grid, counted: encoders, their evaluations, Table 1, Figure 3, Figure 4 and Tables 2.
    #[test]
    fn the_grid_has_every_cell() {
        let jobs = jobs(&settings(Scale::Paper));
        let count = |command: &str| jobs.iter().filter(|j| j.command[0] == command).count();
        assert_eq!(count("simclr"), 2 * 4 + 1 + 1);
        assert_eq!(count("rotnet"), 2 * 5 + 1);
        assert_eq!(count("linear"), 2 * (4 + 5) * 4);
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
            job.expect("it is there").command.join(" ")
        };
        assert_eq!(
            command("simclr-resnet50-b256-s0"),
            "simclr --arch resnet50 --width 1 --batch-size 256 --steps 5000 --save-every 500 --no-knn --data folder \
             --data-dir A --protocol sound --seed 0"
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
        let paper = Sizes::of(Scale::Paper);
        assert!(paper.shrunk(&settings(Scale::Paper).first).is_empty());
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
}
