//! Downloads from a local server that truncates, corrupts, redirects, stalls, and sends too much.

use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::*;
use crate::data::DataKind;
use crate::data::files::{Expected, Source};
use crate::philox::Philox;

const SIZE: usize = 300_000;

const SOURCE: Source = Source {
    title: "Toy (binary version)",
    address: "http://toy.invalid/toy-binary.tar.gz",
    folder: "toy",
    files: &[
        Expected {
            file: "data.bin",
            bytes: Some(SIZE as u64),
        },
        Expected {
            file: "names.txt",
            bytes: None,
        },
    ],
};

fn data() -> Vec<u8> {
    let mut rng = Philox::new(3, [0; 3]);
    (0..SIZE).map(|_| rng.next_u32() as u8).collect()
}

/// Name, type and content of an entry.
type Entry<'a> = (&'a str, EntryType, &'a [u8]);

/// A packed archive of entries with any names.
fn packed(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        // The crate's own methods refuse the names that a hostile archive has.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        if *kind == EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        builder.append(&header, *content).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

fn good() -> Vec<u8> {
    packed(&[
        ("toy/", EntryType::Directory, b""),
        ("toy/data.bin", EntryType::Regular, &data()),
        ("./toy/names.txt", EntryType::Regular, b"cat\ndog\n"),
        ("elsewhere/readme.txt", EntryType::Regular, b"left out"),
    ])
}

fn published(archive: &[u8]) -> Published {
    Published {
        source: &SOURCE,
        bytes: archive.len() as u64,
        sha256: Box::leak(hex(&Sha256::digest(archive)).into_boxed_str()),
        most_unpacked: SIZE as u64 + 1000,
        terms: "none",
    }
}

/// Answers one request, given its head and the connection.
type Answer = Box<dyn FnOnce(&str, &mut TcpStream) + Send>;

struct Server {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// A server that gives these answers in turn, one per connection, and then none.
    fn new(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/toy", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let seen = heads.clone();
        let mut answers = VecDeque::from(answers);
        thread::spawn(move || {
            while let Some(answer) = answers.pop_front() {
                let Ok((mut stream, _)) = listener.accept() else {
                    return;
                };
                let mut head = Vec::new();
                let mut byte = [0];
                while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                    head.push(byte[0]);
                }
                let head = String::from_utf8(head).unwrap().to_lowercase();
                seen.lock().unwrap().push(head.clone());
                answer(&head, &mut stream);
            }
        });
        Server { address, heads }
    }

    /// The range that each request asked for.
    fn ranges(&self) -> Vec<Option<String>> {
        let heads = self.heads.lock().unwrap();
        let range = |head: &String| {
            let line = head.lines().find_map(|line| line.strip_prefix("range: "));
            line.map(str::to_string)
        };
        heads.iter().map(range).collect()
    }
}

/// An answer with this status line, these header lines and this content.
fn answer(status: &str, headers: String, content: Vec<u8>) -> Answer {
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
    Box::new(move |_, stream| {
        // The client may give up before the end.
        drop(stream.write_all(head.as_bytes()));
        drop(stream.write_all(&content));
    })
}

/// All of `archive`, of which only `sent` bytes follow.
fn whole(archive: &[u8], sent: usize) -> Answer {
    let length = format!("Content-Length: {}\r\n", archive.len());
    answer("200 OK", length, archive[..sent].to_vec())
}

/// The rest of `archive` after `start` bytes, of which `sent` follow.
fn rest(archive: &[u8], start: usize, sent: usize) -> Answer {
    let (len, end) = (archive.len(), archive.len() - 1);
    let headers = format!(
        "Content-Length: {}\r\nContent-Range: bytes {start}-{end}/{len}\r\n",
        len - start
    );
    answer(
        "206 Partial Content",
        headers,
        archive[start..start + sent].to_vec(),
    )
}

const QUICK: Patience = Patience {
    stall: Duration::from_secs(30),
    attempts: 3,
    pause: Duration::from_millis(1),
};

fn fetch_from(server: &Server, archive: &[u8], dir: &Path) -> Result<Fetched> {
    let origin = Origin::Url(&server.address);
    fetch(&published(archive), dir, origin, QUICK, &mut |_| {})
}

/// Fails unless the folder has the files and nothing else is in `dir`.
fn check_unpacked(dir: &TempDir) {
    let folder = dir.path().join("toy");
    assert_eq!(fs::read(folder.join("data.bin")).unwrap(), data());
    assert_eq!(fs::read(folder.join("names.txt")).unwrap(), b"cat\ndog\n");
    assert_eq!(names(&folder), ["data.bin", "names.txt"]);
    assert_eq!(names(dir.path()), ["toy"]);
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

const PARTIAL: &str = "toy-binary.tar.gz.partial";

#[test]
fn the_published_archives_are_complete() {
    for kind in [DataKind::Cifar10, DataKind::Cifar100, DataKind::Stl10] {
        let published = Published::of(kind).unwrap();
        assert!(published.file().ends_with("binary.tar.gz"));
        assert_eq!(published.sha256.len(), 64);
        assert!(published.terms().contains("citation"));
        let sizes = published.source.files.iter().filter_map(|file| file.bytes);
        let unpacked: u64 = sizes.sum();
        assert!(
            unpacked > 0 && (unpacked..unpacked + unpacked / 10).contains(&published.most_unpacked)
        );
    }
    assert!(Published::of(DataKind::Folder).is_err());
}

#[test]
fn an_archive_is_downloaded_and_unpacked() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    let server = Server::new(vec![whole(&archive, archive.len())]);
    let mut seen = Vec::new();
    let mut progress = |progress: Progress<'_>| seen.push(format!("{progress:?}"));
    let origin = Origin::Url(&server.address);
    let found = fetch(
        &published(&archive),
        dir.path(),
        origin,
        QUICK,
        &mut progress,
    );
    assert_eq!(found.unwrap(), Fetched::Unpacked(dir.path().join("toy")));
    check_unpacked(&dir);
    assert_eq!(server.ranges(), [None]);
    let received = format!("Received({})", archive.len());
    assert_eq!(
        seen[seen.len() - 3..],
        [received.as_str(), "Verify", "Unpack"]
    );
    // The second time, no server is needed.
    let found = fetch_from(&server, &archive, dir.path());
    assert_eq!(found.unwrap(), Fetched::Present(dir.path().join("toy")));
}

#[test]
fn a_truncated_download_continues_where_it_ended() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    let server = Server::new(vec![
        whole(&archive, 1000),
        rest(&archive, 1000, 5000),
        answer("503 Service Unavailable", String::new(), Vec::new()),
        rest(&archive, 6000, archive.len() - 6000),
    ]);
    fetch_from(&server, &archive, dir.path()).unwrap();
    check_unpacked(&dir);
    let bytes = |start: usize| Some(format!("bytes={start}-"));
    assert_eq!(
        server.ranges(),
        [None, bytes(1000), bytes(6000), bytes(6000)]
    );
}

#[test]
fn a_later_call_continues_a_download() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    let failing = Server::new(vec![whole(&archive, 2000)]);
    let error = fetch_from(&failing, &archive, dir.path()).unwrap_err();
    assert!(matches!(error, Error::Usage(_)), "{error}");
    assert!(error.to_string().contains("after 2,000 of"), "{error}");
    assert_eq!(names(dir.path()), [PARTIAL]);
    let server = Server::new(vec![rest(&archive, 2000, archive.len() - 2000)]);
    fetch_from(&server, &archive, dir.path()).unwrap();
    check_unpacked(&dir);
    assert_eq!(server.ranges(), [Some("bytes=2000-".to_string())]);
}

#[test]
fn a_whole_partial_file_needs_no_server() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    fs::write(dir.path().join(PARTIAL), &archive).unwrap();
    fetch_from(&Server::new(Vec::new()), &archive, dir.path()).unwrap();
    check_unpacked(&dir);
}

#[test]
fn a_server_without_ranges_sends_everything() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    fs::write(dir.path().join(PARTIAL), b"the start of something else").unwrap();
    let server = Server::new(vec![whole(&archive, archive.len())]);
    fetch_from(&server, &archive, dir.path()).unwrap();
    check_unpacked(&dir);
}

#[test]
fn another_range_starts_the_download_over() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    fs::write(dir.path().join(PARTIAL), &archive[..500]).unwrap();
    let no_range = "Content-Range: bytes */100\r\n".to_string();
    let server = Server::new(vec![
        rest(&archive, 600, 100),
        whole(&archive, 400),
        answer("416 Range Not Satisfiable", no_range, Vec::new()),
        whole(&archive, archive.len()),
    ]);
    fetch_from(&server, &archive, dir.path()).unwrap();
    check_unpacked(&dir);
    assert_eq!(server.ranges()[1], None);
    assert_eq!(server.ranges()[3], None);
}

#[test]
fn corrupt_content_is_removed() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    let mut corrupt = archive.clone();
    corrupt[archive.len() / 2] ^= 1;
    let server = Server::new(vec![whole(&corrupt, corrupt.len())]);
    let error = fetch_from(&server, &archive, dir.path()).unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    assert!(error.to_string().contains("SHA-256"), "{error}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_redirect_is_followed() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    let target = Server::new(vec![whole(&archive, archive.len())]);
    let location = format!("Location: {}/elsewhere\r\n", target.address);
    let server = Server::new(vec![answer("302 Found", location, Vec::new())]);
    fetch_from(&server, &archive, dir.path()).unwrap();
    check_unpacked(&dir);
    assert!(target.heads.lock().unwrap()[0].starts_with("get /toy/elsewhere "));
}

#[test]
fn a_circle_of_redirects_is_refused() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    let circle = || answer("302 Found", "Location: /toy\r\n".to_string(), Vec::new());
    let server = Server::new((0..12).map(|_| circle()).collect());
    let error = fetch_from(&server, &archive, dir.path()).unwrap_err();
    assert!(matches!(error, Error::Usage(_)), "{error}");
    assert!(error.to_string().contains("redirect"), "{error}");
}

#[test]
fn a_stalled_server_is_asked_again() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    let start = whole(&archive, 3000);
    let stall: Answer = Box::new(move |head, stream| {
        start(head, stream);
        // The connection stays open for longer than the test.
        let stream = stream.try_clone().unwrap();
        thread::spawn(move || {
            thread::sleep(Duration::from_secs(120));
            drop(stream);
        });
    });
    // More than one, since a busy machine may look like a stalled server.
    let more = (0..20).map(|_| -> Answer {
        let archive = archive.clone();
        Box::new(move |head, stream| {
            let line = head
                .lines()
                .find_map(|line| line.strip_prefix("range: bytes="));
            let start = line.map_or(0, |line| line.trim_end_matches('-').parse().unwrap());
            rest(&archive, start, archive.len() - start)(head, stream);
        })
    });
    let server = Server::new(std::iter::once(stall).chain(more).collect());
    let impatient = Patience {
        stall: Duration::from_millis(400),
        attempts: 20,
        ..QUICK
    };
    let started = Instant::now();
    let origin = Origin::Url(&server.address);
    fetch(
        &published(&archive),
        dir.path(),
        origin,
        impatient,
        &mut |_| {},
    )
    .unwrap();
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_eq!(
        server.ranges()[..2],
        [None, Some("bytes=3000-".to_string())]
    );
    check_unpacked(&dir);
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    let close = || -> Answer { Box::new(|_, _| {}) };
    let server = Server::new((0..3).map(|_| close()).collect());
    let error = fetch_from(&server, &archive, dir.path()).unwrap_err();
    assert!(error.to_string().contains("3 attempts"), "{error}");
    assert_eq!(server.ranges().len(), 3);
}

#[test]
fn an_archive_of_another_size_is_refused_at_once() {
    let archive = good();
    let longer = [&archive[..], &[0; 10]].concat();
    let unsized_answer = answer("200 OK", String::new(), longer.clone());
    let other_whole = |archive: &[u8]| {
        let headers = format!("Content-Range: bytes 100-200/{}\r\n", archive.len() + 10);
        answer("206 Partial Content", headers, archive[100..201].to_vec())
    };
    let refusals: [(Answer, usize, &str); 5] = [
        (whole(&longer, longer.len()), 0, "offers"),
        (whole(&archive[..50], 50), 0, "offers 50 bytes"),
        // An answer that states no length and does not end.
        (unsized_answer, 0, "more than"),
        (other_whole(&archive), 100, "offers"),
        (answer("404 Not Found", String::new(), Vec::new()), 0, "404"),
    ];
    for (given, start, part) in refusals {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(PARTIAL), &archive[..start]).unwrap();
        let server = Server::new(vec![given]);
        let error = fetch_from(&server, &archive, dir.path()).unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert_eq!(server.ranges().len(), 1, "{part}");
        assert_eq!(names(dir.path()), [PARTIAL]);
        assert!(fs::metadata(dir.path().join(PARTIAL)).unwrap().len() <= start as u64);
    }
}

#[test]
fn addresses_that_are_none_are_refused() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    for url in ["", "toy", "ftp://toy.invalid/x", "http://"] {
        let found = fetch(
            &published(&archive),
            dir.path(),
            Origin::Url(url),
            QUICK,
            &mut |_| {},
        );
        let error = found.unwrap_err();
        assert!(matches!(error, Error::Usage(_)), "{url}: {error}");
    }
}

#[test]
fn two_downloads_to_one_folder_are_refused() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    let published = published(&archive);
    let _first = Partial::open(&published, dir.path()).unwrap();
    let error = fetch_from(&Server::new(Vec::new()), &archive, dir.path()).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
}

#[test]
fn a_file_is_verified_and_kept() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    let other = TempDir::new().unwrap();
    let path = other.path().join("mine.tar.gz");
    let fetch = || {
        let origin = Origin::File(&path);
        fetch(&published(&archive), dir.path(), origin, QUICK, &mut |_| {})
    };
    assert!(matches!(fetch().unwrap_err(), Error::Io { .. }));
    for wrong in [vec![0; archive.len()], archive[1..].to_vec()] {
        fs::write(&path, wrong).unwrap();
        let error = fetch().unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error}");
        assert!(error.to_string().contains("mine.tar.gz"), "{error}");
        assert!(names(dir.path()).is_empty());
    }
    fs::write(&path, &archive).unwrap();
    fetch().unwrap();
    check_unpacked(&dir);
    assert_eq!(fs::read(&path).unwrap(), archive);
}

#[test]
fn a_folder_in_the_way_is_kept() {
    let (archive, dir) = (good(), TempDir::new().unwrap());
    let folder = dir.path().join("toy");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("data.bin"), b"short").unwrap();
    let error = fetch_from(&Server::new(Vec::new()), &archive, dir.path()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("in the way") && text.contains("names.txt"),
        "{error}"
    );
    assert!(text.contains("data.bin"), "{error}");
    assert_eq!(fs::read(folder.join("data.bin")).unwrap(), b"short");
}

#[test]
fn hostile_archives_leave_nothing() {
    let (data, regular) = (data(), EntryType::Regular);
    let file = ("toy/data.bin", regular, &data[..]);
    let names_file = ("toy/names.txt", regular, &b"cat\n"[..]);
    let large = vec![0; 2000];
    let cases: [(&str, &[Entry<'_>]); 9] = [
        ("../evil", &[file, ("../evil", regular, b"x")]),
        ("toy/../../evil", &[file, ("toy/../../evil", regular, b"x")]),
        ("/tmp/evil", &[file, ("/tmp/evil", regular, b"x")]),
        (
            "is no file",
            &[file, ("toy/names.txt", EntryType::Symlink, b"")],
        ),
        ("is no file", &[file, ("toy/pipe", EntryType::Fifo, b"")]),
        ("twice", &[file, names_file, file]),
        (
            "more than",
            &[file, names_file, ("toy/large", regular, &large)],
        ),
        ("no names.txt", &[file]),
        (
            "no data.bin",
            &[names_file, ("toy/data.bin", regular, b"short")],
        ),
    ];
    for (part, entries) in cases {
        let dir = TempDir::new().unwrap();
        // Below a folder of its own, so that `..` would be seen.
        let inner = dir.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let archive = packed(entries);
        // Twice the data, which the limit would refuse first.
        let published = Published {
            most_unpacked: if part == "twice" {
                u64::MAX
            } else {
                SIZE as u64 + 1000
            },
            ..published(&archive)
        };
        let path = dir.path().join("evil.tar.gz");
        fs::write(&path, &archive).unwrap();
        let found = fetch(&published, &inner, Origin::File(&path), QUICK, &mut |_| {});
        let error = found.unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error}");
        assert!(error.to_string().contains(part), "{part}: {error}");
        assert!(names(&inner).is_empty(), "{part}");
        assert_eq!(names(dir.path()), ["a", "evil.tar.gz"], "{part}");
    }
    // A damaged stream.
    let dir = TempDir::new().unwrap();
    let mut archive = good();
    archive.truncate(archive.len() / 2);
    let path = dir.path().join("half.tar.gz");
    fs::write(&path, &archive).unwrap();
    let origin = Origin::File(&path);
    let error = fetch(&published(&archive), dir.path(), origin, QUICK, &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error}");
    assert_eq!(names(dir.path()), ["half.tar.gz"]);
}
