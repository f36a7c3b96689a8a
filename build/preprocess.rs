//! The preprocessor of the shaders. Each directive is a line of its own:
//!
//! - `#import NAME` inserts `shaders/shared/NAME.wgsl`, unless it is already inserted.
//! - `#variant NAME KEY=NUMBER ...` adds an expansion of the file with these constants. A file
//!   without this directive has a single expansion.
//! - `#f16` adds an expansion `NAME_f16` to each. The constant `F16` is 1 there, and 0 elsewhere.
//! - `#for i in FIRST..END` ... `#end` repeats its lines.
//! - `#if EXPRESSION` ... `#else` ... `#end` keeps the first lines if the value is not 0.
//!
//! `${EXPRESSION}` is replaced by its value. Expressions consist of integers, constants, loop
//! variables, `+ - * / %`, comparisons `== != < >`, and parentheses.
//!
//! A parameter `at: Invocation` becomes two, the workgroup and the lane, and `(at)` passes both. In
//! one struct, the rules of WGSL take the workgroup too as different for each invocation, so
//! browsers would refuse barriers in loops whose bounds depend on it.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

type Constants = BTreeMap<String, i64>;

/// The name (empty in a file without variants) and the expanded text of each variant.
pub fn expand(text: &str, shared: &Path) -> Result<Vec<(String, String)>, String> {
    let text = import(text, shared, &mut HashSet::new())?;
    let mut variants = Vec::new();
    let mut lines = Vec::new();
    let mut has_f16 = false;
    for line in text.lines() {
        match line.trim().strip_prefix("#variant ") {
            Some(words) => variants.push(variant(words)?),
            None if line.trim() == "#f16" => has_f16 = true,
            None => lines.push(line),
        }
    }
    if variants.is_empty() {
        variants.push((String::new(), Constants::new()));
    }
    if has_f16 {
        let with = |(name, constants): &(String, Constants), suffix: &str, f16| {
            let name = format!("{name}{suffix}");
            let mut constants = constants.clone();
            constants.insert("F16".to_string(), f16);
            (name.trim_start_matches('_').to_string(), constants)
        };
        let both = |variant| [with(variant, "", 0), with(variant, "_f16", 1)];
        variants = variants.iter().flat_map(both).collect();
    }
    variants
        .into_iter()
        .map(|(name, mut constants)| {
            let mut out = String::new();
            block(&lines, &mut constants, &mut out)?;
            Ok((name, separate_lane(&out)))
        })
        .collect()
}

/// Expands the parameters of type `Invocation`. Entry points return nothing.
fn separate_lane(text: &str) -> String {
    const ENTRY: &str = "at: Workgroup, @builtin(local_invocation_index) at_lane: u32";
    text.replace("(at: Invocation) {", &format!("({ENTRY}) {{"))
        .replace("at: Invocation,", &format!("{ENTRY},"))
        .replace("(at: Invocation)", "(at: Workgroup, at_lane: u32)")
        .replace("(at)", "(at, at_lane)")
        .replace("at.lane", "at_lane")
}

fn import(text: &str, shared: &Path, done: &mut HashSet<String>) -> Result<String, String> {
    let mut out = String::new();
    for line in text.lines() {
        match line.trim().strip_prefix("#import ") {
            Some(name) => {
                if done.insert(name.trim().to_string()) {
                    let path = shared.join(format!("{}.wgsl", name.trim()));
                    let imported = fs::read_to_string(&path)
                        .map_err(|e| format!("{}: {e}", path.display()))?;
                    out += &import(&imported, shared, done)?;
                }
            }
            None => {
                out += line;
                out.push('\n');
            }
        }
    }
    Ok(out)
}

fn variant(words: &str) -> Result<(String, Constants), String> {
    let mut words = words.split_whitespace();
    let name = words.next().ok_or("#variant needs a name")?;
    let constants = words
        .map(|word| {
            let (key, value) = word
                .split_once('=')
                .ok_or(format!("#variant {name}: '{word}' is not KEY=NUMBER"))?;
            let value = value
                .parse()
                .map_err(|e| format!("#variant {name}: {word}: {e}"))?;
            Ok((key.to_string(), value))
        })
        .collect::<Result<_, String>>()?;
    Ok((name.to_string(), constants))
}

/// Expands complete blocks of lines.
fn block(lines: &[&str], constants: &mut Constants, out: &mut String) -> Result<(), String> {
    let mut at = 0;
    while at < lines.len() {
        let line = lines[at].trim();
        if let Some(header) = line.strip_prefix("#for ") {
            let (body, _, next) = body(lines, at)?;
            let (name, range) = header
                .split_once(" in ")
                .ok_or(format!("'{line}' lacks ' in '"))?;
            let (first, end) = range
                .split_once("..")
                .ok_or(format!("'{line}' lacks '..'"))?;
            let (first, end) = (evaluate(first, constants)?, evaluate(end, constants)?);
            let name = name.trim().to_string();
            if constants.contains_key(&name) {
                return Err(format!("'{line}': the name {name} is in use; use another"));
            }
            for i in first..end {
                constants.insert(name.clone(), i);
                block(body, constants, out)?;
            }
            constants.remove(&name);
            at = next;
        } else if let Some(condition) = line.strip_prefix("#if ") {
            let (yes, no, next) = body(lines, at)?;
            let holds = evaluate(condition, constants)? != 0;
            block(if holds { yes } else { no }, constants, out)?;
            at = next;
        } else if line.starts_with('#') {
            return Err(format!(
                "'{line}' is not a directive, or has no matching #for or #if"
            ));
        } else {
            *out += &substitute(lines[at], constants)?;
            out.push('\n');
            at += 1;
        }
    }
    Ok(())
}

/// The lines before and after `#else` in the block that starts at line `open`, and the index of the
/// line after `#end`.
fn body<'a, 'b>(
    lines: &'a [&'b str],
    open: usize,
) -> Result<(&'a [&'b str], &'a [&'b str], usize), String> {
    let mut depth = 0;
    let mut middle = None;
    for (i, line) in lines.iter().enumerate().skip(open + 1) {
        let line = line.trim();
        if line.starts_with("#for ") || line.starts_with("#if ") {
            depth += 1;
        } else if line == "#else" && depth == 0 {
            middle = Some(i);
        } else if line == "#end" {
            if depth == 0 {
                let first = &lines[open + 1..middle.unwrap_or(i)];
                let second = &lines[middle.map_or(i, |m| m + 1)..i];
                return Ok((first, second, i + 1));
            }
            depth -= 1;
        }
    }
    Err(format!("'{}' has no #end", lines[open].trim()))
}

fn substitute(line: &str, constants: &Constants) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = line;
    while let Some(start) = rest.find("${") {
        let end = rest[start..]
            .find('}')
            .ok_or(format!("'{line}' has ${{ without }}"))?
            + start;
        out += &rest[..start];
        out += &evaluate(&rest[start + 2..end], constants)?.to_string();
        rest = &rest[end + 1..];
    }
    Ok(out + rest)
}

/// The value of an expression.
fn evaluate(expression: &str, constants: &Constants) -> Result<i64, String> {
    let mut parser = Parser {
        rest: expression.trim(),
        constants,
    };
    let value = parser.comparison()?;
    match parser.rest {
        "" => Ok(value),
        rest => Err(format!("'{expression}': unexpected '{rest}'")),
    }
}

struct Parser<'a> {
    rest: &'a str,
    constants: &'a Constants,
}

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }

    fn comparison(&mut self) -> Result<i64, String> {
        let left = self.sum()?;
        for (token, test) in [
            ("==", (|a, b| a == b) as fn(i64, i64) -> bool),
            ("!=", |a, b| a != b),
            ("<", |a, b| a < b),
            (">", |a, b| a > b),
        ] {
            if self.take(token) {
                return Ok(i64::from(test(left, self.sum()?)));
            }
        }
        Ok(left)
    }

    fn sum(&mut self) -> Result<i64, String> {
        let mut value = self.product()?;
        loop {
            if self.take("+") {
                value += self.product()?;
            } else if self.take("-") {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<i64, String> {
        let mut value = self.atom()?;
        loop {
            if self.take("*") {
                value *= self.atom()?;
            } else if self.take("/") {
                value = value.checked_div(self.atom()?).ok_or("division by zero")?;
            } else if self.take("%") {
                value = value.checked_rem(self.atom()?).ok_or("division by zero")?;
            } else {
                return Ok(value);
            }
        }
    }

    fn atom(&mut self) -> Result<i64, String> {
        if self.take("(") {
            let value = self.comparison()?;
            return if self.take(")") {
                Ok(value)
            } else {
                Err("a ')' is missing".to_string())
            };
        }
        let end = self
            .rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest.trim_start();
        if let Ok(number) = word.parse() {
            return Ok(number);
        }
        self.constants.get(word).copied().ok_or(format!(
            "'{word}' is not an integer, a constant of the variant or a loop variable"
        ))
    }
}
