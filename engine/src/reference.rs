//! What queries are told of the place: the reference tables zones, seats and devices, and when sites are open. And that of
//! memberships, which has no rows yet.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use rustc_hash::FxHashMap;
use usher_queries::query_set::QuerySet;

use crate::groups::{Groups, MEMBERSHIPS};
use crate::identity::Aliases;
use crate::site::Places;
use crate::site_hours::SiteHours;

/// Hands `zones`, `seats`, `devices` and the opening hours to the queries; again whenever the place changes.
///
/// `zones`: site, zone, name, name_zh, capacity (a float, so that a share is one), parent, role, seats (how many of
/// `seats` are in it). `seats`: site, zone, seat. `devices`: site, zone, device, kind, role; a seat is a device of kind `seat`.
/// `memberships`: person, group_id.
pub fn set_references(queries: &mut QuerySet, places: &Places) {
    queries.set_opening_hours(SiteHours::of(places));
    queries.set_reference("zones", zones(places));
    queries.set_reference("seats", seats(places));
    queries.set_reference("devices", devices(places));
    // Nobody is in a group until somebody says so.
    queries.set_reference(MEMBERSHIPS, Groups::default().memberships(&Aliases::default()));
}

fn table(columns: Vec<(&str, bool, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, nullable, column)| Field::new(*name, column.data_type().clone(), *nullable))
        .collect();
    let columns = columns.into_iter().map(|(_, _, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
        .expect("the columns are as long as the place has parts")
}

fn text<'a>(values: impl Iterator<Item = &'a str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn optional_text<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn zones(places: &Places) -> RecordBatch {
    let all = || places.zones();
    let mut seats: FxHashMap<(&str, &str), i64> = FxHashMap::default();
    for seat in places.seats() {
        *seats.entry((&seat.site, &seat.zone)).or_default() += 1;
    }
    let seats = all().map(|zone| seats.get(&(zone.site.as_str(), zone.id.as_str())).copied().unwrap_or(0));
    table(vec![
        ("site", false, text(all().map(|zone| zone.site.as_str()))),
        ("zone", false, text(all().map(|zone| zone.id.as_str()))),
        ("name", false, text(all().map(|zone| zone.name.in_language("en")))),
        ("name_zh", false, text(all().map(|zone| zone.name.in_language("zh")))),
        (
            "capacity",
            true,
            Arc::new(all().map(|zone| zone.capacity.map(f64::from)).collect::<Float64Array>()),
        ),
        ("parent", true, optional_text(all().map(|zone| zone.parent.as_deref()))),
        ("role", true, optional_text(all().map(|zone| zone.role.as_deref()))),
        ("seats", false, Arc::new(Int64Array::from_iter_values(seats))),
    ])
}

fn seats(places: &Places) -> RecordBatch {
    let all = || places.seats();
    table(vec![
        ("site", false, text(all().map(|seat| seat.site.as_str()))),
        ("zone", false, text(all().map(|seat| seat.zone.as_str()))),
        ("seat", false, text(all().map(|seat| seat.id.as_str()))),
    ])
}

fn devices(places: &Places) -> RecordBatch {
    let named = || places.devices();
    let seats = || places.seats();
    let kinds = optional_text(
        named()
            .map(|device| device.kind.as_deref())
            .chain(seats().map(|_| Some("seat"))),
    );
    debug_assert_eq!(kinds.data_type(), &DataType::Utf8);
    table(vec![
        (
            "site",
            false,
            text(
                named()
                    .map(|device| device.site.as_str())
                    .chain(seats().map(|seat| seat.site.as_str())),
            ),
        ),
        (
            "zone",
            false,
            text(
                named()
                    .map(|device| device.zone.as_str())
                    .chain(seats().map(|seat| seat.zone.as_str())),
            ),
        ),
        (
            "device",
            false,
            text(
                named()
                    .map(|device| device.id.as_str())
                    .chain(seats().map(|seat| seat.id.as_str())),
            ),
        ),
        ("kind", true, kinds),
        (
            "role",
            true,
            optional_text(
                named()
                    .map(|device| device.role.as_deref())
                    .chain(seats().map(|_| None)),
            ),
        ),
    ])
}
