//! Messages of names that turn out to be one person's, and of those that do not any more.

use super::{House, pseudonym};
use crate::messages::MessageState;

const DESK: &str = "web/identify/desk";

/// Kind and state of each message of a name, and whose it is said to be.
fn of(house: &House, name: &str) -> Vec<(String, &'static str, bool)> {
    let person = house.perception.identity.aliases().resolve(&pseudonym(name)).to_owned();
    let messages = house.messages(name).into_iter();
    let mut all: Vec<_> = messages
        .map(|message| (message.kind, message.state.as_str(), message.person == person))
        .collect();
    all.sort();
    all
}

fn line(kind: &str, state: &'static str) -> (String, &'static str, bool) {
    (kind.to_owned(), state, true)
}

#[test]
fn messages_go_with_the_names_they_were_found_for() {
    let mut house = House::new();
    house.ask(0, "ann");
    house.ask(5, "bea");
    assert_eq!(house.hear(10, DESK, r#"{"person":"ann","also":"bea"}"#), [""; 0]);
    let both = of(&house, "ann");
    let (sent, withheld) = (line("seat_offer", "sent"), line("help_offer", "withheld"));
    assert_eq!(both, [withheld.clone(), withheld.clone(), sent.clone(), sent.clone()]);
    assert_eq!(both, of(&house, "bea"), "they are one person's");
    // Whatever name answers, it is the person's answer; the newest was found for the other one.
    assert_eq!(house.reply(20, "ann", "accepted"), ["seat_offer accepted"]);
    house.restart();
    // One of a day's two is left; what is found now is the person's.
    assert_eq!(
        house.hear(30, DESK, r#"{"person":"ann","also":"bea","action":"unlink"}"#),
        [""; 0]
    );
    assert_eq!(of(&house, "ann"), [withheld.clone(), sent]);
    assert_eq!(of(&house, "bea"), [withheld, line("seat_offer", "accepted")]);
    assert_eq!(house.reply(40, "ann", "opened"), ["seat_offer opened"]);
    let states: Vec<MessageState> = house.perception.messages.states().into_keys().collect();
    assert_eq!(
        states,
        [MessageState::Opened, MessageState::Accepted, MessageState::Withheld]
    );
}

#[test]
fn what_was_declined_holds_for_all_names_also_when_they_are_parted() {
    let mut house = House::new();
    for at in [0, 20] {
        house.ask(at, "ann");
        house.reply(at + 5, "ann", "declined");
    }
    house.hear(50, DESK, r#"{"person":"bea","also":"ann"}"#);
    assert_eq!(
        house.ask(60, "bea"),
        ["seat_offer withheld: declined_twice", "help_offer sent"]
    );
    house.hear(70, DESK, r#"{"person":"bea","also":"ann","action":"unlink"}"#);
    for (at, name) in [(900, "ann"), (930, "bea")] {
        let told = house.ask(at, name);
        assert!(
            told.contains(&"seat_offer withheld: declined_twice".to_owned()),
            "{told:?}"
        );
    }
}

#[test]
fn an_opt_out_under_one_name_takes_back_what_was_sent_to_any() {
    let mut house = House::new();
    house.ask(0, "ann");
    house.ask(5, "bea");
    house.hear(10, DESK, r#"{"person":"ann","also":"bea"}"#);
    let told = house.reply(20, "bea", "opted_out");
    assert_eq!(told, ["withdrawn: 2", "withdrawn: 2"], "under each name");
    assert_eq!((of(&house, "ann"), of(&house, "bea")), (vec![], vec![]));
    // Who is linked with somebody who has opted out has opted out.
    house.ask(30, "cleo");
    let told = house.hear(40, DESK, r#"{"person":"cleo","also":"bea"}"#);
    assert!(told.contains(&"withdrawn: 1".to_owned()), "{told:?}");
    house.restart();
    assert!(house.ask(50, "cleo").iter().all(|line| line.ends_with("refused")));
    assert_eq!(of(&house, "cleo"), vec![]);
}
