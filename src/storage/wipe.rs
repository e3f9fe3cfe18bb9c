//! A disk that is lost on purpose: the mark that has a node's next start begin with an empty store.
//!
//! A running node cannot take its store from under itself, so it leaves the file `wipe` in its data folder and dies. The next start
//! honours the mark only if it allows faults; otherwise the mark goes and the data stays. The store is moved aside in one step before
//! anything else is removed: no start, however it is interrupted, finds half a store under its name.

use std::fs;
use std::io;
use std::path::Path;

use super::folder::{self, FolderError};

pub(super) const WIPE: &str = "wipe";
const ASIDE: &str = "store.wiped";

/// What a start found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wiped {
    /// No mark.
    Nothing,
    /// The folder is as of a node that has never been started.
    All,
    /// There was a mark, and whoever starts the node does not allow it.
    Refused,
}

/// Says that the store of `node_name` is to be lost. On disk when this returns.
pub fn mark(folder: &Path, node_name: &str) -> io::Result<()> {
    let file = fs::File::create(folder.join(WIPE))?;
    io::Write::write_all(&mut &file, format!("node = \"{node_name}\"\n").as_bytes())?;
    file.sync_all()?;
    fs::File::open(folder)?.sync_all()
}

/// Before a start: does what the mark says, if there is one and it is `allowed`. A folder of another node or cluster, or one that is in
/// use, is left as it is.
pub fn settle(folder: &Path, node_name: &str, cluster_name: &str, allowed: bool) -> Result<Wiped, FolderError> {
    let aside = folder.join(ASIDE);
    if !folder.join(WIPE).exists() && !aside.exists() {
        return Ok(Wiped::Nothing);
    }
    let _lock = folder::take_lock(folder)?;
    folder::read_marker(folder, node_name, cluster_name)?;
    let marked = folder.join(WIPE).exists();
    // One that has begun is ended: the store is no longer under its name.
    let allowed = allowed || aside.exists();
    if marked && allowed {
        remove_tree(&aside)?;
        match fs::rename(folder.join(folder::STORE), &aside) {
            Ok(()) => folder::sync_folder(folder)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(folder::failed("moving aside", &aside, &error)),
        }
        for name in [folder::CLEAN, folder::CLEAN_NEW, folder::MARKER_NEW, folder::MARKER] {
            folder::remove_if_there(&folder.join(name))?;
        }
    }
    // What a wipe that was cut short had moved aside is no longer anybody's.
    remove_tree(&aside)?;
    folder::remove_if_there(&folder.join(WIPE))?;
    Ok(match (marked, allowed) {
        (true, true) => Wiped::All,
        (true, false) => Wiped::Refused,
        (false, _) => Wiped::Nothing,
    })
}

fn remove_tree(path: &Path) -> Result<(), FolderError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(folder::failed("removing", path, &error)),
        _ => Ok(()),
    }
}
