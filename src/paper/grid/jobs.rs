//! The jobs of the paper's experiments E1 to E7. The most informative jobs come first, and each job
//! comes after those that it needs.

#[cfg(test)]
pub(super) mod tests;

use std::path::PathBuf;

use super::scale::{images, part};
use super::{FIGURES, GridSettings, Job, Network, Source, Work};
use crate::nn::{Arch, Stem};
use crate::objectives::Protocol;
use crate::paper::numbers::{
    FIG2_TENTHS, FIG4_TENTHS, FINETUNED_BATCH, FRACTIONS, ROTNET_BATCHES, SIMCLR_BATCHES, TENTHS,
    TRANSFERRED_BATCH, TRANSFERRED_TENTHS,
};
use crate::runs::settings::{
    Attack, AttackName, AttackSettings, ClassifierTraining, Common, EncoderSettings, Finetune,
    Linear, LinearTraining, PretrainedEncoder, Pretraining as PretrainingSettings, RotNet,
    RotNetTraining, SimClr, SimClrTraining, Supervised, TrainingSettings, Transfer, defaults,
};
use crate::runs::spec::{RunSpec, Task};

/// The paper's epochs from scratch, on a fraction and on all labels.
const BASELINE_EPOCHS: u64 = 500;
const SUPERVISED_EPOCHS: u64 = 60;
/// Images per step of the supervised trainings.
const SUPERVISED_BATCH: usize = 64;
/// Strengths of an attack, the first of them 0, and PGD's iterations.
const STRENGTHS: u64 = 10;
const ITERATIONS: u64 = 10;
/// Side of the input images of linear evaluations, attacks and trainings with the first data set's
/// encoder.
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
        // SimCLR and RotNet at one batch size. The transfer uses this SimCLR encoder as well.
        list.untrained(Arch::ResNet50, &settings.first);
        for method in METHODS {
            list.figure2(method, Arch::ResNet50, TRANSFERRED_BATCH);
        }
        list.table1();
        for method in METHODS {
            for &batch in method.batches() {
                if !list.has(&pretraining_name(method, Arch::ResNet50, batch)) {
                    list.figure2(method, Arch::ResNet50, batch);
                }
            }
        }
        list.attacks();
        list.transfer();
        list.untrained(Arch::ResNet18, &settings.first);
        for method in METHODS {
            for &batch in method.batches() {
                list.figure2(method, Arch::ResNet18, batch);
            }
        }
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

/// A pretraining of the grid.
#[derive(Clone, Copy)]
struct Pretraining<'a> {
    method: Method,
    arch: Arch,
    batch: usize,
    /// Number of steps, in tenths of the full steps.
    tenths: u64,
    source: &'a Source,
    /// The name of the job, without the seed.
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
        self.settings.sizes.steps(tenths)
    }

    /// Whether the job `name` of this seed is already in the list.
    fn has(&self, name: &str) -> bool {
        let id = self.id(name);
        self.jobs.iter().any(|job| job.id == id)
    }

    /// Adds a run on `source` under the grid's protocol.
    fn add(
        &mut self,
        name: &str,
        (task, source): (Task, &Source),
        needs: &[String],
        figures: &[&str],
        work: Work,
    ) {
        debug_assert!(figures.iter().all(|figure| FIGURES.contains(figure)));
        let common = Common {
            seed: self.seed,
            protocol: self.settings.protocol,
            data: source.data.clone(),
        };
        self.jobs.push(Job {
            id: self.id(name),
            spec: RunSpec { task, common },
            needs: needs.to_vec(),
            figures: figures.iter().map(|f| f.to_string()).collect(),
            work,
        });
    }

    /// A file that the job `id` writes.
    fn file(&self, id: &str, name: &str) -> PathBuf {
        self.settings.folder(id).join(name)
    }

    fn encoder(&self, arch: Arch) -> EncoderSettings {
        EncoderSettings {
            arch,
            width: self.settings.sizes.width,
            stem: None,
        }
    }

    fn pretrain(&mut self, run: Pretraining<'_>) {
        let (steps, batch_size) = (self.steps(run.tenths), run.batch);
        let pretraining = PretrainingSettings {
            init: run.init.map(str::to_string),
            evaluate_every: None,
            no_knn: true,
            images: defaults(),
            encoder: self.encoder(run.arch),
        };
        let every = TrainingSettings {
            save_every: Some(self.steps(1)),
            ..defaults()
        };
        // RotNet ends with an evaluation of all rotations of some test images.
        let rotation_fraction = part(self.settings.sizes.rotation_images, run.source.test);
        let (task, rotated) = match run.method {
            Method::SimClr => {
                let training = SimClrTraining {
                    steps,
                    batch_size,
                    every,
                    ..defaults()
                };
                let task = Task::Simclr(SimClr {
                    pretraining,
                    training,
                });
                (task, 0)
            }
            Method::RotNet => {
                let training = RotNetTraining {
                    steps,
                    batch_size,
                    rotation_fraction,
                    every,
                    ..defaults()
                };
                let task = Task::Rotnet(RotNet {
                    pretraining,
                    training,
                });
                (task, 4 * images(rotation_fraction, run.source.test))
            }
        };
        let stem = match (run.method, run.protocol) {
            (Method::RotNet, Protocol::Paper) => Stem::ImageNet,
            _ => CIFAR,
        };
        let views = (run.batch * run.method.views()) as u64;
        let work = Work {
            network: Network {
                arch: run.arch,
                stem,
                side: VIEW,
            },
            trained: steps * views,
            trained_at_once: views,
            evaluated: rotated as u64,
            attacked: 0,
        };
        self.add(run.name, (task, run.source), &[], run.figures, work);
        if let Some(job) = self.jobs.last_mut() {
            job.spec.common.protocol = run.protocol;
        }
    }

    /// Adds one training of Figure 2 (E1, E2) or its counterpart with ResNet-18 (E7), and the
    /// linear evaluations of its checkpoints (E3).
    fn figure2(&mut self, method: Method, arch: Arch, batch: usize) {
        let settings = self.settings;
        let name = pretraining_name(method, arch, batch);
        let figures: &[&str] = match arch {
            Arch::ResNet50 if batch == TRANSFERRED_BATCH => &["fig2", "resnet18", "claim7"],
            Arch::ResNet50 => &["fig2", "resnet18"],
            _ => &["resnet18"],
        };
        self.pretrain(Pretraining {
            method,
            arch,
            batch,
            tenths: TENTHS,
            source: &settings.first,
            name: &name,
            figures,
            protocol: settings.protocol,
            init: settings.init.as_deref(),
        });
        let figures: &[&str] = match arch {
            Arch::ResNet50 => &["fig2", "resnet18"],
            _ => &["resnet18"],
        };
        for tenths in FIG2_TENTHS {
            let steps = self.steps(tenths);
            self.linear(
                &format!("linear-{name}-{steps}"),
                (&name, &format!("encoder-step{steps}.safetensors")),
                arch,
                &settings.first,
                figures,
            );
        }
    }

    /// SimCLR on ResNet-50 for a single purpose, as a base for other pretrainings.
    fn single(&self, batch: usize, tenths: u64) -> Pretraining<'a> {
        Pretraining {
            method: Method::SimClr,
            arch: Arch::ResNet50,
            batch,
            tenths,
            source: &self.settings.first,
            name: "",
            figures: &[],
            protocol: self.settings.protocol,
            init: self.settings.init.as_deref(),
        }
    }

    /// A linear evaluation of the file `encoder` of the job `of` on `source`, the data set of its
    /// pretraining.
    fn linear(
        &mut self,
        name: &str,
        (of, encoder): (&str, &str),
        arch: Arch,
        source: &Source,
        figures: &[&str],
    ) {
        let of = self.id(of);
        let task = Task::Linear(Linear {
            init: Some(self.file(&of, encoder)),
            untrained: false,
            arch: None,
            width: None,
            images: defaults(),
            training: self.linear_training(source),
        });
        let work = self.evaluated(arch, source);
        self.add(name, (task, source), &[of], figures, work);
    }

    /// As [`List::linear`], on another data set.
    fn transferred(
        &mut self,
        name: &str,
        (of, encoder): (&str, &str),
        source: &Source,
        figures: &[&str],
    ) {
        let of = self.id(of);
        let init = self.file(&of, encoder);
        let task = Task::Transfer(Transfer {
            pretrained: PretrainedEncoder {
                init,
                images: defaults(),
            },
            training: self.linear_training(source),
        });
        let work = self.evaluated(Arch::ResNet50, source);
        self.add(name, (task, source), &[of], figures, work);
    }

    /// Adds a linear evaluation of the untrained network, the baseline for learned representations.
    fn untrained(&mut self, arch: Arch, source: &Source) {
        let is_first = source.name == self.settings.first.name;
        let (set, figures): (&str, &[&str]) = match (arch, is_first) {
            (Arch::ResNet50, true) => ("", &["fig2", "fig4", "table2a", "resnet18"]),
            (Arch::ResNet50, false) => ("-second", &["fig4", "table2a", "table2b"]),
            _ => ("", &["resnet18"]),
        };
        let task = Task::Linear(Linear {
            init: None,
            untrained: true,
            arch: Some(arch),
            width: Some(self.settings.sizes.width),
            images: defaults(),
            training: self.linear_training(source),
        });
        let work = self.evaluated(arch, source);
        let name = format!("linear-untrained{set}-{arch}");
        self.add(&name, (task, source), &[], figures, work);
    }

    fn linear_training(&self, source: &Source) -> LinearTraining {
        LinearTraining {
            labels: part(self.settings.sizes.linear_images, source.train),
            ..defaults()
        }
    }

    fn evaluated(&self, arch: Arch, source: &Source) -> Work {
        let labels = part(self.settings.sizes.linear_images, source.train);
        Work {
            network: Network {
                arch,
                stem: CIFAR,
                side: source.side,
            },
            evaluated: (images(labels, source.train) + source.test) as u64,
            ..Work::default()
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

    /// Adds E4: encoders of the largest batch size, fine-tuned on three fractions of the labels,
    /// and the baseline from scratch on the same fractions.
    fn table1(&mut self) {
        let settings = self.settings;
        let tenths = settings.sizes.finetuned_tenths;
        let simclr = pretraining_name(Method::SimClr, Arch::ResNet50, FINETUNED_BATCH);
        self.pretrain(Pretraining {
            name: &simclr,
            figures: &["table1"],
            ..self.single(FINETUNED_BATCH, tenths)
        });
        self.fine_tune(Method::SimClr, &["table1", "fig3"]);
        for (number, fraction) in FRACTIONS.into_iter().enumerate() {
            let images = images(fraction, settings.first.train);
            let steps = settings.sizes.supervised;
            let steps = steps.map(|steps| steps.baseline[number]);
            let (training, steps) = self.labelled(fraction, steps, BASELINE_EPOCHS, images);
            let work = self.supervised_work(images, steps);
            let name = format!("supervised-{}", (fraction * 100.0).round());
            self.supervised(&name, training, &["table1"], work);
        }
        // RotNet with this batch size also belongs to Figure 2.
        self.figure2(Method::RotNet, Arch::ResNet50, FINETUNED_BATCH);
        self.fine_tune(Method::RotNet, &["table1"]);
    }

    /// Returns the settings and the number of steps of a training on a fraction of the labels,
    /// which has `images` images: at most `steps`, or the paper's `epochs`.
    fn labelled(
        &self,
        labels: f64,
        steps: Option<u64>,
        epochs: u64,
        images: usize,
    ) -> (ClassifierTraining, u64) {
        let mut training = ClassifierTraining {
            labels,
            batch_size: SUPERVISED_BATCH,
            learning_rate: ClassifierTraining::default_rate(SUPERVISED_BATCH),
            ..defaults()
        };
        if let (Some(steps), Some(supervised)) = (steps, &self.settings.sizes.supervised) {
            training.steps = Some(steps);
            training.stop_when_flat = Some(supervised.flat_window);
            return (training, steps);
        }
        training.epochs = Some(epochs);
        let per_epoch = (images / SUPERVISED_BATCH).max(1) as u64;
        (training, epochs * per_epoch)
    }

    /// Fine-tunes the encoder of Table 1 on each fraction of the labels.
    fn fine_tune(&mut self, method: Method, figures: &[&str]) {
        let settings = self.settings;
        let of = self.id(&pretraining_name(method, Arch::ResNet50, FINETUNED_BATCH));
        let steps = self.steps(settings.sizes.finetuned_tenths);
        let encoder = self.file(&of, &format!("encoder-step{steps}.safetensors"));
        for (number, fraction) in FRACTIONS.into_iter().enumerate() {
            let images = images(fraction, settings.first.train);
            let steps = settings.sizes.supervised;
            let steps = steps.map(|steps| steps.finetune[number]);
            let (training, steps) =
                self.labelled(fraction, steps, Finetune::paper_epochs(fraction), images);
            let init = encoder.clone();
            let task = Task::Finetune(Finetune {
                pretrained: PretrainedEncoder {
                    init,
                    images: defaults(),
                },
                training,
            });
            let name = tuned_name(method.name(), (fraction * 100.0).round());
            let work = self.supervised_work(images, steps);
            let (run, needs) = ((task, &settings.first), std::slice::from_ref(&of));
            self.add(&name, run, needs, figures, work);
        }
    }

    /// Adds the baseline of attacks and transfer, which is trained on all labels.
    fn supervised_on_all_labels(&mut self) {
        let settings = self.settings;
        let images = settings.first.train;
        let steps = settings.sizes.supervised.map(|steps| steps.all_labels);
        let (mut training, steps) = self.labelled(1.0, steps, SUPERVISED_EPOCHS, images);
        // Attacks and transfers use the network after the last step, whatever its loss.
        training.stop_when_flat = None;
        training.every.save_every = Some(self.steps(TRANSFERRED_TENTHS));
        let work = self.supervised_work(images, steps);
        let figures = &["fig3", "fig4", "table2a"];
        self.supervised("supervised-100", training, figures, work);
    }

    fn supervised(
        &mut self,
        name: &str,
        training: ClassifierTraining,
        figures: &[&str],
        work: Work,
    ) {
        let task = Task::Supervised(Supervised {
            images: defaults(),
            encoder: self.encoder(Arch::ResNet50),
            training,
        });
        self.add(name, (task, &self.settings.first), &[], figures, work);
    }

    /// E5: both attacks, on both grids of strengths, on the baseline and on SimCLR's fine-tuned
    /// encoders.
    fn attacks(&mut self) {
        self.supervised_on_all_labels();
        let settings = self.settings;
        let part = part(settings.sizes.attack_images, settings.first.test);
        let attacked = images(part, settings.first.test) as u64;
        let mut models = vec!["supervised-100".to_string()];
        for fraction in FRACTIONS {
            models.push(tuned_name("simclr", (fraction * 100.0).round()));
        }
        for model in models {
            for (method, iterations) in [(AttackName::Pgd, ITERATIONS), (AttackName::Fgsm, 1)] {
                for grid in ["fine", "paper"] {
                    let of = self.id(&model);
                    let task = Task::Attack(Attack {
                        init: self.file(&of, "model.safetensors"),
                        images: defaults(),
                        attack: AttackSettings {
                            method,
                            eps: grid.to_string(),
                            fraction: part,
                            ..defaults()
                        },
                    });
                    let work = Work {
                        evaluated: attacked * (STRENGTHS + 1),
                        attacked: attacked * (STRENGTHS - 1) * iterations,
                        ..Work::default()
                    };
                    let name = format!("attack-{method}-{grid}-{model}");
                    self.add(&name, (task, &settings.first), &[of], &["fig3"], work);
                }
            }
        }
    }

    /// E6: both directions over four numbers of steps, the supervised baseline, and four batch
    /// sizes. Adds RotNet with its authors' stem as well, for the comparison of costs.
    fn transfer(&mut self) {
        let settings = self.settings;
        let (first, second) = (&settings.first, &settings.second);
        let arch = Arch::ResNet50;
        let back = "simclr-second-resnet50-b128";
        self.untrained(arch, second);
        self.pretrain(Pretraining {
            source: second,
            name: back,
            figures: &["fig4", "table2a"],
            ..self.single(TRANSFERRED_BATCH, TRANSFERRED_TENTHS)
        });
        let forward = pretraining_name(Method::SimClr, arch, TRANSFERRED_BATCH);
        for tenths in FIG4_TENTHS {
            let steps = self.steps(tenths);
            let encoder = format!("encoder-step{steps}.safetensors");
            let figures: &[&str] = match tenths {
                TRANSFERRED_TENTHS => &["fig4", "table2a"],
                _ => &["fig4"],
            };
            for (of, onto) in [(forward.as_str(), second), (back, first)] {
                let name = format!("transfer-{of}-{steps}");
                self.transferred(&name, (of, &encoder), onto, figures);
            }
        }
        let steps = self.steps(TRANSFERRED_TENTHS);
        let encoder = format!("encoder-step{steps}.safetensors");
        let name = format!("transfer-supervised-100-{steps}");
        let of = ("supervised-100", encoder.as_str());
        self.transferred(&name, of, second, &["fig4", "table2a"]);
        for batch in SIMCLR_BATCHES {
            let of = pretraining_name(Method::SimClr, arch, batch);
            let steps = self.steps(TENTHS);
            let (name, encoder) = (
                format!("transfer-{of}-{steps}"),
                format!("encoder-step{steps}.safetensors"),
            );
            self.transferred(&name, (&of, &encoder), second, &["table2b"]);
        }
        self.pretrain(Pretraining {
            method: Method::RotNet,
            name: "rotnet-authors-stem-resnet50-b128",
            figures: &["claim7"],
            protocol: Protocol::Paper,
            init: Some("none"),
            ..self.single(TRANSFERRED_BATCH, 1)
        });
    }
}

fn pretraining_name(method: Method, arch: Arch, batch: usize) -> String {
    format!("{}-{arch}-b{batch}", method.name())
}

fn tuned_name(method: &str, percent: f64) -> String {
    format!("finetune-{method}-{percent}")
}
