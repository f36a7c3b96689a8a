//! A run as a value: its command with every setting. The command line, a configuration file and the
//! grid of the paper's experiments each make one, and `config.toml` stores it.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Subcommand, ValueEnum};
use serde::Serialize;
use toml::{Table, Value};

use super::settings::{
    Attack, ClassifierTraining, Common, Finetune, Given, Knn, Linear, RotNet, Rule, SimClr,
    StemName, Supervised, Transfer,
};
use crate::error::{Error, Result};
use crate::nn::Normalization;
use crate::objectives::Protocol;

/// A run with all its settings. Defaults that depend on other settings are filled in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunSpec {
    #[serde(flatten)]
    pub task: Task,
    #[serde(flatten)]
    pub common: Common,
}

/// The computation of a run, with the settings of its command.
#[derive(Clone, Debug, PartialEq, Subcommand, Serialize)]
#[serde(tag = "command", rename_all = "lowercase")]
pub enum Task {
    /// Pretrain an encoder with SimCLR, then evaluate it by its nearest neighbours
    ///
    /// Without flags, it trains a small ResNet-18 on generated shapes, on a hardware GPU if there
    /// is one and on the CPU otherwise.
    Simclr(SimClr),

    /// Pretrain an encoder with RotNet, then evaluate it by its nearest neighbours
    ///
    /// The network is trained on every image of a batch in all four rotations. The paper's protocol
    /// uses the ImageNet stem, which needs 1/15 of the operations. The generated shapes are drawn
    /// at random rotations, so RotNet learns little from them.
    Rotnet(RotNet),

    /// Train an encoder and a linear layer from scratch, on all labels or a fraction
    Supervised(Supervised),

    /// Fine-tune a pretrained encoder and a linear layer on a fraction of the labels
    ///
    /// Without --epochs or --steps, it trains for the paper's number of epochs: 60 for up to 1 % of
    /// the labels, 30 for up to 10 %, otherwise 20.
    Finetune(Finetune),

    /// Train a linear layer on the features of a frozen encoder and evaluate it on the test images
    ///
    /// By default the features are computed once and the layer is trained by Adam (1e-3) for 10
    /// epochs in batches of 128.
    Linear(Linear),

    /// Linear evaluation of an encoder on a data set other than that of its pretraining, at the
    /// data set's own resolution
    Transfer(Transfer),

    /// Attack a classifier with FGSM or PGD and measure its accuracy at several strengths
    ///
    /// Writes attack.svg to the run folder: some images, their perturbations at the last eps
    /// (amplified; grey means no change), the attacked images, and the predicted classes.
    Attack(Attack),

    /// Evaluate an encoder by the nearest neighbours of the test images among the training images
    Knn(Knn),
}

impl Task {
    /// Fills in the defaults that depend on other settings, for options that were not given.
    fn complete(&mut self, common: &Common, given: Given<'_>) {
        match self {
            Task::Simclr(run) => run.complete(common, given),
            Task::Rotnet(run) => run.complete(common, given),
            Task::Supervised(run) => run.complete(common, given),
            Task::Finetune(run) => run.complete(given),
            Task::Linear(run) => run.complete(common, given),
            Task::Transfer(run) => run.training.complete(given),
            Task::Attack(run) => run.complete(common, given),
            Task::Knn(_) => {}
        }
    }
}

impl RunSpec {
    /// The name of the command.
    pub fn command(&self) -> &'static str {
        match self.task {
            Task::Simclr(_) => "simclr",
            Task::Rotnet(_) => "rotnet",
            Task::Supervised(_) => "supervised",
            Task::Finetune(_) => "finetune",
            Task::Linear(_) => "linear",
            Task::Transfer(_) => "transfer",
            Task::Attack(_) => "attack",
            Task::Knn(_) => "knn",
        }
    }

    /// The same run with these settings of its training on labels, if it has any.
    pub(super) fn with_training(&self, training: &ClassifierTraining) -> Self {
        let mut spec = self.clone();
        match &mut spec.task {
            Task::Supervised(run) => run.training = training.clone(),
            Task::Finetune(run) => run.training = training.clone(),
            _ => {}
        }
        spec
    }

    /// The commands that make a run, with their settings as options.
    pub fn commands() -> Vec<Command> {
        let commands = Task::augment_subcommands(Command::new("parallax"));
        let commands = commands.get_subcommands().cloned();
        let commands = commands.map(|command| {
            let is_knn = command.get_name() == "knn";
            let command = with_options::<Common>(command);
            command.mut_arg("protocol", |protocol| protocol.hide(is_knn))
        });
        commands.collect()
    }

    /// Reads the words of a command line after the program's name.
    ///
    /// # Errors
    /// Those of clap.
    pub fn parse(words: &[String]) -> std::result::Result<Self, clap::Error> {
        let parser = Command::new("parallax").subcommands(RunSpec::commands());
        let name = std::iter::once("parallax");
        let words = name.chain(words.iter().map(String::as_str));
        let matches = with_negative_numbers(parser).try_get_matches_from(words)?;
        RunSpec::from_matches(&matches)
    }

    /// Returns the run that a command line of one of [`RunSpec::commands`] asks for.
    ///
    /// # Errors
    /// Those of clap.
    pub fn from_matches(matches: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        let mut task = Task::from_arg_matches(matches)?;
        let given = matches.subcommand().map_or(matches, |(_, given)| given);
        let common = Common::from_arg_matches(given)?;
        task.complete(&common, &|id| {
            given.value_source(id) == Some(ValueSource::CommandLine)
        });
        if matches!(task, Task::Knn(_)) && common.protocol != Protocol::Sound {
            let message = "knn is the same under every protocol; leave --protocol out";
            return Err(clap::Error::raw(ErrorKind::ArgumentConflict, message));
        }
        let spec = RunSpec { task, common };
        match spec.contradiction() {
            Some(message) => Err(clap::Error::raw(ErrorKind::ArgumentConflict, message)),
            None => Ok(spec),
        }
    }

    /// The normalisation that was asked for.
    pub fn normalization(&self) -> Option<Normalization> {
        let images = match &self.task {
            Task::Simclr(run) => run.pretraining.images,
            Task::Rotnet(run) => run.pretraining.images,
            Task::Supervised(run) => run.images,
            Task::Finetune(run) => run.pretrained.images,
            Task::Linear(run) => run.images,
            Task::Transfer(run) => run.pretrained.images,
            Task::Attack(run) => run.images,
            Task::Knn(run) => run.pretrained.images,
        };
        images.normalization
    }

    /// The message about a setting that the paper's protocol excludes.
    fn contradiction(&self) -> Option<String> {
        if self.common.protocol != Protocol::Paper {
            return None;
        }
        let (optimization, rule) = match &self.task {
            Task::Simclr(run) => (Some(&run.training.optimization), Rule::Adam),
            Task::Rotnet(run) => (Some(&run.training.optimization), Rule::Sgd),
            Task::Supervised(run) => (Some(&run.training.optimization), Rule::Sgd),
            Task::Finetune(run) => (Some(&run.training.optimization), Rule::Sgd),
            _ => (None, Rule::Sgd),
        };
        let (encoder, stem) = match &self.task {
            Task::Simclr(run) => (Some(&run.pretraining.encoder), StemName::Cifar),
            Task::Rotnet(run) => (Some(&run.pretraining.encoder), StemName::ImageNet),
            Task::Supervised(run) => (Some(&run.encoder), StemName::Cifar),
            _ => (None, StemName::Cifar),
        };
        let normalization = self.normalization();
        let normalization = normalization.filter(|&n| n != Normalization::Cifar10);
        let has_blur = matches!(&self.task, Task::Simclr(run) if run.training.blur);
        let asked = optimization.as_ref();
        let warmup = asked.and_then(|o| o.warmup).filter(|&steps| steps > 0);
        let decay = asked.and_then(|o| o.decay.clone());
        let found = [
            other("optimizer", asked.and_then(|o| o.optimizer), rule),
            decay.map(|decay| ("schedule", decay, "a tenth every 1000 steps".to_string())),
            warmup.map(|steps| ("warmup", steps.to_string(), "none".to_string())),
            has_blur.then(|| ("blur", String::new(), "none".to_string())),
            other("stem", encoder.and_then(|e| e.stem), stem),
            normalization.map(|n| ("normalize", n.to_string(), "cifar10".to_string())),
        ];
        let (option, value, own) = found.into_iter().flatten().next()?;
        let asked = format!("--{option} {value}");
        Some(format!(
            "{} contradicts --protocol paper, whose code has {own}; leave one of the two out",
            asked.trim_end()
        ))
    }

    /// The settings as a table, with the keys of `config.toml`.
    ///
    /// # Errors
    /// `Error::Usage` if a number is too large for TOML.
    pub fn to_table(&self) -> Result<Table> {
        let table = Table::try_from(self);
        table.map_err(|e| Error::usage(format!("the settings cannot be written as TOML: {e}")))
    }

    /// The settings as a configuration file.
    ///
    /// # Errors
    /// As [`RunSpec::to_table`].
    pub fn to_toml(&self) -> Result<String> {
        Ok(ordered(self.to_table()?).to_string())
    }

    /// Returns a short command line that asks for this run: without settings that have their
    /// defaults, but with the seed. [`RunSpec::parse`] reads it back.
    ///
    /// # Errors
    /// As [`RunSpec::to_table`].
    pub fn command_line(&self) -> Result<Vec<String>> {
        let command = options(self.command());
        let settings = flat(&self.to_table()?);
        let mut named = vec!["seed"];
        // A setting may change the default of another one, so this repeats until nothing is
        // missing.
        loop {
            let mut words = vec![self.command().to_string()];
            for (key, value) in &settings {
                let option = option(&command, key).filter(|_| named.contains(&key.as_str()));
                let word = option.and_then(|option| word(option, value));
                let word = word.unwrap_or_default();
                match word.split_once('=') {
                    Some((flag, value)) if !value.starts_with('-') => {
                        words.extend([flag.to_string(), value.to_string()]);
                    }
                    _ => words.extend(Some(word).filter(|word| !word.is_empty())),
                }
            }
            let default = RunSpec::parse(&words).ok().map(|spec| spec.to_table());
            let default = default.transpose()?.map(|table| flat(&table));
            let is_missing = |key: &str, value: &Value| match &default {
                Some(default) => default.get(key) != Some(value),
                // A required option is missing.
                None => ["init", "untrained"].contains(&key),
            };
            let missing = settings
                .iter()
                .filter(|(key, value)| is_missing(key, value) && !named.contains(&key.as_str()));
            let missing: Vec<&str> = missing.map(|(key, _)| key.as_str()).collect();
            // Most defaults depend on the data or the protocol.
            let decides = |key: &&str| *key == "protocol" || key.starts_with("data.");
            let first: Vec<&str> = missing.iter().copied().filter(decides).collect();
            let before = named.len();
            named.extend(if first.is_empty() { missing } else { first });
            if named.len() == before {
                return Ok(words);
            }
        }
    }
}

/// The option, its value and `own`, the value of the paper's code, if it was asked for another one.
fn other<V: ValueEnum + PartialEq>(
    option: &'static str,
    asked: Option<V>,
    own: V,
) -> Option<(&'static str, String, String)> {
    let name = |value: V| Some(value.to_possible_value()?.get_name().to_string());
    let asked = asked.filter(|asked| *asked != own)?;
    Some((option, name(asked)?, name(own)?))
}

/// Adds the options of `A` to a command, and keeps the command's description.
pub fn with_options<A: Args>(command: Command) -> Command {
    let about = command.get_about().cloned().unwrap_or_default();
    let long_about = command.get_long_about().cloned();
    let long_about = long_about.unwrap_or_else(|| about.clone());
    let command = A::augment_args(command);
    command.about(about).long_about(long_about)
}

/// Lets numbers be negative, so that the message about one names the values that can be used.
pub fn with_negative_numbers(command: Command) -> Command {
    use std::any::TypeId;

    let is_number = |argument: &Arg| {
        let parsed = argument.get_value_parser().type_id();
        let numbers = [
            TypeId::of::<f64>(),
            TypeId::of::<u32>(),
            TypeId::of::<u64>(),
            TypeId::of::<usize>(),
        ];
        argument.get_action().takes_values() && numbers.iter().any(|id| parsed == *id)
    };
    command
        .mut_args(|argument| {
            if is_number(&argument) {
                argument.allow_hyphen_values(true)
            } else {
                argument
            }
        })
        .mut_subcommands(with_negative_numbers)
}

/// Returns the options of the command `name`.
pub(super) fn options(name: &str) -> Command {
    let mut commands = RunSpec::commands().into_iter();
    let found = commands.find(|command| command.get_name() == name);
    found.unwrap_or_default()
}

/// Returns the key of an option in `config.toml`: its name in the table of its help heading.
pub(super) fn key(option: &Arg) -> String {
    let id = option.get_id();
    match option.get_help_heading() {
        None | Some("Run") => id.to_string(),
        Some(heading) => format!("{}.{id}", heading.to_lowercase()),
    }
}

/// Returns the option with the key `wanted`.
pub(super) fn option<'a>(command: &'a Command, wanted: &str) -> Option<&'a Arg> {
    let mut options = command.get_arguments();
    options.find(|option| option.get_long().is_some() && key(option) == wanted)
}

/// Returns the word of a command line that gives `option` this value, or
/// `None` for a switch that is off.
pub(super) fn word(option: &Arg, value: &Value) -> Option<String> {
    let long = option.get_long()?;
    match value {
        Value::Boolean(is_set) if !option.get_action().takes_values() => {
            is_set.then(|| format!("--{long}"))
        }
        value => Some(format!("--{long}={}", shown(value))),
    }
}

/// Returns a value as a command line gives it. A list is joined by commas.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::String(word) => word.clone(),
        Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// Whether `option` has this value if it is not given.
pub(super) fn is_default(option: &Arg, value: &Value) -> bool {
    let default = option.get_default_values().first();
    let default = default.map(|word| word.to_string_lossy().into_owned());
    match (default, value) {
        (_, Value::Boolean(is_set)) => !is_set,
        (Some(default), Value::Float(x)) => default.parse() == Ok(*x),
        (Some(default), value) => default == shown(value),
        (None, _) => false,
    }
}

/// Returns `table` with its values before its tables, as TOML requires.
pub(super) fn ordered(table: Table) -> Table {
    let (mut values, tables): (Table, Table) =
        table.into_iter().partition(|(_, value)| !value.is_table());
    values.extend(tables);
    values
}

/// Returns one entry for each value of a table, under its full key.
pub(super) fn flat(table: &Table) -> Table {
    let mut all = Table::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                for (name, value) in flat(inner) {
                    all.insert(format!("{key}.{name}"), value);
                }
            }
            value => {
                all.insert(key.clone(), value.clone());
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> RunSpec {
        let words: Vec<String> = line.split_whitespace().map(str::to_string).collect();
        RunSpec::parse(&words).unwrap()
    }

    const LINES: [&str; 12] = [
        "simclr",
        "simclr --optimizer lars --schedule cosine --warmup 5 --blur --stem imagenet --normalize 0.5/0.25",
        "simclr --data cifar10 --data-dir d --size 48 --init x --no-knn --save-every 5 --precision f16",
        "simclr --matmul-precision f16 --batch-size 8",
        "rotnet --arch resnet34 --batch-size 7 --rotation-images 0.5 --protocol paper --init none",
        "supervised --steps 8 --batch-size 32 --learning-rate 0.0125",
        "finetune --encoder x --labels 0.1 --recompute --micro-batch 3 --stop-when-flat 9",
        "finetune --encoder x --labels 0.1 --epochs 60 --weight-decay 0.000001",
        "linear --untrained --data shapes-inverted --optimizer sgd --augment --resolution 32",
        "transfer --encoder x --seed 9223372036854775807",
        "attack --model m --protocol paper --method fgsm --save --images 0.25",
        "knn --encoder x --k 3 --resolution 64",
    ];

    #[test]
    fn a_command_line_is_read_back() {
        for line in LINES {
            let spec = parsed(line);
            let words = spec.command_line().unwrap();
            assert_eq!(RunSpec::parse(&words).unwrap(), spec, "{words:?}");
        }
        let words = |line| parsed(line).command_line().unwrap().join(" ");
        assert_eq!(words("simclr --steps 150"), "simclr --seed 0");
        assert_eq!(
            words("simclr --data cifar10 --width 0.5"),
            "simclr --width 0.5 --seed 0 --data cifar10"
        );
        // The default of the learning rate is that of the batch.
        assert_eq!(
            words("supervised --steps 8 --batch-size 32 --learning-rate 0.0125"),
            "supervised --batch-size 32 --steps 8 --learning-rate 0.0125 --seed 0"
        );
    }

    /// The key of an option, by its help heading, is that of its field.
    #[test]
    fn every_setting_is_an_option() {
        for line in LINES {
            let spec = parsed(line);
            let options = options(spec.command());
            let settings = flat(&spec.to_table().unwrap());
            for (setting, _) in settings.iter().filter(|(setting, _)| *setting != "command") {
                assert!(option(&options, setting).is_some(), "{line}: {setting}");
            }
            for option in options
                .get_arguments()
                .filter(|option| option.get_long().is_some())
            {
                let is_recorded = !option.get_default_values().is_empty();
                let key = key(option);
                assert!(!is_recorded || settings.contains_key(&key), "{line}: {key}");
            }
        }
    }

    #[test]
    fn defaults_depend_on_the_data_and_the_protocol() {
        let number = |line: &str, key: &str| flat(&parsed(line).to_table().unwrap())[key].clone();
        for (line, key, value) in [
            ("simclr", "training.batch_size", Value::from(64)),
            (
                "simclr --data cifar10",
                "training.batch_size",
                Value::from(128),
            ),
            (
                "rotnet --batch-size 128",
                "training.batch_size",
                Value::from(128),
            ),
            (
                "rotnet --data shapes-inverted",
                "encoder.width",
                Value::from(0.25),
            ),
            (
                "rotnet --data shapes-inverted",
                "training.steps",
                Value::from(5000),
            ),
            (
                "supervised --batch-size 256",
                "training.learning_rate",
                Value::from(0.05),
            ),
            (
                "finetune --encoder x --labels 0.1",
                "training.epochs",
                Value::from(30),
            ),
            (
                "linear --untrained --optimizer sgd",
                "training.epochs",
                Value::from(100),
            ),
            (
                "attack --model x --protocol paper",
                "attack.eps",
                Value::from("paper"),
            ),
            ("attack --model x", "attack.eps", Value::from("fine")),
        ] {
            assert_eq!(number(line, key), value, "{line}");
        }
    }
}
