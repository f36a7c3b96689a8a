//! `parallax report`: tables, figures and claims from run folders.

use std::path::PathBuf;

use clap::Args;

use crate::console::say;
use crate::error::Result;
use crate::paper::report::write;
use crate::runs::folder::check_place;

/// Write tables and figures of the runs in a folder, next to the paper's values, and answer the
/// paper's claims
///
/// Writes one self-contained HTML page, the tables as Markdown and CSV, the figures as SVG, and
/// every value to results.json.
#[derive(Args)]
pub struct Arguments {
    /// The folder of reproduce, or any folder that contains run folders
    dir: PathBuf,

    /// Where to write [default: DIR/report]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let default = || arguments.dir.join("report");
    let out = arguments.out.clone().unwrap_or_else(default);
    check_place(&out)?;
    let written = write(&arguments.dir, &out)?;
    for (title, answers) in &written.answers {
        say!("{title}");
        let answers: Vec<String> = (1..)
            .zip(answers)
            .map(|(number, answer)| format!("{number} {}", answer.words()))
            .collect();
        say!("claims  {}", answers.join(", "));
    }
    say!(
        "{} runs, {}",
        written.runs,
        out.join("report.html").display()
    );
    Ok(())
}
