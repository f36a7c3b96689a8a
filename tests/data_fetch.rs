//! `data fetch` as a process. `src/data/fetch/tests.rs` has the downloads themselves.

#[allow(dead_code)]
mod process;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use tempfile::TempDir;

use process::{good, parallax, refused, text};

/// A server that sends the same answer to each of `count` requests. Returns its address.
fn server(count: usize, answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/cifar.tar.gz", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().take(count) {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                head.push(byte[0]);
            }
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    address
}

fn answer(status: &str, headers: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n")
}

/// The files of CIFAR-10, as large as the published ones.
fn write_cifar(folder: &std::path::Path) {
    fs::create_dir_all(folder).unwrap();
    for name in [
        "data_batch_1",
        "data_batch_2",
        "data_batch_3",
        "data_batch_4",
        "data_batch_5",
        "test_batch",
    ] {
        let file = fs::File::create(folder.join(format!("{name}.bin"))).unwrap();
        file.set_len(30_730_000).unwrap();
    }
    fs::write(folder.join("batches.meta.txt"), "airplane\n").unwrap();
}

#[test]
fn words_that_cannot_be_used_are_refused() {
    let base = TempDir::new().unwrap();
    for (words, named) in [
        (&["data", "fetch", "mnist"][..], "mnist"),
        (&["data", "fetch", "shapes"], "cannot be fetched"),
        (&["data", "fetch", "folder"], "cannot be fetched"),
        (
            &["data", "fetch", "cifar10", "--url", "x", "--file", "y"],
            "--file",
        ),
        (&["data", "fetch", "cifar10", "--url", "nowhere"], "nowhere"),
    ] {
        refused(base.path(), words, 2, &[named]);
    }
}

#[test]
fn another_archive_is_refused() {
    let base = TempDir::new().unwrap();
    let short = server(1, answer("200 OK", "Content-Length: 3\r\n"));
    let words = ["data", "fetch", "cifar10", "--quiet", "--url", &short];
    refused(base.path(), &words, 2, &[&short, "3 bytes", "170,052,171"]);
    let absent = server(1, answer("404 Not Found", ""));
    let words = ["data", "fetch", "cifar100", "--quiet", "--url", &absent];
    refused(base.path(), &words, 2, &[&absent, "404"]);
    let mine = base.path().join("mine.tar.gz");
    fs::write(&mine, "no archive").unwrap();
    let words = ["data", "fetch", "stl10", "--quiet", "--file", "mine.tar.gz"];
    refused(base.path(), &words, 1, &["mine.tar.gz", "2,640,397,119"]);
    assert!(mine.is_file());
}

#[test]
fn a_data_set_that_is_there_is_not_fetched() {
    let base = TempDir::new().unwrap();
    write_cifar(&base.path().join("mine/cifar-10-batches-bin"));
    let out = good(
        base.path(),
        &["data", "fetch", "cifar10", "--data-dir", "mine"],
    );
    for part in [
        "170052171|162.17 MiB",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "no licence|citation",
        "is there already; use it with --data cifar10 --data-dir mine",
    ] {
        assert!(
            part.split('|').any(|part| out.contains(part)),
            "{part}: {out}"
        );
    }
    // A folder that lacks a file is named and kept.
    fs::remove_file(base.path().join("mine/cifar-10-batches-bin/test_batch.bin")).unwrap();
    let words = ["data", "fetch", "cifar10", "--data-dir", "mine", "--quiet"];
    refused(
        base.path(),
        &words,
        1,
        &["cifar-10-batches-bin", "test_batch.bin"],
    );
}

#[test]
fn the_variable_names_the_folder() {
    let base = TempDir::new().unwrap();
    write_cifar(&base.path().join("elsewhere/cifar-10-batches-bin"));
    let mut command = parallax(base.path(), &["data", "fetch", "cifar10"]);
    let output = command.env("PARALLAX_DATA", "elsewhere").output().unwrap();
    let out = text(&output.stdout);
    assert!(
        output.status.success() && out.contains("--data-dir elsewhere"),
        "{out}"
    );
}

#[cfg(unix)]
#[test]
fn a_stopped_download_names_the_command_that_continues() {
    let base = TempDir::new().unwrap();
    // A whole connection without an end: the content never comes.
    let head = answer("200 OK", "Content-Length: 170052171\r\n") + &"x".repeat(1000);
    let address = server(100, head);
    let words = [
        "data",
        "fetch",
        "cifar10",
        "--quiet",
        "--time-limit",
        "0.5",
        "--url",
        &address,
    ];
    let output = parallax(base.path(), &words).output().unwrap();
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{errors}");
    assert!(
        errors.contains("of 170,052,171 bytes") && errors.contains("data fetch cifar10"),
        "{errors}"
    );
    assert!(
        base.path()
            .join("data/cifar-10-binary.tar.gz.partial")
            .is_file()
    );
}
