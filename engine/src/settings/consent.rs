//! `[consent]`: what holds of persons who decided nothing.

use toml::de::DeValue;
use usher_queries::purpose::Purpose;

use super::layers::{Layers, Raw, Refusal};
use crate::consent::Purposes;
use crate::position::instead;

impl Layers<'_> {
    pub(super) fn consent(&mut self) -> Purposes {
        self.one("consent.without_consent", purposes)
    }
}

fn purposes(raw: &Raw<'_>) -> Result<Purposes, Refusal> {
    let right = "purposes such as [\"service\", \"recognition\"], or [] for none, would be right";
    let names: Option<Vec<String>> = match raw {
        Raw::Toml(DeValue::Array(values)) => {
            let texts = values.iter().map(|value| value.get_ref().as_str().map(str::to_owned));
            texts.collect()
        }
        // A variable has them with commas between.
        Raw::Text(text) => {
            let names = text
                .split(',')
                .map(|name| name.trim().trim_matches(['[', ']', '"', ' ']).to_owned());
            Some(names.filter(|name| !name.is_empty()).collect())
        }
        Raw::Toml(_) => None,
    };
    let Some(names) = names else {
        return Err((format!("{} is no list of purposes", raw.shown()), right.to_owned()));
    };
    let purpose = |name: &String| {
        Purpose::from_name(name).ok_or_else(|| {
            let known = Purpose::ALL.map(Purpose::as_str);
            (format!("there is no purpose `{name}`"), instead(name, known))
        })
    };
    let purposes: Purposes = names.iter().map(purpose).collect::<Result<_, _>>()?;
    if purposes != Purposes::NONE && !purposes.has(Purpose::Recognition) {
        let wrong = format!(
            "who is not recognised can be in no {}",
            purposes.to_string().replace(' ', " or ")
        );
        return Err((
            wrong,
            "`recognition` among them, or [] for none, would be right".to_owned(),
        ));
    }
    Ok(purposes)
}
