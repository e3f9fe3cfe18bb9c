//! A disk that is lost on purpose: what the mark in a data folder does at the next start, and what it must not do.

use std::fs;
use std::path::Path;

use tidewater::data::id::Incarnation;
use tidewater::storage::wipe::{Wiped, mark, settle};
use tidewater::storage::{DataFolder, FolderError};

/// A folder with a row in its store, as after an orderly shutdown of a node whose process was killed once.
fn used(path: &Path) {
    let (folder, _) = DataFolder::open(path, "n1", "demo").unwrap();
    fs::write(folder.store_path().join("000001.sst"), "rows").unwrap();
    fs::write(path.join("node.pid"), "1 1").unwrap();
    folder.mark_clean(Incarnation(5)).unwrap();
}

fn has_rows(path: &Path) -> bool {
    path.join("store/000001.sst").exists()
}

#[test]
fn without_a_mark_nothing_happens() {
    let temp = tempfile::tempdir().unwrap();
    used(temp.path());
    assert_eq!(settle(temp.path(), "n1", "demo", true), Ok(Wiped::Nothing));
    assert!(has_rows(temp.path()));
    let (_, start) = DataFolder::open(temp.path(), "n1", "demo").unwrap();
    assert_eq!(start.clean, Some(Incarnation(5)), "not even the clean mark is touched");
    assert_eq!(settle(&temp.path().join("nowhere"), "n1", "demo", true), Ok(Wiped::Nothing));
}

#[test]
fn a_marked_folder_starts_as_a_new_one_once() {
    let temp = tempfile::tempdir().unwrap();
    used(temp.path());
    mark(temp.path(), "n1").unwrap();
    assert_eq!(settle(temp.path(), "n1", "demo", true), Ok(Wiped::All));
    let (folder, start) = DataFolder::open(temp.path(), "n1", "demo").unwrap();
    assert!(start.first && start.clean.is_none() && start.starts == 1, "{start:?}");
    assert_eq!(fs::read_dir(folder.store_path()).unwrap().count(), 0);
    drop(folder);
    used(temp.path());
    assert_eq!(settle(temp.path(), "n1", "demo", true), Ok(Wiped::Nothing));
    assert!(has_rows(temp.path()));
}

#[test]
fn where_faults_are_not_allowed_the_mark_goes_and_the_data_stays() {
    let temp = tempfile::tempdir().unwrap();
    used(temp.path());
    mark(temp.path(), "n1").unwrap();
    assert_eq!(settle(temp.path(), "n1", "demo", false), Ok(Wiped::Refused));
    assert!(has_rows(temp.path()));
    assert_eq!(settle(temp.path(), "n1", "demo", true), Ok(Wiped::Nothing), "it does not come back to life");
}

#[test]
fn the_folder_of_another_or_in_use_is_left_alone() {
    let temp = tempfile::tempdir().unwrap();
    used(temp.path());
    mark(temp.path(), "n1").unwrap();
    assert!(matches!(settle(temp.path(), "n2", "demo", true), Err(FolderError::WrongNode { .. })));
    assert!(matches!(settle(temp.path(), "n1", "prod", true), Err(FolderError::WrongCluster { .. })));
    assert!(has_rows(temp.path()));
    let (_held, _) = DataFolder::open(temp.path(), "n1", "demo").unwrap();
    assert!(matches!(settle(temp.path(), "n1", "demo", true), Err(FolderError::InUse { .. })));
    assert!(has_rows(temp.path()));
}

#[test]
fn a_wipe_that_was_cut_short_is_ended_wherever_that_was() {
    // What each step leaves behind, in their order.
    let steps: [&[&str]; 3] = [&[], &["clean"], &["clean", "tidewater.toml"]];
    for removed in steps {
        for allowed in [true, false] {
            let temp = tempfile::tempdir().unwrap();
            used(temp.path());
            mark(temp.path(), "n1").unwrap();
            fs::rename(temp.path().join("store"), temp.path().join("store.wiped")).unwrap();
            removed.iter().for_each(|name| fs::remove_file(temp.path().join(name)).unwrap());
            assert_eq!(settle(temp.path(), "n1", "demo", allowed), Ok(Wiped::All), "{removed:?}");
            let (_, start) = DataFolder::open(temp.path(), "n1", "demo").unwrap();
            assert!(start.first, "{removed:?}");
            assert!(!temp.path().join("store.wiped").exists() && !has_rows(temp.path()));
        }
    }
}
