use std::process::ExitCode;

fn main() -> ExitCode {
    parallax::cli::run()
}
