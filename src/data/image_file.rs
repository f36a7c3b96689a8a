//! One image file: which kind it is, how large the image is, and its pixels. The content decides
//! the format, not the name.

use std::fs;
use std::io::{Cursor, ErrorKind};
use std::path::Path;

use image::error::ImageError;
use image::metadata::Orientation;
use image::{DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::files::thousands;
use crate::file_kind::FileKind;

/// Suffixes of the files that are read: those of torchvision's `ImageFolder`, and two more names of
/// JPEG.
const READ: [&str; 11] = [
    "jpg", "jpeg", "jpe", "jfif", "png", "ppm", "pgm", "bmp", "tif", "tiff", "webp",
];
/// Suffixes of image files that are not read.
const UNREAD: [&str; 10] = [
    "gif", "heic", "heif", "avif", "jp2", "jxl", "svg", "ico", "psd", "dng",
];

/// Pixels of the largest image that is read: the limit of Pillow.
const MOST_PIXELS: u64 = 178_956_970;
/// Bytes that a decoder may allocate: 16-bit pixels with transparency, twice.
const MOST_BYTES: u64 = 16 * MOST_PIXELS;

/// The kind of a file, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suffix {
    Read,
    /// An image that is not read.
    Unread(&'static str),
    Other,
}

/// Whether the file at `path` is read, by its name. The letter case does not matter.
pub fn suffix(path: &Path) -> Suffix {
    let Some(word) = path.extension().and_then(|word| word.to_str()) else {
        return Suffix::Other;
    };
    let word = word.to_ascii_lowercase();
    if READ.contains(&word.as_str()) {
        return Suffix::Read;
    }
    let unread = UNREAD.into_iter().find(|&known| known == word);
    unread.map_or(Suffix::Other, Suffix::Unread)
}

/// A decoded image, upright and without transparency.
pub struct Picture {
    pub image: RgbImage,
    /// Whether its EXIF orientation turned or mirrored it.
    pub is_turned: bool,
    /// Whether it had a pixel that was not opaque.
    pub was_transparent: bool,
}

/// Decodes the whole file at `path`. Grey becomes RGB, transparency is dropped as by torchvision's
/// loader, and the orientation of the metadata is applied.
///
/// # Errors
/// The reason, in a few words, if the file is not a whole image of a supported format.
pub fn read(path: &Path) -> Result<Picture, String> {
    let bytes = content(path)?;
    let opened = open(&bytes)?;
    let (image, orientation) = match opened.format() {
        Some(ImageFormat::Jpeg) => jpeg(&bytes)?,
        _ => decoded(opened, &bytes)?,
    };
    let was_transparent =
        image.color().has_alpha() && image.to_rgba8().pixels().any(|pixel| pixel.0[3] < u8::MAX);
    let mut image = DynamicImage::ImageRgb8(image.into_rgb8());
    image.apply_orientation(orientation);
    Ok(Picture {
        image: image.into_rgb8(),
        is_turned: orientation != Orientation::NoTransforms,
        was_transparent,
    })
}

/// Width and height of the image at `path` after its orientation is applied. The pixels are not
/// decoded.
///
/// # Errors
/// As [`read`].
pub fn size(path: &Path) -> Result<[u32; 2], String> {
    let bytes = content(path)?;
    let mut decoder = decoder(open(&bytes)?, &bytes)?;
    let (width, height) = decoder.dimensions();
    Ok(if swaps_sides(orientation(&mut decoder)) {
        [height, width]
    } else {
        [width, height]
    })
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => "a link to a file that does not exist".to_string(),
        _ => error.to_string(),
    };
    // Reading a named pipe would wait for its writer.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err("not a regular file".to_string());
    }
    let bytes = fs::read(path).map_err(failed)?;
    if bytes.is_empty() {
        Err("empty".to_string())
    } else {
        Ok(bytes)
    }
}

fn open(bytes: &[u8]) -> Result<ImageReader<Cursor<&[u8]>>, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| error.to_string())?;
    let mut limits = Limits::default();
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    use ImageFormat::{Bmp, Jpeg, Png, Pnm, Tiff, WebP};
    match reader.format() {
        Some(Bmp | Jpeg | Png | Pnm | Tiff | WebP) => Ok(reader),
        _ => Err(kind(bytes)),
    }
}

/// Names what `bytes` are, which are no image of a format that is read.
fn kind(bytes: &[u8]) -> String {
    let start = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]);
    let text = start.trim_start_matches('\u{feff}').trim_start();
    let text = text.to_ascii_lowercase();
    let box_of = |brands: &[&[u8]]| {
        bytes.get(4..8) == Some(b"ftyp")
            && bytes
                .get(8..12)
                .is_some_and(|brand| brands.contains(&brand))
    };
    let image = if bytes.starts_with(b"GIF8") {
        "GIF"
    } else if box_of(&[b"avif", b"avis"]) {
        "AVIF"
    } else if bytes.get(4..8) == Some(b"ftyp") {
        "HEIC"
    } else if bytes.starts_with(b"\0\0\0\x0cjP  ") || bytes.starts_with(b"\xff\x4f\xff\x51") {
        "JPEG 2000"
    } else if bytes.starts_with(b"\xff\x0a") || bytes.starts_with(b"\0\0\0\x0cJXL ") {
        "JPEG XL"
    } else if text.starts_with("<svg") || (text.starts_with("<?xml") && text.contains("<svg")) {
        "SVG"
    } else if bytes.starts_with(b"\0\0\x01\0") {
        "ICO"
    } else if bytes.starts_with(b"8BPS") {
        "PSD"
    } else if starts_a_signature(bytes) {
        return ends_early(bytes);
    } else {
        return match FileKind::of(bytes) {
            Some(FileKind::LfsPointer) => {
                "a Git LFS pointer, not an image; git lfs pull fetches it".to_string()
            }
            Some(kind) => format!("{}, not an image", kind.name()),
            None => "not an image".to_string(),
        };
    };
    format!("a {image} image, which is not read")
}

/// Whether a file is shorter than the signature of its format.
fn starts_a_signature(bytes: &[u8]) -> bool {
    let signatures: [&[u8]; 7] = [
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff",
        b"II*\0",
        b"MM\0*",
        b"BM",
        b"P6",
        b"RIFF",
    ];
    let is_webp = bytes.starts_with(b"RIFF") && bytes.len() < 12;
    is_webp
        || signatures
            .iter()
            .any(|signature| signature.starts_with(bytes))
}

fn ends_early(bytes: &[u8]) -> String {
    format!("ends early, after {} bytes", thousands(bytes.len() as u64))
}

/// Width and height in the first directory of a TIFF file, if they are there.
fn tiff_size(bytes: &[u8]) -> Option<[u32; 2]> {
    const WIDTH: u32 = 256;
    const HEIGHT: u32 = 257;
    const SHORT: u32 = 3;
    let is_little = bytes.starts_with(b"II");
    let number = |at: usize, width: usize| -> Option<u32> {
        let digits = bytes.get(at..at.checked_add(width)?)?;
        let add = |sum: u32, &digit: &u8| sum << 8 | u32::from(digit);
        Some(if is_little {
            digits.iter().rev().fold(0, add)
        } else {
            digits.iter().fold(0, add)
        })
    };
    let directory = number(4, 4)? as usize;
    let entries = number(directory, 2)? as usize;
    let value = |tag: u32| {
        let mut places = (0..entries).map(|i| directory + 2 + 12 * i);
        let entry = places.find(|&at| number(at, 2) == Some(tag))?;
        match number(entry + 2, 2)? {
            SHORT => number(entry + 8, 2),
            _ => number(entry + 8, 4),
        }
    };
    Some([value(WIDTH)?, value(HEIGHT)?])
}

/// Checks the header before a decoder allocates: the size of a PNG, BMP or TIFF image, and the
/// length of a WebP file, whose decoder passes over missing metadata.
fn check_header(format: Option<ImageFormat>, bytes: &[u8]) -> Result<(), String> {
    let number = |at: usize| -> Option<[u8; 4]> { bytes.get(at..at + 4)?.try_into().ok() };
    match format {
        Some(ImageFormat::Png) => {
            if let (Some(width), Some(height)) = (number(16), number(20)) {
                check_size(u32::from_be_bytes(width), u32::from_be_bytes(height))?;
            }
        }
        Some(ImageFormat::Bmp) => {
            // The height is negative if the rows start at the top. Headers of 12 bytes have no such
            // numbers.
            let long = number(14).is_some_and(|length| u32::from_le_bytes(length) >= 40);
            if let (true, Some(width), Some(height)) = (long, number(18), number(22)) {
                let height = i32::from_le_bytes(height).unsigned_abs();
                check_size(u32::from_le_bytes(width), height)?;
            }
        }
        Some(ImageFormat::Tiff) => {
            if let Some([width, height]) = tiff_size(bytes) {
                check_size(width, height)?;
            }
        }
        Some(ImageFormat::WebP) => {
            let length = number(4).map_or(0, |length| u64::from(u32::from_le_bytes(length)) + 8);
            if length > bytes.len() as u64 {
                return Err(format!("{} of {}", ends_early(bytes), thousands(length)));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Opens the decoder, which reads the header, and checks the size of the image before any pixel is
/// allocated.
fn decoder<'a>(
    reader: ImageReader<Cursor<&'a [u8]>>,
    bytes: &[u8],
) -> Result<impl ImageDecoder + use<'a>, String> {
    check_header(reader.format(), bytes)?;
    let decoder = reader.into_decoder().map_err(|e| reason(&e, bytes))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    Ok(decoder)
}

fn check_size(width: u32, height: u32) -> Result<(), String> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 {
        return Err(format!("{width} x {height}, without pixels"));
    }
    if pixels > MOST_PIXELS {
        return Err(format!(
            "{width} x {height} pixels, more than the {} that are read",
            thousands(MOST_PIXELS)
        ));
    }
    Ok(())
}

fn decoded(
    reader: ImageReader<Cursor<&[u8]>>,
    bytes: &[u8],
) -> Result<(DynamicImage, Orientation), String> {
    let mut decoder = decoder(reader, bytes)?;
    let orientation = orientation(&mut decoder);
    let image = DynamicImage::from_decoder(decoder).map_err(|e| reason(&e, bytes))?;
    Ok((image, orientation))
}

/// The orientation of the metadata. Damaged metadata turns nothing.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    match decoder.orientation() {
        Ok(Orientation::NoTransforms) | Err(_) => {
            let exif = decoder.exif_metadata().ok().flatten().unwrap_or_default();
            from_exif(&exif)
        }
        Ok(orientation) => orientation,
    }
}

/// The orientation of an EXIF block, with or without the prefix that it has in JPEG files.
fn from_exif(exif: &[u8]) -> Orientation {
    let exif = exif.strip_prefix(b"Exif\0\0").unwrap_or(exif);
    Orientation::from_exif_chunk(exif).unwrap_or(Orientation::NoTransforms)
}

fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(
        orientation,
        Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH
    )
}

/// Why an image cannot be decoded, in one short line.
fn reason(error: &ImageError, bytes: &[u8]) -> String {
    let text = match error {
        ImageError::IoError(e) if e.kind() == ErrorKind::UnexpectedEof => return ends_early(bytes),
        // The inner error does not name the format, which follows from the file's name.
        ImageError::Decoding(e) => match std::error::Error::source(e) {
            Some(source) => source.to_string(),
            None => e.to_string(),
        },
        other => other.to_string(),
    };
    shortened(&text, bytes)
}

fn shortened(text: &str, bytes: &[u8]) -> String {
    const ENDS: [&str; 6] = [
        "unexpected end",
        "unexpectedeof",
        "failed to fill whole buffer",
        "eof",
        "premature",
        "exhausted",
    ];
    let lower = text.to_lowercase();
    if ENDS.iter().any(|words| lower.contains(words)) {
        return ends_early(bytes);
    }
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line: String = line.chars().take(100).collect();
    format!("cannot be decoded: {line}")
}

/// Bits that no Huffman code of a JPEG file starts with, since a code of ones alone is not allowed.
const NO_CODE: [u8; 64] = {
    let mut bytes = [0xff; 64];
    let mut i = 1;
    while i < bytes.len() {
        // Marks the byte before it as data.
        bytes[i] = 0;
        i += 2;
    }
    bytes
};

/// Decodes a JPEG file. zune-jpeg takes zeros for what is missing before the end marker, so that
/// data which it must refuse is put there. No decoder reads it if the last scan is whole.
fn jpeg(bytes: &[u8]) -> Result<(DynamicImage, Orientation), String> {
    let end = end_marker(bytes).ok_or_else(|| ends_early(bytes))?;
    let guarded = [&bytes[..end], &NO_CODE, &bytes[end..end + 2]].concat();
    strict_jpeg(&guarded).map_err(|error| match strict_jpeg(bytes) {
        Ok(_) => ends_early(bytes),
        Err(_) => shortened(&error, bytes),
    })
}

/// Decodes a JPEG file without filling gaps with grey. A strict decoder also refuses bytes between
/// the headers, which are harmless.
fn strict_jpeg(bytes: &[u8]) -> Result<(DynamicImage, Orientation), String> {
    jpeg_with(bytes, true).or_else(|error| {
        if error.contains("Extra bytes between headers") {
            jpeg_with(bytes, false)
        } else {
            Err(error)
        }
    })
}

fn jpeg_with(bytes: &[u8], is_strict: bool) -> Result<(DynamicImage, Orientation), String> {
    let options = DecoderOptions::default()
        .set_strict_mode(is_strict)
        .set_max_width(usize::MAX)
        .set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    let (width, height) = (width as u32, height as u32);
    check_size(width, height)?;
    let is_grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let colors = if is_grey {
        ColorSpace::Luma
    } else {
        ColorSpace::RGB
    };
    decoder.set_options(decoder.options().jpeg_set_out_colorspace(colors));
    let pixels = decoder.decode().map_err(|e| e.to_string())?;
    let image = if is_grey {
        ImageBuffer::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8)
    } else {
        ImageBuffer::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8)
    };
    let image = image.ok_or("cannot be decoded: the pixels do not fit the size")?;
    let exif = decoder.exif().cloned().unwrap_or_default();
    Ok((image, from_exif(&exif)))
}

/// The place of the marker that ends the segments and scans of a JPEG file. Without it the file was
/// truncated, and Pillow refuses it.
fn end_marker(bytes: &[u8]) -> Option<usize> {
    const END: u8 = 0xd9;
    const SCAN: u8 = 0xda;
    let mut at = 2;
    let mut in_scan = false;
    while let Some(&[first, marker]) = bytes.get(at..at + 2) {
        let is_marker = first == 0xff && !matches!(marker, 0 | 0xff);
        let is_bare = matches!(marker, 0x01 | 0xd0..=0xd8);
        if !is_marker || (in_scan && is_bare) {
            at += 1;
        } else if is_bare {
            at += 2;
        } else if marker == END {
            return Some(at);
        } else {
            let length = bytes.get(at + 2..at + 4)?.try_into().ok()?;
            in_scan = marker == SCAN;
            at += 2 + usize::from(u16::from_be_bytes(length)).max(2);
        }
    }
    None
}
