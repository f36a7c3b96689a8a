//! The file of `--out`, checked before any work.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::console;
use crate::error::{Error, Result};
use crate::runs::whole_file::{Identity, Place, folder_of, unfinished};

/// Whether a file that exists is replaced.
#[derive(Args)]
pub struct ForceArguments {
    /// Replace the file of --out if it exists
    #[arg(long)]
    pub force: bool,
}

/// The inputs of a command, which its output must not replace.
pub struct Inputs<'a> {
    /// With the option that names it.
    pub file: Option<(&'static str, &'a Path)>,
    /// The folder of `--data-dir`.
    pub data: Option<PathBuf>,
}

/// Fails if `out` cannot be written: an input, a file that exists unless `force` is set, something
/// else in the way, a folder that is missing, or another suffix than `suffix`.
///
/// # Errors
/// `Error::Usage` that names the reason; `Error::Io` if the folder is not writable.
pub fn check(out: &Path, force: bool, suffix: Option<&str>, inputs: &Inputs<'_>) -> Result<()> {
    let shown = out.display();
    let refuse = |what: String| Err(Error::usage(format!("--out {shown} {what}")));
    let text = out.to_string_lossy();
    if out.file_name().is_none() || text.ends_with(std::path::MAIN_SEPARATOR) || out.is_dir() {
        return refuse("is a folder; name a file".to_string());
    }
    if let Some(what) = input_at(out, inputs) {
        return refuse(format!("is {what}, which would be lost; name another file"));
    }
    match Place::of(out) {
        Place::Stdout => {
            console::keep_stdout_for_a_file();
            return Ok(());
        }
        Place::Special => return check_special(out),
        Place::Regular(_) => {}
    }
    let ends = |suffix: &&str| {
        let end = out.extension().unwrap_or_default();
        !end.to_string_lossy().eq_ignore_ascii_case(suffix)
    };
    if let Some(suffix) = suffix.filter(ends) {
        return refuse(format!(
            "does not end in .{suffix}, the only format that is written; name a file that does"
        ));
    }
    let folder = folder_of(out);
    match folder.ancestors().find(|part| part.exists()) {
        Some(file) if !file.is_dir() => {
            return refuse(format!(
                "is below {}, which is a file; name another place",
                file.display()
            ));
        }
        there if there != Some(folder) => {
            return refuse(format!(
                "is in the folder {}, which does not exist; create it",
                folder.display()
            ));
        }
        _ => {}
    }
    if out.is_file() && !force {
        return refuse("exists; name another file, or replace it with --force".to_string());
    }
    // Removed at once.
    match unfinished(out) {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::write(out, e)),
    }
}

/// Fails for a disk, whose content no option replaces.
fn check_special(out: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        let kind = fs::metadata(out).map(|about| about.file_type());
        if kind.is_ok_and(|kind| kind.is_block_device()) {
            return Err(Error::usage(format!(
                "--out {} is a disk; name a file",
                out.display()
            )));
        }
    }
    Ok(())
}

/// Names the input that `out` is, by whatever path or link.
fn input_at(out: &Path, inputs: &Inputs<'_>) -> Option<String> {
    let identity = Identity::of(out)?;
    if let Some((option, file)) = inputs.file
        && Identity::of(file).as_ref() == Some(&identity)
    {
        return Some(format!("the file of {option}"));
    }
    let data = inputs.data.as_ref()?;
    contains(data, &identity, &mut HashSet::new())
        .then(|| format!("a file of the data set in {}", data.display()))
}

/// Whether a file below `dir` has this identity. Links are followed, each folder once.
fn contains(dir: &Path, identity: &Identity, visited: &mut HashSet<Identity>) -> bool {
    let is_new = Identity::of(dir).is_some_and(|dir| visited.insert(dir));
    if !is_new {
        return false;
    }
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            contains(&path, identity, visited)
        } else {
            Identity::of(&path).as_ref() == Some(identity)
        }
    })
}
