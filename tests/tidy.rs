//! The architecture page as a test: layers, one door per library, one clock, no orphan files, a word on top of every folder, and maps
//! that show every room. A failure names file and line, and says what to do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up. Rooms of one rank do not import each other.
const RANKS: &[&[&str]] = &[
    &["data"],
    &["ring"],
    &["wire"],
    &["storage"],
    &["node"],
    &["net"],
    &["host", "sim", "client"],
    &["api"],
    &["cli"],
];

/// They decide, and see neither sockets nor threads nor the time. (`storage` has a door to RocksDB in a file of its own.)
const PURE: &[&str] = &["data", "ring", "wire", "node", "sim"];

/// Library, and the files or folders that may name it.
const DOORS: &[(&str, &[&str])] = &[
    ("axum", &["api/http"]),
    ("bincode", &["wire/codec.rs"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("crdts", &["data"]),
    ("foca", &["node/membership"]),
    ("hashring", &["ring"]),
    ("hyper", &["api/http"]),
    ("hyper_util", &["api/http"]),
    ("indicatif", &["cli/progress.rs"]),
    ("mimalloc", &["main.rs"]),
    ("quick_cache", &["node/replica/objects.rs"]),
    ("quinn", &["net"]),
    ("quinn_proto", &["net"]),
    ("rcgen", &["net"]),
    ("rocksdb", &["storage/rocks.rs"]),
    ("rustls", &["net"]),
    ("serde_json", &["api/http", "cli"]),
    ("smallvec", &["node/coordinator"]),
    ("tokio_rustls", &["net", "api/resp"]),
    ("toml", &["cli"]),
    ("uuid", &["data/id.rs"]),
    ("x509_parser", &["net"]),
    ("xxhash_rust", &["data", "wire", "node", "storage", "ring"]),
];

/// Where the time is read and chance is drawn: a node's, a client's. The command line holds threads, but no clock of its own.
const CLOCKS: &[&str] = &["host/clock.rs", "net/entropy.rs"];
const CLOCK_WORDS: &[&str] = &["Instant::now", "SystemTime::now", "SysRng", "OsRng", "thread_rng", "rand::rng("];

/// What no pure room may name.
const IMPURE_WORDS: &[&str] =
    &["tokio", "std::thread", "std::net", "std::fs", "std::env", "std::process", "RandomState", "rocksdb"];

struct Source {
    /// Below `src`, with forward slashes.
    name: String,
    text: String,
}

impl Source {
    fn room(&self) -> Option<&str> {
        self.name.split_once('/').map(|(room, _)| room)
    }

    fn is_test(&self) -> bool {
        self.name.ends_with("/tests.rs")
    }

    /// Lines of code with their numbers: no comments, and nothing from the unit tests at the end of the file on.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"));
        lines.map(|(at, line)| (at + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut paths = Vec::new();
    walk(&src, &mut paths);
    paths.sort();
    let read = |path: PathBuf| Source {
        name: path.strip_prefix(&src).expect("below src").to_string_lossy().replace('\\', "/"),
        text: fs::read_to_string(&path).expect("readable text"),
    };
    paths.into_iter().map(read).collect()
}

/// Does the line name this word, as a whole word?
fn names(line: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

fn rank(room: &str) -> Option<usize> {
    RANKS.iter().position(|rooms| rooms.contains(&room))
}

fn check(broken: Vec<String>) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn a_room_imports_only_rooms_below_it() {
    let mut broken = Vec::new();
    for source in sources() {
        let Some(room) = source.room() else { continue };
        let Some(mine) = rank(room) else {
            broken.push(format!("src/{}: the room {room} has no rank: add it to RANKS and to src/lib.rs", source.name));
            continue;
        };
        // Unit tests at the end of a file keep to the order too: what needs more belongs into tests/.
        for (at, line) in source.text.lines().enumerate() {
            for (start, _) in line.match_indices("crate::") {
                let rest = &line[start + "crate::".len()..];
                let other: String =
                    rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                let Some(theirs) = rank(&other) else { continue };
                if other != room && theirs >= mine && !line.trim_start().starts_with("//") {
                    broken.push(format!(
                        "src/{}:{}: {room} imports {other}, which stands above or beside it; move what both need down, \
                         or pass it in",
                        source.name,
                        at + 1
                    ));
                }
            }
        }
    }
    check(broken);
}

#[test]
fn every_library_has_one_door() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (at, line) in source.code() {
            for (library, doors) in DOORS {
                let path = format!("{library}::");
                let named = line.match_indices(&path).any(|(start, _)| {
                    let before = line[..start].chars().next_back();
                    !before.is_some_and(|letter| letter.is_alphanumeric() || letter == '_' || letter == ':')
                }) || line.trim_start().starts_with(&format!("use {library};"));
                let within =
                    doors.iter().any(|door| source.name == *door || source.name.starts_with(&format!("{door}/")));
                if named && !within {
                    broken.push(format!(
                        "src/{}:{at}: {library} is named outside its door ({}); use what the door offers, or add to it there",
                        source.name,
                        doors.join(", ")
                    ));
                }
            }
        }
    }
    check(broken);
}

#[test]
fn the_pure_rooms_stay_pure() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.room().is_some_and(|room| PURE.contains(&room))) {
        for (at, line) in source.code() {
            for word in IMPURE_WORDS.iter().filter(|word| names(line, word)) {
                broken.push(format!(
                    "src/{}:{at}: {word} in a room that decides: give it what it needs as an input, or move the doing to host",
                    source.name
                ));
            }
        }
    }
    check(broken);
}

#[test]
fn the_time_and_chance_come_from_one_place() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test() && !CLOCKS.contains(&source.name.as_str())) {
        for (at, line) in source.code() {
            for word in CLOCK_WORDS.iter().filter(|word| line.contains(**word)) {
                broken.push(format!(
                    "src/{}:{at}: {word} outside of {}: ask there, or take the time as an argument",
                    source.name,
                    CLOCKS.join(" and ")
                ));
            }
        }
    }
    check(broken);
}

#[test]
fn no_file_is_an_orphan() {
    let all = sources();
    let mut broken = Vec::new();
    for source in &all {
        if ["lib.rs", "main.rs"].contains(&source.name.as_str()) {
            continue;
        }
        let (folder, file) = source.name.rsplit_once('/').unwrap_or(("", &source.name));
        // `mod.rs` is declared one folder further up, under the folder's name.
        let (module, parent) = match file {
            "mod.rs" => match folder.rsplit_once('/') {
                Some((parent, name)) => (name, parent),
                None => (folder, ""),
            },
            file => (file.trim_end_matches(".rs"), folder),
        };
        let parents = [format!("{parent}/mod.rs"), format!("{parent}.rs")];
        let parents: Vec<&str> =
            if parent.is_empty() { vec!["lib.rs"] } else { parents.iter().map(String::as_str).collect() };
        let declares = |text: &str| {
            text.lines().any(|line| {
                let line = line.trim_start();
                let line = line.split_once("mod ").filter(|(before, _)| before.is_empty() || before.starts_with("pub"));
                line.is_some_and(|(_, rest)| rest.trim_end_matches(';').trim_end_matches(" {") == module)
            })
        };
        let found = all.iter().any(|other| parents.contains(&other.name.as_str()) && declares(&other.text));
        if !found {
            broken.push(format!(
                "src/{}: no `mod {module};` in {}: declare it or delete it",
                source.name,
                parents.join(" or ")
            ));
        }
    }
    check(broken);
}

#[test]
fn every_folder_says_what_it_is() {
    let mut broken = Vec::new();
    let all = sources();
    for source in all.iter().filter(|source| source.name.ends_with("mod.rs") || source.name == "lib.rs") {
        if !source.text.starts_with("//! ") {
            broken.push(format!("src/{}:1: say with `//!` what the folder is for and what holds in it", source.name));
        }
    }
    check(broken);
}

#[test]
fn the_maps_show_every_room() {
    let rooms: BTreeSet<String> = sources().iter().filter_map(|source| source.room().map(str::to_string)).collect();
    let lib = fs::read_to_string(root().join("src/lib.rs")).expect("src/lib.rs");
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let order =
        lib.lines().find(|line| line.contains("One direction:")).expect("src/lib.rs tells the order of the rooms");
    let mut broken = Vec::new();
    for room in &rooms {
        if !names(order, room) {
            broken.push(format!(
                "src/lib.rs: the room {room} is missing in the line that begins with \"One direction:\""
            ));
        }
        if !readme.contains(&format!("`src/{room}`")) {
            broken.push(format!("README.md: the room {room} is missing in the map"));
        }
    }
    check(broken);
}
