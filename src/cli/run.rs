//! The commands that start or resume a run: `simclr`, `rotnet`, `supervised`, `finetune`, `linear`,
//! `transfer`, `attack` and `knn`.

use clap::{ArgMatches, FromArgMatches, Subcommand};

use super::arguments::{Place, PlaceArguments, TuningArguments};
use super::linear::{Encoder, evaluate, linear};
use super::{attack, classification, knn, pretraining};
use crate::console::say;
use crate::error::Result;
use crate::runs::pretrain::Pretext;
use crate::runs::spec::{RunSpec, Task, with_options};
use crate::runs::training::Extent;
use crate::runs::tuning::When;

/// A command line that starts or resumes a run: its settings, its folder and its device.
pub struct Run {
    spec: RunSpec,
    arguments: PlaceArguments,
    tuning: When,
}

impl Run {
    pub fn run(&self) -> Result<()> {
        if self.arguments.print_config {
            say!("{}", self.spec.to_toml()?.trim_end());
            return Ok(());
        }
        let PlaceArguments {
            device,
            out,
            resume,
            stop,
            ..
        } = &self.arguments;
        let place = Place {
            device: device.clone(),
            out: out.clone(),
            resume: *resume,
            tuning: self.tuning,
            extent: Extent::Whole,
        };
        stop.listen()?;
        run(&self.spec, &place)
    }
}

/// Executes the run `spec` at `place`, and prints the results.
pub fn run(spec: &RunSpec, place: &Place) -> Result<()> {
    place.check_out()?;
    match &spec.task {
        Task::Simclr(run) => pretraining::run(spec, Pretext::simclr(&spec.common, run), place),
        Task::Rotnet(run) => pretraining::run(spec, Pretext::rotnet(&spec.common, run), place),
        Task::Supervised(run) => classification::supervised(spec, run, place),
        Task::Finetune(run) => classification::finetune(spec, run, place),
        Task::Linear(run) => linear(spec, run, place),
        Task::Transfer(run) => {
            let encoder = Encoder::File(&run.pretrained.init);
            evaluate(spec, &run.training, &encoder, place)
        }
        Task::Attack(run) => attack::run(spec, run, place),
        Task::Knn(run) => knn::run(spec, run, place),
    }
}

/// Whether the command `name` trains a network, so that kernels are tuned for it.
pub fn is_training(name: &str) -> bool {
    ["simclr", "rotnet", "supervised", "finetune"].contains(&name)
}

impl Subcommand for Run {
    fn augment_subcommands(command: clap::Command) -> clap::Command {
        command.subcommands(RunSpec::commands().into_iter().map(|run| {
            let name = run.get_name().to_string();
            let run = with_options::<PlaceArguments>(run);
            let run = match name.as_str() {
                name if is_training(name) => with_options::<TuningArguments>(run),
                "knn" => run.mut_arg("out", |out| {
                    out.help(
                        "The run folder, new or empty. Without it, the accuracy is only printed, and an early stop \
                         stores nothing",
                    )
                }),
                _ => run,
            };
            run.mut_args(|option| {
                let help = option.get_help().map(ToString::to_string);
                let has_default = help.is_some_and(|help| help.contains("[default:"));
                let takes_values = option.get_action().takes_values();
                option.hide_default_value(takes_values && has_default)
            })
        }))
    }

    fn augment_subcommands_for_update(command: clap::Command) -> clap::Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        Task::has_subcommand(name)
    }
}

impl FromArgMatches for Run {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let spec = RunSpec::from_matches(matches)?;
        let given = matches.subcommand().map(|(_, given)| given);
        let given = given.unwrap_or(matches);
        let tuning = if is_training(spec.command()) {
            TuningArguments::from_arg_matches(given)?.when()
        } else {
            When::WhereNoTableShips
        };
        Ok(Run {
            arguments: PlaceArguments::from_arg_matches(given)?,
            spec,
            tuning,
        })
    }

    fn update_from_arg_matches(
        &mut self,
        matches: &ArgMatches,
    ) -> std::result::Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
