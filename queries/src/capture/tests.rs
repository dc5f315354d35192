//! A chain of captures, held against the snapshots of the same moments.

use std::collections::BTreeMap;
use std::hash::BuildHasher;

use arrow::util::display::array_value_to_string;

use super::*;
use crate::feeding::{Event, SECOND, event, push, queries};
use crate::query_set::QuerySet;

/// What an operator's captures are as bytes, and what came last of it.
type Segments = (Vec<Vec<u8>>, Option<Vec<u8>>);

/// What is kept of captures: what a checkpoint keeps.
#[derive(Default)]
pub(crate) struct Chain {
    queries: Vec<u8>,
    references: Option<QuerySnapshot>,
    operators: BTreeMap<u64, Segments>,
}

impl Chain {
    /// Puts what has changed behind what was captured before; gives the bytes of it.
    pub(crate) fn take(&mut self, queries: &mut QuerySet) -> usize {
        let capture = queries.capture().expect("it can be captured");
        self.queries = queries_to_bytes(&capture.queries).expect("it can be written");
        self.references = capture.references;
        let mut before = std::mem::take(&mut self.operators);
        let mut bytes = 0;
        for captured in capture.operators {
            let (mut rows, mut head) = before.remove(&captured.operator).unwrap_or_default();
            assert!(
                captured.begins_anew || !rows.is_empty() || head.is_some(),
                "a change of nothing"
            );
            if captured.begins_anew {
                (rows, head) = (Vec::new(), None);
            }
            head = captured
                .head
                .map(|head| head_to_bytes(&head).expect("it can be written"))
                .or(head);
            bytes += captured.rows.iter().map(RecordBatch::num_rows).sum::<usize>();
            rows.extend(rows_to_bytes(captured.rows).map(|segment| segment.expect("it can be written")));
            self.operators.insert(captured.operator, (rows, head));
        }
        bytes
    }

    /// What the captures come to.
    pub(crate) fn snapshots(&self) -> Vec<QuerySnapshot> {
        let queries = queries_from_bytes(&self.queries).expect("it was captured");
        let of_queries = queries.iter().map(|query| {
            let snapshot = query.snapshot(|operator| {
                let (rows, head) = &self.operators[&operator];
                assembled(rows, head.as_deref())
            });
            snapshot.expect("it can be put together")
        });
        self.references.iter().cloned().chain(of_queries).collect()
    }

    /// What is done behind the `number`th batch: something is taken ahead, or captured and held against what there is; now
    /// and then all goes through bytes, which are given, and the chain begins anew.
    pub(crate) fn step(&mut self, queries: &mut QuerySet, number: usize) -> Option<Vec<QuerySnapshot>> {
        let mut room = number % 4;
        queries.gather(&mut room).expect("it can be captured");
        if number % 3 == 1 {
            return None;
        }
        self.take(queries);
        self.hold_against(queries, "captured bit by bit");
        let is_end = matches!(number % 5, 2 | 4);
        is_end.then(|| {
            let snapshots = self.snapshots();
            *self = Self::default();
            let through_bytes = |snapshot: &QuerySnapshot| {
                QuerySnapshot::from_bytes(&snapshot.to_bytes().expect("it can be written")).expect("it can be read")
            };
            snapshots.iter().map(through_bytes).collect()
        })
    }

    /// Says where the captures come to something else than the snapshot of the same moment.
    pub(crate) fn hold_against(&self, queries: &mut QuerySet, words: &str) {
        let whole = queries.snapshot().expect("it can be written");
        let captured = self.snapshots();
        let names = |all: &[QuerySnapshot]| all.iter().map(|one| one.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&captured), names(&whole), "{words}");
        for (captured, whole) in captured.iter().zip(&whole) {
            assert_eq!(captured.fingerprint, whole.fingerprint, "{words}");
            let (captured_lines, lines) = (lines(captured), lines(whole));
            let other: Vec<_> = captured_lines.iter().filter(|line| !lines.contains(line)).collect();
            let missing: Vec<_> = lines.iter().filter(|line| !captured_lines.contains(line)).collect();
            assert!(
                captured_lines == lines,
                "{words}: {}\ncaptured {other:#?}\nthere is {missing:#?}",
                captured.name
            );
        }
    }
}

/// Each row as text, by part, in no order.
fn lines(snapshot: &QuerySnapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for (number, part) in &snapshot.parts {
        for row in 0..part.num_rows() {
            let schema = part.schema();
            let mut cells: Vec<String> = schema
                .fields()
                .iter()
                .zip(part.columns())
                .map(|(field, column)| {
                    let text = array_value_to_string(column, row).expect("it can be shown");
                    // The set of a DISTINCT comes in another order each time.
                    let mut items: Vec<&str> = text.trim_matches(['[', ']']).split(", ").collect();
                    if text.starts_with('[') {
                        items.sort_unstable();
                    }
                    let text = items.join(", ");
                    match text.len() {
                        0..200 => format!("{} {text}", field.name()),
                        _ => format!("{} {:x}", field.name(), rustc_hash::FxBuildHasher.hash_one(&text)),
                    }
                })
                .collect();
            cells.sort();
            lines.push(format!("{number}: {}", cells.join(", ")));
        }
    }
    lines.sort();
    lines
}

#[test]
fn of_many_rows_that_wait_those_alone_are_captured_that_changed() {
    const ROWS: usize = 2_000;
    let interval = "b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '1 hour'";
    let pattern = "MATCH_RECOGNIZE (PARTITION BY zone ORDER BY event_time MEASURES last(B.event_time) AS at \
                   PATTERN (A B) WITHIN INTERVAL '1 hour' DEFINE A AS A.antenna = 1, B AS B.antenna = 2)";
    let mut queries = queries(&format!(
        "CREATE QUERY pairs AS SELECT a.event_id AS a, b.event_id AS b FROM rfid a JOIN click b ON a.zone = b.zone AND {interval};
         CREATE QUERY unpaired AS SELECT a.event_id AS a, b.event_id AS b FROM rfid a LEFT JOIN click b ON a.zone = b.zone
             AND {interval};
         CREATE QUERY silent AS SELECT zone, absent_at FROM ABSENT(rfid, event_time, zone, INTERVAL '1 hour');
         CREATE QUERY begun AS SELECT * FROM rfid {pattern};
         CREATE QUERY waiting WITH (lateness = '1 hour') AS SELECT * FROM rfid {pattern};"
    ));
    let read = |number: usize| Event {
        time: 100 * SECOND + number as i64,
        left: 100 * SECOND + number as i64,
        zone: (number % 200) as u8,
        number: 1,
        ..event("rfid", 0, 0)
    };
    let feed = |queries: &mut QuerySet, from: usize, to: usize| {
        let events: Vec<Event> = (from..to).map(read).collect();
        push(queries, &(from..to).zip(&events).collect::<Vec<_>>(), &mut Vec::new());
        queries.advance(events[events.len() - 1].left, &mut Vec::new());
    };
    feed(&mut queries, 0, ROWS);
    let mut chain = Chain::default();
    // Ahead of the first one, bit by bit.
    for _ in 0..20 {
        let mut room = 100;
        queries.gather(&mut room).expect("it can be captured");
        assert_eq!(room, 0, "a turn takes what there is room for and no more");
    }
    let all = chain.take(&mut queries);
    assert!(all > 3 * ROWS, "{all} rows");
    chain.hold_against(&mut queries, "all of it");
    for number in ROWS..ROWS + 5 {
        feed(&mut queries, number, number + 1);
        let rows = chain.take(&mut queries);
        assert!((5..=12).contains(&rows), "of one event {rows} rows were captured");
        chain.hold_against(&mut queries, "one more");
    }
}

#[test]
fn a_session_that_goes_on_while_all_are_gone_through_is_captured_once() {
    let mut queries = queries(
        "CREATE QUERY visits AS SELECT zone, window_start, window_end, count(*) AS n
             FROM SESSION(rfid, event_time, INTERVAL '1 hour') GROUP BY zone, window_start, window_end;",
    );
    let read = |number: usize, zone: u8| Event {
        time: 100 * SECOND + number as i64,
        left: 100 * SECOND + number as i64,
        zone,
        number: 1,
        ..event("rfid", 0, 0)
    };
    let first: Vec<Event> = (0..10).map(|number| read(number, number as u8)).collect();
    push(&mut queries, &(0..10).zip(&first).collect::<Vec<_>>(), &mut Vec::new());
    let mut chain = Chain::default();
    // One key at a time, the last of which changes before it is come to, and behind that.
    for number in 10..200 {
        let mut room = 1;
        queries.gather(&mut room).expect("it can be captured");
        push(&mut queries, &[(number, &read(number, 9))], &mut Vec::new());
    }
    chain.take(&mut queries);
    chain.hold_against(&mut queries, "gone through key by key");
}

#[test]
fn of_many_rows_no_more_than_a_piece_is_there_as_bytes_and_what_is_written_is_let_go_of() {
    let numbers = |from: i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(from..from + 4_096)) };
    let columns: Vec<ArrayRef> = (0..400).map(|part| numbers(4_096 * part)).collect();
    let are_there: Vec<std::sync::Weak<dyn Array>> = columns.iter().map(Arc::downgrade).collect();
    let rows = columns
        .into_iter()
        .map(|column| named_batch(vec![("number".to_owned(), column)], 4_096).expect("a column"));
    let (mut read, mut written) = (Vec::new(), 0);
    for segment in rows_to_bytes(rows.collect()) {
        let segment = segment.expect("it can be written");
        assert!(segment.len() < SEGMENT_BYTES + 4_096, "{} bytes", segment.len());
        read.push(from_stream(&segment).expect("it was written"));
        written += 1;
        let rows: usize = read.iter().map(RecordBatch::num_rows).sum();
        let left = are_there.iter().filter(|column| column.strong_count() > 0).count();
        assert_eq!(left, 400 - rows / 4_096, "after {written} segments");
    }
    assert!((12..=16).contains(&written), "{written} segments of 13 MB");
    let all = concat_batches(&read[0].schema(), &read).expect("they are alike");
    let values = all.column(0).as_primitive::<Int64Type>();
    assert!(values.values().iter().copied().eq(0..400 * 4_096));
}

#[test]
fn what_is_taken_a_few_rows_at_a_time_takes_hardly_more_memory_than_what_is_taken_at_once() {
    const ROWS: usize = 20 * TOGETHER;
    let run = |room_each: usize| {
        let mut queries = queries(
            "CREATE QUERY pairs AS SELECT a.event_id AS a, b.event_id AS b FROM rfid a JOIN click b ON a.zone = b.zone
                 AND b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '1 hour';",
        );
        let read = |number: usize| Event {
            time: 100 * SECOND + number as i64,
            left: 100 * SECOND + number as i64,
            zone: (number % 200) as u8,
            number: 1,
            ..event("rfid", 0, 0)
        };
        let events: Vec<Event> = (0..ROWS).map(read).collect();
        push(
            &mut queries,
            &(0..ROWS).zip(&events).collect::<Vec<_>>(),
            &mut Vec::new(),
        );
        loop {
            let mut room = room_each;
            queries.gather(&mut room).expect("it can be captured");
            if room > 0 {
                break;
            }
        }
        let capture = queries.capture().expect("it can be captured");
        let batches: Vec<RecordBatch> = capture
            .operators
            .into_iter()
            .flat_map(|operator| operator.rows)
            .collect();
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        assert_eq!(rows, ROWS);
        // What describes the columns is as much again in a batch of a few rows, and not counted here.
        let bytes: usize = batches.iter().map(RecordBatch::get_array_memory_size).sum();
        (batches.len(), bytes)
    };
    let (at_once, bit_by_bit) = (run(usize::MAX), run(16));
    assert!(bit_by_bit.0 <= ROWS / TOGETHER, "{bit_by_bit:?} (batches, bytes)");
    assert!(
        bit_by_bit.1 < at_once.1 * 3 / 2,
        "{bit_by_bit:?} (batches, bytes), and at once {at_once:?}"
    );
}

#[test]
fn what_gets_long_at_once_begins_anew_in_turns() {
    const QUERIES: usize = 16;
    const ZONES: usize = 250;
    let sql = |number: usize| {
        format!(
            "CREATE QUERY silent_{number} AS SELECT zone, absent_at FROM ABSENT(rfid, event_time, zone, INTERVAL '{number} hours');"
        )
    };
    let mut queries = queries(&(1..=QUERIES).map(sql).collect::<String>());
    let mut chain = Chain::default();
    let (mut renewed, mut longest) = (Vec::new(), 0);
    for round in 0..60 {
        let read = |number: usize| Event {
            time: 100 * SECOND + (round * ZONES + number) as i64,
            left: 100 * SECOND + (round * ZONES + number) as i64,
            zone: number as u8,
            number: 1,
            ..event("rfid", 0, 0)
        };
        let events: Vec<Event> = (0..ZONES).map(read).collect();
        push(
            &mut queries,
            &(0..ZONES).zip(&events).collect::<Vec<_>>(),
            &mut Vec::new(),
        );
        let before: Vec<u64> = chain.operators.keys().copied().collect();
        chain.take(&mut queries);
        let is_new = |operator: &&u64| !before.contains(operator);
        renewed.push(chain.operators.keys().filter(is_new).count());
        let lengths = chain.operators.values().map(|(rows, _)| rows.len());
        longest = lengths.fold(longest, usize::max);
        chain.hold_against(&mut queries, "in turns");
    }
    assert_eq!(renewed[0], QUERIES, "all begin at once");
    // They began together, and are apart some captures later.
    let (first, later) = renewed[1..].split_at(10);
    let most = |some: &[usize]| some.iter().copied().max().unwrap_or_default();
    assert!(most(first) < QUERIES / 2, "{renewed:?} of {QUERIES} operators");
    assert!(most(later) <= QUERIES / 8 + 1, "{renewed:?} of {QUERIES} operators");
    let all: usize = later.iter().sum();
    assert!(all >= 3 * QUERIES, "{renewed:?}: chains that get ever longer");
    assert!(longest <= 10, "a chain of {longest} captures");
}

#[test]
fn what_changes_between_all_turns_is_not_taken_in_each_of_them() {
    const ROWS: usize = 2_000;
    let mut queries = queries(
        "CREATE QUERY taken AS SELECT zone, window_start, count(*) AS n
             FROM TUMBLE(seat, event_time, INTERVAL '1 day') GROUP BY zone, window_start, window_end;
         CREATE QUERY pairs AS SELECT a.event_id AS a, b.event_id AS b FROM rfid a JOIN click b ON a.zone = b.zone
             AND b.event_time BETWEEN a.event_time AND a.event_time + INTERVAL '1 hour';",
    );
    let at = |stream: &'static str, number: usize| Event {
        time: 100 * SECOND + number as i64,
        left: 100 * SECOND + number as i64,
        number: 1,
        ..event(stream, 0, 0)
    };
    let reads: Vec<Event> = (0..ROWS).map(|number| at("rfid", number)).collect();
    push(
        &mut queries,
        &(0..ROWS).zip(&reads).collect::<Vec<_>>(),
        &mut Vec::new(),
    );
    let (mut turns, mut chain) = (0, Chain::default());
    loop {
        push(
            &mut queries,
            &[(ROWS + turns, &at("seat", ROWS + turns))],
            &mut Vec::new(),
        );
        let mut room = 16;
        queries.gather(&mut room).expect("it can be captured");
        turns += 1;
        if room > 0 {
            break;
        }
    }
    let rows = chain.take(&mut queries);
    chain.hold_against(&mut queries, "in turns");
    assert!(
        (ROWS..ROWS + 10).contains(&rows),
        "{rows} rows of {ROWS} were captured in {turns} turns"
    );
}

#[test]
fn of_rows_that_are_taken_one_by_one_small_ones_are_put_together_and_large_ones_stay_where_they_are() {
    const ROWS: usize = TOGETHER + 100;
    let taken = |bytes: usize| {
        let mut taken = Taken::new();
        let row = || {
            let text: ArrayRef = Arc::new(arrow::array::BinaryArray::from_vec(vec![&vec![7; bytes]]));
            // As wide as what is kept of an event.
            let columns = (0..25).map(|number| {
                (
                    format!("number{number}"),
                    Arc::new(Int64Array::from(vec![1])) as ArrayRef,
                )
            });
            named_batch(columns.chain([("text".to_owned(), text)]).collect(), 1).expect("a row")
        };
        (0..ROWS).for_each(|_| taken.push(row()).expect("rows of the same columns"));
        let head = Head {
            windows: Vec::new(),
            said: Vec::new(),
            has_windows: false,
        };
        let captured = taken.capture(head.with(HashMap::new()), ROWS);
        captured.rows.iter().map(RecordBatch::num_rows).collect::<Vec<_>>()
    };
    let small = taken(8);
    assert_eq!((small[0], small.len()), (TOGETHER, 101), "{small:?}");
    assert_eq!(taken(16 << 10), vec![1; ROWS]);
}

/// Sets of some thousand texts, in windows and in sessions, a set a zone.
const SETS: &str = "CREATE QUERY in_windows AS SELECT zone, count(DISTINCT event_id) AS n
         FROM TUMBLE(rfid, event_time, INTERVAL '1 day') GROUP BY zone, window_start, window_end;
     CREATE QUERY in_sessions AS SELECT zone, count(DISTINCT event_id) AS n
         FROM SESSION(rfid, event_time, INTERVAL '1 hour') GROUP BY zone, window_start, window_end;";
const SETS_OF_EACH: usize = 8;
const SET: usize = 2_000;

/// Events of all zones, each with an id of its own.
fn push_to_sets(queries: &mut QuerySet, numbers: std::ops::Range<usize>) {
    let read = |number: usize| Event {
        time: 100 * SECOND + number as i64,
        left: 100 * SECOND + number as i64,
        zone: (number % SETS_OF_EACH) as u8,
        number: 1,
        ..event("rfid", 0, 0)
    };
    let events: Vec<Event> = numbers.clone().map(read).collect();
    push(queries, &numbers.zip(&events).collect::<Vec<_>>(), &mut Vec::new());
}

#[test]
fn rows_are_taken_by_what_they_weigh() {
    let mut queries = queries(SETS);
    push_to_sets(&mut queries, 0..SETS_OF_EACH * SET);
    let (mut turns, mut chain) = (0, Chain::default());
    loop {
        let mut room = 64;
        queries.gather(&mut room).expect("it can be captured");
        turns += 1;
        if room > 0 {
            break;
        }
    }
    assert!(turns >= 2 * SETS_OF_EACH, "{turns} turns for sets of {SET} texts");
    assert_eq!(chain.take(&mut queries), 2 * SETS_OF_EACH, "rows");
    chain.hold_against(&mut queries, "in turns");
}

#[test]
fn a_large_row_that_is_taken_again_replaces_the_one_before() {
    let mut queries = queries(SETS);
    let mut chain = Chain::default();
    let mut next = 0;
    // The first capture begins the chain, the second goes on behind it.
    for _ in 0..2 {
        push_to_sets(&mut queries, next..next + SETS_OF_EACH * SET);
        next += SETS_OF_EACH * SET;
        for turn in 0..20 {
            // Of one zone now and of all then, so that batches are replaced in part.
            let zones = if turn % 3 == 0 { 1 } else { SETS_OF_EACH };
            push_to_sets(&mut queries, next..next + zones);
            next += SETS_OF_EACH;
            let mut room = 100_000;
            queries.gather(&mut room).expect("it can be captured");
            assert!(room > 0, "all is taken in one turn");
        }
        assert_eq!(chain.take(&mut queries), 2 * SETS_OF_EACH, "rows");
        chain.hold_against(&mut queries, "taken again and again");
    }
}
