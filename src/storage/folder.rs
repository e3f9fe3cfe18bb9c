//! The data folder: whose it is, who holds it, and whether the last shutdown was clean.
//!
//! ```text
//!   tidewater.toml   the marker: format, cluster, node, how often it was started     written at first start, replaced at each
//!   lock             held (flock) while a process uses the folder; says which         kept
//!   clean            incarnation and circumstances of an orderly shutdown             written last, removed first
//!   store/           the engine's files
//!   wipe             only where faults are allowed: the next start loses the store (`wipe.rs`)
//! ```
//!
//! # When an incarnation may be resumed
//! A node that forgot what it wrote must not mint the same dots again, so its incarnation is resumed only if the folder is
//! exactly as that incarnation left it. The file `clean` claims that, and is believed only if
//! 1. it is whole (a checksum) and was written by the start before this one (the marker's count of starts);
//! 2. the folder and the file itself are the ones in which it was written: device, inode, and the file's time of birth, which no
//!    program can set. A copied folder, one moved to another disk or unpacked from a backup fails here, and so does a backup
//!    that is played back over the folder in place;
//! 3. the store's files are those that were there: names, lengths and inodes. A store that was replaced below an old mark, or has
//!    lost files, fails here.
//!
//! What it cannot detect is a disk that goes back as a whole: a virtual machine's or volume's snapshot that was taken while the node
//! was stopped looks untouched. Whoever rolls such a disk back removes the file `clean` before the start; otherwise the node finds
//! out when it meets a dot of its own that it does not remember. Refusing a good mark (after a reboot that renumbers
//! devices, say) costs nothing but a new incarnation.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use thiserror::Error;

use super::wipe::WIPE;
use crate::data::id::{Incarnation, hash64};

/// The layout of folder and store that this program writes, and the only one that it reads. In the first, members and fields were not in
/// the order of their hashes; in the second, hints did not tell what a write goes by, nor a partition whether it has deadlines.
pub const FORMAT: u64 = 3;

pub(super) const MARKER: &str = "tidewater.toml";
pub(super) const MARKER_NEW: &str = "tidewater.toml.new";
const LOCK: &str = "lock";
pub(super) const CLEAN: &str = "clean";
pub(super) const CLEAN_NEW: &str = "clean.new";
pub(super) const STORE: &str = "store";

/// What may lie in a folder that becomes ours: what a first start leaves that was cut short, what is left of a node that was killed
/// and whose store was wiped, what a file system puts at its root, and what people keep beside the data.
const HARMLESS: [&str; 8] = [LOCK, MARKER_NEW, WIPE, "node.pid", "node.pid.new", "lost+found", "node.toml", "node.log"];

/// A data folder, held by this process until it is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    starts: u64,
    /// Its descriptor carries the lock.
    _lock: File,
}

/// What a folder knows about the past.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// The incarnation that may be resumed; `None` calls for a new one.
    pub clean: Option<Incarnation>,
    /// This node has never been started on this folder before.
    pub first: bool,
    /// How often it was started, this time included.
    pub starts: u64,
}

/// Why a data folder is not used. In every case what was in it is as it was.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum FolderError {
    #[error("{doing} {}: {message}", path.display())]
    Io { doing: &'static str, path: PathBuf, message: String },

    #[error("{} is not a folder; name another place for the data", path.display())]
    NotAFolder { path: PathBuf },

    #[error("the data folder {} is in use by {holder}; stop that one first, or give this node a folder of its own", path.display())]
    InUse { path: PathBuf, holder: String },

    #[error(
        "{} has no {MARKER} but holds \"{found}\", so it is not Tidewater's; name an empty folder, or one of this node", path.display()
    )]
    Foreign { path: PathBuf, found: String },

    #[error(
        "the data folder {} belongs to node \"{found}\", but this node is called \"{expected}\"; name this node's own folder, or start \
         the node under its name", path.display()
    )]
    WrongNode { path: PathBuf, found: String, expected: String },

    #[error(
        "the data folder {} belongs to the cluster \"{found}\", but this node is of \"{expected}\"; name a folder of this cluster: its \
         data cannot change sides", path.display()
    )]
    WrongCluster { path: PathBuf, found: String, expected: String },

    #[error(
        "the data folder {} has format {found}, and this program reads only format {FORMAT}; start it with the version that wrote it", path.display()
    )]
    UnknownFormat { path: PathBuf, found: u64 },

    #[error("{} is damaged ({what}); restore that file, or empty the folder and let the node sync again", path.display())]
    BadMarker { path: PathBuf, what: String },

    #[error(
        "\"{name}\" cannot name a {what}: it takes 1 to 255 bytes without quotes, backslashes and control characters"
    )]
    BadName { what: &'static str, name: String },
}

impl DataFolder {
    /// Opens the folder for one node, creating it (for its owner's eyes only) if there is none, and holds it until dropped. The
    /// mark of a clean shutdown is read and removed: from here on the shutdown is unclean until [`DataFolder::mark_clean`].
    pub fn open(path: &Path, node_name: &str, cluster_name: &str) -> Result<(DataFolder, Start), FolderError> {
        check_name("node", node_name)?;
        check_name("cluster", cluster_name)?;
        create(path)?;
        // Asked before the lock is taken, so that nothing is written to a folder that is not ours.
        refuse_foreign(path)?;
        let lock = take_lock(path)?;
        let former = read_marker(path, node_name, cluster_name)?;
        let (first, starts_before) = (former.is_none(), former.unwrap_or(0));
        if first {
            // Once more under the lock: another process may have come in between.
            refuse_foreign(path)?;
        }
        let clean = if first { None } else { read_clean_mark(path, starts_before) };

        remove_if_there(&path.join(CLEAN))?;
        remove_if_there(&path.join(CLEAN_NEW))?;
        let store = path.join(STORE);
        if !store.is_dir() {
            DirBuilder::new().mode(0o700).create(&store).map_err(|error| failed("creating", &store, &error))?;
        }
        let starts = starts_before + 1;
        write_marker(path, node_name, cluster_name, starts)?;
        Ok((DataFolder { path: path.to_owned(), starts, _lock: lock }, Start { clean, first, starts }))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder for the engine's files. It exists.
    pub fn store_path(&self) -> PathBuf {
        self.path.join(STORE)
    }

    /// Says that `incarnation` may be resumed. The very last step of an orderly shutdown: the store has been flushed without an error
    /// *and dropped*, and nothing is written to the folder afterwards. Not to be called when the store was fenced.
    pub fn mark_clean(&self, incarnation: Incarnation) -> Result<(), FolderError> {
        let (new, path) = (self.path.join(CLEAN_NEW), self.path.join(CLEAN));
        let failed = |error: io::Error| failed("writing", &new, &error);
        remove_if_there(&new)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).map_err(failed)?;
        let circumstances = Circumstances::of(&self.path, &file).map_err(failed)?;
        file.write_all(clean_text(incarnation, self.starts, &circumstances).as_bytes()).map_err(failed)?;
        file.sync_all().map_err(failed)?;
        // Renaming keeps the inode and the time of birth.
        fs::rename(&new, &path).map_err(failed)?;
        sync_folder(&self.path)
    }
}

/// What is true of a folder that nobody has touched, copied or put back, and false of others.
#[derive(PartialEq, Eq)]
struct Circumstances {
    device: u64,
    folder_inode: u64,
    mark_inode: u64,
    /// Nanoseconds; 0 where the file system does not tell.
    mark_born_ns: u128,
    store_files: u64,
}

impl Circumstances {
    fn of(folder: &Path, mark: &File) -> io::Result<Self> {
        let (folder_is, mark_is) = (fs::metadata(folder)?, mark.metadata()?);
        let born = mark_is.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        Ok(Self {
            device: folder_is.dev(),
            folder_inode: folder_is.ino(),
            mark_inode: mark_is.ino(),
            mark_born_ns: born.map_or(0, |since| since.as_nanos()),
            store_files: store_files(&folder.join(STORE))?,
        })
    }
}

/// A hash over names, lengths and inodes of the store's files, save those that change without a change of the data.
fn store_files(store: &Path) -> io::Result<u64> {
    let mut files = BTreeMap::new();
    for file in fs::read_dir(store)? {
        let file = file?;
        let (name, found) = (file.file_name(), file.metadata()?);
        let is_aside = name.as_encoded_bytes().starts_with(b"LOG") || name == "LOCK";
        if !is_aside {
            files.insert(name, (found.len(), found.ino()));
        }
    }
    let mut text = String::new();
    for (name, (length, inode)) in files {
        let _ = writeln!(text, "{name:?} {length} {inode}");
    }
    Ok(hash64(text.as_bytes()))
}

fn clean_text(incarnation: Incarnation, starts: u64, circumstances: &Circumstances) -> String {
    let Circumstances { device, folder_inode, mark_inode, mark_born_ns, store_files } = circumstances;
    let text = format!(
        "# Left by an orderly shutdown, removed at the next start. Remove it before starting on a disk that was rolled back.\n\
         incarnation = \"{incarnation}\"\nstarts = {starts}\ndevice = {device}\nfolder_inode = {folder_inode}\n\
         mark_inode = {mark_inode}\nmark_born_ns = {mark_born_ns}\nstore_files = \"{store_files:016x}\"\n"
    );
    let checksum = hash64(text.as_bytes());
    format!("{text}checksum = \"{checksum:016x}\"\n")
}

/// The incarnation that a mark allows to resume. Whatever is wrong with the mark, the answer is a new incarnation, not an error.
fn read_clean_mark(folder: &Path, starts: u64) -> Option<Incarnation> {
    let file = File::open(folder.join(CLEAN)).ok()?;
    let found = read_bounded(&file).ok()?;
    let incarnation = fields(&found).get("incarnation").and_then(|hex| u64::from_str_radix(hex, 16).ok())?;
    let incarnation = Incarnation(incarnation);
    let circumstances = Circumstances::of(folder, &file).ok()?;
    // Writing the text again from what is true now and comparing checks every field, and the checksum with them.
    (found == clean_text(incarnation, starts, &circumstances)).then_some(incarnation)
}

fn create(path: &Path) -> Result<(), FolderError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(FolderError::NotAFolder { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed("opening", path, &error)),
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| failed("creating", path, &error))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_folder(parent),
        _ => Ok(()),
    }
}

fn refuse_foreign(path: &Path) -> Result<(), FolderError> {
    let failed = |error: io::Error| failed("listing", path, &error);
    if path.join(MARKER).try_exists().map_err(failed)? {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        // An empty store is what a first start leaves that was cut short before the marker.
        let is_empty_store = || {
            name.to_str() == Some(STORE) && fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_none())
        };
        if !HARMLESS.iter().any(|harmless| name.to_str() == Some(harmless)) && !is_empty_store() {
            return Err(FolderError::Foreign { path: path.to_owned(), found: name.to_string_lossy().into_owned() });
        }
    }
    Ok(())
}

pub(super) fn take_lock(folder: &Path) -> Result<File, FolderError> {
    let path = folder.join(LOCK);
    let failed = |error: io::Error| failed("locking", &path, &error);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    // SAFETY: the descriptor is open for as long as `file` lives.
    if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } != 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(failed(error));
        }
        let holder = read_bounded(&file).unwrap_or_default();
        let holder = match holder.trim().parse::<u32>() {
            Ok(pid) if pid == std::process::id() => "this very process".to_owned(),
            Ok(pid) => format!("process {pid}"),
            Err(_) => "another process".to_owned(),
        };
        return Err(FolderError::InUse { path: folder.to_owned(), holder });
    }
    // The lock is the kernel's and goes with the process; the number inside is for people.
    file.set_len(0).map_err(failed)?;
    file.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
    Ok(file)
}

/// The number of starts so far, `None` if the folder is new; an error if it is not this node's.
pub(super) fn read_marker(folder: &Path, node_name: &str, cluster_name: &str) -> Result<Option<u64>, FolderError> {
    let path = folder.join(MARKER);
    let found = match File::open(&path).and_then(|file| read_bounded(&file)) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(FolderError::BadMarker { path, what: error.to_string() });
        }
        Err(error) => return Err(failed("reading", &path, &error)),
    };
    let fields = fields(&found);
    let field = |name: &str| {
        fields
            .get(name)
            .copied()
            .ok_or_else(|| FolderError::BadMarker { path: path.clone(), what: format!("no field \"{name}\"") })
    };
    let number = |name: &str| {
        let text = field(name)?;
        text.parse::<u64>().map_err(|_| FolderError::BadMarker {
            path: path.clone(),
            what: format!("\"{name}\" is \"{text}\", not a number"),
        })
    };
    // First the format: of one that we do not know we do not know the other fields either.
    let format = number("format")?;
    if format != FORMAT {
        return Err(FolderError::UnknownFormat { path: folder.to_owned(), found: format });
    }
    let (path, found) = (folder.to_owned(), field("cluster")?.to_owned());
    if found != cluster_name {
        return Err(FolderError::WrongCluster { path, found, expected: cluster_name.to_owned() });
    }
    let found = field("node")?.to_owned();
    if found != node_name {
        return Err(FolderError::WrongNode { path, found, expected: node_name.to_owned() });
    }
    let starts = number("starts")?;
    if starts == u64::MAX {
        return Err(FolderError::BadMarker {
            path: folder.join(MARKER),
            what: format!("{starts} starts are not to be believed"),
        });
    }
    Ok(Some(starts))
}

fn write_marker(folder: &Path, node_name: &str, cluster_name: &str, starts: u64) -> Result<(), FolderError> {
    let (new, path) = (folder.join(MARKER_NEW), folder.join(MARKER));
    let text = format!(
        "# This folder holds the data of one Tidewater node. Written by the node; not to be edited or copied to another.\n\
         format = {FORMAT}\ncluster = \"{cluster_name}\"\nnode = \"{node_name}\"\nstarts = {starts}\n"
    );
    let failed = |error: io::Error| failed("writing", &new, &error);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(&new, &path).map_err(failed)?;
    sync_folder(folder)
}

/// `name = value` and `name = "value"`, a line each. What is neither is passed over; a field that is missed is missed by its name.
fn fields(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.trim(), value.trim().trim_matches('"')))
        .collect()
}

/// A small text file as it is. Ours have some hundred bytes; what is longer is not ours.
fn read_bounded(file: &File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(16 << 10).read_to_end(&mut bytes)?;
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not text"))
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), FolderError> {
    match fs::remove_file(path) {
        Ok(()) => sync_folder(path.parent().expect("a file of the folder has the folder as its parent")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("removing", path, &error)),
    }
}

/// Makes names that were added, changed or removed in a folder durable.
pub(super) fn sync_folder(path: &Path) -> Result<(), FolderError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(|error| failed("syncing", path, &error))
}

fn check_name(what: &'static str, name: &str) -> Result<(), FolderError> {
    let is_fine = |c: char| !c.is_control() && c != '"' && c != '\\';
    if name.is_empty() || name.len() > 255 || !name.chars().all(is_fine) {
        return Err(FolderError::BadName { what, name: name.escape_debug().take(255).collect() });
    }
    Ok(())
}

pub(super) fn failed(doing: &'static str, path: &Path, error: &io::Error) -> FolderError {
    FolderError::Io { doing, path: path.to_owned(), message: error.to_string() }
}
