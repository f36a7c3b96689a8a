//! `reproduce` as a process: the list of jobs, a run of one table from end to end, and what a
//! second call does.

mod process;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parallax::philox::Philox;
use process::{good, json, parallax, refused};
use serde_json::Value;
use tempfile::TempDir;

/// The part of the grid that is interrupted, and its longest job, which is not run again each time.
const PART: &str = "table2a";
const LONGEST: &str = "grid/jobs/simclr-resnet50-b128-s0";

const SMOKE: [&str; 7] = [
    "reproduce",
    "--scale",
    "smoke",
    "--device",
    "cpu",
    "--out",
    "grid",
];

fn with(words: &[&'static str]) -> Vec<&'static str> {
    [&SMOKE, words].concat()
}

/// Pretraining on both sets, the baseline and transfers in both directions; then the same again,
/// and cut.
#[test]
fn a_table_is_run_skipped_and_resumed() {
    let base = TempDir::new().unwrap();
    let folder = base.path();
    let table = with(&["--only", "table2a"]);

    // Killed in the first job, it goes on with it.
    let mut child = parallax(folder, &table)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let first = folder.join("grid/jobs/simclr-resnet50-b128-s0");
    let untrained = folder.join("grid/jobs/linear-untrained-resnet50-s0");
    let deadline = Instant::now() + Duration::from_secs(120);
    while !first.join("encoder-step1.safetensors").exists() {
        assert!(Instant::now() < deadline, "the first job saved nothing");
        sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        untrained.join("summary.json").exists() && !first.join("summary.json").exists(),
        "killed while the first training ran"
    );

    let said = good(folder, &table);
    assert!(said.contains("differs pretraining steps: 10"), "{said}");
    assert!(said.contains("[2/8] simclr-resnet50-b128-s0"), "{said}");
    let grid = json(&folder.join("grid/grid.json"));
    assert_eq!(
        grid["jobs"].as_array().unwrap().len(),
        135,
        "the whole grid is listed"
    );
    assert_eq!(grid["data"]["second"], "shapes-inverted");
    for id in [
        "simclr-resnet50-b128-s0",
        "simclr-second-resnet50-b128-s0",
        "supervised-100-s0",
        "transfer-simclr-resnet50-b128-4-s0",
        "transfer-simclr-second-resnet50-b128-4-s0",
        "transfer-supervised-100-4-s0",
        "linear-untrained-resnet50-s0",
        "linear-untrained-second-resnet50-s0",
    ] {
        let summary = folder.join("grid/jobs").join(id).join("summary.json");
        assert!(summary.is_file(), "{id}");
    }
    let back =
        json(&folder.join("grid/jobs/transfer-simclr-second-resnet50-b128-4-s0/summary.json"));
    assert_eq!(back["start"]["data"], "shapes-inverted");
    assert_eq!(
        (&back["data"], &back["resolution"]),
        (&"shapes".into(), &32.into())
    );
    let forth = json(&folder.join("grid/jobs/transfer-simclr-resnet50-b128-4-s0/summary.json"));
    assert_eq!(
        (&forth["data"], &forth["resolution"]),
        (&"shapes-inverted".into(), &24.into())
    );
    assert_eq!(forth["start"]["steps"], 4);

    // The cost of RotNet adds two jobs, and the report has what ran.
    let said = good(folder, &with(&["--only", "claim7"]));
    assert!(
        said.contains("[1/3] simclr-resnet50-b128-s0: done before"),
        "{said}"
    );
    assert!(
        said.contains("report on 10 runs") && said.contains("s so far, about"),
        "{said}"
    );
    let report = |name: &str| fs::read_to_string(folder.join("grid/report").join(name)).unwrap();
    let text = report("table2a.md");
    assert!(!text.contains("not run"), "{text}");
    assert!(
        text.contains("pretraining steps: 10 for the paper's 5,000"),
        "{text}"
    );
    let claims = report("claims.md");
    let flops = "operations per image, RotNet relative to SimCLR, equal stems | no number | 2.00 times, exact";
    assert!(claims.contains(flops), "{claims}");
    assert!(!folder.join("grid/report/fig2-simclr.svg").exists());

    // What is done is not done again; an evaluation without a summary is computed again.
    let cut = folder.join("grid/jobs/transfer-supervised-100-4-s0");
    fs::remove_file(cut.join("summary.json")).unwrap();
    let said = good(folder, &table);
    assert_eq!(said.matches("done before").count(), 7, "{said}");
    assert!(cut.join("summary.json").is_file());

    // A job that fails keeps back what needs it and nothing else; made good, it runs.
    fs::remove_file(cut.join("summary.json")).unwrap();
    let encoder = folder.join("grid/jobs/supervised-100-s0/encoder-step4.safetensors");
    let bytes = fs::read(&encoder).unwrap();
    fs::write(&encoder, b"damaged").unwrap();
    let output = parallax(folder, &table).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = process::text(&output.stdout);
    assert!(
        said.contains("transfer-supervised-100-4-s0: failed: "),
        "{said}"
    );
    assert!(said.contains("7 of 8 jobs in grid"), "{said}");
    fs::write(&encoder, bytes).unwrap();
    good(folder, &table);

    refused(
        folder,
        &with(&["--only", "table2a", "--seed", "1"]),
        2,
        &["holds another grid", "--seed 0", "--seed 1", "--out"],
    );
    fs::write(folder.join("grid/grid.json"), "{").unwrap();
    refused(folder, &table, 1, &["grid.json", "reproduce"]);
}

/// Sets every time in the runs of a grid to 1, since two runs of one job do not take the same time.
fn without_times(grid: &Path) {
    fn reset(value: &mut Value) {
        let Some(entries) = value.as_object_mut() else {
            return;
        };
        for (key, value) in entries {
            match key.contains("second") {
                true => *value = 1.0.into(),
                false => reset(value),
            }
        }
    }
    for job in fs::read_dir(grid.join("jobs")).unwrap() {
        for name in ["summary.json", "metrics.jsonl"] {
            let path = job.as_ref().unwrap().path().join(name);
            let text = fs::read_to_string(&path).unwrap();
            let values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
            let lines = values.map(|value| {
                let mut value = value.expect("it is JSON");
                reset(&mut value);
                format!("{value}\n")
            });
            fs::write(&path, lines.collect::<String>()).unwrap();
        }
    }
}

/// The files of the report on the grid in `folder`.
fn report_of(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    without_times(&folder.join("grid"));
    good(folder, &["report", "grid"]);
    let files = fs::read_dir(folder.join("grid/report")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    files
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect()
}

/// A grid that is stopped by its time limit again and again, and one that is killed at a random
/// moment.
#[test]
fn an_interrupted_grid_has_the_report_of_one_that_was_not() {
    let base = TempDir::new().unwrap();
    let [whole, limited, killed] = ["whole", "limited", "killed"].map(|name| {
        let folder = base.path().join(name);
        fs::create_dir(&folder).unwrap();
        folder
    });
    let part = with(&["--only", PART]);
    let started = Instant::now();
    good(&whole, &part);
    let time = started.elapsed();
    let report = report_of(&whole);
    assert!(report.contains_key("report.html"));
    // About half of the time is left to the other jobs.
    let time = time / 2;
    for folder in [&limited, &killed] {
        fs::create_dir_all(folder.join(LONGEST)).unwrap();
        for file in fs::read_dir(whole.join(LONGEST)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.join(LONGEST).join(file.file_name())).unwrap();
        }
    }

    let limit = format!("{:.3}", time.as_secs_f64() / 5.0);
    let with_limit = [&part[..], &["--time-limit", &limit]].concat();
    let mut stops = 0;
    loop {
        let output = parallax(&limited, &with_limit).output().unwrap();
        if output.status.success() {
            break;
        }
        let words = ["stopped by the time limit", "job ", "continue with: "];
        process::check_refusal(&output, &with_limit, 75, &words);
        stops += 1;
        assert!(stops < 100, "it does not end");
    }
    assert!(stops > 0, "the limit of {limit} s was not reached");
    assert_same(&report_of(&limited), &report, "stopped");

    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos() as u64;
    let moment = time.mul_f64(f64::from(Philox::new(seed, [0; 3]).uniform(0.0, 1.0)));
    println!("seed {seed}: killed after {moment:?} of about {time:?}");
    let mut child = parallax(&killed, &part)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    sleep(moment);
    child.kill().unwrap();
    child.wait().unwrap();
    good(&killed, &part);
    assert_same(&report_of(&killed), &report, "killed");
}

fn assert_same(found: &BTreeMap<String, Vec<u8>>, expected: &BTreeMap<String, Vec<u8>>, how: &str) {
    assert!(
        found.keys().eq(expected.keys()),
        "{how}: {:?}",
        found.keys()
    );
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{how}: {name} differs");
    }
}

#[test]
fn a_dry_run_lists_every_job_and_writes_nothing() {
    let base = TempDir::new().unwrap();
    let folder = base.path();
    let said = good(folder, &with(&["--dry-run", "--only", "claim7"]));
    assert!(
        said.contains("rotnet-authors-stem-resnet50-b128-s0"),
        "{said}"
    );
    assert!(said.contains("3 jobs, about"), "{said}");
    assert!(!folder.join("grid").exists());
}

/// Two processes run one part each in the same folder at the same time.
#[test]
fn parts_share_a_folder() {
    let base = TempDir::new().unwrap();
    let folder = base.path();
    let parts = ["1/2", "2/2"].map(|part| {
        let words = with(&["--only", "claim7", "--shard", part]);
        let mut command = parallax(folder, &words);
        command.stdout(Stdio::piped()).spawn().unwrap()
    });
    let mut begun = Vec::new();
    for (part, number) in parts.into_iter().zip(1..) {
        let output = part.wait_with_output().unwrap();
        assert!(output.status.success(), "part {number}");
        let said = process::text(&output.stdout);
        let jobs = said.lines().filter_map(|line| {
            let line = line.strip_prefix(&format!("[part {number}/2, "))?;
            line.split([']', ','])
                .nth(1)
                .map(str::trim)
                .map(str::to_string)
        });
        begun.extend(jobs);
        assert!(
            said.contains(&format!("jobs of part {number}/2 in grid")),
            "{said}"
        );
    }
    begun.sort();
    let expected = [
        "rotnet-authors-stem-resnet50-b128-s0",
        "rotnet-resnet50-b128-s0",
        "simclr-resnet50-b128-s0",
    ];
    assert_eq!(begun, expected, "each job once");
    let results = json(&folder.join("grid/report/results.json"));
    assert!(!results.as_array().unwrap().is_empty());
    // Whichever process ended last has reported the runs of both.
    let said = good(folder, &with(&["--only", "claim7"]));
    assert!(
        said.matches("done before").count() == 3 && said.contains("report on 3 runs"),
        "{said}"
    );
    let again = json(&folder.join("grid/report/results.json"));
    assert_eq!(results, again);
}

#[test]
fn grids_that_cannot_be_are_refused() {
    let base = TempDir::new().unwrap();
    let folder = base.path();
    let common = ["reproduce", "--device", "cpu", "--out", "grid"];
    for (words, expected) in [
        (&["--scale", "huge"][..], &["--scale", "huge"][..]),
        (&["--scale", "small"], &["real images", "--data cifar10"]),
        (
            &["--scale", "smoke", "--data", "cifar10"],
            &["smoke", "shapes"],
        ),
        (&["--scale", "smoke", "--protocol", "paper"], &["--init"]),
        (&["--scale", "smoke", "--only", "fig9"], &["--only", "fig9"]),
        (&["--scale", "smoke", "--seeds", "0"], &["--seeds"]),
        (&["--scale", "smoke", "--shard", "3/2"], &["--shard", "3/2"]),
        (
            &["--scale", "smoke", "--full-steps", "15"],
            &["15", "multiple of 10"],
        ),
        (
            &["--scale", "smoke", "--attack-images", "0"],
            &["--attack-images"],
        ),
        (
            &["--scale", "smoke", "--transfer-data", "shapes"],
            &["both data sets are shapes", "--transfer-data"],
        ),
        (
            &[
                "--scale",
                "small",
                "--data",
                "cifar10",
                "--data-dir",
                "nowhere",
                "--transfer-data-dir",
                "elsewhere",
            ],
            &["nowhere"],
        ),
        // The option that is missing is the second data set's.
        (
            &[
                "--scale",
                "small",
                "--data",
                "cifar10",
                "--data-dir",
                "nowhere",
            ],
            &["stl10", "--transfer-data-dir"],
        ),
        (
            &["--scale", "smoke", "--transfer-data", "folder"],
            &["folder", "--transfer-data-dir"],
        ),
    ] {
        let code = if expected == ["nowhere"] { 1 } else { 2 };
        refused(folder, &[&common, words].concat(), code, expected);
        assert!(!folder.join("grid").exists(), "a mistake leaves no folder");
    }
}
