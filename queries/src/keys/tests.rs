//! Random keys: interned in batches and one by one, forgotten and interned again, they have the numbers that a plain map
//! says, and come back as they were.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, Int32Array, StringArray};
use arrow::datatypes::{DataType, TimeUnit};
use proptest::prelude::*;

use super::{Group, KeyStore};
use crate::feeding::{Event, Moving, bounded_rows, event, feed};
use crate::value::{Value, column_of};

const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
/// Columns of keys that are tried.
const KEYS: &[&[DataType]] = &[
    &[DataType::Utf8],
    &[DataType::Int64],
    &[DataType::Float64],
    &[DataType::Utf8, DataType::Int64],
    &[TIME, DataType::Boolean, DataType::Float64],
    &[DataType::Int32, DataType::Utf8],
    &[DataType::Float32],
    &[DataType::Utf8, DataType::Utf8, TIME],
];

#[derive(Debug, Clone)]
enum Step {
    /// Keys in one batch, of which the first few are cut off again.
    Many(Vec<[u8; 3]>, usize),
    One([u8; 3]),
    /// Of the keys that are alive, one is held once more or once less.
    Hold(usize),
    Release(usize),
    /// One that nothing holds is forgotten.
    Forget(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let many = (prop::collection::vec(any::<[u8; 3]>(), 0..40), 0..4_usize);
    let step = prop_oneof![
        many.prop_map(|(keys, cut)| Step::Many(keys, cut)),
        any::<[u8; 3]>().prop_map(Step::One),
        any::<usize>().prop_map(Step::Hold),
        any::<usize>().prop_map(Step::Release),
        any::<usize>().prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 1..60)
}

/// One of a few values of a type, among them NULL and those that look alike.
fn value(data_type: &DataType, choice: u8) -> Value {
    let choice = usize::from(choice) % 12;
    let number = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        f64::NAN,
        f64::INFINITY,
        1e-300,
        5e-324,
        2.5,
        -2.5,
        1e300,
    ][choice % 11];
    if choice == 11 {
        return Value::Null;
    }
    match data_type {
        DataType::Boolean => Value::Bool(choice > 5),
        DataType::Int64 => Value::Int(choice as i64 * 0x1_0000_0001 - 3),
        DataType::Float64 => Value::Float(number),
        DataType::Float32 => Value::Other(column_of_floats(number as f32)),
        DataType::Int32 => Value::Other(Arc::new(Int32Array::from(vec![choice as i32]))),
        DataType::Utf8 => Value::Text(
            [
                "",
                "\0",
                "a",
                "device-1",
                "device-11111",
                "device-11112",
                "device-111111",
                "device-111112",
                "device-of-the-hall-0",
                "device-of-the-hall-1",
                "gerät-ß",
            ][choice]
                .into(),
        ),
        _ => Value::Time(choice as i64 - 5),
    }
}

fn column_of_floats(number: f32) -> ArrayRef {
    Arc::new(Float32Array::from(vec![number]))
}

fn key(types: &[DataType], choices: [u8; 3]) -> Vec<Value> {
    types
        .iter()
        .zip(choices)
        .map(|(data_type, choice)| value(data_type, choice))
        .collect()
}

/// A key as text that only an equal one has: 0.0 and -0.0 are equal, NaN is equal to itself, and so is NULL.
fn written(key: &[Value]) -> String {
    let mut key = key.to_vec();
    KeyStore::as_kept(&mut key);
    format!("{key:?}")
}

fn columns_of(types: &[DataType], keys: &[Vec<Value>]) -> Vec<ArrayRef> {
    types
        .iter()
        .enumerate()
        .map(|(at, data_type)| column_of(data_type, keys.iter().map(|key| &key[at])).expect("values of the type"))
        .collect()
}

fn store_of(types: &[DataType]) -> KeyStore {
    KeyStore::new(types).expect("types that keys may have")
}

fn interned(store: &mut KeyStore, columns: &[ArrayRef], rows: usize) -> Vec<Group> {
    let mut groups = Vec::new();
    store.intern(columns, rows, &mut groups).expect("columns of the types");
    groups
}

/// What a plain map says.
#[derive(Default)]
struct Plain {
    groups: HashMap<String, Group>,
    holders: HashMap<Group, u32>,
}

impl Plain {
    /// A key has been given this number.
    fn check(&mut self, key: &[Value], group: Group) {
        match self.groups.get(&written(key)) {
            Some(known) => assert_eq!(*known, group, "{key:?} keeps its number"),
            None => {
                assert!(
                    !self.groups.values().any(|other| *other == group),
                    "{key:?} has a number of its own"
                );
                self.groups.insert(written(key), group);
                self.holders.insert(group, 0);
            }
        }
    }

    /// One of the keys that are alive and held or not held.
    fn pick(&self, choice: usize, is_held: bool) -> Option<Group> {
        let mut groups: Vec<Group> = self.groups.values().copied().collect();
        groups.retain(|group| (self.holders[group] > 0) == is_held);
        groups.sort_unstable();
        (!groups.is_empty()).then(|| groups[choice % groups.len()])
    }

    fn forget(&mut self, group: Group) {
        self.groups.retain(|_, other| *other != group);
        self.holders.remove(&group);
    }
}

fn check(types: &[DataType], steps: &[Step]) {
    let (mut store, mut plain) = (store_of(types), Plain::default());
    for step in steps {
        match step {
            Step::Many(choices, cut) => {
                let keys: Vec<_> = choices.iter().map(|choices| key(types, *choices)).collect();
                let cut = (*cut).min(keys.len());
                let columns = columns_of(types, &keys);
                let columns: Vec<_> = columns
                    .iter()
                    .map(|column| column.slice(cut, keys.len() - cut))
                    .collect();
                let groups = interned(&mut store, &columns, keys.len() - cut);
                assert_eq!(groups.len(), keys.len() - cut);
                for (key, group) in keys[cut..].iter().zip(&groups) {
                    plain.check(key, *group);
                }
            }
            Step::One(choices) => {
                let key = key(types, *choices);
                let group = store.intern_one(&key).expect("values of the types");
                plain.check(&key, group);
            }
            Step::Hold(choice) => {
                if let Some(group) = plain.pick(*choice, choice % 2 == 0) {
                    store.hold(group);
                    *plain.holders.entry(group).or_default() += 1;
                }
            }
            Step::Release(choice) => {
                if let Some(group) = plain.pick(*choice, true) {
                    store.release(group);
                    let holders = plain.holders.entry(group).or_default();
                    *holders -= 1;
                    if *holders == 0 {
                        plain.forget(group);
                    }
                }
            }
            Step::Forget(choice) => {
                if let Some(group) = plain.pick(*choice, false) {
                    // Twice, as rows that are refused may have one key.
                    store.forget_unheld(&[group, group]);
                    plain.forget(group);
                }
            }
        }
        assert_eq!(store.len(), plain.groups.len());
        let alive: Vec<(&String, &Group)> = plain.groups.iter().collect();
        let numbers: Vec<Group> = alive.iter().map(|(_, group)| **group).collect();
        assert!(numbers.iter().all(|group| (*group as usize) < store.holders.len()));
        let columns = store.columns(&numbers).expect("they are alive");
        for (row, (key, _)) in alive.into_iter().enumerate() {
            let again: Vec<Value> = columns.iter().map(|column| Value::at(column, row)).collect();
            assert_eq!(*key, format!("{again:?}"));
        }
    }
}

proptest! {
    #[test]
    fn keys_have_the_numbers_that_a_plain_map_says(kind in 0..KEYS.len(), steps in steps()) {
        check(KEYS[kind], &steps);
    }
}

#[test]
fn forgotten_long_keys_leave_no_bytes_behind() {
    let mut store = store_of(&[DataType::Utf8]);
    let mut most = 0;
    for round in 0..200 {
        let keys: Vec<Vec<Value>> = (0..100)
            .map(|key| vec![Value::Text(format!("a key of the round {round}, number {key}").into())])
            .collect();
        let groups = interned(&mut store, &columns_of(&[DataType::Utf8], &keys), 100);
        if round == 10 {
            most = store.bytes();
        }
        assert!(
            round < 10 || store.bytes() <= 2 * most,
            "{} bytes in round {round}",
            store.bytes()
        );
        let columns = store.columns(&groups).expect("they are alive");
        for (row, key) in keys.iter().enumerate() {
            assert_eq!(written(key), format!("{:?}", [Value::at(&columns[0], row)]));
        }
        store.forget_unheld(&groups);
        assert_eq!(store.len(), 0);
    }
}

#[test]
fn long_keys_that_stay_among_many_that_go_are_put_together() {
    let mut store = store_of(&[DataType::Utf8]);
    let text = |number: usize| format!("a tag of twenty-four characters or more {number}");
    let keys: Vec<Vec<Value>> = (0..50_000)
        .map(|number| vec![Value::Text(text(number).into())])
        .collect();
    let groups = interned(&mut store, &columns_of(&[DataType::Utf8], &keys), keys.len());
    let all = store.bytes();
    let (staying, going): (Vec<Group>, Vec<Group>) = groups.iter().partition(|group| **group % 100 == 7);
    store.forget_unheld(&going);
    // The other columns and the tables keep what they have.
    let of_texts = keys.len() * (text(49_999).len() + 8);
    assert!(
        store.bytes() < all - of_texts * 9 / 10,
        "{} of {all} bytes",
        store.bytes()
    );
    let column = &store.columns(&staying).expect("they are alive")[0];
    for (row, group) in staying.iter().enumerate() {
        assert_eq!(written(&[Value::at(column, row)]), written(&keys[*group as usize]));
    }
    // What comes takes the places of what went.
    let others: Vec<Vec<Value>> = (50_000..90_000)
        .map(|number| vec![Value::Text(text(number).into())])
        .collect();
    let more = interned(&mut store, &columns_of(&[DataType::Utf8], &others), others.len());
    // Beside them is now a list of numbers to be given out again.
    assert!(store.bytes() <= all + all / 10, "{} bytes, {all} before", store.bytes());
    let column = &store.columns(&more).expect("they are alive")[0];
    assert!((0..more.len()).all(|row| written(&[Value::at(column, row)]) == written(&others[row])));
    assert!(staying.iter().all(|group| {
        store
            .intern_one(&keys[*group as usize])
            .is_ok_and(|found| found == *group)
    }));
}

#[test]
fn a_store_without_columns_has_one_group() {
    let mut store = store_of(&[]);
    let groups = interned(&mut store, &[], 3);
    assert_eq!(
        (groups, store.intern_one(&[]).expect("no value"), store.len()),
        (vec![0, 0, 0], 0, 1)
    );
}

#[test]
fn a_column_of_another_type_is_refused() {
    let mut store = store_of(&[DataType::Int64]);
    let texts = columns_of(&[DataType::Utf8], &[vec![Value::Text("1".into())]]);
    assert!(store.intern(&texts, 1, &mut Vec::new()).is_err());
    assert!(store.intern_one(&[Value::Text("1".into())]).is_err());
}

#[test]
fn numbers_are_grouped_as_in_a_bounded_run() {
    let events: Vec<Event> = (0..24_i64)
        .map(|number| Event {
            zone: (number % 2) as u8,
            number: number / 2 % 4,
            ..event("gate", 1_000 + number, 0)
        })
        .collect();
    // Among them are 0.0, -0.0 and NaN.
    let number = "CASE WHEN entered = 3 THEN CAST('NaN' AS DOUBLE) WHEN entered = 2 THEN NULL
        WHEN zone = 'z0' THEN CAST(entered AS DOUBLE) ELSE CAST(entered AS DOUBLE) * -1.0 END";
    let sql = format!(
        "CREATE QUERY over_one AS SELECT {number} AS number, window_start, window_end, count(*) AS events
        FROM TUMBLE(gate, event_time, INTERVAL '10 seconds') GROUP BY number, window_start, window_end;
        CREATE QUERY over_two AS SELECT CAST({number} AS FLOAT) AS number, exited, window_start, window_end,
        count(*) AS events
        FROM TUMBLE(gate, event_time, INTERVAL '10 seconds') GROUP BY number, exited, window_start, window_end;"
    );
    let bounded = bounded_rows(&sql, &events, 0);
    assert!(
        !bounded["over_one"].iter().any(|row| row.contains("-0.0")),
        "{bounded:?}"
    );
    for sizes in [&[1][..], &[7], &[24]] {
        assert_eq!(
            feed(&sql, &events, sizes, Moving::AtOnce).rows,
            bounded,
            "in batches of {sizes:?}"
        );
    }
}

#[test]
fn keys_whose_hashes_look_alike_are_told_apart() {
    let mut store = store_of(&[DataType::Utf8]);
    let texts: Vec<String> = (0..300_000).map(|number| format!("tag {number}")).collect();
    let column: ArrayRef = Arc::new(StringArray::from_iter_values(&texts));
    let groups = interned(&mut store, &[Arc::clone(&column)], texts.len());
    let tags: HashSet<u32> = store.numbers.tags().collect();
    let alike = texts.len() - tags.len();
    assert!(
        (1..100).contains(&alike),
        "of so many keys about ten are alike, not {alike}"
    );
    assert_eq!(groups, (0..300_000).collect::<Vec<Group>>());
    assert_eq!(interned(&mut store, &[column], texts.len()), groups);
    for (group, text) in groups.iter().zip(&texts) {
        let key = [Value::Text(text.as_str().into())];
        assert_eq!(store.intern_one(&key).expect("a value of the type"), *group);
    }
}
