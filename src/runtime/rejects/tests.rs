//! What is kept of rejected messages, and what becomes of it.

use std::ops::Range;

use super::*;

fn message(position: i64) -> Rejected {
    Rejected {
        position,
        payload: Some(b"x".to_vec()),
        key: None,
        column: None,
        reason: "no".into(),
    }
}

fn messages(positions: Range<i64>) -> Vec<Rejected> {
    positions.map(message).collect()
}

/// Positions of changes with their weights.
fn shown(changes: &[DeltaBatch]) -> Vec<(i64, i64)> {
    let rows = changes.iter().flat_map(|change| {
        let offsets = change.rows().column(1).as_primitive::<Int64Type>();
        (0..change.len()).map(|row| (offsets.value(row), change.weight(row)))
    });
    rows.collect()
}

/// The positions that are kept; what is counted of them is right.
fn kept(rejects: &Rejects) -> Vec<i64> {
    let kept: Vec<Kept> = rejects.kept();
    assert_eq!(rejects.rows, kept.iter().map(|k| k.rows.len()).sum::<usize>());
    assert_eq!(rejects.bytes, kept.iter().map(Kept::bytes).sum::<usize>());
    kept.iter().flat_map(Kept::messages).map(|m| m.position).collect()
}

#[test]
fn the_oldest_rows_go_when_there_are_too_many() {
    let mut rejects = Rejects::new(Retention { rows: 3, ..Retention::default() });
    let first = rejects.add(0, &messages(0..2), 0).expect("rows");
    assert_eq!(shown(&first), [(0, 1), (1, 1)]);
    let more = rejects.add(0, &messages(2..4), 0).expect("rows");
    assert_eq!(shown(&more), [(2, 1), (3, 1), (0, -1)], "half of a batch");
    let many = rejects.add(0, &messages(4..9), 0).expect("rows");
    let gone = shown(&many).into_iter().filter(|(_, weight)| *weight < 0);
    assert_eq!(gone.map(|(at, _)| at).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!(kept(&rejects), [6, 7, 8]);
}

#[test]
fn the_oldest_rows_go_when_they_are_too_large() {
    let bytes = 2 * (MESSAGE_BYTES + 1);
    let mut rejects = Rejects::new(Retention { bytes, ..Retention::default() });
    rejects.add(0, &messages(0..3), 0).expect("rows");
    assert_eq!(kept(&rejects), [1, 2]);
    let large = Rejected { payload: Some(vec![0; bytes]), ..message(3) };
    rejects.add(0, &[large], 0).expect("rows");
    assert!(kept(&rejects).is_empty(), "what is too large by itself is counted alone");
    rejects.add(0, &[message(4)], 0).expect("rows");
    assert_eq!(kept(&rejects), [4]);
}

#[test]
fn rows_go_when_their_time_is_over() {
    let retention = Retention { time: Duration::from_micros(10), ..Retention::default() };
    let mut rejects = Rejects::new(retention);
    rejects.add(0, &messages(0..2), 5).expect("rows");
    rejects.add(0, &messages(2..3), 8).expect("rows");
    assert!(!rejects.is_due(14) && rejects.expire(14).is_empty());
    assert!(rejects.is_due(15));
    assert_eq!(shown(&rejects.expire(17)), [(0, -1), (1, -1)]);
    assert_eq!(rejects.marks().len(), 1);
    assert_eq!(shown(&rejects.expire(18)), [(2, -1)]);
    assert!(kept(&rejects).is_empty() && rejects.marks().is_empty());
}

#[test]
fn marks_are_few_however_many_messages_come() {
    let retention = Retention { time: Duration::from_micros(6_400), ..Retention::default() };
    let mut rejects = Rejects::new(retention);
    for at in 0..10_050 {
        rejects.expire(at);
        rejects.add((at % 3) as SplitId, &[message(at)], at).expect("rows");
    }
    assert!(rejects.marks().len() <= SPANS as usize + 2, "{}", rejects.marks().len());
    let (at, to) = rejects.marks().pop().expect("a mark");
    let behind = [(0, 10_048), (1, 10_049), (2, 10_050)];
    assert_eq!((at, to), (10_049, behind.into_iter().collect()));
}

/// Of messages that were decoded again, rows for all but those at some places.
fn again(of: &Kept, failed: &[usize]) -> Retried {
    let messages = of.messages();
    let still =
        |place: &usize| (*place, Rejected { reason: "still".into(), ..messages[*place].clone() });
    let decoded = messages.iter().enumerate().filter(|(place, _)| !failed.contains(place));
    let values: ArrayRef = Arc::new(Int64Array::from_iter_values(decoded.map(|(_, m)| m.position)));
    let rows = RecordBatch::try_from_iter([("a", values)]).expect("a column");
    let rejected = failed.iter().map(still).collect();
    Retried { kept: of.clone(), again: Again { rows, rejected } }
}

#[test]
fn what_is_decoded_again_goes_and_the_rest_stays_with_its_reason() {
    let mut rejects = Rejects::new(Retention { rows: 5, ..Retention::default() });
    rejects.add(0, &messages(0..4), 0).expect("rows");
    let of = rejects.kept();
    // The two oldest go before the result comes: one that has become a row, and one that has not.
    rejects.add(1, &messages(7..10), 0).expect("rows");
    assert_eq!(kept(&rejects), [2, 3, 7, 8, 9]);
    let (changes, rows) = rejects.retried(again(&of[0], &[1, 3])).expect("rows");
    assert_eq!(shown(&changes), [(2, -1), (3, -1), (3, 1)]);
    assert_eq!(rows.column(0).as_primitive::<Int64Type>().values().to_vec(), [2]);
    assert_eq!(kept(&rejects), [3, 7, 8, 9]);
    assert_eq!(rejects.kept()[0].messages()[0].reason, "still");
    // A second result for the same messages finds what is left of them.
    let of = rejects.kept();
    let (_, rows) = rejects.retried(again(&of[0], &[])).expect("rows");
    assert_eq!((rows.num_rows(), kept(&rejects)), (1, vec![7, 8, 9]));
    let (changes, rows) = rejects.retried(again(&of[0], &[])).expect("rows");
    assert_eq!((changes.len(), rows.num_rows()), (0, 0), "it is gone");
}

#[test]
fn what_is_read_again_is_forgotten() {
    let mut rejects = Rejects::new(Retention::default());
    rejects.add(0, &messages(0..4), 0).expect("rows");
    rejects.add(1, &messages(0..2), 0).expect("rows");
    let changes = rejects.forget_from(&[(0, 2)].into());
    assert_eq!(shown(&changes), [(2, -1), (3, -1)]);
    assert_eq!(kept(&rejects), [0, 1, 0, 1]);
}
