//! Mistakes in mappings, with their places.

use super::*;

const GOOD: &str = r#"name = "doors"
files = ["doors-*.csv"]
[delimited]
delimiter = ";"
header = "names"
columns = ["when", "n"]
[time]
columns = ["when"]
formats = ["%Y-%m-%d %H:%M:%S"]
zone = "Europe/Berlin"
[[emit]]
topic = "usher/in/a/b/gate/{stem}"
[emit.payload]
in = { column = "n", type = "int" }
"#;

fn check(from: &str, to: &str, expected: &str) {
    assert!(GOOD.contains(from), "the text to change is there");
    let mistakes = Mapping::read(Path::new("m.toml"), &GOOD.replacen(from, to, 1)).expect_err("a mistake");
    assert_eq!(mistakes[0].to_string(), expected);
}

#[test]
fn every_shipped_mapping_is_read() {
    assert_eq!(Mappings::shipped().names().count(), SHIPPED.len());
}

#[test]
fn a_good_mapping_is_found_by_the_name_of_a_file() {
    let mut mappings = Mappings::default();
    mappings.add(Mapping::read(Path::new("m.toml"), GOOD).expect("good"));
    assert!(mappings.for_file("doors-1.csv").is_some());
    assert!(mappings.for_file("doors-1.txt").is_none());
    assert!(matches("a*b*c", "a-b-b-c") && !matches("a*b", "a-c"));
}

#[test]
fn a_mistake_has_its_place_and_says_what_would_be_right() {
    check(
        r#"zone = "Europe/Berlin""#,
        r#"zone = "Europe/Belrin""#,
        "m.toml:10:8: there is no time zone `Europe/Belrin`, did you mean `Europe/Berlin`?",
    );
    check(
        r#"column = "n""#,
        r#"column = "m""#,
        "m.toml:14:17: there is no column `m`, there is `when`, `n`, `file`, `stem`, `row`",
    );
    check(
        "{stem}",
        "{stm}",
        "m.toml:12:9: there is no column `stm`, did you mean `stem`?",
    );
    check(
        "{stem}",
        "+",
        "m.toml:12:9: the topic holds a wildcard, levels are names and not `+` or `#`",
    );
    check(
        "/{stem}",
        "",
        "m.toml:12:9: the topic has 5 levels, usher/in/{site}/{zone}/{kind}/{device} was expected",
    );
    check(
        r#"header = "names""#,
        r#"header = "nams""#,
        "m.toml:5:10: unknown variant `nams`, expected one of `names`, `skip`, `none`",
    );
    check(
        "[time]",
        "[time]\nzones = 1",
        "m.toml:8:1: unknown field `zones`, expected one of `columns`, `formats`, `epoch`, `zone`, `day`, `invent`",
    );
    check(
        "%M:%S",
        "%M:%Q",
        "m.toml:9:12: the format holds something unknown, strftime marks such as %Y-%m-%d %H:%M:%S were expected",
    );
    check(
        " %H:%M:%S",
        "",
        "m.toml:9:12: the format has no time of day, %H:%M or an `invent` would be right",
    );
    check(
        "zone = \"Europe/Berlin\"\n",
        "",
        "m.toml:9:12: the format has no offset and there is no zone, %z in the format or a `zone` would be right",
    );
    check(
        "[delimited]",
        "[lines]\npattern = '(?<a>.'\n[delimited]",
        "m.toml:1:8: the form of the file is not told, or told twice, either [delimited] or [lines] was expected",
    );
    check(
        "type = \"int\"",
        "lookup = \"names\"",
        "m.toml:14:31: there is no lookup `names`, there is none here",
    );
}
