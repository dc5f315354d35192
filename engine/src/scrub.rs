//! Scrubbing takes out of free text what looks like a person: addresses, card numbers, parameters of pages.

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// An e-mail address, roughly: what has an @ between two words is not a search for a book.
static EMAIL: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[^\s@]+@[^\s@]+").expect("the pattern is right"));
/// Eight digits or more, with blanks or dashes between them.
static DIGITS: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\d(?:[ -]?\d){7,}[xX]?").expect("the pattern is right"));

/// What was searched for, with addresses and long numbers replaced by `…`. ISBNs stay, because readers search by them.
pub fn query(text: &str) -> String {
    let text = EMAIL.replace_all(text, "…");
    DIGITS
        .replace_all(&text, |found: &Captures<'_>| {
            if is_isbn(&found[0]) {
                found[0].to_owned()
            } else {
                "…".to_owned()
            }
        })
        .into_owned()
}

/// A page without its parameters, where people's names and tokens stand.
pub fn page(text: &str) -> String {
    text.split(['?', '#']).next().unwrap_or("").to_owned()
}

/// ISBN-10 or ISBN-13 with a right check digit: a card number passes for one by chance once in eleven times at most,
/// and only with the right length and beginning.
fn is_isbn(text: &str) -> bool {
    let digits: Vec<u32> = text
        .chars()
        .filter(|c| !matches!(c, ' ' | '-'))
        .map(|c| {
            if matches!(c, 'x' | 'X') {
                10
            } else {
                c.to_digit(10).unwrap_or(11)
            }
        })
        .collect();
    let weighted = |weights: &[u32]| -> u32 { digits.iter().zip(weights).map(|(digit, weight)| digit * weight).sum() };
    match digits.len() {
        10 => weighted(&[10, 9, 8, 7, 6, 5, 4, 3, 2, 1]) % 11 == 0,
        13 => {
            digits[0] == 9
                && digits[1] == 7
                && matches!(digits[2], 8 | 9)
                && weighted(&[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1]) % 10 == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{page, query};

    #[test]
    fn people_are_taken_out_and_books_stay() {
        assert_eq!(query("rust programming 2nd ed. 2023"), "rust programming 2nd ed. 2023");
        assert_eq!(query("write to ada@lib.example now"), "write to … now");
        assert_eq!(query("card 2100 1234 5678 90"), "card …");
        assert_eq!(query("isbn 978-0-13-110362-7"), "isbn 978-0-13-110362-7");
        assert_eq!(query("0131103628"), "0131103628");
        assert_eq!(query("978-0-13-110362-8"), "…", "a wrong check digit is no ISBN");
        assert_eq!(query("tel 13800138000"), "tel …");
        assert_eq!(page("/record/9?user=ada#top"), "/record/9");
    }
}
