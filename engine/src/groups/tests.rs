//! Groups are read as identities are, and are those of persons, whatever names these have.

use std::path::Path;
use std::sync::Arc;

use usher_queries::rows::batch_to_json;

use super::Groups;
use crate::erasure::Who;
use crate::fixture;
use crate::identity::{Aliases, Identity};

fn name(raw: &str) -> Arc<str> {
    Arc::clone(fixture::secret().person(raw).shared())
}

fn read(text: &str) -> Result<Groups, Vec<String>> {
    let groups = Groups::read(Path::new("groups.csv"), text, &fixture::secret());
    groups.map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect())
}

/// Person and group of each row.
fn rows(groups: &Groups, aliases: &Aliases) -> Vec<(String, String)> {
    let rows = batch_to_json(&groups.memberships(aliases)).into_iter();
    let text = |value: &serde_json::Value| value.as_str().expect("it is a text").to_owned();
    let mut rows: Vec<(String, String)> = rows.map(|row| (text(&row["person"]), text(&row["group_id"]))).collect();
    rows.sort();
    rows
}

fn expected<const N: usize>(rows: [(&str, &str); N]) -> Vec<(String, String)> {
    let mut rows = rows.map(|(person, group)| (name(person).to_string(), group.to_owned()));
    rows.sort();
    rows.to_vec()
}

#[test]
fn people_may_be_in_several_groups_and_are_in_each_once() {
    let text = format!(
        "group,person\nHIS-101,ada\nHIS-101,{}\nART-2,ada\nHIS-101,ben\n",
        name("ada")
    );
    let groups = read(&text).expect("it is right");
    let all = expected([("ada", "HIS-101"), ("ada", "ART-2"), ("ben", "HIS-101")]);
    assert_eq!(rows(&groups, &Aliases::default()), all);
    assert_eq!(groups.of(&[name("ada")]), ["ART-2", "HIS-101"]);
    assert_eq!(read(""), Ok(Groups::default()));
}

#[test]
fn a_mistake_has_its_place_and_names_nobody() {
    for (text, expected) in [
        (
            "person,course\nada,HIS-101\n",
            "1:8: there is no such column, the header person,group would be right",
        ),
        (
            "person,group\nada,\n",
            "2:5: `group` is empty, the id of a course or another group would be right",
        ),
        (
            "person,group\n,HIS-101\n",
            "2:1: `person` is empty, a card, a tag or a login as devices send it would be right",
        ),
        (
            "group,person\nHIS-101,ada\nHIS-101, p_SECRET\n",
            "3:9: what begins with p_ is no pseudonym, p_ and 26 letters a to z and digits 2 to 7, as messages have it, or a name \
             as devices send it would be right",
        ),
        (
            "person,group\nada\n",
            "2:4: the row has 1 value, one for each of the 2 columns would be right",
        ),
    ] {
        assert_eq!(read(text), Err(vec![format!("groups.csv:{expected}")]), "{text}");
    }
}

#[test]
fn a_person_of_several_names_is_in_the_groups_of_all_of_them() {
    let mut groups = read("person,group\ncard,HIS-101\nlogin,HIS-101\nlogin,ART-2\nben,ART-2\n").expect("it is right");
    let mut identity = Identity::new();
    let linked = identity.link(&name("card"), &name("login")).expect("they were two");
    groups.regroup(&linked);
    assert!(groups.is_stale());
    let of_one = expected([("card", "HIS-101"), ("card", "ART-2"), ("ben", "ART-2")]);
    assert_eq!(rows(&groups, identity.aliases()), of_one);
    let others = identity.link(&name("cleo"), &name("dana")).expect("they were two");
    groups.regroup(&others);
    assert!(!groups.is_stale(), "nobody of them is in a group");
    let parted = identity.unlink(&name("card"), &name("login")).expect("they were one");
    groups.regroup(&parted);
    assert!(groups.is_stale());
    let of_two = expected([
        ("card", "HIS-101"),
        ("login", "HIS-101"),
        ("login", "ART-2"),
        ("ben", "ART-2"),
    ]);
    assert_eq!(rows(&groups, identity.aliases()), of_two);
}

#[test]
fn whoever_is_erased_is_in_no_group() {
    let mut groups = read("person,group\ncard,HIS-101\nlogin,ART-2\nben,ART-2\n").expect("it is right");
    groups.erase(&Who::known(&[name("card"), name("login")]));
    assert_eq!(rows(&groups, &Aliases::default()), expected([("ben", "ART-2")]));
}
