//! Kinds of files that downloads and copies leave in place of weights or images.

/// Bytes at the start of a file by which its kind is recognised.
pub const SNIFFED_BYTES: usize = 4096;

/// A kind of file that is found in place of weights or images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    LfsPointer,
    Html,
    Xml,
    PyTorch,
    Other(&'static str),
}

impl FileKind {
    /// Recognises a file by its first bytes, of which [`SNIFFED_BYTES`] suffice.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let bytes = &bytes[..bytes.len().min(SNIFFED_BYTES)];
        let has = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        let words: String = String::from_utf8_lossy(&bytes[..bytes.len().min(256)])
            .trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
            .to_ascii_lowercase();
        let opens = |word: &str| words.starts_with(word);
        Some(if opens("version https://git-lfs") {
            FileKind::LfsPointer
        } else if opens("<!doctype html") || opens("<html") || opens("<head") || opens("<body") {
            FileKind::Html
        } else if opens("<?xml") || opens("<!--") || opens("<!doctype") {
            FileKind::Xml
        } else if bytes.starts_with(b"PK\x03\x04") {
            let of_pytorch: [&[u8]; 3] = [b"data.pkl", b"constants.pkl", b".data/serialization_id"];
            if of_pytorch.into_iter().any(has) {
                FileKind::PyTorch
            } else {
                FileKind::Other("a ZIP archive")
            }
        } else if matches!(bytes, [0x80, 2..=5, third, ..] if *third != 0) {
            FileKind::PyTorch
        } else {
            let kinds: [(&[u8], &str); 11] = [
                (b"\x1f\x8b", "a gzip archive"),
                (b"\xfd7zXZ", "an xz archive"),
                (b"\x28\xb5\x2f\xfd", "a zstd archive"),
                (b"\x89HDF\r\n", "an HDF5 file"),
                (b"\x93NUMPY", "a NumPy file"),
                (b"GGUF", "a GGUF file"),
                (b"\x89PNG\r\n", "a PNG image"),
                (b"\xff\xd8\xff", "a JPEG image"),
                (b"\x7fELF", "a program"),
                (b"%PDF-", "a PDF file"),
                (b"{\"", "a JSON file"),
            ];
            let kind = kinds.iter().find(|(start, _)| bytes.starts_with(start));
            FileKind::Other(kind?.1)
        })
    }

    /// The name of the kind, with its article.
    pub fn name(self) -> &'static str {
        match self {
            FileKind::LfsPointer => "a Git LFS pointer",
            FileKind::Html => "an HTML page",
            FileKind::Xml => "an XML page",
            FileKind::PyTorch => "a PyTorch file (pickle)",
            FileKind::Other(name) => name,
        }
    }
}
