//! Log entries on their way: what several entries share is said once.
//!
//! An entry is told with its rows as they stand now, so all entries of a key that is written over and over carry the same row. Here each
//! row goes once, and its key, and each incarnation: what an exchange sends follows what changed, not how often.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::data::clock::Hlc;
use crate::data::id::{Dot, Incarnation, OpId};
use crate::data::op::Key;
use crate::data::path::Path;
use crate::data::row::Row;
use crate::wire::message::LogRow;

#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct PackedLog {
    incarnations: Vec<Incarnation>,
    places: Vec<Place>,
    entries: Vec<Entry>,
}

/// What one or several mutations touched, as it stands.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Place {
    key: Key,
    rows: Vec<(Path, Option<Row>)>,
}

/// The rest of a log entry; incarnation and place by their numbers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Entry {
    incarnation: u32,
    counter: u64,
    place: u32,
    removes: Vec<Dot>,
    puts: bool,
    tally: bool,
    op_id: Option<OpId>,
    remember: bool,
    made: Hlc,
}

impl PackedLog {
    pub fn pack(rows: Vec<LogRow>) -> Self {
        let mut page = Self::default();
        let mut incarnations = BTreeMap::new();
        let mut places: BTreeMap<Key, Vec<u32>> = BTreeMap::new();
        for LogRow { dot, key, rows, removes, puts, tally, op_id, remember, made } in rows {
            let incarnation = *incarnations.entry(dot.incarnation).or_insert_with(|| {
                page.incarnations.push(dot.incarnation);
                page.incarnations.len() as u32 - 1
            });
            let of_key = places.entry(key.clone()).or_default();
            let known = of_key.iter().copied().find(|place| page.places[*place as usize].rows == rows);
            let place = known.unwrap_or_else(|| {
                page.places.push(Place { key, rows });
                let place = page.places.len() as u32 - 1;
                of_key.push(place);
                place
            });
            page.entries.push(Entry {
                incarnation,
                counter: dot.counter,
                place,
                removes,
                puts,
                tally,
                op_id,
                remember,
                made,
            });
        }
        page
    }

    /// The entries, in their order. One that names what is not there, which only a broken peer sends, is left out: it is asked for again.
    pub fn unpack(self) -> Vec<LogRow> {
        let Self { incarnations, places, entries } = self;
        let whole = |entry: Entry| {
            let Entry { incarnation, counter, place, removes, puts, tally, op_id, remember, made } = entry;
            let incarnation = *incarnations.get(incarnation as usize)?;
            let Place { key, rows } = places.get(place as usize)?.clone();
            let dot = Dot { incarnation, counter };
            Some(LogRow { dot, key, rows, removes, puts, tally, op_id, remember, made })
        };
        entries.into_iter().filter_map(whole).collect()
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::data::clock::Stamp;
    use crate::data::path::Component;
    use crate::data::row::Life;
    use crate::data::row::Register;
    use crate::wire::codec;

    fn row(key: &str, incarnation: u64, counter: u64) -> LogRow {
        let dot = Dot { incarnation: Incarnation(incarnation), counter };
        let stamp = Stamp { hlc: Hlc(9), incarnation: dot.incarnation };
        let register = Register {
            dot,
            stamp,
            life: Life(0),
            deadline_ms: None,
            payload: Some(Bytes::from(vec![b'.'; 100])),
            removes: Vec::new(),
        };
        LogRow {
            dot,
            key: Key::new(key.to_owned()),
            rows: vec![(Path::new(Component::Register, Bytes::new()), Some(Row::Register(register)))],
            removes: Vec::new(),
            puts: true,
            tally: false,
            op_id: None,
            remember: true,
            made: Hlc(counter),
        }
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let mut other = row("a", 1, 1);
        other.rows[0].1 = None;
        let rows =
            vec![row("a", 1, 1), row("b", 2, 1), other, LogRow { removes: vec![row("b", 2, 1).dot], ..row("a", 1, 1) }];
        let page = PackedLog::pack(rows.clone());
        assert_eq!((page.len(), page.places.len(), page.incarnations.len()), (4, 3, 2));
        assert_eq!(page.unpack(), rows);
        assert!(PackedLog::pack(Vec::new()).is_empty());
    }

    #[test]
    fn a_key_written_over_and_over_goes_once() {
        let again = |counter| LogRow { dot: Dot { incarnation: Incarnation(1), counter }, ..row("a", 1, 9) };
        let one = codec::encode(&PackedLog::pack(vec![again(1)])).len();
        let ten = codec::encode(&PackedLog::pack((1..=10).map(again).collect())).len();
        assert!(ten - one < 9 * 20, "{one} bytes for one, {ten} for ten");
    }

    #[test]
    fn numbers_that_name_nothing_are_left_out() {
        let mut page = PackedLog::pack(vec![row("a", 1, 1), row("b", 1, 2)]);
        page.entries[0].place = 9;
        page.entries[1].incarnation = 9;
        assert!(page.unpack().is_empty());
    }
}
