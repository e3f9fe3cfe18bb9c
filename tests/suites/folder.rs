//! The data folder: who may open it, and when the former incarnation may be resumed.

use std::fs;
use std::path::Path;

use tidewater::data::id::Incarnation;
use tidewater::storage::folder::FORMAT;
use tidewater::storage::{DataFolder, FolderError, Start};

fn open(path: &Path) -> Result<(DataFolder, Start), FolderError> {
    DataFolder::open(path, "n1", "demo")
}

fn refused(path: &Path) -> FolderError {
    open(path).map(|(_, start)| start).expect_err("this folder is not to be opened")
}

/// A folder that was started once, holds something in its store, and was shut down in good order.
fn shut_down_cleanly(path: &Path, incarnation: u64) {
    let (folder, _) = open(path).unwrap();
    fs::write(folder.store_path().join("000001.sst"), "rows").unwrap();
    folder.mark_clean(Incarnation(incarnation)).unwrap();
}

/// As `cp -a` does it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn an_orderly_shutdown_can_be_resumed_once() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("deep/data");
    let (folder, start) = open(&path).unwrap();
    assert_eq!(start, Start { clean: None, first: true, starts: 1 });
    assert!(folder.store_path().is_dir());
    folder.mark_clean(Incarnation(7)).unwrap();
    drop(folder);

    let (folder, start) = open(&path).unwrap();
    assert_eq!(start, Start { clean: Some(Incarnation(7)), first: false, starts: 2 });
    drop(folder);

    let (_, start) = open(&path).unwrap();
    assert_eq!(start, Start { clean: None, first: false, starts: 3 }, "the second start was not shut down");
}

#[test]
fn the_folder_is_for_its_owners_eyes() {
    use std::os::unix::fs::PermissionsExt;
    let temp = tempfile::tempdir().unwrap();
    let (folder, _) = open(&temp.path().join("data")).unwrap();
    folder.mark_clean(Incarnation(1)).unwrap();
    for path in [
        folder.path().to_owned(),
        folder.store_path(),
        folder.path().join("tidewater.toml"),
        folder.path().join("clean"),
    ] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
}

#[test]
fn two_cannot_hold_one_folder() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, _) = open(temp.path()).unwrap();
    let error = refused(temp.path());
    assert!(matches!(&error, FolderError::InUse { holder, .. } if holder == "this very process"), "{error}");
    fs::write(temp.path().join("lock"), "4711\n").unwrap();
    assert!(refused(temp.path()).to_string().contains("in use by process 4711"));
    drop(folder);
    open(temp.path()).unwrap();
}

#[test]
fn a_refused_second_open_leaves_the_first_alone() {
    let temp = tempfile::tempdir().unwrap();
    shut_down_cleanly(temp.path(), 5);
    let (folder, _) = open(temp.path()).unwrap();
    folder.mark_clean(Incarnation(5)).unwrap();
    refused(temp.path());
    drop(folder);
    assert_eq!(open(temp.path()).unwrap().1.clean, Some(Incarnation(5)));
}

#[test]
fn the_folder_of_another_is_refused_and_says_whose_it_is() {
    let temp = tempfile::tempdir().unwrap();
    shut_down_cleanly(temp.path(), 5);
    let error = DataFolder::open(temp.path(), "n2", "demo").unwrap_err();
    assert!(matches!(&error, FolderError::WrongNode { found, expected, .. } if found == "n1" && expected == "n2"));
    let error = DataFolder::open(temp.path(), "n1", "prod").unwrap_err();
    assert!(
        matches!(&error, FolderError::WrongCluster { found, expected, .. } if found == "demo" && expected == "prod")
    );
    assert!(error.to_string().contains("belongs to the cluster \"demo\""), "{error}");
    assert_eq!(open(temp.path()).unwrap().1.clean, Some(Incarnation(5)), "a refusal changes nothing");
}

#[test]
fn an_unknown_format_is_refused_whatever_else_it_says() {
    let temp = tempfile::tempdir().unwrap();
    for format in [1, FORMAT + 1] {
        fs::write(temp.path().join("tidewater.toml"), format!("format = {format}\nowner = \"n1\"\n")).unwrap();
        let error = refused(temp.path());
        assert!(matches!(error, FolderError::UnknownFormat { found, .. } if found == format), "{error}");
        let said = error.to_string();
        assert!(said.contains(&format!("has format {format}")) && said.contains("the version that wrote it"), "{said}");
    }
}

#[test]
fn a_foreign_folder_is_refused_untouched() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("thesis.tex"), "").unwrap();
    let error = refused(temp.path());
    assert!(matches!(&error, FolderError::Foreign { found, .. } if found == "thesis.tex"), "{error}");
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "not even a lock was left there");

    // A store without its marker might be anybody's.
    let temp = tempfile::tempdir().unwrap();
    shut_down_cleanly(temp.path(), 1);
    fs::remove_file(temp.path().join("tidewater.toml")).unwrap();
    assert!(matches!(refused(temp.path()), FolderError::Foreign { .. }));

    let file = temp.path().join("lock");
    assert!(matches!(refused(&file), FolderError::NotAFolder { .. }));
}

#[test]
fn a_first_start_that_was_cut_short_can_be_repeated() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("store")).unwrap();
    fs::create_dir(temp.path().join("lost+found")).unwrap();
    fs::write(temp.path().join("lock"), "").unwrap();
    fs::write(temp.path().join("tidewater.toml.new"), "form").unwrap();
    assert!(open(temp.path()).unwrap().1.first);
}

#[test]
fn a_damaged_marker_is_refused_by_field() {
    let whole = "format = 3\ncluster = \"demo\"\nnode = \"n1\"\nstarts = 3\n";
    let damages = [
        ("format = 3", "formt = 2", "format"),
        ("format = 3", "format = two", "format"),
        ("cluster", "closter", "cluster"),
        ("node", "nude", "node"),
        ("starts = 3", "starts = -3", "starts"),
        ("starts = 3", "starts = 18446744073709551615", "starts"),
        ("starts = 3\n", "", "starts"),
    ];
    for (was, is, field) in damages {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("tidewater.toml"), whole.replace(was, is)).unwrap();
        let error = refused(temp.path());
        assert!(matches!(&error, FolderError::BadMarker { what, .. } if what.contains(field)), "{error}");
    }
    let temp = tempfile::tempdir().unwrap();
    for content in [&b""[..], b"\xff\xfe\x00", &[b'x'; 100_000]] {
        fs::write(temp.path().join("tidewater.toml"), content).unwrap();
        assert!(matches!(refused(temp.path()), FolderError::BadMarker { .. }));
    }
    fs::write(temp.path().join("tidewater.toml"), whole).unwrap();
    assert_eq!(open(temp.path()).unwrap().1, Start { clean: None, first: false, starts: 4 });
}

#[test]
fn names_that_would_break_the_marker_are_refused() {
    let temp = tempfile::tempdir().unwrap();
    for name in ["", "a\nb", "a\"b", "a\\b", &"x".repeat(256)] {
        assert!(matches!(DataFolder::open(temp.path(), name, "demo"), Err(FolderError::BadName { what: "node", .. })));
        assert!(matches!(DataFolder::open(temp.path(), "n1", name), Err(FolderError::BadName { what: "cluster", .. })));
    }
    let (folder, _) = DataFolder::open(temp.path(), " n = 1 # ä", "the 'demo'").unwrap();
    drop(folder);
    assert!(!DataFolder::open(temp.path(), " n = 1 # ä", "the 'demo'").unwrap().1.first);
}

#[test]
fn a_copy_does_not_resume_and_the_original_still_does() {
    let temp = tempfile::tempdir().unwrap();
    let (original, copied) = (temp.path().join("original"), temp.path().join("copy"));
    shut_down_cleanly(&original, 9);
    copy(&original, &copied);
    let (_, start) = open(&copied).unwrap();
    assert_eq!((start.clean, start.first), (None, false));
    assert_eq!(open(&original).unwrap().1.clean, Some(Incarnation(9)));
}

#[test]
fn a_renamed_folder_is_still_itself() {
    let temp = tempfile::tempdir().unwrap();
    shut_down_cleanly(&temp.path().join("here"), 9);
    fs::rename(temp.path().join("here"), temp.path().join("there")).unwrap();
    assert_eq!(open(&temp.path().join("there")).unwrap().1.clean, Some(Incarnation(9)));
}

#[test]
fn a_backup_played_back_in_place_does_not_resume() {
    let temp = tempfile::tempdir().unwrap();
    let (data, backup) = (temp.path().join("data"), temp.path().join("backup"));
    shut_down_cleanly(&data, 1);
    copy(&data, &backup);
    shut_down_cleanly(&data, 2);
    // Overwrites each file's content and keeps its inode, as rsync --inplace does.
    copy(&backup, &data);
    assert_eq!(open(&data).unwrap().1.clean, None);
}

#[test]
fn a_store_that_changed_below_the_mark_does_not_resume() {
    let changes: [fn(&Path); 4] = [
        |store| fs::write(store.join("000001.sst"), "rows, shorter or longer").unwrap(),
        |store| fs::write(store.join("000002.sst"), "").unwrap(),
        |store| fs::remove_file(store.join("000001.sst")).unwrap(),
        |store| {
            fs::copy(store.join("000001.sst"), store.join("new")).unwrap();
            fs::rename(store.join("new"), store.join("000001.sst")).unwrap();
        },
    ];
    for change in changes {
        let temp = tempfile::tempdir().unwrap();
        shut_down_cleanly(temp.path(), 1);
        change(&temp.path().join("store"));
        assert_eq!(open(temp.path()).unwrap().1.clean, None);
    }
    // What an engine logs for people is not data.
    let temp = tempfile::tempdir().unwrap();
    shut_down_cleanly(temp.path(), 1);
    fs::write(temp.path().join("store/LOG"), "closed").unwrap();
    assert_eq!(open(temp.path()).unwrap().1.clean, Some(Incarnation(1)));
}

#[test]
fn an_old_or_damaged_mark_does_not_resume() {
    let temp = tempfile::tempdir().unwrap();
    let mark = temp.path().join("clean");
    shut_down_cleanly(temp.path(), 1);
    let whole = fs::read_to_string(&mark).unwrap();
    // Every byte counts. Written in place, so that only the content differs.
    for at in (0..whole.len()).step_by(7) {
        shut_down_cleanly(temp.path(), 1);
        let mut text = fs::read(&mark).unwrap();
        text[at] ^= 1;
        fs::write(&mark, text).unwrap();
        assert_eq!(open(temp.path()).unwrap().1.clean, None, "byte {at}");
    }
    // Kept over a start by hand: the same file, but an older start's.
    shut_down_cleanly(temp.path(), 1);
    let aside = temp.path().join("aside");
    fs::rename(&mark, &aside).unwrap();
    drop(open(temp.path()).unwrap());
    fs::rename(&aside, &mark).unwrap();
    assert_eq!(open(temp.path()).unwrap().1.clean, None);
}

#[cfg(feature = "rocks")]
#[test]
fn a_flushed_and_closed_store_leaves_a_mark_that_holds() {
    use tidewater::storage::{Batch, RocksOptions, RocksStore, Space, Storage};
    let temp = tempfile::tempdir().unwrap();
    for round in 0..3u64 {
        let (folder, start) = open(temp.path()).unwrap();
        assert_eq!(start.clean, round.checked_sub(1).map(Incarnation));
        let store = RocksStore::open(&folder.store_path(), RocksOptions::default()).unwrap();
        let mut batch = Batch::new();
        batch.put(Space::Rows, round.to_be_bytes().to_vec(), "value");
        store.commit(&batch, false).unwrap();
        store.flush().unwrap();
        drop(store);
        folder.mark_clean(Incarnation(round)).unwrap();
    }
}
