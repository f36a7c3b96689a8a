//! Published data sets: their archives are downloaded, verified, unpacked and renamed into place.
//!
//! An interrupted download keeps what it received, and the next one requests the rest. Nothing is
//! unpacked before size and SHA-256 are those of the published archive.

mod published;
#[cfg(test)]
mod tests;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use tar::EntryType;
use ureq::http::{StatusCode, header};

pub use published::Published;

use super::files::thousands;
use crate::error::{Error, Result, listed};
use crate::interrupt;
use crate::sha256::hex;

/// The source of an archive.
#[derive(Clone, Copy, Debug)]
pub enum Origin<'a> {
    /// The official address, or that of a mirror.
    Url(&'a str),
    /// A file that was downloaded before.
    File(&'a Path),
}

/// How long a download waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection, and for each part of an answer.
    pub stall: Duration,
    /// Attempts in a row that receive nothing.
    pub attempts: u32,
    /// Between two attempts.
    pub pause: Duration,
}

impl Default for Patience {
    /// 30 seconds, five attempts, and two seconds between them.
    fn default() -> Self {
        Patience {
            stall: Duration::from_secs(30),
            attempts: 5,
            pause: Duration::from_secs(2),
        }
    }
}

/// The current activity of [`fetch`].
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Bytes received so far, those of an earlier download included.
    Received(u64),
    /// An attempt failed for this reason, and another one follows.
    Retry(&'a str),
    Verify,
    Unpack,
}

/// The result of [`fetch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The folder of the files is new.
    Unpacked(PathBuf),
    /// The folder was there, with all files.
    Present(PathBuf),
}

/// Puts the files of `published` into a folder of the archive's own name in `dir`, which is created
/// if it does not exist.
///
/// # Errors
/// `Error::Data` for content that is not the published one, which is removed; `Error::Usage` for a
/// server or a file that cannot be used, or if another process downloads to `dir`; `Error::Io` if a
/// file cannot be read or written; `Error::Stopped` on request. A later call with the same
/// arguments then continues the download.
pub fn fetch(
    published: &Published,
    dir: &Path,
    origin: Origin<'_>,
    patience: Patience,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<Fetched> {
    let target = dir.join(published.source.folder);
    if target.symlink_metadata().is_ok() {
        let missing = missing(published, &target);
        if missing.is_empty() {
            return Ok(Fetched::Present(target));
        }
        let message = format!(
            "is in the way and lacks {}; move it away or remove it",
            listed(missing, ", ")
        );
        return Err(Error::data(target, message));
    }
    fs::create_dir_all(dir).map_err(|e| Error::write(dir, e))?;
    match origin {
        Origin::File(path) => {
            progress(Progress::Verify);
            verify(published, path)?;
            progress(Progress::Unpack);
            unpack(published, path, &target)?;
        }
        Origin::Url(url) => {
            let partial = Partial::open(published, dir)?;
            partial.download(url, patience, progress)?;
            progress(Progress::Verify);
            if let Err(error) = verify(published, &partial.path) {
                if matches!(error, Error::Data { .. }) {
                    partial.remove();
                }
                return Err(error);
            }
            progress(Progress::Unpack);
            unpack(published, &partial.path, &target)?;
            partial.remove();
        }
    }
    Ok(Fetched::Unpacked(target))
}

/// The files of the archive that are not in `folder` with their published size.
fn missing(published: &Published, folder: &Path) -> Vec<&'static str> {
    let is_there = |file: &str, bytes: Option<u64>| {
        let about = fs::metadata(folder.join(file));
        about.is_ok_and(|about| about.is_file() && bytes.is_none_or(|bytes| about.len() == bytes))
    };
    let files = published.source.files.iter();
    files
        .filter(|expected| !is_there(expected.file, expected.bytes))
        .map(|expected| expected.file)
        .collect()
}

/// The part of an archive that was received, locked against other processes.
struct Partial<'a> {
    published: &'a Published,
    path: PathBuf,
    file: File,
}

/// Why an attempt ended early.
enum Failure {
    /// Another attempt may succeed.
    Retry(String),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Final(error)
    }
}

impl<'a> Partial<'a> {
    fn open(published: &'a Published, dir: &Path) -> Result<Self> {
        let path = dir.join(format!("{}.partial", published.file()));
        let options = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .to_owned();
        let file = options.open(&path).map_err(|e| Error::write(&path, e))?;
        // On a file system without locks, the error is another one and is ignored.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(Error::usage(format!(
                "{} is in use by another process; wait for its end, or use another folder",
                path.display()
            )));
        }
        Ok(Partial {
            published,
            path,
            file,
        })
    }

    /// Removes the file. If that fails, a later call verifies it again.
    fn remove(self) {
        drop(fs::remove_file(&self.path));
    }

    fn len(&self) -> Result<u64> {
        let about = self.file.metadata();
        about
            .map(|about| about.len())
            .map_err(|e| Error::read(&self.path, e))
    }

    fn clear(&self) -> Result<()> {
        self.file
            .set_len(0)
            .map_err(|e| Error::write(&self.path, e))
    }

    /// Receives the missing bytes. Tries again as long as attempts make progress.
    fn download(
        &self,
        url: &str,
        patience: Patience,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<()> {
        if self.len()? > self.published.bytes {
            self.clear()?;
        }
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_resolve(Some(patience.stall))
            .timeout_connect(Some(patience.stall))
            .timeout_per_read(Some(patience.stall))
            .timeout_per_write(Some(patience.stall))
            .user_agent(concat!("parallax/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = ureq::Agent::new_with_config(config);
        let mut failures = 0;
        loop {
            let before = self.len()?;
            if before == self.published.bytes {
                return Ok(());
            }
            let reason = match self.receive(&agent, url, before, progress) {
                Ok(()) => continue,
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Retry(reason)) => reason,
            };
            failures = if self.len()? > before {
                0
            } else {
                failures + 1
            };
            if failures >= patience.attempts {
                return Err(Error::usage(format!(
                    "{url}: {reason}; the last {failures} attempts received nothing. Use a mirror or an archive that \
                     you have; a later download continues after {} of {} bytes",
                    thousands(self.len()?),
                    thousands(self.published.bytes)
                )));
            }
            progress(Progress::Retry(&reason));
            let until = Instant::now() + patience.pause;
            while Instant::now() < until {
                self.check_stop()?;
                thread::sleep(POLL.min(patience.pause));
            }
        }
    }

    fn check_stop(&self) -> Result<()> {
        let len = self.len()?;
        interrupt::check(|| {
            format!(
                "after {} of {} bytes",
                thousands(len),
                thousands(self.published.bytes)
            )
        })
    }

    /// One request for everything after the first `have` bytes.
    fn receive(
        &self,
        agent: &ureq::Agent,
        url: &str,
        mut have: u64,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> std::result::Result<(), Failure> {
        let all = self.published.bytes;
        let refused = |what: String| {
            Failure::Final(Error::usage(format!(
                "{url}: {what}; use another address or a file"
            )))
        };
        let mut request = agent.get(url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response = request.call().map_err(|error| match error {
            ureq::Error::BadUri(_)
            | ureq::Error::Http(_)
            | ureq::Error::TooManyRedirects
            | ureq::Error::Tls(_)
            | ureq::Error::Rustls(_) => refused(error.to_string()),
            // A certificate that is not trusted.
            ureq::Error::Io(e) if e.kind() == ErrorKind::InvalidData => refused(e.to_string()),
            error => Failure::Retry(error.to_string()),
        })?;
        let text = |name| response.headers().get(name)?.to_str().ok();
        let range = text(header::CONTENT_RANGE).unwrap_or_default().to_string();
        let length = text(header::CONTENT_LENGTH).and_then(|word| word.parse::<u64>().ok());
        match response.status() {
            StatusCode::OK => {
                // The server ignores ranges, and sends everything.
                self.clear()?;
                have = 0;
            }
            StatusCode::PARTIAL_CONTENT => {
                if !range.starts_with(&format!("bytes {have}-")) {
                    self.clear()?;
                    return Err(Failure::Retry(format!(
                        "the server sent the range '{range}' for what follows byte {have}"
                    )));
                }
                let whole = range.rsplit('/').next().and_then(|n| n.parse::<u64>().ok());
                if whole.is_some_and(|whole| whole != all) {
                    return Err(refused(other_size(whole.unwrap_or(0), all)));
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE => {
                self.clear()?;
                return Err(Failure::Retry("the server has fewer bytes".to_string()));
            }
            status if status.is_server_error() || BUSY.contains(&status) => {
                return Err(Failure::Retry(format!("the server answers {status}")));
            }
            status => return Err(refused(format!("the server answers {status}"))),
        }
        if let Some(length) = length.filter(|length| have + length != all) {
            return Err(refused(other_size(have + length, all)));
        }
        let mut content = response.into_body().into_reader();
        let mut part = vec![0; PART];
        loop {
            let count = match content.read(&mut part) {
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::Interrupted => 0,
                Err(e) => return Err(Failure::Retry(e.to_string())),
            };
            self.check_stop()?;
            if count == 0 {
                break;
            }
            have += count as u64;
            if have > all {
                self.clear()?;
                return Err(refused(format!(
                    "the server sent more than the {} bytes of the archive",
                    thousands(all)
                )));
            }
            let mut file = &self.file;
            file.write_all(&part[..count])
                .map_err(|e| Error::write(&self.path, e))?;
            progress(Progress::Received(have));
        }
        if have < all {
            return Err(Failure::Retry(format!(
                "the content ends after {} of {} bytes",
                thousands(have),
                thousands(all)
            )));
        }
        Ok(())
    }
}

/// Interval at which a pause checks for a request to stop.
const POLL: Duration = Duration::from_millis(200);
/// Answers of a server that may have the archive later, beside its own errors.
const BUSY: [StatusCode; 2] = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS];
/// Bytes that are read at a time.
const PART: usize = 256 << 10;

fn other_size(found: u64, expected: u64) -> String {
    format!(
        "the server offers {} bytes, and the published archive has {}",
        thousands(found),
        thousands(expected)
    )
}

/// Fails unless the file at `path` is the published archive.
fn verify(published: &Published, path: &Path) -> Result<()> {
    let read = |e| Error::read(path, e);
    let mut file = File::open(path).map_err(read)?;
    let advice = format!(
        "it is damaged or another file than {}; download it again, or from another address",
        published.source.address
    );
    let found = file.metadata().map_err(read)?.len();
    if found != published.bytes {
        let message = format!(
            "{} bytes, and the published archive has {}: {advice}",
            thousands(found),
            thousands(published.bytes)
        );
        return Err(Error::data(path, message));
    }
    let mut digest = Sha256::new();
    let mut part = vec![0; PART];
    loop {
        let count = file.read(&mut part).map_err(read)?;
        if count == 0 {
            break;
        }
        digest.update(&part[..count]);
        interrupt::check(|| "while the archive was verified".to_string())?;
    }
    let found = hex(&digest.finalize());
    if found != published.sha256 {
        let message = format!(
            "its SHA-256 is {found}, and that of the published archive {}: {advice}",
            published.sha256
        );
        return Err(Error::data(path, message));
    }
    Ok(())
}

/// Unpacks the archive at `path` beside `target`, and renames the folder to `target` once all files
/// are there.
fn unpack(published: &Published, path: &Path, target: &Path) -> Result<()> {
    let dir = target.parent().unwrap_or(Path::new("."));
    let place = tempfile::Builder::new()
        .prefix(".parallax-")
        .suffix(".partial")
        .tempdir_in(dir)
        .map_err(|e| Error::write(dir, e))?;
    let file = File::open(path).map_err(|e| Error::read(path, e))?;
    extract(
        published,
        GzDecoder::new(BufReader::new(file)),
        place.path(),
    )
    .map_err(|failure| match failure {
        Extraction::Content(what) => Error::data(
            path,
            format!("the archive cannot be unpacked: {what}; use another one"),
        ),
        Extraction::Other(error) => error,
    })?;
    let folder = place.path().join(published.source.folder);
    let missing = missing(published, &folder);
    if !missing.is_empty() {
        let message = format!(
            "the archive has no {} of the published size; use another one",
            listed(missing, ", ")
        );
        return Err(Error::data(path, message));
    }
    fs::rename(&folder, target).map_err(|e| Error::write(target, e))
}

/// Why an archive is not extracted.
enum Extraction {
    Content(String),
    Other(Error),
}

impl From<io::Error> for Extraction {
    fn from(error: io::Error) -> Self {
        Extraction::Content(error.to_string())
    }
}

/// Entries of an archive, at most.
const MOST_ENTRIES: usize = 1000;

/// Writes the files of the archive's folder to `place`. Links, devices and paths that lead
/// elsewhere are errors, and so are more bytes than the published files have.
fn extract(
    published: &Published,
    content: impl Read,
    place: &Path,
) -> std::result::Result<(), Extraction> {
    let wrong = |what: String| Err(Extraction::Content(what));
    let mut left = published.most_unpacked;
    for (number, entry) in tar::Archive::new(content).entries()?.enumerate() {
        let entry = entry?;
        if number == MOST_ENTRIES {
            return wrong(format!("it has more than {MOST_ENTRIES} entries"));
        }
        let name = entry.path()?.into_owned();
        let shown = name.display();
        let mut path = PathBuf::new();
        for part in name.components() {
            match part {
                Component::Normal(part) => path.push(part),
                Component::CurDir => {}
                _ => return wrong(format!("{shown} leads out of its folder")),
            }
        }
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            other => return wrong(format!("{shown} is no file ({other:?})")),
        }
        let size = entry.size();
        if size > left {
            return wrong(format!(
                "its files have more than {} bytes",
                thousands(published.most_unpacked)
            ));
        }
        left -= size;
        if !path.starts_with(published.source.folder) {
            continue;
        }
        let target = place.join(&path);
        let write = |e| Extraction::Other(Error::write(&target, e));
        if target.exists() {
            return wrong(format!("{shown} is there twice"));
        }
        fs::create_dir_all(target.parent().unwrap_or(place)).map_err(write)?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&target)
            .map_err(write)?;
        let mut content = entry.take(size);
        let mut part = vec![0; PART];
        let mut found = 0;
        loop {
            let count = content.read(&mut part)?;
            if count == 0 {
                break;
            }
            file.write_all(&part[..count]).map_err(write)?;
            found += count as u64;
            interrupt::check(|| "while the archive was unpacked".to_string())
                .map_err(Extraction::Other)?;
        }
        if found != size {
            return wrong(format!("{shown} ends early"));
        }
        file.sync_all().map_err(write)?;
    }
    Ok(())
}
