//! `tidewater export`: every key as a line of NDJSON, in the form that import reads (see `ndjson.rs`).
//!
//! A walk over all partitions, several keys read at once, each at the level asked for. It is no snapshot: what is written meanwhile may
//! or may not be seen. Of a key that holds components of several kinds after concurrent writes, the kind that `TYPE` tells is
//! exported. Output to a file goes to a new file beside it, which takes its place when all is written: no half export looks whole.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::args::ExportArgs;
use super::ndjson::{Item, Part};
use super::progress::Progress;
use super::{CliError, connect, render};
use crate::client::{Client, ClientError};
use crate::data::op::Kind;

/// Keys of one page of the walk.
const PAGE_KEYS: u32 = 512;

/// Writes every key. Exit code 0: all that the walk saw was written.
pub async fn run(args: ExportArgs) -> Result<ExitCode, CliError> {
    let client = connect::for_request(&args.request).await?;
    let progress = Progress::new("export", "keys", None, args.quiet);
    let mut out = Destination::open(args.out.clone())?;
    let mut reading = JoinSet::new();
    let mut scan = client.scan(PAGE_KEYS);
    while let Some(page) = scan.next_page().await? {
        for (key, kind) in page {
            if args.prefix.as_ref().is_some_and(|prefix| !key.bytes.starts_with(prefix)) {
                continue;
            }
            // Room is made by writing what has been read: what is held is bounded by the concurrency.
            while reading.len() >= usize::from(args.concurrency) {
                write_next(&mut reading, &mut out, &progress).await?;
            }
            let client = client.clone();
            reading.spawn(async move { read(&client, key.bytes, kind).await });
        }
    }
    while !reading.is_empty() {
        write_next(&mut reading, &mut out, &progress).await?;
    }
    out.close()?;
    progress.finish();
    eprintln!(
        "export: {}, {}, in {}",
        render::counted(progress.items(), "key"),
        render::bytes(progress.bytes()),
        render::duration(progress.elapsed())
    );
    client.close();
    Ok(ExitCode::SUCCESS)
}

async fn write_next(
    reading: &mut JoinSet<Result<Option<Item>, ClientError>>,
    out: &mut Destination,
    progress: &Progress,
) -> Result<(), CliError> {
    let Some(read) = reading.join_next().await else { return Ok(()) };
    let read = read.map_err(|error| CliError::failed(format!("reading a key broke off: {error}")))?;
    if let Some(item) = read? {
        let line = item.line();
        out.write(&line)?;
        progress.advance(line.len() as u64 + 1);
    }
    Ok(())
}

/// What a key holds now; `None`: it has gone since the walk saw it.
async fn read(client: &Client, key: Bytes, kind: Kind) -> Result<Option<Item>, ClientError> {
    let part = match kind {
        Kind::String => client.get(&key).await?.value.map(Part::String),
        Kind::Set => Some(client.set_members(&key).await?.value).filter(|members| !members.is_empty()).map(Part::Set),
        Kind::Hash => Some(client.hash_all(&key).await?.value).filter(|pairs| !pairs.is_empty()).map(Part::Hash),
        Kind::Siblings => {
            let values = client.siblings(&key).await?.value.values;
            Some(values).filter(|values| !values.is_empty()).map(Part::Siblings)
        }
        Kind::Flag => Some(Part::Flag(client.flag(&key).await?.value)),
    };
    let Some(part) = part else { return Ok(None) };
    let expire_at_ms = client.deadline(&key).await?.value.flatten();
    Ok(Some(Item { key, parts: vec![part], expire_at_ms }))
}

/// Where the lines go.
enum Destination {
    Standard(BufWriter<io::Stdout>),
    File { part: PathBuf, whole: PathBuf, writer: BufWriter<File> },
}

impl Destination {
    fn open(out: Option<PathBuf>) -> Result<Self, CliError> {
        let Some(whole) = out else { return Ok(Self::Standard(BufWriter::new(io::stdout()))) };
        let mut name = whole.clone().into_os_string();
        name.push(".part");
        let part = PathBuf::from(name);
        let file = File::create(&part).map_err(CliError::io(format!("writing {}", part.display())))?;
        Ok(Self::File { part, whole, writer: BufWriter::with_capacity(1 << 16, file) })
    }

    fn write(&mut self, line: &str) -> Result<(), CliError> {
        let (written, what) = match self {
            Self::Standard(writer) => (writeln!(writer, "{line}"), "the standard output".to_owned()),
            Self::File { writer, part, .. } => (writeln!(writer, "{line}"), format!("writing {}", part.display())),
        };
        written.map_err(CliError::io(what))
    }

    fn close(self) -> Result<(), CliError> {
        match self {
            Self::Standard(mut writer) => writer.flush().map_err(CliError::io("the standard output")),
            Self::File { part, whole, writer } => {
                let told = || CliError::io(format!("writing {}", part.display()));
                let file = writer.into_inner().map_err(|error| told()(error.into_error()))?;
                file.sync_all().map_err(told())?;
                std::fs::rename(&part, &whole).map_err(CliError::io(format!("renaming to {}", whole.display())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_export_takes_its_place_only_when_it_is_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let whole = folder.path().join("all.ndjson");
        let mut out = Destination::open(Some(whole.clone())).expect("open");
        out.write("{}").expect("written");
        assert!(!whole.exists());
        out.close().expect("closed");
        assert_eq!(std::fs::read_to_string(&whole).expect("there"), "{}\n");
    }
}
