//! `--config FILE`: a configuration file, or a recipe, as words of a command line, so that both are
//! checked by the same parsers.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Command, Subcommand};
use toml::{Table, Value};

use super::recipes::{self, Recipe};
use super::record::Facts;
use super::spec::{self, Task, flat, key, option, options};
use crate::error::{Error, Result, listed};

/// The option that names the file.
const FLAG: &str = "--config";
/// How similar an unknown word and a known one are, from 0 to 1, if the known one is suggested.
const SIMILAR: f64 = 0.8;

/// A command line with the settings of its configuration file.
pub struct Expanded {
    /// The words, those of the file before those that were given.
    pub words: Vec<OsString>,
    /// The file, the flags that it gives, and their keys.
    pub file: Option<(PathBuf, Vec<(String, String)>)>,
}

impl Expanded {
    /// Returns the file and the key with which an error of the parser begins, if its cause is in
    /// the file.
    pub fn origin(&self, error: &clap::Error) -> String {
        let Some((path, flags)) = &self.file else {
            return String::new();
        };
        let option = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(option)) => option.split(' ').next().unwrap_or_default(),
            _ => return String::new(),
        };
        match flags.iter().find(|(flag, _)| flag == option) {
            Some((_, key)) => format!("{}: {key}: ", path.display()),
            None => String::new(),
        }
    }
}

/// Adds the settings of the file of `--config`, if there is one, to the words of a command line
/// that starts with the program's name. A setting of the file is dropped if its option, or one that
/// excludes it, is given. Of a run's own configuration, facts are passed over.
///
/// # Errors
/// `Error::Io` if the file cannot be read; `Error::Usage` if there is no such recipe; `Error::Data`
/// if it is not TOML, is of another command, has an unknown key, or is of a run by an earlier
/// version that did not record every setting.
pub fn expand(words: Vec<OsString>) -> Result<Expanded> {
    let mut command = words.iter().skip(1);
    let command = command.position(|word| !word.to_string_lossy().starts_with('-'));
    let (name, given) = match command {
        Some(place) if Task::has_subcommand(&words[place + 1].to_string_lossy()) => {
            (words[place + 1].to_string_lossy(), &words[place + 2..])
        }
        _ => return Ok(Expanded { words, file: None }),
    };
    let Some(path) = named_file(given) else {
        return Ok(Expanded { words, file: None });
    };
    let options = options(&name);
    let settings = settings(&path, &name, &options, &|option| {
        is_given(&options, option, given)
    })?;
    let mut expanded = words[..words.len() - given.len()].to_vec();
    let mut flags = Vec::new();
    for (option, value) in &settings {
        if let Some(word) = spec::word(option, value) {
            let flag = word.split('=').next().unwrap_or_default().to_string();
            flags.push((flag, key(option)));
            expanded.push(word.into());
        }
    }
    expanded.extend_from_slice(given);
    Ok(Expanded {
        words: expanded,
        file: Some((path, flags)),
    })
}

/// The file that the words after a command name.
fn named_file(words: &[OsString]) -> Option<PathBuf> {
    let place = words.iter().position(|word| flag_of(word) == FLAG)?;
    let word = words[place].to_string_lossy();
    match word.split_once('=') {
        Some((_, file)) => Some(file.into()),
        None => words.get(place + 1).map(PathBuf::from),
    }
}

fn flag_of(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    word.split('=').next().unwrap_or_default().to_string()
}

/// Whether `given` has the flag of `option`, or of an option that excludes it.
fn is_given(options: &Command, option: &Arg, given: &[OsString]) -> bool {
    let excludes = |other: &&Arg| {
        let ids = |arg: &Arg| -> Vec<String> {
            let conflicts = options.get_arg_conflicts_with(arg).into_iter();
            conflicts.map(|arg| arg.get_id().to_string()).collect()
        };
        ids(other).contains(&option.get_id().to_string())
            || ids(option).contains(&other.get_id().to_string())
    };
    let others = options.get_arguments().filter(excludes);
    let longs = others.chain([option]).filter_map(Arg::get_long);
    let flags: Vec<String> = longs.map(|long| format!("--{long}")).collect();
    given.iter().any(|word| flags.contains(&flag_of(word)))
}

/// Reads the file at `path`, or the recipe that it names.
fn read(path: &Path) -> Result<String> {
    match path.to_string_lossy().strip_prefix(recipes::PREFIX) {
        Some(name) => Ok(Recipe::find(name)?.text.to_string()),
        None => fs::read_to_string(path).map_err(|e| Error::read(path, e)),
    }
}

/// Reads the settings of the file at `path` for the command `name`, without those for which
/// `is_given` is true.
fn settings<'a>(
    path: &Path,
    name: &str,
    options: &'a Command,
    is_given: &dyn Fn(&Arg) -> bool,
) -> Result<Vec<(&'a Arg, Value)>> {
    let text = read(path)?;
    let table: Table = toml::from_str(&text)
        .map_err(|e| Error::data(path, format!("not a configuration file: {e}")))?;
    let facts = Facts::keys(&table).map_err(|message| Error::data(path, message))?;
    let is_record = table.contains_key("versions");
    let mut settings = Vec::new();
    let mut all = flat(&table);
    if let Some(theirs) = all.remove("command")
        && theirs.as_str() != Some(name)
    {
        let what = format!("its command is {theirs}; expected a configuration of {name}");
        return Err(Error::data(path, what));
    }
    for (key, value) in all {
        let value = match (key.as_str(), value.as_str()) {
            // A network without a file has these words as the origin of its weights.
            ("init", Some("random weights")) => continue,
            ("init", Some("random")) => Value::from("none"),
            _ => value,
        };
        match option(options, &key) {
            Some(option) if is_given(option) => {}
            Some(option) => settings.push((option, value)),
            None if facts.contains(&key) => {}
            None => return Err(Error::data(path, unknown(&key, name, options))),
        }
    }
    let is_missing = |option: &&Arg| {
        let is_recorded = !option.get_default_values().is_empty();
        is_recorded && !is_given(option) && !settings.iter().any(|(there, _)| there == option)
    };
    let missing = options.get_arguments().filter(is_missing).map(key);
    let missing: Vec<String> = missing.collect();
    if is_record && !missing.is_empty() {
        return Err(Error::data(
            path,
            format!(
                "it is of a run by another version of the program, which did not record {}; add them, or give \
                 their options",
                listed(&missing, ", ")
            ),
        ));
    }
    Ok(settings)
}

/// The message for an unknown key.
fn unknown(key: &str, name: &str, options: &Command) -> String {
    let known = options
        .get_arguments()
        .filter(|arg| arg.get_long().is_some());
    // The right name in the wrong table is suggested too.
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_string();
    let known = known.map(self::key).map(|known| (last(&known), known));
    let advice = match nearest(&last(key), known) {
        Some(known) => format!("did you mean {known}?"),
        None => format!("{name} --print-config prints the known ones"),
    };
    format!("{name} has no setting {key}; {advice}")
}

/// Returns the value of the known word that is the most similar to `word`, if they are similar.
pub(super) fn nearest<W: AsRef<str>, T>(
    word: &str,
    known: impl Iterator<Item = (W, T)>,
) -> Option<T> {
    let known = known.map(|(known, value)| (strsim::jaro(word, known.as_ref()), value));
    let nearest = known.max_by(|(a, _), (b, _)| a.total_cmp(b));
    nearest.and_then(|(similarity, value)| (similarity >= SIMILAR).then_some(value))
}
