//! READING RESULTS: what a run left behind becomes a page, tables for other programs, and lines in a terminal.
//!
//! - `write`: a folder with `report.html` (whole in itself, no script), `results.json` and the CSV files; of one run,
//!   or of several over each other
//! - `compare`: the same from the `results.json` of earlier runs
//! - `summary`: the end of a run, in the terminal
//! - `live`: a run while it goes on
//!
//! Nothing here measures; `crate::results` is all that is known of a run.

mod compare;
mod facts;
mod figures;
pub mod live;
mod page;
mod plot;
mod sheets;
mod summary;
#[cfg(test)]
mod tests;
mod verdict;
mod words;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use compare::{compare, read};
pub use summary::summary;
pub use verdict::{State, Verdict};

use crate::results::Results;

/// Runs in one report: more could not be told apart.
pub const RUNS_MOST: usize = 6;

/// What has been written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The file to open.
    pub page: PathBuf,
    /// All files, the page first.
    pub files: Vec<PathBuf>,
}

/// Writes the report of one run, or of several compared, into a folder, which is made if it is missing. Files of an
/// earlier report there are replaced.
pub fn write(results: &[Results], folder: &Path) -> io::Result<Written> {
    if results.is_empty() || results.len() > RUNS_MOST {
        let said = format!("a report is of 1 to {RUNS_MOST} runs, not of {}: leave some out", results.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, said));
    }
    fs::create_dir_all(folder).map_err(|error| told(error, folder))?;
    let labels = facts::labels(results);
    let mut files = Vec::new();
    let mut put = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, content).map_err(|error| told(error, &path))?;
        files.push(path);
        Ok::<(), io::Error>(())
    };
    put("report.html", page::page(results, &labels).as_bytes())?;
    for (at, run) in results.iter().enumerate() {
        // Of several runs each is kept beside the comparison, so that the folder can be carried away alone.
        let name = if results.len() == 1 { "results.json".to_owned() } else { format!("results-{}.json", at + 1) };
        put(&name, &serde_json::to_vec_pretty(run)?)?;
    }
    for (name, content) in sheets::all(results, &labels)? {
        put(name, &content)?;
    }
    Ok(Written { page: folder.join("report.html"), files })
}

/// The error with the path that it is about.
fn told(error: io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
