//! `tidewater import`: files and folders as strings, `.ndjson` as typed keys.
//!
//! ```text
//!  paths -> items, read one by one -> as many under way as --concurrency, within a budget of bytes -> acknowledged -> journal
//! ```
//!
//! A file becomes a string under its path as it was typed (without a leading `./`); of a folder, every file in it. Symbolic links are
//! not followed, so that a walk ends. Whatever cannot be written (too large, a wrong line) is told and counted and does not stop the
//! rest; the exit code is 0 only when all of it was acknowledged. Repeating the command goes on where it stopped, and counts nothing
//! twice even when all was done (see `journal.rs`).

use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::args::{ImportArgs, Output};
use super::journal::{Ending, ItemId, Journal};
use super::ndjson::{Item, Part};
use super::progress::Progress;
use super::{CliError, EXIT_FAILED, connect, print, render};
use crate::client::routing::backoff;
use crate::client::{Client, ClientError};
use crate::data::id::hash64;
use crate::data::op::RequestError;
use crate::net::entropy;

/// Bytes of values that may be held at once; one larger value still gets through alone.
const HELD_KIB: u32 = 64 << 10;
/// A line of NDJSON: a value of 8 MiB in base64 with room to spare.
const LINE_BYTES_MAX: u64 = 32 << 20;
/// What a message needs beside the value.
const MESSAGE_ROOM_BYTES: u64 = 64 << 10;
/// How many faults are told one by one.
const TOLD_MAX: u64 = 20;
const PAUSE_BASE: Duration = Duration::from_millis(200);
const PAUSE_CAP: Duration = Duration::from_secs(5);

/// What became of everything.
#[derive(Default)]
struct Counts {
    acknowledged: AtomicU64,
    /// By an earlier import, as the journal says.
    before: AtomicU64,
    oversize: AtomicU64,
    failed: AtomicU64,
    stopped: AtomicBool,
}

/// Shared by all items under way.
struct Import {
    client: Client,
    journal: Journal,
    progress: Progress,
    counts: Counts,
    retries: u32,
    value_bytes_max: u64,
    held: Arc<Semaphore>,
    under_way: Arc<Semaphore>,
}

/// Writes everything it is given. Exit code 0: all of it was acknowledged.
pub async fn run(args: ImportArgs) -> Result<ExitCode, CliError> {
    let total = count(&args.paths)?;
    let options = connect::options(&args.request.connect, args.request.consistency.consistency())?;
    let value_bytes_max = (options.frame_bytes_max as u64).saturating_sub(MESSAGE_ROOM_BYTES);
    let client = connect::for_request(&args.request).await?;
    let authority = client_authority(&args)?;
    let journal_path = args.journal.clone().unwrap_or_else(|| default_journal(&args, &authority));
    let import = Arc::new(Import {
        client,
        journal: Journal::open(&journal_path)?,
        progress: Progress::new("import", "items", total, args.quiet),
        counts: Counts::default(),
        retries: args.retries,
        value_bytes_max,
        held: Arc::new(Semaphore::new(HELD_KIB as usize)),
        under_way: Arc::new(Semaphore::new(usize::from(args.concurrency))),
    });
    if import.journal.done_before() > 0 {
        import.progress.say(&format!(
            "import: going on after {} that were acknowledged before ({})",
            render::counted(import.journal.done_before() as u64, "item"),
            import.journal.path().display()
        ));
    }
    let mut tasks = JoinSet::new();
    let read = tokio::select! {
        read = read_all(&import, &args, &mut tasks) => read,
        _ = tokio::signal::ctrl_c() => {
            import.counts.stopped.store(true, Ordering::Relaxed);
            import.progress.say("import: stopping; what is under way is waited for (Ctrl-C again to leave at once)");
            Ok(())
        }
    };
    tokio::select! {
        () = async { while tasks.join_next().await.is_some() {} } => {}
        _ = tokio::signal::ctrl_c() => {
            import.counts.stopped.store(true, Ordering::Relaxed);
            tasks.shutdown().await;
        }
    }
    import.progress.finish();
    let import = Arc::into_inner(import).expect("all tasks have ended and dropped their share");
    import.client.close();
    let counts = import.counts;
    let number = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let whole = read.is_ok()
        && number(&counts.failed) + number(&counts.oversize) == 0
        && !counts.stopped.load(Ordering::Relaxed);
    let ending = match (whole && args.journal.is_none(), has_stream(&args.paths)) {
        (false, _) => Ending::Open,
        (true, false) => Ending::Settled,
        // What came through a pipe cannot come again; what comes next is meant.
        (true, true) => Ending::Forgotten,
    };
    let remembered = import.journal.close(ending)?;
    read?;
    match args.request.connect.output {
        Output::Text => {
            let mut line = format!(
                "import: {} acknowledged, {}, in {} ({})",
                render::counted(number(&counts.acknowledged), "item"),
                render::bytes(import.progress.bytes()),
                render::duration(import.progress.elapsed()),
                import.progress.rate()
            );
            for (count, what) in
                [(&counts.before, "acknowledged before"), (&counts.oversize, "too large"), (&counts.failed, "failed")]
            {
                if number(count) > 0 {
                    line.push_str(&format!("; {} {what}", render::count(number(count))));
                }
            }
            if !whole {
                line.push_str(&format!(
                    "\nimport: not all was acknowledged; repeat the command to go on (journal: {})",
                    journal_path.display()
                ));
            }
            if ending == Ending::Settled && remembered > 0 {
                line.push_str(&format!(
                    "\nimport: {} of them would count twice; brought in again they are passed by, as long as {} is kept",
                    render::count(remembered as u64),
                    journal_path.display()
                ));
            }
            print(&format!("{line}\n"))?;
        }
        Output::Json => {
            let object = json!({
                "acknowledged": number(&counts.acknowledged), "acknowledged_before": number(&counts.before),
                "too_large": number(&counts.oversize), "failed": number(&counts.failed), "complete": whole,
                "bytes": import.progress.bytes(), "elapsed_ms": import.progress.elapsed().as_millis() as u64,
                "journal": journal_path.exists().then_some(&journal_path),
            });
            print(&format!("{object}\n"))?;
        }
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILED) })
}

fn has_stream(paths: &[PathBuf]) -> bool {
    paths.iter().any(|path| path.as_os_str() == "-")
}

/// What tells this cluster from another that was at its addresses before.
fn client_authority(args: &ImportArgs) -> Result<Vec<u8>, CliError> {
    let path = args.request.connect.tls_dir.join(connect::AUTHORITY);
    std::fs::read(&path).map_err(CliError::io(format!("reading {}", path.display())))
}

/// The same command to the same cluster has the same journal, in the folder where it was given.
fn default_journal(args: &ImportArgs, authority: &[u8]) -> PathBuf {
    let mut said = args.prefix.clone().into_bytes();
    said.extend_from_slice(&hash64(authority).to_be_bytes());
    for part in args.paths.iter().map(|path| path.as_os_str().as_bytes()) {
        said.push(0);
        said.extend_from_slice(part);
    }
    for seed in &args.request.connect.connect {
        said.push(1);
        said.extend_from_slice(seed.as_bytes());
    }
    PathBuf::from(format!(".tidewater-import-{:016x}", hash64(&said)))
}

fn is_ndjson(path: &Path) -> bool {
    path.as_os_str() == "-" || path.extension().is_some_and(|extension| extension == "ndjson")
}

/// How many items there are to come; `None` when only reading would tell.
fn count(paths: &[PathBuf]) -> Result<Option<u64>, CliError> {
    let mut total = Some(0);
    for path in paths {
        if path.as_os_str() == "-" {
            total = None;
            continue;
        }
        let wrong = |error: io::Error| CliError::usage(format!("{}: {error}", path.display()));
        let metadata = std::fs::metadata(path).map_err(wrong)?;
        if metadata.is_file() && is_ndjson(path) {
            total = None;
        } else {
            let files = walk(path.clone()).filter(Result::is_ok).count() as u64;
            total = total.map(|total: u64| total + files);
        }
    }
    Ok(total)
}

/// Every file at or below a path, in order of their names. Symbolic links below it are passed by.
pub fn walk(path: PathBuf) -> impl Iterator<Item = Result<PathBuf, (PathBuf, io::Error)>> {
    let mut first = true;
    let mut waiting = vec![path];
    std::iter::from_fn(move || {
        while let Some(path) = waiting.pop() {
            // What was named on the command line may be a link; what is found on the way may not.
            let metadata = if first { std::fs::metadata(&path) } else { std::fs::symlink_metadata(&path) };
            first = false;
            let metadata = match metadata {
                Ok(metadata) => metadata,
                Err(error) => return Some(Err((path, error))),
            };
            if metadata.is_file() {
                return Some(Ok(path));
            }
            if metadata.is_dir() {
                let entries = std::fs::read_dir(&path).and_then(|entries| {
                    entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
                });
                match entries {
                    Ok(mut entries) => {
                        entries.sort_unstable_by(|left, right| right.cmp(left));
                        waiting.append(&mut entries);
                    }
                    Err(error) => return Some(Err((path, error))),
                }
            }
        }
        None
    })
}

/// The key of a file: its path as typed, without a leading `./`.
pub fn key_of(prefix: &str, path: &Path) -> Bytes {
    let path = path.as_os_str().as_bytes();
    let mut bare = path;
    while let Some(rest) = bare.strip_prefix(b"./") {
        bare = rest;
    }
    Bytes::from([prefix.as_bytes(), bare].concat())
}

/// Reads item after item and sets it under way. Ends early only when nothing more can be done at all.
async fn read_all(import: &Arc<Import>, args: &ImportArgs, tasks: &mut JoinSet<()>) -> Result<(), CliError> {
    for path in &args.paths {
        if path.as_os_str() == "-" {
            let input = io::stdin().as_fd().try_clone_to_owned().map_err(CliError::io("the standard input"))?;
            let file = tokio::fs::File::from_std(std::fs::File::from(input));
            read_lines(import, "-", BufReader::new(file), tasks).await?;
        } else if path.is_file() && is_ndjson(path) {
            let told = CliError::io(format!("opening {}", path.display()));
            let file = tokio::fs::File::open(path).await.map_err(told)?;
            read_lines(import, &path.to_string_lossy(), BufReader::with_capacity(1 << 16, file), tasks).await?;
        } else {
            for found in walk(path.clone()) {
                match found {
                    Ok(file) => read_file(import, &args.prefix, &file, tasks).await,
                    Err((path, error)) => import.fail(&path.display().to_string(), &error.to_string(), 0),
                }
            }
        }
    }
    Ok(())
}

async fn read_file(import: &Arc<Import>, prefix: &str, path: &Path, tasks: &mut JoinSet<()>) {
    let label = path.display().to_string();
    let size = match tokio::fs::metadata(path).await {
        Ok(metadata) => metadata.len(),
        Err(error) => return import.fail(&label, &error.to_string(), 0),
    };
    if size > import.value_bytes_max {
        return import.oversize(&label, &format!("{} are too much for one value", render::bytes(size)), size);
    }
    let room = import.hold(size).await;
    match tokio::fs::read(path).await {
        Ok(value) => {
            let key = key_of(prefix, path);
            let id = ItemId::new(&key, 0, &value);
            let item = Item { key, parts: vec![Part::String(Bytes::from(value))], expire_at_ms: None };
            import.set_under_way(label, id, item, size, room, tasks).await;
        }
        Err(error) => import.fail(&label, &error.to_string(), size),
    }
}

async fn read_lines(
    import: &Arc<Import>,
    source: &str,
    mut reader: impl AsyncBufRead + Unpin,
    tasks: &mut JoinSet<()>,
) -> Result<(), CliError> {
    let mut number = 0;
    loop {
        number += 1;
        let label = format!("{source}:{number}");
        let line = match read_line(&mut reader).await.map_err(CliError::io(format!("reading {source}")))? {
            Line::End => return Ok(()),
            Line::TooLong(bytes) => {
                let why = format!("{} are too much for one line", render::bytes(bytes));
                import.oversize(&label, &why, bytes);
                continue;
            }
            Line::Text(line) => line,
        };
        let size = line.len() as u64;
        let read = String::from_utf8(line).map_err(|_| "no UTF-8".to_owned());
        match read.and_then(|line| {
            if line.trim().is_empty() { Ok(None) } else { Item::parse(&line).map(|item| Some((line, item))) }
        }) {
            Ok(None) => {}
            Ok(Some((line, item))) => {
                let room = import.hold(size).await;
                let id = ItemId::new(source.as_bytes(), number, line.as_bytes());
                import.set_under_way(label, id, item, size, room, tasks).await;
            }
            Err(why) => import.fail(&label, &why, size),
        }
    }
}

enum Line {
    Text(Vec<u8>),
    /// It was read past; this many bytes.
    TooLong(u64),
    End,
}

/// The next line, without its end. Never holds more than [`LINE_BYTES_MAX`].
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Line> {
    let mut line = Vec::new();
    let mut bytes = 0_u64;
    loop {
        let read = reader.fill_buf().await?;
        if read.is_empty() && bytes == 0 {
            return Ok(Line::End);
        }
        let end = read.iter().position(|byte| *byte == b'\n');
        let part = &read[..end.unwrap_or(read.len())];
        bytes += part.len() as u64;
        if bytes <= LINE_BYTES_MAX {
            line.extend_from_slice(part);
        }
        let (taken, over) = (part.len() + usize::from(end.is_some()), end.is_some() || read.is_empty());
        reader.consume(taken);
        if over {
            return Ok(if bytes <= LINE_BYTES_MAX { Line::Text(line) } else { Line::TooLong(bytes) });
        }
        // An empty line at the very end of the input is still a line that was begun.
        bytes = bytes.max(1);
    }
}

impl Import {
    /// Room for a value of so many bytes.
    async fn hold(&self, bytes: u64) -> OwnedSemaphorePermit {
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).clamp(1, HELD_KIB);
        self.held.clone().acquire_many_owned(kib).await.expect("the semaphore is never closed")
    }

    async fn set_under_way(
        self: &Arc<Self>,
        label: String,
        id: ItemId,
        item: Item,
        size: u64,
        room: OwnedSemaphorePermit,
        tasks: &mut JoinSet<()>,
    ) {
        if self.journal.is_done(id) {
            self.counts.before.fetch_add(1, Ordering::Relaxed);
            return self.progress.advance(size);
        }
        let turn = self.under_way.clone().acquire_owned().await.expect("the semaphore is never closed");
        // Those that have ended are let go of, so that the set stays small.
        while tasks.try_join_next().is_some() {}
        let import = self.clone();
        tasks.spawn(async move {
            let (_turn, _room) = (turn, room);
            match import.write(id, &item).await {
                Ok(()) => {
                    import.counts.acknowledged.fetch_add(1, Ordering::Relaxed);
                    import.progress.advance(size);
                }
                Err(Failure { why, oversize: true }) => import.oversize(&label, &why, size),
                Err(Failure { why, oversize: false }) => import.fail(&label, &why, size),
            }
        });
    }

    /// Every step of an item, each under one name however often it is tried.
    async fn write(&self, id: ItemId, item: &Item) -> Result<(), Failure> {
        for (at, step) in item.steps().into_iter().enumerate() {
            let (op_id, mut fresh) = if step.once {
                let step = u32::try_from(at).unwrap_or(u32::MAX);
                self.journal.name(id, step).await.map_err(Failure::other)?
            } else {
                (Client::new_op_id(), true)
            };
            let mut attempt = 0;
            loop {
                let client = if fresh { self.client.freshly_named(op_id) } else { self.client.named(op_id) };
                let error = match client.request(&item.key, step.op.clone()).await {
                    Ok(_) => break,
                    Err(error) => error,
                };
                fresh = false;
                attempt += 1;
                if !error.retryable() || attempt > self.retries {
                    return Err(Failure::of(&error));
                }
                tokio::time::sleep(backoff(attempt, PAUSE_BASE, PAUSE_CAP, entropy::random_u64())).await;
            }
        }
        self.journal.note_done(id).await.map_err(Failure::other)
    }

    fn fail(&self, label: &str, why: &str, size: u64) {
        let earlier = self.counts.failed.fetch_add(1, Ordering::Relaxed);
        self.tell(earlier, &format!("import: {label}: {why}"), "failures");
        self.progress.advance(size);
    }

    fn oversize(&self, label: &str, why: &str, size: u64) {
        let earlier = self.counts.oversize.fetch_add(1, Ordering::Relaxed);
        self.tell(earlier, &format!("import: {label}: {why}"), "that are too large");
        self.progress.advance(size);
    }

    fn tell(&self, earlier: u64, line: &str, what: &str) {
        if earlier < TOLD_MAX {
            self.progress.say(line);
        } else if earlier == TOLD_MAX {
            self.progress.say(&format!("import: more {what} are only counted"));
        }
    }
}

struct Failure {
    why: String,
    oversize: bool,
}

impl Failure {
    fn of(error: &ClientError) -> Self {
        let oversize =
            matches!(error.refusal(), Some(RequestError::ValueTooLarge { .. } | RequestError::KeyTooLarge { .. }));
        Self { why: error.to_string(), oversize }
    }

    fn other(error: CliError) -> Self {
        Self { why: error.to_string(), oversize: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_in_order_and_passes_links_by() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("b/c")).expect("made");
        for file in ["b/c/1", "b/2", "a", "z"] {
            std::fs::write(at(file), file).expect("written");
        }
        std::os::unix::fs::symlink(folder.path(), at("b/loop")).expect("linked");
        let found: Vec<PathBuf> = walk(folder.path().to_owned()).map(|found| found.expect("readable")).collect();
        assert_eq!(found, ["a", "b/2", "b/c/1", "z"].map(at));
        assert_eq!(walk(at("missing")).filter(Result::is_err).count(), 1);
        assert_eq!(walk(at("z")).count(), 1);
    }

    #[test]
    fn a_key_is_the_path_as_typed() {
        assert_eq!(key_of("", Path::new("./photos/a.jpg")), "photos/a.jpg");
        assert_eq!(key_of("backup/", Path::new("notes.txt")), "backup/notes.txt");
        assert_eq!(key_of("", Path::new("/etc/hosts")), "/etc/hosts");
    }

    #[tokio::test]
    async fn lines_are_read_with_a_bound() {
        async fn lines(bytes: Vec<u8>) -> Vec<Result<String, u64>> {
            let mut reader = BufReader::new(&bytes[..]);
            let mut lines = Vec::new();
            loop {
                match read_line(&mut reader).await.expect("readable") {
                    Line::Text(line) => lines.push(Ok(String::from_utf8(line).expect("text"))),
                    Line::TooLong(bytes) => lines.push(Err(bytes)),
                    Line::End => return lines,
                }
            }
        }
        assert_eq!(lines(b"".to_vec()).await, []);
        assert_eq!(lines(b"a\nb".to_vec()).await, [Ok("a".into()), Ok("b".into())]);
        assert_eq!(lines(b"a\n\nb\n".to_vec()).await, [Ok("a".into()), Ok(String::new()), Ok("b".into())]);
        let mut long = vec![b'x'; LINE_BYTES_MAX as usize + 1];
        long.extend_from_slice(b"\nshort\n");
        assert_eq!(lines(long).await, [Err(LINE_BYTES_MAX + 1), Ok("short".into())]);
    }
}
