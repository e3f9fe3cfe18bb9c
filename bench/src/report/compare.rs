//! Earlier runs against each other, from what they left behind.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{RUNS_MOST, Written, write};
use crate::results::{FORMAT, Results};

/// A file of results is not larger; a run of a day has a tenth of it.
const FILE_BYTES_MOST: u64 = 256 << 20;

/// Reads two or more results (files, or folders with a `results.json`) and writes one report of them into `out`. The
/// first is what the others are compared with.
pub fn compare(paths: &[PathBuf], out: &Path) -> Result<Written, String> {
    if paths.len() < 2 || paths.len() > RUNS_MOST {
        return Err(format!(
            "a comparison is of 2 to {RUNS_MOST} runs, {} given: name their folders or their results.json",
            paths.len()
        ));
    }
    for path in paths {
        if same(folder_of(path), out) {
            return Err(format!(
                "{}: the comparison would replace the report of this run: choose another folder for it",
                out.display()
            ));
        }
    }
    let results = paths.iter().map(|path| read(path)).collect::<Result<Vec<Results>, String>>()?;
    write(&results, out).map_err(|error| format!("cannot write the report: {error}"))
}

/// Reads the results of one run: a file, or a folder with a `results.json`.
pub fn read(path: &Path) -> Result<Results, String> {
    let path = if path.is_dir() { path.join("results.json") } else { path.to_owned() };
    let shown = path.display();
    let length =
        fs::metadata(&path).map_err(|error| format!("{shown}: {error}: name a folder that a run has written"))?.len();
    if length > FILE_BYTES_MOST {
        return Err(format!("{shown}: {length} bytes, more than {FILE_BYTES_MOST}: these are no results of a run"));
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("{shown}: {error}"))?;
    // The format first: what another version wrote is not to be blamed on a missing field.
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let Head { format } = serde_json::from_str(&text)
        .map_err(|error| format!("{shown}: these are no results of a run ({error}): name the results.json of one"))?;
    if format != FORMAT {
        return Err(format!(
            "{shown}: results of format {format}, this version reads format {FORMAT}: measure again, or use the version \
             that made them"
        ));
    }
    serde_json::from_str(&text).map_err(|error| format!("{shown}: damaged results: {error}"))
}

fn folder_of(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().unwrap_or(path) }
}

/// The same folder, however it is named. One that is not there yet is no other's.
fn same(one: &Path, other: &Path) -> bool {
    let one = if one.as_os_str().is_empty() { Path::new(".") } else { one };
    matches!((fs::canonicalize(one), fs::canonicalize(other)), (Ok(one), Ok(other)) if one == other)
}
