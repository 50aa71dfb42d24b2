//! An attempt in one line.

use crate::history::{Attempt, Grant, Response};

/// An attempt as one line, its times counted from that moment.
pub(crate) fn told(attempt: &Attempt, moment: u64) -> String {
    let Attempt { worker, mode, asked, answer, .. } = attempt;
    let time = |time: u64| {
        let (sign, nanos) = if time < moment { ('-', moment - time) } else { ('+', time - moment) };
        format!("{sign}{}.{:03}", nanos / 1000, nanos % 1000)
    };
    let ended = |end: Option<u64>, never: &str| end.map_or_else(|| never.to_owned(), time);
    let answer = match answer {
        Response::Unknown { .. } => "the answer is not known".to_owned(),
        Response::NotHad { at, waited: true } => format!("its time was over {}", time(*at)),
        Response::NotHad { at, waited: false } => format!("refused {}", time(*at)),
        Response::Granted(Grant { at, token, believed_until, released, .. }) => format!(
            "granted {} with token {token}, believed until {}, given back {}",
            time(*at),
            ended(*believed_until, "the end"),
            ended(*released, "never, since it was lost or that failed")
        ),
    };
    format!("{worker} {mode:?}: asked {}, {answer}", time(*asked))
}
