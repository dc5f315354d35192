//! Taking a name out of what is said of somebody else.

use serde_json::Value;

/// Puts null in the place of texts that name somebody, at any depth; true where there was one.
pub fn forget_in(value: &mut Value, is_named: &dyn Fn(&str) -> bool) -> bool {
    match value {
        Value::String(text) if is_named(text) => {
            *value = Value::Null;
            true
        }
        Value::Array(items) => forget_in_each(items.iter_mut(), is_named),
        Value::Object(members) => forget_in_each(members.values_mut(), is_named),
        _ => false,
    }
}

/// In all of them, also behind the first that named somebody.
fn forget_in_each<'v>(values: impl Iterator<Item = &'v mut Value>, is_named: &dyn Fn(&str) -> bool) -> bool {
    let mut is_any = false;
    for value in values {
        is_any |= forget_in(value, is_named);
    }
    is_any
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::forget_in;

    #[test]
    fn names_go_and_all_else_stays() {
        let is_named = |text: &str| text.contains("ann");
        let mut value = json!({ "by": "ann", "who": ["bob", { "and": "ann, bob" }], "n": 4 });
        assert!(forget_in(&mut value, &is_named));
        assert_eq!(value, json!({ "by": null, "who": ["bob", { "and": null }], "n": 4 }));
        assert!(!forget_in(&mut value, &is_named));
    }
}
