//! The generator's events as batches of the streams person, auction and bid.

use std::sync::Arc;

use ::nexmark::EventGenerator;
use ::nexmark::config::NexmarkConfig;
use ::nexmark::event::{Auction, Bid, Event, Person};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Field, Schema};

/// The streams of Nexmark.
pub(super) const STREAMS: [&str; 3] = ["person", "auction", "bid"];

/// The first `count` events, `rate` a second of event time: the same ones on each run. Up to a rate of 1,000 no two share
/// a time, so that "the last" and "the first" are one row each.
pub(super) fn events(count: usize, rate: usize) -> Vec<Event> {
    let config = NexmarkConfig {
        // 2015-07-15T00:00:00Z, where the Java generator begins.
        base_time: 1_436_918_400_000,
        first_rate: rate,
        next_rate: rate,
        ..NexmarkConfig::default()
    };
    EventGenerator::new(config).take(count).collect()
}

/// When an event was, microseconds.
pub(super) fn time_of(event: &Event) -> i64 {
    micros(event.timestamp())
}

/// The stream an event is of.
pub(super) fn stream_of(event: &Event) -> &'static str {
    match event {
        Event::Person(_) => STREAMS[0],
        Event::Auction(_) => STREAMS[1],
        Event::Bid(_) => STREAMS[2],
    }
}

/// The bids among events.
pub(super) fn bids<'a>(events: impl IntoIterator<Item = &'a Event>) -> Vec<&'a Bid> {
    let bid = |event: &'a Event| match event {
        Event::Bid(bid) => Some(bid),
        _ => None,
    };
    events.into_iter().filter_map(bid).collect()
}

/// The rows of one stream among events.
pub(super) fn batch_of<'a>(stream: &str, events: impl IntoIterator<Item = &'a Event>) -> RecordBatch {
    let person = |event: &'a Event| match event {
        Event::Person(person) => Some(person),
        _ => None,
    };
    let auction = |event: &'a Event| match event {
        Event::Auction(auction) => Some(auction),
        _ => None,
    };
    match stream {
        "person" => people(&events.into_iter().filter_map(person).collect::<Vec<_>>()),
        "auction" => auctions(&events.into_iter().filter_map(auction).collect::<Vec<_>>()),
        _ => bid_rows(&bids(events)),
    }
}

/// The reference table of q13: keys and the same as texts, as the Java SideInputGenerator writes them.
pub(super) fn side_input() -> RecordBatch {
    let keys: Vec<usize> = (0..10_000).collect();
    batch(vec![
        ("key", numbers(&keys, |key| *key)),
        (
            "value",
            Arc::new(StringArray::from_iter_values(keys.iter().map(usize::to_string))),
        ),
    ])
}

/// Milliseconds of the generator as microseconds.
pub(super) fn micros(millis: u64) -> i64 {
    i64::try_from(millis * 1_000).expect("the generator's times are small")
}

/// A number of the generator as a column has it.
pub(super) fn number(value: usize) -> i64 {
    i64::try_from(value).expect("the generator's numbers are small")
}

fn texts<T>(rows: &[T], of: impl Fn(&T) -> &str) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
}

fn numbers<T>(rows: &[T], of: impl Fn(&T) -> usize) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| number(of(row)))))
}

fn times<T>(rows: &[T], of: impl Fn(&T) -> u64) -> ArrayRef {
    let times = rows.iter().map(|row| micros(of(row)));
    Arc::new(TimestampMicrosecondArray::from_iter_values(times))
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), false))
        .collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of one length")
}

fn people(rows: &[&Person]) -> RecordBatch {
    batch(vec![
        ("id", numbers(rows, |row| row.id)),
        ("name", texts(rows, |row| &row.name)),
        ("email_address", texts(rows, |row| &row.email_address)),
        ("credit_card", texts(rows, |row| &row.credit_card)),
        ("city", texts(rows, |row| &row.city)),
        ("state", texts(rows, |row| &row.state)),
        ("date_time", times(rows, |row| row.date_time)),
        ("extra", texts(rows, |row| &row.extra)),
    ])
}

fn auctions(rows: &[&Auction]) -> RecordBatch {
    batch(vec![
        ("id", numbers(rows, |row| row.id)),
        ("item_name", texts(rows, |row| &row.item_name)),
        ("description", texts(rows, |row| &row.description)),
        ("initial_bid", numbers(rows, |row| row.initial_bid)),
        ("reserve", numbers(rows, |row| row.reserve)),
        ("date_time", times(rows, |row| row.date_time)),
        ("expires", times(rows, |row| row.expires)),
        ("seller", numbers(rows, |row| row.seller)),
        ("category", numbers(rows, |row| row.category)),
        ("extra", texts(rows, |row| &row.extra)),
    ])
}

fn bid_rows(rows: &[&Bid]) -> RecordBatch {
    batch(vec![
        ("auction", numbers(rows, |row| row.auction)),
        ("bidder", numbers(rows, |row| row.bidder)),
        ("price", numbers(rows, |row| row.price)),
        ("channel", texts(rows, |row| &row.channel)),
        ("url", texts(rows, |row| &row.url)),
        ("date_time", times(rows, |row| row.date_time)),
        ("extra", texts(rows, |row| &row.extra)),
    ])
}
