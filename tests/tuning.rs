//! The variants of kernels that a GPU runs: they are measured, stored and printed, and a resumed run
//! has the same ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use parallax::DType;
use parallax::device::gpu::variants::{Operation, TileSize, Variant, VariantTable};
use parallax::nn::weights::metadata;
use parallax::nn::{Arch, ResNetConfig, Stem};
use parallax::ops::Conv2dOptions;
use parallax::ops::conv2d::ConvGeometry;
use parallax::ops::tuning::Problem;
use parallax::runs::tuning::TrainedNetwork;
use tempfile::TempDir;

mod class_folders;
#[allow(dead_code)]
#[path = "../src/testing/devices.rs"]
mod devices;
use class_folders::place;

#[test]
fn every_class_is_measured_once_and_the_table_in_use_stays_as_it_was() {
    let gpu = devices::open_gpu(false, None);
    let before = gpu.variants();
    let options = Conv2dOptions {
        stride: 1,
        padding: 1,
    };
    let g = ConvGeometry::new([2, 17, 9, 8], [19, 17, 3, 3], options).unwrap();
    let gemm = |sizes| Problem::Gemm {
        transpose_a: false,
        sizes,
    };
    let problems = [
        gemm([65, 70, 33]),
        gemm([66, 71, 34]),
        Problem::Linear([5, 70, 33]),
        Problem::Conv2d(g),
        Problem::Conv2dDx(g),
        Problem::Conv2dDw(g),
    ];
    let mut told = Vec::new();
    let tuned = gpu
        .tune(&problems, DType::F32, &mut |done, all, class| {
            told.push((done, all, class.to_string()));
        })
        .unwrap();
    assert!(tuned.rejected.is_empty(), "{:?}", tuned.rejected);
    let steps: Vec<(usize, usize)> = told.iter().map(|(done, all, _)| (*done, *all)).collect();
    assert_eq!(steps, [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5)]);
    for problem in &problems {
        let class = problem.class();
        assert!(tuned.table.classes.contains_key(&class), "{class}");
    }
    assert_eq!(tuned.table.classes.len(), 5);
    assert_eq!(gpu.variants(), before);
    // What is known is not measured again.
    gpu.use_variants(tuned.table.clone());
    let again = gpu.tune(&problems, DType::F32, &mut |_, _, class| {
        panic!("{class} is known")
    });
    assert_eq!(again.unwrap().table, tuned.table);
}

#[test]
fn a_networks_shapes_are_those_of_its_step() {
    let network = TrainedNetwork {
        encoder: ResNetConfig {
            arch: Arch::ResNet50,
            stem: Stem::Cifar { padding: 1 },
            width: 1.0,
        },
        side: 32,
        layers: vec![[2048, 2048], [2048, 128]],
        activations: DType::F32,
        rounds_factors: false,
        images: 256,
    };
    let problems = network.problems().unwrap();
    let count = |wanted: fn(&Problem) -> bool| problems.iter().filter(|p| wanted(p)).count();
    // 53 convolutions; the images need no gradient.
    assert_eq!(count(|p| matches!(p, Problem::Conv2d(_))), 53);
    assert_eq!(count(|p| matches!(p, Problem::Conv2dDx(_))), 52);
    assert_eq!(count(|p| matches!(p, Problem::Conv2dDw(_))), 53);
    assert_eq!(count(|p| matches!(p, Problem::Linear(_))), 2);
    assert_eq!(count(|p| matches!(p, Problem::Gemm { .. })), 4);
    for problem in &problems {
        if let Problem::Conv2d(g) = problem {
            assert_eq!(g.n, 256, "the batch of the training");
        }
    }
}

/// A folder with images and a cache of its own.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Place(place(32, 32))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// A small training on the adapter under test.
    fn command(&self, out: &str, steps: &str, more: &[&str]) -> Command {
        let adapter = std::env::var("PARALLAX_TEST_ADAPTER").unwrap_or("llvmpipe".to_string());
        let mut command = Command::new(env!("CARGO_BIN_EXE_parallax"));
        command
            .args(["supervised", "--data", "folder", "--data-dir", "images"])
            .args(["--width", "0.0625", "--batch-size", "4", "--steps", steps])
            .args(["--device", &adapter, "--out", out])
            .args(more)
            .current_dir(self.path())
            .env("PARALLAX_CACHE_DIR", self.path().join("cache"));
        command
    }

    fn train(&self, out: &str, more: &[&str]) -> Output {
        self.command(out, "1", more).output().expect("it starts")
    }

    /// The files of the cache whose names begin so.
    fn kept(&self, beginning: &str) -> Vec<PathBuf> {
        let Ok(files) = fs::read_dir(self.path().join("cache")) else {
            return Vec::new();
        };
        files
            .map(|file| file.unwrap().path())
            .filter(|path| {
                let name = path.file_name().unwrap().to_str().unwrap();
                name.starts_with(beginning)
            })
            .collect()
    }

    /// The table that a run's configuration has.
    fn table(&self, out: &str) -> VariantTable {
        let text = fs::read_to_string(self.path().join(out).join("config.toml")).unwrap();
        let config: toml::Table = toml::from_str(&text).unwrap();
        config["variants"].clone().try_into().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn check(output: &Output, warnings: &[&str]) {
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors.lines().count(), warnings.len().min(1), "{errors}");
    for words in warnings {
        assert!(errors.contains(words), "'{words}' is not in: {errors}");
    }
}

#[test]
fn a_tuning_is_kept_and_a_file_that_cannot_be_used_is_named() {
    let place = Place::new();
    check(&place.train("shipped", &["--no-tune"]), &[]);
    let shipped = place.table("shipped");
    assert!(shipped.classes.is_empty());
    if VariantTable::ships_for(&shipped.key.adapter) {
        check(&place.train("default", &[]), &[]);
        assert_eq!(place.table("default"), shipped);
    }
    assert!(place.kept("tuning-").is_empty());

    let first = place.train("first", &["--tune"]);
    check(&first, &[]);
    assert!(text(&first.stdout).contains("tuned "));
    let table = place.table("first");
    assert!(table.source.contains("tuned") && !table.classes.is_empty());
    let [file] = place.kept("tuning-").try_into().expect("one file");
    let stored = VariantTable::from_toml(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(stored, table);

    let second = place.train("second", &["--tune"]);
    check(&second, &[]);
    assert!(!text(&second.stdout).contains("tuned  "));
    assert_eq!(place.table("second"), table);

    // A variant that a self-test has rejected is in no table, tuned or shipped.
    let mut rejecting = stored.clone();
    rejecting.reject([(Operation::Conv2dDx, Variant::Tiled(TileSize::Small))]);
    fs::write(&file, rejecting.to_toml().unwrap()).unwrap();
    let devices = Command::new(env!("CARGO_BIN_EXE_parallax"))
        .arg("devices")
        .env("PARALLAX_CACHE_DIR", place.path().join("cache"))
        .output();
    let words = "without conv2d_dx tiled64x64 (wrong results here)";
    assert!(text(&devices.unwrap().stdout).contains(words));
    for (out, flag) in [("tuned", "--tune"), ("untuned", "--no-tune")] {
        check(&place.train(out, &[flag]), &[]);
        assert_eq!(place.table(out).rejected, rejecting.rejected, "{flag}");
    }
    fs::write(&file, stored.to_toml().unwrap()).unwrap();

    let without = place.train("without", &["--no-tune"]);
    check(&without, &[]);
    assert_eq!(place.table("without"), shipped);

    let path = file.to_str().unwrap();
    let foreign = fs::read_to_string(&file)
        .unwrap()
        .replace(&table.key.driver, "another driver");
    for (content, words) in [
        ("not a table", "TOML"),
        (foreign.as_str(), "driver: another driver"),
    ] {
        fs::write(&file, content).unwrap();
        let output = place.train(&format!("after {words}"), &["--tune"]);
        check(&output, &["warning", path]);
        let again = VariantTable::from_toml(&fs::read(&file).unwrap()).unwrap();
        assert!(again.classes.keys().eq(table.classes.keys()));
        assert!(content == "not a table" || text(&output.stderr).contains(words));
    }
}

#[test]
fn pipelines_are_kept_and_damaged_ones_are_named() {
    let place = Place::new();
    check(&place.train("first", &[]), &[]);
    let [file] = place
        .kept("wgpu_pipeline_cache")
        .try_into()
        .expect("one file");
    fs::write(&file, b"damaged").unwrap();
    check(
        &place.train("second", &[]),
        &["warning", file.to_str().unwrap()],
    );
    check(&place.train("third", &[]), &[]);
}

#[test]
fn a_run_goes_on_with_the_table_that_it_began_with() {
    let place = Place::new();
    let mut child = place
        .command("run", "1000", &["--tune", "--checkpoint-every", "0"])
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let checkpoint = place.path().join("run/checkpoint.safetensors");
    let deadline = Instant::now() + Duration::from_secs(300);
    while !checkpoint.exists() {
        assert!(Instant::now() < deadline, "no checkpoint was written");
        assert!(child.try_wait().unwrap().is_none(), "it ended too early");
        sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let table = place.table("run");
    assert!(!table.classes.is_empty());
    let entries = metadata(&fs::read(&checkpoint).unwrap(), &checkpoint).unwrap();
    assert_eq!(entries["variants"], table.to_toml().unwrap());

    // Neither what is stored by now nor what ships matters.
    fs::remove_dir_all(place.path().join("cache")).unwrap();
    let config = place.path().join("run/config.toml");
    let go_on = || {
        let mut child = place
            .command("run", "1000", &["--resume"])
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // Long enough to have said what it has to say: it goes on from the checkpoint.
        let lines = place.path().join("run/metrics.jsonl");
        let before = fs::metadata(&lines).unwrap().modified().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while fs::metadata(&lines).unwrap().modified().unwrap() == before {
            assert!(Instant::now() < deadline, "no step was taken");
            if child.try_wait().unwrap().is_some() {
                break;
            }
            sleep(Duration::from_millis(5));
        }
        child.kill().ok();
        child.wait_with_output().unwrap()
    };
    let resumed = go_on();
    let said = text(&resumed.stdout);
    assert!(said.contains("tuned on this adapter"), "{said}");
    assert_eq!(text(&resumed.stderr), "");
    assert!(place.kept("tuning-").is_empty(), "it was tuned again");

    // Another driver is a warning, and the table stays.
    let changed = fs::read_to_string(&config)
        .unwrap()
        .replace(&table.key.driver, "an older driver");
    fs::write(&config, changed).unwrap();
    let resumed = go_on();
    assert!(text(&resumed.stdout).contains("tuned on this adapter"));
    let errors = text(&resumed.stderr);
    assert!(errors.contains("driver: an older driver"), "{errors}");
}
