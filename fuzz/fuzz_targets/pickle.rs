//! Pickles, as the Python version of CIFAR-100.
#![no_main]

use libfuzzer_sys::fuzz_target;
use parallax::data::{DataKind, load};
use parallax_fuzz::Folder;

fuzz_target!(|bytes: &[u8]| {
    thread_local!(static FOLDER: Folder = Folder::new());
    // The first byte decides whether the names of the classes are right, so that the pickles of
    // images are read.
    let Some((&first, bytes)) = bytes.split_first() else {
        return;
    };
    let names = format!("(dS'fine_label_names'\n(l{}s.", "Vx\na".repeat(100));
    let meta = if first % 2 == 0 {
        names.as_bytes()
    } else {
        bytes
    };
    FOLDER.with(|folder| {
        folder.write("meta", meta);
        folder.write_all(&["train", "test"], bytes);
        drop(load(DataKind::Cifar100, Some(folder.path()), 0));
    });
});
