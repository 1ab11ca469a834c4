//! Times as people read them.

use crate::clock::Timestamp;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// One moment, for a machine and for a person.
pub(super) struct Date {
    pub(super) machine: String,
    pub(super) person: String,
}

impl Date {
    /// Whole minutes in UTC: the page does not know where its reader is.
    pub(super) fn of(moment: Timestamp) -> Self {
        let machine = moment.to_string();
        let person = written_out(&machine).unwrap_or_else(|| machine.clone());
        Self { machine, person }
    }
}

fn written_out(rfc3339: &str) -> Option<String> {
    let (date, time) = rfc3339.split_once('T')?;
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let month = MONTHS.get(month.parse::<usize>().ok()?.checked_sub(1)?)?;
    Some(format!("{} {month} {year}, {} UTC", day.trim_start_matches('0'), time.get(..5)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_out() {
        let date = Date::of(Timestamp::from_secs(1_795_439_111));
        assert_eq!(date.machine, "2026-11-23T13:05:11Z");
        assert_eq!(date.person, "23 November 2026, 13:05 UTC");
        assert_eq!(Date::of(Timestamp::from_secs(0)).person, "1 January 1970, 00:00 UTC");
    }
}
