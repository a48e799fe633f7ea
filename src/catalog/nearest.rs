//! Names that are written almost alike, for hints.

/// The name that differs in the fewest letters, if they are few.
pub(crate) fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let close = names.into_iter().map(|n| (distance(name, n), n));
    let close = close.filter(|(d, n)| *d <= 2 && *d * 2 < name.len().min(n.len()).max(2));
    close.min_by_key(|(d, _)| *d).map(|(_, n)| n)
}

/// How many letters must be changed, added or taken out.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let next = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], next);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_letters_differ() {
        let names = ["accounts", "orders", "id"];
        assert_eq!(nearest("acounts", names), Some("accounts"));
        assert_eq!(nearest("ordres", names), Some("orders"));
        assert_eq!(nearest("ad", names), None);
        assert_eq!(nearest("customers", names), None);
    }
}
