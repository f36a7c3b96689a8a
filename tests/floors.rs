//! The rule of dependencies between the folders of `src`, as ARCHITECTURE.md states it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, lowest first. A module uses modules of its own floor and of lower floors.
const FLOORS: [&[&str]; 16] = [
    &[
        "console",
        "distributed",
        "error",
        "file_kind",
        "interrupt",
        "philox",
        "sha256",
    ],
    &["tensor", "device"],
    &["autograd", "ops", "testing"],
    &["nn"],
    &["data"],
    &["optim"],
    &["augment"],
    &["train"],
    &["objectives"],
    &["evaluate"],
    &["selftest"],
    &["drawing"],
    &["runs"],
    &["paper"],
    &["bench"],
    &["cli"],
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below `dir`, without those of unit tests.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder of the sources") {
        let path = entry.expect("an entry of the sources").path();
        let name = path.file_stem().unwrap_or_default();
        if name == "tests" {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file, without comments and without its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("a source file");
    let code = text.split("#[cfg(test)]\nmod tests {").next();
    let lines = code.unwrap_or_default().lines();
    lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The words that follow `crate::` in the code.
fn paths(code: &str) -> impl Iterator<Item = &str> {
    let end = |c: char| !(c.is_alphanumeric() || c == '_' || c == ':');
    code.split("crate::")
        .skip(1)
        .map(move |rest| rest.split(end).next().unwrap_or_default())
}

/// The top-level module of a file.
fn module(path: &Path) -> String {
    let inner = path.strip_prefix(source()).expect("a file of the sources");
    let first = inner.components().next().expect("it has a name");
    let name = first.as_os_str().to_string_lossy();
    name.trim_end_matches(".rs").to_string()
}

fn floor(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

#[test]
fn modules_use_their_own_floor_and_lower_floors() {
    let mut seen = BTreeSet::new();
    for path in files(&source()) {
        let module = module(&path);
        let Some(own) = floor(&module) else {
            assert!(
                module == "lib" || module == "main",
                "src/{module} is on no floor; add it to FLOORS"
            );
            continue;
        };
        for used in paths(&code(&path)) {
            let name = used.split(':').next().unwrap_or_default();
            // Items of the crate's root are those of lower floors.
            let Some(other) = floor(name) else { continue };
            assert!(
                other <= own,
                "{} uses crate::{used}: {name} is above {module}",
                path.display()
            );
        }
        seen.insert(module);
    }
    let named: BTreeSet<String> = FLOORS.concat().iter().map(|m| m.to_string()).collect();
    assert_eq!(seen, named, "modules of src, and modules of FLOORS");
}

/// A file that is longer has more than one subject.
#[test]
fn no_file_has_more_than_600_lines() {
    for path in files(&source()) {
        let text = fs::read_to_string(&path).expect("a source file");
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines", path.display());
    }
}

/// The tape uses three operations: to add gradients, to check numbers, and to copy. Operations
/// record themselves on the tape, so every further use makes the cycle larger.
#[test]
fn the_tape_uses_three_operations() {
    let mut used = BTreeSet::new();
    for path in files(&source().join("autograd")) {
        let code = code(&path);
        let ops = paths(&code).filter(|path| path.starts_with("ops"));
        used.extend(ops.map(str::to_string));
    }
    let expected = [
        "ops::copy::CopyTensor",
        "ops::elementwise::Accumulate",
        "ops::reduce::CheckFinite",
    ];
    assert_eq!(used, expected.map(str::to_string).into());
}

/// Operations use each other through `run`. Only convolution uses a file of another folder, to
/// normalise each block of its result.
#[test]
fn operations_are_separate() {
    for path in files(&source().join("ops")) {
        for used in paths(&code(&path)) {
            let internal = ["::cpu", "::gpu"].iter().any(|part| used.contains(part));
            let is_op = used.starts_with("ops::");
            if is_op && internal {
                let is_allowed = used.starts_with("ops::conv2d::cpu")
                    || used.starts_with("ops::batch_norm::cpu");
                assert!(
                    is_allowed && path.to_string_lossy().contains("conv2d"),
                    "{} uses crate::{used}",
                    path.display()
                );
            }
        }
    }
}
