//! TensorBoard's files: event files of scalars and images, and the tables of its embedding
//! projector.
//!
//! An event file is a sequence of records in the frame of TFRecord: the number of bytes (u64), its
//! checksum, the bytes, their checksum. A record is a protocol buffer `Event` of TensorFlow's
//! `event.proto`. Numbers are little-endian, and checksums are masked CRC-32C.

use std::fs::{self, File, OpenOptions};
use std::io::{Cursor, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use image::{ImageFormat, RgbImage};

use super::whole_file::write_file;
use crate::error::{Error, Result};

/// With this the name of an event file starts.
const PREFIX: &str = "events.out.tfevents.";

/// An event file that is written. TensorBoard shows the files of a folder as one run.
pub struct TensorBoard {
    path: PathBuf,
    file: File,
}

impl TensorBoard {
    /// Creates a new event file in `folder`, which is created if it does not exist.
    ///
    /// # Errors
    /// `Error::Io` if folder or file cannot be written.
    pub fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::write(folder, e))?;
        let (seconds, process) = (wall_time() as u64, std::process::id());
        let mut number = 0;
        let (path, file) = loop {
            let name = format!("{PREFIX}{seconds:010}.parallax.{process}.{number}");
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (path, file),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => number += 1,
                Err(e) => return Err(Error::write(&path, e)),
            }
        };
        let mut board = TensorBoard { path, file };
        board.event(0, |event| bytes(event, 3, b"brain.Event:2"))?;
        Ok(board)
    }

    /// Whether `folder` has an event file.
    pub fn is_in(folder: &Path) -> bool {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        names.any(|name| name.to_string_lossy().starts_with(PREFIX))
    }

    /// Marks the start of a resumed training at `step`: TensorBoard drops what earlier files of the
    /// folder have for this step and later ones.
    ///
    /// # Errors
    /// `Error::Io` if the file cannot be written.
    pub fn resume_at(&mut self, step: u64) -> Result<()> {
        let mut start = Vec::new();
        integer(&mut start, 1, 1);
        self.event(step, |event| bytes(event, 7, &start))
    }

    /// Adds a point to the curve `tag`.
    ///
    /// # Errors
    /// `Error::Io` if the file cannot be written.
    pub fn scalar(&mut self, tag: &str, step: u64, value: f32) -> Result<()> {
        self.value(tag, step, |out| float(out, 2, value))
    }

    /// Adds an image of `width` x `height` pixels, red, green and blue in turn, row by row. It is
    /// stored as PNG.
    ///
    /// # Errors
    /// `Error::Usage` if the pixels are not those of such an image; `Error::Io` if the file cannot
    /// be written.
    pub fn image(
        &mut self,
        tag: &str,
        step: u64,
        [width, height]: [u32; 2],
        rgb: &[u8],
    ) -> Result<()> {
        let wrong = |what: String| Error::usage(format!("the image {tag}: {what}"));
        let expected = 3 * u128::from(width) * u128::from(height);
        let image = RgbImage::from_raw(width, height, rgb.to_vec())
            .filter(|_| expected > 0 && rgb.len() as u128 == expected)
            .ok_or_else(|| {
                wrong(format!(
                    "{} bytes; expected the {expected} of {width} x {height} pixels, at least one",
                    rgb.len()
                ))
            })?;
        let mut png = Cursor::new(Vec::new());
        image
            .write_to(&mut png, ImageFormat::Png)
            .map_err(|e| wrong(format!("it cannot be coded as PNG: {e}")))?;
        let mut image = Vec::new();
        integer(&mut image, 1, u64::from(height));
        integer(&mut image, 2, u64::from(width));
        // Three channels.
        integer(&mut image, 3, 3);
        bytes(&mut image, 4, png.get_ref());
        self.value(tag, step, |out| bytes(out, 4, &image))
    }

    /// Writes an event with a summary of one value, whose content `fill` appends.
    fn value(&mut self, tag: &str, step: u64, fill: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let (mut value, mut summary) = (Vec::new(), Vec::new());
        bytes(&mut value, 1, tag.as_bytes());
        fill(&mut value);
        bytes(&mut summary, 1, &value);
        self.event(step, |event| bytes(event, 5, &summary))
    }

    /// Writes an event, whose content `fill` appends. Readers see it at once.
    fn event(&mut self, step: u64, fill: impl FnOnce(&mut Vec<u8>)) -> Result<()> {
        let mut event = Vec::new();
        key(&mut event, 1, 1);
        event.extend(wall_time().to_le_bytes());
        integer(&mut event, 2, step);
        fill(&mut event);
        let len = (event.len() as u64).to_le_bytes();
        let mut record = Vec::with_capacity(event.len() + 16);
        record.extend(len);
        record.extend(checksum(&len).to_le_bytes());
        record.extend(&event);
        record.extend(checksum(&event).to_le_bytes());
        let written = self.file.write_all(&record);
        written.map_err(|e| Error::write(&self.path, e))
    }
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Vectors for TensorBoard's embedding projector.
pub struct Projection<'a> {
    pub name: &'a str,
    /// One row per point, row-major.
    pub vectors: &'a [f32],
    /// Elements of a row.
    pub width: usize,
    /// What is known of each point: a title, and one entry per row. Tabs and line breaks become
    /// spaces.
    pub columns: &'a [(&'a str, Vec<String>)],
    /// A picture of each point.
    pub sprite: Option<Sprite>,
}

/// The pictures of all points in one PNG file: square, row by row, without gaps, with as many
/// columns as rows or one more.
pub struct Sprite {
    pub png: Vec<u8>,
    /// Side in pixels of a picture.
    pub side: usize,
}

impl Projection<'_> {
    /// Writes `tensor.tsv`, `metadata.tsv` (if there are columns), `sprite.png` (if there are
    /// pictures) and `projector_config.pbtxt` to `folder`, which is created if it does not exist.
    ///
    /// # Errors
    /// `Error::Usage` if the vectors are no rows, or if a column has another number of entries;
    /// `Error::Io` if a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let (width, name) = (self.width, one_line(self.name));
        if self.vectors.is_empty() || width == 0 || !self.vectors.len().is_multiple_of(width) {
            return Err(Error::usage(format!(
                "the projection {name} has {} numbers; expected rows of {width}",
                self.vectors.len()
            )));
        }
        let rows = self.vectors.len() / width;
        if let Some((title, entries)) = self.columns.iter().find(|(_, e)| e.len() != rows) {
            return Err(Error::usage(format!(
                "the column {title} of the projection {name} has {} entries; expected one for each of {rows} rows",
                entries.len()
            )));
        }
        fs::create_dir_all(folder).map_err(|e| Error::write(folder, e))?;
        let line = |words: Vec<String>| words.join("\t") + "\n";
        let rows_of = |row: &[f32]| line(row.iter().map(f32::to_string).collect());
        let tensor: String = self.vectors.chunks(width).map(rows_of).collect();
        write_file(&folder.join("tensor.tsv"), tensor.as_bytes())?;
        let mut config = format!(
            "embeddings {{\n  tensor_name: {}\n  tensor_path: \"tensor.tsv\"\n",
            quoted(&name)
        );
        if !self.columns.is_empty() {
            let mut metadata = String::new();
            // The projector expects titles only if there are several columns.
            if self.columns.len() > 1 {
                let titles = self.columns.iter().map(|(title, _)| one_line(title));
                metadata += &line(titles.collect());
            }
            for row in 0..rows {
                let entries = self.columns.iter().map(|(_, e)| one_line(&e[row]));
                metadata += &line(entries.collect());
            }
            write_file(&folder.join("metadata.tsv"), metadata.as_bytes())?;
            config += "  metadata_path: \"metadata.tsv\"\n";
        }
        if let Some(Sprite { png, side }) = &self.sprite {
            write_file(&folder.join("sprite.png"), png)?;
            config += &format!(
                "  sprite {{\n    image_path: \"sprite.png\"\n    single_image_dim: {side}\n    \
                 single_image_dim: {side}\n  }}\n"
            );
        }
        config += "}\n";
        write_file(&folder.join("projector_config.pbtxt"), config.as_bytes())
    }
}

/// `text` without tabs and line breaks.
fn one_line(text: &str) -> String {
    text.replace(['\t', '\n', '\r'], " ")
}

/// A string of a text protocol buffer.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

// Fields of protocol buffers (https://protobuf.dev/programming-guides/encoding).

fn varint(out: &mut Vec<u8>, mut x: u64) {
    while x >= 0x80 {
        out.push(x as u8 | 0x80);
        x >>= 7;
    }
    out.push(x as u8);
}

fn key(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    varint(out, field << 3 | wire_type);
}

fn integer(out: &mut Vec<u8>, field: u64, x: u64) {
    key(out, field, 0);
    varint(out, x);
}

fn float(out: &mut Vec<u8>, field: u64, x: f32) {
    key(out, field, 5);
    out.extend(x.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    key(out, field, 2);
    varint(out, content.len() as u64);
    out.extend(content);
}

/// The remainders of CRC-32C (Castagnoli) for each byte, lowest bits first.
const REMAINDERS: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            remainder = (remainder >> 1) ^ (0x82f6_3b78 * (remainder & 1));
            bit += 1;
        }
        table[byte] = remainder;
        byte += 1;
    }
    table
};

/// The masked CRC-32C of TFRecord.
fn checksum(content: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| REMAINDERS[usize::from(crc as u8 ^ byte)] ^ (crc >> 8);
    let crc = !content.iter().fold(!0, step);
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field of a protocol buffer: its number and content. Numbers are their bits.
    #[derive(Clone, Debug, PartialEq)]
    enum Field {
        Number(u64, u64),
        Bytes(u64, Vec<u8>),
    }

    /// Removes a variable-length number from the start of `content`.
    fn take_varint(content: &mut &[u8]) -> u64 {
        let mut x = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = content.split_first().expect("a number ends");
            *content = rest;
            x |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return x;
            }
        }
        panic!("a number has more than ten bytes");
    }

    fn take<'a>(content: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (taken, rest) = content.split_at(count);
        *content = rest;
        taken
    }

    fn fields(mut content: &[u8]) -> Vec<Field> {
        let mut found = Vec::new();
        while !content.is_empty() {
            let key = take_varint(&mut content);
            let little_endian = |bytes: &[u8]| {
                let bytes = bytes.iter().rev();
                bytes.fold(0, |x, &byte| x << 8 | u64::from(byte))
            };
            found.push(match key & 7 {
                0 => Field::Number(key >> 3, take_varint(&mut content)),
                1 => Field::Number(key >> 3, little_endian(take(&mut content, 8))),
                5 => Field::Number(key >> 3, little_endian(take(&mut content, 4))),
                2 => {
                    let len = take_varint(&mut content) as usize;
                    Field::Bytes(key >> 3, take(&mut content, len).to_vec())
                }
                other => panic!("wire type {other}"),
            });
        }
        found
    }

    /// CRC-32C bit by bit, as the polynomial is written: x^32 + x^28 + x^27 + ... + 1.
    fn crc_by_bits(content: &[u8]) -> u32 {
        let mut remainder = u32::MAX;
        for byte in content {
            for bit in 0..8 {
                let is_set = (remainder >> 31) ^ u32::from(byte >> bit & 1);
                remainder = (remainder << 1) ^ (is_set * 0x1edc_6f41);
            }
        }
        !remainder.reverse_bits()
    }

    /// The masked checksum of TFRecord.
    fn masked_by_bits(content: &[u8]) -> u32 {
        crc_by_bits(content)
            .rotate_right(15)
            .wrapping_add(0xa282_ead8)
    }

    /// The contents of the records of a file, whose frames are checked.
    fn records(mut content: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let check = |content: &[u8], stored: &[u8]| {
            assert_eq!(stored, masked_by_bits(content).to_le_bytes());
        };
        while !content.is_empty() {
            let len = take(&mut content, 8);
            check(len, take(&mut content, 4));
            let len = u64::from_le_bytes(len.try_into().unwrap());
            let record = take(&mut content, len as usize);
            check(record, take(&mut content, 4));
            found.push(record.to_vec());
        }
        found
    }

    /// Step and summary of an event, whose time is checked.
    fn event(record: &[u8]) -> (u64, Field) {
        let all = fields(record);
        let [Field::Number(1, time), Field::Number(2, step), content] = &all[..] else {
            panic!("{all:?}");
        };
        let age = wall_time() - f64::from_bits(*time);
        assert!((0.0..3600.0).contains(&age), "{age}");
        (*step, content.clone())
    }

    /// The fields of the only value of a summary, after its tag.
    fn value(content: &Field, tag: &str) -> Vec<Field> {
        let Field::Bytes(5, summary) = content else {
            panic!("{content:?}");
        };
        let [Field::Bytes(1, value)] = &fields(summary)[..] else {
            panic!("{summary:?}");
        };
        let mut value = fields(value);
        assert_eq!(value.remove(0), Field::Bytes(1, tag.as_bytes().to_vec()));
        value
    }

    /// A temporary folder, or the one that scripts/tensorboard_check.py reads afterwards.
    fn folder() -> (PathBuf, Option<tempfile::TempDir>) {
        match std::env::var_os("PARALLAX_TENSORBOARD_CHECK") {
            Some(path) => (path.into(), None),
            None => {
                let base = tempfile::tempdir().unwrap();
                (base.path().join("run"), Some(base))
            }
        }
    }

    #[test]
    fn checksums_are_those_of_castagnoli() {
        assert_eq!(crc_by_bits(b"123456789"), 0xe306_9283);
        for content in [&b""[..], b"a", b"123456789", &[0; 32], &[255; 32]] {
            assert_eq!(checksum(content), masked_by_bits(content));
        }
    }

    #[test]
    fn events_are_read_back() {
        let (folder, _base) = folder();
        let mut board = TensorBoard::open(&folder).unwrap();
        for step in 0..5 {
            board.scalar("loss", step, 5.0 - step as f32).unwrap();
        }
        board.scalar("knn/top1", 1 << 40, f32::NAN).unwrap();
        let rgb: Vec<u8> = (0..3 * 5 * 4).map(|i| 4 * i as u8).collect();
        board.image("views", 3, [5, 4], &rgb).unwrap();
        // A resumed training drops the loss of steps 3 and 4.
        let mut again = TensorBoard::open(&folder).unwrap();
        assert_ne!(board.path, again.path);
        again.resume_at(3).unwrap();
        again.scalar("loss", 3, 1.5).unwrap();

        let all = records(&fs::read(&board.path).unwrap());
        assert_eq!(all.len(), 8);
        let version = Field::Bytes(3, b"brain.Event:2".to_vec());
        assert_eq!(event(&all[0]), (0, version.clone()));
        for step in 0..5 {
            let (found, content) = event(&all[1 + step as usize]);
            let bits = (5.0 - step as f32).to_bits();
            assert_eq!(found, step);
            assert_eq!(value(&content, "loss"), [Field::Number(2, bits.into())]);
        }
        let (step, content) = event(&all[6]);
        assert_eq!(step, 1 << 40);
        let bits = f32::NAN.to_bits().into();
        assert_eq!(value(&content, "knn/top1"), [Field::Number(2, bits)]);
        let (step, content) = event(&all[7]);
        assert_eq!(step, 3);
        let [Field::Bytes(4, image)] = &value(&content, "views")[..] else {
            panic!("{content:?}");
        };
        let [
            Field::Number(1, 4),
            Field::Number(2, 5),
            Field::Number(3, 3),
            Field::Bytes(4, png),
        ] = &fields(image)[..]
        else {
            panic!("{image:?}");
        };
        let image = image::load_from_memory_with_format(png, ImageFormat::Png).unwrap();
        assert_eq!(image.to_rgb8().into_raw(), rgb);

        let all = records(&fs::read(&again.path).unwrap());
        assert_eq!(event(&all[0]), (0, version));
        let start = [Field::Number(1, 1)];
        let (step, Field::Bytes(7, session)) = event(&all[1]) else {
            panic!("{all:?}");
        };
        assert_eq!((step, fields(&session)), (3, start.to_vec()));
        assert_eq!(event(&all[2]).0, 3);
    }

    #[test]
    fn an_image_of_other_bytes_is_refused() {
        let base = tempfile::tempdir().unwrap();
        let mut board = TensorBoard::open(base.path()).unwrap();
        for (size, bytes) in [([2, 2], 11), ([2, 2], 13), ([0, 0], 0), ([u32::MAX; 2], 12)] {
            let error = board.image("views", 0, size, &vec![0; bytes]).unwrap_err();
            assert!(error.to_string().contains("views"), "{error}");
        }
        // Nothing of them is written.
        assert_eq!(records(&fs::read(&board.path).unwrap()).len(), 1);
    }

    #[test]
    fn a_projection_has_three_files() {
        let (folder, _base) = folder();
        let folder = folder.join("projection");
        let words = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
        let mut projection = Projection {
            name: "the \"features\"",
            vectors: &[0.5, -1.0, 2e-8, 3.0, 0.0, 1e10],
            width: 2,
            columns: &[
                ("class", words(&["cat", "dog", "cat"])),
                ("file", words(&["a.png", "b\tc.png", "d\n.png"])),
            ],
            sprite: Some(Sprite {
                png: vec![1, 2],
                side: 4,
            }),
        };
        projection.write(&folder).unwrap();
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(
            read("tensor.tsv"),
            "0.5\t-1\n0.00000002\t3\n0\t10000000000\n"
        );
        assert_eq!(
            read("metadata.tsv"),
            "class\tfile\ncat\ta.png\ndog\tb c.png\ncat\td .png\n"
        );
        assert_eq!(
            read("projector_config.pbtxt"),
            "embeddings {\n  tensor_name: \"the \\\"features\\\"\"\n  tensor_path: \"tensor.tsv\"\n  \
             metadata_path: \"metadata.tsv\"\n  sprite {\n    image_path: \"sprite.png\"\n    single_image_dim: \
             4\n    single_image_dim: 4\n  }\n}\n"
        );
        assert_eq!(fs::read(folder.join("sprite.png")).unwrap(), [1, 2]);

        let base = tempfile::tempdir().unwrap();
        projection.columns = &projection.columns[..1];
        projection.write(base.path()).unwrap();
        let only = fs::read_to_string(base.path().join("metadata.tsv")).unwrap();
        assert_eq!(only, "cat\ndog\ncat\n");
        for width in [0, 4] {
            projection.width = width;
            assert!(projection.write(base.path()).is_err());
        }
        (projection.width, projection.vectors) = (1, &[1.0, 2.0]);
        let error = projection.write(base.path()).unwrap_err().to_string();
        assert!(error.contains("class") && error.contains('3'), "{error}");
    }
}
