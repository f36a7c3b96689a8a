//! The binary versions of CIFAR-10 and CIFAR-100.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use parallax::data::{DataKind, load};
use parallax_fuzz::Folder;

#[derive(Arbitrary, Debug)]
struct Input {
    is_cifar100: bool,
    /// Labels and first pixels of the records, whose other pixels are 0.
    records: Vec<[u8; 4]>,
    /// Bytes behind the last record.
    rest: Vec<u8>,
    /// If not given, names that are right.
    names: Option<String>,
}

fuzz_target!(|input: Input| {
    thread_local!(static FOLDERS: [Folder; 2] = [Folder::new(), Folder::new()]);
    let (kind, record, classes) = match input.is_cifar100 {
        false => (DataKind::Cifar10, 3073, 10),
        true => (DataKind::Cifar100, 3074, 100),
    };
    let mut bytes = Vec::new();
    for start in &input.records {
        bytes.extend(start);
        bytes.resize(bytes.len().next_multiple_of(record), 0);
    }
    bytes.extend(input.rest);
    let right = || {
        (0..classes)
            .map(|class| format!("class {class}\n"))
            .collect()
    };
    let names: String = input.names.unwrap_or_else(right);
    FOLDERS.with(|folders| {
        let folder = &folders[usize::from(input.is_cifar100)];
        let (files, names_file): (&[&str], _) = match input.is_cifar100 {
            false => (
                &[
                    "data_batch_1.bin",
                    "data_batch_2.bin",
                    "data_batch_3.bin",
                    "data_batch_4.bin",
                    "data_batch_5.bin",
                    "test_batch.bin",
                ],
                "batches.meta.txt",
            ),
            true => (&["train.bin", "test.bin"], "fine_label_names.txt"),
        };
        folder.write_all(files, &bytes);
        folder.write(names_file, names.as_bytes());
        drop(load(kind, Some(folder.path()), 0));
    });
});
