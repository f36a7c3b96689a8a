//! Lines on stdout and stderr.
//!
//! A closed or full stream (a pipe into `head`) does not end a run: lines that cannot be printed
//! are dropped. Lines for stdout go to stderr while stdout carries the content of a file, or
//! results as JSON.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

static PRINTS_JSON: AtomicBool = AtomicBool::new(false);
static STDOUT_CARRIES_A_FILE: AtomicBool = AtomicBool::new(false);
static IS_QUIET: AtomicBool = AtomicBool::new(false);
static IS_SILENT: AtomicBool = AtomicBool::new(false);

/// Sends the lines for stdout to stderr from now on, because a file is written to stdout.
pub fn keep_stdout_for_a_file() {
    STDOUT_CARRIES_A_FILE.store(true, Ordering::Relaxed);
}

/// Prints results as JSON on stdout from now on, and the lines for stdout on stderr.
pub fn print_json() {
    PRINTS_JSON.store(true, Ordering::Relaxed);
}

/// Whether stdout has the lines for people.
pub fn stdout_has_lines() -> bool {
    !STDOUT_CARRIES_A_FILE.load(Ordering::Relaxed) && !PRINTS_JSON.load(Ordering::Relaxed)
}

/// Drops everything but errors from now on, on a rank whose results another one prints.
pub fn be_silent() {
    be_quiet();
    IS_SILENT.store(true, Ordering::Relaxed);
}

/// Drops progress and notices from now on. Results and errors are still printed.
pub fn be_quiet() {
    IS_QUIET.store(true, Ordering::Relaxed);
}

/// Whether progress and notices are dropped.
pub fn is_quiet() -> bool {
    IS_QUIET.load(Ordering::Relaxed)
}

/// Prints a line of results on stdout.
pub fn result(line: fmt::Arguments<'_>) {
    if IS_SILENT.load(Ordering::Relaxed) {
        return;
    }
    if stdout_has_lines() {
        drop(writeln!(io::stdout().lock(), "{line}"));
    } else {
        error(line);
    }
}

/// Prints the result of a command as a line of JSON on stdout, if results are printed as JSON and
/// stdout carries no file.
pub fn json(result: &impl Serialize) {
    let prints = PRINTS_JSON.load(Ordering::Relaxed) && !IS_SILENT.load(Ordering::Relaxed);
    if prints && !STDOUT_CARRIES_A_FILE.load(Ordering::Relaxed) {
        match serde_json::to_string(result) {
            Ok(text) => drop(writeln!(io::stdout().lock(), "{text}")),
            Err(e) => error(format_args!("parallax: the result is no JSON: {e}")),
        }
    }
}

/// Prints a line of progress, or a notice, on stdout.
pub fn notice(line: fmt::Arguments<'_>) {
    if !is_quiet() {
        result(line);
    }
}

/// Bytes of a message, at most.
pub const MESSAGE_BYTES: usize = 1000;

/// Joins `start` and the words of `message` to one line, and shortens it if it is too long.
pub fn one_line(start: &str, message: &str) -> String {
    const CUT: &str = " [...]";
    let mut line = start.to_string();
    for word in message.split_whitespace() {
        line.push(' ');
        line.push_str(word);
    }
    if line.len() > MESSAGE_BYTES {
        let fits = |end: &usize| line.is_char_boundary(*end);
        let end = (0..=MESSAGE_BYTES - CUT.len())
            .rev()
            .find(fits)
            .unwrap_or(0);
        line.truncate(end);
        line.push_str(CUT);
    }
    line
}

/// Prints a fact that the user should know, on one line of stdout.
pub fn one_notice(fact: &str) {
    notice(format_args!("{}", one_line("notice ", fact)));
}

/// Prints a line on stderr.
pub fn error(line: fmt::Arguments<'_>) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}

/// Prints a line of results on stdout, formatted as by `format!`.
macro_rules! say {
    ($($line:tt)*) => { $crate::console::result(format_args!($($line)*)) };
}

/// Prints a line of progress, or a notice, on stdout, formatted as by `format!`.
macro_rules! note {
    ($($line:tt)*) => { $crate::console::notice(format_args!($($line)*)) };
}

pub(crate) use {note, say};

#[cfg(test)]
mod tests {
    use super::{MESSAGE_BYTES, one_line};

    #[test]
    fn a_message_is_one_line_of_limited_length() {
        assert_eq!(one_line("parallax:", "two\n  lines"), "parallax: two lines");
        let long = one_line("parallax:", &"\u{e4}b ".repeat(1000));
        assert!(
            long.len() <= MESSAGE_BYTES && long.ends_with("[...]"),
            "{}",
            long.len()
        );
    }
}
