//! `parallax report`: tables, figures and claims from run folders.

use std::path::PathBuf;

use clap::Args;

use crate::error::Result;
use crate::experiment::report::write;

/// Write the tables and figures of the runs below a folder, beside the paper's, and answer its
/// claims
///
/// One HTML page that needs nothing else, the tables as Markdown and CSV, the figures as SVG, every
/// value in results.json.
#[derive(Args)]
pub struct Arguments {
    /// The folder of reproduce, or any folder with run folders below it
    dir: PathBuf,

    /// Where to write [default: DIR/report]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let default = || arguments.dir.join("report");
    let out = arguments.out.clone().unwrap_or_else(default);
    let written = write(&arguments.dir, &out)?;
    for (title, answers) in &written.answers {
        println!("{title}");
        let answers: Vec<String> = (1..)
            .zip(answers)
            .map(|(number, answer)| format!("{number} {}", answer.words()))
            .collect();
        println!("claims  {}", answers.join(", "));
    }
    println!(
        "{} runs, {}",
        written.runs,
        out.join("report.html").display()
    );
    Ok(())
}
