//! Image files of all kinds: those that are read, with which pixels, and those that are refused or
//! left out.
//!
//! The files are made here: by the crate `image`, and by hand where it writes no such file.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::Crc;
use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use parallax::data::{DataKind, Dataset, LoadOptions, OnBadImage, load_with};
use parallax::{Error, Result};
use tempfile::TempDir;

fn read(dir: &Path, options: &LoadOptions) -> Result<Dataset> {
    load_with(DataKind::Folder, Some(dir), 0, options)
}

fn skipping() -> LoadOptions {
    LoadOptions {
        on_bad_image: OnBadImage::Skip,
        ..LoadOptions::default()
    }
}

fn sized(size: usize) -> LoadOptions {
    LoadOptions {
        size: Some(size),
        ..LoadOptions::default()
    }
}

/// The message of the [`Error::Data`] that reading `dir` ends in.
fn refusal(dir: &Path) -> String {
    let error = read(dir, &LoadOptions::default()).expect_err("it is refused");
    assert!(matches!(error, Error::Data { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.len() < 980 && !message.contains('\n'), "{message}");
    message
}

/// An image without symmetry.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        Rgb([x * 37 + y * 11, x * x * 5 + y * 29, x * 3 + y * y * 17].map(|value| value as u8))
    })
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn jpeg(image: &RgbImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 100)
        .encode_image(image)
        .unwrap();
    bytes
}

/// The red, green and blue value at column `x` and row `y` of image `i` of the training set.
fn pixel(data: &Dataset, i: usize, x: usize, y: usize) -> [u8; 3] {
    let (image, at) = (data.train.image(i).unwrap(), y * data.train.width + x);
    let plane = data.train.width * data.train.height;
    [0, 1, 2].map(|channel| image[channel * plane + at])
}

#[test]
fn every_suffix_is_read_in_any_letter_case() {
    let dir = TempDir::new().unwrap();
    let image = DynamicImage::from(picture(6, 4));
    let grey = DynamicImage::from(GrayImage::from_pixel(6, 4, Luma([40])));
    let files = [
        ("a.bmp", encoded(&image, ImageFormat::Bmp)),
        ("b.JFIF", jpeg(&picture(6, 4))),
        ("c.jpe", jpeg(&picture(6, 4))),
        ("d.Jpeg", jpeg(&picture(6, 4))),
        ("e.jpg", jpeg(&picture(6, 4))),
        ("f.pgm", encoded(&grey, ImageFormat::Pnm)),
        ("g.PNG", encoded(&image, ImageFormat::Png)),
        ("h.ppm", encoded(&image, ImageFormat::Pnm)),
        ("i.tif", encoded(&image, ImageFormat::Tiff)),
        ("j.TIFF", encoded(&image, ImageFormat::Tiff)),
        ("k.webp", encoded(&image, ImageFormat::WebP)),
        // The content decides the format.
        ("l.jpg", encoded(&image, ImageFormat::WebP)),
        ("m.png", encoded(&image, ImageFormat::Bmp)),
    ];
    for (name, bytes) in &files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    fs::write(dir.path().join("notes.txt"), "no image").unwrap();
    let data = read(dir.path(), &LoadOptions::default()).unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    assert_eq!(data.train.files, names);
    for (i, name) in names.iter().enumerate() {
        let expected = match *name {
            "f.pgm" => [40; 3],
            _ => picture(6, 4).get_pixel(5, 3).0,
        };
        let difference = expected.iter().zip(pixel(&data, i, 5, 3));
        let largest = difference.map(|(a, b)| a.abs_diff(b)).max().unwrap();
        let is_jpeg = matches!(*name, "b.JFIF" | "c.jpe" | "d.Jpeg" | "e.jpg");
        // JPEG with colours at half the resolution is far from this picture.
        assert!(is_jpeg || largest == 0, "{name}: {largest}");
    }
    assert!(data.train.labels.is_none() && data.classes.is_empty());
}

/// Each prefix of a file of each format, but for the last bytes of a PNG file, which are the
/// checksum of an empty chunk.
#[test]
fn truncated_files_are_refused_at_every_byte() {
    let image = DynamicImage::from(picture(9, 7));
    let mut files = vec![
        ("jpg", jpeg(&picture(9, 7))),
        ("webp", encoded(&image, ImageFormat::WebP)),
        ("bmp", encoded(&image, ImageFormat::Bmp)),
        ("ppm", encoded(&image, ImageFormat::Pnm)),
        ("png", encoded(&image, ImageFormat::Png)),
    ];
    let tiff = encoded(&image, ImageFormat::Tiff);
    files.push(("tif", tiff));
    for (suffix, whole) in files {
        let dir = TempDir::new().unwrap();
        for end in 0..=whole.len() {
            let path = dir.path().join(format!("{end:06}.{suffix}"));
            fs::write(path, &whole[..end]).unwrap();
        }
        let data = read(dir.path(), &skipping()).unwrap();
        let unchecked = if suffix == "png" { 4 } else { 0 };
        assert_eq!(data.train.len(), 1 + unchecked, "{suffix}");
        let skipped = whole.len() - unchecked;
        assert_eq!(data.findings.skipped_images, Some(skipped), "{suffix}");
        let files = data.findings.skipped_files.unwrap();
        assert_eq!(
            (files.len(), files[0].as_str()),
            (skipped, &*format!("000000.{suffix}"))
        );
    }
}

#[test]
fn an_end_marker_in_a_thumbnail_is_not_the_end() {
    let dir = TempDir::new().unwrap();
    let whole = jpeg(&picture(16, 16));
    let thumbnail = jpeg(&picture(4, 4));
    let length = (thumbnail.len() + 2) as u16;
    let segment = [&[0xff, 0xe2], &length.to_be_bytes()[..], &thumbnail].concat();
    let with_thumbnail = [&whole[..2], &segment, &whole[2..]].concat();
    fs::write(dir.path().join("a.jpg"), &with_thumbnail).unwrap();
    // What follows the end is harmless.
    fs::write(
        dir.path().join("b.jpg"),
        [&with_thumbnail[..], b"more"].concat(),
    )
    .unwrap();
    assert_eq!(
        read(dir.path(), &LoadOptions::default())
            .unwrap()
            .train
            .len(),
        2
    );
    let end = with_thumbnail.len() - 10;
    fs::write(dir.path().join("c.jpg"), &with_thumbnail[..end]).unwrap();
    assert!(refusal(dir.path()).contains("c.jpg (ends early"));
}

#[test]
fn all_damaged_files_are_named_with_their_kind() {
    let dir = TempDir::new().unwrap();
    let image = encoded(&picture(6, 4).into(), ImageFormat::Png);
    let cases: [(&str, &[u8], &str); 9] = [
        ("a.png", b"", "empty"),
        ("b.jpg", b"<!DOCTYPE html><html></html>", "an HTML page"),
        ("c.png", b"\n<html><body>404</body></html>", "an HTML page"),
        (
            "d.tif",
            b"version https://git-lfs.github.com/spec/v1\nsize 3\n",
            "a Git LFS pointer",
        ),
        (
            "e.webp",
            b"PK\x03\x04\0\0\0\0archive/data.pkl",
            "a PyTorch file",
        ),
        ("f.bmp", b"\x80\x02}q\x00X\x01\0\0\0a.", "a PyTorch file"),
        (
            "g.jpg",
            b"GIF89a\x01\0\x01\0\0\0\0;",
            "a GIF image, which is not read",
        ),
        (
            "h.jpg",
            b"\0\0\0\x18ftypheic\0\0\0\0mif1",
            "a HEIC image, which is not read",
        ),
        ("i.ppm", b"words and nothing else", "not an image"),
    ];
    fs::write(dir.path().join("0.png"), &image).unwrap();
    for (name, content, _) in cases {
        fs::write(dir.path().join(name), content).unwrap();
    }
    let message = refusal(dir.path());
    assert!(message.contains("9 of 10 image files"), "{message}");
    assert!(message.contains("--on-bad-image skip"), "{message}");
    let folder = dir.path().display();
    for (name, _, kind) in cases {
        let words = format!("{folder}/{name} ({kind}");
        assert!(message.contains(&words), "'{words}' is not in: {message}");
    }
    let data = read(dir.path(), &skipping()).unwrap();
    assert_eq!(data.train.len(), 1);
    let names: Vec<&str> = cases.iter().map(|(name, ..)| *name).collect();
    assert_eq!(data.findings.skipped_files.as_deref().unwrap(), names);
    let notices = data.findings.notices();
    assert!(
        notices[0].contains("9 image files") && notices[0].contains("i.ppm"),
        "{notices:?}"
    );

    // Beyond ten, the others are counted.
    for i in 0..20 {
        fs::write(dir.path().join(format!("x{i:02}.png")), b"").unwrap();
    }
    let message = refusal(dir.path());
    assert!(
        message.contains("29 of 30") && message.contains(" more; "),
        "{message}"
    );
}

#[test]
fn without_any_whole_image_nothing_is_left_to_train_on() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("cat")).unwrap();
    fs::create_dir(dir.path().join("dog")).unwrap();
    fs::write(dir.path().join("cat/a.png"), b"").unwrap();
    let whole = encoded(&picture(6, 4).into(), ImageFormat::Png);
    fs::write(dir.path().join("dog/a.png"), whole).unwrap();
    let error = read(dir.path(), &skipping()).unwrap_err().to_string();
    assert!(
        error.contains("no image is left") && error.contains("cat"),
        "{error}"
    );
}

#[test]
fn a_header_of_a_huge_image_is_refused_by_its_size() {
    let side = i32::MAX as u32;
    let chunk = |name: &[u8], body: &[u8]| {
        let mut crc = Crc::new();
        crc.update(name);
        crc.update(body);
        let length = (body.len() as u32).to_be_bytes();
        [&length[..], name, body, &crc.sum().to_be_bytes()].concat()
    };
    let header = [
        &side.to_be_bytes()[..],
        &side.to_be_bytes(),
        &[8, 2, 0, 0, 0],
    ]
    .concat();
    let png = [
        b"\x89PNG\r\n\x1a\n".to_vec(),
        chunk(b"IHDR", &header),
        chunk(b"IDAT", &[0x78, 0x9c, 3, 0, 0, 0, 0, 1]),
        chunk(b"IEND", b""),
    ]
    .concat();
    let mut bmp = encoded(&picture(2, 2).into(), ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&side.to_le_bytes());
    bmp[22..26].copy_from_slice(&side.to_le_bytes());
    let ppm = format!("P6 {side} {side} 255\n").into_bytes();
    // Image width and height of a TIFF file are the values of its first two tags.
    let mut tiff = encoded(&picture(2, 2).into(), ImageFormat::Tiff);
    let tags = u32::from_le_bytes(tiff[4..8].try_into().unwrap()) as usize + 2;
    for tag in [tags, tags + 12] {
        tiff[tag + 2..tag + 4].copy_from_slice(&4u16.to_le_bytes());
        tiff[tag + 8..tag + 12].copy_from_slice(&side.to_le_bytes());
    }
    for (name, bytes) in [
        ("a.png", png),
        ("a.bmp", bmp),
        ("a.ppm", ppm),
        ("a.tif", tiff),
    ] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(name), bytes).unwrap();
        let message = refusal(dir.path());
        assert!(
            message.contains("2147483647 x 2147483647 pixels"),
            "{name}: {message}"
        );
    }
}

/// EXIF data whose only entry is the orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let entry = [0x12, 0x01, 3, 0, 1, 0, 0, 0, orientation, 0, 0, 0];
    [&b"II*\0\x08\0\0\0\x01\0"[..], &entry, &[0; 4]].concat()
}

/// Four blocks of one colour each, which JPEG keeps apart: `corners` row by row.
fn blocks(corners: [[u8; 3]; 4]) -> RgbImage {
    RgbImage::from_fn(
        32,
        32,
        |x, y| Rgb(corners[(2 * (y / 16) + x / 16) as usize]),
    )
}

#[test]
fn orientations_1_to_8_are_applied_in_jpeg_and_png() {
    const RED: [u8; 3] = [250, 10, 10];
    const GREEN: [u8; 3] = [10, 250, 10];
    const BLUE: [u8; 3] = [10, 10, 250];
    const GREY: [u8; 3] = [120, 120, 120];
    // Where the corners of an upright image are stored: EXIF 2.3, tag 274. Row 0 and column 0 of
    // the stored image are, for 6, the right side and the top of the upright one.
    let upright = [RED, GREEN, BLUE, GREY];
    let stored = |orientation: u8| match orientation {
        2 => [GREEN, RED, GREY, BLUE],
        3 => [GREY, BLUE, GREEN, RED],
        4 => [BLUE, GREY, RED, GREEN],
        5 => [RED, BLUE, GREEN, GREY],
        6 => [GREEN, GREY, RED, BLUE],
        7 => [GREY, GREEN, BLUE, RED],
        8 => [BLUE, RED, GREY, GREEN],
        _ => upright,
    };
    let dir = TempDir::new().unwrap();
    for orientation in 0..=8 {
        let image = blocks(stored(orientation));
        let exif = exif(orientation);
        let jpeg = jpeg(&image);
        let length = (exif.len() + 8) as u16;
        let segment = [&[0xff, 0xe1], &length.to_be_bytes()[..], b"Exif\0\0", &exif].concat();
        let bytes = [&jpeg[..2], &segment, &jpeg[2..]].concat();
        fs::write(dir.path().join(format!("{orientation}.jpg")), bytes).unwrap();

        let png = encoded(&image.into(), ImageFormat::Png);
        let mut crc = Crc::new();
        crc.update(b"eXIf");
        crc.update(&exif);
        let chunk = [
            &(exif.len() as u32).to_be_bytes()[..],
            b"eXIf",
            &exif,
            &crc.sum().to_be_bytes(),
        ]
        .concat();
        // After the signature and the header.
        let bytes = [&png[..33], &chunk, &png[33..]].concat();
        fs::write(dir.path().join(format!("{orientation}.png")), bytes).unwrap();
    }
    let data = read(dir.path(), &LoadOptions::default()).unwrap();
    assert_eq!(data.findings.turned_images, Some(2 * 7));
    let names = &data.train.files;
    assert_eq!(names.len(), 18);
    for (i, name) in names.iter().enumerate() {
        let places = [(8, 8), (24, 8), (8, 24), (24, 24)];
        for ((x, y), expected) in places.into_iter().zip(upright) {
            let found = pixel(&data, i, x, y);
            let close = found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 12);
            assert!(
                close,
                "{name} at {x}, {y}: {found:?}, expected {expected:?}"
            );
        }
    }
}

#[test]
fn an_orientation_swaps_width_and_height() {
    let dir = TempDir::new().unwrap();
    let jpeg = jpeg(&picture(16, 8));
    let exif = exif(6);
    let length = (exif.len() + 8) as u16;
    let segment = [&[0xff, 0xe1], &length.to_be_bytes()[..], b"Exif\0\0", &exif].concat();
    let bytes = [&jpeg[..2], &segment, &jpeg[2..]].concat();
    fs::write(dir.path().join("a.jpg"), bytes).unwrap();
    let data = read(dir.path(), &LoadOptions::default()).unwrap();
    assert_eq!((data.train.width, data.train.height), (8, 16));
}

#[test]
fn transparency_is_dropped_and_counted() {
    let dir = TempDir::new().unwrap();
    let hidden = RgbaImage::from_pixel(4, 4, Rgba([200, 100, 50, 0]));
    let opaque = RgbaImage::from_pixel(4, 4, Rgba([200, 100, 50, 255]));
    for (name, image, format) in [
        ("a.png", &hidden, ImageFormat::Png),
        ("b.webp", &hidden, ImageFormat::WebP),
        ("c.tif", &hidden, ImageFormat::Tiff),
        ("d.png", &opaque, ImageFormat::Png),
    ] {
        let bytes = encoded(&image.clone().into(), format);
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    let data = read(dir.path(), &LoadOptions::default()).unwrap();
    assert_eq!(data.findings.transparent_images, Some(3));
    for i in 0..4 {
        assert_eq!(pixel(&data, i, 2, 2), [200, 100, 50]);
    }
    let notices = data.findings.notices();
    assert_eq!(notices, ["transparency was dropped from 3 images"]);
}

/// The green values of Pillow 13.0.0 for torchvision's `Resize(N)` and `CenterCrop(N)`, with
/// `resize((w, h), BILINEAR)`.
#[test]
fn images_are_resized_and_cropped_as_by_torchvision() {
    let cases: [(u32, u32, usize, &[u8]); 3] = [
        (
            11,
            6,
            4,
            &[
                70, 138, 168, 113, 111, 173, 116, 127, 152, 172, 71, 145, 193, 115, 99, 138,
            ],
        ),
        (
            9,
            23,
            5,
            &[
                163, 145, 74, 153, 128, 39, 60, 117, 173, 101, 95, 116, 173, 124, 118, 151, 172,
                158, 90, 169, 203, 187, 82, 122, 140,
            ],
        ),
        (
            5,
            4,
            8,
            &[
                1, 4, 9, 16, 26, 39, 54, 71, 8, 11, 16, 23, 33, 46, 61, 78, 23, 26, 31, 38, 48, 61,
                76, 93, 37, 40, 45, 52, 62, 75, 90, 107, 52, 55, 60, 67, 77, 90, 105, 122, 66, 69,
                74, 81, 91, 104, 119, 136, 81, 84, 89, 96, 106, 119, 134, 151, 88, 91, 96, 103,
                113, 126, 141, 158,
            ],
        ),
    ];
    for (width, height, size, expected) in cases {
        let dir = TempDir::new().unwrap();
        picture(width, height)
            .save(dir.path().join("a.png"))
            .unwrap();
        let data = read(dir.path(), &sized(size)).unwrap();
        assert_eq!((data.train.width, data.train.height), (size, size));
        assert_eq!(data.findings.size, Some(size));
        let green = &data.train.image(0).unwrap()[size * size..2 * size * size];
        let largest = green
            .iter()
            .zip(expected)
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(
            largest <= Some(1),
            "{width} x {height} to {size}: {green:?}"
        );
    }
}

#[test]
fn several_sizes_need_a_size() {
    let dir = TempDir::new().unwrap();
    for (name, width, height) in [("a", 32, 32), ("b", 90, 60), ("c", 20, 40)] {
        picture(width, height)
            .save(dir.path().join(format!("{name}.png")))
            .unwrap();
    }
    let message = refusal(dir.path());
    for words in ["20 x 40", "90 x 60", "--size"] {
        assert!(message.contains(words), "'{words}' is not in: {message}");
    }
    // Also where damaged files are left out.
    let error = read(dir.path(), &skipping()).unwrap_err().to_string();
    assert!(
        error.contains("20 x 40") && error.contains("--size"),
        "{error}"
    );
    assert_eq!(read(dir.path(), &sized(16)).unwrap().train.len(), 3);
}

#[test]
fn other_data_sets_are_resized_too() {
    let options = sized(16);
    let data = load_with(DataKind::ShapesInverted, None, 3, &options).unwrap();
    let whole = load_with(DataKind::ShapesInverted, None, 3, &LoadOptions::default()).unwrap();
    assert_eq!((data.train.height, data.test.width), (16, 16));
    assert_eq!(data.train.labels, whole.train.labels);
    assert_ne!(data.digest, whole.digest);
}

#[cfg(unix)]
#[test]
fn a_link_to_nothing_and_a_pipe_are_damaged_files() {
    let dir = TempDir::new().unwrap();
    picture(4, 4).save(dir.path().join("a.png")).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join("b.png")).unwrap();
    let pipe = dir.path().join("c.png");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let message = refusal(dir.path());
    assert!(
        message.contains("b.png (a link to a file that does not exist)"),
        "{message}"
    );
    assert!(message.contains("c.png (not a regular file)"), "{message}");
}

/// A file that was truncated and then ended with a marker, as some repairs do. Pillow fills the
/// rest with grey.
#[test]
fn an_end_marker_does_not_make_a_truncated_file_whole() {
    let whole = jpeg(&picture(24, 20));
    let scan = whole
        .windows(2)
        .position(|pair| pair == [0xff, 0xda])
        .unwrap();
    let header = scan + 2 + usize::from(u16::from_be_bytes([whole[scan + 2], whole[scan + 3]]));
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("whole.jpg"), &whole).unwrap();
    for end in header..whole.len() - 2 {
        let bytes = [&whole[..end], &[0xff, 0xd9]].concat();
        fs::write(dir.path().join(format!("{end:06}.jpg")), bytes).unwrap();
    }
    let data = read(dir.path(), &skipping()).unwrap();
    // A cut within the very last coefficient cannot be seen: any bits are a value of it.
    let last = format!("{:06}.jpg", whole.len() - 16);
    let read = data.train.files;
    assert!(read.iter().all(|name| *name > last), "{last}: {read:?}");
    assert!(read.contains(&"whole.jpg".to_string()) && read.len() < 8);
    assert!(data.findings.skipped_images > Some(1_000));
}

/// A grey gradient of 16 x 16 pixels in five scans, written by Pillow.
const PROGRESSIVE: &str = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABQODxIPDRQSEBIXFRQYHjIhHhwcHj0sLiQySUBMS0dARkVQ\
                           WnNiUFVtVkVGZIhlbXd7gYKBTmCNl4x9lnN+gXz/wgALCAAQABABAREA/8QAFgABAQEAAAAAAAAAAAAA\
                           AAAABAMF/9oACAEBAAAAAc26Ef/EABcQAAMBAAAAAAAAAAAAAAAAAAABAiH/2gAIAQEAAQUCxEaKCYP/\
                           xAAWEAEBAQAAAAAAAAAAAAAAAAAAMRD/2gAIAQEABj8CTI//xAAZEAEAAwEBAAAAAAAAAAAAAAABABEx\
                           IVH/2gAIAQEAAT8hoe75D3ioLoQTAT//2gAIAQEAAAAQP//EABkQAQEAAwEAAAAAAAAAAAAAAAERACEx\
                           Qf/aAAgBAQABPxCVsvgMfdwe3GhUyVM9+Owlz//Z";

#[test]
fn progressive_files_are_read_whole_or_not_at_all() {
    let whole = STANDARD.decode(PROGRESSIVE).unwrap();
    let dir = TempDir::new().unwrap();
    for end in 0..=whole.len() {
        fs::write(dir.path().join(format!("{end:03}.jpg")), &whole[..end]).unwrap();
    }
    let data = read(dir.path(), &skipping()).unwrap();
    assert_eq!(data.train.files, ["330.jpg"]);
    let image = data.train.image(0).unwrap();
    assert!(image[0] < 30 && image[255].abs_diff(210) < 30, "{image:?}");
}
