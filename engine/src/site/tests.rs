//! A place is read with all its mistakes, each where it stands.

use super::*;

const EXAMPLE: &str = include_str!("../../../config/site.toml");
const DEMO: &str = include_str!("../../../config/demo/site.toml");

const SITE: &str = "[[site]]\nid = \"main\"\ntime_zone = \"Asia/Shanghai\"\n";

fn read(text: &str) -> Result<Places, Vec<Mistake>> {
    Places::read(Path::new("site.toml"), text)
}

fn said(text: &str) -> Vec<String> {
    let mistakes = read(text).expect_err("the text has mistakes");
    mistakes.iter().map(Mistake::to_string).collect()
}

/// What is said of lines put into a site that is right otherwise; they begin in line 4.
fn said_of_site(lines: &str) -> Vec<String> {
    said(&format!("{SITE}{lines}\n"))
}

#[test]
fn the_example_says_what_it_says() {
    let places = read(EXAMPLE).expect("the example is right");
    let main = places.site("main").expect("the example has a main site");
    assert_eq!((&*main.name.en, &*main.name.zh), ("Main Library", "总馆"));
    assert_eq!(main.calendar.time_zone(), chrono_tz::Asia::Shanghai);
    let at = |text: &str| {
        let at = chrono::DateTime::parse_from_rfc3339(text).expect("the test writes RFC 3339");
        main.calendar.is_open(at.timestamp_micros())
    };
    assert!(at("2026-11-23T22:00:00+08:00") && !at("2026-11-22T22:00:00+08:00"));
    assert!(at("2026-12-31T16:59:00+08:00") && !at("2026-12-31T17:00:00+08:00"));
    assert!(!at("2027-01-01T12:00:00+08:00"));
    let room = places.zone("main", "reading-room").expect("it has a reading room");
    assert_eq!(room.capacity, Some(50));
    assert_eq!(room.parent.as_deref(), Some("floor-1"));
    let zones: Vec<&str> = places.zones().map(|zone| zone.id.as_str()).collect();
    assert_eq!(zones, ["floor-1", "entrance-hall", "reading-room"], "in file order");
    assert_eq!(places.seats().count(), 3);
    assert_eq!(
        places.seat("main", "rr-002").map(|seat| &*seat.zone),
        Some("reading-room")
    );
    let antenna = places.device("main", "exit-antenna-1").expect("it has an antenna");
    assert_eq!(
        (antenna.kind.as_deref(), antenna.role.as_deref()),
        (Some("rfid"), Some("exit"))
    );
    assert_eq!(places.zone("main", "attic"), None);
    assert_eq!(places.zone("branch", "reading-room"), None);
}

#[test]
fn the_demo_reads_without_a_mistake() {
    let places = read(DEMO).expect("the demo's place is right");
    assert_eq!(places.sites().count(), 1);
    assert!(places.zones().count() > 5 && places.seats().count() > 20);
}

#[test]
fn no_file_is_a_place_of_which_nothing_is_known() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let places = Places::load(dir.path()).expect("no file is no mistake");
    assert_eq!(places, Places::default());
    assert_eq!(places.site("main"), None);
}

#[test]
fn names_fall_back_on_each_other_and_on_the_id() {
    let places = read(
        "[[site]]\nid = 'a'\nname = 'Main'\n[[site]]\nid = 'b'\nname = { zh = '分馆' }\n\
         [[site]]\nid = 'c'\nname = { en = 'Branch' }\n[[site]]\nid = 'old-town_branch'\n",
    )
    .expect("all of it is right");
    let names: Vec<_> = places.sites().map(|site| (&*site.name.en, &*site.name.zh)).collect();
    let old_town = ("Old town branch", "Old town branch");
    assert_eq!(
        names,
        [("Main", "Main"), ("分馆", "分馆"), ("Branch", "Branch"), old_town]
    );
    assert_eq!(
        LocalName {
            en: "A".into(),
            zh: "甲".into()
        }
        .in_language("zh-CN"),
        "甲"
    );
    assert_eq!(humanised("reading-room"), "Reading room");
    assert_eq!(humanised("éclair"), "Éclair");
    assert_eq!(humanised("--"), "--");
    assert!(places.sites().all(|site| site.calendar.is_always_open()));
}

#[test]
fn all_mistakes_are_said_in_the_order_of_the_text() {
    let text = "[[site]]
id = \"main\"
time_zone = \"Asia/Shanghay\"
opening = { mon-fri = \"8-22\" }

[[zone]]
site = \"mian\"
id = \"hall\"
capacity = 0

[[zone]]
site = \"main\"
id = \"reading-room\"
capcity = 50
parent = \"flor-1\"

[[zone]]
site = \"main\"
id = \"floor-1\"
capacity = -3

[[zone]]
site = \"main\"
id = \"reading-room\"

[[seat]]
site = \"main\"
zone = \"readingroom\"
id = \"rr/1\"

[[device]]
zone = \"floor-1\"
kind = \"rfit\"
id = \"exit\"

[[seats]]
id = \"rr-2\"
";
    assert_eq!(
        said(text),
        [
            "site.toml:3:13: `Asia/Shanghay` is no time zone, did you mean `Asia/Shanghai`?",
            "site.toml:4:23: `8-22` is no opening hours, hours such as \"08:00-22:30\", \"20:00-02:00\", \
             \"closed\" or \"24h\" would be right",
            "site.toml:7:8: there is no site `mian`, did you mean `main`?",
            "site.toml:9:12: `capacity` is 0, a whole number from 1 would be right, or none at all where nobody \
             counts",
            "site.toml:14:1: [[zone]] has no `capcity`, did you mean `capacity`?",
            "site.toml:15:10: there is no zone `flor-1` in site `main`, did you mean `floor-1`?",
            "site.toml:20:12: `capacity` is -3, a whole number from 1 would be right, or none at all where \
             nobody counts",
            "site.toml:24:6: the zone `reading-room` is already there in line 13, an id of its own would be right",
            "site.toml:28:8: there is no zone `readingroom` in site `main`, did you mean `reading-room`?",
            "site.toml:29:6: `rr/1` cannot be an id, one level of an MQTT topic, without `/`, `+` and `#`, would \
             be right",
            "site.toml:31:1: this [[device]] has no `site`, a line such as `site = \"main\"` would be right",
            "site.toml:33:8: `rfit` is no kind of device, did you mean `rfid`?",
            "site.toml:36:3: site.toml has no `seats`, did you mean `seat`?",
        ]
    );
}

#[test]
fn a_circle_of_parents_is_said_once() {
    let zone = |id: &str, parent: &str| format!("[[zone]]\nsite = \"main\"\nid = \"{id}\"\nparent = \"{parent}\"\n");
    let text = [
        zone("attic", "a"),
        zone("a", "b"),
        zone("b", "c"),
        zone("c", "a"),
        zone("d", "d"),
    ];
    let right = "a parent that holds the zone and is not inside it would be right";
    assert_eq!(
        said_of_site(&text.concat()),
        [
            format!("site.toml:11:10: the parents go round in a circle: a, b, c, a, {right}"),
            format!("site.toml:23:10: the parents go round in a circle: d, d, {right}"),
        ]
    );
}

#[test]
fn opening_hours_say_each_day_once() {
    assert_eq!(
        said_of_site("opening = { mon-fri = \"08:00-22:30\", fri = \"08:00-18:00\" }"),
        ["site.toml:4:38: `fri` says again what `mon-fri` says: fri, each day once would be right"]
    );
    assert_eq!(
        said_of_site("opening = { monn = \"closed\", mo-fr = \"24h\", sat = 9 }"),
        [
            "site.toml:4:13: `monn` is no day of the week, did you mean `mon`?",
            "site.toml:4:30: `mo-fr` is no day of the week, `mon` to `sun` or a range such as `mon-fri` would be \
             right",
            "site.toml:4:51: opening hours are a number, a text such as \"08:00-22:30\" would be right",
        ]
    );
    assert_eq!(
        said_of_site("opening = \"08:00-22:30\""),
        ["site.toml:4:11: `opening` is a text, { mon-fri = \"08:00-22:30\", sat = \"09:00-21:00\" } would be right"]
    );
    assert_eq!(
        said_of_site("closed = [\"25.12.2026\", 2026-12-26]\nhours = { 2026-12-26 = \"09:00-13:00\" }"),
        [
            "site.toml:4:11: `25.12.2026` is no date, a date such as \"2026-12-25\" would be right",
            "site.toml:5:11: 2026-12-26 is said twice, once in `closed` or `hours` would be right",
        ]
    );
}

#[test]
fn a_time_zone_is_needed_for_hours_and_found_by_its_city() {
    assert_eq!(
        said("[[site]]\nid = \"main\"\nopening = { mon = \"24h\" }\n"),
        [
            "site.toml:1:1: this [[site]] has no `time_zone`, a line such as `time_zone = \"Asia/Shanghai\"` would be right"
        ]
    );
    assert_eq!(
        said("[[site]]\nid = \"main\"\ntime_zone = \"new york\"\n"),
        ["site.toml:3:13: `new york` is no time zone, did you mean `America/New_York`?"]
    );
    assert_eq!(
        said("[[site]]\nid = \"main\"\ntime_zone = \"+08:00\"\n"),
        ["site.toml:3:13: `+08:00` is no time zone, an IANA name such as `Asia/Shanghai` would be right"]
    );
}

#[test]
fn a_seat_needs_no_device_and_other_shapes_are_refused() {
    let zone = "[[zone]]\nsite = \"main\"\nid = \"hall\"\n";
    let thing = |what: &str| format!("[[{what}]]\nsite = \"main\"\nzone = \"hall\"\nid = \"rr-1\"\n");
    assert_eq!(
        said_of_site(&[zone, &thing("seat"), &thing("device")].concat()),
        ["site.toml:14:6: `rr-1` is already the seat of line 10, a seat is a device by itself and needs no [[device]]"]
    );
    assert_eq!(
        said("zone = 3\nseat = [1]\n[site]\nid = \"main\"\n"),
        [
            "site.toml:1:8: `zone` is a number, a heading [[zone]] would be right",
            "site.toml:2:9: an entry of `seat` is a number, [[seat]] would be right",
            "site.toml:3:1: `site` is a table, a heading [[site]] would be right",
        ]
    );
    assert_eq!(
        said("[[site]]\nid = 3\nname = 4\n"),
        [
            "site.toml:2:6: `id` is a number, a text in quotes would be right",
            "site.toml:3:8: `name` is a number, \"Main Library\" or { en = \"Main Library\", zh = \"总馆\" } would \
             be right",
        ]
    );
}
