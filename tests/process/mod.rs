//! The program as a process: good runs and refusals.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// The program in `folder`, with no Vulkan driver: these tests need the CPU alone, and what they
/// say must not depend on the machine's adapters.
pub fn parallax(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_parallax"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_remove("PARALLAX_DATA")
        .env_remove("PARALLAX_LOG")
        .env("VK_DRIVER_FILES", folder.join("no-driver"))
        .env("VK_ICD_FILENAMES", folder.join("no-driver"));
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The standard output of a run that must succeed and say nothing on stderr.
pub fn good(folder: &Path, arguments: &[&str]) -> String {
    let output = parallax(folder, arguments).output().expect("it starts");
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    assert_eq!(errors, "", "{arguments:?}");
    text(&output.stdout)
}

/// Checks the exit code and that stderr is one line with all of `words`.
pub fn check_refusal(output: &Output, arguments: &[&str], code: i32, words: &[&str]) {
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert_eq!(
        errors.lines().count(),
        1,
        "{arguments:?} says more than a line: {errors}"
    );
    assert!(errors.starts_with("parallax: "), "{arguments:?}: {errors}");
    for word in words {
        assert!(
            errors.contains(word),
            "{arguments:?}: '{word}' is not in: {errors}"
        );
    }
    assert!(
        !text(&output.stdout).contains("panicked"),
        "{arguments:?} panicked"
    );
}

pub fn refused(folder: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let output = parallax(folder, arguments).output().expect("it starts");
    check_refusal(&output, arguments, code, words);
}

pub fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("it was written")).expect("it is JSON")
}
