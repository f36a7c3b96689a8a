//! What a command leaves on the disk and on its streams: nothing is overwritten or left
//! half-written, a folder has one writer, and a refused start changes nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use safetensors::SafeTensors;
use tempfile::TempDir;

mod class_folders;
mod process;
use class_folders::place;
use process::{check_refusal, good, json, parallax, refused, text};

const DATA: [&str; 6] = [
    "--data",
    "folder",
    "--data-dir",
    "images",
    "--device",
    "cpu",
];
const SMALL: [&str; 4] = ["--width", "0.0625", "--batch-size", "4"];

/// As [`place`], with the encoder `run/encoder.safetensors`.
fn place_with_encoder() -> TempDir {
    let base = place(32, 32);
    good(base.path(), &training("run", &["--steps", "1", "--no-knn"]));
    base
}

const ENCODER: &str = "run/encoder.safetensors";

fn training<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["simclr"], &DATA[..], &SMALL, &["--out", out], more].concat()
}

fn embed<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [
        &["embed", "--encoder", ENCODER],
        &DATA[..],
        &["--out", out],
        more,
    ]
    .concat()
}

fn preview<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let data = [
        "--data",
        "folder",
        "--data-dir",
        "images",
        "--images",
        "2",
        "--views",
        "1",
    ];
    [&["preview"], &data[..], &["--out", out], more].concat()
}

/// Every file and folder below `dir`, with the content of files.
fn tree(dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.push((path.clone(), None));
            found.extend(tree(&path));
        } else if path.is_file() {
            let content = fs::read(&path).unwrap();
            found.push((path, Some(content)));
        }
    }
    found.sort();
    found
}

/// Runs a command that must be refused and leave the disk as it was.
fn refused_without_trace(base: &Path, words: &[&str], code: i32, told: &[&str]) {
    let before = tree(base);
    refused(base, words, code, told);
    assert!(tree(base) == before, "{words:?} changed the disk");
}

#[test]
fn an_output_that_exists_is_replaced_only_by_force() {
    let base = place_with_encoder();
    let base = base.path();
    fs::write(base.join("notes"), "notes").unwrap();
    fs::write(base.join("notes.png"), "notes").unwrap();
    for words in [embed("notes", &[]), preview("notes.png", &[])] {
        refused_without_trace(base, &words, 2, &["--out notes", "exists", "--force"]);
        good(base, &[&words[..], &["--force"]].concat());
        refused_without_trace(base, &words, 2, &["exists"]);
    }
    let features = fs::read(base.join("notes")).unwrap();
    let features = SafeTensors::deserialize(&features).unwrap();
    assert_eq!(features.tensor("features").unwrap().shape(), [16, 32]);
    assert!(image::open(base.join("notes.png")).is_ok());
    // What is no file of features is not taken for a finished embed.
    fs::write(base.join("other"), "notes").unwrap();
    refused_without_trace(base, &embed("other", &["--resume"]), 2, &["exists"]);
    let again = good(base, &embed("notes", &["--resume"]));
    assert!(again.contains("nothing is computed"), "{again}");
    // Nor is another file beside it removed.
    fs::write(base.join("new.unfinished"), "notes").unwrap();
    refused_without_trace(
        base,
        &embed("new", &[]),
        2,
        &["new.unfinished", "in the way"],
    );
}

#[test]
fn an_input_is_never_replaced() {
    let base = place_with_encoder();
    let base = base.path();
    let encoder = base.join(ENCODER);
    fs::hard_link(&encoder, base.join("hard")).unwrap();
    let absolute = encoder.display().to_string();
    let mut names = vec![ENCODER, "run/../run/encoder.safetensors", &absolute, "hard"];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(ENCODER, base.join("link")).unwrap();
        std::os::unix::fs::symlink("link", base.join("link-to-link")).unwrap();
        names.extend(["link", "link-to-link"]);
    }
    for name in names {
        for more in [&[][..], &["--force"], &["--resume"]] {
            refused_without_trace(base, &embed(name, more), 2, &["is the file of --encoder"]);
        }
    }
    let image = "images/test/squares/3.png";
    fs::hard_link(base.join(image), base.join("hard.png")).unwrap();
    for name in [image, "images/train/../test/squares/3.png", "hard.png"] {
        let told = ["is a file of the data set in images"];
        refused_without_trace(base, &preview(name, &["--force"]), 2, &told);
        refused_without_trace(base, &embed(name, &["--force"]), 2, &told);
    }
}

#[test]
fn what_is_in_the_way_of_an_output_is_named_before_any_work() {
    let base = place_with_encoder();
    let base = base.path();
    fs::write(base.join("file"), "content").unwrap();
    for (out, told) in [
        ("images", "--out images is a folder"),
        ("new/", "--out new/ is a folder"),
        ("none/x.png", "in the folder none, which does not exist"),
        (
            "none/deeper/x.png",
            "in the folder none/deeper, which does not exist",
        ),
        ("file/x.png", "is below file, which is a file"),
        ("file/deeper/x.png", "is below file, which is a file"),
    ] {
        for more in [&[][..], &["--force"]] {
            refused_without_trace(base, &preview(out, more), 2, &[told]);
            refused_without_trace(base, &embed(out, more), 2, &[told]);
        }
    }
    for out in ["sheet.jpg", "sheet", "sheet.png.bak", "png"] {
        refused_without_trace(base, &preview(out, &[]), 2, &["does not end in .png"]);
    }
    good(base, &preview("sheet.PNG", &[]));
    // Neither the images nor the encoder are needed to see it.
    let nothing = [
        "preview",
        "--data",
        "folder",
        "--data-dir",
        "none",
        "--out",
        "file",
    ];
    refused(base, &nothing, 2, &["--out file"]);
    for (out, told) in [
        ("file", "the folder file is a file"),
        (
            "file/run",
            "the folder file/run is below file, which is a file",
        ),
        ("images", "the run folder images is not empty"),
    ] {
        let nothing = [
            "linear",
            "--encoder",
            "none",
            "--data",
            "cifar10",
            "--out",
            out,
        ];
        refused_without_trace(base, &nothing, 2, &[told]);
    }
}

#[cfg(unix)]
#[test]
fn devices_and_pipes_are_written_into() {
    use std::os::unix::fs::FileTypeExt;
    let base = place_with_encoder();
    let base = base.path();
    good(base, &embed("features", &[]));
    let features = fs::read(base.join("features")).unwrap();
    let kind = |path: &str| fs::metadata(base.join(path)).unwrap().file_type();

    good(base, &embed("/dev/null", &[]));
    good(base, &preview("/dev/null", &[]));
    assert!(kind("/dev/null").is_char_device());

    let made = std::process::Command::new("mkfifo")
        .arg(base.join("pipe"))
        .status();
    assert!(made.expect("mkfifo runs").success());
    let pipe = base.join("pipe");
    let reader = std::thread::spawn(move || fs::read(pipe).unwrap());
    good(base, &embed("pipe", &[]));
    assert!(kind("pipe").is_fifo());
    assert!(reader.join().unwrap() == features);

    // Stdout carries the file alone; what is printed goes to stderr.
    let output = parallax(base, &embed("/dev/stdout", &[])).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(output.stdout == features);
    assert!(text(&output.stderr).contains("16 features of 32 numbers"));
    let file = fs::File::create(base.join("redirected")).unwrap();
    let status = parallax(base, &embed("/dev/stdout", &[]))
        .stdout(file)
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    assert!(fs::read(base.join("redirected")).unwrap() == features);
}

/// Runs a command that can write no file of more than `blocks` blocks of 512 bytes, as on a full
/// disk.
#[cfg(target_os = "linux")]
fn limited(base: &Path, blocks: u32, words: &[&str]) -> std::process::Output {
    let program = parallax(base, words);
    let mut command = std::process::Command::new("sh");
    command
        .arg("-c")
        .arg(format!(
            "trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\""
        ))
        .arg(program.get_program())
        .args(program.get_args())
        .current_dir(base);
    for (key, value) in program.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command.output().expect("it starts")
}

#[cfg(target_os = "linux")]
#[test]
fn a_write_that_fails_leaves_the_old_file_and_nothing_else() {
    let base = place_with_encoder();
    let base = base.path();
    fs::write(base.join("old"), "good").unwrap();
    fs::write(base.join("old.png"), "good").unwrap();
    let before = tree(base);
    for words in [embed("old", &["--force"]), preview("old.png", &["--force"])] {
        let output = limited(base, 1, &words);
        check_refusal(&output, &words, 1, &["old", "the disk has room"]);
        assert!(tree(base) == before, "{words:?} changed the disk");
    }
    // The run of a training keeps what it has written, and nothing half-written.
    let words = training("full", &["--steps", "2", "--no-knn"]);
    let output = limited(base, 64, &words);
    check_refusal(
        &output,
        &words,
        1,
        &["full/checkpoint.safetensors", "the disk has room"],
    );
    let mut names: Vec<_> = tree(&base.join("full"))
        .into_iter()
        .map(|(path, _)| path.file_name().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["config.toml", "metrics.jsonl"]);
    let said = good(base, &[&words[..], &["--resume"]].concat());
    assert!(
        said.contains("no checkpoint in full, so the run starts at step 1"),
        "{said}"
    );
    assert!(base.join("full/encoder.safetensors").exists());

    // A checkpoint that cannot be replaced stays whole.
    let words = training("half", &["--steps", "3", "--no-knn"]);
    let stopped = [&words[..], &["--time-limit", "0.001"]].concat();
    refused(base, &stopped, 75, &["after step 1 of 3"]);
    let checkpoint = || fs::read(base.join("half/checkpoint.safetensors")).unwrap();
    let before = checkpoint();
    let resumed = [&stopped[..], &["--resume"]].concat();
    let output = limited(base, 64, &resumed);
    check_refusal(&output, &resumed, 1, &["half/checkpoint.safetensors"]);
    assert!(checkpoint() == before);
    good(base, &[&words[..], &["--resume"]].concat());
}

/// A reader that takes one line, as `head -1` does, or none.
#[cfg(unix)]
#[test]
fn a_closed_stream_ends_no_run() {
    use std::io::{BufRead, BufReader};
    let base = place_with_encoder();
    let base = base.path();
    let head = |words: &[&str], closes_stderr: bool| {
        let mut command = parallax(base, words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        if closes_stderr {
            drop(child.stderr.take());
        }
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(text(&output.stderr), "", "{words:?}");
        output.status
    };
    for closes_stderr in [false, true] {
        let out = format!("closed-{closes_stderr}");
        let status = head(&training(&out, &["--steps", "3"]), closes_stderr);
        assert!(status.success(), "{status}");
        for name in [
            "config.toml",
            "metrics.jsonl",
            "encoder.safetensors",
            "summary.json",
        ] {
            assert!(base.join(&out).join(name).exists(), "{name}");
        }
        let knn = [&["knn", "--encoder", ENCODER], &DATA[..]].concat();
        for words in [
            &["devices"][..],
            &["--help"],
            &["simclr", "--help"],
            &["--version"],
            &knn,
        ] {
            assert!(head(words, closes_stderr).success(), "{words:?}");
        }
    }
    // A stderr that is closed from the start does not hide a failure's exit code.
    let mut command = parallax(base, &["simclr", "--data", "cifar10"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(2));
    // The reader of a file has what it needs.
    let mut command = parallax(base, &embed("/dev/stdout", &[]));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_stdout_ends_no_run() {
    let base = place(32, 32);
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let words = training("run", &["--steps", "2"]);
    let output = parallax(base.path(), &words).stdout(full).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(base.path().join("run/summary.json").exists());
}

/// `script` gives the program a terminal.
#[cfg(target_os = "linux")]
#[test]
fn step_lines_go_to_a_log_file_also_while_a_bar_is_drawn() {
    let base = place(32, 32);
    let base = base.path();
    let on_terminal = |out: &str, more: &str| {
        let program = env!("CARGO_BIN_EXE_parallax");
        let words = training(out, &["--steps", "2", "--no-knn"]).join(" ");
        let line = format!("{program} {words} {more}");
        let output = std::process::Command::new("script")
            .args(["-q", "-e", "-c", &line, "/dev/null"])
            .current_dir(base)
            .stdin(Stdio::null())
            .output()
            .expect("script runs");
        assert!(output.status.success(), "{}", text(&output.stdout));
        text(&output.stdout)
    };
    let is_step = |line: &&str| line.starts_with("step ");
    let terminal = on_terminal("logged", ">log");
    assert!(terminal.contains("step 2/2"), "the bar: {terminal}");
    let log = fs::read_to_string(base.join("log")).unwrap();
    assert_eq!(log.lines().filter(is_step).count(), 2, "{log}");
    // On one terminal, the bar takes the place of the lines.
    let terminal = on_terminal("shown", "");
    assert_eq!(terminal.lines().filter(is_step).count(), 0, "{terminal}");
    // Without a terminal for the bar, lines are printed wherever they go.
    let terminal = on_terminal("plain", "2>errors");
    assert_eq!(terminal.lines().filter(is_step).count(), 2, "{terminal}");
    assert_eq!(fs::read(base.join("errors")).unwrap(), b"");
}

#[test]
fn quiet_prints_results_and_errors_only() {
    let base = place(32, 32);
    let base = base.path();
    let said = good(base, &training("run", &["--steps", "2", "--quiet"]));
    let starts: Vec<&str> = said
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(starts, ["loss", "k-nearest-neighbour", "speed"], "{said}");
    let again = training("run", &["--quiet"]);
    refused(base, &again, 2, &["not empty"]);
}

/// The first process writes until it is stopped; the second one is refused at once.
#[cfg(unix)]
#[test]
fn a_run_folder_has_one_writer() {
    use std::thread::sleep;
    use std::time::{Duration, Instant};
    let base = place_with_encoder();
    let base = base.path();
    let run = base.join("shared");
    let long = ["--steps", "100000", "--no-knn", "--checkpoint-every", "0"];
    let words = training("shared", &long);
    let mut first = parallax(base, &words)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let lines =
        || fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count());
    let deadline = Instant::now() + Duration::from_secs(120);
    while lines() < 3 {
        assert!(Instant::now() < deadline, "no step was taken");
        assert_eq!(first.try_wait().unwrap(), None);
        sleep(Duration::from_millis(2));
    }
    let holder = format!("the folder shared is in use by process {}", first.id());
    let knn = [
        &["knn", "--encoder", ENCODER],
        &DATA[..],
        &["--out", "shared"],
    ]
    .concat();
    for words in [
        &words,
        &[&words[..], &["--resume"]].concat(),
        &[&knn[..], &["--resume"]].concat(),
    ] {
        refused(base, words, 2, &[&holder]);
    }
    assert_eq!(first.try_wait().unwrap(), None, "the first process goes on");
    // The lock dies with its process, however it ends, and the metrics are complete.
    first.kill().unwrap();
    first.wait().unwrap();
    let resumed = [&words[..], &["--resume", "--time-limit", "0.001"]].concat();
    refused(base, &resumed, 75, &["after step"]);
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    for (number, line) in (1..).zip(text.lines()) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["step"], number);
    }
    let names: Vec<_> = tree(&run)
        .into_iter()
        .map(|(path, _)| path.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "checkpoint-previous.safetensors",
            "checkpoint.safetensors",
            "config.toml",
            "metrics.jsonl"
        ]
    );
}

#[test]
fn a_grid_has_one_writer() {
    let base = TempDir::new().unwrap();
    let base = base.path();
    fs::create_dir(base.join("grid")).unwrap();
    let lock = fs::File::create(base.join("grid/.lock")).unwrap();
    lock.lock().unwrap();
    let words = [
        "reproduce",
        "--scale",
        "smoke",
        "--out",
        "grid",
        "--device",
        "cpu",
    ];
    refused_without_trace(
        base,
        &words,
        2,
        &["the folder grid is in use by another process"],
    );
}

#[test]
fn a_damaged_checkpoint_or_configuration_is_named() {
    let base = place(32, 32);
    let base = base.path();
    let words = training("run", &["--steps", "3", "--no-knn"]);
    let stopped = [&words[..], &["--time-limit", "0.001"]].concat();
    refused(base, &stopped, 75, &["after step 1 of 3"]);
    let resumed = [&words[..], &["--resume"]].concat();
    let path = base.join("run/checkpoint.safetensors");
    let whole = fs::read(&path).unwrap();
    for end in [0, 5, 9, 1000, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..end]).unwrap();
        let kind = if end == 0 { "empty" } else { "ends early" };
        let told = [
            "run/checkpoint.safetensors",
            kind,
            "remove the file to start over",
        ];
        refused(base, &resumed, 1, &told);
    }
    fs::write(&path, &whole).unwrap();
    let config = base.join("run/config.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, "command = ").unwrap();
    refused(base, &resumed, 1, &["run/config.toml", "damaged"]);
    fs::write(&config, &text).unwrap();
    good(base, &resumed);
}

/// Everything that can be checked is checked before the first step.
#[test]
fn a_refused_start_leaves_the_disk_as_it_was() {
    let base = place_with_encoder();
    let base = base.path();
    fs::create_dir(base.join("empty")).unwrap();
    fs::write(base.join("text.safetensors"), "no weights").unwrap();
    let pretrain =
        |command: &'static str, more: &[&'static str]| [&[command], more, &DATA[..]].concat();
    let starts: [(Vec<&str>, i32, &str); 12] = [
        (
            pretrain("simclr", &["--batch-size", "1"]),
            2,
            "batch size is 1",
        ),
        (
            pretrain("simclr", &["--batch-size", "99"]),
            2,
            "larger than",
        ),
        (
            pretrain("simclr", &["--batch-size", "8", "--micro-batch", "9"]),
            2,
            "the micro-batch",
        ),
        (
            pretrain(
                "simclr",
                &["--batch-size", "4", "--init", "text.safetensors"],
            ),
            1,
            "text.safetensors",
        ),
        (
            pretrain(
                "simclr",
                &["--batch-size", "4", "--steps", "2", "--profile"],
            ),
            2,
            "--profile",
        ),
        (
            pretrain("rotnet", &["--batch-size", "99"]),
            2,
            "larger than",
        ),
        (pretrain("supervised", &["--labels", "0.01"]), 2, ""),
        (
            pretrain("supervised", &["--micro-batch", "99"]),
            2,
            "the micro-batch",
        ),
        (
            pretrain("finetune", &["--encoder", "text.safetensors"]),
            1,
            "text.safetensors",
        ),
        (
            pretrain(
                "linear",
                &["--encoder", ENCODER, "--augment", "--resolution", "16"],
            ),
            2,
            "--augment",
        ),
        (
            pretrain("knn", &["--encoder", "none.safetensors"]),
            1,
            "none.safetensors",
        ),
        (
            pretrain("attack", &["--model", ENCODER]),
            2,
            "holds no classifier",
        ),
    ];
    for (words, code, told) in starts {
        for out in ["new", "new/deeper/run", "empty"] {
            let more = ["--out", out];
            refused_without_trace(base, &[&words[..], &more].concat(), code, &[told]);
            let more = ["--out", out, "--resume"];
            refused_without_trace(base, &[&words[..], &more].concat(), code, &[told]);
        }
        // By its own name under runs.
        refused_without_trace(base, &words, code, &[told]);
    }
    good(base, &training("empty", &["--steps", "1", "--no-knn"]));
    assert_eq!(json(&base.join("empty/summary.json"))["steps"], 1);
    // A grid of which no job has begun.
    let grid = [
        "reproduce",
        "--scale",
        "smoke",
        "--device",
        "99",
        "--out",
        "new/grid",
    ];
    refused_without_trace(base, &grid, 2, &["unknown device '99'", "0 cpu"]);
    // A run that fails after its first step keeps its folder.
    let words = training("failed", &["--steps", "9", "--temperature", "1e-40"]);
    refused(base, &words, 1, &["step 1"]);
    assert!(base.join("failed/config.toml").exists());
}

#[test]
fn shells_get_a_script_that_completes_commands() {
    let base = TempDir::new().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let said = good(base.path(), &["completions", shell]);
        for word in ["simclr", "weights", "temperature", "micro-batch"] {
            assert!(said.contains(word), "{shell}: {word}");
        }
    }
    refused(base.path(), &["completions", "cmd"], 2, &["cmd", "bash"]);
}

#[test]
fn every_command_has_a_man_page() {
    let base = TempDir::new().unwrap();
    let pages = base.path().join("share/man1");
    // Pages that are there are replaced.
    for _ in 0..2 {
        let said = good(base.path(), &["manual", "share/man1"]);
        let count = fs::read_dir(&pages).unwrap().count();
        assert!(said.contains(&format!("{count} man pages")), "{said}");
    }
    let page = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
    let program = page("parallax.1");
    assert!(program.contains(".TH parallax 1"), "{program}");
    for command in ["simclr", "weights", "manual"] {
        assert!(
            program.contains(&format!("parallax\\-{command}(1)")),
            "{program}"
        );
    }
    assert!(page("parallax-simclr.1").contains("temperature"));
    assert!(page("parallax-weights-export.1").contains("onnx"));
    fs::write(base.path().join("file"), "").unwrap();
    refused(base.path(), &["manual", "file"], 1, &["file"]);
    refused(base.path(), &["manual", "file/below"], 1, &["file"]);
}
