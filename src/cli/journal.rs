//! What an import has been told was acknowledged, so that the next one goes on from there.
//!
//! ```text
//!  tidewater-import 1
//!  name <item> <step> <operation id>      before a step is sent that would count twice under two names; on disk before it is sent
//!  done <item>                            every step of the item was acknowledged
//! ```
//!
//! A text file that grows until all is brought in. Then the items that have names stay in it, for brought in again they would count
//! twice; without any the file goes. Lines wait together for one write and, where a name is among them, one fsync. A last line that is torn
//! is cut off. What a crash loses of it costs a repetition, never a double count: a name that is lost was never sent.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::CliError;
use crate::client::Client;
use crate::data::id::{OpId, hash64};

const HEADER: &str = "tidewater-import 1";
/// Lines that may wait for the writer.
const WAITING_MAX: usize = 4_096;

/// An item of an import: where it comes from and what it says, as a fingerprint.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ItemId(u128);

impl ItemId {
    /// `source` and `position` say where it stands, `content` what it says: something that changed is another item.
    pub fn new(source: &[u8], position: u64, content: &[u8]) -> Self {
        let mut place = source.to_vec();
        place.push(0);
        place.extend_from_slice(&position.to_be_bytes());
        place.extend_from_slice(&(content.len() as u64).to_be_bytes());
        let high = hash64(&place);
        place.extend_from_slice(&hash64(content).to_be_bytes());
        Self(u128::from(high) << 64 | u128::from(hash64(&place)))
    }
}

/// A journal that is open for one import.
pub struct Journal {
    path: PathBuf,
    done: BTreeSet<ItemId>,
    names: BTreeMap<(ItemId, u32), OpId>,
    notes: SyncSender<Note>,
    writer: JoinHandle<io::Result<()>>,
}

struct Note {
    line: String,
    /// Told when the line is on disk.
    on_disk: Option<oneshot::Sender<()>>,
}

impl Journal {
    /// Opens or begins the journal at `path`.
    pub fn open(path: &Path) -> Result<Self, CliError> {
        let told = |what: &str| CliError::io(format!("{what} the journal {}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(told("opening"))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(told("reading"))?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let (mut done, mut names) = (BTreeSet::new(), BTreeMap::new());
        if bytes.is_empty() || (whole == 0 && HEADER.as_bytes().starts_with(&bytes)) {
            file.set_len(0).and_then(|()| file.rewind()).map_err(told("beginning"))?;
            writeln!(file, "{HEADER}").map_err(told("beginning"))?;
        } else {
            let text = String::from_utf8_lossy(&bytes[..whole]);
            let mut lines = text.lines();
            let foreign = |why: String| {
                CliError::failed(format!(
                    "{} is no journal of an import ({why}): give another --journal, or move it away",
                    path.display()
                ))
            };
            if lines.next() != Some(HEADER) {
                return Err(foreign(format!("it does not begin with \"{HEADER}\"")));
            }
            for (at, line) in lines.enumerate() {
                match read(line) {
                    Some(Entry::Done(item)) => {
                        done.insert(item);
                    }
                    Some(Entry::Name(item, step, op_id)) => {
                        names.insert((item, step), op_id);
                    }
                    None => return Err(foreign(format!("line {} is not of one", at + 2))),
                }
            }
            file.set_len(whole as u64).and_then(|()| file.seek(SeekFrom::End(0))).map_err(told("mending"))?;
        }
        let (notes, waiting) = sync_channel(WAITING_MAX);
        let writer = std::thread::Builder::new().name("journal".into()).spawn(move || write(file, &waiting));
        let writer = writer.map_err(told("writing"))?;
        Ok(Self { path: path.to_owned(), done, names, notes, writer })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many items an earlier import has brought in.
    pub fn done_before(&self) -> usize {
        self.done.len()
    }

    /// Was this item acknowledged in an earlier import?
    pub fn is_done(&self, item: ItemId) -> bool {
        self.done.contains(&item)
    }

    /// The name of a step, and whether it is new. A new one is on disk when this returns.
    pub async fn name(&self, item: ItemId, step: u32) -> Result<(OpId, bool), CliError> {
        if let Some(op_id) = self.names.get(&(item, step)) {
            return Ok((*op_id, false));
        }
        let op_id = Client::new_op_id();
        let (on_disk, written) = oneshot::channel();
        self.note(Note { line: format!("name {:032x} {step} {op_id}\n", item.0), on_disk: Some(on_disk) }).await?;
        written.await.map_err(|_| self.broken())?;
        Ok((op_id, true))
    }

    /// Every step of the item was acknowledged.
    pub async fn note_done(&self, item: ItemId) -> Result<(), CliError> {
        self.note(Note { line: format!("done {:032x}\n", item.0), on_disk: None }).await
    }

    async fn note(&self, mut note: Note) -> Result<(), CliError> {
        loop {
            match self.notes.try_send(note) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back)) => note = back,
                Err(TrySendError::Disconnected(_)) => return Err(self.broken()),
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }

    fn broken(&self) -> CliError {
        CliError::failed(format!("the journal {} cannot be written any more; is the disk full?", self.path.display()))
    }

    /// Writes what waits; gives how many items are remembered.
    pub fn close(self, ending: Ending) -> Result<usize, CliError> {
        let Self { path, notes, writer, .. } = self;
        drop(notes);
        let written = writer.join().unwrap_or_else(|_| Err(io::Error::other("the writer panicked")));
        written.map_err(CliError::io(format!("writing the journal {}", path.display())))?;
        let whole =
            std::fs::read_to_string(&path).map_err(CliError::io(format!("reading the journal {}", path.display())))?;
        let entries: Vec<(&str, Entry)> = whole.lines().filter_map(|line| Some((line, read(line)?))).collect();
        let named: BTreeSet<ItemId> = entries
            .iter()
            .filter_map(|(_, entry)| if let Entry::Name(item, ..) = entry { Some(*item) } else { None })
            .collect();
        let done = |keep: &dyn Fn(ItemId) -> bool| {
            entries.iter().filter(|(_, entry)| matches!(entry, Entry::Done(item) if keep(*item))).count()
        };
        match ending {
            Ending::Open => Ok(done(&|_| true)),
            Ending::Settled if !named.is_empty() => {
                let mut kept = format!("{HEADER}\n");
                for (line, entry) in &entries {
                    if let Entry::Done(item) | Entry::Name(item, ..) = entry
                        && named.contains(item)
                    {
                        kept.push_str(line);
                        kept.push('\n');
                    }
                }
                replace(&path, &kept).map_err(CliError::io(format!("writing the journal {}", path.display())))?;
                Ok(done(&|item| named.contains(&item)))
            }
            Ending::Settled | Ending::Forgotten => {
                std::fs::remove_file(&path)
                    .map_err(CliError::io(format!("removing the journal {}", path.display())))?;
                Ok(0)
            }
        }
    }
}

/// What becomes of a journal when its import ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// There is more to do, or somebody wants it as it is.
    Open,
    /// All is done: only what would count twice is remembered.
    Settled,
    /// All is done, and it cannot come again.
    Forgotten,
}

/// All of the file or nothing of it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.to_owned().into_os_string();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    std::fs::rename(&new, path)
}

enum Entry {
    Done(ItemId),
    Name(ItemId, u32, OpId),
}

fn read(line: &str) -> Option<Entry> {
    let item = |text: &str| u128::from_str_radix(text, 16).ok().map(ItemId);
    match line.split(' ').collect::<Vec<_>>()[..] {
        ["done", id] => Some(Entry::Done(item(id)?)),
        ["name", id, step, op_id] => Some(Entry::Name(item(id)?, step.parse().ok()?, OpId::parse(op_id)?)),
        _ => None,
    }
}

/// Takes all that waits, writes it at once, syncs it when somebody waits for that. Ends when nobody can send any more.
fn write(mut file: File, waiting: &Receiver<Note>) -> io::Result<()> {
    while let Ok(first) = waiting.recv() {
        let mut text = String::new();
        let mut told = Vec::new();
        for note in std::iter::once(first).chain(waiting.try_iter()) {
            text.push_str(&note.line);
            told.extend(note.on_disk);
        }
        file.write_all(text.as_bytes())?;
        if !told.is_empty() {
            file.sync_data()?;
        }
        for on_disk in told {
            // Whoever asked may have been interrupted.
            let _ = on_disk.send(());
        }
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(position: u64) -> ItemId {
        ItemId::new(b"file.ndjson", position, b"content")
    }

    #[tokio::test]
    async fn what_was_noted_is_known_the_next_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = Journal::open(&path).expect("a journal");
        let (named, new) = journal.name(item(1), 0).await.expect("named");
        assert!(new && !journal.is_done(item(1)));
        journal.note_done(item(2)).await.expect("noted");
        journal.close(Ending::Open).expect("closed");

        let journal = Journal::open(&path).expect("again");
        assert!(journal.is_done(item(2)) && !journal.is_done(item(1)));
        assert_eq!(journal.done_before(), 1);
        assert_eq!(journal.name(item(1), 0).await.expect("named"), (named, false));
        assert!(journal.name(item(1), 1).await.expect("named").1);
        journal.close(Ending::Forgotten).expect("closed");
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn when_all_is_done_only_what_would_count_twice_is_remembered() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = Journal::open(&path).expect("a journal");
        let (named, _) = journal.name(item(1), 0).await.expect("named");
        journal.note_done(item(1)).await.expect("noted");
        journal.note_done(item(2)).await.expect("noted");
        assert_eq!(journal.close(Ending::Settled).expect("closed"), 1);

        let journal = Journal::open(&path).expect("again");
        assert!(journal.is_done(item(1)) && !journal.is_done(item(2)));
        assert_eq!(journal.name(item(1), 0).await.expect("named"), (named, false));
        assert_eq!(journal.close(Ending::Open).expect("closed"), 1);
        std::fs::remove_file(&path).expect("there");

        let journal = Journal::open(&path).expect("anew");
        journal.note_done(item(2)).await.expect("noted");
        assert_eq!(journal.close(Ending::Settled).expect("closed"), 0);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_torn_last_line_is_cut_off() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("journal");
        let journal = Journal::open(&path).expect("a journal");
        journal.note_done(item(1)).await.expect("noted");
        journal.close(Ending::Open).expect("closed");
        let mut file = OpenOptions::new().append(true).open(&path).expect("there");
        write!(file, "done 00ab").expect("written");
        drop(file);

        let journal = Journal::open(&path).expect("mended");
        journal.note_done(item(2)).await.expect("noted");
        journal.close(Ending::Open).expect("closed");
        let journal = Journal::open(&path).expect("whole");
        assert!(journal.is_done(item(1)) && journal.is_done(item(2)));
        journal.close(Ending::Open).expect("closed");

        std::fs::write(&path, "tidewater-im").expect("written");
        Journal::open(&path).expect("begun again").close(Ending::Open).expect("closed");
    }

    #[test]
    fn another_file_is_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("novel");
        for text in ["It was a dark and stormy night\n", "tidewater-import 1\nand then\n"] {
            std::fs::write(&path, text).expect("written");
            assert!(Journal::open(&path).is_err());
            assert_eq!(std::fs::read_to_string(&path).expect("there"), text);
        }
    }

    #[test]
    fn an_item_is_where_it_stands_and_what_it_says() {
        assert_eq!(item(1), item(1));
        assert_ne!(item(1), item(2));
        assert_ne!(item(1), ItemId::new(b"file.ndjson", 1, b"changed"));
        assert_ne!(item(1), ItemId::new(b"other.ndjson", 1, b"content"));
    }
}
