//! CIFAR-10 and CIFAR-100 (Krizhevsky 2009), 32 x 32 images: the binary version, the Python version
//! that torchvision downloads, and the archive of either.
//!
//! The binary version has records of one label byte (CIFAR-100: the coarse and the fine label) and
//! 3,072 pixel bytes, the red, green and blue plane of an image in row-major order. The Python
//! version has a dictionary for each file, with the same bytes in the same order.

use std::path::{Path, PathBuf};

use super::archive::{self, Members};
use super::files::{self, Expected, Source};
use super::findings::ShortFile;
use super::pickle::Pickle;
use super::{Dataset, Split};
use crate::error::{Error, Result, listed};

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;
/// Records that are read together: 200 KB.
const RECORDS_AT_ONCE: usize = 64;

/// One of the two data sets.
pub struct Cifar {
    name: &'static str,
    classes: usize,
    /// Label bytes of a binary record, of which the last one is used.
    label_bytes: usize,
    binary: Version,
    python: Version,
    /// The keys of the labels and of the class names in the Python version.
    labels_key: &'static str,
    names_key: &'static str,
}

/// The files of one version.
struct Version {
    source: Source,
    /// The end of the address.
    archive: &'static str,
    /// Files of the training and of the test images, with the number of records that is published.
    train: &'static [(&'static str, usize)],
    test: &'static [(&'static str, usize)],
    names: &'static str,
}

const fn any(file: &'static str) -> Expected {
    Expected { file, bytes: None }
}

const fn sized(file: &'static str, bytes: u64) -> Expected {
    Expected {
        file,
        bytes: Some(bytes),
    }
}

const fn batch(file: &'static str) -> Expected {
    sized(file, 30_730_000)
}

pub const CIFAR10: Cifar = Cifar {
    name: "CIFAR-10",
    classes: 10,
    label_bytes: 1,
    binary: Version {
        source: Source {
            title: "CIFAR-10 (binary version)",
            address: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            folder: "cifar-10-batches-bin",
            files: &[
                batch("data_batch_1.bin"),
                batch("data_batch_2.bin"),
                batch("data_batch_3.bin"),
                batch("data_batch_4.bin"),
                batch("data_batch_5.bin"),
                batch("test_batch.bin"),
                any("batches.meta.txt"),
            ],
        },
        archive: "cifar-10-binary",
        train: &[
            ("data_batch_1.bin", 10_000),
            ("data_batch_2.bin", 10_000),
            ("data_batch_3.bin", 10_000),
            ("data_batch_4.bin", 10_000),
            ("data_batch_5.bin", 10_000),
        ],
        test: &[("test_batch.bin", 10_000)],
        names: "batches.meta.txt",
    },
    python: Version {
        source: Source {
            title: "CIFAR-10 (Python version)",
            address: "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            folder: "cifar-10-batches-py",
            files: &[
                any("data_batch_1"),
                any("data_batch_2"),
                any("data_batch_3"),
                any("data_batch_4"),
                any("data_batch_5"),
                any("test_batch"),
                any("batches.meta"),
            ],
        },
        archive: "cifar-10-python",
        train: &[
            ("data_batch_1", 10_000),
            ("data_batch_2", 10_000),
            ("data_batch_3", 10_000),
            ("data_batch_4", 10_000),
            ("data_batch_5", 10_000),
        ],
        test: &[("test_batch", 10_000)],
        names: "batches.meta",
    },
    labels_key: "labels",
    names_key: "label_names",
};

pub const CIFAR100: Cifar = Cifar {
    name: "CIFAR-100",
    classes: 100,
    label_bytes: 2,
    binary: Version {
        source: Source {
            title: "CIFAR-100 (binary version)",
            address: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            folder: "cifar-100-binary",
            files: &[
                sized("train.bin", 153_700_000),
                sized("test.bin", 30_740_000),
                any("fine_label_names.txt"),
            ],
        },
        archive: "cifar-100-binary",
        train: &[("train.bin", 50_000)],
        test: &[("test.bin", 10_000)],
        names: "fine_label_names.txt",
    },
    python: Version {
        source: Source {
            title: "CIFAR-100 (Python version)",
            address: "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            folder: "cifar-100-python",
            files: &[any("train"), any("test"), any("meta")],
        },
        archive: "cifar-100-python",
        train: &[("train", 50_000)],
        test: &[("test", 10_000)],
        names: "meta",
    },
    labels_key: "fine_labels",
    names_key: "fine_label_names",
};

/// Where the files of a version are.
enum Place {
    Folder(PathBuf),
    Archive(PathBuf, Members),
}

impl Place {
    fn path(&self, file: &str) -> PathBuf {
        match self {
            Place::Folder(root) => root.join(file),
            Place::Archive(path, _) => path.join(file),
        }
    }

    fn read(&self, file: &str) -> Result<Vec<u8>> {
        match self {
            Place::Folder(root) => {
                let path = root.join(file);
                std::fs::read(&path).map_err(|e| Error::read(&path, e))
            }
            Place::Archive(_, members) => Ok(members[file].clone()),
        }
    }
}

impl Version {
    /// The files in `dir` or in its child of the archive's name, if any of them is there. Then all
    /// of them must be.
    fn unpacked(&self, dir: &Path) -> Result<Option<Place>> {
        let places = [dir.join(self.source.folder), dir.to_path_buf()];
        let is_there = |root: &PathBuf| {
            let mut files = self.source.files.iter();
            files.any(|expected| root.join(expected.file).is_file())
        };
        if places.iter().any(is_there) {
            Ok(Some(Place::Folder(self.source.locate(dir)?)))
        } else {
            Ok(None)
        }
    }

    /// The files of the archive in `dir`, if it is there. Then all of them must be in it.
    fn packed(&self, dir: &Path) -> Result<Option<Place>> {
        let paths = ["tar.gz", "tgz", "tar"].map(|end| dir.join(format!("{}.{end}", self.archive)));
        let Some(path) = paths.into_iter().find(|path| path.is_file()) else {
            return Ok(None);
        };
        let names: Vec<&str> = self
            .source
            .files
            .iter()
            .map(|expected| expected.file)
            .collect();
        let members = archive::read(&path, &names)?;
        let missing = names.iter().filter(|name| !members.contains_key(**name));
        let missing: Vec<&&str> = missing.collect();
        if !missing.is_empty() {
            let message = format!(
                "the archive has no {}; download it again",
                listed(missing, ", ")
            );
            return Err(Error::data(&path, message));
        }
        Ok(Some(Place::Archive(path, members)))
    }
}

impl Cifar {
    /// One line with the addresses, the files and their sizes.
    pub fn describe(&self) -> String {
        format!(
            "{}; the Python version and the archives {}.tar.gz and {}.tar.gz are read too",
            self.binary.source.describe(),
            self.binary.archive,
            self.python.archive
        )
    }

    /// The files of the binary version.
    #[cfg(feature = "cli")]
    pub const fn binary_source(&'static self) -> &'static Source {
        &self.binary.source
    }

    fn record(&self) -> usize {
        self.label_bytes + PIXELS
    }
}

/// Reads the binary or the Python version in `dir`, in the child that its archive unpacks to, or in
/// the archive. A file may hold any whole number of records.
///
/// # Errors
/// [`Error::Data`] for missing or damaged files, sizes that are not whole records, and labels that
/// are not below the number of classes.
pub fn load(dir: &Path, set: &Cifar) -> Result<Dataset> {
    let mut short = Vec::new();
    let (place, classes, train, test) = if let Some(place) = set.binary.unpacked(dir)? {
        binary(set, place, &mut short)?
    } else if let Some(place) = set.python.unpacked(dir)? {
        python(set, place, &mut short)?
    } else if let Some(place) = set.binary.packed(dir)? {
        binary(set, place, &mut short)?
    } else if let Some(place) = set.python.packed(dir)? {
        python(set, place, &mut short)?
    } else {
        let files = set.binary.source.files.iter();
        let files: Vec<&str> = files.map(|expected| expected.file).collect();
        let message = format!("missing {}. {}", files.join(", "), set.describe());
        return Err(Error::data(dir, message));
    };
    let root = match &place {
        Place::Folder(root) => root,
        Place::Archive(..) => dir,
    };
    let name = files::dataset_name(root, set.name)?;
    let mut dataset = Dataset::new(name, classes, train, test, None)?;
    dataset.findings.short_files = short;
    Ok(dataset)
}

type Loaded = (Place, Vec<String>, Split, Split);

fn python(set: &Cifar, place: Place, short: &mut Vec<ShortFile>) -> Result<Loaded> {
    let open = |file: &str| -> Result<Pickle> {
        Pickle::read(&place.read(file)?).map_err(|reason| wrong_pickle(&place, file, &reason))
    };
    let names = set.python.names;
    let classes = open(names)?.strings(set.names_key);
    let classes = classes.map_err(|reason| wrong_pickle(&place, names, &reason))?;
    files::check_class_count(&place.path(names), classes.len(), set.classes)?;
    let mut read = |batches: &[(&str, usize)]| -> Result<Split> {
        let (mut images, mut labels) = (Vec::new(), Vec::new());
        for &(file, published) in batches {
            let pickle = open(file)?;
            let wrong = |reason: String| wrong_pickle(&place, file, &reason);
            let pixels = pickle.bytes("data").map_err(wrong)?;
            let found = pickle.numbers(set.labels_key).map_err(wrong)?;
            if found.is_empty() || pixels.len() != found.len() * PIXELS {
                return Err(wrong(format!(
                    "{} pixel bytes do not fit {} labels of images of {} bytes",
                    files::thousands(pixels.len() as u64),
                    found.len(),
                    files::thousands(PIXELS as u64)
                )));
            }
            for (i, label) in found.iter().enumerate() {
                let known = usize::try_from(*label)
                    .ok()
                    .filter(|&label| label < set.classes);
                let known = known.ok_or_else(|| wrong_label(set, &place.path(file), i, label))?;
                labels.push(known as u32);
            }
            images.extend_from_slice(pixels);
            short.extend(files::short_file(file, found.len(), published));
        }
        Ok(split(images, labels))
    };
    let (train, test) = (read(set.python.train)?, read(set.python.test)?);
    Ok((place, classes, train, test))
}

fn wrong_pickle(place: &Place, file: &str, reason: &str) -> Error {
    let message = format!("not a file of CIFAR's Python version: {reason}; download it again");
    Error::data(place.path(file), message)
}

fn wrong_label(set: &Cifar, path: &Path, record: usize, label: impl std::fmt::Display) -> Error {
    let message = format!(
        "record {record} (counted from 0) has the label {label}; expected 0 to {}. The file is damaged or of another \
         format",
        set.classes - 1
    );
    Error::data(path, message)
}

fn split(images: Vec<u8>, labels: Vec<u32>) -> Split {
    Split {
        images: images.into(),
        labels: Some(labels),
        files: Vec::new(),
        height: SIDE,
        width: SIDE,
    }
}

fn binary(set: &Cifar, place: Place, short: &mut Vec<ShortFile>) -> Result<Loaded> {
    let names = place.path(set.binary.names);
    let text = place.read(set.binary.names)?;
    let classes = files::lines_of(&String::from_utf8_lossy(&text));
    files::check_class_count(&names, classes.len(), set.classes)?;
    let train = records(set, &place, set.binary.train, short)?;
    let test = records(set, &place, set.binary.test, short)?;
    Ok((place, classes, train, test))
}

/// Reads each file by a thread of its own, into its part of the split: most of the time is the
/// system's, for copies and for fresh memory.
fn records(
    set: &Cifar,
    place: &Place,
    batches: &[(&str, usize)],
    short: &mut Vec<ShortFile>,
) -> Result<Split> {
    let mut counts = Vec::with_capacity(batches.len());
    for &(file, published) in batches {
        let (path, source) = (place.path(file), &set.binary.source);
        let count = match place {
            Place::Folder(_) => source.records(&path, set.record())?,
            Place::Archive(_, members) => {
                source.whole_records(&path, members[file].len() as u64, set.record())?
            }
        };
        short.extend(files::short_file(file, count, published));
        counts.push(count);
    }
    let total: usize = counts.iter().sum();
    let mut images = files::zeroed(&place.path(batches[0].0), total * PIXELS)?;
    let mut labels = vec![0; total];
    let (mut images_left, mut labels_left) = (&mut images[..], &mut labels[..]);
    let mut targets = Vec::with_capacity(batches.len());
    for ((file, _), count) in batches.iter().zip(counts) {
        let (images, labels);
        (images, images_left) = images_left.split_at_mut(count * PIXELS);
        (labels, labels_left) = labels_left.split_at_mut(count);
        targets.push((*file, images, labels));
    }
    let read = |(file, images, labels): (&str, &mut [u8], &mut [u32])| {
        let path = place.path(file);
        let bytes = labels.len() * set.record();
        let mut batch = Batch {
            set,
            path: &path,
            images,
            labels,
            filled: 0,
        };
        match place {
            Place::Folder(_) => {
                let part = RECORDS_AT_ONCE * set.record();
                files::read_in_parts(&path, bytes, part, |records| batch.fill(records))
            }
            Place::Archive(_, members) => batch.fill(&members[file]),
        }
    };
    super::parallel::map(targets.into_iter(), read)
        .into_iter()
        .collect::<Result<()>>()?;
    Ok(split(images, labels))
}

/// The part of a split that comes from one file.
struct Batch<'a> {
    set: &'a Cifar,
    path: &'a Path,
    images: &'a mut [u8],
    labels: &'a mut [u32],
    /// Records so far.
    filled: usize,
}

impl Batch<'_> {
    fn fill(&mut self, records: &[u8]) -> Result<()> {
        for record in records.chunks_exact(self.set.record()) {
            let (labels, pixels) = record.split_at(self.set.label_bytes);
            let label = labels[self.set.label_bytes - 1];
            let i = self.filled;
            if usize::from(label) >= self.set.classes {
                return Err(wrong_label(self.set, self.path, i, label));
            }
            self.labels[i] = u32::from(label);
            self.images[i * PIXELS..(i + 1) * PIXELS].copy_from_slice(pixels);
            self.filled += 1;
        }
        Ok(())
    }
}
