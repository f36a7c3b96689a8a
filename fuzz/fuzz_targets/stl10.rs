//! STL-10's files.
#![no_main]

use std::fs;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use parallax::data::{DataKind, load};
use parallax_fuzz::Folder;

const IMAGE: usize = 3 * 96 * 96;

#[derive(Arbitrary, Debug)]
struct Input {
    /// Images of each split, and bytes behind them.
    train: (u8, u8),
    test: (u8, u8),
    unlabelled: Option<(u8, u8)>,
    /// If not given, a right label for each image.
    labels: [Option<Vec<u8>>; 2],
    names: Option<String>,
    folds: Option<Vec<Vec<u32>>>,
    raw_folds: Option<Vec<u8>>,
}

fuzz_target!(|input: Input| {
    thread_local!(static FOLDER: Folder = Folder::new());
    let pixels = |(images, rest): (u8, u8)| {
        let len = usize::from(images % 3) * IMAGE + usize::from(rest.saturating_sub(250));
        vec![7; len]
    };
    FOLDER.with(|folder| {
        let splits = [("train", input.train), ("test", input.test)];
        for ((name, images), labels) in splits.into_iter().zip(input.labels) {
            folder.write(&format!("{name}_X.bin"), &pixels(images));
            let labels = labels.unwrap_or_else(|| vec![1; usize::from(images.0 % 3)]);
            folder.write(&format!("{name}_y.bin"), &labels);
        }
        let right = || (0..10).map(|class| format!("class {class}\n")).collect();
        let names: String = input.names.unwrap_or_else(right);
        folder.write("class_names.txt", names.as_bytes());
        let folds = input.folds.map(|folds| {
            let words = |fold: &Vec<u32>| fold.iter().map(|n| format!("{n} ")).collect::<String>();
            folds
                .iter()
                .map(|fold| words(fold) + "\n")
                .collect::<String>()
                .into_bytes()
        });
        for (name, content) in [
            ("unlabeled_X.bin", input.unlabelled.map(pixels)),
            ("fold_indices.txt", input.raw_folds.or(folds)),
        ] {
            match content {
                Some(content) => drop(folder.write(name, &content)),
                None => drop(fs::remove_file(folder.path().join(name))),
            }
        }
        drop(load(DataKind::Stl10, Some(folder.path()), 0));
    });
});
