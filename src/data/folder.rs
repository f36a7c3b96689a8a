//! Folders of image files, as torchvision's `ImageFolder` reads them: DIR/train/CLASS/... and
//! DIR/test/CLASS/..., DIR/CLASS/... without a test set, or images without class folders, which
//! have no labels.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use image::RgbImage;

use super::findings::Findings;
use super::image_file::{self, Picture, Suffix};
use super::resize::{centre_square, write_planes};
use super::{Dataset, LoadOptions, OnBadImage, Split, files, parallel};
use crate::error::{Error, Result, listed};

/// The expected layout, for messages.
pub const LAYOUT: &str = "expected DIR/train/CLASS/... and DIR/test/CLASS/..., DIR/CLASS/..., or images without \
                          class folders in DIR or DIR/train";

/// Names of the folder of the training images, and of the test images, the preferred one first. The
/// letter case does not matter.
const TRAIN: [&str; 1] = ["train"];
const TEST: [&str; 4] = ["test", "val", "valid", "validation"];

/// Reads the images below `dir`. Classes are the first folders below a split, sorted by name; their
/// images may be at any depth, and are sorted by folder and file name. Hidden files and folders and
/// `__MACOSX` are ignored.
///
/// # Errors
/// [`Error::Data`] for another layout, class folders without images, classes of the test set that
/// the training set lacks, images that cannot be decoded whole, and images of several sizes.
pub fn load(dir: &Path, options: &LoadOptions) -> Result<Dataset> {
    let mut findings = Findings {
        size: options.size,
        ..Findings::default()
    };
    let train_folder = split_folder(dir, &TRAIN)?;
    let mut test_folder = None;
    for name in TEST {
        if test_folder.is_none() {
            test_folder = split_folder(dir, &[name])?;
        }
    }
    let train = match &train_folder {
        Some(folder) => ImageSet::find(folder, &mut findings)?,
        None => {
            if let Some(test) = test_folder.take() {
                let alone = subfolders(dir)?.iter().all(|name| is_one_of(name, &TEST));
                if alone || !subfolders(&test)?.is_empty() {
                    let message = format!("no folder train beside {}; {LAYOUT}", shown(dir, &test));
                    return Err(Error::data(dir, message));
                }
            }
            ImageSet::find(dir, &mut findings)?
        }
    };
    let test = match &test_folder {
        Some(folder) => ImageSet::find(folder, &mut findings)?,
        None => ImageSet::default(),
    };
    let empty: Vec<&PathBuf> = train.empty.iter().chain(&test.empty).collect();
    if !empty.is_empty() {
        let message = format!(
            "class folders without an image: {}; remove or fill them{}",
            listed(
                empty.iter().map(|folder| folder.display().to_string()),
                ", "
            ),
            findings.unread_advice()
        );
        return Err(Error::data(dir, message));
    }
    if train_folder.is_some() {
        // Images in other folders of `dir` are not read. They are reported as unused.
        for name in subfolders(dir)? {
            let folder = dir.join(name);
            let is_split = |split: &Option<PathBuf>| split.as_ref() == Some(&folder);
            if !is_split(&train_folder) && !is_split(&test_folder) {
                findings.add_unused(dir, walk(&folder, &mut Findings::default())?);
            }
        }
        let loose = loose_images(dir, &mut findings.unread_files)?;
        findings.add_unused(dir, loose);
    }
    findings.add_unused(dir, train.unused);
    findings.add_unused(dir, test.unused);
    if let Some(folder) = &test_folder {
        let name = shown(dir, folder);
        findings.test_folder = (!name.eq_ignore_ascii_case("test")).then_some(name);
    }

    let classes: Vec<String> = train
        .classes
        .iter()
        .map(|class| class.name.clone())
        .collect();
    let (train_paths, train_labels) = labelled(dir, train.classes, train.loose, &classes)?;
    let (test_paths, test_labels) = match classes.is_empty() {
        // Labels of the test set have no meaning without those of the training set.
        true => {
            let inner = test.classes.into_iter().flat_map(|class| class.images);
            (inner.chain(test.loose).collect(), None)
        }
        false => labelled(dir, test.classes, test.loose, &classes)?,
    };
    let first_test = train_paths.len();
    let paths = [train_paths, test_paths].concat();
    let read = Images::read(dir, &paths, options, &mut findings)?;
    let names: Vec<String> = paths.iter().map(|path| shown(dir, path)).collect();
    let [train, test] = read.into_splits(first_test, &names, [train_labels, test_labels]);
    let without: Vec<&String> = (0..)
        .zip(&classes)
        .filter(|(label, _)| !train.labels.iter().flatten().any(|l| l == label))
        .map(|(_, class)| class)
        .collect();
    if train.is_empty() || !without.is_empty() {
        let message = format!(
            "no image is left after the damaged ones are left out, in {}",
            match without.is_empty() {
                true => "the training set".to_string(),
                false => format!("the classes {}", listed(without, ", ")),
            }
        );
        return Err(Error::data(dir, message));
    }
    // The folder's own name, also of `.`.
    let absolute = fs::canonicalize(dir).map_err(|e| Error::read(dir, e))?;
    let default = dir.file_name().or(absolute.file_name());
    let default = default.map_or("folder".into(), |name| name.to_string_lossy());
    let name = files::dataset_name(dir, &default)?;
    let mut dataset = Dataset::new(name, classes, train, test, None);
    dataset.findings = findings;
    Ok(dataset)
}

impl Findings {
    /// Names the kinds of images that are not read, if there are such files.
    fn unread_advice(&self) -> String {
        match self.unread_notice() {
            None => String::new(),
            Some(notice) => format!("; {notice}"),
        }
    }

    fn add_unused(&mut self, dir: &Path, images: Vec<PathBuf>) {
        let names = images.iter().map(|path| shown(dir, path));
        self.unused_files.extend(names);
        let count = self.unused_files.len();
        self.unused_images = (count > 0).then_some(count);
    }
}

/// A path below `dir`, for records and notices.
fn shown(dir: &Path, path: &Path) -> String {
    let below = path.strip_prefix(dir).unwrap_or(path);
    let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}

struct Class {
    name: String,
    images: Vec<PathBuf>,
}

/// The images of a split: those of its classes, or, without classes, those directly in its folder.
#[derive(Default)]
struct ImageSet {
    classes: Vec<Class>,
    loose: Vec<PathBuf>,
    /// Class folders without an image.
    empty: Vec<PathBuf>,
    /// Images beside the class folders, which are not read.
    unused: Vec<PathBuf>,
}

impl ImageSet {
    fn find(dir: &Path, findings: &mut Findings) -> Result<Self> {
        let loose = loose_images(dir, &mut findings.unread_files)?;
        let mut classes = Vec::new();
        for name in subfolders(dir)? {
            let images = walk(&dir.join(&name), findings)?;
            let name = name.into_string().map_err(|name| {
                Error::data(dir, format!("the name {name:?} is not UTF-8; rename it"))
            })?;
            classes.push(Class { name, images });
        }
        if classes.iter().all(|class| class.images.is_empty()) {
            if !loose.is_empty() {
                return Ok(ImageSet {
                    loose,
                    ..ImageSet::default()
                });
            }
            let folders = match classes.as_slice() {
                [] => String::new(),
                some => format!(
                    " in the folders {}",
                    listed(some.iter().map(|class| class.name.as_str()), ", ")
                ),
            };
            return Err(Error::data(
                dir,
                format!(
                    "no image{folders}{}{}; {LAYOUT}",
                    unpack_advice(dir)?,
                    findings.unread_advice()
                ),
            ));
        }
        let is_empty = |class: &&Class| class.images.is_empty();
        let empty = classes.iter().filter(is_empty);
        let empty = empty.map(|class| dir.join(&class.name)).collect();
        Ok(ImageSet {
            classes,
            empty,
            unused: loose,
            loose: Vec::new(),
        })
    }
}

/// Advice for a folder of archives that were not unpacked.
fn unpack_advice(dir: &Path) -> Result<String> {
    const ARCHIVES: [&str; 5] = [".tar.gz", ".tgz", ".tar", ".zip", ".7z"];
    let names = entries(dir)?.into_iter();
    let names = names.map(|(name, _)| name.to_string_lossy().into_owned());
    let archives: Vec<String> = names
        .filter(|name| {
            ARCHIVES
                .iter()
                .any(|end| name.to_ascii_lowercase().ends_with(end))
        })
        .collect();
    Ok(match archives.is_empty() {
        true => String::new(),
        false => format!(
            ", but archives, which must be unpacked: {}",
            listed(archives, ", ")
        ),
    })
}

/// Paths and labels of a split. Only images without classes have no labels.
fn labelled(
    dir: &Path,
    found: Vec<Class>,
    loose: Vec<PathBuf>,
    classes: &[String],
) -> Result<(Vec<PathBuf>, Option<Vec<u32>>)> {
    if found.is_empty() && !loose.is_empty() {
        return Ok((loose, None));
    }
    let label = |class: &Class| classes.iter().position(|known| *known == class.name);
    let unknown = found.iter().filter(|class| label(class).is_none());
    let unknown: Vec<&str> = unknown.map(|class| class.name.as_str()).collect();
    if !unknown.is_empty() {
        let message = format!(
            "the test set has classes that the training set does not have: {}; the training set has {}",
            listed(unknown, ", "),
            listed(classes, ", ")
        );
        return Err(Error::data(dir, message));
    }
    let (mut paths, mut labels) = (Vec::new(), Vec::new());
    for class in found {
        let label = label(&class).unwrap_or_default() as u32;
        labels.resize(labels.len() + class.images.len(), label);
        paths.extend(class.images);
    }
    let labels = (!paths.is_empty()).then_some(labels);
    Ok((paths, labels))
}

/// The visible names in `dir`, sorted, each with whether it is a folder or a link to one.
fn entries(dir: &Path) -> Result<Vec<(OsString, bool)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::read(dir, e))? {
        let name = entry.map_err(|e| Error::read(dir, e))?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") && name != "__MACOSX" {
            let is_folder = dir.join(&name).is_dir();
            names.push((name, is_folder));
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn subfolders(dir: &Path) -> Result<Vec<OsString>> {
    let all = entries(dir)?.into_iter();
    Ok(all
        .filter_map(|(name, is_folder)| is_folder.then_some(name))
        .collect())
}

fn is_one_of(name: &OsString, names: &[&str]) -> bool {
    names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The folder in `dir` that has one of `names`, in any letter case.
fn split_folder(dir: &Path, names: &[&str]) -> Result<Option<PathBuf>> {
    let mut found = subfolders(dir)?;
    found.retain(|name| is_one_of(name, names));
    match found.as_slice() {
        [] => Ok(None),
        [name] => Ok(Some(dir.join(name))),
        several => {
            let several = several.iter().map(|name| name.to_string_lossy());
            let message = format!(
                "the folders {} differ only in letter case; rename all but one",
                listed(several, ", ")
            );
            Err(Error::data(dir, message))
        }
    }
}

type Unread = std::collections::BTreeMap<String, usize>;

/// The image files directly in `dir`. Those of kinds that are not read are counted.
fn loose_images(dir: &Path, unread: &mut Unread) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for (name, is_folder) in entries(dir)? {
        if !is_folder {
            take(dir.join(name), &mut images, unread);
        }
    }
    Ok(images)
}

fn take(path: PathBuf, images: &mut Vec<PathBuf>, unread: &mut Unread) {
    match image_file::suffix(&path) {
        Suffix::Read => images.push(path),
        Suffix::Unread(kind) => *unread.entry(format!(".{kind}")).or_default() += 1,
        Suffix::Other => {}
    }
}

/// The image files below `root` at any depth, in the order of `ImageFolder`: by folder, then by
/// name. A folder that links lead to several times, or that contains the link, is visited once.
fn walk(root: &Path, findings: &mut Findings) -> Result<Vec<PathBuf>> {
    let real = |path: &Path| fs::canonicalize(path).map_err(|e| Error::read(path, e));
    let mut visited = HashSet::from([real(root)?]);
    let mut pending = vec![root.to_path_buf()];
    let mut folders = Vec::new();
    while let Some(folder) = pending.pop() {
        let here = real(&folder)?;
        for name in subfolders(&folder)? {
            let inner = folder.join(name);
            let target = real(&inner)?;
            if !here.starts_with(&target) && visited.insert(target) {
                pending.push(inner);
            }
        }
        folders.push(folder);
    }
    folders.sort_unstable_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    let mut images = Vec::new();
    for folder in folders {
        images.extend(loose_images(&folder, &mut findings.unread_files)?);
    }
    Ok(images)
}

/// The pixels of image files, and which of the files they come from.
struct Images {
    planes: Vec<u8>,
    size: [u32; 2],
    /// For each file whether it was read.
    is_read: Vec<bool>,
}

/// The outcome of reading a file.
enum Outcome {
    Read {
        is_turned: bool,
        was_transparent: bool,
    },
    OtherSize([u32; 2]),
    Bad(String),
}

impl Images {
    /// Decodes all files on all processors.
    fn read(
        dir: &Path,
        paths: &[PathBuf],
        options: &LoadOptions,
        findings: &mut Findings,
    ) -> Result<Self> {
        let size = match options.size {
            Some(size) => [size as u32; 2],
            None => common_size(dir, paths, options)?,
        };
        let [width, height] = size.map(|side| side as usize);
        let bytes = 3 * width * height;
        let mut planes = files::zeroed(dir, bytes.saturating_mul(paths.len()))?;
        let slots = paths.iter().zip(planes.chunks_exact_mut(bytes));
        let outcomes = parallel::map(slots, |(path, slot)| {
            let picture = match image_file::read(path) {
                Ok(picture) => picture,
                Err(reason) => return Outcome::Bad(reason),
            };
            let Picture {
                image,
                is_turned,
                was_transparent,
            } = picture;
            let image: RgbImage = match options.size {
                Some(size) => centre_square(image, size as u32),
                None => image,
            };
            let found = [image.width(), image.height()];
            if found != size {
                return Outcome::OtherSize(found);
            }
            write_planes(&image, slot);
            Outcome::Read {
                is_turned,
                was_transparent,
            }
        });
        let bad = paths
            .iter()
            .zip(&outcomes)
            .filter_map(|(path, outcome)| match outcome {
                Outcome::Bad(reason) => Some((path, reason)),
                _ => None,
            });
        let bad: Vec<(&PathBuf, &String)> = bad.collect();
        if options.on_bad_image == OnBadImage::Skip {
            findings.skipped_images = Some(bad.len());
            findings.skipped_files = Some(bad.iter().map(|(path, _)| shown(dir, path)).collect());
        } else if !bad.is_empty() {
            return Err(unreadable(dir, paths.len(), &bad));
        }
        let other = outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::OtherSize(size) => Some(*size),
            _ => None,
        });
        let sizes: Vec<[u32; 2]> = other.chain([size]).collect();
        if sizes.len() > 1 {
            return Err(several_sizes(dir, &sizes));
        }
        let count = |is: fn(&Outcome) -> bool| {
            let number = outcomes.iter().filter(|outcome| is(outcome)).count();
            (number > 0).then_some(number)
        };
        findings.turned_images = count(|outcome| {
            matches!(
                outcome,
                Outcome::Read {
                    is_turned: true,
                    ..
                }
            )
        });
        findings.transparent_images = count(|outcome| {
            matches!(
                outcome,
                Outcome::Read {
                    was_transparent: true,
                    ..
                }
            )
        });
        let is_read = outcomes
            .iter()
            .map(|outcome| matches!(outcome, Outcome::Read { .. }));
        Ok(Images {
            is_read: is_read.collect(),
            planes,
            size,
        })
    }

    /// The training and the test split, which starts at file `first_test`, with the names of their
    /// files. A split without images has no labels.
    fn into_splits(
        mut self,
        first_test: usize,
        names: &[String],
        labels: [Option<Vec<u32>>; 2],
    ) -> [Split; 2] {
        let [width, height] = self.size.map(|side| side as usize);
        let bytes = 3 * width * height;
        let all = 0..self.is_read.len();
        let kept: Vec<usize> = all.filter(|&i| self.is_read[i]).collect();
        for (slot, &i) in kept.iter().enumerate() {
            if slot != i {
                let image = i * bytes..(i + 1) * bytes;
                self.planes.copy_within(image, slot * bytes);
            }
        }
        self.planes.truncate(kept.len() * bytes);
        let (train, test) = kept.split_at(kept.partition_point(|&i| i < first_test));
        let test_planes = self.planes.split_off(train.len() * bytes);
        let [train_labels, test_labels] = labels;
        let part = |images, kept: &[usize], first: usize, labels: Option<Vec<u32>>| {
            let labels = labels.filter(|_| !kept.is_empty());
            Split {
                images,
                labels: labels.map(|labels| kept.iter().map(|&i| labels[i - first]).collect()),
                files: kept.iter().map(|&i| names[i].clone()).collect(),
                height,
                width,
            }
        };
        [
            part(self.planes, train, 0, train_labels),
            part(test_planes, test, first_test, test_labels),
        ]
    }
}

/// The size of the first image. If all images must be whole, images of another size are an error
/// before any is decoded.
fn common_size(dir: &Path, paths: &[PathBuf], options: &LoadOptions) -> Result<[u32; 2]> {
    let found = parallel::map(paths.iter(), |path| image_file::size(path));
    let bad = paths.iter().zip(&found);
    let bad = bad.filter_map(|(path, size)| size.as_ref().err().map(|reason| (path, reason)));
    let bad: Vec<(&PathBuf, &String)> = bad.collect();
    let sizes: Vec<[u32; 2]> = found.iter().flatten().copied().collect();
    let Some(&first) = sizes.first() else {
        return Err(unreadable(dir, paths.len(), &bad));
    };
    let is_mixed = sizes.iter().any(|size| *size != first);
    if is_mixed && options.on_bad_image == OnBadImage::Error {
        return Err(several_sizes(dir, &sizes));
    }
    Ok(first)
}

fn unreadable(dir: &Path, all: usize, bad: &[(&PathBuf, &String)]) -> Error {
    let each = bad
        .iter()
        .map(|(path, reason)| format!("{} ({reason})", path.display()));
    let message = format!(
        "{} of {all} image files cannot be decoded whole: {}; replace or remove them, or leave them out with \
         --on-bad-image skip",
        bad.len(),
        listed(each, ", ")
    );
    Error::data(dir, message)
}

fn several_sizes(dir: &Path, sizes: &[[u32; 2]]) -> Error {
    let area = |size: &&[u32; 2]| (u64::from(size[0]) * u64::from(size[1]), size[0]);
    let shown = |size: Option<&[u32; 2]>| size.map_or(String::new(), |[w, h]| format!("{w} x {h}"));
    let message = format!(
        "the images have several sizes, from {} to {} pixels; give --size N to resize and crop them all to N x N",
        shown(sizes.iter().min_by_key(area)),
        shown(sizes.iter().max_by_key(area))
    );
    Error::data(dir, message)
}
