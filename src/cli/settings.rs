//! The reader behind `config.rs`: takes settings one by one out of a TOML text, the environment and `--set`, and remembers
//! where each stands, so that whatever is wrong is told with its line, its name and what is allowed. All faults are told at once.
//!
//! A setting is known because somebody reads it: what remains unread is unknown, and the reader guesses what was meant.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use crate::data::consistency::Level;

use super::args;

const ENVIRONMENT_PREFIX: &str = "TIDEWATER_";
/// Variables of that prefix that mean something to other verbs.
const ENVIRONMENT_OTHERS: [&str; 9] =
    ["CONFIG", "CONNECT", "TLS", "TIMEOUT", "READ", "WRITE", "DURABLE", "ZONES", "OWNERS"];

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Counted from 1.
    File {
        line: usize,
        column: usize,
    },
    Environment(String),
    Flag,
    /// Nowhere: the default, or a thing that is missing.
    Nowhere,
}

/// One thing wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub place: Place,
    /// Empty when the text is no TOML at all.
    pub field: String,
    pub message: String,
}

/// Everything wrong with the settings; nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file's name as it was given.
    pub origin: String,
    /// In the order of their places; never empty.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                out.write_str("\n")?;
            }
            match &problem.place {
                Place::File { line, column } => write!(out, "{}:{line}:{column}: ", self.origin)?,
                Place::Environment(variable) => write!(out, "environment variable {variable}: ")?,
                Place::Flag => out.write_str("--set: ")?,
                Place::Nowhere => write!(out, "{}: ", self.origin)?,
            }
            if !problem.field.is_empty() {
                write!(out, "{}: ", problem.field)?;
            }
            out.write_str(&problem.message)?;
        }
        Ok(())
    }
}

/// What one setting means and where that comes from: a line of `tidewater node --check`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    pub field: String,
    pub value: String,
    pub place: Place,
}

/// A value as it was given.
#[derive(Clone, Copy)]
pub enum Raw<'a> {
    /// In the file, with a type of its own.
    Toml(&'a DeValue<'a>),
    /// In the environment or a flag: everything is text there.
    Typed(&'a str),
}

/// A kind of value: how it is read, how it is shown, what is allowed.
pub struct Kind<T> {
    read: Box<dyn Fn(Raw) -> Option<T>>,
    show: Box<dyn Fn(&T) -> String>,
    /// As it stands behind "use".
    allowed: String,
    secret: bool,
}

/// One table of the file; absent ones read as empty.
#[derive(Clone)]
pub struct Section<'a> {
    /// As a person would find it: `layout.members[2]`; empty for the top.
    name: String,
    /// The same without numbers.
    schema: String,
    table: Option<&'a DeTable<'a>>,
    place: Place,
}

struct Override {
    place: Place,
    text: String,
}

/// Goes through one document.
pub struct Reader<'a> {
    origin: String,
    text: &'a str,
    overrides: BTreeMap<String, Override>,
    problems: Vec<Problem>,
    /// Every setting and section that was asked for, without numbers.
    known: Vec<String>,
    places: BTreeMap<String, Place>,
    meanings: Vec<Meaning>,
}

impl<'a> Reader<'a> {
    /// `text` is what `root` was parsed from; `origin` its file's name. `environment` may hold anything; only names that begin
    /// with `TIDEWATER_` count. `flags` are `name=value` and win over it.
    pub fn new(origin: &str, text: &'a str, environment: &[(String, String)], flags: &[String]) -> Self {
        let mut reader = Self {
            origin: origin.to_owned(),
            text,
            overrides: BTreeMap::new(),
            problems: Vec::new(),
            known: Vec::new(),
            places: BTreeMap::new(),
            meanings: Vec::new(),
        };
        for (variable, text) in environment {
            let Some(name) = variable.strip_prefix(ENVIRONMENT_PREFIX) else { continue };
            let field = name.to_ascii_lowercase().replace("__", ".");
            let place = Place::Environment(variable.clone());
            reader.overrides.insert(field, Override { place, text: text.clone() });
        }
        for flag in flags {
            match flag.split_once('=') {
                Some((field, text)) => {
                    let given = Override { place: Place::Flag, text: text.to_owned() };
                    reader.overrides.insert(field.trim().to_owned(), given);
                }
                None => reader.problem(Place::Flag, "", format!("'{flag}' sets nothing: use name=value")),
            }
        }
        reader
    }

    /// The whole document.
    pub fn root(&self, table: Option<&'a DeTable<'a>>) -> Section<'a> {
        Section { name: String::new(), schema: String::new(), table, place: Place::Nowhere }
    }

    /// A table in a table.
    pub fn section(&mut self, parent: &Section<'a>, name: &str) -> Section<'a> {
        let mut section = self.child(parent, name);
        let Some((value, place)) = self.find(parent, name) else { return section };
        match value.as_table() {
            Some(table) => section.table = Some(table),
            None => {
                let given = shown(value);
                self.problem(place.clone(), &section.name, format!("{given} is no section: use [{}]", section.name));
            }
        }
        self.places.insert(section.name.clone(), place.clone());
        section.place = place;
        section
    }

    /// A list of tables; each named by its number, from 1.
    pub fn sections(&mut self, parent: &Section<'a>, name: &str) -> Vec<Section<'a>> {
        let list = self.child(parent, name);
        let Some((value, place)) = self.find(parent, name) else { return Vec::new() };
        self.places.insert(list.name.clone(), place.clone());
        let tables: Option<Vec<_>> = value.as_array().map(|array| {
            array.iter().filter_map(|item| item.get_ref().as_table().map(|table| (table, item.span()))).collect()
        });
        match (tables, value.as_array().map(|array| array.len())) {
            (Some(tables), Some(count)) if tables.len() == count => {
                let number = |(at, (table, span)): (usize, (&'a DeTable<'a>, Range<usize>))| Section {
                    name: format!("{}[{}]", list.name, at + 1),
                    schema: list.schema.clone(),
                    table: Some(table),
                    place: self.place(span),
                };
                tables.into_iter().enumerate().map(number).collect()
            }
            _ => {
                let message = format!("{} is no list of sections: use [[{}]]", shown(value), list.name);
                self.problem(place, &list.name, message);
                Vec::new()
            }
        }
    }

    /// The setting, or `default` when it is not given or wrong (which is remembered).
    pub fn or<T>(&mut self, section: &Section<'a>, name: &str, kind: Kind<T>, default: T) -> T {
        self.read(section, name, kind, Some(default)).expect("read gives the default back")
    }

    /// The setting, which has to be given.
    pub fn required<T>(&mut self, section: &Section<'a>, name: &str, kind: Kind<T>) -> Option<T> {
        let allowed = kind.allowed.clone();
        let field = self.child(section, name).name;
        let value = self.read(section, name, kind, None);
        if value.is_none() && !self.places.contains_key(&field) {
            self.problem(section.place.clone(), &field, format!("is missing: use {allowed}"));
        }
        value
    }

    fn read<T>(&mut self, section: &Section<'a>, name: &str, kind: Kind<T>, default: Option<T>) -> Option<T> {
        let Section { name: field, schema, .. } = self.child(section, name);
        // A setting of a numbered section has no name of its own outside the file.
        let given = if field == schema { self.overrides.remove(&field) } else { None };
        let (value, place) = match (given, self.find(section, name)) {
            (Some(Override { place, text }), _) => ((kind.read)(Raw::Typed(&text)).ok_or(format!("'{text}'")), place),
            (None, Some((value, place))) => ((kind.read)(Raw::Toml(value)).ok_or(shown(value)), place),
            (None, None) => {
                if let Some(default) = &default {
                    self.meanings.push(Meaning { field, value: (kind.show)(default), place: Place::Nowhere });
                }
                return default;
            }
        };
        self.places.insert(field.clone(), place.clone());
        match value {
            Ok(value) => {
                self.meanings.push(Meaning { field, value: (kind.show)(&value), place });
                Some(value)
            }
            Err(given) => {
                let given = if kind.secret { "what is given".into() } else { given };
                self.problem(place, &field, format!("{given} is not allowed: use {}", kind.allowed));
                default
            }
        }
    }

    /// Says that a setting, wherever it was given, is wrong.
    pub fn fault(&mut self, field: &str, message: String) {
        let mut name = field;
        loop {
            if let Some(place) = self.places.get(name) {
                let place = place.clone();
                return self.problem(place, field, message);
            }
            match name.rsplit_once('.') {
                Some((parent, _)) => name = parent,
                None => return self.problem(Place::Nowhere, field, message),
            }
        }
    }

    /// From now on the settings of `section` are also found under `alias`.
    pub fn alias(&mut self, section: &Section<'a>, alias: &str) {
        let prefix = format!("{}.", section.name);
        let inner = self.places.iter().filter_map(|(name, place)| Some((name.strip_prefix(&prefix)?, place)));
        let mut found: Vec<(String, Place)> =
            inner.map(|(name, place)| (format!("{alias}.{name}"), place.clone())).collect();
        found.push((alias.to_owned(), section.place.clone()));
        self.places.extend(found);
    }

    /// Tells what nobody asked for, and ends: every problem, or what everything means and what deserves a warning.
    pub fn finish(mut self, root: &Section<'a>) -> Result<(Vec<Meaning>, Vec<String>), ConfigError> {
        if let Some(table) = root.table {
            self.unknown(table, "", "");
        }
        let mut warnings = Vec::new();
        for (field, given) in std::mem::take(&mut self.overrides) {
            let meant = self.meant(&field, "").map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            match given.place {
                // Other programs may have put it there: container platforms announce services so.
                Place::Environment(variable) => {
                    if !ENVIRONMENT_OTHERS.contains(&&variable[ENVIRONMENT_PREFIX.len()..]) {
                        warnings.push(format!("environment variable {variable} names no setting{meant}"));
                    }
                }
                place => self.problem(place, &field, format!("there is no such setting{meant}")),
            }
        }
        if self.problems.is_empty() {
            return Ok((self.meanings, warnings));
        }
        let mut problems = self.problems;
        problems.sort_by_key(|problem| match problem.place {
            Place::File { line, column } => (0, line, column),
            Place::Nowhere => (1, 0, 0),
            Place::Environment(_) => (2, 0, 0),
            Place::Flag => (3, 0, 0),
        });
        problems.dedup();
        Err(ConfigError { origin: self.origin, problems })
    }

    /// Every setting that was asked for, by its name without numbers.
    pub fn known(&self) -> &[String] {
        &self.known
    }

    /// Whether anything is wrong so far.
    pub fn is_fine(&self) -> bool {
        self.problems.is_empty()
    }

    fn unknown(&mut self, table: &'a DeTable<'a>, name: &str, schema: &str) {
        for (key, value) in table {
            let field = joined(name, key.get_ref());
            let inner = joined(schema, key.get_ref());
            let prefix = format!("{inner}.");
            let is_section = self.known.iter().any(|known| known.starts_with(&prefix));
            if !is_section && !self.known.contains(&inner) {
                let meant = self.meant(&inner, schema).map(|meant| format!("; did you mean {meant}?"));
                let allowed = || format!("; there are: {}", self.siblings(schema).join(", "));
                let message = format!("there is no such setting{}", meant.unwrap_or_else(allowed));
                self.problem(self.place(key.span()), &field, message);
                continue;
            }
            match value.get_ref() {
                DeValue::Table(table) if is_section => self.unknown(table, &field, &inner),
                DeValue::Array(array) if is_section => {
                    for (at, item) in array.iter().enumerate() {
                        if let Some(table) = item.get_ref().as_table() {
                            self.unknown(table, &format!("{field}[{}]", at + 1), &inner);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// The known setting most like `field`: of the same section first, then with the same last word anywhere.
    fn meant(&self, field: &str, schema: &str) -> Option<String> {
        let like = |known: &&String| strsim::damerau_levenshtein(known, field) <= 1 + field.len() / 6;
        let near = self.known.iter().filter(like).min_by_key(|known| strsim::damerau_levenshtein(known, field));
        let last = field.rsplit('.').next().unwrap_or(field);
        let elsewhere = || self.known.iter().find(|known| known.rsplit('.').next() == Some(last));
        let beginning = || {
            let inside = self
                .known
                .iter()
                .filter(|known| joined(schema, "") == known[..joined(schema, "").len().min(known.len())]);
            inside
                .min_by(|a, b| strsim::jaro_winkler(b, field).total_cmp(&strsim::jaro_winkler(a, field)))
                .filter(|known| strsim::jaro_winkler(known, field) > 0.9)
        };
        near.or_else(elsewhere).or_else(beginning).cloned()
    }

    fn siblings(&self, schema: &str) -> Vec<&str> {
        let prefix = joined(schema, "");
        let mut names: Vec<&str> = self
            .known
            .iter()
            .filter_map(|known| known.strip_prefix(&prefix))
            .map(|rest| rest.split('.').next().unwrap_or(rest))
            .collect();
        names.dedup();
        names
    }

    fn child(&mut self, section: &Section<'a>, name: &str) -> Section<'a> {
        let schema = joined(&section.schema, name);
        if !self.known.contains(&schema) {
            self.known.push(schema.clone());
        }
        let name = joined(&section.name, name);
        Section { name, schema, table: None, place: section.place.clone() }
    }

    fn find(&self, section: &Section<'a>, name: &str) -> Option<(&'a DeValue<'a>, Place)> {
        let (key, value) = section.table?.iter().find(|(key, _)| key.get_ref() == name)?;
        Some((value.get_ref(), self.place(key.span())))
    }

    fn problem(&mut self, place: Place, field: &str, message: String) {
        self.problems.push(Problem { place, field: field.to_owned(), message });
    }

    fn place(&self, span: Range<usize>) -> Place {
        place_in(self.text, span.start)
    }
}

/// The line and column of a byte, from 1; columns count characters.
pub fn place_in(text: &str, at: usize) -> Place {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    Place::File { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

fn joined(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// A value as an error shows it: short, with its type when that is what is wrong.
fn shown(value: &DeValue) -> String {
    let cut = |text: &str| match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    };
    match value {
        DeValue::String(text) => format!("\"{}\"", cut(&text.escape_debug().to_string())),
        DeValue::Integer(number) => cut(&number.to_string()),
        DeValue::Float(number) => cut(&number.to_string()),
        DeValue::Boolean(is) => is.to_string(),
        DeValue::Datetime(_) => "a date".into(),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a section".into(),
    }
}

impl Raw<'_> {
    fn text(&self) -> Option<&str> {
        match self {
            Raw::Typed(text) => Some(text),
            Raw::Toml(value) => value.as_str(),
        }
    }

    fn whole(&self) -> Option<u64> {
        match self {
            Raw::Typed(text) => text.parse().ok(),
            Raw::Toml(value) => {
                let number = value.as_integer()?;
                u64::from_str_radix(number.as_str(), number.radix()).ok()
            }
        }
    }
}

/// A whole number of `unit` (may be empty).
pub fn whole<T: TryFrom<u64> + fmt::Display + 'static>(least: u64, most: u64) -> Kind<T> {
    Kind {
        read: Box::new(move |raw| T::try_from(raw.whole().filter(|number| (least..=most).contains(number))?).ok()),
        show: Box::new(T::to_string),
        allowed: format!("a whole number from {least} to {most}"),
        secret: false,
    }
}

/// Bytes: `"8MiB"`, or a whole number of bytes.
pub fn size(least: u64, most: u64) -> Kind<u64> {
    let read = move |raw: Raw| {
        let bytes = match raw.whole() {
            Some(bytes) => Some(bytes),
            None => parse_size(raw.text()?),
        };
        bytes.filter(|bytes| (least..=most).contains(bytes))
    };
    let allowed = format!(
        "a size from {} to {}, as \"512KiB\", \"8MiB\", \"1GiB\" or a number of bytes",
        show_size(&least),
        show_size(&most)
    );
    Kind { read: Box::new(read), show: Box::new(show_size), allowed, secret: false }
}

/// Milliseconds: `"250ms"`, `"2s"`, `"10m"`.
pub fn time_ms(least: u64, most: u64) -> Kind<u64> {
    let read = move |raw: Raw| {
        let time = args::duration(raw.text()?).ok()?;
        let time_ms = u64::try_from(time.as_millis()).ok()?;
        let is_whole = time.as_micros() % 1_000 == 0;
        (is_whole && (least..=most).contains(&time_ms)).then_some(time_ms)
    };
    let allowed = format!("a time from {} to {}, as \"250ms\", \"2s\" or \"10m\"", show_time(&least), show_time(&most));
    Kind { read: Box::new(read), show: Box::new(show_time), allowed, secret: false }
}

/// `true` or `false`.
pub fn switch() -> Kind<bool> {
    let read = |raw: Raw| match raw {
        Raw::Typed(text) => text.parse().ok(),
        Raw::Toml(value) => value.as_bool(),
    };
    Kind { read: Box::new(read), show: Box::new(bool::to_string), allowed: "true or false".into(), secret: false }
}

/// What may stand in a certificate: 1 to 63 letters, digits, `-` and `_`, the last two not at the ends.
pub fn name() -> Kind<String> {
    let fine = |text: &str| {
        let ends = [text.bytes().next(), text.bytes().next_back()];
        text.len() <= 63
            && ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    text_kind(fine, "a name of 1 to 63 letters, digits, - and _ (the last two not at the ends)")
}

/// `host:port`, as others dial it.
pub fn address() -> Kind<String> {
    let fine = |text: &str| args::host_port(text).is_ok();
    text_kind(fine, "host:port, as \"n1.example.net:9001\", \"10.0.0.1:9001\" or \"[::1]:9001\"")
}

/// An address of this machine and a port.
pub fn listen() -> Kind<SocketAddr> {
    Kind {
        read: Box::new(|raw| raw.text()?.parse().ok().filter(|address: &SocketAddr| address.port() != 0)),
        show: Box::new(SocketAddr::to_string),
        allowed: "an address of this machine and a port, as \"0.0.0.0:9001\", \"127.0.0.1:9001\" or \"[::]:9001\""
            .into(),
        secret: false,
    }
}

/// A level of consistency.
pub fn level() -> Kind<Level> {
    Kind {
        read: Box::new(|raw| level_of(&raw)),
        show: Box::new(Level::to_string),
        allowed: "one, two, three, quorum, all, local-quorum, each-quorum, any (to write) or a number".into(),
        secret: false,
    }
}

/// A level, or none.
pub fn level_or_none() -> Kind<Option<Level>> {
    Kind {
        read: Box::new(|raw| match raw.text() {
            Some("none") => Some(None),
            _ => level_of(&raw).map(Some),
        }),
        show: Box::new(|level| level.map_or("none".into(), |level| level.to_string())),
        allowed: "none, one, two, three, quorum, all or a number".into(),
        secret: false,
    }
}

fn level_of(raw: &Raw) -> Option<Level> {
    match raw.whole() {
        Some(count) => u8::try_from(count).ok().filter(|count| *count > 0).map(Level::Count),
        None => raw.text()?.parse().ok(),
    }
}

/// A file or folder; in the file, relative ones begin at `base`, elsewhere where the command was typed.
pub fn path(base: &Path) -> Kind<PathBuf> {
    let base = base.to_owned();
    let read = move |raw: Raw| {
        let text = raw.text().filter(|text| !text.is_empty() && !text.contains('\0'))?;
        Some(match raw {
            Raw::Toml(_) => base.join(text),
            Raw::Typed(_) => PathBuf::from(text),
        })
    };
    Kind {
        read: Box::new(read),
        show: Box::new(|path: &PathBuf| path.display().to_string()),
        allowed: "a path".into(),
        secret: false,
    }
}

/// A list of passwords; in the environment parted by commas.
pub fn passwords() -> Kind<Vec<String>> {
    let fine = |text: &String| (1..=512).contains(&text.len());
    let read = move |raw: Raw| {
        let list: Vec<String> = match raw {
            Raw::Typed(text) => text.split(',').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            Raw::Toml(value) => {
                let texts = value.as_array()?.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
                texts.collect::<Option<_>>()?
            }
        };
        (list.len() <= 16 && list.iter().all(fine)).then_some(list)
    };
    Kind {
        read: Box::new(read),
        show: Box::new(|list: &Vec<String>| format!("({} given)", list.len())),
        allowed: "a list of at most 16 texts of 1 to 512 bytes, as [\"one\", \"two\"]".into(),
        secret: true,
    }
}

/// A text that `fine` accepts.
pub fn text_kind(fine: impl Fn(&str) -> bool + 'static, allowed: &str) -> Kind<String> {
    Kind {
        read: Box::new(move |raw| raw.text().filter(|text| fine(text)).map(str::to_owned)),
        show: Box::new(|text: &String| text.clone()),
        allowed: allowed.to_owned(),
        secret: false,
    }
}

const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn parse_size(text: &str) -> Option<u64> {
    let (unit, factor) = UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
    let number: u64 = text[..text.len() - unit.len()].trim_end().parse().ok()?;
    number.checked_mul(*factor)
}

fn show_size(bytes: &u64) -> String {
    match UNITS.iter().find(|(_, factor)| *bytes >= *factor && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

fn show_time(time_ms: &u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.iter().find(|(_, factor)| *time_ms > 0 && time_ms.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", time_ms / factor),
        None => format!("{time_ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_shown_as_they_are_read() {
        for text in ["1B", "1000B", "32KiB", "8MiB", "1GiB", "3TiB", "1025KiB"] {
            assert_eq!(show_size(&parse_size(text).expect(text)), text);
        }
        for text in ["", "MiB", "8MB", "8 M", "-1B", "99999999TiB", "1.5GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        for (time_ms, text) in [(0, "0ms"), (250, "250ms"), (2_000, "2s"), (90_000, "90s"), (600_000, "10m")] {
            assert_eq!(show_time(&time_ms), text);
        }
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let text = "a = 1\nbéé = 2\n";
        assert_eq!(place_in(text, 0), Place::File { line: 1, column: 1 });
        assert_eq!(place_in(text, text.find('2').expect("it is there")), Place::File { line: 2, column: 7 });
        assert_eq!(place_in(text, 9_999), Place::File { line: 3, column: 1 });
    }
}
