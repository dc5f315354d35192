//! Recordings in our own form, and the real ones where they are at hand.

use std::io::Write;

use super::lines::instant_us;
use super::*;
use crate::mapping::Mapping;

fn written(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new()
        .suffix(".ndjson")
        .tempfile()
        .expect("a temporary file");
    file.write_all(bytes).expect("written");
    file
}

fn read(path: &Path) -> Vec<Result<Recorded, RowError>> {
    Recording::open(path, &Mappings::shipped(), None)
        .expect("opened")
        .collect()
}

#[test]
fn our_own_form_keeps_topic_payload_and_time() {
    let file = written(
        br#"{"topic":"usher/in/a/b/gate/c","payload":{"in":1},"at":"2026-03-02T08:00:00.5+08:00"}
{"topic":"usher/in/a/b/gate/c","payload":"not JSON {","at":1772409601000}

{"topic":"usher/in/a/b/gate/c","payload":[{"ts":"2026-03-02T00:00:02Z","in":1}]}
{"topic":"usher/in/a/b/gate/c","payload":{"in":2}}
"#,
    );
    let rows: Vec<Recorded> = read(file.path()).into_iter().map(|row| row.expect("good")).collect();
    let seen: Vec<_> = rows
        .iter()
        .map(|row| (row.at_us, String::from_utf8_lossy(&row.payload).into_owned()))
        .collect();
    let second = 1_772_409_600_000_000;
    assert_eq!(
        seen,
        [
            (second + 500_000, r#"{"in":1}"#.to_owned()),
            (second + 1_000_000, "not JSON {".to_owned()),
            (
                second + 2_000_000,
                r#"[{"ts":"2026-03-02T00:00:02Z","in":1}]"#.to_owned()
            ),
            (second + 2_000_000, r#"{"in":2}"#.to_owned()),
        ]
    );
    let lines: String = rows.iter().map(|row| row.to_line() + "\n").collect();
    let again: Vec<Recorded> = read(written(lines.as_bytes()).path())
        .into_iter()
        .map(|row| row.expect("good"))
        .collect();
    assert_eq!(again, rows);
}

#[test]
fn a_bad_line_is_told_and_the_rest_goes_on() {
    let file = written(
        b"\xef\xbb\xbf{\"topic\":\"t\",\"payload\":1}\n{\"topic\":\n{\"payload\":1}\n{\"topic\":\"t/#\",\"payload\":1}\n{\"topic\":\"t\",\"payload\":1,\"at\":\"noon\"}\n{\"topic\":\"t\",\"payload\":\"\xff\"}\n{\"topic\":\"t\",\"payload\":2}",
    );
    let mut recording = Recording::open(file.path(), &Mappings::shipped(), None).expect("opened");
    let errors: Vec<String> = recording
        .by_ref()
        .filter_map(Result::err)
        .map(|error| error.to_string())
        .collect();
    assert_eq!((recording.rows(), recording.bad()), (2, 5));
    assert!(errors[0].starts_with("line 2: EOF while parsing"), "{}", errors[0]);
    assert!(errors[1].starts_with("line 3: missing field `topic`"), "{}", errors[1]);
    assert_eq!(
        errors[2],
        r#"line 4: `topic` is "t/#": a topic without wildcards was expected"#
    );
    assert_eq!(
        errors[3],
        r#"line 5: `at` is "noon": RFC 3339 or epoch milliseconds were expected"#
    );
    assert!(errors[4].starts_with("line 6: "), "{}", errors[4]);
}

#[test]
fn a_packed_recording_is_unpacked_and_a_damaged_one_ends_with_an_error() {
    let line = b"{\"topic\":\"t\",\"payload\":1}\n";
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for _ in 0..1000 {
        packer.write_all(line).expect("packed");
    }
    let packed = packer.finish().expect("packed");
    assert_eq!(read(written(&packed).path()).len(), 1000);
    let rows = read(written(&packed[..packed.len() - 20]).path());
    let error = rows
        .iter()
        .find_map(|row| row.as_ref().err())
        .expect("an error at the end");
    assert!(error.what.starts_with("the file cannot be read from here"), "{error}");
}

#[test]
fn a_file_of_no_known_kind_says_which_mappings_there_are() {
    let error = Recording::open(written(b"a,b\n1,2\n").path(), &Mappings::shipped(), None)
        .err()
        .expect("an error");
    assert!(
        error.to_string().ends_with(
            "choose one of: calit2-gate, ezproxy, gate-counter-cumulative, orfid-rfid, oulad, sdu-occupancy"
        )
    );
    let error = Recording::open(written(b"").path(), &Mappings::shipped(), Some("calit"))
        .err()
        .expect("an error");
    assert!(
        error
            .to_string()
            .starts_with("there is no mapping `calit`; choose one of: calit2-gate"),
        "{error}"
    );
    assert!(read(written(b"").path()).is_empty());
}

#[test]
fn a_row_whose_clock_leapt_is_sent_with_the_row_before_it() {
    let line = |ts: &str| format!("{{\"topic\":\"t\",\"payload\":{{\"ts\":\"{ts}\"}}}}\n");
    let days = [
        "2066-12-22",
        "2021-01-01",
        "2021-01-02",
        "1970-01-01",
        "2021-01-03",
        "2021-03-30",
        "2021-03-31",
        "2066-12-22",
    ];
    let text: String = days.iter().map(|day| line(&format!("{day}T00:00:00Z"))).collect();
    let sent: Vec<String> = read(written(text.as_bytes()).path())
        .into_iter()
        .map(|row| {
            DateTime::from_timestamp_micros(row.expect("good").at_us)
                .expect("a date")
                .date_naive()
                .to_string()
        })
        .collect();
    assert_eq!(
        sent,
        [
            "2021-01-01",
            "2021-01-01",
            "2021-01-02",
            "2021-01-02",
            "2021-01-03",
            "2021-03-30",
            "2021-03-31",
            "2021-03-31"
        ]
    );
}

fn mapped(text: &str, spoilt: &str) -> Result<(Vec<String>, Vec<String>), RecordingError> {
    let mut mappings = Mappings::default();
    mappings.add(Mapping::read(Path::new("doors.toml"), text).expect("a mapping"));
    let file = written(spoilt.as_bytes());
    let (good, bad): (Vec<_>, Vec<_>) =
        Recording::open(file.path(), &mappings, Some("doors"))?.partition(Result::is_ok);
    let payload = |row: Recorded| String::from_utf8_lossy(&row.payload).into_owned();
    let good = good.into_iter().filter_map(Result::ok).map(payload).collect();
    Ok((
        good,
        bad.into_iter()
            .filter_map(Result::err)
            .map(|error| error.to_string())
            .collect(),
    ))
}

const DOORS: &str = r#"
name = "doors"
[delimited]
delimiter = ";"
header = "names"
columns = ["day", "level"]
[time]
day = { column = "day", zero = "2026-03-01" }
zone = "+08:00"
invent = { spread = ["08:00", "20:00"] }
[[emit]]
when = [{ column = "day", not = "9" }]
topic = "usher/in/a/{day}/gate/door"
difference = { column = "level", rise = "in", fall = "out" }
"#;

#[test]
fn rows_of_a_mapping_are_refused_one_by_one() {
    let rows = "\u{feff}level;day\r\n3;0\r\n\r\n1;0\r\nmany;0\r\n1\r\n7;1\r\n7;1\r\n9;99999999\r\n8;a\r\n5;9\r\n9223372036854775807;2\r\n-5;2";
    let (good, bad) = mapped(DOORS, rows).expect("opened");
    assert_eq!(
        good,
        [
            r#"{"in":3,"out":0,"ts":"2026-03-01T08:00:00+08:00","time_invented":true}"#,
            r#"{"in":0,"out":2,"ts":"2026-03-01T12:00:00+08:00","time_invented":true}"#,
            r#"{"in":6,"out":0,"ts":"2026-03-02T08:00:00+08:00","time_invented":true}"#,
            r#"{"in":9223372036854775800,"out":0,"ts":"2026-03-03T08:00:00+08:00","time_invented":true}"#,
        ]
    );
    assert_eq!(
        bad,
        [
            r#"line 5: level is "many": a whole number was expected"#,
            "line 6: the row has 1 column, 2 were expected",
            r#"line 9: the day is "99999999": no calendar goes so far"#,
            r#"line 10: the day is "a": a whole number was expected"#,
            "line 13: level is -5: too far from the row before",
        ]
    );
}

#[test]
fn a_header_without_a_needed_column_is_refused() {
    let error = mapped(DOORS, "dia;level\n").expect_err("a wrong header").to_string();
    assert!(
        error.ends_with(":1:1: column `day` is missing, the header has `dia`, `level`"),
        "{error}"
    );
    assert!(mapped(DOORS, "").is_err());
}

/// Opens a real recording, or says why not.
fn real(file: &str) -> Option<Recording> {
    let folder = std::env::var("USHER_DATA").unwrap_or_else(|_| "../shared/data".to_owned());
    let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let path = workspace.join(folder).join(file);
    if !path.exists() {
        println!(
            "skipped: {} is not at hand (set USHER_DATA to the folder of recordings)",
            path.display()
        );
        return None;
    }
    Some(Recording::open(&path, &Mappings::shipped(), None).expect("opened"))
}

fn payload(recorded: &Recorded) -> Value {
    serde_json::from_slice(&recorded.payload).expect("JSON")
}

fn count(payload: &Value, member: &str) -> i64 {
    payload[member]
        .as_i64()
        .unwrap_or_else(|| panic!("{member} of {payload}"))
}

/// All messages of a recording without a bad row.
fn whole(recording: &mut Recording) -> Vec<(Recorded, Value)> {
    recording
        .map(|row| {
            let row = row.expect("good");
            let payload = payload(&row);
            (row, payload)
        })
        .collect()
}

#[test]
fn the_calit2_door_counts_19625_in_and_18806_out() {
    for (file, member, total) in [("cal-inflow.csv", "in", 19_625), ("cal-outflow.csv", "out", 18_806)] {
        let Some(mut recording) = real(&format!("calit2-gate/{file}")) else {
            return;
        };
        let rows = whole(&mut recording);
        assert_eq!((rows.len(), recording.bad()), (5_039, 0));
        assert_eq!(
            rows.iter().map(|(_, payload)| count(payload, member)).sum::<i64>(),
            total
        );
        assert_eq!(rows[0].1["ts"], "2005-07-24T00:00:00-07:00");
        assert_eq!(rows[0].1["id"], format!("{file}:1"));
        assert_eq!(rows[5_038].1["ts"], "2005-11-05T23:30:00-08:00");
        assert!(rows.windows(2).all(|pair| pair[0].0.at_us < pair[1].0.at_us));
    }
}

#[test]
fn the_cumulative_register_wraps_and_its_words_are_bad_rows() {
    let Some(mut recording) = real("gate-counter-cumulative/sampleGateCount.csv") else {
        return;
    };
    let (good, bad): (Vec<_>, Vec<_>) = recording.by_ref().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (322, 11));
    assert_eq!((recording.rows(), recording.bad()), (322, 11));
    let first_bad = bad[1].as_ref().expect_err("bad").to_string();
    assert_eq!(
        first_bad,
        r#"line 13: counts is "\"Gate Closed\"": a whole number was expected"#
    );
    let totals: Vec<i64> = good
        .iter()
        .map(|row| count(&payload(row.as_ref().expect("good")), "total_in"))
        .collect();
    assert!(totals.windows(2).any(|pair| pair == [999_999, 9_776]));
    assert_eq!(payload(good[0].as_ref().expect("good"))["time_invented"], true);
}

#[test]
fn the_sdu_rooms_rise_and_fall_as_their_levels_do() {
    let last_levels = [0, 0, 1, 0];
    for (room, peak, changes) in [(1, 67, 1_935), (2, 28, 1_338), (3, 35, 1_426), (4, 39, 900)] {
        let Some(mut recording) = real(&format!("sdu-occupancy/occ_data_room_{room}.csv")) else {
            return;
        };
        let rows = whole(&mut recording);
        assert_eq!((recording.rows(), recording.bad()), (21_600, 0));
        let (mut level, mut highest) = (0, 0);
        for (row, payload) in &rows {
            assert_eq!(row.topic, format!("usher/in/sdu/room-{room}/gate/camera"));
            level += count(payload, "in") - count(payload, "out");
            highest = highest.max(level);
        }
        assert_eq!((level, highest), (last_levels[room - 1], peak));
        assert!(rows.windows(2).all(|pair| pair[0].0.at_us < pair[1].0.at_us));
        // The published number of changes leaves out where the first row stands.
        assert_eq!(
            rows.len() as i64,
            changes + i64::from(rows[0].1["id"] == format!("occ_data_room_{room}.csv:1"))
        );
    }
}

#[test]
fn the_rfid_readers_go_back_and_one_row_says_2066() {
    let readers = [
        ("reader_1", 460, 0),
        ("reader_2", 8_590, 101),
        ("reader_3", 1_027, 1),
        ("reader_us", 781, 0),
        ("reader_ds", 824, 0),
    ];
    for (reader, expected, steps_back) in readers {
        let Some(mut recording) = real(&format!("orfid-rfid/{reader}.txt")) else {
            return;
        };
        let rows = whole(&mut recording);
        assert_eq!((rows.len(), recording.bad()), (expected, 0));
        let times: Vec<i64> = rows
            .iter()
            .map(|(_, payload)| instant_us(&payload["ts"]).expect("a time"))
            .collect();
        let back: Vec<i64> = times
            .windows(2)
            .map(|pair| pair[0] - pair[1])
            .filter(|step| *step > 0)
            .collect();
        assert_eq!(back.len(), steps_back, "{reader}");
        assert!(back.iter().all(|step| *step <= 4_200_000));
        assert!(
            rows.windows(2).all(|pair| pair[0].0.at_us <= pair[1].0.at_us),
            "{reader} is sent forward"
        );
        let future: Vec<&Value> = rows
            .iter()
            .map(|(_, payload)| &payload["ts"])
            .filter(|ts| ts.as_str() > Some("2022"))
            .collect();
        if reader == "reader_us" {
            assert_eq!(future, ["2066-12-22T00:08:09Z"]);
            assert_eq!(rows[780].0.at_us, rows[779].0.at_us);
            assert_eq!(rows[0].1["antenna"], 1);
        } else {
            assert!(future.is_empty());
        }
        if reader == "reader_2" {
            assert_eq!(
                rows.iter().filter(|(_, payload)| payload["phantom"] == true).count(),
                1_318
            );
        }
    }
}

#[test]
fn the_proxy_log_has_32530_requests() {
    let Some(mut recording) = real("ezproxy-sciencedirect-2012/ezproxy-sciencedirect-2012-11-30.log.gz") else {
        return;
    };
    let rows = whole(&mut recording);
    assert_eq!((rows.len(), recording.bad()), (32_530, 0));
    assert_eq!(
        rows.iter().filter(|(_, payload)| payload["status"] == 200).count(),
        24_806
    );
    assert_eq!(
        rows.iter()
            .filter(|(_, payload)| payload.get("person").is_none())
            .count(),
        1_364
    );
    let page = |payload: &Value| {
        payload["page"]
            .as_str()
            .is_none_or(|page| page.starts_with('/') && !page.contains('?'))
    };
    assert!(rows.iter().all(|(_, payload)| page(payload)));
    assert_eq!(rows[0].1["ts"], "2012-11-30T00:11:56+01:00");
    assert!(rows.windows(2).all(|pair| pair[0].1["id"] != pair[1].1["id"]));
}

#[test]
fn the_learning_platform_has_61980_clicks_on_13905_rows() {
    let Some(mut recording) = real("oulad-vle-slice/studentVle.csv") else {
        return;
    };
    let rows = whole(&mut recording);
    assert_eq!((rows.len(), recording.bad()), (13_905, 0));
    assert_eq!(
        rows.iter().map(|(_, payload)| count(payload, "count")).sum::<i64>(),
        61_980
    );
    assert_eq!(rows[0].1["ts"], "2013-09-21T08:00:00+01:00");
    assert!(rows.iter().all(|(_, payload)| payload["time_invented"] == true));
    assert!(rows.windows(2).all(|pair| pair[0].0.at_us <= pair[1].0.at_us));
    assert!(rows.iter().all(|(_, payload)| {
        let time = &payload["ts"].as_str().expect("a text")[11..16];
        ("08:00".."22:00").contains(&time)
    }));
}
