//! Folders of image files, as torchvision's `ImageFolder` reads them: DIR/train/CLASS/... and
//! DIR/test/CLASS/..., DIR/CLASS/... without a test set, or images without class folders, which
//! have no labels.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use web_time::Instant;

use super::check::Check;
use super::decoding::{Decoding, Found, shown};
use super::files::{self, thousands};
use super::findings::Findings;
use super::image_file::{self, Suffix};
use super::stream::{Stream, progress};
use super::{Dataset, Images, LoadOptions, Split, digest};
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
/// the training set lacks, images that cannot be decoded whole, and images of several sizes;
/// [`Error::Stopped`] if a stop is requested while a streamed set is checked.
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
    let (test_paths, test_labels) = if classes.is_empty() {
        // Labels of the test set have no meaning without those of the training set.
        let inner = test.classes.into_iter().flat_map(|class| class.images);
        (inner.chain(test.loose).collect(), None)
    } else {
        labelled(dir, test.classes, test.loose, &classes)?
    };
    let set = FileSet {
        dir,
        first_test: train_paths.len(),
        paths: [train_paths, test_paths].concat(),
        labels: [train_labels, test_labels],
    };
    let ([train, test], digest) = set.read(options, &mut findings)?;
    let without: Vec<&String> = (0..)
        .zip(&classes)
        .filter(|(label, _)| !train.labels.iter().flatten().any(|l| l == label))
        .map(|(_, class)| class)
        .collect();
    if train.is_empty() || !without.is_empty() {
        let message = format!(
            "no image is left after the damaged ones are left out, in {}",
            if without.is_empty() {
                "the training set".to_string()
            } else {
                format!("the classes {}", listed(without, ", "))
            }
        );
        return Err(Error::data(dir, message));
    }
    // The folder's own name, also of `.`.
    let absolute = fs::canonicalize(dir).map_err(|e| Error::read(dir, e))?;
    let default = dir.file_name().or(absolute.file_name());
    let default = default.map_or("folder".into(), |name| name.to_string_lossy());
    let name = files::dataset_name(dir, &default)?;
    let mut dataset = Dataset::with_digest(name, classes, (train, test, None), digest);
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
    Ok(if archives.is_empty() {
        String::new()
    } else {
        format!(
            ", but archives, which must be unpacked: {}",
            listed(archives, ", ")
        )
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

/// The image files of a set, those of the training set first.
struct FileSet<'a> {
    dir: &'a Path,
    paths: Vec<PathBuf>,
    first_test: usize,
    /// Of the training and of the test set.
    labels: [Option<Vec<u32>>; 2],
}

impl FileSet<'_> {
    /// Decodes all files once, and returns the training and the test split with their digest. The
    /// images are held if they fit.
    fn read(&self, options: &LoadOptions, findings: &mut Findings) -> Result<([Split; 2], String)> {
        let check = || Check::of(self.dir, &self.paths, self.first_test, options);
        let check = (options.held_bytes < u64::MAX).then(check);
        let checked = check.as_ref().and_then(Check::remembered);
        let decoding = match &checked {
            Some(checked) => Decoding::new(options, checked.size),
            None => Decoding::of(self.dir, &self.paths, options)?,
        };
        let bytes = (decoding.bytes() as u64).saturating_mul(self.paths.len() as u64);
        let Some(check) = check.filter(|_| bytes > options.held_bytes) else {
            return self.held(&decoding, options, findings);
        };
        findings.streamed_bytes = Some(bytes);
        let stamped = self.paths.iter().cloned().zip(check.stamps.iter().copied());
        let stream = Stream::new(stamped, decoding.clone());
        let splits = |kept: &[usize]| {
            self.splits(kept, decoding.size, |places| {
                let places: Vec<u32> = places.iter().map(|&i| i as u32).collect();
                Images::Streamed(stream.subset(&places))
            })
        };
        let kept = |found: &Found, findings: &mut Findings| {
            let files = (self.dir, self.paths.as_slice());
            found.kept(files, decoding.size, options, findings)
        };
        if let Some(checked) = checked {
            let kept = kept(&checked.found, findings)?;
            return Ok((splits(&kept), checked.digest));
        }
        progress(format_args!(
            "images  {} files are decoded once, to check them before the first step",
            thousands(self.paths.len() as u64)
        ));
        let started = Instant::now();
        let mut outcomes = Vec::new();
        let [train, test] = &splits(&Vec::from_iter(0..self.paths.len()));
        let mut sum = digest([Some(train), Some(test), None], Some(&mut outcomes))?;
        let found = Found::new(outcomes);
        let kept = kept(&found, findings)?;
        let [train, test] = splits(&kept);
        if kept.len() < self.paths.len() {
            sum = digest([Some(&train), Some(&test), None], None)?;
        }
        let checked = check.remember(decoding.size, sum, found);
        progress(format_args!(
            "images  {} files were decoded whole in {:.1} s",
            thousands(kept.len() as u64),
            started.elapsed().as_secs_f64()
        ));
        Ok(([train, test], checked.digest))
    }

    fn held(
        &self,
        decoding: &Decoding,
        options: &LoadOptions,
        findings: &mut Findings,
    ) -> Result<([Split; 2], String)> {
        let bytes = decoding.bytes();
        let mut planes = files::zeroed(self.dir, bytes.saturating_mul(self.paths.len()))?;
        let outcomes = decoding.decode_all(&self.paths, &mut planes);
        let files = (self.dir, self.paths.as_slice());
        let kept = Found::new(outcomes).kept(files, decoding.size, options, findings)?;
        for (slot, &i) in kept.iter().enumerate() {
            if slot != i {
                planes.copy_within(i * bytes..(i + 1) * bytes, slot * bytes);
            }
        }
        planes.truncate(kept.len() * bytes);
        let [train, test] = self.splits(&kept, decoding.size, |places| {
            let rest = planes.split_off(places.len() * bytes);
            Images::Held(std::mem::replace(&mut planes, rest))
        });
        let sum = digest([Some(&train), Some(&test), None], None)?;
        Ok(([train, test], sum))
    }

    /// The training and the test split of the files at the places `kept`. `images` returns the
    /// images of the first of them, then of the others. A split without images has no labels.
    fn splits(
        &self,
        kept: &[usize],
        [width, height]: [usize; 2],
        mut images: impl FnMut(&[usize]) -> Images,
    ) -> [Split; 2] {
        let (train, test) = kept.split_at(kept.partition_point(|&i| i < self.first_test));
        let mut part = |kept: &[usize], first: usize, labels: &Option<Vec<u32>>| {
            let labels = labels.as_ref().filter(|_| !kept.is_empty());
            Split {
                images: images(kept),
                labels: labels.map(|labels| kept.iter().map(|&i| labels[i - first]).collect()),
                files: kept
                    .iter()
                    .map(|&i| shown(self.dir, &self.paths[i]))
                    .collect(),
                height,
                width,
            }
        };
        let [train_labels, test_labels] = &self.labels;
        [
            part(train, 0, train_labels),
            part(test, self.first_test, test_labels),
        ]
    }
}
