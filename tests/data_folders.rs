//! Layouts of image folders, and the distributed forms of CIFAR and STL-10: what is read, and as
//! which split and class.

use std::fs::{self, File};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use image::{Rgb, RgbImage};
use parallax::data::{DataKind, Dataset, LoadOptions, load, load_with};
use parallax::{Error, Result};
use tempfile::TempDir;

fn read(dir: &Path) -> Result<Dataset> {
    load(DataKind::Folder, Some(dir), 0)
}

fn refusal(kind: DataKind, dir: &Path) -> String {
    let error = load(kind, Some(dir), 0).expect_err("it is refused");
    assert!(matches!(error, Error::Data { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.len() < 980, "{message}");
    message
}

/// Writes an image at each of `paths` below `dir`. The red value of its pixels is its place in the
/// list.
fn write(dir: &Path, paths: &[&str]) {
    for (i, path) in paths.iter().enumerate() {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let image = RgbImage::from_pixel(4, 4, Rgb([i as u8, 50, 60]));
        image.save(path).unwrap();
    }
}

fn files(data: &Dataset) -> (&[String], &[String]) {
    (&data.train.files, &data.test.files)
}

#[test]
fn images_at_any_depth_belong_to_the_first_folder() {
    let dir = TempDir::new().unwrap();
    let paths = [
        "train/cat/z.png",
        "train/cat/2023/a.png",
        "train/cat/2023/may/b.png",
        "train/cat/2023-x/c.png",
        "train/dog/deep/deeper/d.png",
        "test/cat/e.png",
        "test/dog/f.png",
        "train/cat/.hidden/g.png",
        "train/cat/__MACOSX/h.png",
        "train/.cache/i.png",
        "train/__MACOSX/cat/j.png",
    ];
    write(dir.path(), &paths);
    fs::create_dir(dir.path().join("train/cat/folder.png")).unwrap();
    let data = read(dir.path()).unwrap();
    assert_eq!(data.classes, ["cat", "dog"]);
    // As `sorted(os.walk(...))` of torchvision: `2023-x` comes before `2023/may`.
    let train = [
        "train/cat/z.png",
        "train/cat/2023/a.png",
        "train/cat/2023-x/c.png",
        "train/cat/2023/may/b.png",
        "train/dog/deep/deeper/d.png",
    ];
    let (found, test) = files(&data);
    assert_eq!(found, train);
    assert_eq!(test, ["test/cat/e.png", "test/dog/f.png"]);
    assert_eq!(data.train.labels, Some(vec![0, 0, 0, 0, 1]));
    assert_eq!(
        data.train.image(2).unwrap()[0],
        3,
        "pixels follow the files"
    );
}

#[cfg(unix)]
#[test]
fn links_are_followed_once() {
    use std::os::unix::fs::symlink;
    let dir = TempDir::new().unwrap();
    let elsewhere = TempDir::new().unwrap();
    write(elsewhere.path(), &["a.png", "more/b.png"]);
    write(dir.path(), &["train/cat/c.png", "train/dog/d.png"]);
    let cat = dir.path().join("train/cat");
    symlink(elsewhere.path(), cat.join("link")).unwrap();
    symlink(elsewhere.path(), cat.join("same")).unwrap();
    symlink(&cat, cat.join("loop")).unwrap();
    symlink(dir.path(), cat.join("up")).unwrap();
    symlink(elsewhere.path(), dir.path().join("train/elk")).unwrap();
    let data = read(dir.path()).unwrap();
    let count = |label: u32| {
        let labels = data.train.labels.as_ref().unwrap();
        labels.iter().filter(|&&l| l == label).count()
    };
    assert_eq!(data.classes, ["cat", "dog", "elk"]);
    assert_eq!(
        [count(0), count(1), count(2)],
        [3, 1, 2],
        "{:?}",
        files(&data)
    );
}

#[test]
fn class_folders_without_train_are_a_training_set() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &["cat/a.png", "dog/b.png", "valid/c.png"]);
    let data = read(dir.path()).unwrap();
    assert_eq!(data.classes, ["cat", "dog", "valid"]);
    assert_eq!((data.train.len(), data.test.len()), (3, 0));
    assert!(data.test.labels.is_none() && data.absent_classes().is_empty());
    let error = data.labels_of(&data.test, "test").unwrap_err();
    assert!(
        matches!(&error, Error::Usage(m) if m.contains("no test images")),
        "{error}"
    );
}

#[test]
fn images_without_class_folders_have_no_labels() {
    for paths in [
        &["a.png", "b.png"][..],
        &["train/a.png", "train/b.png"],
        &["Train/a.png", "TRAIN/b.png"][..1],
    ] {
        let dir = TempDir::new().unwrap();
        write(dir.path(), paths);
        fs::create_dir(dir.path().join("empty")).unwrap();
        let data = read(dir.path()).unwrap();
        assert_eq!(data.train.len(), paths.len());
        assert!(data.train.labels.is_none() && data.classes.is_empty());
        assert_eq!(files(&data).0, paths);
    }
    // A test set without labels beside it, at any depth.
    let dir = TempDir::new().unwrap();
    write(dir.path(), &["train/a.png", "test/b.png", "test/c.png"]);
    let data = read(dir.path()).unwrap();
    assert_eq!((data.test.len(), &data.test.labels), (2, &None));
}

#[test]
fn the_test_folder_has_four_names_in_any_letter_case() {
    for (name, recorded) in [
        ("test", None),
        ("Test", None),
        ("val", Some("val")),
        ("Valid", Some("Valid")),
        ("VALIDATION", Some("VALIDATION")),
    ] {
        let dir = TempDir::new().unwrap();
        let test = format!("{name}/cat/b.png");
        write(dir.path(), &["TRAIN/cat/a.png", "TRAIN/dog/a.png", &test]);
        let data = read(dir.path()).unwrap();
        assert_eq!(data.test.len(), 1, "{name}");
        assert_eq!(data.findings.test_folder.as_deref(), recorded);
        assert_eq!(
            data.findings.notices().len(),
            usize::from(recorded.is_some())
        );
        assert_eq!(data.absent_classes(), ["dog"]);
    }
}

#[test]
fn images_beside_the_classes_and_splits_are_named() {
    let dir = TempDir::new().unwrap();
    let paths = [
        "train/cat/a.png",
        "train/dog/b.png",
        "train/loose.png",
        "test/cat/c.png",
        "val/cat/d.png",
        "extra/deep/e.png",
        "cover.png",
    ];
    write(dir.path(), &paths);
    let data = read(dir.path()).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (2, 1));
    assert_eq!(data.findings.unused_images, Some(4));
    let notice = &data.findings.notices()[0];
    for name in [
        "train/loose.png",
        "val/cat/d.png",
        "extra/deep/e.png",
        "cover.png",
    ] {
        assert!(notice.contains(name), "{notice}");
    }
}

#[test]
fn files_of_other_kinds_are_counted_by_suffix() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), &["train/cat/a.png", "train/dog/b.png"]);
    for name in [
        "a.gif",
        "b.GIF",
        "c.heic",
        "d.svg",
        "e.psd",
        "notes.txt",
        "Thumbs.db",
        ".x.gif",
    ] {
        fs::write(dir.path().join("train/cat").join(name), "x").unwrap();
    }
    let findings = read(dir.path()).unwrap().findings;
    let counts: Vec<(&str, usize)> = findings
        .unread_files
        .iter()
        .map(|(k, &n)| (k.as_str(), n))
        .collect();
    assert_eq!(
        counts,
        [(".gif", 2), (".heic", 1), (".psd", 1), (".svg", 1)]
    );
    let notice = &findings.notices()[0];
    assert!(
        notice.starts_with("5 image files") && notice.contains("2 .gif"),
        "{notice}"
    );
}

#[test]
fn wrong_folders_are_explained() {
    type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str]);
    // Images, empty folders, and words of the message.
    let cases: [Case; 7] = [
        (&[], &[], &["no image", "DIR/train/CLASS"]),
        (&[], &["train/cat", "train/dog"], &["no image", "cat, dog"]),
        (
            &["train/cat/a.png"],
            &["train/cow", "train/dog"],
            &["train/cow", "without an image"],
        ),
        (
            &["train/cat/a.png", "test/cat/b.png"],
            &["train/cow", "test/dog"],
            &["train/cow, ", "test/dog;", "without an image"],
        ),
        (
            &["train/cat/a.png", "test/cow/b.png", "test/elk/b.png"],
            &[],
            &["cow, elk", "cat"],
        ),
        (&["test/cat/a.png"], &[], &["no folder train beside test"]),
        (
            &["val/cat/a.png", "cat/a.png"],
            &[],
            &["no folder train beside val"],
        ),
    ];
    for (images, folders, words) in cases {
        let dir = TempDir::new().unwrap();
        write(dir.path(), images);
        for folder in folders {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        let message = refusal(DataKind::Folder, dir.path());
        for word in words {
            assert!(message.contains(word), "'{word}' is not in: {message}");
        }
    }
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("imagenette2.tgz"), "x").unwrap();
    let message = refusal(DataKind::Folder, dir.path());
    assert!(
        message.contains("imagenette2.tgz") && message.contains("unpacked"),
        "{message}"
    );
}

#[test]
fn a_folder_that_is_absent_or_a_file_is_told_apart() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("data.tar.gz");
    fs::write(&file, "x").unwrap();
    for kind in [
        DataKind::Folder,
        DataKind::Cifar10,
        DataKind::Cifar100,
        DataKind::Stl10,
    ] {
        let message = refusal(kind, &dir.path().join("nowhere"));
        assert!(
            message.contains("nowhere") && message.contains("does not exist"),
            "{message}"
        );
        let message = refusal(kind, &file);
        assert!(message.contains("is a file: unpack it"), "{message}");
    }
}

// ---- CIFAR and STL-10 ------------------------------------------------------------------------

const PIXELS: usize = 3072;

/// The pixels of image `i` of file `file`.
fn cifar_pixels(file: usize, i: usize) -> Vec<u8> {
    (0..PIXELS)
        .map(|k| (file * 31 + i * 7 + k / 1024 * 60 + k % 13) as u8)
        .collect()
}

/// A pickle of protocol 2 as Python 2's cPickle writes CIFAR: a dictionary of an array of bytes and
/// a list of labels.
fn pickled_batch(labels_key: &str, labels: &[u8], pixels: &[u8]) -> Vec<u8> {
    let string = |text: &str| [&[b'U', text.len() as u8], text.as_bytes()].concat();
    let array = [
        b"cnumpy.core.multiarray\n_reconstruct\nq\x10cnumpy\nndarray\nq\x11K\x00\x85q\x12U\x01b\x87q\x13R(K\x01".to_vec(),
        [&b"M"[..], &(labels.len() as u16).to_le_bytes(), b"M\x00\x0c\x86"].concat(),
        b"cnumpy\ndtype\nq\x14U\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89".to_vec(),
        [&b"T"[..], &(pixels.len() as u32).to_le_bytes(), pixels, b"tb"].concat(),
    ]
    .concat();
    let list: Vec<u8> = labels.iter().flat_map(|&label| [b'K', label]).collect();
    [
        b"\x80\x02}q\x01(".to_vec(),
        string("data"),
        array,
        string(labels_key),
        b"]q\x05(".to_vec(),
        list,
        b"eu.".to_vec(),
    ]
    .concat()
}

fn pickled_names(key: &str, names: &[String]) -> Vec<u8> {
    let string = |text: &str| [&[b'U', text.len() as u8], text.as_bytes()].concat();
    let names: Vec<u8> = names.iter().flat_map(|name| string(name)).collect();
    [
        &b"\x80\x02}q\x01"[..],
        &string(key),
        b"]q\x02(",
        &names,
        b"es.",
    ]
    .concat()
}

/// The files of both versions of CIFAR-10 or CIFAR-100 with the same five images each, by name.
fn cifar_files(is_100: bool) -> [Vec<(String, Vec<u8>)>; 2] {
    let classes = if is_100 { 100 } else { 10 };
    let names: Vec<String> = (0..classes).map(|i| format!("class{i}")).collect();
    let stems: Vec<String> = match is_100 {
        true => ["train", "test"].map(String::from).to_vec(),
        false => (1..=5)
            .map(|i| format!("data_batch_{i}"))
            .chain(["test_batch".to_string()])
            .collect(),
    };
    let (mut binary, mut python) = (Vec::new(), Vec::new());
    for (number, stem) in stems.iter().enumerate() {
        let labels: Vec<u8> = (0..5).map(|i| ((number * 5 + i) % classes) as u8).collect();
        let images: Vec<Vec<u8>> = (0..5).map(|i| cifar_pixels(number, i)).collect();
        let records = labels.iter().zip(&images).flat_map(|(&label, pixels)| {
            let labels = if is_100 {
                vec![label / 5, label]
            } else {
                vec![label]
            };
            [labels, pixels.clone()].concat()
        });
        binary.push((format!("{stem}.bin"), records.collect()));
        let key = if is_100 { "fine_labels" } else { "labels" };
        python.push((stem.clone(), pickled_batch(key, &labels, &images.concat())));
    }
    let text = names.join("\n") + "\n\n";
    match is_100 {
        true => {
            binary.push(("fine_label_names.txt".to_string(), text.into_bytes()));
            python.push((
                "meta".to_string(),
                pickled_names("fine_label_names", &names),
            ));
        }
        false => {
            binary.push(("batches.meta.txt".to_string(), text.into_bytes()));
            python.push((
                "batches.meta".to_string(),
                pickled_names("label_names", &names),
            ));
        }
    }
    [binary, python]
}

fn write_files(dir: &Path, files: &[(String, Vec<u8>)]) {
    fs::create_dir_all(dir).unwrap();
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).unwrap();
    }
}

fn write_archive(path: &Path, folder: &str, files: &[(String, Vec<u8>)]) {
    let file = File::create(path).unwrap();
    let is_gzip = path.extension().unwrap() != "tar";
    let mut plain = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        plain
            .append_data(&mut header, format!("{folder}/{name}"), &bytes[..])
            .unwrap();
    }
    let bytes = plain.into_inner().unwrap();
    match is_gzip {
        true => {
            let mut encoder = GzEncoder::new(file, Compression::fast());
            std::io::Write::write_all(&mut encoder, &bytes).unwrap();
            encoder.finish().unwrap();
        }
        false => fs::write(path, bytes).unwrap(),
    }
}

#[test]
fn all_forms_of_cifar_are_the_same_data_set() {
    for (is_100, kind, folders) in [
        (
            false,
            DataKind::Cifar10,
            ["cifar-10-batches-bin", "cifar-10-batches-py"],
        ),
        (
            true,
            DataKind::Cifar100,
            ["cifar-100-binary", "cifar-100-python"],
        ),
    ] {
        let archives = match is_100 {
            true => ["cifar-100-binary.tar.gz", "cifar-100-python.tar"],
            false => ["cifar-10-binary.tgz", "cifar-10-python.tar.gz"],
        };
        let mut digests = Vec::new();
        for ((files, folder), archive) in cifar_files(is_100).iter().zip(folders).zip(archives) {
            let [inside, child, packed] = [(); 3].map(|()| TempDir::new().unwrap());
            write_files(inside.path(), files);
            write_files(&child.path().join(folder), files);
            write_archive(&packed.path().join(archive), folder, files);
            for dir in [&inside, &child, &packed] {
                let data = load(kind, Some(dir.path()), 0).unwrap();
                let test_number = if is_100 { 1 } else { 5 };
                assert_eq!(data.train.len(), 5 * test_number);
                let image = data.test.image(4).unwrap();
                assert_eq!(image, cifar_pixels(test_number, 4), "{folder}");
                assert_eq!(data.train.labels.as_ref().unwrap()[3], 3);
                assert_eq!(
                    data.classes.last().unwrap(),
                    if is_100 { "class99" } else { "class9" }
                );
                let short = &data.findings.short_files;
                assert_eq!(short.len(), test_number + 1);
                assert_eq!(short[0].records, 5);
                assert_eq!(short[0].published, if is_100 { 50_000 } else { 10_000 });
                digests.push(data.digest);
            }
        }
        assert_eq!(digests.len(), 6);
        assert!(
            digests.iter().all(|digest| *digest == digests[0]),
            "{digests:?}"
        );
    }
}

#[test]
fn damaged_forms_of_cifar_are_named() {
    let [binary, python] = cifar_files(false);
    let changed = |files: &[(String, Vec<u8>)], change: &dyn Fn(&mut Vec<u8>)| {
        let mut files = files.to_vec();
        change(&mut files[2].1);
        files
    };
    let call = b"cos\nsystem\nU\x04true\x85R.".to_vec();
    let mut label = python.clone();
    label[2].1 = pickled_batch("labels", &[0, 1, 2, 3, 10], &[0; 5 * PIXELS]);
    let mut fewer = python.clone();
    fewer[2].1 = pickled_batch("labels", &[0, 1, 2, 3], &[0; 5 * PIXELS]);
    let cases = [
        (
            changed(&python, &|b| b.truncate(9_000)),
            vec!["data_batch_3", "ends early"],
        ),
        (
            changed(&python, &|b| *b = call.clone()),
            vec!["data_batch_3", "os.system", "never executed"],
        ),
        (
            changed(&python, &|b| b.clear()),
            vec!["data_batch_3", "ends early"],
        ),
        (
            label,
            vec!["data_batch_3", "record 4", "label 10", "0 to 9"],
        ),
        (fewer, vec!["data_batch_3", "15,360", "4 labels"]),
        (
            python[1..].to_vec(),
            vec!["missing data_batch_1.", "cifar-10-python.tar.gz"],
        ),
        (
            binary[1..].to_vec(),
            vec!["missing data_batch_1.bin.", "cifar-10-binary.tar.gz"],
        ),
    ];
    for (files, words) in cases {
        let dir = TempDir::new().unwrap();
        write_files(dir.path(), &files);
        let message = refusal(DataKind::Cifar10, dir.path());
        for word in words {
            assert!(message.contains(word), "'{word}' is not in: {message}");
        }
    }
    // Archives: truncated, without a file, and of records that end early.
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("cifar-10-binary.tar.gz");
    let read = |files: &[(String, Vec<u8>)], end: Option<usize>| {
        write_archive(&path, "x", files);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..end.unwrap_or(bytes.len())]).unwrap();
        refusal(DataKind::Cifar10, dir.path())
    };
    assert!(read(&binary, Some(500)).contains("cannot be unpacked"));
    assert!(read(&binary[1..], None).contains("data_batch_1.bin"));
    let cut = changed(&binary, &|b| b.truncate(4_000));
    assert!(read(&cut, None).contains("4,000 bytes"));
}

#[test]
fn stl10_without_unlabelled_images_and_folds_serves_an_evaluation() {
    let dir = TempDir::new().unwrap();
    let names: String = (0..10).map(|i| format!("class{i}\n")).collect();
    fs::write(dir.path().join("class_names.txt"), names).unwrap();
    for (split, count) in [("train", 10), ("test", 3)] {
        let labels: Vec<u8> = (1..=count).collect();
        fs::write(dir.path().join(format!("{split}_y.bin")), labels).unwrap();
        let images = vec![7; usize::from(count) * 3 * 96 * 96];
        fs::write(dir.path().join(format!("{split}_X.bin")), images).unwrap();
    }
    let data = load(DataKind::Stl10, Some(dir.path()), 0).unwrap();
    assert_eq!((data.train.len(), data.test.len()), (10, 3));
    assert!(data.unlabelled.is_none() && data.folds.is_none());
    let error = data.check_pretraining().unwrap_err().to_string();
    assert!(error.contains("unlabeled_X.bin: does not exist"), "{error}");
    let short: Vec<(&str, usize)> = data
        .findings
        .short_files
        .iter()
        .map(|s| (s.file.as_str(), s.published))
        .collect();
    assert_eq!(short, [("train_X.bin", 5_000), ("test_X.bin", 8_000)]);

    let packed = TempDir::new().unwrap();
    fs::write(packed.path().join("stl10_binary.tar.gz"), "x").unwrap();
    let message = refusal(DataKind::Stl10, packed.path());
    assert!(
        message.contains("stl10_binary.tar.gz") && message.contains("tar -xf"),
        "{message}"
    );
}

#[test]
fn labels_of_other_classes_are_matched_by_name() {
    let dir = TempDir::new().unwrap();
    write(
        dir.path(),
        &[
            "train/cow/a.png",
            "train/ant/b.png",
            "test/cow/c.png",
            "test/ant/d.png",
        ],
    );
    let names = ["zebra", "cow", "bee", "ant"].map(String::from);
    let data = read(dir.path())
        .unwrap()
        .relabelled(&names, "the file")
        .unwrap();
    assert_eq!(data.train.labels, Some(vec![3, 1]), "ant, then cow");
    assert_eq!(data.test.labels, Some(vec![3, 1]));
    assert_eq!(data.absent_classes(), ["zebra", "bee"]);
    assert_eq!(data.test_members(1.0, 0).unwrap(), [0, 1]);
    let error = read(dir.path())
        .unwrap()
        .relabelled(&names[..3], "the file")
        .unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Usage(_)), "{message}");
    for class in ["ant", "zebra", "bee"] {
        assert!(message.contains(class), "{message}");
    }
}

#[test]
fn an_evaluation_sees_squares_of_images_that_are_not_square() {
    let dir = TempDir::new().unwrap();
    for name in ["a", "b"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
        let image = RgbImage::from_fn(48, 32, |x, y| Rgb([x as u8, y as u8, 9]));
        image.save(dir.path().join(name).join("x.png")).unwrap();
    }
    let wide = read(dir.path()).unwrap();
    let before = wide.digest.clone();
    let square = wide.at_resolution(32).unwrap();
    assert_eq!((square.train.width, square.train.height), (32, 32));
    assert_eq!(
        square.train.image(0).unwrap()[..3],
        [8, 9, 10],
        "the centre"
    );
    assert_ne!(square.digest, before);
    // Square images are left to the device.
    let same = square.clone().at_resolution(16).unwrap();
    assert_eq!((same.train.width, same.digest == square.digest), (32, true));
    let options = LoadOptions {
        size: Some(16),
        ..LoadOptions::default()
    };
    let sized = load_with(DataKind::Folder, Some(dir.path()), 0, &options).unwrap();
    let resized = read(dir.path()).unwrap().at_resolution(16).unwrap();
    assert_eq!(
        sized.digest, resized.digest,
        "--size and --resolution follow one rule"
    );
}
