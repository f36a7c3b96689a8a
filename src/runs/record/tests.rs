use super::*;

/// All differences in words, if there are any.
fn difference(theirs: &str, ours: &str) -> std::result::Result<Option<String>, String> {
    let found = differences(theirs, ours)?;
    Ok((!found.is_empty()).then(|| described(&found)))
}

#[test]
fn a_float_is_written_as_it_was_given() {
    assert_eq!(shortest(0.1), 0.1);
    assert_eq!(shortest(1e-6), 1e-6);
}

#[test]
fn a_configuration_of_an_earlier_version_fits() {
    let before = "seed = 1\n[data]\ndigest = \"d\"\n";
    let now = "seed = 1\nclasses = [\"cat\"]\n[data]\ndigest = \"d\"\nskipped_images = 1\n\
               [data.unread_files]\n\".gif\" = 4\n";
    let differs = |theirs, ours| difference(theirs, ours).unwrap();
    assert_eq!(differs(before, now), None);
    let renamed = now.replace("cat", "dog");
    assert_eq!(
        differs(now, &renamed).as_deref(),
        Some("classes: [\"cat\"], now [\"dog\"]")
    );
    let other = now.replace("\"d\"", "\"e\"");
    assert!(differs(now, &other).unwrap().starts_with("data.digest"));
}

#[test]
fn differences_are_named_and_versions_are_not() {
    let first = "seed = 1\n[training]\nsteps = 5\n[versions]\nwgpu = \"30\"\n";
    let second = "seed = 1\n[training]\nsteps = 6\n[versions]\nwgpu = \"31\"\n";
    let differs = |theirs, ours| difference(theirs, ours).unwrap();
    assert_eq!(differs(first, first), None);
    assert_eq!(
        differs(first, second).as_deref(),
        Some("training.steps: 5, now 6")
    );
    assert_eq!(
        differs(first, "").as_deref(),
        Some("seed: 1, now none; training.steps: 5, now none")
    );
    assert!(difference("seed = ", first).is_err());
}

/// A job of a grid that an earlier version began: it has facts and some settings.
#[test]
fn a_job_of_an_earlier_version_fits() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/benches/results/grid-small/jobs/finetune-simclr-10-s0/config.toml"
    );
    let theirs = std::fs::read_to_string(path).unwrap();
    let words =
        "finetune --encoder x --labels 0.1 --stop-when-flat 100 --data cifar10 --save-every 5";
    let ours = |more: &str| {
        let words = format!("{words} {more}");
        let words: Vec<String> = words.split_whitespace().map(str::to_string).collect();
        let mut table = RunSpec::parse(&words).unwrap().to_table().unwrap();
        let mut facts: Table = theirs.parse().unwrap();
        facts.insert("classes".to_string(), vec!["cat"].into());
        merge(&mut table, facts);
        ordered(table).to_string()
    };
    assert_eq!(difference(&theirs, &ours("")).unwrap(), None);
    let other = difference(&theirs, &ours("--micro-batch 8")).unwrap();
    assert_eq!(other.as_deref(), Some("training.micro_batch: none, now 8"));
    let paper = ours("").replace("\"sound\"", "\"paper\"");
    let other = difference(&theirs, &paper).unwrap().unwrap();
    assert!(other.contains("protocol"), "{other}");
    let random = paper.replace("\"paper\"", "\"paper protocol, random start\"");
    assert_eq!(difference(&random, &paper).unwrap(), None);
}

#[test]
fn a_configuration_of_an_earlier_version_is_the_same() {
    let theirs = "seed = 1\n";
    let ours = "seed = 1\nkept_random = [\"conv1.weight\"]\n[init_left_out]\nfc = 2\n";
    assert_eq!(difference(theirs, ours).unwrap(), None);
    // An entry that is present is compared.
    let other = "seed = 1\nkept_random = []\n[init_left_out]\nfc = 2\n";
    let found = difference(other, ours).unwrap().expect("it differs");
    assert!(found.starts_with("kept_random: "), "{found}");
    let steps = "seed = 1\nsteps = 2\n";
    assert!(difference(theirs, steps).unwrap().is_some());
}
