//! Who is who by links, worked out by hand and against a plain search over all that was said.

use std::collections::BTreeSet;
use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Group, Identity, IdentityTable, NAMES_MAX, Regrouping};
use crate::capture::{Capture, Parts};

fn name(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn group(person: &str, names: &[&str]) -> Group {
    Group {
        person: name(person),
        names: names.iter().map(|text| name(text)).collect(),
    }
}

fn said(identity: &mut Identity, is_link: bool, person: &str, also: &str) -> Option<Regrouping> {
    match is_link {
        true => identity.link(&name(person), &name(also)),
        false => identity.unlink(&name(person), &name(also)),
    }
}

/// A person is called by the `person` of the first link, also where later ones bring others along.
#[test]
fn a_person_is_called_by_the_first_link_that_stands() {
    let mut identity = Identity::new();
    let first = said(&mut identity, true, "card", "tag").expect("two become one");
    assert_eq!(first.before, [group("card", &["card"]), group("tag", &["tag"])]);
    assert_eq!(first.after, [group("card", &["card", "tag"])]);
    assert_eq!(said(&mut identity, true, "card", "tag"), None, "it was said before");
    assert_eq!(
        said(&mut identity, true, "tag", "card"),
        None,
        "nor does it matter which is which"
    );
    assert_eq!(said(&mut identity, true, "card", "card"), None, "with itself");
    // A chain: the login brings another device along, and is then found to be the card's.
    said(&mut identity, true, "web", "phone");
    let both = said(&mut identity, true, "web", "tag").expect("two become one");
    assert_eq!(both.after, [group("card", &["card", "phone", "tag", "web"])]);
    assert_eq!(both.gone().collect::<Vec<_>>(), [&name("web")]);
    assert_eq!(identity.aliases().resolve("phone"), "card");
    assert_eq!(identity.aliases().also("card"), 3);
    // A cycle says nothing new.
    assert_eq!(said(&mut identity, true, "phone", "card"), None);
    assert_eq!(identity.links(), 4);
}

#[test]
fn an_unlink_parts_the_two_whatever_else_connects_them() {
    let mut identity = Identity::new();
    for (person, also) in [("card", "tag"), ("tag", "web"), ("web", "phone")] {
        said(&mut identity, true, person, also);
    }
    // What hangs on the name that leaves goes with it, where nothing else holds it.
    let parted = said(&mut identity, false, "card", "tag").expect("one becomes two");
    assert_eq!(parted.before, [group("card", &["card", "phone", "tag", "web"])]);
    assert_eq!(
        parted.after,
        [group("card", &["card"]), group("tag", &["phone", "tag", "web"])]
    );
    assert_eq!(said(&mut identity, false, "card", "tag"), None, "they are not one");
    // In a circle the name leaves with both its links.
    for (person, also) in [("card", "tag"), ("card", "phone")] {
        said(&mut identity, true, person, also);
    }
    let parted = said(&mut identity, false, "phone", "tag").expect("one becomes two");
    assert_eq!(
        parted.after,
        [group("web", &["card", "phone", "web"]), group("tag", &["tag"])]
    );
    assert_eq!(said(&mut identity, false, "nobody", "web"), None);
}

/// Nothing remembers a link that was taken back: how persons are called follows from those that stand.
#[test]
fn a_link_that_was_taken_back_was_never_there() {
    let mut identity = Identity::new();
    said(&mut identity, true, "card", "tag");
    said(&mut identity, true, "old", "card");
    let parted = said(&mut identity, false, "card", "tag").expect("one becomes two");
    assert_eq!(parted.after, [group("old", &["card", "old"]), group("tag", &["tag"])]);
    let moves: Vec<_> = parted
        .moves()
        .map(|(name, from, to)| format!("{name} {from} {to}"))
        .collect();
    assert_eq!(moves, ["card card old", "old card old", "tag card tag"]);
}

#[test]
fn a_person_has_so_many_names_and_no_more() {
    let mut identity = Identity::new();
    for number in 1..NAMES_MAX {
        said(&mut identity, true, "card", &format!("web-{number}"));
    }
    assert_eq!(
        (identity.aliases().also("card"), identity.refused()),
        (NAMES_MAX - 1, 0)
    );
    assert_eq!(said(&mut identity, true, "card", "one-more"), None);
    assert_eq!(
        (identity.aliases().also("card"), identity.refused()),
        (NAMES_MAX - 1, 1)
    );
    // What is one person already may be linked as often as one likes.
    said(&mut identity, true, "web-1", "web-2");
    assert_eq!((identity.links(), identity.refused()), (NAMES_MAX, 1));
}

#[test]
fn what_the_table_says_is_what_differs_from_what_it_said() {
    let table = |links: &[(&str, &str)]| {
        let links = links.iter().map(|(person, also)| (name(person), name(also)));
        IdentityTable(links.collect())
    };
    let mut identity = Identity::new();
    let change = identity.differences(&table(&[("zoe", "tag"), ("ada", "web")]));
    assert_eq!(change.link, [(name("zoe"), name("tag")), (name("ada"), name("web"))]);
    for (person, also) in &change.link {
        identity.link(person, also);
        identity.note_in_table(person, also, true);
    }
    // Staff has taken one back meanwhile: the table does not say it again.
    said(&mut identity, false, "zoe", "tag");
    assert_eq!(
        identity.differences(&table(&[("zoe", "tag"), ("ada", "web")])),
        Default::default()
    );
    let change = identity.differences(&table(&[("ada", "web")]));
    assert_eq!((change.link, change.unlink), (vec![], vec![(name("zoe"), name("tag"))]));
    let parts = identity.differences(&table(&[("ben", "x")])).in_parts();
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[0].unlink.len(), 2, "what goes first");
}

fn restored(identity: &mut Identity) -> Identity {
    identity.capture_anew();
    let mut capture = Capture::default();
    identity.capture(&mut capture);
    let parts = capture.written().expect("it can be written").into_iter();
    let parts = parts.map(|change| usher_connectors::checkpoint::Part {
        name: change.name,
        segments: change.segments,
    });
    let mut again = Identity::new();
    again.restore(&Parts::new(parts.collect())).expect("it can be read");
    again
}

/// Who is connected, by a plain search over the links that should stand.
fn connected(links: &[(usize, usize)], from: usize) -> BTreeSet<usize> {
    let mut all = BTreeSet::from([from]);
    loop {
        let before = all.len();
        for (one, other) in links {
            if all.contains(one) || all.contains(other) {
                all.extend([*one, *other]);
            }
        }
        if all.len() == before {
            return all;
        }
    }
}

#[test]
fn random_links_and_unlinks_are_what_a_plain_search_finds() {
    for seed in 0..200 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut identity = Identity::new();
        let mut links: Vec<(usize, usize)> = Vec::new();
        for step in 0..60 {
            let (person, also) = (random.random_range(0..8), random.random_range(0..8));
            let is_link = random.random_bool(0.6);
            said(&mut identity, is_link, &format!("n{person}"), &format!("n{also}"));
            let is = |link: &(usize, usize)| *link == (person, also) || *link == (also, person);
            match is_link {
                true if person != also && !links.iter().any(is) => links.push((person, also)),
                false if person != also && connected(&links, person).contains(&also) => {
                    links.retain(|link| !is(link));
                    if connected(&links, person).contains(&also) {
                        links.retain(|(one, other)| *one != also && *other != also);
                    }
                }
                _ => {}
            }
            if random.random_bool(0.1) {
                identity = restored(&mut identity);
            }
            for number in 0..8 {
                let names = connected(&links, number);
                let first = links.iter().find(|(one, _)| names.contains(one));
                let person = name(&format!("n{}", first.map_or(number, |(person, _)| *person)));
                let own = name(&format!("n{number}"));
                assert_eq!(*identity.aliases().person(&own), person, "seed {seed}, step {step}");
                let names: Vec<Arc<str>> = names.iter().map(|number| name(&format!("n{number}"))).collect();
                assert_eq!(identity.aliases().names(&person), names, "seed {seed}, step {step}");
            }
        }
    }
}
