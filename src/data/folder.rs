//! Image files in a folder for each class: DIR/train/CLASS/*.png and DIR/test/CLASS/*.png, or JPEG.

use std::fs;
use std::path::{Path, PathBuf};

use image::ImageReader;

use super::files;
use super::{Dataset, Split};
use crate::error::{Error, Result};

/// The layout that is expected, for messages.
pub const LAYOUT: &str = "expected DIR/train/CLASS/*.png and DIR/test/CLASS/*.png (or .jpg, .jpeg), a folder for each \
                          class, all images of one size";

const EXTENSIONS: [&str; 3] = ["png", "jpg", "jpeg"];

/// Reads the images of `dir`/train and `dir`/test. Classes are the folders of `train`, sorted by name; images are
/// sorted by file name; files that are not images by their extension are passed over; grey images become RGB and an
/// alpha channel is dropped.
///
/// # Errors
/// [`Error::Data`] for another layout, a class of `test` that `train` has not, a folder without images, an image that
/// cannot be decoded, and the first image whose size is not that of the first one.
pub fn load(dir: &Path) -> Result<Dataset> {
    for split in ["train", "test"] {
        if !dir.join(split).is_dir() {
            return Err(Error::data(dir, format!("no folder {split}; {LAYOUT}")));
        }
    }
    let classes = subfolders(&dir.join("train"))?;
    let train_files = list(&dir.join("train"), &classes)?;
    let test_files = list(&dir.join("test"), &classes)?;
    // Neither list is empty: each class folder has an image and each split has a class folder.
    let first = train_files[0].path.clone();
    let size = dimensions(&first)?;
    let train = read(&train_files, &first, size)?;
    let test = read(&test_files, &first, size)?;
    let default = dir
        .file_name()
        .map_or("folder".into(), |name| name.to_string_lossy());
    let name = files::dataset_name(dir, &default)?;
    Ok(Dataset::new(name, classes, train, test, None))
}

struct Labelled {
    path: PathBuf,
    label: u32,
}

/// The names in `dir`, sorted, without hidden ones.
fn entries(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::read(dir, e))? {
        let entry = entry.map_err(|e| Error::read(dir, e))?;
        let name = entry.file_name().into_string().map_err(|name| {
            Error::data(dir, format!("the name {name:?} is not UTF-8; rename it"))
        })?;
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn subfolders(dir: &Path) -> Result<Vec<String>> {
    let mut names = entries(dir)?;
    names.retain(|name| dir.join(name).is_dir());
    if names.is_empty() {
        return Err(Error::data(dir, format!("no class folder; {LAYOUT}")));
    }
    Ok(names)
}

fn list(dir: &Path, classes: &[String]) -> Result<Vec<Labelled>> {
    let mut found = Vec::new();
    for name in subfolders(dir)? {
        let folder = dir.join(&name);
        let Some(label) = classes.iter().position(|class| *class == name) else {
            let message = format!(
                "the class '{name}' is not in train, which has {}",
                classes.join(", ")
            );
            return Err(Error::data(&folder, message));
        };
        let before = found.len();
        for file in entries(&folder)? {
            let path = folder.join(file);
            let extension = path
                .extension()
                .and_then(|e| e.to_str())
                .unwrap_or_default()
                .to_lowercase();
            if EXTENSIONS.contains(&extension.as_str()) {
                found.push(Labelled {
                    path,
                    label: label as u32,
                });
            }
        }
        if found.len() == before {
            return Err(Error::data(&folder, format!("no image; {LAYOUT}")));
        }
    }
    Ok(found)
}

fn open(path: &Path) -> Result<ImageReader<std::io::BufReader<fs::File>>> {
    // The content decides the format: a JPEG named .png is common.
    ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .map_err(|e| Error::read(path, e))
}

fn unreadable(path: &Path, error: &image::ImageError) -> Error {
    Error::data(
        path,
        format!("not a readable PNG or JPEG image ({error}); replace or remove it"),
    )
}

fn dimensions(path: &Path) -> Result<(u32, u32)> {
    let (width, height) = open(path)?
        .into_dimensions()
        .map_err(|e| unreadable(path, &e))?;
    if width == 0 || height == 0 {
        return Err(Error::data(
            path,
            format!("the image is {width} x {height}; it has no pixels"),
        ));
    }
    Ok((width, height))
}

fn read(list: &[Labelled], first: &Path, size: (u32, u32)) -> Result<Split> {
    let (width, height) = (size.0 as usize, size.1 as usize);
    let plane = width * height;
    let bytes = plane.saturating_mul(3 * list.len());
    let mut images = files::buffer(first, bytes)?;
    let mut labels = Vec::with_capacity(list.len());
    for Labelled { path, label } in list {
        // Before decoding, so that a huge image costs no memory.
        let found = dimensions(path)?;
        if found != size {
            let message = format!(
                "the image is {} x {} pixels, but {} is {width} x {height}; all images need one size",
                found.0,
                found.1,
                first.display()
            );
            return Err(Error::data(path, message));
        }
        let image = open(path)?
            .decode()
            .map_err(|e| unreadable(path, &e))?
            .into_rgb8();
        for channel in 0..3 {
            images.extend(image.as_raw().iter().skip(channel).step_by(3));
        }
        labels.push(*label);
    }
    Ok(Split {
        images,
        labels: Some(labels),
        height,
        width,
    })
}
