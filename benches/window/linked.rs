//! How long the close of a large window keeps alerts waiting that are told together or hold back others, and all others.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use usher_engine::alert::Trace;
use usher_engine::decode::{DecodeOptions, Decoder};
use usher_engine::event::Event;
use usher_engine::perception::{Perception, PerceptionOptions};
use usher_engine::pseudonym::Secret;
use usher_engine::settings::{Flags, Settings};
use usher_engine::site::Places;

use crate::many::{TURN, created};
use crate::turns::of_a_thousand;

const KEYS: usize = 100_000;
/// 2026-03-02T01:00:00Z, microseconds.
const BEGIN_US: i64 = 1_772_413_200_000_000;
/// Readers of tags.
const READERS: usize = 100;
const SECOND_US: i64 = 1_000_000;

/// Of each tag an alert of a window, all of which are told together; one that is held back by that, and one that has to do
/// with nothing, of events that come meanwhile.
const SQL: &str = "
CREATE ALERT full WITH (subject = 'item', raise = 'antenna = 0', group = 'site') AS
SELECT site, tag AS item, max(antenna) AS antenna, count(*) AS reads
FROM TUMBLE(rfid, event_time, INTERVAL '10 seconds') GROUP BY site, tag, window_start, window_end;
CREATE ALERT held WITH (subject = 'item', raise = 'antenna = 9999', inhibited_by = 'full') AS
SELECT site, tag AS item, antenna FROM rfid WHERE antenna >= 9000;
CREATE ALERT alone WITH (subject = 'item', raise = 'antenna = 9998') AS
SELECT site, tag AS item, antenna FROM rfid WHERE antenna >= 9000";

#[derive(Default)]
struct Longest {
    turn: Duration,
    each: Vec<Duration>,
    event: Duration,
    alone: Duration,
    whole: Duration,
    cut: Duration,
    turns: usize,
    steps: usize,
}

/// An event comes between any two turns in which a window of 100,000 keys is closed.
pub(crate) fn closing() {
    println!(
        "\n{:>22} {:>9} {:>6} {:>13} {:>13} {:>13} {:>9} {:>13}",
        "alerts raised by it", "whole", "turns", "turn, 99.9 %", "longest turn", "one event", "steps", "a cut"
    );
    for each in [1_000, 10, 1] {
        let mut longest = close(each);
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "{:>22} {:>6.1} ms {:>6} {:>10.2} ms {:>10.2} ms {:>10.3} ms {:>9} {:>10.3} ms",
            format!("one in {each}"),
            ms(longest.whole),
            longest.turns,
            ms(of_a_thousand(&mut longest.each)),
            ms(longest.turn),
            ms(longest.event.max(longest.alone)),
            longest.steps,
            ms(longest.cut)
        );
    }
}

fn read(decoder: &mut Decoder, number: usize, tag: usize, antenna: usize, at_us: i64) -> Vec<Event> {
    let reader = number % READERS;
    let payload = format!(
        r#"{{"ts":{},"id":"r{number}","tag":"{tag:024X}","antenna":{antenna},"rssi_dbm":-50.5,"action":"read"}}"#,
        at_us / 1_000
    );
    let topic = format!("usher/in/bench/zone-{reader}/rfid/reader-{reader}");
    let decoded = decoder.decode(&topic, payload.as_bytes(), at_us);
    assert!(decoded.refused.is_empty(), "{:?}", decoded.refused);
    decoded.events
}

/// One of so many tags is raised by the window.
fn close(each: usize) -> Longest {
    let settings = Settings::load_with(None, [], &Flags::default()).expect("the defaults are right");
    let places = Places::read(Path::new("site.toml"), "[[site]]\nid = \"bench\"\n").expect("the site is right");
    let mut perception = Perception::new(PerceptionOptions::of(&settings), Arc::new(places), created(SQL));
    let mut decoder = Decoder::new(DecodeOptions::new(Secret::from_bytes([3; 32])));
    let no_trace = |_: usize| Trace::default();
    let mut number = 0;
    let mut longest = Longest::default();
    // The first window makes room.
    for window in 0..2 {
        let start = BEGIN_US + window * 60 * SECOND_US;
        let mut batch: Vec<Event> = Vec::new();
        for tag in 0..KEYS {
            number += 1;
            batch.extend(read(&mut decoder, number, tag, tag % each, start + SECOND_US));
            if batch.len() == 4_096 || tag + 1 == KEYS {
                perception.take(&batch, &no_trace);
                batch.clear();
            }
        }
        perception.take_turns_of(TURN);
        longest = Longest::default();
        let began = Instant::now();
        // The first event ends the window, the others come between two turns.
        loop {
            number += 1;
            let event = read(
                &mut decoder,
                number,
                number % KEYS,
                9_998 + number % 2,
                start + 30 * SECOND_US,
            );
            let started = Instant::now();
            let steps = perception.take(&event, &no_trace);
            let took = started.elapsed();
            longest.steps += steps.len();
            match number % 2 {
                0 => longest.alone = longest.alone.max(took),
                _ => longest.event = longest.event.max(took),
            }
            if window == 1 && longest.turns == 60 {
                longest.cut = cut(&mut perception);
            }
            let started = Instant::now();
            longest.steps += perception.work().len();
            let turn = started.elapsed();
            longest.turn = longest.turn.max(turn);
            longest.each.push(turn);
            longest.turns += 1;
            if !perception.has_work() {
                break;
            }
        }
        longest.whole = began.elapsed();
    }
    longest
}

/// How long a checkpoint's cut takes while rows wait, when all else was taken ahead of it.
fn cut(perception: &mut Perception) -> Duration {
    loop {
        let mut room = 1_024;
        perception.gather(&mut room).expect("it can be captured");
        if room > 0 {
            break;
        }
    }
    let started = Instant::now();
    let captured = perception.capture().expect("it can be captured");
    let took = started.elapsed();
    drop(captured);
    took
}
