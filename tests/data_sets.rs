//! Reading CIFAR-10, STL-10 and class folders: what right files give, and what each wrong one says.
//!
//! The files are written here, small and by hand. Where the environment variable PARALLAX_DATA
//! names a folder that holds `cifar-10-batches-bin`, `stl10_binary` or `imagenette96`, those are
//! read too.

use std::fs;
use std::path::Path;

use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use parallax::data::{DataKind, Dataset, load};
use parallax::{Error, Result};
use tempfile::TempDir;

const CIFAR_FILES: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];
const STL_IMAGE: usize = 3 * 96 * 96;

fn read(kind: DataKind, dir: &Path) -> Result<Dataset> {
    load(kind, Some(dir), 0)
}

/// The message of the [`Error::Data`] that reading `dir` ends in; panics unless it contains all of
/// `words`.
fn expect_data_error(kind: DataKind, dir: &Path, words: &[&str]) {
    let error = read(kind, dir).expect_err("the files are wrong");
    assert!(matches!(error, Error::Data { .. }), "{error:?}");
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "'{word}' is not in: {message}");
    }
}

fn ten_names() -> String {
    (0..10).map(|i| format!("class{i}\n")).collect()
}

/// A record whose red bytes are `label`, green bytes 100 and blue bytes 200, but for red at row 1,
/// column 2: 77.
fn cifar_record(label: u8) -> Vec<u8> {
    let mut record = vec![label];
    for value in [label, 100, 200] {
        record.extend([value; 1024]);
    }
    record[1 + 32 + 2] = 77;
    record
}

/// Six batches of two records each, with the labels 2i and 2i + 1 modulo 10 in batch i.
fn write_cifar(dir: &Path) {
    fs::write(dir.join("batches.meta.txt"), ten_names() + "\n").unwrap();
    for (i, name) in CIFAR_FILES.iter().enumerate() {
        let first = (2 * i % 10) as u8;
        fs::write(
            dir.join(name),
            [cifar_record(first), cifar_record(first + 1)].concat(),
        )
        .unwrap();
    }
}

#[test]
fn cifar10_gives_planes_labels_and_names() {
    let dir = TempDir::new().unwrap();
    write_cifar(dir.path());
    let data = read(DataKind::Cifar10, dir.path()).unwrap();
    assert_eq!(data.name, "CIFAR-10");
    assert_eq!(
        (data.classes.len(), data.classes[3].as_str()),
        (10, "class3")
    );
    assert_eq!((data.train.len(), data.test.len()), (10, 2));
    assert_eq!((data.train.height, data.train.width), (32, 32));
    assert_eq!(data.train.labels, Some((0..10).collect()));
    assert_eq!(data.test.labels, Some(vec![0, 1]));
    let image = data.train.image(7).unwrap();
    assert_eq!(
        [image[0], image[1024], image[2048]],
        [7, 100, 200],
        "red, green, blue"
    );
    assert_eq!(
        (image[32 + 2], image[2 * 32 + 1]),
        (77, 7),
        "row 1, column 2 and not the other way round"
    );
    assert_eq!(data.pretraining().len(), 10);
    assert!(data.unlabelled.is_none() && data.folds.is_none());
}

#[test]
fn cifar10_is_found_in_the_folder_that_its_archive_makes() {
    let dir = TempDir::new().unwrap();
    let child = dir.path().join("cifar-10-batches-bin");
    fs::create_dir(&child).unwrap();
    write_cifar(&child);
    assert_eq!(read(DataKind::Cifar10, dir.path()).unwrap().train.len(), 10);
}

#[test]
fn a_name_beside_the_files_is_the_name() {
    let dir = TempDir::new().unwrap();
    write_cifar(dir.path());
    fs::write(dir.path().join("dataset-name.txt"), "CIFAR-10, a copy \n").unwrap();
    assert_eq!(
        read(DataKind::Cifar10, dir.path()).unwrap().name,
        "CIFAR-10, a copy"
    );
    fs::write(dir.path().join("dataset-name.txt"), "\n").unwrap();
    assert_eq!(
        read(DataKind::Cifar10, dir.path()).unwrap().name,
        "CIFAR-10"
    );
}

#[test]
fn the_digest_follows_the_bytes() {
    let dir = TempDir::new().unwrap();
    write_cifar(dir.path());
    let digest = || read(DataKind::Cifar10, dir.path()).unwrap().digest;
    let before = digest();
    assert_eq!(before, digest());
    let path = dir.path().join("test_batch.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_ne!(before, digest());
}

#[test]
fn missing_cifar10_files_are_named_with_address_and_sizes() {
    let dir = TempDir::new().unwrap();
    let address = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz";
    let absent = dir.path().join("nowhere");
    expect_data_error(
        DataKind::Cifar10,
        &absent,
        &["nowhere", address, "30,730,000 bytes"],
    );
    write_cifar(dir.path());
    fs::remove_file(dir.path().join("data_batch_3.bin")).unwrap();
    let words = [
        "missing data_batch_3.bin.",
        address,
        "test_batch.bin (30,730,000 bytes)",
    ];
    expect_data_error(DataKind::Cifar10, dir.path(), &words);
}

#[test]
fn truncated_and_empty_cifar10_files_are_refused() {
    let dir = TempDir::new().unwrap();
    write_cifar(dir.path());
    let path = dir.path().join("data_batch_4.bin");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..6_000]).unwrap();
    let words = [
        "data_batch_4.bin",
        "6,000 bytes",
        "3,073",
        "30,730,000",
        "truncated",
    ];
    expect_data_error(DataKind::Cifar10, dir.path(), &words);
    fs::write(&path, []).unwrap();
    expect_data_error(
        DataKind::Cifar10,
        dir.path(),
        &["data_batch_4.bin", "empty", "3,073"],
    );
}

#[test]
fn a_cifar10_label_out_of_range_is_named_with_its_record() {
    let dir = TempDir::new().unwrap();
    write_cifar(dir.path());
    let path = dir.path().join("data_batch_2.bin");
    fs::write(&path, [cifar_record(9), cifar_record(10)].concat()).unwrap();
    expect_data_error(
        DataKind::Cifar10,
        dir.path(),
        &["data_batch_2.bin", "record 1", "label 10", "0 to 9"],
    );
}

#[test]
fn class_names_must_be_ten() {
    let dir = TempDir::new().unwrap();
    write_cifar(dir.path());
    fs::write(dir.path().join("batches.meta.txt"), "cat\ndog\n").unwrap();
    expect_data_error(
        DataKind::Cifar10,
        dir.path(),
        &["batches.meta.txt", "2 class names", "10"],
    );
}

/// An image whose planes are 1, 2 and 3, but for the green pixel at row 5, column 90: 50.
fn stl_image() -> Vec<u8> {
    let mut image: Vec<u8> = [1u8, 2, 3]
        .into_iter()
        .flat_map(|value| [value; 96 * 96])
        .collect();
    // A column of 96 rows comes before the next column.
    image[96 * 96 + 90 * 96 + 5] = 50;
    image
}

/// Ten training, three test and two unlabelled images.
fn write_stl(dir: &Path) {
    fs::write(dir.join("class_names.txt"), ten_names()).unwrap();
    let folds: String = (0..10).map(|i| format!("{i} {}\n", (i + 1) % 10)).collect();
    fs::write(dir.join("fold_indices.txt"), folds).unwrap();
    for (name, count) in [
        ("train_X.bin", 10),
        ("test_X.bin", 3),
        ("unlabeled_X.bin", 2),
    ] {
        fs::write(dir.join(name), stl_image().repeat(count)).unwrap();
    }
    fs::write(dir.join("train_y.bin"), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]).unwrap();
    fs::write(dir.join("test_y.bin"), [10, 1, 5]).unwrap();
}

#[test]
fn stl10_is_transposed_and_its_labels_start_at_0() {
    let dir = TempDir::new().unwrap();
    write_stl(dir.path());
    let data = read(DataKind::Stl10, dir.path()).unwrap();
    assert_eq!(data.name, "STL-10");
    assert_eq!(data.train.labels, Some((0..10).collect()));
    assert_eq!(data.test.labels, Some(vec![9, 0, 4]));
    let unlabelled = data.unlabelled.as_ref().unwrap();
    assert_eq!(
        (data.train.len(), data.test.len(), unlabelled.len()),
        (10, 3, 2)
    );
    assert!(unlabelled.labels.is_none());
    for split in [&data.train, &data.test, unlabelled] {
        let image = split.image(1).unwrap();
        assert_eq!(
            [image[0], image[9216], image[2 * 9216]],
            [1, 2, 3],
            "red, green, blue"
        );
        assert_eq!(image[9216 + 5 * 96 + 90], 50, "row 5, column 90");
        assert_eq!(image[9216 + 90 * 96 + 5], 2, "row 90, column 5");
    }
    assert_eq!(data.pretraining().len(), 2);
    let folds = data.folds.unwrap();
    assert_eq!(
        (folds.len(), folds[9].as_slice()),
        (10, [9u32, 0].as_slice())
    );
}

#[test]
fn stl10_is_found_in_the_folder_that_its_archive_makes() {
    let dir = TempDir::new().unwrap();
    let child = dir.path().join("stl10_binary");
    fs::create_dir(&child).unwrap();
    write_stl(&child);
    fs::write(child.join("dataset-name.txt"), "A stand-in").unwrap();
    assert_eq!(
        read(DataKind::Stl10, dir.path()).unwrap().name,
        "A stand-in"
    );
}

#[test]
fn each_wrong_stl10_file_is_named() {
    let one_off = stl_image()[1..].to_vec();
    /// What a file holds (nothing where it is missing), and words that the error must have.
    type Case<'a> = (&'a str, Option<Vec<u8>>, &'a [&'a str]);
    let cases: [Case; 8] = [
        (
            "train_y.bin",
            None,
            &[
                "missing train_y.bin",
                "http://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
                "train_X.bin (138,240,000 bytes)",
                "unlabeled_X.bin (2,764,800,000 bytes)",
            ],
        ),
        (
            "test_X.bin",
            Some(one_off),
            &["test_X.bin", "27,647 bytes", "27,648"],
        ),
        (
            "unlabeled_X.bin",
            Some(vec![]),
            &["unlabeled_X.bin", "empty"],
        ),
        (
            "test_y.bin",
            Some(vec![1, 0, 2]),
            &["test_y.bin", "record 1", "label 0", "1 to 10"],
        ),
        (
            "test_y.bin",
            Some(vec![1, 2, 11]),
            &["test_y.bin", "record 2", "label 11"],
        ),
        (
            "test_y.bin",
            Some(vec![1, 2]),
            &["test_y.bin", "2 labels", "3 images"],
        ),
        (
            "fold_indices.txt",
            Some(b"1 2\n3\n".to_vec()),
            &["fold_indices.txt", "2 lines", "10"],
        ),
        (
            "fold_indices.txt",
            Some("0\n10\n".repeat(5).into_bytes()),
            &["line 2", "'10'", "0 to 9"],
        ),
    ];
    for (name, content, words) in cases {
        let dir = TempDir::new().unwrap();
        write_stl(dir.path());
        match content {
            Some(content) => fs::write(dir.path().join(name), content).unwrap(),
            None => fs::remove_file(dir.path().join(name)).unwrap(),
        }
        expect_data_error(DataKind::Stl10, dir.path(), words);
    }
    assert_eq!(stl_image().len(), STL_IMAGE);
}

fn save(path: &Path, image: impl Into<DynamicImage>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.into().save(path).unwrap();
}

/// 4 x 2 pixels of one colour, but for column 3 of row 1: (9, 8, 7).
fn small(colour: [u8; 3]) -> RgbImage {
    let mut image = RgbImage::from_pixel(4, 2, Rgb(colour));
    image.put_pixel(3, 1, Rgb([9, 8, 7]));
    image
}

fn write_folder(dir: &Path) {
    save(&dir.join("train/dog/a.png"), small([1, 2, 3]));
    save(&dir.join("train/cat/b.png"), small([4, 5, 6]));
    save(&dir.join("train/cat/a.PNG"), small([7, 8, 9]));
    save(&dir.join("test/dog/x.png"), small([10, 11, 12]));
    save(&dir.join("test/cat/x.png"), small([13, 14, 15]));
}

#[test]
fn folders_give_sorted_classes_and_files() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("pets");
    write_folder(&root);
    fs::write(root.join("train/cat/notes.txt"), "not an image").unwrap();
    fs::write(root.join("train/.hidden"), "").unwrap();
    let data = read(DataKind::Folder, &root).unwrap();
    assert_eq!(data.name, "pets");
    assert_eq!(data.classes, ["cat", "dog"]);
    assert_eq!(data.train.labels, Some(vec![0, 0, 1]));
    assert_eq!(data.test.labels, Some(vec![0, 1]));
    assert_eq!((data.train.height, data.train.width), (2, 4));
    let image = data.train.image(0).unwrap();
    assert_eq!(
        [image[0], image[8], image[16]],
        [7, 8, 9],
        "a.PNG comes first; red, green, blue"
    );
    assert_eq!(
        [image[7], image[15], image[23]],
        [9, 8, 7],
        "the last pixel of each plane"
    );
    assert_eq!(data.train.image(2).unwrap()[0], 1);
    fs::write(root.join("dataset-name.txt"), "Cats and dogs\n").unwrap();
    assert_eq!(read(DataKind::Folder, &root).unwrap().name, "Cats and dogs");
}

#[test]
fn grey_alpha_and_jpeg_become_rgb() {
    let dir = TempDir::new().unwrap();
    write_folder(dir.path());
    let train = dir.path().join("train/cat");
    save(
        &train.join("c.png"),
        GrayImage::from_pixel(4, 2, Luma([40])),
    );
    save(
        &train.join("d.png"),
        RgbaImage::from_pixel(4, 2, Rgba([50, 60, 70, 0])),
    );
    save(
        &train.join("e.jpeg"),
        RgbImage::from_pixel(4, 2, Rgb([90, 90, 90])),
    );
    // A JPEG by another name.
    fs::copy(train.join("e.jpeg"), train.join("f.png")).unwrap();
    let data = read(DataKind::Folder, dir.path()).unwrap();
    let colour = |i: usize| [0, 8, 16].map(|start| data.train.image(i).unwrap()[start]);
    assert_eq!(colour(2), [40, 40, 40]);
    assert_eq!(colour(3), [50, 60, 70]);
    assert!(
        colour(4).iter().all(|v| v.abs_diff(90) <= 2),
        "{:?}",
        colour(4)
    );
    assert_eq!(colour(5), colour(4));
}

#[test]
fn each_wrong_folder_is_explained() {
    let layout = "DIR/train/CLASS/...";
    /// How a folder is spoilt, and words that the error must have.
    type Case<'a> = (&'a str, fn(&Path), &'a [&'a str]);
    let cases: [Case; 6] = [
        (
            "no train",
            |d| fs::remove_dir_all(d.join("train")).unwrap(),
            &["no folder train", layout],
        ),
        (
            "a class of test only",
            |d| save(&d.join("test/cow/a.png"), small([0; 3])),
            &["cow", "cat, dog"],
        ),
        (
            "an empty class",
            |d| fs::create_dir(d.join("train/ant")).unwrap(),
            &["ant", "without an image"],
        ),
        (
            "another size",
            |d| save(&d.join("test/cat/y.png"), RgbImage::new(2, 4)),
            &["2 x 4", "4 x 2", "--size"],
        ),
        (
            "not an image",
            |d| fs::write(d.join("train/dog/b.jpg"), "hello").unwrap(),
            &["b.jpg", "not an image"],
        ),
        (
            "a truncated image",
            |d| {
                let path = d.join("train/dog/a.png");
                let bytes = fs::read(&path).unwrap();
                fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
            },
            &["a.png", "ends early"],
        ),
    ];
    for (name, spoil, words) in cases {
        eprintln!("{name}");
        let dir = TempDir::new().unwrap();
        write_folder(dir.path());
        spoil(dir.path());
        expect_data_error(DataKind::Folder, dir.path(), words);
    }
}

#[test]
fn real_files_are_read_where_there_are_any() {
    let Some(root) = std::env::var_os("PARALLAX_DATA") else {
        eprintln!("PARALLAX_DATA is not set: no real data set was read");
        return;
    };
    let root = Path::new(&root);
    for (kind, child) in [
        (DataKind::Cifar10, "cifar-10-batches-bin"),
        (DataKind::Stl10, "stl10_binary"),
        (DataKind::Folder, "imagenette96"),
    ] {
        if !root.join(child).is_dir() {
            eprintln!("{} has no {child}: not read", root.display());
            continue;
        }
        let data = read(kind, &root.join(child)).unwrap();
        let unlabelled = data.unlabelled.as_ref().map_or(0, |split| split.len());
        eprintln!(
            "{}: {} training, {} test, {unlabelled} unlabelled images, {}",
            data.name,
            data.train.len(),
            data.test.len(),
            data.classes.join(" ")
        );
        assert_eq!(data.classes.len(), 10);
        for split in [&data.train, &data.test] {
            let labels = split.labels.as_ref().unwrap();
            assert_eq!(labels.len(), split.len());
            assert!((0..10).all(|class| labels.contains(&class)));
        }
        for split in [
            Some(&data.train),
            Some(&data.test),
            data.unlabelled.as_ref(),
        ]
        .into_iter()
        .flatten()
        {
            // Neighbours in a natural image are alike in both directions; bytes in a wrong order
            // are not.
            assert!(
                roughness(split, 1) < 20.0 && roughness(split, split.width) < 20.0,
                "{child}"
            );
        }
    }
}

/// The mean difference of bytes `distance` apart over the first 100 images.
fn roughness(split: &parallax::data::Split, distance: usize) -> f64 {
    let pixels = split.pixels().unwrap();
    let bytes = &pixels[..split.image_bytes() * split.len().min(100)];
    let pairs = bytes.iter().zip(&bytes[distance..]);
    pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / bytes.len() as f64
}
