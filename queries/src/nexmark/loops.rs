//! What the four CEP queries say, by plain loops: their oracle beside the bounded run, which shares code with what it judges.
//!
//! The end of the rows is the end of all times, where a row may be taken for B that could have been one more A.

use std::collections::BTreeMap;

use ::nexmark::event::Event;

use super::events::{bids, micros, number};

/// When a bid was, microseconds, and its price.
type Row = (i64, i64);

/// A bidder's bids on an auction by time, of each auction and bidder.
pub(super) fn partitions(events: &[Event]) -> BTreeMap<(i64, i64), Vec<Row>> {
    let mut parts: BTreeMap<(i64, i64), Vec<Row>> = BTreeMap::new();
    for bid in bids(events) {
        parts
            .entry((number(bid.auction), number(bid.bidder)))
            .or_default()
            .push((micros(bid.date_time), number(bid.price)));
    }
    parts.values_mut().for_each(|rows| rows.sort_unstable());
    parts
}

/// (start, bottom, end) of falling prices, with the original's SKIP TO LAST PRICE_UP.
pub(super) fn falling(rows: &[Row]) -> Vec<[i64; 3]> {
    let (mut said, mut first) = (Vec::new(), 0);
    while first < rows.len() {
        let mut bottom = first;
        while bottom + 1 < rows.len() && rows[bottom + 1].1 < rows[bottom].1 {
            bottom += 1;
        }
        let up = bottom + 1;
        if bottom >= first + 2 && up < rows.len() && rows[up].1 > rows[bottom - 1].1 {
            said.push([rows[first].0, rows[bottom].0, rows[up].0]);
            first = up;
        } else {
            first += 1;
        }
    }
    said
}

/// (start, end, average) of prices that are below 10000 on average: one match after another, or one from every row.
pub(super) fn below_average(rows: &[Row], past_last_row: bool) -> Vec<[i64; 3]> {
    let (mut said, mut first) = (Vec::new(), 0);
    while first < rows.len() {
        let (mut sum, mut count, mut next) = (0, 0, first);
        while next < rows.len() && sum + rows[next].1 < 10_000 * (count + 1) {
            sum += rows[next].1;
            count += 1;
            next += 1;
        }
        if next == rows.len() {
            next -= 1;
            count -= 1;
            sum -= rows[next].1;
        }
        if count == 0 {
            first += 1;
            continue;
        }
        said.push([rows[first].0, rows[next - 1].0, sum / count]);
        first = if past_last_row { next + 1 } else { first + 1 };
    }
    said
}

/// (time, how much) of prices that fall by more than 50 within so long.
pub(super) fn drops(rows: &[Row], within_us: i64) -> Vec<[i64; 2]> {
    let (mut said, mut first) = (Vec::new(), 0);
    while first < rows.len() {
        let (start, price) = rows[first];
        match (first + 1..rows.len()).find(|row| rows[*row].1 <= price - 50) {
            Some(row) if rows[row].1 < price - 50 && rows[row].0 <= start + within_us => {
                said.push([rows[row].0, price - rows[row].1]);
                first = row + 1;
            }
            _ => first += 1,
        }
    }
    said
}
