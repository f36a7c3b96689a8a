//! Tar archives, with gzip or without, as those of CIFAR-100.
#![no_main]

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use parallax::data::{DataKind, load};
use parallax_fuzz::Folder;

#[derive(Arbitrary, Debug)]
enum Input {
    /// Any bytes.
    Raw(Vec<u8>),
    /// Entries with right checksums.
    Entries {
        entries: Vec<Entry>,
        is_gzip: bool,
        cut: Option<u16>,
    },
}

#[derive(Arbitrary, Debug)]
struct Entry {
    name: Name,
    /// If not given, a regular file.
    kind: Option<u8>,
    /// If not given, the right size.
    size: Option<[u8; 12]>,
    content: Vec<u8>,
    /// Whether zeros fill the content to a whole record.
    is_record: bool,
    /// Fields that are replaced: the place in the header, and the byte.
    edits: Vec<(u16, u8)>,
}

#[derive(Arbitrary, Debug)]
enum Name {
    Train,
    Test,
    Classes,
    Any(Vec<u8>),
}

const BLOCK: usize = 512;

impl Entry {
    fn bytes(self) -> Vec<u8> {
        let mut content = self.content;
        if self.is_record {
            content.resize(content.len().next_multiple_of(3074), 0);
        }
        let mut header = [0; BLOCK];
        let name = match self.name {
            Name::Train => b"cifar-100-binary/train.bin".to_vec(),
            Name::Test => b"cifar-100-binary/test.bin".to_vec(),
            Name::Classes => b"fine_label_names.txt".to_vec(),
            Name::Any(name) => name,
        };
        let len = name.len().min(100);
        header[..len].copy_from_slice(&name[..len]);
        let size = format!("{:011o}\0", content.len());
        let size = self
            .size
            .unwrap_or(size.as_bytes().try_into().expect("12 bytes"));
        header[124..136].copy_from_slice(&size);
        header[156] = self.kind.unwrap_or(b'0');
        header[257..265].copy_from_slice(b"ustar\x0000");
        for (place, byte) in self.edits {
            header[usize::from(place) % BLOCK] = byte;
        }
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().copied().map(u32::from).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        content.resize(content.len().next_multiple_of(BLOCK), 0);
        [&header[..], &content].concat()
    }
}

fuzz_target!(|input: Input| {
    thread_local!(static FOLDER: Folder = Folder::new());
    let bytes = match input {
        Input::Raw(bytes) => bytes,
        Input::Entries {
            entries,
            is_gzip,
            cut,
        } => {
            let mut bytes: Vec<u8> = entries.into_iter().flat_map(Entry::bytes).collect();
            bytes.resize(bytes.len() + 2 * BLOCK, 0);
            if is_gzip {
                let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
                packed.write_all(&bytes).expect("memory can be written");
                bytes = packed.finish().expect("memory can be written");
            }
            bytes.truncate(cut.map_or(usize::MAX, usize::from));
            bytes
        }
    };
    FOLDER.with(|folder| {
        // Gzip is recognised by its first bytes, whatever the name is.
        folder.write("cifar-100-binary.tar", &bytes);
        drop(load(DataKind::Cifar100, Some(folder.path()), 0));
    });
});
