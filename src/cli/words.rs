//! The demo's material: text files of this machine, and the words that each speaks most of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::CliError;
use super::import::walk;

const FILE_BYTES_MAX: u64 = 256 << 10;
/// All texts are held in memory, to be compared with.
const ALL_BYTES_MAX: u64 = 128 << 20;
const ENDINGS: [&str; 5] = ["rs", "md", "toml", "txt", "c"];
/// Words counted and indexed per file.
const WORDS_PER_FILE: usize = 12;
const LETTERS: std::ops::RangeInclusive<usize> = 4..=24;

/// One file: its name below the folder it was found in, what it says, and its most frequent words with how often they occur.
#[derive(Clone, Debug)]
pub struct Text {
    pub root: PathBuf,
    pub name: String,
    pub content: Bytes,
    pub words: Vec<(String, i64)>,
}

/// At most `most` texts from the folders named, or from the sources that cargo has fetched, or from this project's own.
pub fn collect(from: &[PathBuf], most: usize) -> Result<Vec<Text>, CliError> {
    let candidates: Vec<PathBuf> = match from {
        [] => cargo_sources().into_iter().chain([PathBuf::from("src")]).collect(),
        named => return texts(named, most),
    };
    for candidate in &candidates {
        let found = texts(std::slice::from_ref(candidate), most)?;
        if found.len() >= 20 {
            return Ok(found);
        }
    }
    Err(CliError::usage("no text files were found in cargo's registry or in ./src: name a folder with --from PATH"))
}

/// Where the texts come from, for people.
pub fn source_of(texts: &[Text]) -> &Path {
    texts.first().map_or(Path::new("."), |text| &text.root)
}

fn cargo_sources() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))?;
    Some(home.join("registry/src"))
}

fn texts(roots: &[PathBuf], most: usize) -> Result<Vec<Text>, CliError> {
    let mut found: Vec<(PathBuf, PathBuf)> = Vec::new();
    for root in roots {
        for file in walk(root.clone()).flatten() {
            if is_text(&file) {
                found.push((root.clone(), file));
            }
        }
    }
    // Evenly over all that was found, so that many crates take part.
    let wanted = found.len().min(most.max(1));
    let mut texts = Vec::with_capacity(wanted);
    let mut bytes = 0;
    for at in 0..wanted {
        let (root, file) = &found[at * found.len() / wanted];
        let Ok(content) = std::fs::read_to_string(file) else { continue };
        bytes += content.len() as u64;
        if bytes > ALL_BYTES_MAX {
            break;
        }
        let name = file.strip_prefix(root).ok().filter(|name| !name.as_os_str().is_empty()).unwrap_or(file);
        let words = frequent_words(&content);
        let name = name.to_string_lossy().into_owned();
        texts.push(Text { root: root.clone(), name, content: Bytes::from(content), words });
    }
    // Two roots may hold a file of the same name, which is one key.
    texts.sort_by(|left, right| left.name.cmp(&right.name));
    texts.dedup_by(|left, right| left.name == right.name);
    if texts.is_empty() && roots.len() > 1 {
        return Err(CliError::usage("no text files were found in the folders named with --from"));
    }
    Ok(texts)
}

fn is_text(file: &Path) -> bool {
    let ending = file.extension().and_then(|ending| ending.to_str());
    let fits = |bytes: u64| (1..=FILE_BYTES_MAX).contains(&bytes);
    ending.is_some_and(|ending| ENDINGS.contains(&ending)) && file.metadata().is_ok_and(|metadata| fits(metadata.len()))
}

/// The most frequent words, most frequent first; equals by alphabet.
fn frequent_words(text: &str) -> Vec<(String, i64)> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for word in text.split(|letter: char| !letter.is_ascii_alphabetic()) {
        if LETTERS.contains(&word.len()) {
            *counts.entry(word.to_ascii_lowercase()).or_insert(0) += 1;
        }
    }
    let mut words: Vec<(String, i64)> = counts.into_iter().collect();
    words.sort_by(|left, right| right.1.cmp(&left.1).then_with(|| left.0.cmp(&right.0)));
    words.truncate(WORDS_PER_FILE);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_most_frequent_first() {
        let words = frequent_words("The tide turns; the tide, the TIDE. a1b2 waterwaterwaterwaterwater turns");
        assert_eq!(words, [("tide".to_owned(), 3), ("turns".to_owned(), 2)]);
    }

    #[test]
    fn texts_are_taken_evenly_and_once() {
        let folder = tempfile::tempdir().expect("a folder");
        for at in 0..40 {
            std::fs::write(folder.path().join(format!("f{at:02}.rs")), format!("file number{at}")).expect("written");
        }
        std::fs::write(folder.path().join("picture.png"), "no text").expect("written");
        let root = folder.path().to_owned();
        let texts = collect(&[root.clone(), root.clone()], 20).expect("found");
        assert!(texts.len() <= 20 && texts.len() >= 10, "{}", texts.len());
        assert!(texts.iter().all(|text| text.name.ends_with(".rs") && !text.words.is_empty()));
        assert_eq!(source_of(&texts), root);
        assert!(collect(&[root.join("no"), root.join("such")], 20).is_err());
    }
}
