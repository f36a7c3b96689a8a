use super::*;

#[test]
fn a_folder_that_holds_something_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("a/b");
    let folder = RunFolder::create(&path).unwrap();
    folder.write("x.txt", b"kept").unwrap();
    drop(folder);
    let refused = RunFolder::create(&path).err().expect("it is not empty");
    assert!(
        matches!(&refused, Error::Usage(m) if m.contains("a/b")),
        "{refused}"
    );
    assert_eq!(fs::read(path.join("x.txt")).unwrap(), b"kept");
}

#[test]
fn default_names_are_numbered() {
    let base = tempfile::tempdir().unwrap();
    let names: Vec<PathBuf> = (0..3)
        .map(|_| {
            let folder = RunFolder::create_next(base.path(), "run").unwrap();
            folder.keep();
            folder.path.clone()
        })
        .collect();
    let expected = ["run", "run-2", "run-3"].map(|name| base.path().join(name));
    assert_eq!(names, expected);
}

#[test]
fn a_folder_under_a_file_is_named() {
    let base = tempfile::tempdir().unwrap();
    let file = base.path().join("file");
    fs::write(&file, "").unwrap();
    for (path, words) in [(file.join("run"), "file/run is below"), (file, "is a file")] {
        for refused in [RunFolder::create(&path), RunFolder::resume(&path)] {
            let error = refused.err().expect("a file is no folder");
            let named = matches!(&error, Error::Usage(m) if m.contains(words));
            assert!(named, "{error}");
        }
    }
}

#[test]
fn a_folder_that_is_not_kept_leaves_the_disk_as_it_was() {
    let base = tempfile::tempdir().unwrap();
    let entries = |path: &Path| fs::read_dir(path).unwrap().count();
    let new = base.path().join("a/b/c");
    let opened: [&dyn Fn() -> Result<RunFolder>; 3] = [
        &|| RunFolder::create(&new),
        &|| RunFolder::resume(&new),
        &|| RunFolder::create_next(&new, "run"),
    ];
    for open in opened {
        let folder = open().unwrap();
        folder.write_config("seed = 1").unwrap();
        drop(folder);
        assert_eq!(entries(base.path()), 0);
    }
    let empty = base.path().join("empty");
    fs::create_dir(&empty).unwrap();
    drop(RunFolder::create(&empty).unwrap());
    assert_eq!(entries(&empty), 0);
    // A run that had begun before stays.
    fs::write(empty.join(CONFIG), "seed = 1").unwrap();
    drop(RunFolder::resume(&empty).unwrap());
    assert!(is_begun(&empty));
}

#[test]
fn one_process_writes_a_folder() {
    let base = tempfile::tempdir().unwrap();
    let first = RunFolder::create(base.path()).unwrap();
    for refused in [
        RunFolder::create(base.path()),
        RunFolder::resume(base.path()),
    ] {
        let error = refused.err().expect("it is in use");
        let told = matches!(&error, Error::Usage(m) if m.contains("is in use"));
        assert!(told, "{error}");
    }
    drop(first);
    drop(RunFolder::create(base.path()).unwrap());
}

#[test]
fn metrics_are_lines_of_json_with_the_exact_loss() {
    let base = tempfile::tempdir().unwrap();
    let mut folder = RunFolder::create(base.path()).unwrap();
    let loss = 4.836_282_f32;
    for step in 1..=2 {
        let metrics = StepMetrics {
            step,
            loss,
            learning_rate: 1e-3,
            loss_scale: None,
            online_knn_top1: None,
            seconds: 0.5,
        };
        folder.append(&metrics).unwrap();
    }
    let text = fs::read_to_string(base.path().join("metrics.jsonl")).unwrap();
    assert_eq!(text.lines().count(), 2);
    let line: serde_json::Value = serde_json::from_str(text.lines().nth(1).unwrap()).unwrap();
    assert_eq!(line["step"], 2);
    assert_eq!(line["loss"].to_string().parse::<f32>().unwrap(), loss);
}
